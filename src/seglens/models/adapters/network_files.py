"""Networks that are one file with their own code: ONNX, TorchScript, or a program of torch.export.

A run keeps the bytes of the file as its only tensor, so that its folder needs the file no more. Such a
network shows no layers. ONNX has no gradients either; the other two have that of their input.
"""

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from seglens.errors import CheckpointError, ModelError
from seglens.models.adapters import Call

LARGEST = 2**31
"""Bytes of the largest file that is taken."""

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
"""What ONNX calls the numbers that an input may have."""

Program = Callable[[Tensor], Any]
"""Runs a network on normalised pictures."""


class FileNetwork(nn.Module):
    """A network as the bytes of its file, which is opened when it first runs.

    ``kind`` is one of `KINDS`; the file has ``num_bytes``. A ``single`` network takes one picture at a time,
    as programs of torch.export do where nobody says otherwise.
    """

    file: Tensor

    def __init__(self, kind: str, num_bytes: int, *, single: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.single = single
        self.register_buffer("file", torch.zeros(num_bytes, dtype=torch.uint8))
        self._opened: tuple[torch.device, Program] | None = None

    def forward(self, images: Tensor) -> Any:
        """Return what the network in the file returns."""
        if self._opened is None or self._opened[0] != images.device:
            self._opened = images.device, KINDS[self.kind](self.file.cpu().numpy().tobytes(), images.device)
        if not self.single or len(images) == 1:
            return self._opened[1](images)
        return tree_map(_joined, *map(self._opened[1], images.split(1)))

    @property
    def options(self) -> dict[str, Any]:
        """What `build` makes such a network of."""
        return {"kind": self.kind, "num_bytes": len(self.file), "single": self.single}

    @property
    def takes(self) -> tuple[int | None, tuple[int, ...] | None]:
        """Channels and sides of the pictures that it takes, where the file says so (ONNX alone does)."""
        if self.kind != "ONNX":
            return None, None
        channels, *sides = _session(self.file.numpy().tobytes()).get_inputs()[0].shape[1:]
        fixed = all(isinstance(side, int) for side in sides)
        return (channels if isinstance(channels, int) else None), (tuple(sides) if fixed else None)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the opened program out: what is copied, or sent to another process, opens it again."""
        return {**self.__dict__, "_opened": None}


def kind_of(file: Path) -> str | None:
    """Return the kind of network file that ``file`` is, one of `KINDS`; None where it is none."""
    if file.suffix.lower() == ".onnx":
        return "ONNX"
    if file.suffix.lower() not in (".pt", ".pth", ".ts", ".pt2", ".torchscript") or not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    if any(name.endswith("/constants.pkl") for name in names):
        return "TorchScript"
    exported = any("/models/" in name or "serialized_exported_program" in name for name in names)
    return "torch.export" if exported else None


def read(file: Path) -> FileNetwork:
    """Return the network in a file.

    Raises:
        CheckpointError: the file is missing, too large or damaged.
        ModelError: what reads it is not installed.
    """
    kind = kind_of(file)
    if kind is None or not file.is_file():
        raise CheckpointError(f"{file} is no file of a network. Allowed: .onnx, TorchScript, torch.export.")
    if file.stat().st_size > LARGEST:
        raise CheckpointError(f"{file} has {file.stat().st_size} bytes; allowed are at most {LARGEST}.")
    content = file.read_bytes()
    network = FileNetwork(kind, len(content))
    network.file.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    try:
        KINDS[kind](content, torch.device("cpu"))
    except ModelError:
        raise
    except Exception as error:  # Whatever the libraries raise at a damaged file.
        reason = str(error).strip().partition("\n")[0]
        todo = "Export the network again."
        # ONNX Runtime before 1.23 says that it has no path to look beside.
        if "xternal data" in reason or "model_path must not be empty" in reason:
            todo = "Its weights are in a file beside it; export one: torch.onnx.export(external_data=False)."
        raise CheckpointError(f"{file} can't be read as {kind}: {reason}. {todo}") from error
    return network


def build(options: Mapping[str, Any]) -> tuple[nn.Module, Call]:
    """Return the network whose file ``options`` describe; its bytes come with the weights.

    Raises:
        ModelError: they describe none.
    """
    kind, num_bytes = options.get("kind"), options.get("num_bytes")
    if kind not in KINDS or not isinstance(num_bytes, int) or not 0 < num_bytes <= LARGEST:
        raise ModelError(
            f"The record describes a network file of kind {kind!r} and {num_bytes!r} bytes; allowed are "
            f"{', '.join(KINDS)} and 1 to {LARGEST} bytes. Adopt the file again."
        )
    network = FileNetwork(kind, num_bytes, single=bool(options.get("single")))
    return network, lambda network, images: network(images)


def _joined(first: Any, *others: Any) -> Any:
    """Return what a network returned for each of some pictures as one, along the axis of pictures."""
    return torch.cat([first, *others]) if isinstance(first, Tensor) and first.ndim else first


def _session(content: bytes) -> Any:
    """Open an ONNX network of one input, of floating-point pictures or volumes."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ModelError(
            "The network is an ONNX file, which needs onnxruntime, and that is not installed. Install the "
            "extra: pip install 'seglens[export]'."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it has to say of a damaged file comes as an error, too
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in FLOATS or len(inputs[0].shape) not in (4, 5):
        found = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs)
        raise ModelError(
            f"The ONNX network takes {found}; allowed is one input of floating-point pictures (batch, "
            "channels, rows, columns), or volumes. Export the network with that input alone."
        )
    return session


def _onnx(content: bytes, device: torch.device) -> Program:
    session = _session(content)
    given = session.get_inputs()[0]
    kind, single = FLOATS[given.type], given.shape[0] == 1
    names = [each.name for each in session.get_outputs()]

    def run(images: Tensor) -> Any:
        values = images.detach().cpu().numpy().astype(kind)
        # A batch that was fixed to one picture when it was exported takes one at a time.
        parts = np.split(values, len(values)) if single else [values]
        found = [session.run(None, {given.name: part}) for part in parts]
        joined = [torch.from_numpy(np.concatenate(each)).to(device) for each in zip(*found, strict=True)]
        return joined[0] if len(joined) == 1 else dict(zip(names, joined, strict=True))

    return run


def _torchscript(content: bytes, device: torch.device) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 advises its makers to use torch.export
        return _in_its_precision(torch.jit.load(io.BytesIO(content), map_location=device).eval())


def _torch_export(content: bytes, device: torch.device) -> Program:
    with warnings.catch_warnings():
        # torch 2.11 warns of the buffers that it reads its own file into.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        return _in_its_precision(torch.export.load(io.BytesIO(content)).module().to(device))


def _in_its_precision(program: nn.Module) -> Program:
    """Return what gives ``program`` pictures in the kind of number that its weights are."""
    weights = (each.dtype for each in program.parameters() if each.is_floating_point())
    kind = next(weights, torch.float32)
    return lambda images: program(images.to(kind))


KINDS: dict[str, Callable[[bytes, torch.device], Program]] = {
    "ONNX": _onnx,
    "TorchScript": _torchscript,
    "torch.export": _torch_export,
}
"""What opens the bytes of a file. To add a kind: a function, and what `kind_of` knows it by."""
