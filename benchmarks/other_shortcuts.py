"""Shortcuts that are no mark: which methods, scores and audits find a stain, a ground or a neighbour.

    python -m benchmarks.other_shortcuts [--runs runs] [KIND-SEED ...]    # every row that is missing
    python -m benchmarks.other_shortcuts --table                          # SHORTCUTS.md from what is there

As in `benchmarks.shortcuts`, S learns from pictures in which a cue goes with the objects, U from the same
pictures in which it stands independently, as often. The cue is one of `CUES`; ``tag`` is the mark of the
other tables, for comparison. All pictures are specimens, which need no data. A cue is drawn, so that each
picture is there without it: what the cue does to a model is measured on that, and no imputer is involved. A
row is one line of ``other_shortcuts.jsonl``; what is there is not made again.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.shortcut_models import PLACEMENT, SIZES
from benchmarks.shortcut_scenes import SIZE
from seglens.data.layout import DataSettings
from seglens.data.planting import Specimen, TagLook, UntaggedScene, eight_bit, planted, stands, write_splits
from seglens.data.sample import Sample
from seglens.data.specimens import EOSIN, specimen_scenes
from seglens.data.transforms import sample_generator
from seglens.evaluate.intervals import auroc, interval
from seglens.evaluate.surroundings import leaks, surroundings
from seglens.explain import Method, explain
from seglens.explain.explanation import Explanation
from seglens.explain.extremal import ExtremalMask
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.masked import clean_scores
from seglens.explain.occlusion import SuperpixelOcclusion
from seglens.explain.rise import Rise
from seglens.explain.sampled import ExpectedGradients, chosen_references
from seglens.explain.target import Target, predicted
from seglens.judge.agreement import DROP, STILL, share, tag_zone
from seglens.judge.audit import audit, conclude_audit
from seglens.judge.case import JudgeSettings
from seglens.judge.evidence import score, score_batch
from seglens.judge.regions import REGIONS
from seglens.predict import infer
from seglens.results.names import map_name
from seglens.runs import Run, load
from seglens.shapes import Image, Images, PerImage, Region, Regions
from seglens.train import TrainSettings, train

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "other_shortcuts.jsonl", HERE / "SHORTCUTS.md"
BEGIN, END = "<!-- other shortcuts -->", "<!-- end of other shortcuts -->"
SEEDS = (0, 1, 2)
NUM = 8
"""Test pictures with objects and cue that are explained and judged."""

LAYERS = ("encoder_mid", "encoder_last")


def tag(scene: UntaggedScene) -> tuple[Image, Region]:
    """The mark of the other tables: a blue plus in a ring."""
    drawn = planted(scene, True, TagLook())
    return drawn.sample.image, drawn.tag


def stain(scene: UntaggedScene) -> tuple[Image, Region]:
    """Another scanner: red light counts 12 % less everywhere, green 4 %. Tints vary by 3 % anyway."""
    cast = torch.tensor([0.88, 0.96, 1.0])[:, None, None]
    return scene.image * cast, torch.ones_like(scene.things)


def ground(scene: UntaggedScene) -> tuple[Image, Region]:
    """Another slide: oblique stripes of 8 pixels and 4 % of the light on all that is no cell."""
    rows, columns = (torch.arange(SIZE)[:, None], torch.arange(SIZE)[None])
    stripes = 0.04 * torch.sin(2 * math.pi * (rows + columns) / 8)
    return torch.where(scene.things, scene.image, scene.image + stripes), ~scene.things


def neighbour(scene: UntaggedScene) -> tuple[Image, Region]:
    """Another tissue beside the cells: a fibre of 26 by 16 pixels, pink as plasma but denser."""
    angle = math.pi * float(torch.rand((), generator=sample_generator(0, 1, int(scene.name))))
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    down, right = rows - scene.spot[0], columns - scene.spot[1]
    along, across = (
        down * math.sin(angle) + right * math.cos(angle),
        right * math.sin(angle) - down * math.cos(angle),
    )
    fibre = torch.sigmoid(5 * (1 - torch.hypot(along / 13, across / 8)))
    return scene.image * 10 ** (-0.9 * fibre * torch.tensor(EOSIN)[:, None, None]), fibre > 0.5


CUES: dict[str, Callable[[UntaggedScene], tuple[Image, Region]]] = {
    "tag": tag,
    "stain": stain,
    "ground": ground,
    "neighbour": neighbour,
}
PLACED = ("tag", "neighbour")
"""Cues that have a place of their own, which a map can point at."""

ROWS = {f"{kind}-seed{seed}": (kind, seed) for kind in CUES for seed in SEEDS}


def methods_for(references: Images) -> tuple[Method, ...]:
    """Methods of the scorecard of maps, those that were made for segmentation among them."""
    return (
        *("grad-cam", "hires-cam", "layer-cam", "saliency", "input-x-gradient", "lrp", "fused-hires-cam"),
        *(IntegratedGradients(steps=16), ExpectedGradients(num_samples=16, references=references)),
        *(SuperpixelOcclusion(precision="32"), Rise(num_masks=200, precision="32"), "shapley"),
        ExtremalMask(steps=50),
    )


def draw(kind: str, seed: int) -> dict[str, dict[str, list[Specimen]]]:
    """Return the pictures of S and of U, by split; ``tag`` of a specimen is where the cue is."""
    found: dict[str, dict[str, list[Specimen]]] = {model: {} for model in ("S", "U")}
    first = 0
    for split, num in SIZES.items():
        scenes = specimen_scenes(num, size=SIZE, seed=seed, first=first)
        for model, drawn in found.items():
            drawn[split] = [
                cued(kind, scene, stands(PLACEMENT[model], index))
                for index, scene in enumerate(scenes, first)
            ]
        first += num
    return found


def cued(kind: str, scene: UntaggedScene, there: bool) -> Specimen:
    """Return a scene with its cue or without."""
    image, region = CUES[kind](scene) if there else (scene.image, torch.zeros_like(scene.things))
    mask, valid = (scene.things & scene.has_objects).long(), torch.ones_like(scene.things)
    return Specimen(Sample(scene.name, eight_bit(image), mask, valid), scene.things, region, scene.image)


def trained(drawn: Mapping[str, Mapping[str, Sequence[Specimen]]], seed: int, folder: Path) -> dict[str, Run]:
    """Train S and U, where they are not there yet: as the models of `benchmarks.shortcuts`."""
    runs = {}
    for model, splits in drawn.items():
        home, run = folder / f"data-{model}", folder / model
        if (
            not (run / "run.json").exists()
            or json.loads((run / "run.json").read_text())["state"] != "finished"
        ):
            write_splits(home, splits, force=True)
            settings = TrainSettings(
                model="unet", width=8, image_size=SIZE, epochs=8, learning_rate=2e-3, batch_size=4, seed=seed,
                workers=0,
            )  # fmt: skip
            train(DataSettings(path=home), settings, run, force=True)
        runs[model] = load(run)
    return runs


def stacked(drawn: Sequence[Specimen]) -> tuple[Images, Images, Regions]:
    """Return pictures with cue, the same without, and where the cue is."""
    images, bare, regions = zip(
        *((each.sample.image, each.untagged, each.tag) for each in drawn), strict=True
    )
    return torch.stack(images), torch.stack(bare), torch.stack(regions)


def measure(name: str, folder: Path) -> dict[str, object]:
    """Train the pair of a row, and return its line."""
    kind, seed = ROWS[name]
    began, drawn = time.monotonic(), draw(kind, seed)
    runs = trained(drawn, seed, folder / name)
    line: dict[str, object] = {"row": name, "kind": kind, "seed": seed}
    images, bare, regions = stacked([each for each in drawn["S"]["test"] if each.tag.any()])
    pixels = {model: predicted(run, images, 1).pixels for model, run in runs.items()}
    usable = (pixels["S"].flatten(1).any(1) & pixels["U"].flatten(1).any(1)).nonzero()[:, 0]
    targets = {model: Target("predicted", 1, region[usable]) for model, region in pixels.items()}
    images, bare, regions = images[usable], bare[usable], regions[usable]
    drops = {model: _drop(runs[model], images, bare, target) for model, target in targets.items()}
    line |= {"pictures": len(usable), "drop": {model: _spelled(values) for model, values in drops.items()}}
    means = {model: float(values.mean()) for model, values in drops.items()}
    line["valid"] = means["S"] > DROP and abs(means["U"]) < STILL
    line["dice"] = {model: _dice(run, drawn["U"]["test"]) for model, run in runs.items()}
    line["leaks"] = _leaks(drawn["U"]["test"], seed)
    if line["valid"]:
        few = slice(NUM)
        some = {model: target.select(few) for model, target in targets.items()}
        train_images, _, _ = stacked(drawn["S"]["train"])
        references = train_images[chosen_references(len(train_images), seed)]
        methods = methods_for(references)
        maps = {
            model: explain(run, images[few], some[model], methods=methods, layers=LAYERS, seed=seed)
            for model, run in runs.items()
        }
        outside = ~(pixels["S"] | pixels["U"])[usable][few]
        line["shares"] = {
            key: _auroc(kind, tuple(found.values()), regions[few], outside)
            for key, found in _pairs(list(maps["S"].values()), list(maps["U"].values())).items()
        }
        line["judged"] = _judged(runs["S"], images[few], some["S"], list(maps["S"].values()), seed)
        line["audits"] = {
            model: _audited(run, images[few], some[model], list(maps[model].values()), regions[few], seed)
            for model, run in runs.items()
        }
    return line | {"seconds": round(time.monotonic() - began, 1)}


def _drop(run: Run, images: Images, bare: Images, target: Target) -> PerImage:
    """The share of the frozen region's mean probability that is lost without the cue."""
    full, without = (
        clean_scores(run.segmenter, each, (target,), unit="probability")[0] for each in (images, bare)
    )
    return 1 - without / full


def _spelled(values: PerImage) -> list[float]:
    found = interval(values)
    return [round(number, 4) for number in (found.mean, found.low, found.high)]


def _dice(run: Run, drawn: Sequence[Specimen]) -> dict[str, float]:
    """Pooled Dice on pictures with the cue and without, in which it says nothing about objects."""
    found = {}
    for name, there in (("with", True), ("without", False)):
        some = [each for each in drawn if bool(each.tag.any()) == there]
        images, _, _ = stacked(some)
        truth = torch.stack([each.sample.mask > 0 for each in some if each.sample.mask is not None])
        answer = infer(run.segmenter, images, precision="32").mask > 0
        found[name] = round(float(2 * (answer & truth).sum() / (answer.sum() + truth.sum())), 4)
    return found


def _leaks(drawn: Sequence[Specimen], seed: int) -> dict[str, object]:
    """Whether the leak test tells pictures with the cue from those without, by border and background."""
    columns = {"cue": ["yes" if each.tag.any() else "no" for each in drawn]}
    groups = torch.arange(len(drawn))
    found = leaks([surroundings(each.sample) for each in drawn], columns, groups, seed=seed)
    return {leak.place: [round(leak.auroc.mean or math.nan, 3), leak.tells] for leak in found}


def _pairs(cheat: Sequence[Explanation], honest: Sequence[Explanation]) -> dict[str, dict[str, Explanation]]:
    return {one.name: {"S": one, "U": other} for one, other in zip(cheat, honest, strict=True)}


def _auroc(kind: str, pair: Sequence[Explanation], regions: Regions, outside: Regions) -> dict[str, float]:
    """AUROC of S against U: by the share beside all regions, and its part on a cue that has a place."""
    found = {}
    everywhere = torch.ones_like(outside)
    own, other = pair
    beside = [share(each, outside, everywhere) for each in (own, other)]
    found["beside"] = round(auroc(*beside).mean, 4)
    if kind in PLACED:
        on_cue = [share(each, tag_zone(own, regions), outside) for each in (own, other)]
        found["on cue"] = round(auroc(*on_cue).mean, 4)
    return found


def _judged(
    run: Run, images: Images, target: Target, maps: Sequence[Explanation], seed: int
) -> dict[str, object]:
    """Each map of S beside the best reference map, by removal at the target's scale."""
    settings = JudgeSettings(("target_faithfulness",), race=False)
    card = score(score_batch(run, images, target, maps, settings=settings, seed=seed), seed=seed)
    return {
        map_name(row.method, row.layer): [round(row.difference.mean, 4), row.verdict]
        for row in card.rows
        if row.verdict != "reference"
    }


def _audited(
    run: Run, images: Images, target: Target, maps: Sequence[Explanation], cue: Regions, seed: int
) -> dict[str, object]:
    """What the audits say: regions that are always looked at, the cue's own place, and other backgrounds."""
    valid = torch.ones_like(target.pixels)
    regions = {name: find(images, valid) for name, find in REGIONS.items()} | {"cue": cue}
    shown = [each for each in maps if each.name in ("grad-cam@encoder_last", "integrated-gradients")]
    names = [str(number) for number in range(len(images))]
    found = conclude_audit(audit(run, images, target, shown, regions, seed=seed), names, seed=seed)
    line: dict[str, object] = {
        row.region: {each.map: each.verdict for each in row.maps} for row in found.regions
    }
    settings = JudgeSettings(("context_faithfulness",), race=False)
    card = score(score_batch(run, images, target, shown[:1], settings=settings, seed=seed), seed=seed)
    return line | {"context_reliance": round(card.rows[0].details["context_reliance"].mean, 4)}


def lines() -> dict[str, dict[str, Any]]:
    """Return what is there, by row."""
    read = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {line["row"]: line for line in map(json.loads, read)}


def write_page() -> None:
    """Write the tables into SHORTCUTS.md, from what is there."""
    found = lines()
    valid = {
        kind: [line for line in found.values() if line["kind"] == kind and line["valid"]] for kind in CUES
    }
    text = "\n\n".join((_pairs_table(found), _methods_table(valid), _audits_table(valid)))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _pairs_table(found: Mapping[str, dict[str, Any]]) -> str:
    """What the cue does to each pair, whether it counts, and what scores by cue and the leak test say."""
    rows = []
    for name in ROWS:
        if name not in found:
            rows.append([f"`{name}`", *["not run"] * 6])
            continue
        line = found[name]
        drops = [f"{low:.0%} to {high:.0%}" for _, low, high in (line["drop"][model] for model in ("S", "U"))]
        dice = [
            f"{line['dice'][model]['with']:.2f} / {line['dice'][model]['without']:.2f}"
            for model in ("S", "U")
        ]
        told = ", ".join(
            f"{place} {value:.2f}{' (told)' * tells}" for place, (value, tells) in line["leaks"].items()
        )
        rows.append([f"`{name}`", *drops, "yes" if line["valid"] else "**no**", *dice, told])
    head = (
        *("row", "S: lost without the cue", "U: lost without it", "counts"),
        *("Dice of S with / without the cue", "of U", "leak test, AUROC"),
    )
    return _table(head, rows)


def _methods_table(valid: Mapping[str, list[dict[str, Any]]]) -> str:
    """Each method: AUROC of S against U, and its map of S beside the best reference map, means over pairs."""
    keys = dict.fromkeys(key for each in valid.values() for line in each for key in line["shares"])
    head = ["map"]
    for kind in CUES:
        head += [f"{kind}, on cue"] * (kind in PLACED) + [f"{kind}, beside", f"{kind}, removal"]
    rows = []
    for key in keys:
        row = [key]
        for kind in CUES:
            for what in (["on cue"] if kind in PLACED else []) + ["beside"]:
                values = [line["shares"][key][what] for line in valid[kind]]
                row.append(f"{sum(values) / len(values):.2f}" if values else "-")
            judged = [line["judged"][key] for line in valid[kind] if key in line["judged"]]
            passes = sum(verdict == "pass" for _, verdict in judged)
            mean = sum(value for value, _ in judged) / len(judged) if judged else math.nan
            row.append(f"{mean:+.2f} ({passes} of {len(judged)} pass)" if judged else "-")
        rows.append(row)
    return _table(head, rows)


def _audits_table(valid: Mapping[str, list[dict[str, Any]]]) -> str:
    """Which audits tell S from U: in how many pairs each calls S, and U, a shortcut."""
    rows = []
    for region in (*REGIONS, "cue"):
        row = [f"audit of `{region}`" if region != "cue" else "audit of the cue's own place (`mask:FOLDER`)"]
        for kind in CUES:
            counts = [
                sum("shortcut" in line["audits"][model][region].values() for line in valid[kind])
                for model in ("S", "U")
            ]
            row.append(f"S {counts[0]}, U {counts[1]} of {len(valid[kind])}" if valid[kind] else "-")
        rows.append(row)
    row = ["answer lost on other backgrounds"]
    for kind in CUES:
        means = [
            sum(line["audits"][model]["context_reliance"] for line in valid[kind]) / max(1, len(valid[kind]))
            for model in ("S", "U")
        ]
        row.append(f"S {means[0]:.0%}, U {means[1]:.0%}" if valid[kind] else "-")
    return _table(["audit", *CUES], [*rows, row])


def main() -> None:
    """Make the rows that are missing, and the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true", help="write the tables from what is there")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    for name in [] if given.table else given.rows or ROWS:
        if name not in lines():
            line = measure(name, given.runs / "other-shortcuts")
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{name}: lost without the cue {line['drop']}, {line['seconds']} s", flush=True)
    write_page()


if __name__ == "__main__":
    main()
