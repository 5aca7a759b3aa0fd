"""Layer-wise relevance propagation: worked out by hand, against captum, and its sum."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seglens
from seglens.errors import ModelError, SettingError
from seglens.explain.lrp import Lrp, _Rules
from seglens.explain.trace import trace
from seglens.runs import Run

CLASSES = ("background", "cell")


def run_of(module: nn.Module, channels: int = 1, **more: Any) -> Run:
    plain: dict[str, Any] = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "outputs_are": "logits"}
    return seglens.wrap(module, classes=CLASSES, channels=channels, image_size=16, **(plain | more))


def whole(run: Run, images: Tensor) -> seglens.Target:
    """Every pixel as the target."""
    return seglens.targets.box(images, 0, 0, images.shape[3], images.shape[2])


def left(images: Tensor) -> seglens.Target:
    """The left half: a map that is the same everywhere would be none."""
    return seglens.targets.box(images, 0, 0, images.shape[3] // 2, images.shape[2])


class Block(nn.Module):
    """A U-Net of one level with a residual sum, without any bias; ``act`` and ``norm`` as given."""

    def __init__(
        self, act: Callable[[], nn.Module] = nn.ReLU, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), norm(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2, bias=False)
        self.last = nn.Conv2d(16, 1, 1, bias=False)
        self.act = act()
        if isinstance(self.norm, nn.BatchNorm2d):
            assert self.norm.running_var is not None
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.act(self.norm(self.first(images)))
        deep = F.max_pool2d(fine, 2)
        deep = deep + self.act(self.deep(deep))
        return self.last(torch.cat([fine, self.up(deep)], 1))


class Gated(Block):
    """A block with squeeze and excitation."""

    def forward(self, images: Tensor) -> Tensor:
        fine = self.act(self.first(images))
        gate = fine.mean((2, 3), keepdim=True).sigmoid()
        return self.last(torch.cat([fine * gate, self.up(F.avg_pool2d(fine, 2))], 1))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_one_unit_worked_out_by_hand() -> None:
    """Inputs 1 and 1, weights 3 and -1: the unit is 2, with gamma 1 shares are 6 and -1 of 5."""
    unit = nn.Conv2d(2, 1, 1, bias=False)
    unit.weight.data = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1)
    run, image = run_of(unit, channels=2), torch.ones(1, 2, 16, 16)
    found = seglens.explain(run, image, left(image), methods=Lrp(gamma=1.0))["lrp"]
    assert found.channels is not None
    torch.testing.assert_close(found.channels[0].sum((1, 2)), torch.tensor([2.4, -0.4]))
    torch.testing.assert_close(found.diagnostics["conserved"], torch.ones(1))
    # A negative unit: what makes it negative counts more. Weights -3 and 1: -6 and 1 of -5.
    unit.weight.data = -unit.weight.data
    found = seglens.explain(run, image, left(image), methods=Lrp(gamma=1.0))["lrp"]
    assert found.channels is not None
    torch.testing.assert_close(found.channels[0].sum((1, 2)), torch.tensor([-2.4, 0.4]))


def test_an_input_below_zero_counts_by_what_it_gives() -> None:
    """Inputs -1 and 1, weights -3 and -1: gives 3 and -1, as in the case above."""
    unit = nn.Conv2d(2, 1, 1, bias=False)
    unit.weight.data = torch.tensor([-3.0, -1.0]).view(1, 2, 1, 1)
    run = run_of(unit, channels=2, mean=(0.5, 0.0), std=(0.5, 1.0))
    image = torch.stack([torch.zeros(16, 16), torch.ones(16, 16)])[None]  # normalised: -1 and 1
    found = seglens.explain(run, image, left(image), methods=Lrp(gamma=1.0))["lrp"]
    assert found.channels is not None
    torch.testing.assert_close(found.channels[0].sum((1, 2)), torch.tensor([2.4, -0.4]))


def test_gamma_0_is_the_normalised_picture_times_its_gradient(images: Tensor) -> None:
    run = run_of(Block(), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))
    target = whole(run, images)
    found = seglens.explain(run, images, target, methods=Lrp(gamma=0.0))["lrp"]
    (traced,) = trace(run.segmenter, images, [target], [], input_gradient=True)
    assert traced.input_gradient is not None
    mean = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    wanted = (images - mean) * traced.input_gradient / 16**2  # of the mean, where the trace is of the sum
    assert found.channels is not None
    torch.testing.assert_close(found.channels, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.1, 0.25, 10.0])
def test_layers_are_those_of_captum(gamma: float) -> None:
    """Pictures without negative values and no biases: where both follow the same formula."""
    rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    from captum.attr import LRP

    torch.manual_seed(5)
    last = nn.Conv2d(8, 1, 1, bias=False)
    last.weight.data.abs_()  # a positive score: captum boosts positive weights whatever the sign
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        last,
    )
    run, image = run_of(nn.Sequential(net, nn.Upsample(scale_factor=2))), torch.rand(1, 1, 16, 16)
    found = seglens.explain(run, image, whole(run, image), methods=Lrp(gamma=gamma))["lrp"]
    for layer in (net[0], net[3], net[5]):
        layer.rule = rules.GammaRule(gamma=gamma)
    summed = nn.Sequential(*net, nn.AvgPool2d(8))
    theirs = LRP(summed).attribute(image.clone().requires_grad_(), target=(0, 0, 0))
    torch.testing.assert_close(found.map, theirs.sum(1).detach().float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "module",
    [
        Block(),
        Block(nn.LeakyReLU),
        Block(nn.SiLU),
        Block(lambda: nn.ReLU(inplace=True)),
        Block(lambda: nn.ReLU6(inplace=True)),
        Block(nn.GELU),
        Block(nn.PReLU),
        Block(norm=lambda num: nn.InstanceNorm2d(num, affine=True)),
        Block(norm=lambda num: nn.GroupNorm(2, num)),
        Gated(),
        Gated(nn.Hardswish),
    ],
)
def test_without_biases_all_relevance_arrives(module: nn.Module, images: Tensor) -> None:
    run = run_of(module, channels=3)
    found = seglens.explain(run, images, whole(run, images), methods="lrp")["lrp"]
    torch.testing.assert_close(found.diagnostics["conserved"], torch.ones(2), rtol=1e-3, atol=0)
    torch.testing.assert_close(
        found.map.flatten(1).sum(1) / found.diagnostics["conserved"],
        run.segmenter.eval()(images).mean((1, 2, 3)).detach(),
        rtol=1e-3,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("unet", None),
        ("resnet-unet", "resnet18"),
        ("unetplusplus", "tf_efficientnet_lite0"),
        ("deeplabv3", "resnet18"),
    ],
)
def test_rules_leave_the_answer_as_it_is(architecture: str, encoder: str | None) -> None:
    spec = seglens.ModelSpec(architecture=architecture, encoder=encoder, image_size=64)
    segmenter = seglens.Segmenter.from_spec(spec).eval().requires_grad_(False)
    images = torch.rand(1, 3, 64, 64)
    plain = segmenter(images)
    for gamma in (0.25, 5.0):
        with _Rules(gamma):
            ruled = segmenter(images.clone().requires_grad_())
        away = (ruled - plain).abs().max() / plain.abs().max()
        assert away.item() < 1e-4


class Attention(nn.Module):
    """Pixels that look at each other: two things that depend on the picture are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 1)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        found = self.body(images).flatten(2)
        return self.last((found @ found.transpose(1, 2) @ found).view(len(images), 4, *images.shape[2:]))


class _Clipped(torch.autograd.Function):
    """A function with a backward pass of its own."""

    @staticmethod
    def forward(context: object, value: Tensor) -> Tensor:
        return value.clamp(-1, 1)

    @staticmethod
    def backward(context: object, *slope: Tensor) -> Tensor:
        return slope[0]


class Own(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return _Clipped.apply(super().forward(input))


class Checkpointed(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return checkpoint(super().forward, input, use_reentrant=False)


class Squared(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        found = super().forward(input)
        return found * found


class InPlace(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.mul_(2))


def test_a_network_that_changes_its_pictures_is_that_which_does_not() -> None:
    changing, plain, image = InPlace(1, 1, 1), nn.Conv2d(1, 1, 1), torch.rand(2, 1, 16, 16)
    plain.load_state_dict({"weight": 2 * changing.weight, "bias": changing.bias})
    runs = run_of(changing), run_of(plain)
    found, right = (seglens.explain(run, image, whole(run, image), methods="lrp")["lrp"].map for run in runs)
    torch.testing.assert_close(found, right)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Attention(), "matmul"),
        (Own(1, 1, 1), "_Clipped"),
        (Squared(1, 1, 1), "mul"),
        (Checkpointed(1, 1, 1), "checkpointing"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(module: nn.Module, name: str) -> None:
    run, image = run_of(module), torch.rand(2, 1, 16, 16)
    with pytest.raises(ModelError, match=rf"lrp has no rule for .*{name}.*convolutional"):
        seglens.explain(run, image, whole(run, image), methods="lrp")


def test_an_activation_that_is_not_0_at_0_has_no_rule() -> None:
    value = torch.rand(1, 1, 4, 4).requires_grad_()
    with _Rules(0.25), pytest.raises(ModelError, match="no rule for hardtanh that is not 0 at 0"):
        F.hardtanh(value, 0.5, 1.0)


def test_statistics_of_the_batch_have_no_rule() -> None:
    value = torch.rand(2, 1, 4, 4).requires_grad_()
    with _Rules(0.25), pytest.raises(ModelError, match="no rule for batch_norm"):
        F.batch_norm(value, None, None, training=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
def test_a_script_is_refused() -> None:
    run, image = run_of(nn.Conv2d(1, 1, 1)), torch.rand(2, 1, 16, 16)
    run.segmenter.module = torch.jit.trace(run.segmenter.module, image)
    with pytest.raises(ModelError, match="lrp has no rule for a compiled script"):
        seglens.explain(run, image, whole(run, image), methods="lrp")


def test_settings_out_of_range_are_refused() -> None:
    for gamma in (-0.1, 1e4):
        with pytest.raises(SettingError, match="must be from 0 to 1000"):
            Lrp(gamma=gamma)
