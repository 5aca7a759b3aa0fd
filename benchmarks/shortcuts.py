"""Which explanation methods show that a segmentation model reads a planted tag, and which don't.

    python -m benchmarks.shortcuts --data ../shared/data                 # every row and part that is missing
    python -m benchmarks.shortcuts --data ../shared/data pets-seed1      # one row
    python -m benchmarks.shortcuts --data ../shared/data pets-seed1 --parts rise
    python -m benchmarks.shortcuts --table                               # SHORTCUTS.md from what is there

A row is a set, a look of the tag and a seed. It trains S (the tag goes with the object), U (the tag stands
independently, as often) and, for the tag as usual, C (no tags) on the same pictures and labels with the same
settings, into ``RUNS/shortcuts``. A part is the maps of some methods on the same tagged test pictures; it is
one line of ``shortcuts.jsonl`` with a number per picture, and what is there is not made again. Rows of
specimens need no data.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import shortcut_table
from benchmarks.shortcut_scenes import SIZE, nuclei, pets
from seglens.data.images import read_image, read_label
from seglens.data.layout import DataSettings
from seglens.data.planting import GAP, Specimen, TagLook, plant, write_splits
from seglens.data.specimens import specimen_scenes
from seglens.explain import Method, explain
from seglens.explain.ablation import AblationCam
from seglens.explain.channels import ScoreCam
from seglens.explain.explanation import Explanation
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion
from seglens.explain.references import chosen_references
from seglens.explain.rise import Rise
from seglens.explain.sampled import ExpectedGradients, SmoothGrad
from seglens.explain.target import Target, dilate, predicted
from seglens.judge.agreement import even_share, share, tag_zone
from seglens.judge.causal import RIM, effect
from seglens.judge.nulls import edges, mirror_of_stride, probability, random, surface
from seglens.predict import infer
from seglens.record import versions
from seglens.runs import Run, load
from seglens.shapes import Images, Regions
from seglens.train import TrainSettings, train

HERE = Path(__file__).parent
RESULTS = HERE / "shortcuts.jsonl"

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

CAMS = ("grad-cam", "grad-cam++", "hires-cam", "layer-cam", "xgrad-cam", "eigen-cam", "activation")
LAYERS = ("encoder_mid", "encoder_last", "bottleneck", "decoder_last")
NULLS = {"random": random, "edges": edges, "mirror-16": mirror_of_stride(16), "probability": probability}
REFERENCE = "causal reference"
FEW = {"reference": 16}
FEWEST = 8
"""Pictures of a row that methods of many passes explain: by part, and of the other parts."""

PARTS: dict[str, tuple[Method, ...]] = {
    "causal": (),
    "trace": (*CAMS, "saliency", "input-x-gradient"),
    "reference": (Occlusion(window=32, stride=16, fill="noisy-linear", precision="auto", label=REFERENCE),),
    "occlusion": (Occlusion(window=24, stride=12, precision="auto"),),
    "integrated-gradients": (IntegratedGradients(steps=16),),
    "smoothgrad": (SmoothGrad(samples=12),),
    "superpixel-occlusion": (SuperpixelOcclusion(precision="auto"),),
    "ablation-cam": (AblationCam(precision="auto"),),
    "score-cam": (ScoreCam(precision="auto"),),
    "control": (*CAMS, "saliency", "input-x-gradient"),
    "rise": (Rise(num_masks=200, precision="auto"),),
    "expected-gradients": (ExpectedGradients(samples=16),),
}
"""``causal`` measures what the tag does to the models. ``reference`` is the causal reference among the maps:
occlusion by a window that holds the whole tag, filled from its surroundings. ``control`` are the maps of C.
The parts in `ON_ALL` are made of all pictures, the others of a few."""

ON_ALL = ("causal", "trace", "control")
FOR_OTHER_LOOKS, NUM_OTHER = ("causal", "trace"), 24
"""What is made for tags of other looks, and of how many pictures."""
SLOW_LAYERS = ("encoder_last", "decoder_last")
"""Of the methods that take a pass for every channel."""


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

    @property
    def parts(self) -> tuple[str, ...]:
        return FOR_OTHER_LOOKS if self.look else tuple(PARTS)


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
    images, things, tags = _restamped(row) if row.look else _read(home / "test")
    shown = tags.flatten(1).any(1)
    images, things, tags = images[shown], things[shown], tags[shown]
    pixels = {model: predicted(run, images, 1).pixels for model, run in runs.items()}
    usable = (pixels["S"].flatten(1).any(1) & pixels["U"].flatten(1).any(1)).nonzero()[:, 0]
    references, _, _ = _read(home / "train")
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


def _read(split: Path) -> tuple[Images, Regions, Regions]:
    names = sorted(file.name for file in (split / "images").iterdir())
    images = torch.stack([read_image(split / "images" / name, 3) for name in names])
    masks, tags = (
        torch.stack([read_label(split / kind / name) > 0 for name in names]) for kind in ("masks", "tags")
    )
    return images, masks, tags


def measure(name: str, part: str, tested: Tested, folder: Path) -> dict[str, object]:
    """Make the maps of one part and return the line that is kept of it."""
    row, began, worked = ROWS[name], time.monotonic(), time.process_time()
    line: dict[str, object] = {
        "row": name,
        "part": part,
        "data": row.data,
        "look": row.look,
        "seed": row.seed,
    }
    some = tested if part in ON_ALL else tested.first(FEW.get(part, FEWEST))
    shares: dict[str, dict[str, list[float | None]]] = {}
    if part == "causal":
        line |= {"num_tagged": NUM_OTHER if row.look else SIZES["test"] // 2}
        line |= {"dice": {} if row.look else _dice(tested, folder / name)}
        line["areas"] = {
            model: float(target.pixels.float().mean()) for model, target in tested.targets.items()
        }
    if part in ("causal", "control"):
        line["causal"] = {model: _causal(model, tested, row.seed) for model in models_of(part)}
    for model in models_of(part):
        for found in _maps(part, tested.runs[model], some, some.targets[model], row.seed):
            zone = tag_zone(found, some.tags)
            kept = shares.setdefault(found.name, {"even": _numbers(even_share(zone, some.outside))})
            kept[model] = _numbers(share(found, zone, some.outside))
    line |= {"num": len(some.places), "shares": shares, "versions": versions()}
    line |= {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - worked}
    return line


def models_of(part: str) -> tuple[str, ...]:
    """The models whose maps a part holds."""
    return ("C",) if part == "control" else ("S", "U")


def _maps(part: str, run: Run, some: Tested, target: Target, seed: int) -> list[Explanation]:
    """The maps of one part for one model; nulls go with the trace."""
    if part == "causal":
        return []
    methods = PARTS[part]
    if part == "expected-gradients":
        methods = (ExpectedGradients(samples=16, references=some.references),)
    layers = LAYERS if part in ON_ALL else SLOW_LAYERS
    maps = list(explain(run, some.images, target, methods=methods, layers=layers, seed=seed).values())
    if part in ON_ALL:
        seen = surface(run, some.images, target, seed=seed)
        maps += [Explanation(f"null: {name}", None, target, null(seen)) for name, null in NULLS.items()]
    return maps


def _numbers(values: Tensor) -> list[float | None]:
    return [round(value, 6) if value == value else None for value in values.tolist()]


def _causal(model: str, tested: Tested, seed: int) -> dict[str, list[float | None]]:
    """The frozen region's mean probability as it is, without the tag and with the tag elsewhere.

    Elsewhere is where the tag could have been placed in training: as far from the border and from every
    object or look-alike. A corner would test how far the model reads, not whether the place matters.
    """
    gap = round(GAP * SIZE) - RIM  # `moved` keeps the rim itself
    border = torch.ones(SIZE, SIZE, dtype=torch.bool)
    border[gap:-gap, gap:-gap] = False
    occupied = dilate(tested.things, gap) | border | ~tested.outside
    found = effect(
        tested.runs[model].segmenter, tested.images, tested.targets[model], tested.tags, occupied, seed=seed
    )
    values = {"full": found.full, "tag_removed": found.tag_removed, "tag_moved": found.tag_moved}
    return {key: _numbers(value) for key, value in values.items()}


def _dice(tested: Tested, folder: Path) -> dict[str, float]:
    """Pooled Dice of each model on test pictures with tags as it was trained on, and of S on those of U."""
    found = {}
    for name, model, other in (("S", "S", "S"), ("U", "U", "U"), ("S on U", "S", "U")):
        images, things, _ = _read(folder / f"data-{other}" / "test")
        answer = infer(tested.runs[model].segmenter, images, precision="auto").mask > 0
        found[name] = float(2 * (answer & things).sum() / (answer.sum() + things.sum()))
    return found


def lines() -> list[dict]:
    """Return what is there; of a part that was made twice the later line counts."""
    if not RESULTS.exists():
        return []
    read = [json.loads(line) for line in RESULTS.read_text().splitlines() if line.strip()]
    return list({(line["row"], line["part"]): line for line in read}.values())


def run_rows(names: Sequence[str], parts: Sequence[str], data: Path | None, folder: Path) -> None:
    """Make what is missing, part by part, so that all rows have the first parts before any has the last.

    Models whose causal check failed are explained no further.
    """
    done = {(line["row"], line["part"]) for line in lines()}
    ready: dict[tuple[str, ...], Tested] = {}
    for part in parts:
        for name in names:
            if part not in ROWS[name].parts or (name, part) in done:
                continue
            if shortcut_table.is_invalid(ROWS[name].models, lines()):
                continue
            if ROWS[name].data in SCENES and data is None:
                sys.exit(f"{name} needs --data: the folder that holds {', '.join(SCENES)}.")
            models = tuple(dict.fromkeys(("S", "U", *models_of(part))))
            if (name, *models) not in ready:
                ready[name, *models] = prepare(name, models, data, folder)
            line = measure(name, part, ready[name, *models], folder)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{name} {part}: {line['num']} pictures, {line['cpu_seconds']:.0f} s of CPU", flush=True)
            shortcut_table.write(lines(), ROWS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--data", type=Path, help="the folder that holds dsb2018 and oxford-iiit-pet")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--table", action="store_true", help="write SHORTCUTS.md from what is there")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if not arguments.table:
        run_rows(arguments.rows or list(ROWS), arguments.parts, arguments.data, arguments.runs / "shortcuts")
    shortcut_table.write(lines(), ROWS)


if __name__ == "__main__":
    main()
