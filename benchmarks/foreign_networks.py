"""Networks that other people wrote: three CAMs at early, middle and last layers against hand-made ones.

``python -m benchmarks.foreign_networks [--only NAME] [--again]`` runs what has no outcome yet, one network
after the other on one core, and writes the section *Networks* of ``FOREIGN.md`` from
``foreign_networks.jsonl``.
Everything runs in float64 with random weights on small pictures; nothing is downloaded.

The hand-made values share no code with the package: a hook that is set before all others hands on a clone and
keeps it; gradients come from ``Tensor.backward``; the slope is a central difference of the score with the
layer's forward replaced. For Ablation-CAM every channel is set to
zero by hand.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
KEPT, PAGE = HERE / "foreign_networks.jsonl", HERE / "FOREIGN.md"
BEGIN, END = "<!-- networks: written by benchmarks.foreign_networks -->", "<!-- end of networks -->"
CHANNELS = 32
"""Channels that are ablated by hand at once, each in a copy of the picture."""

ENCODERS = (
    "resnet18", "mobilenet_v2", "efficientnet-b0", "timm-mobilenetv3_small_minimal_100",
    "tu-convnext_atto", "tu-regnetx_002",
)  # fmt: skip
SMP = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN",
    "UPerNet", "Segformer",
)  # fmt: skip
VITS = (
    "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_small_patch32_224", "deit_tiny_patch16_224",
    "deit_small_patch16_224", "vit_small_patch16_18x2_224",
)  # fmt: skip


def of_smp(name: str, encoder: str, **settings: Any) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)(encoder, encoder_weights=None, classes=2, **settings)


def of_monai(name: str, *given: Any, **named: Any) -> nn.Module:
    from monai.networks import nets

    return getattr(nets, name)(*given, **named)


def of_torchvision(name: str) -> nn.Module:
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=2)


def of_nnunet(name: str) -> nn.Module:
    from dynamic_network_architectures.architectures import unet

    norm = {"norm_op": nn.InstanceNorm2d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    return getattr(unet, name)(
        3, 4, (8, 16, 16, 16), nn.Conv2d, 3, (1, 2, 2, 2), 2, 2, 2, **norm, deep_supervision=False
    )


TINY = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}


def of_transformers(name: str, config: str, **settings: Any) -> nn.Module:
    import transformers

    settings = {"num_labels": 2, **settings}
    return getattr(transformers, name)(getattr(transformers, config)(**settings))


def upernet(backbone: str, **settings: Any) -> nn.Module:
    import transformers

    inner = getattr(transformers, backbone)(out_features=[f"stage{i}" for i in (1, 2, 3, 4)], **settings)
    return of_transformers(
        "UperNetForSemanticSegmentation", "UperNetConfig", backbone_config=inner, hidden_size=16,
        pool_scales=[1, 2], use_auxiliary_head=False,
    )  # fmt: skip


def networks() -> dict[str, tuple[Callable[[], nn.Module], int, int]]:
    """What makes each network, the size of its pictures, and their channels."""
    found: dict[str, tuple[Callable[[], nn.Module], int, int]] = {}

    def add(name: str, make: Callable[[], nn.Module], size: int = 64, channels: int = 3) -> None:
        found[name] = (make, size, channels)

    for kind in SMP:
        for encoder in ENCODERS:
            size = 128 if kind == "PAN" else 64
            add(f"smp {kind}, {encoder}", lambda kind=kind, encoder=encoder: of_smp(kind, encoder), size)
    for vit in VITS:
        small = {"decoder_fusion_channels": 32, "decoder_intermediate_channels": (32,) * 4}
        add(
            f"smp DPT, {vit}",
            lambda vit=vit, small=small: of_smp("DPT", f"tu-{vit}", dynamic_img_size=True, **small),
        )
    add("MONAI UNet", lambda: of_monai("UNet", 2, 3, 2, (8, 16, 16), (2, 2), num_res_units=2))
    add("MONAI SegResNet", lambda: of_monai("SegResNet", 2, 8, 3, 2))
    add("MONAI UNETR", lambda: of_monai("UNETR", 3, 2, (64, 64), 4, 24, 32, 2, spatial_dims=2))
    add("MONAI SwinUNETR", lambda: of_monai("SwinUNETR", 3, 2, feature_size=12, spatial_dims=2))
    add(
        "MONAI DynUNet", lambda: of_monai("DynUNet", 2, 3, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8] * 4)
    )
    add("MONAI AttentionUnet", lambda: of_monai("AttentionUnet", 2, 3, 2, (8, 16, 32), (2, 2)))
    add("MONAI BasicUNet", lambda: of_monai("BasicUNet", 2, 3, 2, (8, 8, 8, 16, 16, 8)))
    add("MONAI BasicUNetPlusPlus", lambda: of_monai("BasicUNetPlusPlus", 2, 3, 2, (8, 8, 8, 16, 16, 8)))
    add("MONAI FlexibleUNet", lambda: of_monai("FlexibleUNet", 3, 2, "efficientnet-b0"))
    add("MONAI VNet", lambda: of_monai("VNet", 2, 1, 2), channels=1)
    for kind in ("PlainConvUNet", "ResidualEncoderUNet"):
        add(f"dynamic-network-architectures {kind}", lambda kind=kind: of_nnunet(kind))
    for kind in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        add(f"torchvision {kind}", lambda kind=kind: of_torchvision(kind))
    add("transformers SegFormer", lambda: of_transformers(
        "SegformerForSemanticSegmentation", "SegformerConfig", depths=[1] * 4, hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=16))  # fmt: skip
    add("transformers UperNet, ConvNeXt", lambda: upernet(
        "ConvNextConfig", hidden_sizes=[8, 12, 16, 24], depths=[1] * 4, 
        layer_scale_init_value=1.0))  # fmt: skip
    add("transformers UperNet, Swin", lambda: upernet(
        "SwinConfig", image_size=64, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4],
        window_size=2))  # fmt: skip
    add("transformers BEiT", lambda: of_transformers(
        "BeitForSemanticSegmentation", "BeitConfig", image_size=64, patch_size=16, out_indices=[1, 2, 3, 4],
        pool_scales=[1, 2], use_auxiliary_head=False, **TINY))  # fmt: skip
    add("transformers Data2Vec", lambda: of_transformers(
        "Data2VecVisionForSemanticSegmentation", "Data2VecVisionConfig", image_size=64, patch_size=16,
        out_indices=[0, 1, 2, 3], pool_scales=[1, 2], use_auxiliary_head=False, **TINY))  # fmt: skip
    add("transformers DPT", lambda: of_transformers(
        "DPTForSemanticSegmentation", "DPTConfig", image_size=64, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        use_auxiliary_head=False, **TINY))  # fmt: skip
    add("transformers MobileViT", lambda: of_transformers(
        "MobileViTForSemanticSegmentation", "MobileViTConfig", image_size=64, hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32], aspp_out_channels=16,
        atrous_rates=[1, 2, 3]))  # fmt: skip
    add("transformers MobileNetV2", lambda: of_transformers(
        "MobileNetV2ForSemanticSegmentation", "MobileNetV2Config", image_size=64, depth_multiplier=0.35,
        output_stride=16))  # fmt: skip
    return found


class Hand:
    """Activation, gradient and slopes of one layer, by hand: of the logits' difference over the pixels."""

    def __init__(self, network: nn.Module, layer: str, images: Tensor, pixels: Tensor) -> None:
        self.network, self.images, self.pixels = network, images, pixels
        self.part: Any = network.get_submodule(layer)
        kept: list[Tensor] = []

        def first(module: nn.Module, given: object, output: Tensor) -> Tensor:
            kept.append(
                output.detach().clone().requires_grad_() if not output.requires_grad else output.clone()
            )
            kept[0].retain_grad()
            return kept[0].clone()

        handle = self.part.register_forward_hook(first, prepend=True)
        self.scores().sum().backward()
        handle.remove()
        gradient = kept[0].grad
        assert gradient is not None
        self.output, self.slope = kept[0].detach(), gradient

    def scores(self, copies: int = 1) -> Tensor:
        output = self.network(self.images.expand(copies, -1, -1, -1))
        if isinstance(output, dict | list | tuple) and not hasattr(output, "logits"):
            output = output["out"] if isinstance(output, dict) else output[0]
        logits = getattr(output, "logits", output)
        logits = functional.interpolate(logits, self.images.shape[-2:], mode="bilinear", align_corners=False)
        return ((logits[:, 1] - logits[:, 0]) * self.pixels).sum((1, 2))

    def replaced(self, change: Callable[[Tensor], Tensor], copies: int = 1) -> list[float]:
        """The scores of copies of the picture with another output of the layer."""
        forward = self.part.forward
        self.part.forward = lambda *given, **named: change(forward(*given, **named))
        try:
            with torch.no_grad():
                return self.scores(copies).tolist()
        finally:
            del self.part.forward

    def difference(self) -> float:
        """Error of the gradient against a central difference along itself, as a share of ``|g|^2``."""
        size = self.output.square().mean().sqrt()
        along = self.slope / self.slope.norm().clamp(min=1e-300) * size
        errors = []
        for step in (1e-6, 1e-5, 1e-4):
            (high,), (low,) = (self.replaced(lambda out, by=s * step * along: out + by) for s in (1, -1))
            slope = (self.slope * along).sum().item()
            errors.append(abs((high - low) / (2 * step) - slope) / max(abs(slope), 1e-300))
        return min(errors)


def as_map(value: Tensor, cells: tuple[int, int], channels: int) -> Tensor:
    """Rows and columns last, whatever the network's own layout; by shape alone."""
    if value.ndim == 3:
        rows, columns = cells
        return value[:, -rows * columns :].mT.reshape(1, channels, rows, columns)
    return value if tuple(value.shape[1:]) == (channels, *cells) else value.permute(0, 3, 1, 2)


def far(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    return ((ours.double() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300)).item()


def measure(name: str) -> dict[str, Any]:
    """Run one network; return its outcome."""
    import seglens

    make, size, channels = networks()[name]
    torch.manual_seed(0)
    network = make().double()
    with torch.no_grad():  # statistics of its own activations, as after a training
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        network.train()(torch.randn(2, channels, size, size, dtype=torch.float64))
    network.eval().requires_grad_(True)
    zero, one = (0.0,) * channels, (1.0,) * channels
    run = seglens.wrap(
        network, classes=("background", "thing"), image_size=size, channels=channels, mean=zero, std=one
    )
    images = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(1)).double()
    pixels = torch.zeros(1, size, size, dtype=torch.bool)
    pixels[0, size // 8 : size // 2, size // 4 : size - 5] = True
    target = seglens.Target("region", 1, pixels, against=0)
    infos = seglens.layers(run)
    roles = {role: info for info in infos for role in info.roles}
    layers = {
        role: roles[role]
        for role in ("encoder_early", "encoder_mid", "encoder_last", "decoder_last")
        if role in roles
    }
    row: dict[str, Any] = {"name": name, "roles": len(roles), "layers": len(infos)}
    found = seglens.explain(
        run, images, target, methods=("grad-cam", "hires-cam", "ablation-cam"),
        layers=[info.name for info in layers.values()],
    )  # fmt: skip
    for role, info in layers.items():
        hand = Hand(network, info.name, images, pixels)
        cells = (info.shape[1], info.shape[2])
        maps, slope = (as_map(value, cells, info.shape[0]) for value in (hand.output, hand.slope))
        grad = (slope.mean((2, 3), keepdim=True) * maps).sum(1)
        item = found["grad-cam", info.name]
        lost = item.status[0] == "degenerate" and bool(item.grid.isnan().all())
        row[f"{role} grad-cam"] = "averages out" if lost else far(item.grid, grad)
        row[f"{role} hires-cam"] = far(found["hires-cam", info.name].grid, (slope * maps).sum(1))
        row[f"{role} slope"] = hand.difference()
        row[f"{role} ablation-cam"] = ablated(hand, found["ablation-cam", info.name].grid, maps, cells)
    return row


def ablated(hand: Hand, grid: Tensor, maps: Tensor, cells: tuple[int, int]) -> float:
    """Ablation-CAM by hand, some channels at a time: each copy of the picture loses another one."""
    total, weights = maps.shape[1], list[float]()
    for begin in range(0, total, CHANNELS):
        channels = torch.arange(begin, min(begin + CHANNELS, total))

        def silence(output: Tensor, channels: Tensor = channels) -> Tensor:
            changed, rows = output.clone(), torch.arange(len(channels))
            if output.ndim == 3:
                for row, channel in zip(rows, channels, strict=True):
                    changed[row, -cells[0] * cells[1] :, channel] = 0
            elif tuple(output.shape[2:]) == cells:
                changed[rows, channels] = 0
            else:
                changed[rows, ..., channels] = 0
            return changed

        (full,) = hand.replaced(lambda output: output)
        lost = hand.replaced(silence, copies=len(channels))
        weights += [(full - score) / abs(full) for score in lost]
    expected = (torch.tensor(weights, dtype=torch.float64)[None, :, None, None] * maps).sum(1)
    return far(grid, expected)


def kept() -> dict[str, dict[str, Any]]:
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def numbers(row: dict[str, Any], what: str) -> Iterator[float]:
    yield from (value for key, value in row.items() if key.endswith(what) and isinstance(value, float))


def page(rows: list[dict[str, Any]]) -> str:
    """The section: one line a network, the worst of its layers."""
    methods = ("grad-cam", "hires-cam", "ablation-cam", "slope")
    lines = ["| network | roles | layers compared | " + " | ".join(methods) + " | Grad-CAM averages out at |"]
    lines.append("|---|---|---|" + "---|" * (len(methods) + 1))
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['name']} | {row['error']} |" + " |" * (len(methods) + 2))
            continue
        places = sorted({key.split()[0] for key in row if key.endswith(" slope")})
        worst = [
            f"{max(numbers(row, method)):.0e}" if any(True for _ in numbers(row, method)) else ""
            for method in methods
        ]
        lost = ", ".join(place for place in places if row.get(f"{place} grad-cam") == "averages out")
        lines.append(
            f"| {row['name']} | {row['roles']} of 7 | {len(places)} | " + " | ".join(worst) + f" | {lost} |"
        )
    good = sum("error" not in row for row in rows)
    about = (
        f"{good} networks of {len(rows)} with random weights in float64, by `python -m "
        "benchmarks.foreign_networks`: the largest difference of the signed grid from a hand-made one as a "
        "share of its largest value, over early, middle and last encoder layer and last decoder layer; "
        "`slope` is the error of the hand-made gradient against a central difference with the layer's "
        "forward replaced. Grids are kept in float32, and so are the scores of Ablation-CAM, whose weights "
        "are small "
        "differences of them."
    )
    return "\n".join([BEGIN, "## Networks", "", about, "", *lines, "", END])


def write(rows: list[dict[str, Any]]) -> None:
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Other people's data and networks\n"
    if BEGIN in text:
        head, rest = text.split(BEGIN, 1)
        text = head + page(rows) + rest.split(END, 1)[1]
    else:
        text = f"{text.rstrip()}\n\n{page(rows)}\n"
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="networks whose name holds this")
    parser.add_argument("--again", action="store_true", help="also those that have an outcome")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    done = kept()
    for name in networks():
        if (chosen.only or "") not in name or (name in done and not chosen.again):
            continue
        began = time.monotonic()
        try:
            done[name] = measure(name)
        except Exception as error:  # One network's failure is an outcome of its own.
            done[name] = {
                "name": name,
                "error": f"{type(error).__name__}: {str(error).splitlines()[0][:150]}",
            }
        print(f"{name}: {time.monotonic() - began:.1f} s", done[name].get("error", ""), flush=True)
        order = [done[each] for each in networks() if each in done]
        KEPT.write_text("".join(json.dumps(row) + "\n" for row in order), encoding="utf-8")
        write(order)
    write([done[each] for each in networks() if each in done])


if __name__ == "__main__":
    main()
