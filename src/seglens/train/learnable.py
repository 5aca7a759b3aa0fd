"""What can be learned from a data set: without a mark it is refused, and what is missing is warned of."""

import sys
from collections.abc import Sequence

from seglens.data.layout import Dataset
from seglens.data.listing import Listing, copies_of_train
from seglens.data.sample import Sample
from seglens.errors import DataError
from seglens.masks import foreground
from seglens.results.names import count, worded
from seglens.train.dataset import Batches


def refuse_unmarked(dataset: Dataset) -> None:
    """A network can't learn from pictures on which nothing is marked, nor be chosen by them."""
    for name in ("train", "valid"):
        split = dataset.splits.get(name)
        if split is not None and not any(_is_marked(split[index]) for index in range(len(split))):
            classes = " or ".join(dataset.task.classes[1:])
            text = (
                f"0 of {count(len(split), 'picture')} of the {name} split show {classes}: nothing is marked. "
                "Look at the masks or annotations with 'seglens data check'"
            )
            if name == "train":
                raise DataError(f"{text}; a set to train on needs some.")
            print(f"warning: {text}; without that no epoch is the best, the last is kept.", file=sys.stderr)


def about_missing(batches: Batches, classes: Sequence[str]) -> list[str]:
    """Return warnings of classes that no picture shows, as networks see them, and of one that all is.

    Pseudo-masks may be of one class all over, so that is no error.
    """
    dims = batches.training.split.dims
    shown, found = batches.training.shown(len(classes)), list[str]()
    if len(shown) == 1 and 0 not in shown:
        found.append(
            f"warning: every pixel of the {count(len(batches.training.split), 'picture')} to train on is "
            f"{classes[min(shown)]}: there is nothing to tell apart. Look at the masks with 'seglens data "
            "check'; the background is the value 0."
        )
    if names := _absent(shown, classes):
        found.append(
            f"warning: no picture of the train split shows {names} at the size of inputs: it can't be "
            "learned. Choose a larger image size, or other classes."
        )
    seen = batches.validation.shown(len(classes)) if batches.validation else set()
    if seen - {0} and (names := _absent(seen, classes)):
        found.append(
            f"warning: no picture of the valid split shows {names}. One pixel predicted so makes its Dice "
            "0, and the mean of all classes chooses the epoch. Bring a valid split that shows each."
        )
    return [worded(text, dims) for text in found]


def _absent(shown: set[int], classes: Sequence[str]) -> str:
    return " or ".join(name for index, name in enumerate(classes) if index and index not in shown)


def warn_of_copies(listing: Listing) -> None:
    """Warn of pictures to train on that are in another split, too."""
    for split, names in copies_of_train(listing).items():
        print(
            f"warning: the {split} split holds {count(len(names), 'picture')} to train on, too "
            f"({', '.join(names[:3])}{', ...' * (len(names) > 3)}): scores there say little about new "
            "pictures. Remove one of each.",
            file=sys.stderr,
        )


def _is_marked(sample: Sample) -> bool:
    return sample.mask is None or bool((foreground(sample.mask, sample.valid.ndim) & sample.valid).any())
