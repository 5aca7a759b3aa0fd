"""Draw the pictures of judging.md: one small model of the specimens, and what its maps are worth.

``python docs/judging.py`` trains for some seconds and writes ``docs/judging/*.png``.
"""

import tempfile
from pathlib import Path

import seglens
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.specimens import write_specimens
from seglens.judge.case import JudgeSettings
from seglens.train import TrainSettings, train

SIZE = 96
OUT = Path(__file__).with_suffix("")

SETTINGS = TrainSettings(
    model="unet", width=8, image_size=SIZE, epochs=8, batch_size=8, learning_rate=3e-3, workers=0
)


def main() -> None:
    """Train, judge three methods, and keep two of the scorecard's figures."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        data = write_specimens(place / "data", num_train=64, num_valid=8, num_test=24, size=SIZE, seed=3)
        print("training", flush=True)
        run = train(DataSettings(path=data), SETTINGS, place / "run", force=True)
        print("judging", flush=True)
        done = seglens.judge_folder(
            run,
            open_data(DataSettings(path=data)).split("test"),
            methods=("grad-cam", "saliency"),
            layers=("encoder_mid", "bottleneck", "decoder_last"),
            judging=JudgeSettings(("faithfulness", "attention"), race=False),  # every step on every picture
            out=place / "judged",
        )
        OUT.mkdir(exist_ok=True)
        for name in ("removal_curves.png", "restating.png"):
            (OUT / name).write_bytes((done.folder / name).read_bytes())
        print((done.folder / "scorecard.csv").read_text())


if __name__ == "__main__":
    main()
