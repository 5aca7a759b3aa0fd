"""Files of weights: read without running code that they carry, and within the memory that is free.

A pickle is read with ``weights_only=True``. What training scripts put beside tensors and is data alone
(numbers of numpy, paths, namespaces, dates) is let through as an empty object: only tensors are wanted. A zip
file's sizes are looked at before it is unpacked.
"""

import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from seglens.errors import CheckpointError

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
INERT = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("ndarray", "dtype")),
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{kind}" for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{kind}" for kind in ("datetime", "date", "time", "timedelta", "timezone")),
    "argparse.Namespace",
    "types.SimpleNamespace",
    "uuid.UUID",
    "decimal.Decimal",
)
"""Kinds that may stand beside tensors: none of them is made, `_Ignored` stands in for each."""
MOST_UNPACKED = 10
"""Times its own size that a zip file may unpack to, where that is more than ``ALWAYS`` bytes."""
ALWAYS = 64 * 2**20
_DEPTH = 3
_NOT_WEIGHTS = ("optim", "sched", "scaler")
_SHOWN = 5


class _Ignored:
    """Takes whatever a pickle makes one of ``INERT`` with, and keeps nothing of it."""

    def __new__(cls, *_: object) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def read_checkpoint(file: Path) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts in ``file`` by the keys that lead to them: ``""``, ``model``, ``a.b``.

    Raises:
        CheckpointError: as `read_content` and `state_dicts`.
    """
    return state_dicts(read_content(file), file)


def read_content(file: Path) -> Any:
    """Return all that a file of weights holds, and an empty object for what is no plain data.

    Raises:
        CheckpointError: the file is missing, of another kind, damaged or a bomb, or is a pickle that would
            need to run code to be read.
    """
    file = Path(file)
    check_weights_file(file)
    if file.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"{file} is no weights file that can be read. Allowed: {', '.join(SUFFIXES)}.")
    return read_safetensors(file) if file.suffix.lower() == ".safetensors" else read_pickle(file)


def state_dicts(content: Any, file: Path) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts in the ``content`` of ``file`` by the keys that lead to them.

    Raises:
        CheckpointError: there is none, or one holds other tensors than plain ones.
    """
    found = dict(_state_dicts(content, ""))
    if not found:
        held = f"{type(content).__name__}"
        if isinstance(content, Mapping):
            held = ", ".join(f"{key} ({_kind(value)})" for key, value in list(content.items())[:_SHOWN])
        raise CheckpointError(
            f"{file} holds no state dict (names with a tensor each), neither by itself nor inside. Found: "
            f"{held or 'nothing'}. Save one: torch.save(model.state_dict(), FILE)."
        )
    for key, state in found.items():
        for name, tensor in state.items():
            if kind := _unusual(tensor):
                where = f" under {key}" if key else ""
                raise CheckpointError(
                    f"{file} holds a {kind} tensor, {name}{where}; allowed are plain dense ones. Save the "
                    "network's state dict before it is quantised, pruned or emptied."
                )
    return found


def check_weights_file(file: Path) -> None:
    """Raise where ``file`` is not there, or is no regular file.

    Raises:
        CheckpointError: with what it is.
    """
    try:
        mode = file.stat().st_mode
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no weights file {file}.") from error
    except OSError as error:
        raise CheckpointError(f"{file} can't be read: {error.strerror}.") from error
    if stat.S_ISDIR(mode):
        raise CheckpointError(f"{file} is a folder; a file of weights is wanted ({', '.join(SUFFIXES)}).")
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{file} is no regular file; a file of weights is wanted.")


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        CheckpointError: it can't be read.
    """
    try:
        return load_file(file)
    except Exception as error:  # The library raises errors of many kinds on what it can't read.
        raise _no_safetensors(file, error) from error


def read_metadata(file: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        CheckpointError: it can't be read.
    """
    try:
        with safe_open(file, "pt") as opened:
            return dict(opened.metadata() or {})
    except Exception as error:  # as above
        raise _no_safetensors(file, error) from error


def _no_safetensors(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} can't be read as safetensors: {_first_line(error)}")


def read_pickle(file: Path) -> Any:
    """Return what ``torch.save`` wrote, with an empty object for what is neither tensor nor plain data.

    Raises:
        CheckpointError: it is damaged or a bomb, or would need to run code to be read.
    """
    _check_zip(file)
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(_Ignored, name) for name in INERT]),
        ):
            # What can't be read is an error below; how it was pickled is nobody's concern.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged pickle raises errors of any kind.
        if isinstance(error, UnpicklingError) and re.search(r"GLOBAL|reduce|new object|build", str(error)):
            raise CheckpointError(
                f"{file} holds more than tensors{_more_than_tensors(error)}, and to read the rest would run "
                "code that it carries. Where you trust it, open it with the program that wrote it and save "
                "only the tensors: torch.save(model.state_dict(), FILE)."
            ) from error
        reason = "" if "weights_only" in str(error) or "Weights only" in str(error) else _first_line(error)
        raise CheckpointError(
            f"{file} can't be read: it may be damaged, or no file that torch.save wrote. {reason}".rstrip()
        ) from error


def _check_zip(file: Path) -> None:
    """Look into a zip file before torch unpacks it: at its kind, and how large it would become."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # The reader says what is wrong with it.
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(
            f"{file} is a TorchScript archive, which shows no layers to explain. Save its tensors alone and "
            "name the architecture: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')."
        )
    unpacked, size = sum(entry.file_size for entry in entries), file.stat().st_size
    if unpacked > max(ALWAYS, MOST_UNPACKED * size):
        raise CheckpointError(
            f"{file} has {size:,} bytes and would unpack to {unpacked:,}: at most {MOST_UNPACKED} times its "
            "size is allowed. Save the weights again with torch.save, which doesn't pack them."
        )


def _state_dicts(content: Any, key: str, depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    # Some modules keep extra state that is no tensor, under a name that says so.
    items = [(name, value) for name, value in content.items() if not str(name).endswith("_extra_state")]
    tensors = {name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)}
    # Scripts put a note or two among the tensors (mask_values, epoch); nothing nested.
    noted = 2 * len(tensors) > len(items) and not any(isinstance(value, Mapping) for _, value in items)
    if tensors and (len(tensors) == len(items) or noted):
        yield key, tensors
        return
    for name, value in items:
        if isinstance(name, str) and not any(word in name.lower() for word in _NOT_WEIGHTS):
            yield from _state_dicts(value, f"{key}.{name}" if key else name, depth + 1)


def _unusual(tensor: Tensor) -> str:
    """Say what a tensor is that can't be copied into a network; nothing where it can."""
    if tensor.is_meta:
        return "empty (meta)"
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return "sparse"
    return "quantised" if tensor.is_quantized else ""


def _kind(value: object) -> str:
    return "other data" if isinstance(value, _Ignored) else type(value).__name__


def _more_than_tensors(error: Exception) -> str:
    """What a pickle holds that is refused, where torch names it: its own advice is to run the code."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" ({found[1]})" if found else ""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
