"""Whatever segments pictures can be wrapped, listed and explained; those that others named can be adopted."""

from collections.abc import Callable
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
import transformers
from torch import Tensor, nn

import seglens
from seglens.errors import ModelError
from seglens.explain.cams import hires_cam
from seglens.explain.trace import trace
from seglens.models import zoo
from seglens.models.layers import ROLES
from seglens.models.weights import fit
from seglens.runs import Run

SMALL = "timm-mobilenetv3_small_minimal_100"
pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated"),
    pytest.mark.filterwarnings("ignore:.*does not support gradient checkpointing"),
]


def of_smp(name: str, encoder: str = SMALL, classes: int = 2, **settings: Any) -> Callable[[], nn.Module]:
    """Make a network of segmentation-models-pytorch."""
    return lambda: getattr(smp, name)(encoder, encoder_weights=None, classes=classes, **settings)


def of_torchvision(name: str, classes: int = 2, **settings: Any) -> Callable[[], nn.Module]:
    """Make a network of torchvision with random weights."""
    make = getattr(torchvision.models.segmentation, name)
    return lambda: make(weights=None, weights_backbone=None, num_classes=classes, **settings)


def hugging_face() -> nn.Module:
    """A tiny SegFormer: logits at a quarter of the resolution, in an output object."""
    settings: dict[str, Any] = {"num_labels": 2, "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 3, 4], **settings
    )
    return transformers.SegformerForSemanticSegmentation(config)


class Plain(nn.Module):
    """A network without parts of known names, that returns its logits first in a ``kind``."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind
        self.one = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.two = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> Any:
        logits = self.out(self.two(self.one(images)))
        return logits if self.kind is Tensor else self.kind((logits, logits.mean()))


LARGE = {"torchvision deeplabv3", "torchvision fcn", "FPN swin"}
"""These run in float32; the others in float64: a random network makes 5e-4 of the rounding of float32."""
METHODS = ("grad-cam", "layer-cam")
LAST = ("encoder_last", "decoder_last")
WITHOUT_ROLES = ("one", "two")
FEW: dict[str, Any] = {"decoder_channels": (32, 16, 16, 8, 8)}

MODELS: dict[str, tuple[Callable[[], nn.Module], int, tuple[str, str], str]] = {
    "Unet": (of_smp("Unet", **FEW), 64, LAST, "seg_head"),
    "UnetPlusPlus": (of_smp("UnetPlusPlus", **FEW), 64, LAST, "seg_head"),
    "MAnet": (of_smp("MAnet", **FEW), 64, LAST, "seg_head"),
    "Linknet": (of_smp("Linknet"), 64, LAST, "seg_head"),
    "FPN": (of_smp("FPN", decoder_segmentation_channels=32), 64, LAST, "seg_head"),
    "PSPNet": (of_smp("PSPNet", psp_out_channels=64), 64, LAST, "seg_head"),
    "DeepLabV3": (of_smp("DeepLabV3", decoder_channels=32), 64, LAST, "seg_head"),
    "DeepLabV3Plus": (of_smp("DeepLabV3Plus", decoder_channels=32), 64, LAST, "seg_head"),
    "PAN": (of_smp("PAN"), 128, LAST, "seg_head"),
    "UPerNet": (of_smp("UPerNet", decoder_channels=32), 64, LAST, "seg_head"),
    "Segformer": (of_smp("Segformer", decoder_segmentation_channels=32), 64, LAST, "seg_head"),
    "Segformer mit_b0": (of_smp("Segformer", "mit_b0"), 64, LAST, "seg_head"),
    "FPN swin": (of_smp("FPN", "tu-swin_tiny_patch4_window7_224", img_size=64), 64, LAST, "seg_head"),
    "FPN pvt": (of_smp("FPN", "tu-pvt_v2_b0"), 64, LAST, "seg_head"),
    "Unet convnext": (of_smp("Unet", "tu-convnext_atto", **FEW), 64, LAST, "seg_head"),
    "DPT vit": (
        of_smp("DPT", "tu-vit_tiny_patch16_224", dynamic_img_size=True, decoder_fusion_channels=32,
               decoder_intermediate_channels=(32, 32, 32, 32)), 64, LAST, "seg_head",
    ),
    "Unet with a class": (of_smp("Unet", aux_params={"classes": 2}, **FEW), 64, LAST, "seg_head"),
    "torchvision deeplabv3": (of_torchvision("deeplabv3_resnet50"), 32, LAST, "seg_head"),
    "torchvision deeplabv3 mobilenet": (
        of_torchvision("deeplabv3_mobilenet_v3_large", aux_loss=True), 64, LAST, "seg_head",
    ),
    "torchvision fcn": (of_torchvision("fcn_resnet50", aux_loss=True), 32, LAST, "seg_head"),
    "torchvision lraspp": (of_torchvision("lraspp_mobilenet_v3_large"), 64, LAST, "seg_head"),
    "Hugging Face SegFormer": (hugging_face, 64, LAST, "seg_head"),
    "plain": (lambda: Plain(Tensor), 32, WITHOUT_ROLES, "out"),
    "plain tuple": (lambda: Plain(tuple), 32, WITHOUT_ROLES, "out"),
    "plain list": (lambda: Plain(list), 32, WITHOUT_ROLES, "out"),
}  # fmt: skip
"""What makes it, the size of its pictures, two layers to explain, and the one that makes the logits."""


def wrapped(name: str) -> Run:
    make, size, *_ = MODELS[name]
    torch.manual_seed(0)
    module = make()
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in norms:  # statistics of its own activations, as after a training
        part.momentum = 1.0
    if norms:
        with torch.no_grad():
            module.train()(torch.randn(2, 3, size, size))
    module = module if name in LARGE else module.double()
    return seglens.wrap(module.eval(), classes=("background", "thing"), image_size=size)


@pytest.mark.parametrize("name", MODELS)
def test_any_model_is_explained(name):
    run = wrapped(name)
    _, size, places, head = MODELS[name]
    infos = seglens.layers(run)
    assert infos
    roles = {role for info in infos for role in info.roles}
    assert roles == (set(ROLES) if places == LAST else set())
    assert all(min(info.shape) > 0 and info.stride == round(max(size, 64) / info.shape[1]) for info in infos)

    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    images = images.to(run.segmenter.mean)
    exact = 1e-5 if name not in LARGE else 1e-4
    pixels = torch.zeros(2, size, size, dtype=torch.bool)
    pixels[0, 4:20, 8:30], pixels[1, 10:, 2:9] = True, True
    # Of two opposite scores at least one has a map after the ReLU, whatever the random weights are.
    targets = [seglens.Target("for", 1, pixels, against=0), seglens.Target("against", 0, pixels, against=1)]
    found = seglens.explain(run, images, targets, methods=METHODS, layers=places)
    for method, layer in ((method, layer) for method in METHODS for layer in places):
        both = [found[target.label, method, layer] for target in targets]
        assert (both[0].ok | both[1].ok).all(), (method, layer)
        assert all(item.map[item.ok].isfinite().all() for item in both)

    last = [target.select(slice(1, 2)) for target in targets]
    alone = seglens.explain(run, images[1:], last, methods=METHODS, layers=places)
    for key, item in alone.items():
        batched = found[key].map[1:]
        limit = exact * batched.abs().max().nan_to_num().item()
        torch.testing.assert_close(item.map, batched, rtol=0, atol=limit, equal_nan=True)

    (traced,) = trace(run.segmenter, images, targets[:1], [head])
    tap = traced.taps[head]
    limit = 1e-6 * (tap.activation * tap.gradient).abs().sum().item()
    sums = hires_cam(tap.activation, tap.gradient).sum((1, 2))
    torch.testing.assert_close(sums, traced.score, rtol=0, atol=limit)


def test_channels_last_outputs_are_refused():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images).permute(0, 2, 3, 1)

    with pytest.raises(
        ModelError,
        match=r"1 x 32 x 32 x 2.*seem to come last: return output\.permute\(0, 3, 1, 2\)",
    ):
        seglens.wrap(Last(), classes=("background", "thing"), image_size=32)


ADOPTED = {
    "deeplabv3plus": "DeepLabV3Plus", "manet": "MAnet", "linknet": "Linknet", "fpn": "FPN",
    "pspnet": "PSPNet", "pan": "PAN", "upernet": "UPerNet", "segformer": "Segformer",
}  # fmt: skip


def check_adopted(tmp_path, module: nn.Module, model: str, encoder: str | None, size: int) -> None:
    torch.save(module.eval().state_dict(), tmp_path / "foreign.pth")
    run = seglens.adopt(
        tmp_path / "foreign.pth",
        model=model,
        encoder=encoder,
        classes=("background", "thing"),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        image_size=size,
        out=tmp_path / "run",
    )
    images = torch.rand(1, 3, size, size)
    with torch.no_grad():
        raw = module(images)
    expected = raw["out"] if isinstance(raw, dict) else raw
    torch.testing.assert_close(run.predict(images).logits, expected)


@pytest.mark.parametrize("name", ADOPTED)
def test_any_architecture_of_smp_is_adopted(name, tmp_path):
    check_adopted(tmp_path, of_smp(ADOPTED[name], classes=1)(), name, SMALL, 128 if name == "pan" else 64)


@pytest.mark.parametrize(
    ("name", "theirs", "settings"),
    [
        ("torchvision-lraspp", "lraspp_mobilenet_v3_large", {}),
        # its auxiliary output is left behind
        ("torchvision-deeplabv3-mobilenet", "deeplabv3_mobilenet_v3_large", {"aux_loss": True}),
    ],
)
def test_models_of_torchvision_are_adopted(name, theirs, settings, tmp_path):
    check_adopted(tmp_path, of_torchvision(theirs, 1, **settings)(), name, None, 64)


def test_the_vision_transformer_is_that_of_smp():
    theirs = of_smp("DPT", "tu-vit_tiny_patch16_224", dynamic_img_size=True)().eval()
    mine, _ = zoo.build("dpt", encoder="vit_tiny_patch16_224", outputs=2)
    fit(mine, theirs.state_dict())
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(mine.eval()(images), theirs(images), rtol=0, atol=0)


def test_every_architecture_of_smp_can_be_named():
    names = {kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    assert names == {*ADOPTED.values(), "Unet", "UnetPlusPlus", "DeepLabV3", "DPT"}
    assert set(ADOPTED) | {"resnet-unet", "unetplusplus", "deeplabv3", "dpt"} <= set(zoo.MODELS)
    assert names <= {name.partition(" ")[0] for name in MODELS}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
def test_a_quantised_network_shows_no_layers() -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            quantisation: Any = torch.ao.quantization
            self.before, self.after = quantisation.QuantStub(), quantisation.DeQuantStub()
            self.head = nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            answer: Tensor = self.after(self.head(self.before(images)))
            return answer

    quantisation: Any = torch.ao.quantization
    network: Any = Quantised().eval()
    network.qconfig = quantisation.QConfig(
        activation=quantisation.MinMaxObserver.with_args(dtype=torch.quint8),
        weight=quantisation.default_weight_observer,
    )
    observed = quantisation.prepare(network)
    observed(torch.randn(1, 3, 32, 32))
    run = seglens.wrap(quantisation.convert(observed), classes=("background", "cell"), image_size=32)
    images = torch.rand(1, 3, 32, 32)
    target = seglens.targets.whole_class(torch.ones(1, 32, 32, dtype=torch.bool), class_index=1)
    with pytest.raises(ModelError, match=r"A quantised module shows no layers.*occlusion, rise|rise\."):
        seglens.layers(run)
    assert seglens.explain(run, images, target, methods=("occlusion",))["occlusion"].status == ("ok",)


class Doubled(torch.autograd.Function):
    """Twice its input, and no backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return 2 * values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("no kernel for that")


def test_a_network_whose_backward_pass_fails_says_so() -> None:
    class Forward(Plain):
        def forward(self, images: Tensor) -> Any:
            return Doubled.apply(super().forward(images))

    run = seglens.wrap(Forward(Tensor), classes=("background", "thing"), image_size=32)
    assert [info.name for info in seglens.layers(run)]
    images, pixels = torch.rand(1, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    target = seglens.targets.whole_class(pixels)
    with pytest.raises(
        ModelError, match=r"backward pass fails: no kernel for that\. Methods without gradients"
    ):
        seglens.explain(run, images, target, methods=("grad-cam",), layers=("two",))
    assert seglens.explain(run, images, target, methods=("occlusion",))["occlusion"].status == ("ok",)
