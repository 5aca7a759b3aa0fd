"""Predictions of files, large ones in windows: a pixel is foreground where its red is above a half."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

import seglens
from seglens.data.images import as_image
from seglens.errors import DataError, SettingError, UnknownNameError
from seglens.folder import predict_files, prediction
from seglens.folder.heatmaps import DRAWN
from seglens.models.segmenter import Segmenter
from seglens.predict.original import decide, probabilities_at_original_size
from seglens.runs import Run

RANDOM = np.random.default_rng(0)


class Red(nn.Module):
    def __init__(self, outputs=1):
        super().__init__()
        self.outputs = outputs

    def forward(self, images):
        logits = (images[:, : self.outputs] - 0.5) * 100
        return logits if self.outputs == 1 else torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


def run_of(outputs=1, **spec) -> Run:
    classes = ("background", "red", "green", "blue")[: outputs + 1]
    run = seglens.wrap(Red(outputs), classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=32)
    return Run(Segmenter(run.segmenter.module, run.spec.model_copy(update=spec)), run.task)


def write(file: Path, shape: tuple[int, int], dtype: type = np.uint8) -> np.ndarray:
    pixels: np.ndarray = RANDOM.integers(0, np.iinfo(dtype).max + 1, (*shape, 3)).astype(dtype)
    tifffile.imwrite(file, pixels) if file.suffix == ".tif" else Image.fromarray(pixels).save(file)
    return pixels


def values_of(file: Path) -> np.ndarray:
    with Image.open(file) as opened:
        return np.asarray(opened)


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("shape", [(70, 100), (33, 20), (1, 90)])
@pytest.mark.parametrize(("suffix", "dtype"), [("png", np.uint8), ("tif", np.uint16)])
def test_in_windows_every_pixel_is_its_own(tmp_path, shape, suffix, dtype):
    pixels = write(tmp_path / f"a.{suffix}", shape, dtype)
    done = predict_files(
        run_of(), [tmp_path / f"a.{suffix}"], out=tmp_path / "out", tiles="always", precision="32"
    )
    row = table_of(done.folder)[0]
    mask = values_of(done.folder / row["mask"])
    assert np.array_equal(mask, pixels[..., 0] > np.iinfo(dtype).max / 2)
    assert (int(row["height"]), int(row["width"]), int(row["red pixels"])) == (*shape, mask.sum())
    assert values_of(done.folder / row["overlay"]).shape == (*shape, 3)


def test_several_classes_in_windows(tmp_path):
    pixels = write(tmp_path / "a.png", (50, 70))
    done = predict_files(
        run_of(3), [tmp_path / "a.png"], out=tmp_path / "out", tiles="always", precision="32"
    )
    scored = np.concatenate([np.full((50, 70, 1), 127.5), pixels], axis=2)
    assert np.array_equal(values_of(done.folder / "masks/a.png"), scored.argmax(2))


@pytest.mark.parametrize(("tta", "scale"), [(False, 0.5), (True, 0.7), (False, 2.0)])
def test_files_and_tensors_are_predicted_alike(tmp_path, tta, scale):
    """A mask from a file's bytes, band by band, is that of the picture's probabilities in one piece."""
    pixels = write(tmp_path / "a.png", (190, 150))
    run = run_of(scale=scale)
    done = predict_files(run, [tmp_path / "a.png"], out=tmp_path / "out", precision="32", tta=tta)
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    expected = decide(
        probabilities_at_original_size(run.segmenter, [image], precision="32", tta=tta)[0], run.spec
    )
    assert np.array_equal(values_of(done.folder / "masks/a.png"), expected)


def test_large_and_small_pictures_keep_their_order(tmp_path):
    """With the scale of the training known, only those go in windows that would shrink too far."""
    sizes = {"a": (30, 32), "b": (90, 40), "c": (40, 40), "d": (64, 65), "e": (20, 20)}
    truth = {name: write(tmp_path / f"{name}.png", size)[..., 0] > 127 for name, size in sizes.items()}
    files = [tmp_path / f"{name}.png" for name in sizes]
    done = predict_files(run_of(scale=1.0), files, out=tmp_path / "out", batch_size=2, precision="32")
    assert [row["name"] for row in table_of(done.folder)] == list(sizes)
    exact = {
        name for name in sizes if np.array_equal(values_of(done.folder / f"masks/{name}.png"), truth[name])
    }
    assert exact == {"a", "b", "d"}  # a isn't scaled at all; noise doesn't survive scaling


@pytest.mark.parametrize("shape", [(60, 200), (200, 60)])
def test_a_picture_stored_sideways_is_predicted_as_the_same_one_upright(tmp_path, shape):
    # The input is oblong, so that one fits into it and the other takes windows.
    pixels = RANDOM.integers(0, 256, (*shape, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "upright.png")
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(tmp_path / "sideways.png", exif=exif)
    run = run_of(image_size=(32, 128), scale=1.0)
    files = [tmp_path / "upright.png", tmp_path / "sideways.png"]
    assert predict_files(run, files, out=tmp_path / "out").num_done == 2
    upright, sideways = (np.asarray(Image.open(tmp_path / "out/masks" / file.name)) for file in files)
    assert upright.shape == shape
    np.testing.assert_array_equal(sideways, upright)


def test_a_large_picture_is_never_a_float_as_a_whole(tmp_path, monkeypatch):
    write(tmp_path / "a.png", (300, 400))
    sizes = []

    def cut(pixels, channels, file):
        sizes.append(pixels.shape[:2])
        return as_image(pixels, channels, file)

    monkeypatch.setattr(prediction, "as_image", cut)
    monkeypatch.setattr(prediction, "STRIP", 16)
    monkeypatch.setattr("seglens.folder.heatmaps.DRAWN", 100)
    done = predict_files(run_of(), [tmp_path / "a.png"], out=tmp_path / "out", tiles="always")
    windows = [size for size in sizes if size == (32, 32)]
    strips = [size for size in sizes if size != (32, 32)]
    assert len(windows) == 18 * 24  # starts 0, 16 ... and 268 or 368
    assert len(strips) == 5  # 75 rows are drawn
    assert max(rows for rows, _ in strips) <= 16 * 4 + 8  # with what a filter of 4 pixels reaches
    drawn = values_of(done.folder / "overlays/a.png")
    assert drawn.shape == (75, 100, 3)


def test_what_is_drawn_of_a_large_picture_is_its_antialiased_self(tmp_path):
    pixels = write(tmp_path / "a.png", (20, 2 * DRAWN))
    small = prediction._small(
        lambda rows, columns: as_image(pixels[rows, columns], 3, tmp_path), (20, 2 * DRAWN)
    )
    expected = Image.fromarray(pixels).resize((DRAWN, 10), Image.Resampling.BILINEAR)
    assert np.abs(small.permute(1, 2, 0).numpy() * 255 - np.asarray(expected)).max() < 1.01


def test_a_large_picture_that_is_broken_is_listed(tmp_path):
    good, cut, deep = (tmp_path / name for name in ("good.png", "cut.png", "deep.tif"))
    for file in (good, cut):
        write(file, (100, 90))
    cut.write_bytes(cut.read_bytes()[:9000])
    tifffile.imwrite(deep, np.full((100, 90), 3.0, np.float32))
    done = predict_files(run_of(scale=1.0), [cut, good, deep], out=tmp_path / "out")
    assert done.num_done == 1
    assert [failure.name for failure in done.failed] == ["cut", "deep"]
    assert "cut.png can't be read as a picture" in done.failed[0].error
    assert "floating-point values from 3 to 3" in done.failed[1].error
    assert [row["status"] for row in table_of(done.folder)] == ["ok", "failed", "failed"]


def test_the_record_says_how(tmp_path):
    write(tmp_path / "a.png", (20, 20))
    predict_files(run_of(), [tmp_path / "a.png"], out=tmp_path / "out", precision="bf16", tta=True)
    settings = json.loads((tmp_path / "out/run.json").read_text())["settings"]
    assert settings == settings | {"precision": "bf16", "tta": True, "tiles": "auto", "batch_size": 8}


def test_what_is_not_allowed(tmp_path):
    file = tmp_path / "a.png"
    write(file, (20, 20))
    with pytest.raises(SettingError, match="batch_size is 0, but must be from 1 to"):
        predict_files(run_of(), [file], out=tmp_path / "out", batch_size=0)
    with pytest.raises(SettingError, match="Unknown precision '16'"):
        predict_files(run_of(), [file], out=tmp_path / "out", precision="16")
    with pytest.raises(UnknownNameError, match="rule for tiles 'some'"):
        predict_files(run_of(), [file], out=tmp_path / "out", tiles="some")
    with pytest.raises(DataError, match=r"The first: There is no file .*none\.png"):
        predict_files(run_of(), [tmp_path / "none.png"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
