"""From somebody's file to a map: what their own tools save is adopted, predicted and explained.

``python -m benchmarks.foreign_files [--only NAME]`` writes each model with random weights by its own
library, adopts the file or folder, and measures on one core: how many flags ``adopt`` needs beside the file
and ``--run``; the largest difference of the logits from those of the library's own way from the picture, as a
share of the largest, and the pixels of the mask that differ; the largest difference of Grad-CAM's grid at
``decoder_last`` from one by hand (of files that show no layers, of occlusion by black squares from what the
library's own network loses by each); the roles that were found; and the seconds from the file to the map.
Nothing is downloaded.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import seglens
from benchmarks.foreign_models import FIVE, NETWORKS, SMP, ZOO

HERE = Path(__file__).parent
KEPT = HERE / "foreign_files.jsonl"
CLASSES = ("background", "thing")
SIZE = 64
WINDOW = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Made:
    """What a library saved: the ``file`` to adopt, its flags, and its own logits of a picture.

    ``own`` takes pixels ``[rows columns 3]`` of 0 to 255.
    """

    file: Path
    own: Callable[[np.ndarray], Tensor]
    network: nn.Module
    flags: dict[str, Any] = field(default_factory=dict)
    size: int = SIZE


Make = Callable[[Path], Made]


def lively(network: nn.Module) -> nn.Module:
    """Draw weights and statistics so that answers differ from place to place."""
    torch.manual_seed(1)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 1.5)
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def picture(size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    disc = (rows - size // 3) ** 2 + (columns - size // 2) ** 2 < (size // 4) ** 2
    noise = np.random.default_rng(0).normal(90 + 90 * disc[..., None], 30, (size, size, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def imagenet(network: nn.Module, choose: Callable[[Any], Tensor] = lambda found: found) -> Any:
    """The usual way of a picture into a network: 0 to 1, mean and deviation of ImageNet."""

    def own(pixels: np.ndarray) -> Tensor:
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
        with torch.no_grad():
            return choose(network((images - mean) / std))

    return own


def smp_folder(name: str) -> Make:
    def make(folder: Path) -> Made:
        network = lively(NETWORKS[name].make())
        network.save_pretrained(folder / "model")  # type: ignore[operator]
        size = NETWORKS[name].size
        return Made(
            folder / "model",
            imagenet(network),
            network,
            {"classes": CLASSES, "head": "softmax", "image_size": size},
            size,
        )

    return make


def smp_checkpoint(kind: str, encoder: str) -> Make:
    def make(folder: Path) -> Made:
        import segmentation_models_pytorch as smp

        network = lively(getattr(smp, kind)(encoder, encoder_weights=None, classes=2, **SMP[kind]))
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}},
                   folder / "best.pth")  # fmt: skip
        flags = {
            "model": ZOO.get(kind, kind.lower()),
            "encoder": encoder,
            "classes": CLASSES,
            "image_size": SIZE,
        }
        return Made(folder / "best.pth", imagenet(network), network, flags)

    return make


def torchvision_checkpoint(model: str, name: str, **settings: Any) -> Make:
    def make(folder: Path) -> Made:
        from torchvision.models import segmentation

        network = lively(
            getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=2, **settings)
        )
        torch.save(network.state_dict(), folder / "best.pth")
        flags = {"model": model, "classes": CLASSES, "image_size": SIZE}
        return Made(folder / "best.pth", imagenet(network, lambda found: found["out"]), network, flags)

    return make


def hugging_face(name: str, processor: str, **settings: Any) -> Make:
    def make(folder: Path) -> Made:
        import transformers

        given = {"size": {"height": SIZE, "width": SIZE}} | settings
        network: Any = lively(NETWORKS[f"transformers {name}"].make())
        images = getattr(transformers, processor)(**given)
        network.save_pretrained(folder / "model")
        images.save_pretrained(folder / "model")

        def own(pixels: np.ndarray) -> Tensor:
            with torch.no_grad():
                logits: Tensor = network(**images(Image.fromarray(pixels), return_tensors="pt")).logits
            return logits

        return Made(folder / "model", own, network)

    return make


def queries(name: str) -> Make:
    """Models of queries: their own logits are the logarithm of the library's own scores."""

    def make(folder: Path) -> Made:
        import transformers

        torch.manual_seed(0)
        small = {
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_attention_heads": 2,
            "id2label": dict(enumerate(CLASSES)),
        }
        swin = transformers.SwinConfig(
            image_size=SIZE, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=2,
            out_features=[f"stage{i}" for i in (1, 2, 3, 4)],
        )  # fmt: skip
        if name == "Mask2Former":
            config = transformers.Mask2FormerConfig(
                backbone_config=swin, hidden_dim=32, feature_size=32, mask_feature_size=32, num_queries=5,
                encoder_feedforward_dim=32, dim_feedforward=32, **small,
            )  # fmt: skip
            network: Any = transformers.Mask2FormerForUniversalSegmentation(config)
            images: Any = transformers.Mask2FormerImageProcessor(size={"height": SIZE, "width": SIZE})
        else:
            detr = transformers.DetrConfig(
                d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                decoder_attention_heads=2, num_queries=5, encoder_ffn_dim=32, decoder_ffn_dim=32,
            )  # fmt: skip
            config = transformers.MaskFormerConfig(
                backbone_config=swin, decoder_config=detr.to_dict(), fpn_feature_size=32,
                mask_feature_size=32, id2label=dict(enumerate(CLASSES)),
            )  # fmt: skip
            network = transformers.MaskFormerForInstanceSegmentation(config)
            images = transformers.MaskFormerImageProcessor(size={"height": SIZE, "width": SIZE})
        network = lively(network)
        network.save_pretrained(folder / "model")
        images.save_pretrained(folder / "model")

        def own(pixels: np.ndarray) -> Tensor:
            with torch.no_grad():
                found = network(**{
                    key: value for key, value in images(Image.fromarray(pixels), return_tensors="pt").items()
                    if key == "pixel_values"
                })  # fmt: skip
            masks = found.masks_queries_logits
            if name == "Mask2Former":
                masks = functional.interpolate(masks, (384, 384), mode="bilinear", align_corners=False)
            shares = found.class_queries_logits.softmax(-1)[..., :-1]
            scores = torch.einsum("bqc,bqhw->bchw", shares, masks.sigmoid())
            size = (SIZE, SIZE)
            return functional.interpolate(scores, size, mode="bilinear", align_corners=False).log()

        return Made(folder / "model", own, network)

    return make


def bundle(name: str, **given: Any) -> Make:
    """A MONAI bundle for pictures; its own way is MONAI's own run of its configuration."""

    def make(folder: Path) -> Made:
        from monai.bundle.config_parser import ConfigParser

        keys = {"keys": "image"}
        config = {
            "network_def": {"_target_": name, **given},
            "preprocessing": {"_target_": "Compose", "transforms": [
                {"_target_": "LoadImaged", **keys}, {"_target_": "EnsureChannelFirstd", **keys},
                {"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1} | keys,
            ]},
            "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [SIZE, SIZE]},
            "postprocessing": {"_target_": "Compose", "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            ]},
        }  # fmt: skip
        channels = {"outputs": {"pred": {"channel_def": {str(n): each for n, each in enumerate(CLASSES)}}}}
        for place in ("configs", "models"):
            (folder / "bundle" / place).mkdir(parents=True)
        (folder / "bundle" / "configs" / "inference.json").write_text(json.dumps(config))
        (folder / "bundle" / "configs" / "metadata.json").write_text(
            json.dumps({"network_data_format": channels})
        )
        parser = ConfigParser(config)
        network = lively(parser.get_parsed_content("network_def"))
        torch.save(network.state_dict(), folder / "bundle" / "models" / "model.pt")

        def own(pixels: np.ndarray) -> Tensor:
            Image.fromarray(pixels).save(folder / "own.png")
            data = parser.get_parsed_content("preprocessing")({"image": str(folder / "own.png")})
            with torch.no_grad():
                found = parser.get_parsed_content("inferer")(data["image"][None], network)
            return torch.as_tensor(found).transpose(2, 3)  # MONAI has columns first

        return Made(folder / "bundle", own, network)

    return make


def as_file(kind: str) -> Make:
    """A small network as a file with its own code."""

    def make(folder: Path) -> Made:
        import segmentation_models_pytorch as smp

        network = lively(smp.Unet("tu-test_resnet", encoder_weights=None, classes=2, **FIVE))
        like = torch.rand(2, 3, SIZE, SIZE)
        file = folder / {"TorchScript": "net.ts", "torch.export": "net.pt2", "ONNX": "net.onnx"}[kind]
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        if kind == "TorchScript":
            torch.jit.trace(network, like).save(str(file))
        elif kind == "torch.export":
            torch.export.save(torch.export.export(network, (like,), dynamic_shapes=(batch,)), file)
        else:
            torch.onnx.export(
                network,
                (like,),
                file,
                dynamo=True,
                dynamic_shapes=(batch,),
                external_data=False,
                verbose=False,
            )
        flags = {"classes": CLASSES, "head": "softmax", "image_size": SIZE, "mean": MEAN, "std": STD}
        return Made(file, imagenet(network), network, flags)

    return make


CROPPED = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
NARROW = {"spatial_dims": 2, "in_channels": 3, "out_channels": 2}


def _models() -> dict[str, Make]:
    found: dict[str, Make] = {
        f"smp folder: {name.removeprefix('smp ')}": smp_folder(name)
        for name in NETWORKS
        if name.startswith("smp ") and name.endswith(("test_resnet", "test_convnext", "test_vit"))
    }
    found |= {
        f"smp checkpoint: {kind}, {encoder}": smp_checkpoint(kind, encoder)
        for kind, encoder in (
            ("Unet", "resnet18"), ("UnetPlusPlus", "mobilenet_v2"), ("FPN", "timm-efficientnet-b0"),
            ("DeepLabV3Plus", "resnet18"), ("MAnet", "tu-test_resnet"), ("Linknet", "resnet18"),
        )
    }  # fmt: skip
    found |= {
        f"torchvision checkpoint: {name}{', auxiliary head' if settings else ''}": torchvision_checkpoint(
            model, name, **settings
        )
        for model, name, settings in (
            ("torchvision-fcn", "fcn_resnet50", {"aux_loss": True}),
            ("torchvision-fcn-resnet101", "fcn_resnet101", {}),
            ("torchvision-deeplabv3", "deeplabv3_resnet50", {}),
            ("torchvision-deeplabv3-resnet101", "deeplabv3_resnet101", {"aux_loss": True}),
            ("torchvision-deeplabv3-mobilenet", "deeplabv3_mobilenet_v3_large", {"aux_loss": True}),
            ("torchvision-lraspp", "lraspp_mobilenet_v3_large", {}),
        )
    }
    found |= {
        f"Hugging Face folder: {name}": hugging_face(name, processor, **settings)
        for name, processor, settings in (
            ("SegFormer", "SegformerImageProcessor", {}),
            ("UperNet, ConvNeXt", "SegformerImageProcessor", {}),
            ("UperNet, Swin", "SegformerImageProcessor", {}), ("BEiT", "BeitImageProcessor", {}),
            ("Data2Vec", "BeitImageProcessor", {}), ("DPT", "DPTImageProcessor", {}),
            ("MobileViT", "MobileViTImageProcessor", CROPPED),
            ("MobileViTV2", "MobileViTImageProcessor", CROPPED),
            ("MobileNetV2", "MobileNetV2ImageProcessor", CROPPED),
        )
    }  # fmt: skip
    found |= {f"Hugging Face folder: {name}": queries(name) for name in ("Mask2Former", "MaskFormer")}
    found |= {
        f"MONAI bundle: {name}": bundle(name, **settings)
        for name, settings in {
            "UNet": {**NARROW, "channels": [8, 16, 16], "strides": [2, 2], "num_res_units": 2},
            "AttentionUnet": {**NARROW, "channels": [8, 16, 32], "strides": [2, 2]},
            "BasicUNet": {**NARROW, "features": [8, 8, 8, 16, 16, 8]},
            "BasicUNetPlusPlus": {**NARROW, "features": [8, 8, 8, 16, 16, 8]},
            "DynUNet": {
                **NARROW, "kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3,
                "filters": [8] * 4, "deep_supervision": True,
            },
            "SegResNet": NARROW,
            "SegResNetDS": {
                **NARROW, "init_filters": 8, "blocks_down": [1] * 3, "norm": "INSTANCE", "dsdepth": 2,
            },
            "UNETR": {
                **NARROW, "img_size": [64, 64], "feature_size": 4, "hidden_size": 24, "mlp_dim": 32,
                "num_heads": 2,
            },
            "SwinUNETR": {**NARROW, "feature_size": 12},
            "MedNeXt": {
                **NARROW, "init_filters": 8, "blocks_down": [1] * 4, "blocks_bottleneck": 1,
                "blocks_up": [1] * 4,
            },
        }.items()
    }  # fmt: skip
    found |= {f"file: {kind}": as_file(kind) for kind in ("TorchScript", "torch.export", "ONNX")}
    return found


MODELS = _models()


def by_hand(run: seglens.Run, layer: str, images: Tensor, pixels: Tensor) -> Tensor:
    """Grad-CAM's grid by a forward hook and ``backward``; no code of the package but its normalisation."""
    segmenter = run.segmenter
    part, kept = segmenter.module.get_submodule(layer), list[Any]()

    def keep(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        kept.append(output.clone())
        kept[0].retain_grad()
        return kept[0].clone()

    handle = part.register_forward_hook(keep, prepend=True)
    logits = segmenter(images.clone().requires_grad_())
    handle.remove()
    (logits[:, 1] * pixels).sum().backward()
    value, gradient = kept[0].detach(), kept[0].grad
    return (value * gradient.mean((2, 3), keepdim=True)).sum(1)


def occluded_by_hand(made: Made, pixels: np.ndarray, where: Tensor) -> Tensor:
    """What the mean logit over ``where`` loses with each square black, by the library's own way alone."""

    def score(shown: np.ndarray) -> float:
        return float(made.own(shown)[:, 1][where].double().mean())

    found = torch.zeros(where.shape)
    for row in range(0, made.size, WINDOW):
        for column in range(0, made.size, WINDOW):
            hidden = pixels.copy()
            hidden[row : row + WINDOW, column : column + WINDOW] = 0
            found[:, row : row + WINDOW, column : column + WINDOW] = score(pixels) - score(hidden)
    return found


def share(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))


def measure(name: str, folder: Path) -> dict[str, Any]:
    made = MODELS[name](folder)
    pixels = picture(made.size)
    theirs = made.own(pixels).float()
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    began = time.monotonic()
    run = seglens.adopt(made.file, **made.flags, out=folder / "run")
    shown = not name.startswith("file: ")
    roles = [each for each in seglens.layers(run) if each.roles] if shown else []
    where = torch.zeros(1, made.size, made.size, dtype=torch.bool)
    where[:, made.size // 8 : made.size // 2, made.size // 4 : made.size // 2] = True
    target = seglens.targets.whole_class(where, class_index=1)
    layer = next((each.name for each in roles if "decoder_last" in each.roles), None)
    # MONAI's networks have columns first: it reads pictures so.
    turned = name.startswith("MONAI")
    given = images.mT.contiguous() if turned else images
    if layer is not None:
        maps = seglens.explain(run, given, target, methods=("grad-cam",), layers=(layer,))
        grid = maps["grad-cam", layer].grid
    else:
        method = seglens.Occlusion(window=WINDOW, stride=WINDOW, fill="zero")
        grid = seglens.explain(run, given, target, methods=(method,))["occlusion"].map
    seconds = time.monotonic() - began
    ours = run.predict(given).logits
    ours = ours.mT if turned else ours
    theirs = functional.interpolate(theirs, ours.shape[-2:], mode="bilinear", align_corners=False)
    assert grid is not None
    row = {
        "name": name,
        "flags": len(made.flags),
        "logits": share(ours, theirs),
        "pixels": int((ours.argmax(1) != theirs.argmax(1)).sum()),
        "classes": int(theirs.argmax(1).unique().numel()),
        "roles": len({role for each in roles for role in each.roles}),
        "seconds": round(seconds, 2),
    }
    hand = occluded_by_hand(made, pixels, where) if layer is None else by_hand(run, layer, given, where)
    # Each as a share of its largest value: the score's scale is no part of a map.
    row["map"] = share(grid / grid.abs().max(), hand / hand.abs().max())
    return row


def section(rows: list[dict[str, Any]]) -> str:
    """The table, as it stands in ``FOREIGN.md``."""
    head = ("model", "flags", "logits off", "other pixels", "map off", "roles", "seconds")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['name']} | {row['error']} |" + " |" * (len(head) - 2))
            continue
        off = f"{row['map']:.0e}"
        roles = "no layers" if row["name"].startswith("file: ") else f"{row['roles']} of 7"
        lines.append(
            f"| {row['name']} | {row['flags']} | {row['logits']:.0e} | {row['pixels']} | {off} | {roles} | "
            f"{row['seconds']:.1f} |"
        )
    about = (
        f"{len(rows)} models with random weights as their own libraries save them, by `python -m "
        "benchmarks.foreign_files`, in float32 on one core and pictures of 64 pixels (PAN 128). One command "
        "each: `seglens adopt FILE --run RUN`, and so many flags beside (`--model`, `--encoder`, "
        "`--classes`, `--head`, `--image-size`, `--mean`, `--std`). `logits off` is the largest "
        "difference from the library's own way from the picture, as a share of the largest, `other pixels` "
        "are those of the mask; "
        "`map off` is Grad-CAM's grid at `decoder_last` against one by a hook and `backward`, of files that "
        "show no layers occlusion by black squares of 16 pixels against what the source network's own logits "
        "lose by each; `seconds` are from the file to the map."
    )
    return "\n".join(["## From file to map", "", about, "", *lines])


def kept() -> list[dict[str, Any]]:
    return [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="models whose name holds this")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    done = {row["name"]: row for row in kept()}
    for name in MODELS:
        if (chosen.only or "") not in name:
            continue
        with TemporaryDirectory() as folder:
            try:
                done[name] = measure(name, Path(folder))
            except Exception as error:  # One model's failure is an outcome of its own.
                said = (str(error).splitlines() or ["no reason given"])[0]
                done[name] = {"name": name, "error": f"{type(error).__name__}: {said[:150]}"}
        print(done[name], flush=True)
        KEPT.write_text("".join(json.dumps(done[each]) + "\n" for each in MODELS if each in done))
    from benchmarks import foreign_networks

    order = foreign_networks.kept()
    foreign_networks.write([order[each] for each in NETWORKS if each in order])


if __name__ == "__main__":
    main()
