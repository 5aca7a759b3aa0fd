"""Records: the ``run.json`` of every output folder. Needs no torch.

A record is enough to say how a result came about: the command, the settings, the versions, the seed, the
hashes of model and data, the device and the time it took.
"""

import hashlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)

from seglens.arguments.validated import fault
from seglens.errors import DataError
from seglens.files.locks import beside
from seglens.files.output import naming
from seglens.files.ownership import write_text

SCHEMA: Literal[1] = 1
FILE_NAME = "run.json"
PACKAGES = ("seglens", "torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning", "numpy")


def _colour(text: Any) -> Any:
    if not (isinstance(text, str) and re.fullmatch(r"#[0-9A-Fa-f]{6}", text, re.ASCII)):
        raise ValueError("allowed are colours such as #1f77b4")
    return text


class _Described(BaseModel):
    """What commands wrote of a model, its task or its data: what is shown of it has types here.

    All else is kept as it is, for those who open the run again.
    """

    # Before 2.10 pydantic kept all names that begin with model_ for itself, and warned of ours.
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    def stored(self) -> dict[str, object]:
        """Return all that was written, and nothing that wasn't."""
        return self.model_dump(exclude_unset=True)


class ModelRecord(_Described):
    """A model in a record; opened by `seglens.models.spec.ModelSpec`."""

    architecture: StrictStr | None = None
    encoder: StrictStr | None = None
    channels: StrictInt | None = None
    dims: StrictInt = 2
    head: StrictStr | None = None
    image_size: StrictInt | tuple[StrictInt, ...] | None = None
    threshold: float | None = None
    thresholds: tuple[float, ...] = ()

    @property
    def input_size(self) -> str:
        """How large an input is: ``256 pixels``; empty where that isn't known."""
        if self.image_size is None:
            return ""
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        return f"{' x '.join(map(str, sides))} {'voxels' if self.dims == 3 else 'pixels'}"


class TaskRecord(_Described):
    """The classes of a record, the background first; opened by `seglens.data.sample.Task`.

    The palette holds colours alone: pages put them into their styles.
    """

    classes: tuple[StrictStr, ...] = ()
    palette: tuple[Annotated[str, BeforeValidator(_colour)], ...] = ()
    multilabel: StrictBool = False


class DataRecord(_Described):
    """A data set in a record; opened by `seglens.data.layout.DataSettings`."""

    path: StrictStr | None = None
    layout: StrictStr | None = None


class Record(BaseModel):
    """The contents of one ``run.json``.

    ``state`` is ``running`` while a resumable job goes on and ``finished`` afterwards. ``settings`` are
    the command's own; ``model``, ``task`` and ``data`` are what later commands need to open the run again.
    ``files`` are those that the command made, by which ``--force`` knows what it may replace, see
    `seglens.files.ownership`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", protected_namespaces=())

    schema_number: Literal[1] = SCHEMA
    kind: str
    state: Literal["running", "finished"] = "finished"
    command: list[str] = []
    started: str = ""
    duration_seconds: float = 0.0
    seed: int | None = None
    device: str = ""
    versions: dict[str, str] = {}
    settings: dict[str, Any] = {}
    model: ModelRecord | None = None
    task: TaskRecord | None = None
    data: DataRecord | None = None
    model_sha256: str | None = None
    data_sha256: str | None = None
    results: dict[str, Any] = {}
    files: list[str] = []

    @property
    def background(self) -> str | None:
        """The colour of the background in drawn masks; None where the record has no palette."""
        return self.task.palette[0] if self.task and self.task.palette else None

    def with_facts(self, **facts: Any) -> "Record":
        """Return the record with ``facts`` in place of its own fields of these names."""
        return Record.model_validate(dict(self) | facts)

    def write(self, folder: Path) -> None:
        """Write ``run.json`` into ``folder``, whole or not at all."""
        write_json(folder / FILE_NAME, self.model_dump())


def start(kind: str, **fields: Any) -> Record:
    """Begin a record: command, time and versions are filled in."""
    return Record(
        kind=kind,
        state="running",
        # ``python -m seglens`` is the same command.
        command=[Path(sys.argv[0]).name.replace("__main__.py", "seglens"), *sys.argv[1:]],
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        **fields,
    )


def finish(record: Record, began: float, **fields: Any) -> Record:
    """Return ``record`` as finished; ``began`` is the ``time.monotonic()`` at which the job began."""
    duration = round(time.monotonic() - began, 3)
    return record.with_facts(state="finished", duration_seconds=duration, **fields)


def read_record(folder: Path) -> Record:
    """Read the ``run.json`` of ``folder``.

    Raises:
        DataError: the folder or the file is missing, or it is not a record of this schema.
    """
    file = Path(folder) / FILE_NAME
    if not os.path.isfile(file):  # which a name that is too long is not either
        what = "the folder has no run.json" if os.path.isdir(folder) else "there is no such folder"
        raise DataError(
            f"{folder} is not a run folder: {what}.{_meant(Path(folder))} Make one with 'seglens train' or "
            "'seglens adopt'."
        )
    try:
        return Record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{file} is not a record of schema {SCHEMA}: {fault(error)}. "
            "It was damaged or written by another version of Seglens."
        ) from error


def read_run_record(folder: Path) -> tuple[Record, ModelRecord, TaskRecord]:
    """Read the record of a run folder, one that describes a model and its task; return these, too.

    Raises:
        DataError: it is none, or the output of another command.
    """
    record = read_record(folder)
    if record.model is None or record.task is None:
        raise DataError(
            f"{folder} is the output of 'seglens {record.kind}', not a run folder. Name the folder that "
            "'seglens train' or 'seglens adopt' made."
        )
    return record, record.model, record.task


def _meant(folder: Path) -> str:
    """Name the run folders in ``folder``, or the one beside it that is called much the same."""
    is_there = os.path.isdir(folder)
    place = folder if is_there else folder.parent
    names = sorted(file.parent.name for file in place.glob(f"*/{FILE_NAME}"))
    if is_there:
        return f" It holds run folders: {', '.join(names[:9])}." if names else ""
    near = get_close_matches(folder.name, names, n=1)
    return f" Did you mean {place / near[0]}?" if near else ""


def write_json(file: Path, data: object) -> None:
    """Write ``data`` as JSON to a temporary name beside ``file`` and move it there."""
    temporary = beside(file, "partial")
    try:
        with naming(file):
            write_text(temporary, to_json(data) + "\n")
            temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(data: object) -> str:
    """Return ``data`` as JSON; NaN and infinities become null, paths text."""
    return json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(data: object) -> object:
    """Replace what JSON can't say (NaN, infinities) by null, and paths by text."""
    if isinstance(data, float):
        return data if data == data and abs(data) != float("inf") else None
    if isinstance(data, BaseModel):
        return _finite(data.model_dump(exclude_unset=True))
    if isinstance(data, dict):
        return {str(_finite(str(key))): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return text(data) if isinstance(data, str | Path) else data


def text(name: str | Path) -> str:
    """Return a file name as text: bytes that are none (Latin-1, where UTF-8 is meant) as their numbers."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the packages that decide a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def sha256(files: Iterable[Path]) -> str:
    """Return one hash over the contents of ``files``, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        with Path(file).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
