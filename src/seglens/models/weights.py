"""State dicts: checking every tensor against a network, and keeping our own.

What a file holds is found out in ``checkpoint.py``, which of it is the network's here (`choose_state`).
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seglens.errors import CheckpointError, ModelError
from seglens.models.checkpoint import check_weights_file, read_checkpoint, read_safetensors

NESTS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights")
"""Where training scripts put the tensors, the likeliest first: what an error is about where nothing fits."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers (DataParallel, torch.compile, a training module) put before every name."""
ON_THE_SIDE = ("aux_classifier.", "classification_head.")
"""Outputs that torchvision and segmentation-models-pytorch train beside the masks, and that no mask needs."""
_SPLIT = {
    "weight_mask": "it was pruned, so end that with torch.nn.utils.prune.remove",
    "weight_g": "end its normalisation with torch.nn.utils.remove_weight_norm",
    "parametrizations.weight": "end that with torch.nn.utils.parametrize.remove_parametrizations",
    "lora_A": "it has adapters, so merge them with merge_and_unload() of peft",
}
"""How names show that a weight is kept in parts, and what makes it one again."""
_SHOWN = 5
_UNIMPORTANT = "num_batches_tracked"
"""Counts training steps; no output depends on it, and older files lack it."""

State = Mapping[str, Tensor]


def check_present(module: nn.Module) -> None:
    """Raise where weights of a network are on the device "meta", shapes without numbers, or not made yet.

    Raises:
        ModelError: some are.
    """
    tensors = list(_named_tensors(module))
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise ModelError(
            f"The network has {_count('tensors that its first picture will make', lazy)}: its layers are "
            "lazy, and would get random weights here. Run it once, then give it its weights: "
            "module.load_state_dict(...)."
        )
    empty = [name for name, tensor in tensors if tensor.is_meta]
    if empty:
        raise ModelError(
            f"The network has {_count('tensors without numbers', empty)}: they are on the device 'meta'. "
            "Give it its weights: module.load_state_dict(..., assign=True)."
        )


def _named_tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return (*module.named_parameters(), *module.named_buffers())


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Return the tensors of ``file`` by name, on the CPU, without the prefix that all names share.

    Raises:
        CheckpointError: as `read_checkpoint`; or it holds several state dicts.
    """
    found = read_checkpoint(file)
    if len(found) > 1:
        raise CheckpointError(
            f"{file} holds several state dicts: {', '.join(found)}. Save the one that is wanted in a file of "
            "its own: torch.save(torch.load(FILE)[KEY], 'weights.pth')."
        )
    return strip_prefixes(next(iter(found.values())))


def choose_state(
    module: nn.Module, dicts: Mapping[str, State], key: str | None, file: Path
) -> tuple[str, State]:
    """Return which of the state dicts of a file is that of ``module``, and its tensors by their names there.

    That is the one that fits, whatever prefix stands in front of its names. A dict that holds the network
    twice (``student.``, ``teacher.``) counts as two. Where none fits, it is the likeliest.

    Raises:
        CheckpointError: several fit and differ, or there is none of that ``key``.
    """
    wanted = module.state_dict()
    inside = {
        label: state for name, whole in dicts.items() for label, state in _networks(name, whole, wanted)
    }
    if key is not None:
        inside = {label: state for label, state in inside.items() if f".{label}".endswith(f".{key}")}
        if len(inside) != 1:
            allowed = [label for name, whole in dicts.items() for label, _ in _networks(name, whole, wanted)]
            raise CheckpointError(
                f"{file} holds no weights {key!r}. Allowed: "
                f"{', '.join(filter(None, allowed)) or 'none; leave it out'}."
            )
    fitting = {label: state for label, state in inside.items() if not any(misfits(state, wanted).values())}
    different = dict[str, State]()
    for label, state in fitting.items():
        if not any(_same(state, other) for other in different.values()):
            different[label] = state
    if len(different) > 1:
        last = list(different)[-1]
        raise CheckpointError(
            f"{file} holds {len(different)} sets of weights that fit the model and differ: "
            f"{', '.join(different)}. Say which: --weights-key {last} on the command line, "
            f"weights_key={last!r} in Python. (A running average, ema or teacher, is usually "
            "the one that its authors score.)"
        )
    if different:
        return next(iter(different.items()))
    likely = next(
        (name for name in NESTS if name in inside), max(inside, key=lambda label: len(inside[label]))
    )
    return likely, inside[likely]


def refuse_unnamed(module: nn.Module, content: Any, chosen: State, file: Path, path: str = "") -> None:
    """Raise where a file holds other numbers for all parameters of ``module``, as a list without names.

    Libraries of running averages (torch-ema) keep them so, in the order of the parameters: ``shadow_params``.
    Called where nobody said which weights of the file are meant.

    Raises:
        CheckpointError: it does.
    """
    if isinstance(content, Mapping):
        for name, value in content.items():
            refuse_unnamed(module, value, chosen, file, f"{path}.{name}".lstrip("."))
    names = [name for name, _ in module.named_parameters()]
    tensors = content if isinstance(content, list | tuple) and len(content) == len(names) else ()
    pairs = [(tensor, chosen.get(name)) for tensor, name in zip(tensors, names, strict=False)]
    if not pairs or any(
        not isinstance(one, Tensor) or other is None or one.shape != other.shape for one, other in pairs
    ):
        return
    if not all(other is not None and torch.equal(one, other) for one, other in pairs):
        raise CheckpointError(
            f"{file} holds weights, and beside them {len(pairs)} other tensors of the same shapes without "
            f"names ({path}), such as a running average. Its authors may have scored either. Say which: with "
            "--weights-key, or weights_key in Python, those that have names are taken. For the others put "
            "them into the network (ema.copy_to(model.parameters())) and save its state dict."
        )


def _networks(key: str, state: State, wanted: State) -> list[tuple[str, State]]:
    """Return the networks in one state dict, by the prefix that stands before the names that are wanted."""
    first = next(iter(wanted))
    prefixes = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    if not prefixes:
        return [(key, strip_prefixes(state))]
    found = list[tuple[str, State]]()
    for prefix in prefixes:
        longer = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix) and not (longer and name.startswith(longer))
        }
        own = {
            name: tensor for name, tensor in own.items() if name in wanted or not name.startswith(ON_THE_SIDE)
        }
        named = prefix.rstrip(".") if len(prefixes) > 1 else ""
        found.append((".".join(filter(None, (key, named))), own))
    return found


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` without the prefixes of wrappers, one inside the other, that all names share."""
    found = dict(state)
    while shared := [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in found)]:
        found = {name.removeprefix(shared[0]): tensor for name, tensor in found.items()}
    return found


def fit(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put every tensor of ``state`` into ``module``, or change nothing and say what doesn't fit.

    Raises:
        CheckpointError: tensors are missing, left over, of another shape or kind of number, or not finite.
    """
    wanted = module.state_dict()
    wrong = misfits(state, wanted)
    if any(wrong.values()):
        found = "; ".join(_count(what, names) for what, names in wrong.items() if names)
        raise CheckpointError(
            f"The weights don't fit the model ({len(wanted)} tensors wanted, {len(state)} given): {found}. "
            + _advice(*wrong.values())
        )
    broken = [why for name in wanted if name in state and (why := _broken(name, state[name], wanted[name]))]
    if broken:
        rest = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise CheckpointError(
            f"The weights can't be used, {len(broken)} of {len(wanted)} tensors are wrong: "
            f"{'; '.join(broken[:_SHOWN])}{rest}. Take weights from before the training went wrong, or "
            "save them as floating-point numbers."
        )
    # Not the module's own method: that of segmentation-models-pytorch rewrites names.
    nn.Module.load_state_dict(module, {**wanted, **state})


def misfits(state: State, wanted: State) -> dict[str, list[str]]:
    """Return the names of tensors that keep ``state`` from being that of a network, by what is wrong."""
    return {
        "missing in the file": [
            name for name in wanted if name not in state and not name.endswith(_UNIMPORTANT)
        ],
        "unknown to the model": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name}: {_shape(state[name])} in the file, {_shape(wanted[name])} in the model"
            for name in wanted
            if name in state and state[name].shape != wanted[name].shape
        ],
    }


def _broken(name: str, given: Tensor, wanted: Tensor) -> str:
    """Say what is wrong with the numbers of a tensor; nothing where they can be used."""
    kinds = str(given.dtype).removeprefix("torch."), str(wanted.dtype).removeprefix("torch.")
    if given.is_floating_point() != wanted.is_floating_point() or given.is_complex() != wanted.is_complex():
        return f"{name} is {kinds[0]} in place of {kinds[1]}"
    if (given.dtype == torch.bool) != (wanted.dtype == torch.bool):
        return f"{name} is {kinds[0]} in place of {kinds[1]}"
    if not given.is_floating_point():
        return ""
    values = given.to(wanted.dtype)
    if not values.isfinite().all() and wanted.isfinite().all():
        return f"{name} has {int((~values.isfinite()).sum())} values that are NaN or infinite"
    if name.endswith("running_var") and bool((values < 0).any()):
        return f"{name} has a negative variance, {values.min().item():.3g}"
    return ""


def save_weights(module: nn.Module, file: Path, described: Mapping[str, str] | None = None) -> None:
    """Write the state dict of ``module`` to ``file`` as safetensors, with ``described`` as its metadata."""
    # safetensors refuses tensors that share memory (tied weights), hence the copies.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    try:
        save_file(state, file, metadata={"format": "pt", **(described or {})})
    except SafetensorError as error:  # It wraps the errors of the disk.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def load_weights(module: nn.Module, file: Path) -> None:
    """Read into ``module`` what ``save_weights`` wrote.

    Raises:
        CheckpointError: the file is missing or damaged, or doesn't fit.
    """
    check_weights_file(Path(file))
    fit(module, read_safetensors(Path(file)))


def _advice(missing: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    """Guess the fault from the pattern of what doesn't fit."""
    split = next((end for end in _SPLIT if any(f"{name}.".find(f"{end}.") > 0 for name in unexpected)), None)
    if split is not None:
        return f"The file holds a tensor in parts ({split}): {_SPLIT[split]}, and save the state dict again."
    wrong = [line.partition(":")[0] for line in misshapen]
    if wrong and not missing and not unexpected:
        if len(wrong) <= 2 and all("head" in name or "classifier" in name for name in wrong):
            return "Only the head differs: check the number of classes (one output for a sigmoid head)."
        if len(wrong) == 1:
            return "Only one layer differs: check the number of image channels."
        return "Names agree, shapes don't: check the encoder or the width."
    if misshapen or _agree(missing, unexpected):
        return "Check the encoder: it is another one, or deeper."
    return "Check the model's architecture and encoder."


def _agree(missing: list[str], unexpected: list[str]) -> bool:
    """Whether all that is missing or left over lies in the encoder."""
    return all(name.startswith("encoder.") for name in (*missing, *unexpected))


def _count(what: str, names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{rest})"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
