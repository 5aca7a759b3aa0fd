"""Pictures in chunks: read, put on the input grid, and let go again, so that memory doesn't grow with a set.

What can't be read is kept aside as a `Failure`, and the rest goes on.
"""

import hashlib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, islice, pairwise
from pathlib import Path

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from seglens.data.classes import NO_MAP, in_classes_of
from seglens.data.folders import passed_over, visible_files
from seglens.data.frame import Frame
from seglens.data.from_torch import TorchData, as_split, is_torch
from seglens.data.images import IMAGE_SUFFIXES
from seglens.data.intensity import warn_of_window
from seglens.data.layout import Entry, PictureOnly, Searched, Split, picture_sha256
from seglens.data.sample import Sample
from seglens.data.transforms import Batch, collate
from seglens.data.volumes.reading import is_volume, stem_of
from seglens.data.volumes.sets import read_sample
from seglens.errors import DataError, NonFiniteError, SeglensWarning, SettingError
from seglens.explain.target_names import form_of
from seglens.files.output import unused_name
from seglens.models.segmenter import ModelSpec
from seglens.predict.original import on_one_input
from seglens.predict.tiles import Windows
from seglens.results import record as records
from seglens.results.maps import ExplanationTable
from seglens.results.names import count
from seglens.results.scorecard import Audit, Card
from seglens.runs import Run
from seglens.runs.data import refuse_other_axes, with_tool
from seglens.runtime.device import release_memory
from seglens.runtime.distributed import ALONE, Share
from seglens.runtime.progress import track
from seglens.runtime.threads import read_ahead

FILES = "files"
"""What the split of image files given one by one is called."""


Given = Split | TorchData | Sequence[Path | str]
"""Pictures to work on: a split, a data set of PyTorch, or files."""

CHUNK = 16
"""Pictures at a time: enough that the others of a chunk can serve as a null."""


@dataclass(frozen=True)
class Failure:
    """A picture that could not be done, and why; ``number`` is its place in the split, where known."""

    name: str
    error: str
    number: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Summary:
    """The folder that was written, how many pictures were done, and those that could not be.

    Beside it are the results, of an explanation ``maps``, of a judgement ``card`` and ``audit``.
    """

    folder: Path
    num_done: int
    failed: tuple[Failure, ...] = ()
    maps: ExplanationTable | None = None
    card: Card | None = None
    audit: Audit | None = None


@dataclass(frozen=True)
class Chunk:
    """A few pictures: as they are (``originals``), and on the input grid (``batch``, with their ``frames``).

    ``numbers`` are their places in the split, ``index`` is that of the chunk among all chunks. One picture
    that is predicted in ``windows`` is a chunk of its own, of the same index (see ``large.py``).
    """

    originals: tuple[Sample, ...]
    batch: Batch
    frames: tuple[Frame, ...]
    numbers: tuple[int, ...]
    index: int = 0
    windows: Windows | None = None


def split_of(run: Run, pictures: Given, class_map: Mapping[str, str] = NO_MAP) -> Split:
    """Return ``pictures`` as a split with the classes of ``run``; image files have no truth, see `FILES`.

    A folder among the files stands for the pictures right in it, see `files_in`.

    Raises:
        DataError: a folder holds no picture.
        SettingError: there is no picture at all, or classes don't match, see `in_classes_of`.
    """
    if isinstance(pictures, Split | TorchDataset | DataLoader):
        split = in_classes_of(run.task, as_split(pictures, run.task, run.spec.channels), class_map)
    else:
        taken: set[str] = set()
        files = [found for given in pictures for found in files_in(Path(given), run.spec.dims)]
        entries = tuple(Entry(unused_name(stem_of(file), taken), file, labelled=False) for file in files)
        split = Split(FILES, run.task, entries, reader_of(run), run.spec.dims)
        if split.dims == 2:
            warn_of_window(run.spec.window, run.spec.normalise, split)
    refuse_other_axes(run, split.dims, f"the split {split.name!r}")
    if split.folds:
        warnings.warn(
            f"Only evaluate asks, of each picture of {split.name!r}, the network that has not learned from "
            "it. Here the mean of all networks answers, and all but one have learned from each picture: "
            "there are fewer errors than in new pictures. Name pictures that none has learned from.",
            SeglensWarning,
            stacklevel=2,
        )
    if not len(split):
        raise SettingError(
            f"There are no pictures in {split.name!r}. Name a split that has some, or image files."
        )
    return with_tool(run, split)


def files_in(path: Path, dims: int) -> list[Path]:
    """Return the pictures right in a folder, by name, or the volumes; what is no folder is the file itself.

    A folder without files of volumes is one DICOM series, and is read as one volume. Of others, a warning
    names what is passed over: files of other kinds, and folders of pictures.

    Raises:
        DataError: a folder holds no picture.
    """
    if not path.is_dir():
        return [path]
    if dims == 3:
        volumes = (".nii", ".gz", ".mha", ".mhd", ".nrrd", ".nhdr")
        found = [file for file in visible_files(path, volumes) if is_volume(file)]
        if found:
            _warn_of_passed_over(path, (*volumes, ".raw", ".zraw"))
        return found or [path]
    found = visible_files(path)
    if found:
        _warn_of_passed_over(path, IMAGE_SUFFIXES)
        return found
    inside = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    folders = [each.name for each in inside if each.is_dir()]
    there = f"it holds the folders {', '.join(folders[:5])}" if folders else "it is empty"
    if not folders and inside:
        endings = sorted({each.suffix or each.name for each in inside})
        there = f"it holds {count(len(inside), 'file')}: {', '.join(endings[:5])}"
    raise DataError(
        f"{path} is a folder, and no picture lies right in it; {there}. Name the folder that holds the "
        f"pictures themselves ({', '.join(IMAGE_SUFFIXES)})."
    )


def _warn_of_passed_over(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Warn of what is in a folder and is not read."""
    left = [name for each in passed_over([Searched(folder, suffixes)]) for name in each.names]
    if left:
        shown = ", ".join(Path(each).name for each in left[:5]) + (", ..." if len(left) > 5 else "")
        warnings.warn(
            f"{folder} holds {len(left)} files and folders that are not read: {shown}. Only files "
            f"right in the folder are, that end in {' '.join(suffixes)}.",
            SeglensWarning,
            stacklevel=2,
        )


def reader_of(run: Run) -> Callable[[Entry], Sample]:
    """Return what reads the files that a run takes, without a mask: pictures, or volumes."""
    if run.spec.dims == 2:
        return PictureOnly(run.spec.channels)
    return partial(read_sample, ends=run.spec.intensities or (None,) * run.spec.channels)


def choose(split: Split, samples: Sequence[int] | None, num_images: int | None) -> Split:
    """Keep the pictures with these numbers, or ``num_images`` spread evenly over the split, or all.

    Raises:
        SettingError: both are given, or a number is not in the split.
    """
    if samples is not None and num_images is not None:
        raise SettingError("Give either the numbers of samples or how many, not both.")
    num = len(split)
    if samples is not None:
        wrong = [index for index in samples if not 0 <= index < num]
        if wrong or not samples:
            raise SettingError(
                f"There is no sample {wrong[0] if wrong else '(none given)'} in {split.name!r}, which has "
                f"samples 0 to {num - 1}."
            )
        return split.select(list(dict.fromkeys(samples)))
    if num_images is None or num_images >= num:
        return split
    if num_images < 1:
        raise SettingError(f"The number of pictures must be at least 1, received {num_images}.")
    return split.select([i * num // num_images for i in range(num_images)])


def read_chunks(
    run: Run,
    split: Split,
    *,
    most: int,
    failed: list[Failure],
    targets: Sequence[str] = (),
    what: str = "explaining",
    share: Share = ALONE,
    skip: Collection[int] = (),
    tiles: str = "auto",
) -> Iterator[Chunk]:
    """Yield the pictures of ``split`` in chunks of nearly equal size, ``most`` at most.

    Even chunks, because maps of the others in a chunk serve as nulls. Of a job that is spread these are the
    same chunks, of which each process gets its ``share``. Pictures that can't be read, or that have no mask
    where one of ``targets`` needs one, go to ``failed``. Chunks to ``skip`` are not read. Of a picture that
    is predicted in windows, the input grid holds one of these: see `seglens.predict.original.input_frame`.
    The bar of progress is called ``what``; without a name there is none.
    """
    chunks = chunks_of(len(split), most)
    ours = [index for index in share.of(len(chunks)) if index not in skip]
    numbers = [number for index in ours for number in chunks[index]]
    # Where no picture at all has a truth, the target itself says so, once.
    needy = [target for target in targets if form_of(target).needs_truth and _some_have_truth(split)]
    pictures = zip(numbers, read_ahead(lambda number: read_one(split, number), numbers), strict=True)
    shown = share.first and what
    stream = iter(track(pictures, total=len(numbers), what=what) if shown else pictures)
    for index in ours:
        waiting: dict[int, Sample] = {}
        for number, sample in islice(stream, len(chunks[index])):
            if isinstance(sample, Failure):
                failed.append(sample)
            elif sample.mask is None and needy:
                reason = f"The picture has no mask, which target {needy[0]!r} needs."
                failed.append(Failure(sample.name, reason, number))
            else:
                waiting[number] = sample
        if waiting:
            yield _chunk(waiting, run.spec, tiles, index)
        del waiting
        release_memory()


@contextmanager
def naming_pictures(part: Chunk) -> Iterator[None]:
    """Add the names of pictures to the error of an answer that is not finite.

    Raises:
        NonFiniteError: with the names.
    """
    try:
        yield
    except NonFiniteError as error:
        rows = (0,) if part.windows is not None else error.rows
        known = max(rows) < len(part.originals)
        raise NonFiniteError(rows, [sample.name for sample in part.originals] if known else ()) from error


def chunks_of(num: int, most: int) -> list[range]:
    """Return the places of the pictures of each chunk, of `even_sizes`."""
    ends = list(accumulate(even_sizes(num, most), initial=0))
    return [range(first, last) for first, last in pairwise(ends)]


def even_sizes(num: int, most: int) -> list[int]:
    """Return the sizes of the fewest chunks of at most ``most`` that hold ``num``, as equal as can be.

    Raises:
        SettingError: ``most`` is below 1.
    """
    if most < 1:
        raise SettingError(f"The batch size must be at least 1, received {most}.")
    parts = -(-num // most)
    return [num * (i + 1) // parts - num * i // parts for i in range(parts)]


def images_sha256(split: Split) -> str:
    """Return one hash over the pictures of ``split``, files that are missing left out."""
    if is_torch(split):
        return hashlib.sha256(str([picture_sha256(entry) for entry in split.entries]).encode()).hexdigest()
    return records.sha256(entry.image for entry in split.entries if entry.image.is_file())


def refuse_none_done(num_done: int, failed: Sequence[Failure]) -> None:
    """Raise where not a single picture could be done.

    Raises:
        DataError: nothing was done; the first failure is quoted.
    """
    if not num_done:
        first = f" The first: {failed[0].error}" if failed else ""
        raise DataError(f"0 of {count(len(failed), 'picture')} could be done.{first}")


def read_one(split: Split, index: int) -> Sample | Failure:
    """Read picture ``index``, or say why it can't be."""
    try:
        return split[index]
    except DataError as error:
        return Failure(split.entries[index].name, str(error), index)


def _some_have_truth(split: Split) -> bool:
    return any(entry.labelled for entry in split.entries)


def _chunk(numbered: Mapping[int, Sample], spec: ModelSpec, tiles: str, index: int) -> Chunk:
    samples = list(numbered.values())
    placed, frames = on_one_input(samples, spec, tiles)
    bare = any(sample.mask is None for sample in samples)
    if bare:  # One batch has masks for all or for none; the originals keep theirs.
        placed = [Sample(sample.name, sample.image, None, sample.valid) for sample in placed]
    return Chunk(tuple(samples), collate(placed), tuple(frames), tuple(numbered), index)
