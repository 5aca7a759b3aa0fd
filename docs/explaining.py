"""Draw the pictures of explaining.md: one specimen, one small model, every kind of target.

``python docs/explaining.py`` trains for some seconds and writes ``docs/explaining/*.png``.
"""

import tempfile
from pathlib import Path

from PIL import Image

import seglens
from seglens.data.layout import DataSettings, Split
from seglens.data.opening import open_data
from seglens.data.specimens import write_specimens
from seglens.explain.methods import Method
from seglens.runs import Run
from seglens.train import TrainSettings, train

SIZE, HALF, WIDTH = 96, 12, 880
"""Pixels: sides of a specimen, half of the box that is asked about, width of the pictures drawn."""
OUT = Path(__file__).with_suffix("")
LAYER = "bottleneck"

SETTINGS = TrainSettings(
    model="unet", width=8, image_size=SIZE, epochs=8, batch_size=8, learning_rate=3e-3, workers=0
)
"""Too little training, so that there are errors to explain."""

SHEETS = {
    "targets": f"targets@hires-cam@{LAYER}",
    "false-positive": f"false-positive@methods@{LAYER}",
    "false-negative": f"false-negative@methods@{LAYER}",
    "context": f"methods@{LAYER}",
}
"""The pictures of the page, and the sheets that they are made of."""


ERRORS = ["false-positive", "false-negative"]


def main() -> None:
    """Train, explain one picture of the test split, and keep the sheets."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        data = write_specimens(place / "data", num_train=64, num_valid=8, num_test=24, size=SIZE, seed=3)
        print("training", flush=True)
        run = train(DataSettings(path=data), SETTINGS, place / "run", force=True)
        split = open_data(DataSettings(path=data)).split("test")
        number, x, y = most_wrong(run, split)
        print(f"explaining test picture {number}", flush=True)
        x0, y0, x1, y1 = x - HALF, y - HALF, x + HALF, y + HALF
        box = f"box:{max(0, x0)},{max(0, y0)},{min(SIZE, x1)},{min(SIZE, y1)}"
        several = ("predicted", "truth", "component:1", "boundary", box, f"point:{x},{y}", "class")
        both: tuple[Method, ...] = ("hires-cam", seglens.IntegratedGradients(steps=16, tolerance=None))
        for targets, methods, where, names in (
            (several, both[:1], "region", ["targets"]),
            (ERRORS, both, "region", ERRORS),
            (("predicted",), both, "context", ["context"]),
        ):
            done = seglens.explain_folder(
                run, split, out=place / "maps", samples=(number,), target=targets, where=where,
                methods=methods, layers=(LAYER,), force=True,
            )  # fmt: skip
            save(done.folder, names)


def most_wrong(run: Run, split: Split) -> tuple[int, int, int]:
    """Return the picture of which most is both invented and missed, and a point that was found rightly."""
    found = []
    for number in range(len(split)):
        sample = split[number]
        assert sample.mask is not None
        said, true = run.predict(sample.image[None]).mask[0] == 1, sample.mask == 1
        right = (said & true).nonzero()
        if len(right):
            y, x = right[len(right) // 2].tolist()
            errors = min(int((said & ~true).sum()), int((~said & true).sum()))
            found.append((errors, number, x, y))
    return max(found)[1:]


def save(folder: Path, names: list[str]) -> None:
    """Keep those of the sheets that are there, in few colours, so that they are small."""
    OUT.mkdir(exist_ok=True)
    for name in names:
        for file in folder.glob(f"samples/*/{SHEETS[name]}.png"):
            with Image.open(file) as opened:
                rows = round(opened.height * WIDTH / opened.width)
                small = opened.resize((WIDTH, rows), Image.Resampling.LANCZOS)
                small.quantize(256).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
