"""Data sets of PyTorch as splits: anything of (picture, mask) pairs or {"image": ..., "mask": ...} by number.

Every item is read once when a set is taken, so that one that can't be used is named at once, and so that a
record knows what was used: an item has a hash in place of a file. An item that is another one when it is read
again (a random transform) is refused then, because scores and maps would be of pictures that nobody sees.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data.dataloader import default_collate, default_convert

from seglens.arguments import checked, in_words
from seglens.arguments.inputs import as_mask, as_picture
from seglens.data.layout import Dataset, DataSettings, Entry, Split
from seglens.data.sample import Sample, Task
from seglens.data.splits import SHARES, SIDE, alike_groups, split_groups
from seglens.errors import DataError, MaskValueError, SettingError, SizeMismatchError
from seglens.runtime.progress import track
from seglens.shapes import Mask

TorchData = TorchDataset[Any] | DataLoader[Any]
"""What is taken; of a loader its data set, in its order, whatever it shuffles."""

LAYOUT = "torch"
"""What the layout of such a set is called."""

IMAGES, MASKS = ("image", "pixel_values"), ("mask", "label", "labels")
"""What an item that is a dict may call its picture and its mask."""


@checked
def from_torch(
    data: TorchData,
    *,
    classes: Sequence[str] = ("background", "foreground"),
    ignore: int | None = None,
    channels: int = 3,
    name: str = "torch",
) -> Split:
    """Return a data set of PyTorch, or that of a loader, as a split.

    Pictures are what `seglens.Run.predict` takes; they are raw, so leave Normalize and random transforms out.
    Masks hold the index of a class at each pixel; pixels of ``ignore`` count nowhere.

    Raises:
        SettingError: items have no numbers, a loader repeats, weighs or batches them in its own way, or
            ``ignore`` is a class.
        DataError: an item is no picture with its mask; it is named.
    """
    if ignore is not None and 0 <= ignore < len(classes):
        raise SettingError(
            f"The value {ignore} of a mask can't be ignored: it is the class {classes[ignore]!r}. Ignore one "
            "that is no class, such as 255 or -1."
        )
    numbers, read = _numbered(data)
    reader = _Reader(read, tuple(classes), ignore, channels)
    items = track(numbers, total=len(numbers), what=f"reading {name}")
    entries = tuple(reader.entry(number) for number in items)
    if not entries:
        raise DataError("The data set has no items: there is no picture in it.")
    return Split(name, Task(classes=tuple(classes)), entries, reader)


def as_split(given: Split | TorchData, task: Task, channels: int) -> Split:
    """Return a split as it is, and a data set of PyTorch as one of this task.

    Raises:
        SettingError, DataError: as `from_torch`; masks of labels that overlap can't be read so.
    """
    if isinstance(given, Split):
        return given
    if task.multilabel:
        raise SettingError(
            "The classes of this model may overlap, which the masks of a PyTorch data set don't tell. Use a "
            "folder of masks, see seglens.open_data."
        )
    return from_torch(given, classes=task.classes, channels=channels)


def torch_splits(data: TorchData | Split | Mapping[str, TorchData | Split]) -> Dataset:
    """Return ``{"train": ..., "valid": ...}`` as a set to train on.

    One set alone is dealt 70 : 15 : 15 to train, valid and test, near-duplicates together, as a folder is.

    Raises:
        SettingError: a split is missing or of no known name, or they have different classes or channels.
        DataError: as `from_torch`.
    """
    if not isinstance(data, Mapping):
        data = _dealt(data if isinstance(data, Split) else from_torch(data))
    if not {"train", "valid"} <= set(data) <= {"train", "valid", "test"}:
        raise SettingError(
            f"Training takes {{'train': ..., 'valid': ...}}, and 'test' or not; received {', '.join(data)}. "
            "torch.utils.data.random_split makes two sets of one."
        )
    splits = {
        name: Split(name, one.task, one.entries, one.reader)
        for name, given in data.items()
        for one in [given if isinstance(given, Split) else from_torch(given, name=name)]
    }
    tasks = {split.task for split in splits.values()}
    channels = {split.reader.channels for split in splits.values() if isinstance(split.reader, _Reader)}
    if len(tasks) > 1 or len(channels) != 1 or not all(is_torch(split) for split in splits.values()):
        raise SettingError("The splits must all be PyTorch data sets, of the same classes and channels.")
    settings = DataSettings(path=Path(LAYOUT), layout=LAYOUT, channels=channels.pop())
    return Dataset(settings, LAYOUT, splits["train"].task, splits)


def is_torch(split: Split) -> bool:
    """Whether a split has items of PyTorch in place of files."""
    return all(entry.sha256 for entry in split.entries)


def _dealt(split: Split) -> dict[str, Split]:
    thumbnails = np.stack([_thumbnail(split[index]) for index in range(len(split))])
    parts = split_groups(alike_groups(thumbnails), [""] * len(split), SHARES, seed=0)
    return {name: split.select(numbers) for name, numbers in parts.items() if numbers}


def _thumbnail(sample: Sample) -> np.ndarray:
    return 255 * adaptive_avg_pool2d(sample.image.mean(0)[None], (SIDE, SIDE))[0].numpy()


@dataclass(frozen=True)
class _Reader:
    """Makes a sample of an item."""

    read: Callable[[int], Any]
    classes: tuple[str, ...]
    ignore: int | None
    channels: int

    def __call__(self, entry: Entry) -> Sample:
        number = int(entry.name)
        sample = self.sample(number)
        if _sha256(sample) != entry.sha256:
            raise DataError(
                f"Item {number} is another one than when it was first read. Hand over the data set "
                "without random transforms: Seglens augments while it trains (TrainSettings(augment=True))."
            )
        return sample

    def entry(self, number: int) -> Entry:
        """Read an item and remember what was in it."""
        name = f"{number:05d}"
        return Entry(name, Path(f"{LAYOUT}:{name}"), sha256=_sha256(self.sample(number)))

    def sample(self, number: int) -> Sample:
        """Return item ``number`` as the house has it."""
        what = f"Item {number}"
        try:
            item = self.read(number)
        except Exception as error:  # whatever somebody's data set throws
            raise DataError(
                f"{what} can't be read: the data set raised {type(error).__name__}: {error}. Allowed is a "
                "picture with its mask for each number below its length."
            ) from error
        picture, mask = _pair(item, what)
        try:
            image = as_picture(picture, self.channels, f"{what}, picture").float()
            truth = as_mask(mask, f"{what}, mask")
        except SettingError as error:
            raise DataError(str(error)) from error
        if truth.shape != image.shape[1:]:
            raise SizeMismatchError(
                f"{what}: the picture has {tuple(image.shape[1:])} rows and columns, its mask "
                f"{tuple(truth.shape)}. They must be of one size: transform both alike."
            )
        valid = torch.ones_like(truth, dtype=torch.bool) if self.ignore is None else truth != self.ignore
        truth = truth.masked_fill(~valid, 0)
        self._check(truth, what)
        return Sample(f"{number:05d}", image, truth, valid)

    def _check(self, mask: Mask, what: str) -> None:
        low, high = (int(end) for end in mask.aminmax())
        if low >= 0 and high < len(self.classes):
            return
        values = mask.unique().tolist()
        shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        raise MaskValueError(
            f"{what}: the mask holds {shown}, but there are {len(self.classes)} classes, 0 to "
            f"{len(self.classes) - 1} ({', '.join(self.classes)}). Make the values class indices, or name "
            "all classes and what to ignore: seglens.from_torch(data, classes=(...), ignore=255)."
        )


def _numbered(data: TorchData) -> tuple[Sequence[int], Callable[[int], Any]]:
    """The numbers of the items that are meant, and what reads one of them."""
    items: Any = data
    collate, sampler = None, None
    if isinstance(data, DataLoader):
        items, sampler = data.dataset, data.sampler
        if not isinstance(items, IterableDataset):
            own = type(data.batch_sampler) not in (BatchSampler, type(None))
            subset = isinstance(sampler, SubsetRandomSampler)
            drawn = isinstance(sampler, RandomSampler) and sampler.replacement
            if (
                own
                or drawn
                or not isinstance(sampler, SequentialSampler | RandomSampler | SubsetRandomSampler)
            ):
                kind = type(data.batch_sampler if own else sampler).__name__
                raise SettingError(
                    f"The loader picks its items by {kind}, which may repeat or leave out some. Hand over "
                    "its data set, or torch.utils.data.Subset(data, numbers) of it."
                )
            sampler = sampler if subset else None
        collate = None if data.collate_fn in (default_collate, default_convert) else data.collate_fn
    if isinstance(items, IterableDataset) or not hasattr(items, "__len__"):
        raise SettingError(
            f"{type(items).__name__} can only be run through: its items have no numbers by which one could "
            "be read again. Hand over a data set with __getitem__ and __len__."
        )
    numbers = sorted(map(int, sampler)) if sampler is not None else range(_length(items))
    if collate is None:
        return numbers, items.__getitem__
    return numbers, _Batched(items, collate)


def _length(items: Any) -> int:
    """Return how many items a data set says that it has."""
    try:
        return len(items)
    except Exception as error:  # whatever somebody's __len__ throws
        raise SettingError(
            f"{type(items).__name__} can't say how many items it has: its __len__ raised "
            f"{type(error).__name__}: {error}. Allowed is a whole number from 0 on."
        ) from error


@dataclass(frozen=True)
class _Batched:
    """Reads an item by a loader's own way of making batches, as a batch of one."""

    items: Any
    collate: Callable[[list[Any]], Any]

    def __call__(self, number: int) -> Any:
        batch = self.collate([self.items[number]])
        if isinstance(batch, Mapping):
            return {key: values[0] for key, values in batch.items() if key in (*IMAGES, *MASKS)}
        return [values[0] for values in batch] if isinstance(batch, tuple | list) else batch


def _pair(item: Any, what: str) -> tuple[Any, Any]:
    """Picture and mask in an item."""
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, Mapping):
        images, masks = ([name for name in names if name in item] for names in (IMAGES, MASKS))
        if len(images) == len(masks) == 1:
            return item[images[0]], item[masks[0]]
        found = f"a dict with {', '.join(map(str, item))}"
    else:
        found = f"{len(item)} entries" if isinstance(item, tuple | list) else in_words(item)
    raise DataError(
        f"{what} is {found}. Allowed are a pair (picture, mask), and a dict with one of "
        f"{', '.join(IMAGES)} and one of {', '.join(MASKS)}."
    )


def _sha256(sample: Sample) -> str:
    digest = hashlib.sha256()
    for part in (sample.image, sample.mask, sample.valid):
        assert part is not None
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()
