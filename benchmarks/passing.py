"""Does a map know more about a model than its mask does? Chosen on valid, judged on test, set by set.

    python -m benchmarks.passing --data ../shared/data --runs runs/training [--only pets ...]

On each set a U-Net with a pretrained encoder is trained (`benchmarks.training`), on the volumes a small one
of their own (VOLUMES.md). `METHODS` are judged on 32 pictures of the valid split by faithfulness at the
target's scale, and the map that is furthest above the best reference map (or the least below it) is chosen.
That map alone is judged on the test split (100 pictures, or all there are), by the same score and by causal
agreement. It passes where the whole interval of its difference to the best reference map is above 0. Maps are
made with a blur or with gradients; the judge hides places by noisy linear imputation. What is there is not
made again. With ``--small`` the networks are those of a few minutes (width 8, 96 pixels) that were judged
first. The tables are in JUDGED.md.
"""

import argparse
from pathlib import Path

from benchmarks.training import seglens, train_row
from seglens.results.scorecard import Card, CardRow
from seglens.results.tables import read_table

ROWS = {
    "tumor-polygons": "polygons-lite0",
    "pets": "pets-unet",
    "dsb2018": "dsb2018-lite0-aug",
    "tumor": "tumor-lite0-40",
}
"""Rows of `benchmarks.training`."""

HIPPOCAMPUS = (
    *("--model", "unet3d", "--width", "8", "--image-size", "48", "--batch-size", "4", "--epochs", "30"),
    *("--learning-rate", "3e-3", "--aug", "--rotation", "10"),
)
"""As in VOLUMES.md."""

SMALL = {
    "tumor-polygons": ("tumor-polygons", "8"),
    "pets": ("oxford-iiit-pet", "15"),
    "dsb2018": ("dsb2018/stage1_train", "8"),
    "tumor": ("tumor", "3"),
}
"""Folder below --data, and epochs."""

TRAIN = ("--model", "unet", "--width", "8", "--image-size", "96", "--batch-size", "8", "--seed", "0")

METHODS = ["shapley", "extremal-mask", "fused-hires-cam", "lrp", "superpixel-occlusion", "hires-cam"]
LAYERS = ["encoder_early", "encoder_mid"]
SCALE, CAUSAL = "target_faithfulness", "causal_agreement"


def trained(name: str, data: Path, runs: Path, *, small: bool) -> Path:
    """Train the network of a set, unless it is there, and return its run folder."""
    if name in ROWS and not small:
        return train_row(ROWS[name], data, runs)
    run = runs / name
    if not (run / "run.json").exists():
        folder, epochs = SMALL[name] if small else ("Dataset004_Hippocampus", "")
        how = (*TRAIN, "--epochs", epochs) if small else HIPPOCAMPUS
        seglens("train", str(data / folder), "--run", str(run), *how)
    return run


def judged(
    run: Path, split: str, num: int, methods: list[str], layers: list[str], scores: list[str]
) -> list[CardRow]:
    """Judge the maps of one split, unless that is done; return the rows of maps that are no references."""
    out = run / "judge" / split
    if not (out / "scorecard.json").exists():
        words = ["judge", str(run), "--split", split, "--num-images", str(num), "--scores", *scores]
        seglens(*words, "--methods", *methods, *(["--layers", *layers] if layers else []), "--out", str(out))
    table = read_table(out / "scorecard.json", Card)
    return [row for row in table.rows if row.verdict != "reference"]


def shown(row: CardRow | None) -> str:
    """A difference to the best reference map with its interval, the verdict, and the pictures that count."""
    if row is None or row.difference is None or row.difference_low is None or row.difference_high is None:
        return "-" if row is None else f"{row.verdict}: {row.reason}"
    found = f"{row.difference:+.2f} ({row.difference_low:+.2f} to {row.difference_high:+.2f})"
    return f"{found} {row.verdict}, {row.num_evaluable} of {row.num_total}, beside {row.reference}"


def main() -> None:
    """Print a row for each set, and the differences that the choice was made by."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=[*ROWS, "hippocampus"])
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    choices, lines = [], []
    for name in given.only or (SMALL if given.small else [*ROWS, "hippocampus"]):
        run = trained(name, given.data, given.runs, small=given.small)
        valid = judged(run, "valid", 32, METHODS, LAYERS, [SCALE])
        choices += [f"| {name} | {row.name} | {shown(row)} |" for row in valid]
        chosen = max(valid, key=lambda row: float("-inf") if row.difference is None else row.difference)
        layers = [chosen.layer] if chosen.layer else []
        test = judged(run, "test", 100, [chosen.method], layers, [SCALE, CAUSAL])
        by_score = {row.score: row for row in test}
        lines.append(
            f"| {name} | {chosen.name} | {shown(by_score.get(SCALE))} | {shown(by_score.get(CAUSAL))} |"
        )
    print("\n| set | chosen on valid | faithfulness at the target's scale, test | causal agreement, test |")
    print("|---|---|---|---|")
    print("\n".join(lines))
    print("\n| set, valid | map | difference to the best reference map |\n|---|---|---|")
    print("\n".join(choices))


if __name__ == "__main__":
    main()
