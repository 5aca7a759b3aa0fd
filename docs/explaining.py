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
from seglens.record import write_json
from seglens.runs import Run
from seglens.train import TrainSettings, train

SIZE, OUT = 96, Path(__file__).with_suffix("")
LAYER = "bottleneck"
WIDTH = 880


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        data = write_specimens(place / "data", num_train=64, num_valid=8, num_test=24, size=SIZE, seed=3)
        settings = TrainSettings(
            model="unet",
            width=8,
            image_size=SIZE,
            epochs=8,
            batch_size=8,
            learning_rate=3e-3,
            seed=0,
            workers=0,
        )
        run = train(DataSettings(path=data), settings, place / "run", force=True)
        split = open_data(DataSettings(path=data)).split("test")
        number, x, y = most_wrong(run, split)
        targets = (
            "predicted", "truth", "component:1", "boundary", f"box:{x - 12},{y - 12},{x + 12},{y + 12}",
            f"point:{x},{y}", "class", "false-positive", "false-negative",
        )  # fmt: skip
        for name, where, chosen in (
            ("targets", "region", targets[:7]),
            ("errors", "region", targets[7:]),
            ("context", "context", targets[:1]),
        ):
            done = seglens.explain_folder(
                run, split, out=place / name, samples=(number,), target=chosen, where=where,
                methods=("hires-cam", "integrated-gradients"), layers=(LAYER,),
            )  # fmt: skip
            (folder,) = (done.folder / "samples").iterdir()
            for file in sorted(folder.glob("*.png")):
                print(name, file.name)
            save(folder, name)
        write_json(place / "settings.json", {"targets": targets})


def most_wrong(run: Run, split: Split) -> tuple[int, int, int]:
    """Return the picture with most pixels invented and missed, the fewer of the two, and a point in a cell."""
    found = []
    for number, sample in enumerate(split[i] for i in range(len(split))):
        said, true = run.predict(sample.image[None]).mask[0] == 1, sample.mask == 1
        invented, missed = int((said & ~true).sum()), int((~said & true).sum())
        y, x = (
            (said & true).nonzero().double().mean(0).round().int().tolist()
            if (said & true).any()
            else (48, 48)
        )
        found.append((min(invented, missed), number, x, y))
    print(sorted(found)[-5:])
    return max(found)[1:]


def save(folder: Path, name: str) -> None:
    """Keep the sheets that the page shows, in few colours, so that they are small."""
    sheets = {
        "targets": [f"targets@hires-cam@{LAYER}"],
        "errors": [f"false-positive@methods@{LAYER}", f"false-negative@methods@{LAYER}"],
        "context": [f"methods@{LAYER}"],
    }
    OUT.mkdir(exist_ok=True)
    for sheet in sheets[name]:
        with Image.open(folder / f"{sheet}.png") as opened:
            small = opened.resize(
                (WIDTH, round(opened.height * WIDTH / opened.width)), Image.Resampling.LANCZOS
            )
            kept = name if name != "errors" else sheet.split("@")[0]
            small.quantize(96).save(OUT / f"{kept}.png", optimize=True)


if __name__ == "__main__":
    main()
