"""State dicts: reading anybody's, checking every tensor against a network, and keeping our own.

Files are read with ``weights_only=True``, so that opening one never runs code that it carries.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seglens.errors import CheckpointError

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
NESTS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights")
"""Where training scripts put the tensors when the file holds more than them; the first that is there."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers (DataParallel, torch.compile, a training module) put before every name."""
_SHOWN = 5
_UNIMPORTANT = "num_batches_tracked"
"""Counts training steps; no output depends on it, and older files lack it."""


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Return the tensors of ``file`` by name, on the CPU, without the prefix that all names share.

    Raises:
        CheckpointError: the file is missing, of another kind, damaged, holds no state dict, or is a pickle
            that would need to run code to be read.
    """
    file = Path(file)
    if not file.is_file():
        raise CheckpointError(f"There is no weights file {file}.")
    if file.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"{file} is no weights file that can be read. Allowed: {', '.join(SUFFIXES)}.")
    content = _read_safetensors(file) if file.suffix.lower() == ".safetensors" else _read_pickle(file)
    return strip_prefixes(_find_tensors(content, file))


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` without the prefixes of wrappers, one inside the other, that all names share."""
    found = dict(state)
    while shared := [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in found)]:
        found = {name.removeprefix(shared[0]): tensor for name, tensor in found.items()}
    return found


def fit(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put every tensor of ``state`` into ``module``, or change nothing and say what doesn't fit.

    Where a training module kept tensors of its own beside the network (a loss's weights, say), the names
    under one of ``PREFIXES`` are the network's if they are exactly what it needs.

    Raises:
        CheckpointError: tensors are missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    state = _names_of_network(state, wanted)
    missing = [name for name in wanted if name not in state and not name.endswith(_UNIMPORTANT)]
    unexpected = [name for name in state if name not in wanted]
    misshapen = [
        f"{name}: {_shape(state[name])} in the file, {_shape(wanted[name])} in the model"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if missing or unexpected or misshapen:
        lists = {
            "missing in the file": missing,
            "unknown to the model": unexpected,
            "of another shape": misshapen,
        }
        found = "; ".join(_count(what, names) for what, names in lists.items() if names)
        raise CheckpointError(
            f"The weights don't fit the model ({len(wanted)} tensors wanted, {len(state)} given): {found}. "
            + _advice(missing, unexpected, misshapen)
        )
    # Not the module's own method: that of segmentation-models-pytorch rewrites names.
    nn.Module.load_state_dict(module, {**wanted, **state})


def save_weights(module: nn.Module, file: Path) -> None:
    """Write the state dict of ``module`` to ``file`` as safetensors."""
    # safetensors refuses tensors that share memory (tied weights), hence the copies.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    save_file(state, file, metadata={"format": "pt"})


def load_weights(module: nn.Module, file: Path) -> None:
    """Read into ``module`` what ``save_weights`` wrote.

    Raises:
        CheckpointError: the file is missing or damaged, or doesn't fit.
    """
    if not Path(file).is_file():
        raise CheckpointError(f"There is no weights file {file}.")
    fit(module, _read_safetensors(Path(file)))


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} can't be read as safetensors: {error}.") from error


def _read_pickle(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # What can't be read is an error below; how it was pickled is nobody's concern.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds more than tensors{_more_than_tensors(error)}, and to read the rest would run code "
            "that it carries. Where you trust it, open it with the program that wrote it and save only the "
            "tensors: torch.save(model.state_dict(), FILE)."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file} can't be read, it may be damaged: {_first_line(error)}") from error


def _find_tensors(content: Any, file: Path) -> dict[str, Tensor]:
    """Return the state dict that ``content`` is, or holds under one of ``NESTS``."""
    for candidate in (content, *(content.get(name) for name in NESTS if isinstance(content, dict))):
        if isinstance(candidate, Mapping) and candidate and _are_tensors(candidate):
            return {name: value for name, value in candidate.items() if isinstance(value, Tensor)}
    found = (
        ", ".join(map(str, list(content)[:_SHOWN])) if isinstance(content, dict) else type(content).__name__
    )
    raise CheckpointError(
        f"{file} holds no state dict, neither by itself nor under {', '.join(NESTS)}. "
        f"Found: {found or 'nothing'}."
    )


def _are_tensors(candidate: Mapping[Any, Any]) -> bool:
    # Some modules keep extra state that is no tensor, under a name that says so.
    items = [(name, value) for name, value in candidate.items() if not str(name).endswith("_extra_state")]
    return bool(items) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in items)


def _names_of_network(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        inside = {
            name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
        }
        if inside.keys() == wanted.keys():
            return inside
    return dict(state)


def _advice(missing: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    """Guess the fault from the pattern of what doesn't fit."""
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


def _more_than_tensors(error: Exception) -> str:
    """What a pickle holds that is refused, where torch names it: its own advice is to run the code."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" ({found[1]})" if found else ""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
