"""Train, evaluate, explain, judge and report on the four real sets, by the commands a user would type.

    python -m benchmarks.real --data ../shared/data --runs runs [--only pets ...] [--judge]

Every row is a list of ``seglens`` arguments, printed before it runs. A run that is finished is not trained
again, an interrupted one goes on where it stopped, and the test split is opened once, after training. What
comes out is one JSON line a row in ``RUNS/results.jsonl``; the tables of RESULTS.md are written from it.
"""

import argparse
import json
import platform
from pathlib import Path

import torch

from benchmarks.training import lite0_file, seglens

PRETRAINED = ["--encoder", "tf_efficientnet_lite0", "--encoder-weights", "LITE0"]

ROWS = {
    "dsb2018": ("dsb2018/stage1_train", ["--model", "unet", "--width", "16", "--image-size", "256"], 5),
    "tumor": ("tumor", ["--model", "resnet-unet", *PRETRAINED, "--image-size", "160"], 2),
    "tumor-polygons": ("tumor-polygons", ["--model", "resnet-unet", *PRETRAINED, "--image-size", "192"], 10),
    "pets": ("oxford-iiit-pet", ["--model", "resnet-unet", *PRETRAINED, "--image-size", "192"], 10),
}
"""Row: folder below --data, model arguments, epochs."""

TRAIN = ["--batch-size", "8", "--learning-rate", "0.001", "--aug", "--seed", "0"]
LAYERS = ["encoder_mid", "encoder_last", "decoder_first", "decoder_last"]
METHODS = ["grad-cam", "grad-cam++", "hires-cam", "layer-cam", "activation", "integrated-gradients"]


def run_row(name: str, data: Path, runs: Path, *, judged: bool) -> dict[str, object]:
    """Train, evaluate, explain, judge and report one row; return its figures."""
    folder, model, epochs = ROWS[name]
    run = runs / name
    model = [str(lite0_file()) if argument == "LITE0" else argument for argument in model]
    state = json.loads((run / "run.json").read_text())["state"] if (run / "run.json").exists() else "new"
    if state != "finished":
        resume = ["--resume"] if state == "running" else []
        seglens(
            "train", str(data / folder), *model, "--epochs", str(epochs), *TRAIN, *resume, "--run", str(run)
        )
    seconds = {
        "evaluate": seglens("evaluate", str(run), "--split", "test", "--save-images", "--force"),
        "explain": seglens(
            "explain", str(run), "--split", "test", "--num-images", "10",
            "--methods", *METHODS, "--layers", *LAYERS, "--force",
        ),
    }  # fmt: skip
    if judged:
        seconds["judge"] = seglens(
            "judge", str(run), "--split", "test", "--num-images", "10", "--methods", "grad-cam",
            "--layers", "encoder_last", "decoder_last", "--force",
        )  # fmt: skip
    seconds["report"] = seglens("report", str(run), "--force")
    record = json.loads((run / "run.json").read_text())
    scores = json.loads((run / "evaluate/test/scores.json").read_text())
    return {
        "row": name,
        "train": record["results"],
        "train_seconds": record["duration_seconds"],
        "command": record["command"],
        "num_test": scores["num_images"],
        "pooled": scores["pooled"],
        "per_image": scores["per_image"],
        "seconds": seconds,
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, cuda {torch.cuda.is_available()}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the four sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--judge", action="store_true", help="the scorecard too, a few minutes a row more")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        row = run_row(name, arguments.data, arguments.runs, judged=arguments.judge)
        with (arguments.runs / "results.jsonl").open("a") as lines:
            lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
