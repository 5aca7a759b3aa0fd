"""An overview of a data set: some samples with their masks, and augmented versions of them."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from PIL.Image import Image as Picture
from PIL.PngImagePlugin import PngInfo

from seglens.arguments import checked
from seglens.arguments.renamed import renamed
from seglens.axes import sides_of, size_of, spelled
from seglens.data.frame import part_frame
from seglens.data.intensity import found_window
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.sample import Sample, Task
from seglens.data.transforms import augment, letterbox, placed_on, sample_generator
from seglens.drawing.draw import Tile, no_map, overlay, picture, sheet
from seglens.drawing.planes import planes_through
from seglens.errors import DataError, SettingError
from seglens.files.output import output_file
from seglens.files.overwrite import check_file
from seglens.masks import foreground, only_valid
from seglens.models.dimensions import FOR
from seglens.models.segmenter import ModelSpec

CUBE = 64
"""Voxels along the sides of the cube in which a volume is drawn."""


@renamed(num="num_images")
@checked
def show_data(
    settings: DataSettings,
    out: str | Path,
    *,
    split: str = "train",
    num_images: int = 6,
    augmented: int = 3,
    image_size: int | Sequence[int] = 256,
    spec: ModelSpec | None = None,
    seed: int = 0,
    force: bool = False,
) -> Path:
    """Draw ``num_images`` pictures, spread evenly over a split, as the model sees them; return the file.

    ``image_size`` is the length of every side, or of each: rows and columns, of volumes slices, rows and
    columns. Volumes are scaled into sides of at most `CUBE` voxels and drawn in three planes. Intensities are
    mapped to [0, 1] as a training would. With ``spec`` pictures are as that model takes them: its input size
    (which stands in for ``image_size``), its intensities, and of a model of patches one patch, that holds the
    most of the mask. Each row is one sample: the picture, the picture with its mask, and ``augmented``
    augmented pairs of it. A sample that can't be read has its place and its error.

    Raises:
        SettingError: a number is not allowed, or the model takes volumes and these are pictures, or the other
            way round.
        DataError: the set or the split is empty, or no sample could be read.
        OutputExistsError: ``out`` exists and ``force`` is not given.
    """
    for name, value, least in (("augmented", augmented, 0), ("image_size", image_size, 16)):
        lengths = (value,) if isinstance(value, int) else value
        if min(lengths, default=0) < least:
            raise SettingError(f"{name} must be at least {least}, received {spelled(lengths)}.")
    check_file(Path(out), force=force, data=[settings.path])
    if spec is not None:
        settings = settings.model_copy(update={"intensities": spec.intensities or settings.intensities})
    dataset = open_data(settings)
    if spec is not None and spec.dims != dataset.dims:
        raise SettingError(
            f"The model is for {FOR[spec.dims]}, and {settings.path} holds {FOR[dataset.dims]}. Name another "
            "run, or another set."
        )
    chosen = dataset.split(split)
    if not len(chosen):
        raise DataError(f"The {split} split of {settings.path} is empty. Name another split.")
    num = min(num_images, len(chosen))
    sides = spec.sides if spec is not None else sides_of(image_size, dataset.dims)
    if dataset.dims == 3 and spec is None:
        sides = tuple(min(side, CUBE) for side in sides)
    known = dataset.split("train") if "train" in dataset.splits else chosen
    low, high = found_window(known) if spec is None else spec.window
    rows, errors = [], []
    for position in range(num):
        index = position * len(chosen) // num
        name = chosen.entries[index].name
        try:
            boxed = _boxed(chosen[index], sides, None if spec is None else spec.patch_scale)
            boxed = replace(boxed, image=((boxed.image - low) / (high - low)).clamp(0, 1))
        except DataError as error:
            errors.append(str(error))
            rows.append([Tile(no_map(sides[-1], sides[-2], "not readable"), name, str(error))])
            continue
        rows.append(_row(boxed, dataset.task, augmented, seed=seed, index=index))
    if len(errors) == num:
        raise DataError(f"None of {num} samples could be read. The first: {errors[0]}")
    title = f"{settings.path.name}, {split} split: {num} of {len(chosen)} samples at {spelled(sides)} pixels"
    width = 224 if dataset.dims == 2 else 448
    with output_file(Path(out), force=force) as temporary:
        _save(sheet(rows, title=title, tile_width=width), temporary)
    return Path(out)


def _save(drawn: Picture, file: Path) -> None:
    """Write the picture with a word that Seglens made it, by which ``force`` knows what it may replace."""
    made_by = PngInfo()
    made_by.add_text("Software", f"seglens {version('seglens')}")
    drawn.save(file, format="PNG", pnginfo=made_by)


def _boxed(sample: Sample, sides: tuple[int, ...], patch_scale: float | None) -> Sample:
    """Put a sample on one input, whole or as a patch."""
    if patch_scale is None:
        return letterbox(sample, sides)[0]
    frame = part_frame(size_of(sample.image, 1), sides, patch_scale, sample.spacing, sample.mask)
    return placed_on([sample], [frame])[0][0]


def _row(boxed: Sample, task: Task, augmented: int, *, seed: int, index: int) -> list[Tile]:
    """Return the tiles of one sample: itself, with its mask, and augmented pairs."""
    tiles = [Tile(picture(_flat(boxed).image), boxed.name), _pair(boxed, task, "with its mask")]
    for epoch in range(augmented):
        changed = augment(boxed, sample_generator(seed, epoch, index))
        tiles.append(_pair(changed, task, f"augmented {epoch + 1}"))
    return tiles


def _flat(sample: Sample) -> Sample:
    """Return a picture as it is, and a volume as the planes through what is marked."""
    if sample.valid.ndim == 2:
        return sample
    marked = sample.valid & False if sample.mask is None else foreground(sample.mask, 3)
    planes = planes_through(marked, sample.spacing)
    mask = None if sample.mask is None else planes(sample.mask)
    return Sample(sample.name, planes(sample.image), mask, planes(sample.valid))


def _pair(sample: Sample, task: Task, title: str) -> Tile:
    sample = _flat(sample)
    if sample.mask is None:
        return Tile(picture(sample.image), title, "no mask")
    mask = only_valid(sample.mask, sample.valid, 2)
    area = float(foreground(mask, 2).sum()) / max(1, int(sample.valid.sum()))
    return Tile(overlay(sample.image, mask, task.palette), title, f"foreground {area:.1%}")
