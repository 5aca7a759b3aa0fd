"""Weak supervision on the pet part: rows by the commands a user would type, the test split once, at the end.

    python -m benchmarks.weak --data FOLDER [--runs runs/weak] [ROW ...]   # train; no ROW: this machine's
    python -m benchmarks.weak --data FOLDER [--runs runs/weak] --score     # then read masks, for all rows
    python -m benchmarks.weak --table                                      # only write tables and figure anew

``FOLDER`` holds ``oxford-iiit-pet``. A row that is finished is not trained again, an interrupted one goes on
where it stopped; a row for a GPU is refused where there is none. Every student, weak or not, gets the same
pictures (303 of trainval to learn from, 53 to choose epoch and threshold on), size, epochs, augmentation and
pretrained encoder. What comes out is one JSON line a row in ``benchmarks/weak.jsonl``; the tables in
``benchmarks/WEAK.md`` and the figure are written from it. To add a row, add a line to `ROWS`.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training import lite0_file, seglens

HERE = Path(__file__).parent
RESULTS, TABLE, FIGURE = HERE / "weak.jsonl", HERE / "WEAK.md", HERE / "weak.png"
STAGES = HERE / "weak-reference.json"
"""Settings of the stages as the reference has them: Grad-CAM++ of the last layer, and nothing after it."""
VOTED = HERE / "weak-voted.json"
"""Masks made of the votes of superpixels, 400 and rounder than those of the reference."""

PETS = "oxford-iiit-pet"
LITE0 = ("--encoder", "tf_efficientnet_lite0", "--encoder-weights", "LITE0")
HUB = ("--encoder", "resnet50", "--encoder-weights", "imagenet")
REFERENCE = ("--stages", "REFERENCE")
UNET, DEEPLAB = "resnet-unet", "deeplabv3"


@dataclass(frozen=True)
class Row:
    """One row: ``verb`` is train or weak; ``pseudo`` names the row whose pseudo-masks it takes."""

    verb: str
    model: str
    epochs: int = 5
    image_size: int = 160
    rounds: int = 0
    pseudo: str | None = None
    arguments: tuple[str, ...] = ()
    encoder: tuple[str, ...] = LITE0
    seed: int = 0
    gpu: bool = False


ROWS = {
    "full-unet": Row("train", UNET),
    "full-deeplabv3": Row("train", DEEPLAB),
    "cam-unet": Row("weak", UNET, arguments=REFERENCE),
    "voted-unet": Row("weak", UNET, arguments=("--stages", "VOTED")),
    "weak-unet": Row("weak", UNET, rounds=1),
    "weak-deeplabv3": Row("weak", DEEPLAB, pseudo="weak-unet"),
    "cam-deeplabv3": Row("weak", DEEPLAB, pseudo="cam-unet", arguments=REFERENCE),
    "weak-unet-10-epochs": Row("weak", UNET, epochs=10, pseudo="weak-unet"),
    "full-unet-10-epochs": Row("train", UNET, epochs=10),
} | {
    f"{kind}-{model}-20-epochs" + (f"-seed{seed}" if seed else ""): Row(
        "train" if kind == "full" else "weak",
        network,
        epochs=20,
        pseudo=None if kind == "full" else "weak-unet",
        seed=seed,
    )
    for model, network in (("unet", UNET), ("deeplabv3", DEEPLAB))
    for kind in ("full", "weak")
    for seed in (0, 1, 2)
} | {
    f"{kind}-{model}-resnet50-{epochs}-epochs": Row(
        "train" if kind == "full" else "weak",
        network,
        epochs=epochs,
        image_size=256,
        rounds=0 if kind == "full" else 10,
        pseudo=None if kind == "full" else "weak-unet",
        encoder=HUB,
        gpu=True,
    )
    for kind in ("full", "weak")
    for model, network in (("unet", UNET), ("deeplabv3", DEEPLAB))
    for epochs in (5, 10, 20)
}  # fmt: skip
"""Rows for a GPU need a hub too, or weights fetched from it before. All ask the same classifier."""

ON_THIS_MACHINE = ("full-unet", "full-deeplabv3", "cam-unet", "voted-unet", "weak-unet", "weak-deeplabv3")
"""What is run where no row is named."""


WITH_CURVES = ("cam-unet", "weak-unet")
"""Rows whose threshold is looked for on masks as well."""


def words_of(name: str, data: Path, runs: Path, made: Path | None = None) -> list[str]:
    """Return the ``seglens`` arguments of a row; ``made`` are weak-unet's pseudo-masks, made before."""
    row = ROWS[name]
    encoder = [str(lite0_file()) if word == "LITE0" else word for word in row.encoder]
    files = {"REFERENCE": str(STAGES), "VOTED": str(VOTED)}
    own = [files.get(word, word) for word in row.arguments]
    shared = [
        *encoder,
        *("--image-size", str(row.image_size), "--epochs", str(row.epochs), "--batch-size", "8"),
        *("--seed", str(row.seed), "--resume", "--run", str(runs / name)),
    ]
    if row.verb == "train":
        return ["train", str(data / PETS), "--model", row.model, "--aug", "--logger", "none", *shared]
    pseudo: list[str] = []
    if made is not None and "weak-unet" in (name, row.pseudo):
        pseudo = ["--pseudo", str(made), "--pseudo-seed", "0"]
    elif row.pseudo:
        pseudo = ["--pseudo", str(runs / row.pseudo / "pseudo"), "--pseudo-seed", "0"]
    asked = ["--question", "imagenet:pets", "--classifier-weights", str(lite0_file())]
    student = ["--student", row.model, "--rounds", str(row.rounds)]
    return ["weak", str(data / PETS), *asked, *student, *pseudo, *own, *shared]


def train_row(name: str, data: Path, runs: Path, made: Path | None) -> None:
    """Do a row but for the reading of masks, unless that is done."""
    if ROWS[name].pseudo:
        if made is None and not (runs / str(ROWS[name].pseudo) / "run.json").exists():
            sys.exit(f"{name} takes the pseudo-masks of {ROWS[name].pseudo}: run that row first")
    words = words_of(name, data, runs, made)
    seglens(*words, *(["--no-evaluate"] if words[0] == "weak" else []))


def score_row(name: str, data: Path, runs: Path, made: Path | None) -> dict[str, Any]:
    """Read masks: return the lines of the table that a row gives, with what every step of it took."""
    folder = runs / name
    if ROWS[name].verb == "weak":
        seglens(*words_of(name, data, runs, made), *(["--oracle"] if name in WITH_CURVES else []))
        steps = json.loads((folder / "steps.json").read_text())
        curves = {
            facts["name"]: {key: facts[key] for key in ("curve", "threshold")}
            for facts in steps.values()
            if "curve" in facts
        }
        results = json.loads((folder / "run.json").read_text())["results"]
        kept = {key: results[key] for key in ("rows", "agreement", "mask_uses", "rounds")}
        kept["steps"] = {
            step: {key: facts.get(key) for key in ("seconds", "processor_seconds")}
            for step, facts in steps.items()
            if not step.startswith("score: ")
        }
        stages = steps["pseudo-masks"]["stages"]
        return {"row": name, **kept, "stages": stages, "curves": curves, **_about(folder)}
    return {"row": name, "rows": [_supervised(name, data / PETS, folder)], **_about(folder)}


def _supervised(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """Score a student that was trained on masks exactly as the weak ones are."""
    from seglens.data.layout import DataSettings
    from seglens.runs import load
    from seglens.weak.data import open_weak_data
    from seglens.weak.table import count_student, figures

    truth = open_weak_data(DataSettings(path=data), "all").truth("test", f"final evaluation: {name}")
    assert truth is not None
    found = figures(count_student(truth, load(folder), what=name))
    seconds = json.loads((folder / "run.json").read_text())["results"]["seconds"]
    about = {"name": "fully supervised", "split": "test", "uses_masks": True, "seconds": seconds}
    return {**about, **found.plain()}


def _about(folder: Path) -> dict[str, Any]:
    import torch

    record = json.loads((folder / "run.json").read_text())
    return {key: record[key] for key in ("device", "seed", "versions")} | {"threads": torch.get_num_threads()}


def append(line: dict[str, Any]) -> None:
    """Write a row's line in the place of an earlier one."""
    known = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    kept = [each for each in known if json.loads(each)["row"] != line["row"]]
    RESULTS.write_text("\n".join([*kept, json.dumps(line)]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--data", type=Path, help=f"the folder that holds {PETS}")
    parser.add_argument("--runs", type=Path, default=Path("runs/weak"))
    parser.add_argument("--pseudo", type=Path, help="pseudo-masks of weak-unet, if they were made before")
    parser.add_argument("--score", action="store_true", help="read masks, for every row that is there")
    parser.add_argument("--table", action="store_true", help="write the tables from what is there")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    from benchmarks.weak_tables import write_page

    if arguments.table:
        return write_page(RESULTS, TABLE, FIGURE)
    if arguments.data is None:
        parser.error(f"--data is missing: the folder that holds {PETS}")
    import torch

    for name in arguments.rows or ON_THIS_MACHINE:
        if ROWS[name].gpu and not torch.cuda.is_available():
            parser.error(f"{name} needs a GPU, and there is none")
        if not arguments.score:
            train_row(name, arguments.data, arguments.runs, arguments.pseudo)
        elif (arguments.runs / name / "run.json").exists():
            append(score_row(name, arguments.data, arguments.runs, arguments.pseudo))
        else:
            print(f"{name} was not trained: it stays 'not run'", file=sys.stderr)
    write_page(RESULTS, TABLE, FIGURE)


if __name__ == "__main__":
    main()
