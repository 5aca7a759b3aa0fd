"""A network that wants its own call, and what foreign code throws when it is tried."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seglens
from seglens.errors import ModelError

TWO = ("background", "cell")


class Asks(nn.Module):
    """Adds a number that its caller must give to the logits of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor, task: Tensor) -> dict[str, Tensor]:
        return {"masks": self.head(self.features(images)) + task}


class Fixed(nn.Module):
    """The same network with its other argument fixed, as it had to be written without ``call``."""

    def __init__(self, module: nn.Module, task: Tensor) -> None:
        super().__init__()
        self.module, self.task = module, task

    def forward(self, images: Tensor) -> Any:
        return self.module(images, self.task)


def wrapped(module: nn.Module, **settings: Any) -> seglens.Run:
    return seglens.wrap(
        module, classes=TWO, head="softmax", mean=(0.5,) * 3, std=(0.5,) * 3, image_size=16, **settings
    )


def test_a_network_is_called_as_it_says():
    torch.manual_seed(0)
    network, task = Asks().eval(), torch.tensor([0.0, 0.3]).view(1, 2, 1, 1)
    run = wrapped(network, call=lambda net, x: net(x, task=task))
    fixed, images = wrapped(Fixed(network, task)), torch.rand(2, 3, 16, 24)
    expected = network((images - 0.5) / 0.5, task)["masks"]
    assert torch.equal(run.predict(images).logits, expected)
    target = seglens.targets.whole_class(torch.ones(2, 16, 24, dtype=torch.bool))
    maps, layers = ("grad-cam", "score-cam", "saliency"), ("features",)
    mine = seglens.explain(run, images, target, methods=maps, layers=layers)
    theirs = seglens.explain(fixed, images, target, methods=maps, layers=("module.features",))
    for method in maps[:2]:
        one, other = mine[method, "features"].map, theirs[method, "module.features"].map
        assert one[0].isfinite().all()
        torch.testing.assert_close(one, other, equal_nan=True)  # no map where no weight is positive
    torch.testing.assert_close(mine["saliency"].map, theirs["saliency"].map)


def test_a_window_that_is_opened_keeps_the_call():
    task = torch.zeros(1, 2, 1, 1)
    run = wrapped(Asks(), call=lambda net, x: net(x, task), window=(0.0, 0.5))
    images = torch.rand(1, 3, 16, 16) / 2
    opened, lighter = run.opened(images)
    torch.testing.assert_close(opened.predict(lighter).logits, run.predict(images).logits)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda net, x: net.no_such_part(x), "'Asks' object has no attribute 'no_such_part'"),
        (lambda net, x: net(x, torch.zeros(1))["out"], "there is no key 'out'"),
        (lambda net, x: [][0], "list index out of range"),
        (lambda net, x: net(x), "say how it is called, such as call=lambda net, x"),
    ],
)
def test_what_a_call_throws_is_said_with_the_shape(call, reason):
    with pytest.raises(ModelError, match=rf"(?s)can't take an image of shape \(3, 16, 16\).*{reason}"):
        wrapped(Asks(), call=call)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (lambda made: made["out"], "there is no key 'out'"),
        (lambda made: made.logits, "'dict' object has no attribute 'logits'"),
    ],
)
def test_what_an_output_function_throws_is_said_with_the_shapes(output, reason):
    task = torch.zeros(1, 2, 1, 1)
    with pytest.raises(ModelError, match=rf"failed: {reason}.*dict of masks \(1 x 2 x 16 x 16\)"):
        wrapped(Asks(), call=lambda net, x: net(x, task), output=output)


class Lookup(nn.Module):
    """A network with a table for one size of picture."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Conv2d(3, 2, 1), {16: 1.0}

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images) * self.table[images.shape[-1]]


def test_a_key_error_on_another_size_is_refused_by_name():
    run = wrapped(Lookup())
    with pytest.raises(ModelError, match=r"can't take images of 20 x 20 pixels.*there is no key 20"):
        run.predict(torch.rand(1, 3, 20, 20))
