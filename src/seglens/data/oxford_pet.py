"""Layout ``oxford-pet``: the Oxford-IIIT Pet set, trimaps of 1 pet, 2 background, 3 border.

Source: Parkhi, Vedaldi, Zisserman, Jawahar, "Cats and Dogs", CVPR 2012.
"""

from functools import partial
from pathlib import Path

from seglens.data.folders import all_valid, read_fitting_label, visible_files
from seglens.data.images import IMAGE_SUFFIXES, read_turned
from seglens.data.layout import DataSettings, Entry, Finding, Found, Searched
from seglens.data.sample import Sample, Task
from seglens.data.tables import read_text
from seglens.errors import DataError, MaskValueError

LOOKS_LIKE = "images/, annotations/trimaps/, annotations/trainval.txt and annotations/test.txt"
LISTS = {"train": "trainval.txt", "test": "test.txt"}
PET, BACKGROUND, BORDER = 1, 2, 3
OF_PICTURES = (*IMAGE_SUFFIXES, ".mat")
"""What lies in images/: the original set has copies of three pictures for MATLAB there."""


def recognises(folder: Path) -> bool:
    """Whether ``folder`` holds annotations/trimaps."""
    return (folder / "annotations" / "trimaps").is_dir()


def find(settings: DataSettings) -> Found:
    """List the pictures of trainval.txt as train and of test.txt as test; the valid split is left to be made.

    Raises:
        DataError: a list is missing.
    """
    pictures = {file.stem: file for file in visible_files(settings.path / "images")}
    trimaps = {file.stem: file for file in visible_files(settings.path / "annotations" / "trimaps")}
    entries, problems = {}, []
    unlisted = set(pictures)
    for split, name in LISTS.items():
        stems = _listed(settings.path / "annotations" / name)
        unlisted -= set(stems)
        for stem in stems:
            if stem not in pictures:
                text = f"Pictures that {name} lists are not in images/."
                problems.append(Finding("missing-image", "error", text, (stem,)))
            elif stem not in trimaps:
                text = f"Pictures that {name} lists have no trimap."
                problems.append(Finding("image-without-mask", "error", text, (stem,)))
        complete = [stem for stem in stems if stem in pictures and stem in trimaps]
        entries[split] = tuple(Entry(stem, pictures[stem], (trimaps[stem],)) for stem in complete)
    if unlisted:
        text = f"Pictures are in neither {' nor '.join(LISTS.values())} and are left out, as the lists say."
        problems.append(Finding("unlisted", "note", text, tuple(sorted(unlisted))))
    border = ("border",) if settings.border == "class" else ()
    task = Task(classes=("background", "pet", *border))
    reader = partial(_read, border=settings.border, channels=settings.channels)
    searched = (
        Searched(settings.path / "images", OF_PICTURES, "warning"),
        Searched(settings.path / "annotations" / "trimaps", IMAGE_SUFFIXES, "warning"),
    )
    return Found(task, entries, reader, searched, tuple(problems), breed)


def breed(entry: Entry) -> str:
    """Return the breed, which the name of a picture says before its number."""
    return entry.name.rpartition("_")[0]


def _listed(file: Path) -> list[str]:
    """Return the names in the first column of a list, sorted."""
    if not file.is_file():
        raise DataError(
            f"{file} is missing: it lists the pictures of a split. Add it, or lay the set out as 'pairs'."
        )
    lines = read_text(file).splitlines()
    return sorted({line.split()[0] for line in lines if line.strip() and not line.startswith("#")})


def _read(entry: Entry, *, border: str, channels: int) -> Sample:
    image, turned = read_turned(entry.image, channels)
    trimap = read_fitting_label(entry.masks[0], image, entry.image, turned)
    wrong = trimap[(trimap < PET) | (trimap > BORDER)]
    if len(wrong):
        raise MaskValueError(
            f"The trimap {entry.masks[0]} holds the value {int(wrong[0])}; allowed are 1 (pet), 2 "
            "(background) and 3 (border). Take the file from the original set."
        )
    on_border = trimap == BORDER
    mask = (trimap == PET).long()
    if border == "foreground":
        mask += on_border
    elif border == "class":
        mask += 2 * on_border
    valid = ~on_border if border == "ignore" else all_valid(image)
    return Sample(entry.name, image, mask, valid)
