"""The widget of notebooks, driven by its traits: what a hand would choose, without a browser."""

import io
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from tests.folder.discs import make_run, split_of, write_discs

import seglens
from seglens.errors import SettingError
from seglens.explain.target_names import TARGETS
from seglens.widget import Shown, show

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_discs(tmp_path)


@pytest.fixture
def shown(folder: Path) -> Shown:
    return make_run().show([folder / "images"], method="saliency", layer="body")


def test_the_first_picture_is_open_and_explained(shown: Shown, folder: Path) -> None:
    files = sorted((folder / "images").glob("*.png"))
    assert [name for name, _ in shown.picture.options] == [file.stem for file in files]
    assert shown.opened is not None
    assert shown.opened.sample.name == files[0].stem
    assert shown.answer is not None
    assert shown.answer.row.target == "predicted"
    # The map is that of the function without a widget.
    run, opened = shown.run, shown.opened
    target = seglens.targets.predicted(run, opened.part.batch.images)
    own = seglens.explain(run, opened.part.batch.images, target, methods=("saliency",))["saliency"]
    assert torch.equal(shown.answer.explanation.map, own.map)


def test_a_piece_is_chosen_by_its_button(shown: Shown) -> None:
    assert shown.opened is not None
    grid = shown.opened.prediction.mask[0].numpy()
    labels, num = ndimage.label(grid, np.ones((3, 3)))
    names = [value for _, value in shown.piece.options if value.startswith("component:")]
    assert names == [f"component:{at}" for at in range(1, num + 1)]
    before = shown.prediction.value
    shown.piece.value = "component:1"
    assert shown.answer is not None
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    assert np.array_equal(shown.answer.target.pixels[0].numpy(), largest)
    assert (pixels(shown.prediction.value) != pixels(before)).any()  # it is outlined


def test_method_layer_and_picture_change_the_map(shown: Shown) -> None:
    assert shown.layer.disabled  # saliency is of the picture itself
    shown.method.value = "grad-cam"
    assert not shown.layer.disabled
    assert shown.answer is not None
    assert (shown.answer.row.method, shown.answer.row.layer) == ("grad-cam", "body")
    other = shown.layer.options[-1]
    shown.layer.value = other
    assert shown.answer.row.layer == other
    shown.picture.value = 2
    assert shown.opened is not None
    assert shown.opened.sample.name == shown.split.entries[2].name
    assert shown.answer.row.target == "predicted"
    assert "Dice" not in shown.told.value  # files have no truth


def test_opacity_blends_picture_and_map(shown: Shown) -> None:
    full = pixels(shown.map.value)
    shown.opacity.value = 0.0
    bare = pixels(shown.map.value)
    shown.opacity.value = 0.5
    half = pixels(shown.map.value)
    assert (full != bare).any()
    assert abs(half - (full + bare) / 2).max() <= 1


def test_tensors_with_masks_are_shown_and_errors_are_said(folder: Path) -> None:
    split = split_of(folder)
    images, masks = split[1].image[None], split[1].mask
    assert masks is not None
    shown = show(make_run(), images, masks=masks[None], method="saliency")
    wanted = [name for name, form in TARGETS.items() if form.needs_truth and not form.numbers]
    offered = [value for _, value in shown.piece.options]
    assert set(wanted) & set(offered)
    shown.method.value = "expected-gradients" if "expected-gradients" in shown.method.options else "saliency"
    broken = folder / "images" / "0.png"
    broken.write_bytes(b"no picture")
    said = show(make_run(), [broken], method="saliency")
    assert said.opened is None
    assert "can't be read as a picture" in unescape(said.told.value)
    said.piece.value = "predicted"  # nothing to do, and no error


def test_what_can_t_be_shown_is_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of(folder)
    with pytest.raises(SettingError, match="method is 'gradcam', but must be one of"):
        show(make_run(), split, method="gradcam")
    with pytest.raises(SettingError, match="1 images and 2 masks"):
        show(make_run(), split[0].image[None], masks=torch.zeros(2, 4, 4, dtype=torch.int64))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(SettingError, match=r"pip install 'seglens\[notebook\]'"):
        show(make_run(), split)
