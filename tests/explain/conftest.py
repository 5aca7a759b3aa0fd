"""Small networks for the tests of explanation."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import Tensor, nn

from seglens.data.sample import Task
from seglens.explain.extremal import ExtremalMask
from seglens.explain.fused import FusedHiResCam
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.lrp import Lrp
from seglens.explain.methods import METHODS, Method, Settings
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion
from seglens.explain.rise import Rise
from seglens.explain.sampled import ExpectedGradients, SmoothGrad
from seglens.explain.shapley import Shapley
from seglens.explain.trace import Trace
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.runs import Run


class SmallUNet(nn.Module):
    """Two levels with a skip; ReLUs are modules of their own, in place or not."""

    def __init__(self, outputs: int = 1, *, inplace: bool = False) -> None:
        super().__init__()
        self.down = self._block(3, 8, inplace)
        self.deep = self._block(8, 16, inplace)
        self.up = self._block(24, 8, inplace)
        self.head = nn.Conv2d(8, outputs, 1)

    @staticmethod
    def _block(inside: int, out: int, inplace: bool) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inside, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=inplace)
        )

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down(images)
        coarse = self.deep(nn.functional.max_pool2d(fine, 4))
        up = nn.functional.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
        return self.head(self.up(torch.cat([fine, up], 1)))


Runs = Callable[[nn.Module], Run]


def state_of(module: nn.Module) -> tuple[list[tuple[object, ...]], list[Tensor]]:
    """All that a pass could leave behind: flags, hooks and wrappers; weights, buffers and the generator."""
    flags: list[tuple[object, ...]] = [
        (part.training, len(part._forward_hooks), "forward" in vars(part)) for part in module.modules()
    ]
    flags += [(entry.requires_grad, entry.grad is None) for entry in module.parameters()]
    return flags, [*(tensor.clone() for tensor in module.state_dict().values()), torch.get_rng_state()]


@contextmanager
def stays_as_it_was(module: nn.Module) -> Iterator[None]:
    """Fail where the block changes anything in ``module``, or draws random numbers."""
    flags, tensors = state_of(module)
    yield
    flags_after, tensors_after = state_of(module)
    assert flags_after == flags
    assert all(torch.equal(one, other) for one, other in zip(tensors_after, tensors, strict=True))


def taps_equal(found: Trace, expected: Trace, *, prefix: str = "", atol: float = 1e-5) -> None:
    """Fail where activations or gradients differ; ``found`` has ``prefix`` in its names."""
    assert found.taps.keys() == {prefix + name for name in expected.taps}
    for name, tap in expected.taps.items():
        twin = found.taps[prefix + name]
        for mine, yours in ((twin.activation, tap.activation), (twin.gradient, tap.gradient)):
            torch.testing.assert_close(mine, yours, rtol=0, atol=atol * yours.abs().max().item())


def run_of(module: nn.Module, *, outputs: int = 1, divisor: int = 1) -> Run:
    """A run of ``module`` on raw images: nothing is subtracted, nothing divided."""
    classes = max(outputs, 2)
    spec = ModelSpec(
        architecture="wrapped",
        classes=classes,
        head="sigmoid" if outputs == 1 else "softmax",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        divisor=divisor,
    )
    return Run(Segmenter(module, spec), Task(classes=tuple(f"class {i}" for i in range(classes))))


def seeded_unet(outputs: int = 1, *, inplace: bool = False, seed: int = 0) -> SmallUNet:
    """A small U-Net whose batch normalisation does not hold the numbers that it is born with."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = SmallUNet(outputs, inplace=inplace)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                nn.init.normal_(part.running_mean, std=0.1)
                nn.init.uniform_(part.running_var, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.3)
    return module.eval()


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Weights and noise that tests draw are the same every time."""
    torch.manual_seed(0)


@pytest.fixture
def unchanged() -> Callable[[nn.Module], AbstractContextManager[None]]:
    """A block that must leave a module as it was."""
    return stays_as_it_was


@pytest.fixture
def assert_taps_equal() -> Callable[..., None]:
    """Compare two traces, layer by layer."""
    return taps_equal


@pytest.fixture
def make_run() -> Runs:
    """Make a run of any module."""
    return run_of


@pytest.fixture
def make_unet() -> Callable[..., SmallUNet]:
    """Make the same small U-Net every time."""
    return seeded_unet


@pytest.fixture
def run() -> Run:
    """A run of the small U-Net with one output."""
    return run_of(seeded_unet())


@pytest.fixture
def images() -> Tensor:
    """Three pictures of 32 x 40 pixels."""
    return torch.rand(3, 3, 32, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def pixels() -> Tensor:
    """A region in each of the three pictures, of different sizes."""
    regions = torch.zeros(3, 32, 40, dtype=torch.bool)
    regions[0, 4:20, 8:30] = True
    regions[1, 10:14, 2:9] = True
    regions[2, 0:32, 20:40] = True
    return regions


@pytest.fixture
def short(images: Tensor) -> dict[str, Method]:
    """Every method by name, with settings that let it end soon and with what it can't do without."""
    settings: list[Settings] = [
        IntegratedGradients(steps=5),
        SmoothGrad(num_samples=3),
        ExpectedGradients(num_samples=4, references=images[:2].flip(3)),
        Occlusion(window=16),
        SuperpixelOcclusion(num_segments=6),
        Rise(num_masks=10),
        Shapley(num_segments=6, pairs=2),
        ExtremalMask(steps=5, cells=6),
        FusedHiResCam(layers=("down", "deep")),
        Lrp(),
    ]
    return {**{name: name for name in METHODS}, **{entry.name: entry for entry in settings}}
