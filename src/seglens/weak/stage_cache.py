"""Stages on disk: a map for each picture, the seconds that each took, and the settings of the stage.

A stage that was stopped goes on at the first picture that has no file. One that was made with other settings,
or of other pictures, is refused.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seglens.errors import DataError, OutputExistsError
from seglens.files.arrays import open_npz
from seglens.files.output import new_file, unused_name
from seglens.results import record as records
from seglens.runtime.progress import track
from seglens.shapes import Map

STAGE_FILE = "stage.json"


@dataclass(frozen=True)
class Clock:
    """When work began: on the clock, and in seconds of the processor."""

    wall: float
    processor: float

    @classmethod
    def start(cls) -> "Clock":
        """Begin to measure."""
        return cls(time.perf_counter(), time.process_time())

    def read(self) -> tuple[float, float]:
        """Return the seconds since: on the clock, and of the processor."""
        return time.perf_counter() - self.wall, time.process_time() - self.processor


@dataclass
class StageCache:
    """The folder of one stage. ``made_with`` are the plain settings of this stage and of all before it.

    ``facts`` and ``threshold`` are what the stage says of itself once it is done; ``once`` are the seconds
    that were not spent on a single picture.
    """

    name: str
    folder: Path
    made_with: dict[str, Any]
    once: float = 0.0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    threshold: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def open(self) -> bool:
        """Make the folder, or take it up; return whether the stage is done.

        Raises:
            OutputExistsError: the folder holds a stage of other settings or other pictures.
        """
        written = self.folder / STAGE_FILE
        if not written.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(done=False)
            return False
        before = _read_stage_file(written)
        wanted = json.loads(records.to_json(self.made_with))
        known = before["made_with"]
        differing = [key for key in {**wanted, **known} if known.get(key) != wanted.get(key)]
        if differing:
            raise OutputExistsError(
                f"{self.folder} was made with other settings: {differing[0]} was "
                f"{known.get(differing[0])} and is now {wanted.get(differing[0])}. Name another folder, "
                "or delete this one and the folders of later stages."
            )
        self.once, self.seconds = before["once"], before["seconds"]
        self.processor_seconds = before["processor_seconds"]
        self.threshold, self.facts = before["threshold"], before["facts"]
        return bool(before["done"])

    def close(self) -> None:
        """Write down that the stage is done, with all it says of itself."""
        self._write(done=True)

    def do_once(self, work: Callable[[], object]) -> None:
        """Do what is done for the set as a whole, and note the seconds that it took."""
        clock = Clock.start()
        work()
        wall, processor = clock.read()
        self.once += wall
        self.seconds += wall
        self.processor_seconds += processor
        self._write(done=False)

    def fill(self, stems: Sequence[str], work: Callable[[int], Map]) -> None:
        """Make the map of each picture that has none yet, and add up the seconds that all took."""
        missing = [index for index, stem in enumerate(stems) if not self.file(stem).is_file()]
        for index in track(missing, total=len(missing), what=self.name):
            clock = Clock.start()
            values = work(index).detach().cpu().numpy().astype(np.float16)
            with new_file(self.file(stems[index]), force=True) as temporary:
                np.savez_compressed(temporary, map=values, took=np.asarray(clock.read()))
        each = [self.took(stem) for stem in stems]
        self.seconds = self.once + sum(wall for wall, _ in each)
        self.processor_seconds += sum(processor for _, processor in each)

    def file(self, stem: str) -> Path:
        """Return the file of one picture."""
        return self.folder / f"{stem}.npz"

    def read(self, stem: str) -> Map:
        """Return the map of one picture, as float32.

        Raises:
            DataError: there is none, or the file is damaged.
        """
        return torch.from_numpy(_array(self.file(stem), "map").astype(np.float32))

    def took(self, stem: str) -> tuple[float, float]:
        """Return the seconds that one picture took: by the clock, and of the processor.

        Raises:
            DataError: it isn't there, or the file is damaged.
        """
        wall, processor = _array(self.file(stem), "took")
        return float(wall), float(processor)

    def _write(self, *, done: bool) -> None:
        written = {
            "stage": self.name,
            "done": done,
            "seconds": self.seconds,
            "once": self.once,
            "processor_seconds": self.processor_seconds,
            "threshold": self.threshold,
            "facts": self.facts,
            "made_with": self.made_with,
        }
        records.write_json(self.folder / STAGE_FILE, written)


@dataclass(frozen=True)
class Stage:
    """One stage that was passed: its folder, the seconds of work it took, and what it says of itself.

    ``seconds`` are those of the work itself, also where it was done in an earlier call; of them, ``once``
    were spent for the set as a whole (asking for the classifier, fitting the head). ``processor_seconds`` are
    those in which this process computed, on all cores together: on a busy machine they say more.
    ``threshold`` is where a map of the stage is cut into object and none, chosen without masks; None where
    the stage predicts nothing. ``facts`` are plain values for ``run.json``.
    """

    name: str
    folder: Path
    seconds: float
    once: float
    processor_seconds: float
    threshold: float | None
    facts: dict[str, Any]


def stems_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return a file name for each picture, without suffix: safe on any disk, no two alike."""
    taken: set[str] = set()
    return tuple(unused_name(name, taken) for name in names)


def to_size(values: Float[Tensor, "_ _"], size: tuple[int, int]) -> Map:
    """Return a map at another size, bilinear, corners not aligned."""
    if tuple(values.shape) == tuple(size):
        return values
    return F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0].clamp(0, 1)


def _read_stage_file(file: Path) -> dict[str, Any]:
    try:
        written = json.loads(file.read_bytes())
        whole = isinstance(written["made_with"], dict) and isinstance(written["facts"], dict)
        numbers = [written[name] for name in ("once", "seconds", "processor_seconds")]
        whole = (
            whole and all(isinstance(number, float | int) for number in numbers) and "threshold" in written
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise DataError(
            f"{file} is damaged, and the settings of this stage can't be read from it. Delete the folder "
            f"{file.parent}; it is then made again."
        )
    return dict(written)


def _array(file: Path, name: str) -> np.ndarray:
    try:
        with open_npz(file) as opened:
            found: np.ndarray = opened[name]
            return found
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{file} should hold a map, and holds none: {error}. Delete it; it is then made again."
        ) from error
