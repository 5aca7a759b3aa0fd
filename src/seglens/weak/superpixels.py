"""Superpixels of a data set: cut once, by several processes, and kept on disk.

The published reference cuts them again in each of its rounds; here a round reads them (a millisecond a
picture).
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from pydantic import TypeAdapter
from torch import Tensor

from seglens.data.images import read_image
from seglens.errors import DataError
from seglens.files.arrays import open_npz
from seglens.files.output import new_file
from seglens.results import record as records
from seglens.runtime.launcher import Launcher, reporting
from seglens.runtime.progress import track
from seglens.superpixels import superpixels
from seglens.weak.settings import SuperpixelSettings

JOB = "job.json"
"""The file with the job of the processes, in the folder of their results."""

WORTH = 40
"""Pictures that a further process must have to do, since it takes seconds to start."""

MANY = 2**15
"""Patches that a 16-bit integer can number."""

Segments = Int[Tensor, "h w"]


@dataclass(frozen=True)
class CuttingJob:
    """The pictures to cut and the settings, the same for all processes."""

    images: list[str]
    stems: list[str]
    settings: SuperpixelSettings
    channels: int


def cut_superpixels(
    images: Sequence[Path],
    stems: Sequence[str],
    settings: SuperpixelSettings,
    folder: Path,
    *,
    channels: int = 3,
    processes: int = 0,
) -> int:
    """Cut pictures into superpixels, kept in ``folder`` under ``stems``; return how many were cut.

    Those that are there already are left. ``processes`` 0 means one for each core, but no more
    than have `WORTH` pictures each. An error in any of them is raised here, and none outlives this call.

    Raises:
        DataError: a picture can't be read.
        SettingError: a setting is not allowed.
    """
    missing = [index for index, stem in enumerate(stems) if not superpixel_file(folder, stem).is_file()]
    if not missing:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    size = max(1, min(processes or os.cpu_count() or 1, len(missing) // WORTH))
    job = CuttingJob(
        [str(images[index].absolute()) for index in missing],
        [stems[index] for index in missing],
        settings,
        channels,
    )
    if size == 1:
        _cut(job, folder, 0, 1)
        return len(missing)
    records.write_json(folder / JOB, asdict(job))
    try:
        command = [sys.executable, "-m", "seglens.weak.superpixels", str(folder.absolute())]
        environments = [os.environ | {"SEGLENS_PART": f"{part}/{size}"} for part in range(1, size)]
        with Launcher(command, environments, size):
            _cut(job, folder, 0, size)
    finally:
        (folder / JOB).unlink(missing_ok=True)
    return len(missing)


def superpixel_file(folder: Path, stem: str) -> Path:
    """Return the file of one picture's superpixels."""
    return folder / f"{stem}.npz"


def read_superpixels(folder: Path, stem: str) -> Segments:
    """Return the superpixels of one picture at its own size, numbered from 0.

    Raises:
        DataError: they were not cut, or the file is damaged.
    """
    file = superpixel_file(folder, stem)
    try:
        with open_npz(file) as opened:
            return torch.from_numpy(opened["patches"].astype(np.int64))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} holds no superpixels: {error}. Delete it; it is then made again.") from error


def _cut(job: CuttingJob, folder: Path, part: int, parts: int) -> None:
    """Cut every ``parts``-th picture, from ``part`` on."""
    settings = job.settings
    pairs = list(zip(job.images, job.stems, strict=True))[part::parts]
    for image, stem in track(pairs, total=len(pairs), what="superpixels"):
        found = superpixels(
            read_image(Path(image), job.channels)[None],
            num_segments=settings.num_segments,
            compactness=settings.compactness,
            sigma=settings.sigma,
        )[0].numpy()
        with new_file(superpixel_file(folder, stem), force=True) as temporary:
            np.savez_compressed(
                temporary, patches=found.astype(np.uint16 if found.max() < MANY else np.int32)
            )


def _work() -> None:
    """Do the part of the job that the environment names, in a process that `cut_superpixels` started."""
    with reporting() as ready:
        ready()
        torch.set_num_threads(1)
        folder = Path(sys.argv[1])
        job = TypeAdapter(CuttingJob).validate_json((folder / JOB).read_bytes())
        part, _, parts = os.environ["SEGLENS_PART"].partition("/")
        _cut(job, folder, int(part), int(parts))


if __name__ == "__main__":
    _work()
