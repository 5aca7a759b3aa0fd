"""The model and pictures that checks run on, its state before, and the difference of two maps."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seglens.explain import explain
from seglens.explain.cams import SegXResCam
from seglens.explain.explanation import Explanation, Explanations
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.target import Target
from seglens.runs import Run
from seglens.shapes import Images

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Copies of a model's tensors, and its flags and numbers of hooks, by names that say which they are."""

    tensors: dict[str, Tensor]
    flags: dict[str, int]

    @classmethod
    def of(cls, model: nn.Module) -> "Snapshot":
        """Copy the state of ``model``: weights, buffers and gradients, and the flags of every part."""
        tensors: dict[str, Tensor] = {f"weights {name}": value for name, value in model.named_parameters()}
        tensors |= {f"buffer {name}": value for name, value in model.named_buffers()}
        tensors |= {
            f"gradient of {name}": value.grad
            for name, value in model.named_parameters()
            if value.grad is not None
        }
        flags = {f"frozen {name}": int(value.requires_grad) for name, value in model.named_parameters()}
        for name, part in model.named_modules():
            flags[f"training flag of {name or 'the model'}"] = int(part.training)
            flags[f"hooks of {name or 'the model'}"] = sum(len(vars(part).get(kind, ())) for kind in HOOKS)
        return cls({name: value.detach().clone() for name, value in tensors.items()}, flags)


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the names of what differs, tensors bit by bit."""
    tensors = sorted(before.tensors.keys() | after.tensors.keys())
    flags = sorted(before.flags.keys() | after.flags.keys())
    changed = [name for name in tensors if not _same(before.tensors.get(name), after.tensors.get(name))]
    return changed + [name for name in flags if before.flags.get(name) != after.flags.get(name)]


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    # As bytes: a NaN is itself, and 0 is not -0.
    return torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


ROUNDING = 1e-5
"""Equal in float32: a share of the map's maximum. One operation rounds by 6e-8; some hundred layers and a sum
over thousands of cells multiply that by about a hundred. A real difference is a thousand times larger."""

INCOMPLETE = 0.05
"""Attributions may miss the change of the score by one part in twenty: no more than what pixels of little
weight hold. More steps make the error smaller wherever the gradient is that of the score."""

STEPS = (32, 256)
"""First and last number of steps of Integrated Gradients."""

STEADY = ("grad-cam", "hires-cam", "layer-cam", "input-x-gradient")
"""Maps that change little where the numbers do. Grad-CAM++ and XGrad-CAM divide by what may be near zero."""


class Measured(NamedTuple):
    """A number (None where the check is not applicable) and what to know about it."""

    value: float | None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Case:
    """What is checked: a model on pictures, on the model's device, and the state that it was found in.

    No picture's target is empty.
    """

    run: Run
    images: Images
    target: Target
    layers: tuple[str, ...]
    seed: int
    compiled: bool
    before: Snapshot

    @cached_property
    def path(self) -> Explanation:
        """Integrated Gradients with as many steps as it needs."""
        settings = IntegratedGradients(steps=STEPS[0], tolerance=INCOMPLETE, max_steps=STEPS[1])
        found = explain(self.run, self.images, self.target, methods=[settings], seed=self.seed)
        return found[settings.name]

    @cached_property
    def drift(self) -> Measured:
        """Return the largest difference of the maps of two runs that start from other random states."""
        random = IntegratedGradients(baseline="random", steps=2, draws=2)
        found = []
        with torch.random.fork_rng(devices=cuda_of(self.images)):
            for chance in (1, 2):
                torch.manual_seed(chance)  # what a map may not depend on
                found.append(self.explain([*STEADY, random]))
        return worst(found[0], found[1])

    def explain(self, methods: Sequence[str | SegXResCam | IntegratedGradients]) -> Explanations:
        """Explain the case's own pictures at its own layers."""
        return explain(
            self.run, self.images, self.target, methods=methods, layers=self.layers, seed=self.seed
        )


def worst(found: Explanations, others: Explanations) -> Measured:
    """`worst_of` the explanations under the same keys."""
    return worst_of((item.name, item, others[key]) for key, item in found.items())


def worst_of(pairs: Iterable[tuple[str, Explanation, Explanation]]) -> Measured:
    """The largest difference of two maps as a share of the second one's maximum, over pictures and pairs.

    Infinite where only one of the two has a map; pictures where neither has one are left out.
    """
    largest = Measured(None, "no map varies in any picture")
    for name, one, other in pairs:
        for index in range(len(other.map)):
            ours, theirs = one.map[index], other.map[index]
            if one.status[index] != other.status[index]:
                value = math.inf
            elif one.status[index] != "ok":
                continue
            else:
                value = ((ours - theirs).abs().max() / theirs.abs().max()).item()
            if largest.value is None or value > largest.value:
                largest = Measured(value, f"in {name}" if name else "")
    return largest


def cuda_of(images: Images) -> list[torch.device]:
    """Return the GPU that the pictures are on, as `torch.random.fork_rng` takes it; nothing on a CPU."""
    return [images.device] if images.device.type == "cuda" else []
