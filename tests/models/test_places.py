"""Roles by resolution, in networks whose parts have no names that say what they are."""

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from monai.networks import nets
from torch import Tensor, nn

import seglens
import seglens.errors
from seglens.models.layers import ROLES, find_role

MONAI: Any = nets


class Stride(nn.Module):
    """A block of a ResNet with its stride in the middle: it begins on the grid of the stage before."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(inside, out, 1), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(out, out, 3, stride=2, padding=1), nn.ReLU()
        self.conv3, self.act3 = nn.Conv2d(out, out, 1), nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        return self.act3(self.conv3(self.act2(self.conv2(self.act1(self.conv1(values))))))


class Down(nn.Module):
    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), double_conv(inside, out))

    def forward(self, values: Tensor) -> Tensor:
        return self.maxpool_conv(values)


class Up(nn.Module):
    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = double_conv(inside, out)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.conv(torch.cat([fine, self.up(coarse)], dim=1))


class OutConv(nn.Module):
    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, out, 1)

    def forward(self, values: Tensor) -> Tensor:
        return self.conv(values)


def double_conv(inside: int, out: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for before in (inside, out):
        parts += [nn.Conv2d(before, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


class PlainUNet(nn.Module):
    """The U-Net that most people copy: inc, down1 to down4, up1 to up4, outc; and a head that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = double_conv(3, 4)
        self.down1, self.down2, self.down3, self.down4 = Down(4, 8), Down(8, 16), Down(16, 32), Down(32, 32)
        self.up1, self.up2, self.up3, self.up4 = Up(64, 16), Up(32, 8), Up(16, 4), Up(8, 4)
        self.outc, self.aux = OutConv(4, 2), OutConv(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        one = self.inc(images)
        self.aux(one)
        two = self.down1(one)
        three = self.down2(two)
        four = self.down3(three)
        five = self.down4(four)
        return self.outc(self.up4(self.up3(self.up2(self.up1(five, four), three), two), one))


def of_nnunet(kind: type) -> nn.Module:
    norm = {"norm_op": nn.InstanceNorm2d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    return kind(3, 4, (4, 8, 8, 8), nn.Conv2d, 3, (1, 2, 2, 2), 2, 2, 2, **norm, deep_supervision=False)


NETWORKS: dict[str, tuple[Any, tuple[str, str, str, str, str]]] = {
    "plain": (PlainUNet, ("down1", "down4", "up1", "up4", "outc")),
    "UNet": (
        lambda: MONAI.UNet(2, 3, 2, (4, 8, 16, 32), (2, 2, 2)),
        ("model.0", "model.1.submodule.1.submodule.1", "model.1.submodule.1.submodule.2",
         "model.1.submodule.2", "model.2"),
    ),
    "SegResNet": (
        lambda: MONAI.SegResNet(2, 8, 3, 2),
        ("down_layers.0", "down_layers.3", "up_layers.0", "act_mod", "conv_final"),
    ),
    "UNETR": (
        lambda: MONAI.UNETR(3, 2, (64, 64), 4, 24, 32, 2, spatial_dims=2),
        ("vit.blocks.3", "vit.norm", "decoder5", "decoder2", "out"),
    ),
    "SwinUNETR": (
        lambda: MONAI.SwinUNETR(3, 2, feature_size=12, spatial_dims=2),
        ("encoder2", "encoder10", "decoder5", "decoder1", "out"),
    ),
    "DynUNet": (
        lambda: MONAI.DynUNet(2, 3, 2, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=[4, 8, 8, 8],
                              deep_supervision=True, deep_supr_num=2),
        ("input_block", "bottleneck", "upsamples.0", "skip_layers", "output_block"),
    ),
    "AttentionUnet": (
        lambda: MONAI.AttentionUnet(2, 3, 2, (4, 8, 16, 32), (2, 2, 2)),
        ("model.0", "model.1.submodule.1.submodule.1.submodule", "model.1.submodule.1.submodule.1.merge",
         "model.1.merge", "model.2"),
    ),
    "BasicUNet": (
        lambda: MONAI.BasicUNet(2, 3, 2, (4, 4, 8, 16, 32, 4)),
        ("down_1", "down_4", "upcat_4", "upcat_1", "final_conv"),
    ),
    "VNet": (
        lambda: MONAI.VNet(2, 1, 2),  # whose dropout is of volumes by default
        ("down_tr32", "down_tr256", "up_tr256", "up_tr32", "out_tr"),
    ),
    "RegUNet": (  # its head takes logits from the coarsest grid too
        lambda: MONAI.RegUNet(2, 3, 8, 3, out_channels=2, out_activation=None, extract_levels=(0, 3)),
        ("encode_convs.0", "bottom_block", "decode_convs.0", "decode_convs.2", "output_block"),
    ),
    "PlainConvUNet": (
        lambda: of_nnunet(PlainConvUNet),
        ("encoder.stages.0", "encoder.stages.3", "decoder.transpconvs.0", "decoder.stages.2",
         "decoder.seg_layers.2"),
    ),
    "ResidualEncoderUNet": (
        lambda: of_nnunet(ResidualEncoderUNet),
        ("encoder.stages.0", "encoder.stages.3", "decoder.transpconvs.0", "decoder.stages.2",
         "decoder.seg_layers.2"),
    ),
}  # fmt: skip
"""What makes it, and by hand: encoder_early, encoder_last, decoder_first, decoder_last, seg_head."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_role_is_found(name):
    make, by_hand = NETWORKS[name]
    torch.manual_seed(0)
    channels = 1 if name == "VNet" else 3
    mean = (0.5,) * channels
    run = seglens.wrap(
        make().eval(), classes=("background", "thing"), image_size=64, channels=channels, mean=mean, std=mean
    )
    infos = seglens.layers(run)
    roles = {role: info for info in infos for role in info.roles}
    assert set(roles) == set(ROLES)
    shown = ("encoder_early", "encoder_last", "decoder_first", "decoder_last", "seg_head")
    assert tuple(roles[role].name for role in shown) == by_hand
    assert roles["seg_head"].answer
    assert roles["encoder_last"].shape[1] == min(info.shape[1] for info in infos)
    assert not any(roles[role].answer for role in ROLES if role != "seg_head")
    assert "aux" not in {info.name for info in infos}


def roles_of(network: nn.Module) -> dict[str, str]:
    half = (0.5,) * 3
    run = seglens.wrap(
        network.eval(), classes=("background", "b"), image_size=64, mean=half, std=half, outputs_are="logits"
    )
    return {role: info.name for info in seglens.layers(run) for role in info.roles}


def test_what_a_stage_begins_with_is_not_the_end_of_the_one_before():
    torch.manual_seed(0)
    down = nn.Sequential(*(nn.Sequential(Stride(4, 4)) for _ in range(4)))
    up = nn.Sequential(nn.Upsample(scale_factor=16), double_conv(4, 4), nn.Conv2d(4, 2, 1))
    roles = roles_of(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *down, *up))
    assert [roles[role] for role in ROLES[:4]] == ["1", "2", "4", "4"]


def test_one_grid_has_no_encoder():
    torch.manual_seed(0)
    network = nn.Sequential(
        double_conv(3, 4), double_conv(4, 4), nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU())
    )
    assert roles_of(network) == {"decoder_last": "1", "seg_head": "2"}
    half = (0.5,) * 3
    run = seglens.wrap(
        network, classes=("background", "b"), image_size=64, mean=half, std=half, outputs_are="logits"
    )
    with pytest.raises(seglens.errors.ModelError, match=r"'encoder_last'; it shows .*no encoder is known"):
        find_role(run.segmenter, "encoder_last")


@pytest.mark.parametrize(
    ("model", "config", "by_hand"),
    [
        (
            "MobileNetV2ForSemanticSegmentation",
            {"depth_multiplier": 0.35},
            ("mobilenet_v2.layer.15", "segmentation_head.conv_aspp", "segmentation_head.conv_projection"),
        ),
        (
            "MobileViTForSemanticSegmentation",
            {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
             "aspp_out_channels": 16},
            ("mobilevit.encoder.layer.4", "segmentation_head.aspp", "segmentation_head.aspp"),
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_a_decoder_in_what_is_called_head_is_found(model, config, by_hand):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind = getattr(transformers, model.replace("ForSemanticSegmentation", "Config"))
    roles = roles_of(getattr(transformers, model)(kind(image_size=64, num_labels=2, **config)))
    assert tuple(roles[role] for role in ("encoder_last", "decoder_first", "decoder_last")) == by_hand
    assert set(roles) == set(ROLES)


@pytest.mark.filterwarnings("ignore")
def test_two_stages_in_a_part_that_hands_on_only_some():
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    roles = roles_of(smp.PSPNet("tu-test_convnext", encoder_weights=None, classes=2))
    assert [roles[role] for role in ROLES] == [
        "encoder.model.stages_0", "encoder.model.stages_1", "encoder.model.stages_1",
        "encoder.model.stages_1", "decoder.psp", "decoder.conv", "segmentation_head",
    ]  # fmt: skip
