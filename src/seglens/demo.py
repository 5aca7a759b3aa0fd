"""The demo, on embedded data: two models with similar scores, one of which cheats; the report shows which.

Both models are trained on the same pictures of cells with the same masks. In the pictures of the *cheat* a
tag stands where cells of interest are; in those of the *honest* model it stands as often, but independently
of them. Each does well on test pictures made like its own. What tells them apart is what happens when the
tag is taken away, and where the maps light up.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image as Picture
from torch import Tensor

from seglens.arguments import checked
from seglens.arguments.validated import Validated
from seglens.callable_module import make_callable
from seglens.data.labels import read_label
from seglens.data.layout import DataSettings, Split
from seglens.data.opening import open_data
from seglens.data.specimens import write_specimens
from seglens.data.transforms import Batch, collate
from seglens.drawing import draw
from seglens.evaluate import Evaluation, evaluate
from seglens.explain.integrated import IntegratedGradients
from seglens.files.output import new_folder
from seglens.files.ownership import REPORT, rename_in_records, write_text
from seglens.folder import explain_folder, judge_folder
from seglens.judge.agreement import CHEAT, HONEST, TagShare
from seglens.judge.case import CHEAP, JudgeSettings
from seglens.judge.shortcut import Shortcut, planted_shortcut
from seglens.report import report
from seglens.results import record as records
from seglens.runs import Run
from seglens.shapes import Regions
from seglens.train import TrainSettings, train

__all__ = ["DemoSettings", "demo"]

TAGS = {HONEST: "independent", CHEAT: "with-object"}
"""How the tag is placed in the training pictures of each model."""

METHODS = ("grad-cam", "layer-cam", IntegratedGradients(steps=16))
LAYERS = ("encoder_last", "bottleneck", "decoder_last")
JUDGED_LAYERS = ("encoder_last", "decoder_last")


class DemoSettings(Validated):
    """How large the demo is. The defaults take about two minutes on two cores.

    ``num_explained`` pictures of each model are explained, ``num_judged`` judged, and ``num_examples`` shown
    side by side.
    """

    size: int = 96
    num_train: int = 240
    num_valid: int = 16
    num_test: int = 48
    width: int = 12
    epochs: int = 10
    batch_size: int = 6
    learning_rate: float = 2e-3
    num_explained: int = 4
    num_judged: int = 8
    num_occluded: int = 12
    occlusion_cells: int = 8
    num_examples: int = 3


DEFAULTS = DemoSettings()


@checked
def demo(out: str | Path, *, force: bool = False, seed: int = 0, settings: DemoSettings = DEFAULTS) -> Path:
    """Train the two models, evaluate, explain and judge them, test for the tag, and return the report's file.

    ``out`` then holds the data sets (``data/honest``, ``data/cheat``), the run folders (``honest``,
    ``cheat``), ``shortcut/shortcut.json`` with example pictures, and ``report.html``.

    Raises:
        OutputExistsError: ``out`` holds something and ``force`` is not given.
        DataError: a model was trained too little to find a cell.
    """
    out = Path(out)
    with new_folder(out, command="demo", force=force) as folder:
        _tell_story(folder, seed, settings)
        rename_in_records(folder, folder, out)
        page = folder / REPORT
        write_text(page, page.read_text(encoding="utf-8").replace(str(folder), str(out)))
    return out / REPORT


def _tell_story(out: Path, seed: int, settings: DemoSettings) -> None:
    began = time.monotonic()
    record = records.start("demo", seed=seed, settings=settings.model_dump())
    runs, evaluations = {}, {}
    for name, tag in TAGS.items():
        runs[name], evaluations[name] = _make(name, tag, out, seed, settings)
    _say("checking what the tag does to each of them")
    tested, tags = _tagged(_test_split(out, CHEAT), out / "data" / CHEAT / "test" / "tags")
    assert tested.masks is not None
    found = planted_shortcut(
        runs[HONEST],
        runs[CHEAT],
        tested.images,
        tags,
        methods=METHODS,
        layers=LAYERS,
        objects=tested.masks > 0,
        seed=seed,
        num_occluded=settings.num_occluded,
        occlusion_cells=settings.occlusion_cells,
    )
    with new_folder(out / "shortcut", command="shortcut") as folder:
        table = found.table
        models = {
            name: {**table.models[name], "dice": evaluation.pooled["dice"], "iou": evaluation.pooled["iou"]}
            for name, evaluation in evaluations.items()
        }
        examples = _examples(found, runs, tested, tags, folder, settings.num_examples)
        table = table.model_copy(update={"models": models, "examples": tuple(examples)})
        records.write_json(folder / "shortcut.json", table)
    report([out / name for name in runs], out=out / REPORT, shortcut=out / "shortcut" / "shortcut.json")
    results = {"verdict": found.verdict, "valid": found.valid}
    records.finish(record, began, device=str(runs[HONEST].segmenter.device), results=results).write(out)
    _say(f"{found.verdict} {found.reason}")


def _make(name: str, tag: str, out: Path, seed: int, settings: DemoSettings) -> tuple[Run, Evaluation]:
    """Draw the specimens of one model, train it, and evaluate, explain and judge it on its own test split."""
    _say(f"{name} model: drawing {settings.num_train} training pictures, tag {tag}")
    data = write_specimens(
        out / "data" / name,
        num_train=settings.num_train,
        num_valid=settings.num_valid,
        num_test=settings.num_test,
        size=settings.size,
        seed=seed,
        tag=tag,
    )
    _say(f"{name} model: training a U-Net for {settings.epochs} epochs")
    training = TrainSettings(
        model="unet",
        width=settings.width,
        image_size=settings.size,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
        workers=0,
    )
    run = train(DataSettings(path=data), training, out / name)
    split = _test_split(out, name)
    evaluation = evaluate(run, split, save_images=True)
    _say(f"{name} model: Dice {evaluation.pooled['dice']:.3f} on its test pictures; explaining and judging")
    # Every other specimen shows cells of interest; in the others there is nothing to explain.
    shown = split.select(range(0, len(split), 2))
    explain_folder(run, shown, methods=METHODS, layers=LAYERS, num_images=settings.num_explained, seed=seed)
    judge_folder(
        run,
        shown,
        methods=METHODS,
        layers=JUDGED_LAYERS,
        num_images=settings.num_judged,
        judging=JudgeSettings(CHEAP),
        seed=seed,
    )
    return run, evaluation


def _test_split(out: Path, name: str) -> Split:
    return open_data(DataSettings(path=out / "data" / name)).split("test")


def _tagged(split: Split, folder: Path) -> tuple[Batch, Regions]:
    """Read the pictures of a split that have a tag, and where it is."""
    regions = [read_label(folder / f"{entry.name}.png") > 0 for entry in split.entries]
    rows = [row for row, region in enumerate(regions) if region.any()]
    return collate([split[row] for row in rows]), torch.stack([regions[row] for row in rows])


def _examples(
    found: Shortcut, runs: Mapping[str, Run], tested: Batch, tags: Regions, folder: Path, num: int
) -> list[dict[str, Any]]:
    """Draw a few pictures as both models see them.

    The maps are of the attribution that exposes the cheat by the widest margin; occlusion is left out, since
    it is the causal reference and covers some pictures only.
    """
    attributions = [i for i, row in enumerate(found.methods) if row.method != "occlusion"]
    best = max(attributions, key=lambda i: _margin(found.methods[i]))
    without_tag = runs[CHEAT].predict(found.untagged).mask
    examples = []
    for i in range(min(num, len(found.rows))):
        row = int(found.rows[i])
        image = tested.images[row]
        drawn = {"orig": draw.picture(image)}
        for name in runs:
            region = found.targets[name].pixels[i]
            drawn[f"pred_{name}"] = draw.overlay(image, region.long())
            drawn[f"map_{name}"] = _heat(image, found.maps[name][best].positive[i], tags[row])
        drawn["without_tag_cheat"] = draw.overlay(found.untagged[i], without_tag[i])
        name = tested.names[row]
        (folder / name).mkdir()
        for what, picture in drawn.items():
            draw.save_png(_large(picture), folder / name / f"{what}.png")
        title = f"{name}, heat: {found.methods[best].name}"
        examples.append({"name": title} | {what: f"{name}/{what}.png" for what in drawn})
    return examples


def _margin(share: TagShare) -> tuple[bool, float]:
    return share.exposes, share.cheat.mean - share.honest.mean


def _heat(image: Tensor, heat: Tensor, tag: Tensor) -> Picture:
    """Draw a map over its picture, with the place of the tag outlined; the brightest 1 % share a colour."""
    drawn = _large(draw.heat_overlay(image, heat, draw.heat_scale(heat, share=0.99)))
    box = torch.zeros_like(tag)
    rows, columns = tag.any(1).nonzero()[:, 0], tag.any(0).nonzero()[:, 0]
    box[rows[0] - 1 : rows[-1] + 2, columns[0] - 1 : columns[-1] + 2] = True
    return draw.outline(drawn, box)


def _large(picture: Picture) -> Picture:
    return draw.enlarge(picture, 3) if picture.width < 256 else picture


def _say(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


make_callable(__name__)
