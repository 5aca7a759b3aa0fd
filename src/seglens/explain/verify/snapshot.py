"""What a model is like at one moment, so that it can be told whether it was left as found."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Copies of a model's tensors, and its flags and numbers of hooks, by names that say which they are."""

    tensors: dict[str, Tensor]
    flags: dict[str, int]

    @classmethod
    def of(cls, model: nn.Module) -> "Snapshot":
        """Look at ``model`` now: weights, buffers and gradients, and the flags of every part."""
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
    """Name what differs, tensors bit by bit."""
    tensors = sorted(before.tensors.keys() | after.tensors.keys())
    flags = sorted(before.flags.keys() | after.flags.keys())
    changed = [name for name in tensors if not _same(before.tensors.get(name), after.tensors.get(name))]
    return changed + [name for name in flags if before.flags.get(name) != after.flags.get(name)]


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    # As bytes: a NaN is itself, and 0 is not -0.
    return torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))
