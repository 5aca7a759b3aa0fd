"""The data of a weakly supervised run: pictures without masks, and hidden masks whose every use is noted."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from seglens.data.layout import Dataset, DataSettings, Entry, Split
from seglens.data.listing import open_listed, read_listing
from seglens.data.opening import open_data, recognised
from seglens.data.sample import Sample
from seglens.data.splits import split_pictures
from seglens.errors import DataError, SettingError
from seglens.runtime.threads import read_ahead
from seglens.shapes import Region
from seglens.weak import labels as image_labels
from seglens.weak.labels import Hidden, Labelled
from seglens.weak.stage_cache import stems_of
from seglens.weak.students import LearningPictures

VALID_SHARE = 0.15
"""The share of pictures without masks that is held out."""


@dataclass(frozen=True)
class Truth:
    """Pictures with masks, the border counted as object; ``no_border`` leaves it out, where it is marked."""

    split: Split
    no_border: Split | None = None

    def __iter__(self) -> Iterator[tuple[Sample, Region | None]]:
        """Yield each sample, and its pixels that are not on the border."""
        return read_ahead(self._read, range(len(self.split)))

    def _read(self, index: int) -> tuple[Sample, Region | None]:
        sample = self.split[index]
        if sample.mask is None:
            raise DataError(
                f"{sample.name} of the {self.split.name} split has no mask, so nothing can be compared with "
                "it."
            )
        return sample, None if self.no_border is None else self.no_border[index].valid


@dataclass(frozen=True)
class WeakData:
    """Pictures with image-level labels, and their masks, if there are any, which note every use.

    ``learning`` are the masks of the pictures that students learn from, in the order of ``pictures``;
    ``test`` those of the test split. ``*_no_border`` are the same with the border left out, where it is
    marked. None where a set has no masks. ``labelling_uses`` are the uses of masks that labels took.
    ``dataset`` is the set in its splits, of pictures alone where there are no masks.
    """

    settings: DataSettings
    pictures: LearningPictures
    dataset: Dataset
    sha256: str
    learning: Hidden | None = None
    learning_no_border: Hidden | None = None
    test: Hidden | None = None
    test_no_border: Hidden | None = None
    labelling_uses: tuple[dict[str, str | int], ...] = ()

    @property
    def has_masks(self) -> bool:
        """Whether the set can be opened as one; later commands see the student's own pictures otherwise."""
        return self.learning is not None or self.test is not None

    @property
    def labels_hash(self) -> str:
        """A hash of which picture is labelled as what."""
        labelled = self.pictures.labelled
        pairs = [
            (entry.name, there) for entry, there in zip(labelled.split.entries, labelled.present, strict=True)
        ]
        return blake2b(repr(pairs).encode(), digest_size=16).hexdigest()

    @property
    def uses(self) -> list[dict[str, str | int]]:
        """Every use of masks so far, in order: ``learning`` and ``test`` note theirs in one list."""
        noting = self.learning or self.test
        return [] if noting is None else noting.uses

    def truth(self, which: str, purpose: str) -> Truth | None:
        """Open the masks of ``learning`` or ``test``, noting ``purpose``; None where there are none."""
        hidden, inner = {
            "learning": (self.learning, self.learning_no_border),
            "test": (self.test, self.test_no_border),
        }[which]
        if hidden is None:
            return None
        return Truth(hidden.opened(purpose), None if inner is None else inner.opened(purpose))


def open_weak_data(data: DataSettings, labels: str, resumed: Path | None = None) -> WeakData:
    """Open a set for weak supervision; ``labels`` is as in `WeakSettings`.

    The splits are those of the run in the folder ``resumed``, where one is named that lists its own.

    A folder of pictures alone, or of ``images/`` without ``masks/``, is a set too: in the end
    there is nothing to compare with.

    Raises:
        DataError: there are no pictures, or no labels for them.
        SettingError: the set has several classes of objects.
    """
    if labels == "folders":
        return _of_pictures(data, image_labels.by_folders(data.path, data.channels))
    alone = None if labels == "masks" else _alone(data)
    if alone is not None:
        return _of_pictures(data, _labelled(alone, labels, data.channels))
    listing = read_listing(resumed)
    if listing is None or resumed is None:
        dataset = open_data(data, masks=False)
        if dataset.dims == 3:
            raise SettingError(
                f"{data.path} holds volumes, but 'seglens weak' learns from pictures. Write the slices as "
                "pictures with 'seglens data slices'."
            )
    else:
        dataset = open_listed(data, listing, resumed, masks=False)
    if "train" not in dataset.splits:
        raise DataError(
            f"{data.path} has no split 'train' to learn from. It has: {', '.join(dataset.splits)}."
        )
    if len(dataset.task.classes) != 2:
        raise SettingError(
            f"'seglens weak' learns one object and its background, but {data.path} has the classes "
            f"{', '.join(dataset.task.classes)}. Merge the categories, or choose one with --classes."
        )
    learning = _learning(dataset)
    hidden = Hidden(learning)
    if labels == "masks":
        labelled = image_labels.by_masks(hidden, data.channels)
    else:
        labelled = _labelled(learning, labels, data.channels)
    chosen = {entry.name for entry in labelled.split.entries}
    kept = [index for index, entry in enumerate(learning.entries) if entry.name in chosen]
    held = {entry.image for entry in dataset.splits.get("valid", learning.select([])).entries}
    test = dataset.splits.get("test", learning.select([]))
    pictures = LearningPictures(
        labelled,
        tuple(entry.image in held for entry in labelled.split.entries),
        stems_of([entry.name for entry in labelled.split.entries]),
        tuple(image_labels.without_masks(test, data.channels).entries),
        dataset.task.classes,
        data.channels,
    )
    inner = _without_border(dataset)
    return WeakData(
        dataset.settings,
        pictures,
        dataset,
        dataset.sha256(),
        hidden.select(kept),
        None if inner is None else Hidden(_learning(inner)).select(kept),
        _hidden(test, hidden.uses),
        None if inner is None else _hidden(inner.splits.get("test", test), []),
        tuple(hidden.uses),
    )


def _labelled(split: Split, labels: str, channels: int) -> Labelled:
    """Label pictures without looking at a mask: all of them show the object, or as a table says."""
    if labels == "all":
        return image_labels.all_positive(split, channels)
    return image_labels.by_file(split, Path(labels), channels)


def _hidden(split: Split, uses: list[dict[str, str | int]]) -> Hidden | None:
    labelled = [index for index, entry in enumerate(split.entries) if entry.labelled]
    return Hidden(split.select(labelled), uses) if labelled else None


def _learning(dataset: Dataset) -> Split:
    """Join train and valid; where both have pictures of one name, these are called ``split/name``."""
    parts = {name: split for name, split in dataset.splits.items() if name in ("train", "valid")}
    joined = Dataset(dataset.settings, dataset.layout, dataset.task, parts).split("all")
    return Split("train and valid", joined.task, joined.entries, joined.reader)


def _without_border(dataset: Dataset) -> Dataset | None:
    """Return the same set with the border's pixels not valid, where its masks mark a border."""
    if dataset.layout != "oxford-pet" or dataset.settings.border != "foreground":
        return None
    return open_data(dataset.settings.model_copy(update={"border": "ignore"}))


def _alone(data: DataSettings) -> Split | None:
    """Return the pictures of a folder that no layout recognises; None where it is a set, or should be one."""
    named = (data.layout, data.train_dir, data.valid_dir, data.test_dir)
    if any(named) or not data.path.is_dir() or recognised(data) is not None:
        return None
    found = image_labels.pictures_alone(data.path, data.channels) or None
    if found is not None and (data.groups is not None or data.group_from is not None):
        raise SettingError(
            f"{data.path} is a folder of pictures without masks. --groups and --group-from can't be used "
            "with it: leave them out. Pictures that look nearly the same are kept together."
        )
    return found


def _of_pictures(data: DataSettings, labelled: Labelled) -> WeakData:
    """Return pictures that have labels alone; a part is held out, near-duplicates together."""
    entries = labelled.split.entries
    halves = split_pictures(
        [entry.image for entry in entries],
        [str(there) for there in labelled.present],
        {"train": 1 - VALID_SHARE, "valid": VALID_SHARE},
        data.split_seed,
    )
    held = set(halves["valid"])
    pictures = LearningPictures(
        labelled,
        tuple(index in held for index in range(len(entries))),
        stems_of([entry.name for entry in entries]),
        (),
        ("background", "object"),
        data.channels,
    )
    parts = {name: replace(labelled.split.select(positions), name=name) for name, positions in halves.items()}
    dataset = Dataset(data, "folders", labelled.split.task, parts)
    return WeakData(data, pictures, dataset, _sha256(labelled, entries))


def _sha256(labelled: Labelled, entries: tuple[Entry, ...]) -> str:
    settings = DataSettings(path=entries[0].image.parent)
    return Dataset(settings, "folders", labelled.split.task, {"train": labelled.split}).sha256()
