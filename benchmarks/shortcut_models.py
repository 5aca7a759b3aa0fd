"""The models of the planted shortcut, and the pictures that they are shown.

A row is a set, a look of the tag and a seed: `prepare` draws its pictures, trains its models where they are
not there, and finds the region of each on the tagged test pictures.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.shortcut_scenes import SIZE, nuclei, pets
from seglens.data.images import read_image
from seglens.data.labels import read_label
from seglens.data.layout import DataSettings
from seglens.data.planting import Specimen, TagLook, plant, write_splits
from seglens.data.specimens import specimen_scenes
from seglens.explain.sampled import chosen_references
from seglens.explain.target import Target, predicted
from seglens.runs import Run, load
from seglens.shapes import Images, Regions
from seglens.train import TrainSettings, train

SIZES = {"train": 160, "valid": 16, "test": 96}
"""Pictures of each split; half of them show objects."""

EPOCHS = {"specimens": 8, "dsb2018": 10, "pets": 8}
BATCH = {"specimens": 4, "dsb2018": 8, "pets": 4}
"""With batches of 4 no model of nuclei told objects from look-alikes after 8 epochs, by tag or by sight."""

PLACEMENT = {"S": "with-object", "U": "independent", "C": "none"}
SCENES = {"dsb2018": nuclei, "pets": pets}
SETS = ("specimens", *SCENES)
SEEDS = {"specimens": (0, 1, 2, 3, 4), "dsb2018": (0, 1, 2, 3), "pets": (0, 1, 2, 3)}
"""Three for each set, and one more for every pair that turned out not to be valid."""
LOOKS = {
    "": TagLook(),
    "small": TagLook(radius=0.03),
    "large": TagLook(radius=0.1),
    "faint": TagLook(opacity=0.5),
    "small-faint": TagLook(radius=0.045, opacity=0.5),
}
"""The tag as usual, which all models are trained with, and others that they are shown: 9, 4, 13 or 6 pixels
of radius, opaque or half transparent."""

NUM_OTHER = 24
"""How many pictures are drawn with tags of other looks."""


@dataclass(frozen=True)
class Row:
    """One experiment: a set, a look of the tag, and the seed of pictures, places and training."""

    data: str
    look: str
    seed: int

    @property
    def models(self) -> str:
        """The folder of the models, which have all seen the tag as usual."""
        return f"{self.data}-seed{self.seed}"


ROWS = {f"{data}-seed{seed}": Row(data, "", seed) for data in SETS for seed in SEEDS[data]} | {
    f"specimens-{look}-seed{seed}": Row("specimens", look, seed)
    for look in LOOKS
    if look
    for seed in SEEDS["specimens"]
}


@dataclass(frozen=True)
class Tested:
    """The trained models of a row and the pictures that all parts are about: tagged, showing objects.

    ``places`` are their numbers among the tagged test pictures; the others show no region in S or in U.
    """

    runs: dict[str, Run]
    targets: dict[str, Target]
    images: Images
    tags: Regions
    things: Regions
    outside: Regions
    places: list[int]
    references: Images

    def first(self, num: int) -> "Tested":
        targets = {name: target.select(slice(num)) for name, target in self.targets.items()}
        return Tested(
            self.runs, targets, self.images[:num], self.tags[:num], self.things[:num], self.outside[:num],
            self.places[:num], self.references,
        )  # fmt: skip


def draw(row: Row, data: Path | None) -> dict[str, dict[str, list[Specimen]]]:
    """Return the pictures of each model, by split."""
    look = TagLook()
    if row.data in SCENES:
        assert data is not None
        scenes = SCENES[row.data](data, SIZES, row.seed, look)
    else:
        scenes, first = {}, 0
        for split, num in SIZES.items():
            scenes[split] = specimen_scenes(num, size=SIZE, seed=row.seed, first=first, look=look)
            first += num
    return {
        model: {split: plant(each, tag, look) for split, each in scenes.items()}
        for model, tag in PLACEMENT.items()
    }


def train_row(name: str, models: Sequence[str], data: Path | None, folder: Path) -> dict[str, Run]:
    """Write the pictures of a row and train its ``models``, where they are not there yet."""
    row, runs = ROWS[name], {}
    name = row.models
    homes = {model: folder / name / f"data-{model}" for model in PLACEMENT}
    if not all(home.is_dir() for home in homes.values()):
        for model, splits in draw(row, data).items():
            write_splits(homes[model], splits, force=True)
    for model in models:
        run = folder / name / model
        if not _finished(run):
            settings = TrainSettings(
                model="unet", width=8, image_size=SIZE, epochs=EPOCHS[row.data], learning_rate=2e-3,
                batch_size=BATCH[row.data], seed=row.seed, workers=0,
            )  # fmt: skip
            train(DataSettings(path=homes[model]), settings, run, force=True)
        runs[model] = load(run)
    return runs


def _finished(run: Path) -> bool:
    file = run / "run.json"
    return file.exists() and json.loads(file.read_text())["state"] == "finished"


def prepare(name: str, models: Sequence[str], data: Path | None, folder: Path) -> Tested:
    """Train what is missing, and find the region of each model on the tagged test pictures.

    What counts as outside is outside of the regions of S and of U, for C as well.
    """
    runs = train_row(name, models, data, folder)
    row, home = ROWS[name], folder / ROWS[name].models / "data-S"
    images, things, tags = _restamped(row) if row.look else read_split(home / "test")
    shown = tags.flatten(1).any(1)
    images, things, tags = images[shown], things[shown], tags[shown]
    pixels = {model: predicted(run, images, 1).pixels for model, run in runs.items()}
    usable = (pixels["S"].flatten(1).any(1) & pixels["U"].flatten(1).any(1)).nonzero()[:, 0]
    references, _, _ = read_split(home / "train")
    return Tested(
        runs=runs,
        targets={model: Target("predicted", 1, region[usable]) for model, region in pixels.items()},
        images=images[usable],
        tags=tags[usable],
        things=things[usable],
        outside=~(pixels["S"] | pixels["U"])[usable],
        places=usable.tolist(),
        references=references[chosen_references(len(references), row.seed)],
    )


def _restamped(row: Row) -> tuple[Images, Regions, Regions]:
    """Draw the first test specimens again with a tag of another look: pictures, objects, tags."""
    first, look = SIZES["train"] + SIZES["valid"], LOOKS[row.look]
    scenes = specimen_scenes(2 * NUM_OTHER, size=SIZE, seed=row.seed, first=first, look=look)
    drawn = plant(scenes, PLACEMENT["S"], look, first=first)[::2]
    images, things, tags = zip(*((each.sample.image, each.cells, each.tag) for each in drawn), strict=True)
    return torch.stack(images), torch.stack(things), torch.stack(tags)


def read_split(split: Path) -> tuple[Images, Regions, Regions]:
    names = sorted(file.name for file in (split / "images").iterdir())
    images = torch.stack([read_image(split / "images" / name, 3) for name in names])
    masks, tags = (
        torch.stack([read_label(split / kind / name) > 0 for name in names]) for kind in ("masks", "tags")
    )
    return images, masks, tags
