"""One volume on the page: its planes, clicks in them, and what is asked by a click."""

import re
from dataclasses import fields, replace

import nibabel
import numpy as np
import pytest
import torch
from tests.volumes.networks import Small, small

import seglens
from seglens.drawing.planes import Planes
from seglens.errors import DataError, SettingError
from seglens.explain.target import component
from seglens.inspection import clicks, drawing, opened, sentences
from seglens.inspection.explaining import ExplainedPicture, ExplainRequest, explain_picture
from seglens.runs import Run

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SHAPE = (24, 20, 14)
"""Columns, rows, slices: i runs to the right of the page of a file that is stored so."""


class OneChannel(Small):
    """`Small` on volumes of one channel."""

    def forward(self, images):
        return super().forward(torch.cat([images, images], 1))


@pytest.fixture(scope="module")
def run() -> Run:
    network = OneChannel((3, 3, 3))
    network.load_state_dict(small().state_dict())
    with torch.no_grad():
        # Three voxels in a hundred of a random volume are things: a few pieces.
        noise = torch.rand(1, 1, 28, 28, 28, generator=torch.Generator().manual_seed(0))
        logits = network.eval()(noise / 0.5 - 1)[0]
        network.head.bias[1] -= (logits[1] - logits[0]).flatten().quantile(0.97)
    classes = ("background", "thing")
    return seglens.wrap(network.eval(), classes=classes, channels=1, mean=(0.5,), std=(0.5,), image_size=28)


@pytest.fixture
def volume(run, tmp_path) -> opened.Opened:
    values = np.random.default_rng(0).normal(100, 20, SHAPE)
    file = tmp_path / "one.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), AFFINE), file)
    return opened.open_file(run, file)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 2.0)])
def test_a_pixel_is_of_the_voxel_that_is_drawn_there(spacing):
    size = (4, 5, 6)
    planes = Planes((1, 2, 3), spacing, 2)
    numbers = torch.arange(1, 121).reshape(size)
    drawn = planes(numbers)
    for y in range(drawn.shape[0]):
        for x in range(drawn.shape[1]):
            voxel = planes.voxel_at(x, y, size)
            assert (0 if voxel is None else int(numbers[voxel])) == int(drawn[y, x])


def test_a_click_asks_about_the_voxel_under_it(run, volume):
    width, height = drawing.drawn_to(volume)
    assert drawing.predicted_over(run, volume).size == (width, height)
    rows, columns = drawing.size_in_planes(volume)
    planes = volume.planes
    assert planes is not None
    # A pixel of the axial plane: column 3, row 4 of it, each as many pixels wide as zoom says.
    above = (rows - 20 * planes.zoom) // 2
    place = drawing.native_place(
        volume, (3.5 * planes.zoom) / columns * width, (above + 4.5 * planes.zoom) / rows * height
    )
    assert place == (3, 4, planes.centre[0])
    assert clicks.text_of("point", volume, 1, [place]) == f"point:3,4,{planes.centre[0]}"
    assert clicks.text_of("box", volume, 1, [(5, 2, 9), (3, 4, 8)]) == "box:3,2,8,6,5,10"
    with pytest.raises(SettingError, match=r"column 24, row 0, slice 3 is outside .* 14 slices of 20 rows"):
        clicks.text_of("point", volume, 1, [(24, 0, 3)])


def test_the_piece_under_a_click_is_the_one_that_is_explained(volume):
    predicted = volume.prediction.mask[0] > 0
    assert predicted.any()
    assert not predicted.all()
    for number in (1, 2):
        pixels = component(predicted[None], number).pixels[0]
        z, y, x = (int(at) for at in pixels.nonzero()[0])
        assert clicks.number_of_piece(predicted, x, y, z) == number


def test_a_map_is_drawn_in_the_planes_that_are_looked_at(run, volume):
    answer = explain_picture(run, volume, ExplainRequest("predicted", "hires-cam", "up", class_name="thing"))
    assert answer.status == "ok"
    first = drawing.answered(run, volume, answer)
    moved = replace(volume, planes=replace(volume.planes, centre=(2, 3, 4)))
    again = drawing.answered(run, moved, answer)
    assert first.size == again.size
    assert np.asarray(first).tolist() != np.asarray(again).tolist()
    values = answer.arrays["map:hires-cam@up"]
    chosen = replace(answer.heatmaps, chosen=moved.planes)
    torch.testing.assert_close(chosen.values(answer.row), moved.planes(values))
    assert "14 slices of 20 rows and 24 columns" in sentences.about_picture(run, volume)
    assert "seglens judge" in sentences.about_answer(answer)


OF_PICTURES = re.compile(r"(?i)\b(picture|pixel)s?\b")


def test_sentences_about_a_volume_name_no_picture(run, volume, monkeypatch):
    scored = replace(volume, scores={"dice": 0.5, "pixel_accuracy": 0.9})
    said = sentences.about_picture(run, scored)
    assert "of the volume" in said
    for layer in ("up", "bottleneck"):
        asked = ExplainRequest("predicted", "hires-cam", layer, class_name="thing")
        answer = explain_picture(run, volume, asked)
        said += sentences.about_answer(answer)
    monkeypatch.setattr(ExplainedPicture, "status", "no_target")
    said += sentences.about_answer(answer)
    assert OF_PICTURES.findall(said) == []


def test_the_notebook_widget_names_no_picture(run, volume):
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    shown = run.show(volume.sample.image[None], method="saliency", layer="up.0")
    assert (shown.picture.description, shown.picture.options) == ("Volume", (("volume 0", 0),))
    assert OF_PICTURES.findall(shown.told.value) == []
    shown._say(DataError("This picture has no pixel."))
    assert "This volume has no voxel." in shown.told.value


def test_a_click_in_the_widget_goes_to_the_voxel(run, volume):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    shown = run.show(volume.sample.image[None], method="saliency", layer="up.0")
    width, height = drawing.drawn_to(shown.opened)
    rows, columns = drawing.size_in_planes(shown.opened)
    planes = shown.opened.planes
    above = (rows - 20 * planes.zoom) // 2
    shown.click((3.5 * planes.zoom) / columns * width, (above + 4.5 * planes.zoom) / rows * height)
    assert shown.opened.planes.centre == (planes.centre[0], 4, 3)
    kind, _, numbers = shown.piece.value.partition(":")
    if kind == "point":
        assert numbers == f"3,4,{planes.centre[0]}"
        assert ("voxel " + numbers, shown.piece.value) in shown.piece.options
    before = shown.piece.value
    places = [(x, y) for x in range(0, width, 4) for y in range(0, height, 4)]
    shown.click(*next(at for at in places if drawing.native_place(shown.opened, *at) is None))
    assert "one of the three planes" in shown.told.value
    assert shown.piece.value == before


def test_volumes_that_take_too_long_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MOST_PIXELS", 1000)
    file = tmp_path / "large.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), file)
    with pytest.raises(DataError, match=r"large.nii.gz is 14 slices of 20 rows and 24 columns, too large"):
        opened.open_file(run, file)


def test_the_page_moves_through_a_volume(run, volume, tmp_path):
    gradio = pytest.importorskip("gradio", reason="gradio is not installed")
    from seglens.app.callbacks import Callbacks, Widgets

    page = Callbacks(run, None, tmp_path, Widgets(**{each.name: each.name for each in fields(Widgets)}))
    opening = page.again(None, "component")["message"]
    assert opening == '<p role="status">Open a volume first: choose a sample, or drop a file.</p>'
    shown = page.drop(str(tmp_path / "one.nii.gz"), "component")
    assert OF_PICTURES.findall(shown["told"] + shown["about"]) == []
    assert [shown[name]["maximum"] for name in ("slice", "row", "column")] == [13, 19, 23]
    assert shown["brush"] == ""
    width, height = shown["picture"].size
    rest = ("grad-cam", "up", "thing", "(none)", "region", "zero")
    event = gradio.SelectData(target=None, data={"index": (0.1 * width, 0.5 * height), "value": None})
    clicked = page.click(shown["seen"], "point", *rest, event)
    place = [clicked[name] for name in ("column", "row", "slice")]
    assert clicked["map"]["label"] == f"Why: point:{','.join(map(str, place))} by grad-cam@up"
    assert clicked["seen"].opened.planes.centre == tuple(place[::-1])
    scrolled = page.scroll(clicked["seen"], 1, 2, 3)
    assert scrolled["seen"].opened.planes.centre == (1, 2, 3)
    assert scrolled["seen"].answer is clicked["seen"].answer
    assert scrolled["map"].size == clicked["map"]["value"].size
    # Between the planes there is nothing to ask about.
    gap = drawing.size_in_planes(clicked["seen"].opened)
    planes = clicked["seen"].opened.planes
    across = (24 * planes.zoom + 0.5) / gap[1] * width
    event = gradio.SelectData(target=None, data={"index": (across, 0.5 * height), "value": None})
    assert page.click(clicked["seen"], "point", *rest, event)["message"] == (
        '<p role="status">Click inside one of the three planes.</p>'
    )
