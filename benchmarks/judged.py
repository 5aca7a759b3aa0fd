"""Judge the explanations of trained runs: what can be believed of a map, and what can't.

    python -m benchmarks.judged --data FOLDER [--runs runs] [--only RUN ...] [--stages STAGE ...]
    python -m benchmarks.judged --table                          # only write the tables anew

Stages are those of `STAGES`: the cheap scores on 100 pictures of the test split, or as many as there are; the
slow methods and the scores that make maps again on 16. Each stage of each run is one unit. A unit that
is done appends its rows to ``benchmarks/judged.jsonl`` and is not done again; the tables in
``benchmarks/JUDGED.md`` are made from the rows alone, and say ``not run`` where there are none. Pictures are
spread evenly over the test split.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training import ROWS
from seglens.models.layers import ROLES

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "judged.jsonl", HERE / "JUDGED.md"

WHOLLY = ("pets-unet-aug", "tumor-lite0-aug", "polygons-lite0-aug", "dsb2018-small-aug")
SMALL = {"polygons-unet": "tumor-polygons"}
"""Runs that train in a minute or two, and their data: judged at the target's scale only."""

RUNS = (*WHOLLY, "pets-unet", "tumor-lite0", "polygons-lite0", "dsb2018-small", *SMALL)
"""Those trained with augmentation are judged by every score, the others by stages that take little time."""

INTEGRATED, OCCLUSION = "integrated-gradients", "superpixel-occlusion"


@dataclass(frozen=True)
class Stage:
    """Scores made together: of which methods at which layers, on how many pictures, on which cells.

    In bfloat16 the rows say how well the scores of changed copies are ranked as in float32.
    """

    scores: tuple[str, ...]
    methods: tuple[str, ...]
    layers: tuple[str, ...]
    images: int
    cells: str = "grid"
    across: int = 16
    precision: str = "32"
    race: bool = False


CLAIM, SUBSET = 100, 16
"""Pictures that a claim needs, and those that slow methods and scores that make maps again are given."""

BOTH = ("faithfulness", "target_faithfulness")
"""Removal in steps of the picture, and in areas of the target."""

LAYERS = ("encoder_mid", "encoder_last", "decoder_last")

STAGES = {
    "restating": Stage(("attention",), ("grad-cam",), ROLES, CLAIM),
    "removal": Stage(("faithfulness",), ("grad-cam", "saliency"), LAYERS, CLAIM, precision="bf16"),
    "context": Stage(("context_faithfulness",), ("grad-cam", "saliency"), LAYERS, CLAIM, precision="bf16"),
    "causal": Stage(("causal_agreement",), ("grad-cam", "saliency"), LAYERS, CLAIM, "superpixels", 8),
    "occlusion": Stage(("causal_agreement",), (OCCLUSION,), (), SUBSET, "superpixels", 8),
    "dependence": Stage(("model_dependence",), ("grad-cam", "saliency"), LAYERS, SUBSET),
    "slow": Stage(
        ("faithfulness", "stability", "completeness"),
        ("grad-cam", "saliency", INTEGRATED, OCCLUSION),
        LAYERS,
        SUBSET,
        precision="bf16",
    ),
    "scale": Stage(BOTH, ("grad-cam", "hires-cam", "saliency"), LAYERS, CLAIM),
    "race": Stage(BOTH, ("grad-cam", "hires-cam", "saliency"), LAYERS, CLAIM, race=True),
}
"""In the order in which they are made, each for all its runs before the next."""

LITTLE = ("restating", "dependence")
"""Stages of all runs."""


def judge_run(name: str, stage: Stage, data: Path, runs: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Judge one run; return a row for each row of the scorecard."""
    import torch

    import seglens
    from seglens.folder.chunks import choose, read_chunks
    from seglens.judge.evidence import combine, score, score_batch

    began, used = time.monotonic(), time.process_time()
    run = seglens.load(runs / name)
    folder = SMALL[name] if name in SMALL else ROWS[name].data
    split = seglens.open_split(run, "test", data=data / folder)
    chosen = choose(split, None, stage.images)
    if stage.race:
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
        chosen = chosen.select(order.tolist())
    settings = seglens.JudgeSettings(
        stage.scores,
        num_again=stage.images,
        num_occluded=stage.images,
        cells=stage.cells,
        across=stage.across,
        precision=stage.precision,
        race=stage.race,
    )
    before = None
    for part in read_chunks(run, chosen, most=16, failed=[], what=name):
        images, valid = part.batch.images, part.batch.valid
        target = seglens.targets.predicted(run, images, valid=valid)
        maps = seglens.explain(run, images, target, methods=stage.methods, layers=stage.layers, seed=seed)
        found = score_batch(
            run,
            images,
            target,
            list(maps.values()),
            valid=valid,
            settings=settings,
            before=before,
            num=len(chosen),
            seed=seed,
        )
        before = found if before is None else combine([before, found])
    assert before is not None
    card = score(before, seed=seed)
    about = {
        "run": name,
        "num_split": len(split),
        "num_images": card.num_images,
        "cells": f"{stage.cells} {stage.across}",
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(time.process_time() - used, 1),
        "threads": torch.get_num_threads(),
        "passes": dict(card.passes),
    }
    since = {entry.method: entry.restates_from for entry in card.restating}
    rows = [about | row.row().plain() | {"restates_from": since.get(row.method)} for row in card.rows]
    return [{key: value for key, value in row.items() if key != "text"} for row in rows]


def asked_for(run: str, stage: str) -> bool:
    """Whether a unit is made where nobody names its run."""
    return run in WHOLLY or stage in (("scale", "race") if run in SMALL else LITTLE)


def read_rows() -> list[dict[str, Any]]:
    """Return all rows that were ever made."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def append_rows(stage: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows of a unit in one go, so that it is there as a whole or not at all."""
    from seglens.results.record import to_json  # what is not a number is null

    lines = [json.dumps(json.loads(to_json({"stage": stage, **row}))) for row in rows]
    with RESULTS.open("a") as file:
        file.write("\n".join(lines) + "\n")


def table(columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """Return rows as Markdown."""
    text = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    text += ["| " + " | ".join(str(value) for value in row) + " |" for row in rows]
    return "\n".join(text)


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def spelled(row: Mapping[str, Any]) -> str:
    """Value with interval."""
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"


def map_name(row: Mapping[str, Any]) -> str:
    return row["method"] if row["layer"] is None else f"{row['method']}@{row['layer']}"


def command(run: str, stage: str) -> str:
    return f"`python -m benchmarks.judged --data FOLDER --only {run} --stages {stage}`"


def ratios(row: Mapping[str, Any]) -> str:
    """Attention ratio, that of the mirror, and R where the map restates the prediction."""
    own, mirror = (ratio(row["details"].get(name)) for name in ("ratio", "ratio_of_mirror"))
    counted = "" if row["num_evaluable"] == row["num_images"] else f" (on {row['num_evaluable']})"
    return f"{own} / {mirror}{' **R**' * bool(row['label'])}{counted}"


def ratio(found: Mapping[str, Any] | None) -> str:
    """A ratio as text; infinite ones are left out of means, and where all are nothing is left."""
    if found is None or found["mean"] is None:
        return "inf"
    return "> 1000" if found["mean"] > 1000 else number(found["mean"], 1)


def restating_table(rows: list[dict[str, Any]]) -> str:
    """Every layer's attention ratio beside that of its mirror, and from where on a CAM restates."""
    columns = ("run (images)", "method", *ROLES, "restates from")
    lines: list[tuple[object, ...]] = []
    for run in [run for run in RUNS if run not in SMALL]:
        found = [row for row in rows if (row["run"], row["score"]) == (run, "attention")]
        if not found:
            lines.append((run, "not run: " + command(run, "restating"), *[""] * len(ROLES), ""))
        for method in dict.fromkeys(row["method"] for row in found):
            at = {row["layer"]: row for row in found if row["method"] == method}
            cells = [ratios(at[role]) if role in at else "-" for role in ROLES]
            num = next(iter(at.values()))
            of = f"{run} ({num['num_images']} of {num['num_split']})"
            lines.append((of, method, *cells, num["restates_from"] or "nowhere"))
    return table(columns, lines)


def score_table(rows: list[dict[str, Any]], score: str, *stages: str) -> str:
    """One score of every map of every run, beside its best reference row."""
    detail = {
        "faithfulness": ("s_dice",),
        "context_faithfulness": ("context_reliance", "context_worth"),
        "causal_agreement": ("ceiling",),
        "causal_agreement_context": ("ceiling",),
        "model_dependence": ("repeat", "randomised", "decoder_only"),
        "stability": ("flip",),
    }.get(score, ())
    columns = ("run", "map", score, "images", "best reference", "difference", "verdict", *detail)
    lines: list[tuple[object, ...]] = []
    for run, stage in itertools.product(RUNS, stages):
        found = [row for row in rows if (row["run"], row["stage"], row["score"]) == (run, stage, score)]
        if not found and asked_for(run, stage):
            lines.append((run, "not run: " + command(run, stage), *[""] * (len(columns) - 2)))
        for row in found:
            if row["verdict"] == "reference":
                continue
            known = row["nulls"].get(row["reference"])
            lines.append(
                (
                    run,
                    map_name(row),
                    spelled(row),
                    f"{row['num_evaluable']} of {row['num_total']}",
                    f"{row['reference']} {number(known)}" if known is not None else row["reference"] or "-",
                    f"{number(row['difference'])} [{number(row['difference_low'])}, "
                    f"{number(row['difference_high'])}]",
                    row["verdict"]
                    if row["verdict"] != "not evaluable"
                    else f"not evaluable: {row['outcome']}",
                    *(number((row["details"].get(name) or {}).get("mean")) for name in detail),
                )
            )
    return table(columns, lines)


def scale_table(rows: list[dict[str, Any]]) -> str:
    """Both scores of each map side by side, in full and in a race."""
    columns = (
        "run",
        "map",
        *(f"{score.replace('_', ' ')}, {how}" for score in BOTH for how in ("full", "race")),
    )
    lines: list[tuple[object, ...]] = []
    for run in (*WHOLLY, *SMALL):
        at = {
            (row["stage"], row["score"], map_name(row)): row
            for row in rows
            if row["run"] == run and row["stage"] in ("scale", "race") and row["verdict"] != "reference"
        }
        if not at:
            lines.append((run, "not run: " + command(run, "scale race"), *[""] * 4))
        for name in dict.fromkeys(name for _, _, name in at):
            units = [(stage, score, name) for score in BOTH for stage in ("scale", "race")]
            lines.append((run, name, *(against(at.get(unit)) for unit in units)))
    return table(columns, lines)


def against(row: Mapping[str, Any] | None) -> str:
    """The difference to the best reference row, and the verdict with the pictures that it took."""
    if row is None:
        return "not run"
    apart = ", ".join(number(row[f"difference{end}"]) for end in ("_low", "_high"))
    return f"{number(row['difference'])} [{apart}] {row['verdict']} ({row['num_total']})"


def passes_table(rows: list[dict[str, Any]]) -> str:
    """The passes of each score in full and in a race, and how often both say the same."""
    columns = ("run", "score", "maps", "passes in full", "in a race", "times fewer", "same verdicts")
    lines: list[tuple[object, ...]] = []
    for run, score in itertools.product((*WHOLLY, *SMALL), BOTH):
        made = {
            stage: {
                map_name(row): row
                for row in rows
                if (row["run"], row["stage"], row["score"]) == (run, stage, score)
            }
            for stage in ("scale", "race")
        }
        if not all(made.values()):
            lines.append((run, score, *["not run"] * 5))
            continue
        full, race = (next(iter(found.values()))["passes"][score] for found in made.values())
        own = [name for name, row in made["scale"].items() if row["verdict"] != "reference"]
        same = sum(made["scale"][name]["verdict"] == made["race"][name]["verdict"] for name in own)
        lines.append((run, score, len(own), full, race, f"{full / race:.1f}", f"{same} of {len(own)}"))
    return table(columns, lines)


def cost_table(rows: list[dict[str, Any]]) -> str:
    """What each unit took."""
    units = {(row["run"], row["stage"]): row for row in rows}
    lines = [
        (*unit, row["num_images"], row["num_split"], row["cells"], row["processor_seconds"], row["seconds"])
        for unit, row in units.items()
    ]
    columns = ("run", "stage", "images", "in the test split", "cells", "processor, s", "wall, s")
    return table(columns, lines)


def write_tables() -> None:
    """Write every table of the page anew, each between its two marks."""
    rows = read_rows()
    tables = {
        "restating": restating_table(rows),
        "faithfulness": score_table(rows, "faithfulness", "removal"),
        "faithfulness of slow methods": score_table(rows, "faithfulness", "slow"),
        "context_faithfulness": score_table(rows, "context_faithfulness", "context"),
        "causal_agreement": score_table(rows, "causal_agreement", "causal", "occlusion"),
        "causal_agreement_context": score_table(rows, "causal_agreement_context", "causal", "occlusion"),
        "model_dependence": score_table(rows, "model_dependence", "dependence"),
        "stability": score_table(rows, "stability", "slow"),
        "completeness": score_table(rows, "completeness", "slow"),
        "scale": scale_table(rows),
        "passes": passes_table(rows),
        "cost": cost_table(rows),
    }
    for name, text in tables.items():
        replace_table(name, text)


def replace_table(name: str, text: str) -> None:
    """Put ``text`` between the marks of table ``name`` in the page."""
    page = PAGE.read_text()
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder that holds the sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--only", nargs="*", choices=RUNS, default=[])
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--table", action="store_true", help="only write the tables")
    arguments = parser.parse_args()
    if not arguments.table:
        if arguments.data is None:
            parser.error("--data is needed: the folder that holds the sets")
        for stage in arguments.stages:
            for name in arguments.only or [run for run in RUNS if asked_for(run, stage)]:
                if any((row["run"], row["stage"]) == (name, stage) for row in read_rows()):
                    continue
                print(f"{stage} of {name}", flush=True)
                append_rows(stage, judge_run(name, STAGES[stage], arguments.data, arguments.runs))
    write_tables()


if __name__ == "__main__":
    main()
