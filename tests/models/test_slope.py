"""Whether a network's gradient is the slope of its answer: by networks whose gradient is known by hand."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

import seglens
from seglens.errors import SeglensWarning
from seglens.models.slope import DIRECTIONS, gradient_error

TWO = ("background", "cell")


class Reversed(Function):
    """As domain-adversarial training has it: the slope with the other sign."""

    @staticmethod
    def forward(ctx, values):
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def clipped(values: Tensor) -> Tensor:
    if values.requires_grad:
        values.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return values


def quantised(values: Tensor) -> Tensor:
    """The straight-through estimator of twice what flows."""
    return values + values.detach()


class Paths(nn.Module):
    """Two branches that are added; ``change`` is on one of them."""

    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = (nn.Conv2d(3, 2, 3, padding=1) for _ in range(2))
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.one(images)) + self.change(torch.tanh(self.other(images)))


def hooked() -> nn.Module:
    network = Paths(nn.ReLU())
    network.change.register_full_backward_hook(lambda module, given, out: (given[0] / 2,))
    return network


NETWORKS = {
    "detach": lambda: Paths(torch.detach),
    "data": lambda: Paths(lambda values: values.data),
    "numpy": lambda: Paths(lambda values: torch.from_numpy(values.detach().numpy())),
    "reversed": lambda: Paths(Reversed.apply),
    "straight-through": lambda: Paths(quantised),
    "clipped": lambda: Paths(clipped),
    "backward hook": hooked,
    "scale held": lambda: Paths(
        lambda values: values / values.detach().square().mean((1, 2, 3), keepdim=True).sqrt()
    ),
}


def wrapped(network):
    return seglens.wrap(network, classes=TWO, image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_gradient_that_is_not_the_slope_is_warned_of(name):
    with pytest.warns(SeglensWarning, match=r"gradient is not the slope.*Correct it, or take methods"):
        wrapped(NETWORKS[name]())


class Scaled(Paths):
    """Computes what ``plain`` does, and has ``factor`` times its slope."""

    def __init__(self, factor):
        super().__init__(lambda values: values)
        self.factor = factor

    def plain(self, images: Tensor) -> Tensor:
        return super().forward(images)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.plain(images)
        return self.factor * logits + (1 - self.factor) * logits.detach()


@pytest.mark.parametrize("factor", [-1.0, 0.5, 3.0])
def test_the_error_is_that_by_hand(factor):
    """Of ``f`` computed and ``factor * f`` differentiated, along D, with g the gradient of f."""
    network = Scaled(factor)
    with pytest.warns(SeglensWarning, match="gradient is not the slope"):
        found = wrapped(network)
    plain = copy.deepcopy(network).double().plain
    chance = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 32, 32, generator=chance, dtype=torch.float64).requires_grad_()
    weights = torch.rand(1, 2, 32, 32, generator=chance, dtype=torch.float64)
    weights *= torch.tensor([1.0, -1.0])[:, None, None]
    (slope,) = torch.autograd.grad((weights * plain(images)).sum(), images)
    alongs = [torch.randn(images.shape, generator=chance, dtype=torch.float64) for _ in range(DIRECTIONS)]
    errors = []
    for along in (images.detach() / images.detach().square().mean().sqrt(), *alongs):
        true = float((slope * along).sum())
        errors.append(abs(true - factor * true) / max(abs(factor) * float(slope.norm()), abs(true)))
    assert gradient_error(found.segmenter) == pytest.approx(max(errors), rel=1e-3)


class Ungraded(Paths):
    """Has no gradient at all: methods that need one refuse it by name."""

    def __init__(self):
        super().__init__(lambda values: values)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class Typed(nn.Module):
    """Computes in float32 whatever it is given, so that there is no copy in float64."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images.float())


class OtherInDouble(Paths):
    """Answers otherwise in float64 than in float32, as EoMT does with its masks of attention."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if images.dtype == torch.float32 else 3 * logits.detach() + logits


@pytest.mark.parametrize(
    ("network", "error"),
    [
        (lambda: Paths(lambda values: values), 0.0),
        (lambda: Paths(torch.relu), 0.0),
        (lambda: Paths(lambda values: (values > 0).to(values)), 0.0),
        (lambda: Paths(lambda values: values.round(decimals=1)), 0.0),
        (lambda: Paths(lambda values: values).bfloat16(), 0.0),
        (lambda: Paths(lambda values: values).requires_grad_(False), 0.0),
        (lambda: Paths(lambda values: 9 * values / values.square().sum((1, 2, 3), keepdim=True).sqrt()), 0.0),
        (Ungraded, None),
        (Typed, None),
        (lambda: OtherInDouble(lambda values: values), None),
    ],
    ids=["plain", "kinks", "steps", "rounded", "half", "frozen", "norm", "no gradient", "float32", "other"],
)
def test_sound_networks_are_not_warned_of(network, error):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gradient_error(wrapped(network()).segmenter) == error
