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
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import shortcut_table
from benchmarks.shortcut_models import NUM_OTHER, ROWS, SCENES, SIZES, Row, Tested, prepare, read_split
from benchmarks.shortcut_scenes import SIZE
from seglens.data.planting import GAP
from seglens.explain import Method, explain
from seglens.explain.ablation import AblationCam
from seglens.explain.channels import ScoreCam
from seglens.explain.explanation import Explanation
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion
from seglens.explain.rise import Rise
from seglens.explain.sampled import ExpectedGradients, SmoothGrad
from seglens.explain.target import Target, dilate
from seglens.judge.agreement import even_share, share, tag_zone
from seglens.judge.causal import RIM, effect
from seglens.judge.nulls import edges, mirror_of_stride, null_inputs, probability, random_map
from seglens.predict import infer
from seglens.results.record import versions
from seglens.runs import Run

HERE = Path(__file__).parent
RESULTS = HERE / "shortcuts.jsonl"

CAMS = ("grad-cam", "grad-cam++", "hires-cam", "layer-cam", "xgrad-cam", "eigen-cam", "activation")
LAYERS = ("encoder_mid", "encoder_last", "bottleneck", "decoder_last")
NULLS = {"random": random_map, "edges": edges, "mirror-16": mirror_of_stride(16), "probability": probability}
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
    "smoothgrad": (SmoothGrad(num_samples=12),),
    "superpixel-occlusion": (SuperpixelOcclusion(precision="auto"),),
    "ablation-cam": (AblationCam(precision="auto"),),
    "score-cam": (ScoreCam(precision="auto"),),
    "control": (*CAMS, "saliency", "input-x-gradient"),
    "rise": (Rise(num_masks=200, precision="auto"),),
    "expected-gradients": (ExpectedGradients(num_samples=16),),
}
"""``causal`` measures what the tag does to the models. ``reference`` is the causal reference among the maps:
occlusion by a window that holds the whole tag, filled from its surroundings. ``control`` are the maps of C.
The parts in `ON_ALL` are made of all pictures, the others of a few."""

ON_ALL = ("causal", "trace", "control")
FOR_OTHER_LOOKS = ("causal", "trace")
"""What is made for tags of other looks."""
SLOW_LAYERS = ("encoder_last", "decoder_last")
"""Of the methods that take a pass for every channel."""


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


def parts_of(row: Row) -> tuple[str, ...]:
    """What is made for a row."""
    return FOR_OTHER_LOOKS if row.look else tuple(PARTS)


def models_of(part: str) -> tuple[str, ...]:
    """The models whose maps a part holds."""
    return ("C",) if part == "control" else ("S", "U")


def _maps(part: str, run: Run, some: Tested, target: Target, seed: int) -> list[Explanation]:
    """The maps of one part for one model; nulls go with the trace."""
    if part == "causal":
        return []
    methods = PARTS[part]
    if part == "expected-gradients":
        methods = (ExpectedGradients(num_samples=16, references=some.references),)
    layers = LAYERS if part in ON_ALL else SLOW_LAYERS
    maps = list(explain(run, some.images, target, methods=methods, layers=layers, seed=seed).values())
    if part in ON_ALL:
        seen = null_inputs(run, some.images, target, seed=seed)
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
        images, things, _ = read_split(folder / f"data-{other}" / "test")
        answer = infer(tested.runs[model].segmenter, images, precision="auto").mask > 0
        found[name] = float(2 * (answer & things).sum() / (answer.sum() + things.sum()))
    return found


def lines() -> list[dict]:
    """Return what is there; of a part that was made twice the later line counts."""
    if not RESULTS.exists():
        return []
    read = [json.loads(line) for line in RESULTS.read_text().splitlines() if line.strip()]
    return list({(line["row"], line["part"]): line for line in read}.values())


def write_table() -> None:
    """Write SHORTCUTS.md from what is there."""
    shortcut_table.write(lines(), ROWS, {name: parts_of(row) for name, row in ROWS.items()})


def run_rows(names: Sequence[str], parts: Sequence[str], data: Path | None, folder: Path) -> None:
    """Make what is missing, part by part, so that all rows have the first parts before any has the last.

    Models whose causal check failed are explained no further.
    """
    done = {(line["row"], line["part"]) for line in lines()}
    ready: dict[tuple[str, ...], Tested] = {}
    for part in parts:
        for name in names:
            if part not in parts_of(ROWS[name]) or (name, part) in done:
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
            write_table()


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
    write_table()


if __name__ == "__main__":
    main()
