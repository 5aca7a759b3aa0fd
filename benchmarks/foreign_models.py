"""Segmentation networks that other people wrote, small and with random weights; nothing is downloaded.

The wiring is theirs; only widths are smaller than usual where a network takes them as arguments, because
Ablation-CAM by hand takes as many passes as a layer has channels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Network:
    """What makes a network, and the pictures that it takes.

    ``adopt`` are the arguments of `seglens.adopt` for a checkpoint of one that Seglens builds, too. With
    ``refused`` it is one that no map can be made of: the words that the refusal must hold.
    """

    make: Callable[[], nn.Module]
    size: int = 64
    channels: int = 3
    adopt: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


ENCODERS = (
    "tu-test_resnet", "tu-test_convnext", "tu-test_efficientnet", "tu-mobilenetv2_035", "tu-ghostnet_050",
    "tu-edgenext_xx_small",
)  # fmt: skip
DILATED = (*ENCODERS[:4], "tu-tinynet_e", "tu-semnasnet_050")
"""For architectures that dilate the encoder, which GhostNet and EdgeNeXt refuse."""

FIVE = {"decoder_channels": (32, 24, 16, 12, 8)}
SMP: dict[str, dict[str, Any]] = {
    "Unet": FIVE,
    "UnetPlusPlus": FIVE,
    "MAnet": FIVE | {"decoder_pab_channels": 16},
    "Linknet": {},
    "FPN": {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32},
    "PSPNet": {"psp_out_channels": 32},
    "DeepLabV3": {"decoder_channels": 32},
    "DeepLabV3Plus": {"decoder_channels": 32},
    "PAN": {},
    "UPerNet": {"decoder_channels": 32},
    "Segformer": {"decoder_segmentation_channels": 32},
}
ZOO = {"Unet": "resnet-unet"}
"""What Seglens calls an architecture, where that isn't its name in lower case."""

DPT = {"decoder_fusion_channels": 32, "decoder_intermediate_channels": (32,) * 4}
VITS = (
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "test_vit", "test_vit2", "test_vit4",
    "vit_wee_patch16_reg1_gap_256",
)  # fmt: skip


def of_smp(name: str, encoder: str, **settings: Any) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)(encoder, encoder_weights=None, classes=2, **settings)


def smp(name: str, encoder: str, size: int = 64, **settings: Any) -> Network:
    adopt = {"model": ZOO.get(name, name.lower()), "encoder": encoder, "options": settings}
    own = {"dynamic_img_size": True} if name == "DPT" else {}
    return Network(lambda: of_smp(name, encoder, **settings, **own), size, adopt=adopt)


def monai(name: str, *given: Any, refused: str = "", **named: Any) -> Network:
    def make() -> nn.Module:
        from monai.networks import nets

        return getattr(nets, name)(*given, **named)

    return Network(make, refused=refused)


def of_torchvision(kind: str) -> nn.Module:
    """Its heads on its backbones with a share of their channels, put together as its own functions do."""
    from torchvision.models import mobilenetv3, resnet, segmentation
    from torchvision.models._utils import IntermediateLayerGetter

    if kind.endswith("resnet"):

        class Narrow(resnet.Bottleneck):
            expansion = 1

        whole = resnet.ResNet(Narrow, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True])
        backbone = IntermediateLayerGetter(whole, {"layer3": "aux", "layer4": "out"})
        aux = segmentation.fcn.FCNHead(256, 2)
        if kind == "fcn_resnet":
            return segmentation.fcn.FCN(backbone, segmentation.fcn.FCNHead(512, 2), aux)
        head = segmentation.deeplabv3.DeepLabHead(512, 2, (2, 4, 6))
        return segmentation.deeplabv3.DeepLabV3(backbone, head, aux)
    network = mobilenetv3.mobilenet_v3_large(weights=None, width_mult=0.25, reduced_tail=True, dilated=True)
    if kind == "lraspp_mobilenet_v3_large":
        return segmentation.lraspp._lraspp_mobilenetv3(network, 2)
    return segmentation.deeplabv3._deeplabv3_mobilenetv3(network, 2, aux=True)


def of_nnunet(name: str, *, deep_supervision: bool = False) -> nn.Module:
    from dynamic_network_architectures.architectures import unet

    norm = {"norm_op": nn.InstanceNorm2d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    return getattr(unet, name)(
        3, 4, (8, 16, 16, 16), nn.Conv2d, 3, (1, 2, 2, 2), 2, 2, 2, **norm, deep_supervision=deep_supervision
    )


def of_fastai(kind: str) -> nn.Module:
    """Its DynamicUnet, whose hooks keep the features of the encoder."""
    from fastai.layers import ResBlock
    from fastai.vision.models.unet import DynamicUnet
    from fastai.vision.models.xresnet import XResNet

    if kind == "xresnet":
        body = XResNet(ResBlock, 1, [1, 1, 1, 1], stem_szs=(8, 8, 64), widen=0.25)
        return DynamicUnet(nn.Sequential(*list(body.children())[:-4]), 2, (64, 64), self_attention=True)
    import timm
    from fastai.vision.learner import TimmBody

    body = TimmBody(timm.create_model("test_resnet", num_classes=0, global_pool=""))
    return DynamicUnet(nn.Sequential(*body.model.children()), 2, (64, 64), last_cross=False)


TINY = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}


def transformers(name: str, config: str, **settings: Any) -> Network:
    def make() -> nn.Module:
        import transformers

        return getattr(transformers, name)(getattr(transformers, config)(num_labels=2, **settings))

    return Network(make)


def upernet(config: str, **settings: Any) -> Network:
    def make() -> nn.Module:
        import transformers

        stages = [f"stage{i}" for i in (1, 2, 3, 4)]
        backbone = getattr(transformers, config)(out_features=stages, **settings)
        whole = transformers.UperNetConfig(
            backbone_config=backbone, num_labels=2, hidden_size=16, pool_scales=[1, 2],
            use_auxiliary_head=False,
        )  # fmt: skip
        return transformers.UperNetForSemanticSegmentation(whole)

    return Network(make)


def of_detection() -> nn.Module:
    from torchvision.models import detection

    return detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2, min_size=64)


def _networks() -> dict[str, Network]:
    found = {
        "MONAI UNet": monai("UNet", 2, 3, 2, (8, 16, 16), (2, 2), num_res_units=2),
        "MONAI SegResNet": monai("SegResNet", 2, 8, 3, 2),
        "MONAI SegResNetDS": monai("SegResNetDS", 2, 8, 3, 2, blocks_down=(1, 1, 1), norm="INSTANCE"),
        "MONAI SegResNetVAE": monai(
            "SegResNetVAE", (64, 64), spatial_dims=2, init_filters=8, in_channels=3, out_channels=2
        ),
        "MONAI UNETR": monai("UNETR", 3, 2, (64, 64), 4, 24, 32, 2, spatial_dims=2),
        "MONAI SwinUNETR": monai("SwinUNETR", 3, 2, feature_size=12, spatial_dims=2),
        "MONAI DynUNet": monai("DynUNet", 2, 3, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8] * 4),
        "MONAI AttentionUnet": monai("AttentionUnet", 2, 3, 2, (8, 16, 32), (2, 2)),
        "MONAI BasicUNet": monai("BasicUNet", 2, 3, 2, (8, 8, 8, 16, 16, 8)),
        "MONAI BasicUNetPlusPlus": monai("BasicUNetPlusPlus", 2, 3, 2, (8, 8, 8, 16, 16, 8)),
        "MONAI HighResNet": monai("HighResNet", 2, 3, 2),
        "MONAI MedNeXt": monai(
            "MedNeXt", 2, 8, 3, 2, blocks_down=(1, 1, 1, 1), blocks_bottleneck=1, blocks_up=(1, 1, 1, 1)
        ),
        "MONAI RegUNet": monai(
            "RegUNet",
            2,
            3,
            8,
            3,
            out_channels=2,
            out_kernel_initializer="kaiming_uniform",
            extract_levels=(0, 3),
        ),
    }
    found |= {
        f"dynamic-network-architectures {kind}": Network(lambda kind=kind: of_nnunet(kind))
        for kind in ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
    }
    vit = {"image_size": 64, "patch_size": 16, "pool_scales": [1, 2], "use_auxiliary_head": False, **TINY}
    found |= {
        "transformers SegFormer": transformers(
            "SegformerForSemanticSegmentation", "SegformerConfig", depths=[1] * 4,
            hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=16,
        ),
        "transformers UperNet, ConvNeXt": upernet(
            "ConvNextConfig", hidden_sizes=[8, 12, 16, 24], depths=[1] * 4, layer_scale_init_value=1.0
        ),
        "transformers UperNet, Swin": upernet(
            "SwinConfig", image_size=64, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4],
            window_size=2,
        ),
        "transformers BEiT": transformers(
            "BeitForSemanticSegmentation", "BeitConfig", out_indices=[1, 2, 3, 4], **vit
        ),
        "transformers Data2Vec": transformers(
            "Data2VecVisionForSemanticSegmentation", "Data2VecVisionConfig", out_indices=[0, 1, 2, 3], **vit
        ),
        "transformers DPT": transformers(
            "DPTForSemanticSegmentation", "DPTConfig", image_size=64, patch_size=8,
            backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
            use_auxiliary_head=False, **TINY,
        ),
        "transformers MobileViT": transformers(
            "MobileViTForSemanticSegmentation", "MobileViTConfig", image_size=64, hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32], aspp_out_channels=16, atrous_rates=[1, 2, 3],
        ),
        "transformers MobileViTV2": transformers(
            "MobileViTV2ForSemanticSegmentation", "MobileViTV2Config", image_size=64, width_multiplier=0.25,
            aspp_out_channels=16, atrous_rates=[1, 2, 3],
        ),
        "transformers MobileNetV2": transformers(
            "MobileNetV2ForSemanticSegmentation", "MobileNetV2Config", image_size=64, depth_multiplier=0.35,
            output_stride=16,
        ),
    }  # fmt: skip
    found |= {
        f"smp {kind}, {encoder.removeprefix('tu-')}": smp(
            kind, encoder, 128 if kind == "PAN" else 64, **settings
        )
        for position in range(len(ENCODERS))
        for kind, settings in SMP.items()
        for encoder in [(DILATED if kind in ("DeepLabV3", "DeepLabV3Plus", "PAN") else ENCODERS)[position]]
    }
    found |= {f"smp DPT, {vit}": smp("DPT", f"tu-{vit}", **DPT) for vit in VITS}
    found |= {
        f"torchvision {kind}": Network(lambda kind=kind: of_torchvision(kind))
        for kind in (
            "fcn_resnet", "deeplabv3_resnet", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"
        )
    }  # fmt: skip
    found |= {
        f"fastai DynamicUnet, {kind}": Network(lambda kind=kind: of_fastai(kind))
        for kind in ("xresnet", "test_resnet")
    }
    # What a network returns isn't always one grid of logits: these are refused, by name.
    found |= {
        "MONAI UNet of volumes, as one of pictures": monai(
            "UNet", 3, 3, 2, (8, 16, 16), (2, 2), refused="3-D"
        ),
        "MONAI BasicUNetPlusPlus, deep supervision": monai(
            "BasicUNetPlusPlus", 2, 3, 2, (8, 8, 8, 16, 16, 8), deep_supervision=True, refused="output="
        ),
        "dynamic-network-architectures PlainConvUNet, deep supervision": Network(
            lambda: of_nnunet("PlainConvUNet", deep_supervision=True), refused="output="
        ),
        "torchvision maskrcnn_resnet50_fpn": Network(of_detection, refused="detector"),
    }
    return found


NETWORKS = _networks()
