"""Volumes in the report: what is kept of them, and what the slices of the page show."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.accessibility import violations
from tests.browser import Watched
from tests.report.conftest import make_run

import seglens
from seglens.report.volume_data import fewer, mosaic

SIZE = (6, 9, 7)
SPACING = (3.0, 1.0, 1.5)


@pytest.fixture
def volume(tmp_path) -> tuple[Path, dict[str, np.ndarray]]:
    """A run whose picture ``cell_03`` is a volume, with the arrays that it is made of."""
    random = np.random.default_rng(0)
    truth, prediction = np.zeros((2, *SIZE), np.uint8)
    truth[2:5, 3:7, 1:4] = 1
    prediction[2:4, 4:8, 2:5] = 1
    arrays: dict[str, np.ndarray] = {
        "image": random.integers(0, 255, SIZE, dtype=np.uint8),
        "truth": truth,
        "prediction": prediction,
        "valid": np.ones(SIZE, np.uint8),
        "region:predicted": prediction,
        "map:predicted@grad-cam@encoder_last": random.random(SIZE).astype(np.float32),
        "map:predicted@integrated-gradients": random.normal(size=(3, 3, 3)).astype(np.float32),
        "native": np.array([12, 9, 14]),
        "spacing": np.array(SPACING),
    }
    run = make_run(tmp_path / "run")
    table = run / "explain" / "test" / "explanations.json"
    data = json.loads(table.read_text())
    data["samples"][3]["files"]["slices"] = "samples/3/slices.npz"
    table.write_text(json.dumps(data))
    np.savez_compressed(table.parent / "samples/3/slices.npz", **arrays)  # type: ignore[arg-type]
    return run, arrays


def opened(chromium: Watched, run: Path):
    page = chromium.open(seglens.report([run]))
    page.wait_for_selector("#cards[data-drawn]", state="attached")
    page.evaluate("document.querySelectorAll('details.fold').forEach((fold) => { fold.open = true; })")
    page.locator(".scroll-slices").click()
    page.wait_for_selector("#slices[data-drawn]")
    return page


def act(page, does) -> None:
    """Do something, and wait until the slices are drawn anew."""
    before = page.get_attribute("#slices", "data-drawn")
    does()
    page.wait_for_function(f"document.querySelector('#slices').dataset.drawn !== '{before}'")


def move(page, place: tuple[int, int, int]) -> None:
    for slider, at in zip(page.locator(".plane input").all(), place, strict=True):
        if slider.input_value() != str(at):
            act(page, lambda slider=slider, at=at: slider.fill(str(at)))


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 4, 3), (5, 8, 6), (3, 7, 4)])
def test_the_page_reads_every_voxel_as_it_is(chromium: Watched, volume, place):
    run, arrays = volume
    page = opened(chromium, run)
    move(page, place)
    text = page.locator("#slices .readout").inner_text()
    # Two native slices and two native columns make one voxel of what is kept: its middle is the second.
    assert text.startswith(f"slice {2 * place[0] + 1}, row {place[1]}, column {2 * place[2] + 1}, ")
    values = arrays["map:predicted@grad-cam@encoder_last"]
    found = re.search(r"grad-cam @ encoder_last ([\d.]+),", text)
    assert found
    step = float(values.max() - values.min()) / 254
    assert float(found.group(1)) == pytest.approx(float(values[place]), abs=0.51 * step + 5e-4)
    for name in ("truth", "prediction"):
        assert f"{name}: {('background', 'cell')[arrays[name][place]]}" in text
    assert chromium.console == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_people_from_using_the_slices(chromium_like, volume, dark: bool):
    assert violations(opened(chromium_like(dark=dark), volume[0])) == []


def test_planes_show_their_slice_the_head_up_and_a_click_moves_the_others(chromium: Watched, volume):
    run, arrays = volume
    page = opened(chromium, run)
    page.locator("#slices [name=map]").select_option("")
    for name in ("truth", "prediction", "lines"):
        page.locator(f"#slices [name={name}]").uncheck()
    move(page, (2, 4, 3))
    pixel = """([number, across, down]) => {
        const canvas = document.querySelectorAll(".plane canvas")[number], pen = canvas.getContext("2d");
        const [x, y] = [Math.floor(across * canvas.width), Math.floor(down * canvas.height)];
        return pen.getImageData(x, y, 1, 1).data[0];
    }"""
    image = arrays["image"].astype(float)
    drawn = [
        (0, 5.5 / 7, 1.5 / 9, image[2, 1, 5]),  # axial: columns across, rows down
        (1, 5.5 / 7, 1.5 / 6, image[4, 4, 5]),  # coronal: the second slice from above is the last but one
        (2, 7.5 / 9, 0.5 / 6, image[5, 7, 3]),  # sagittal: rows across
    ]
    for number, across, down, value in drawn:
        # The picture is kept with losses: it is only looked at.
        assert page.evaluate(pixel, [number, across, down]) == pytest.approx(value, abs=60), number
    sides = [
        page.evaluate(f"(c => [c.height, c.width])(document.querySelectorAll('.plane canvas')[{i}])")
        for i in range(3)
    ]
    lengths = [n * mm for n, mm in zip(SIZE, SPACING, strict=True)]
    for (tall, wide), (down, across) in zip(sides, ((1, 2), (0, 2), (0, 1)), strict=True):
        assert tall / wide == pytest.approx(lengths[down] / lengths[across], rel=0.01)
    coronal = page.locator(".plane canvas").nth(1)
    box = coronal.bounding_box()
    act(page, lambda: coronal.click(position={"x": box["width"] * 6.5 / 7, "y": box["height"] * 0.5 / 6}))
    assert [each.input_value() for each in page.locator(".plane input").all()] == ["5", "4", "6"]
    act(page, lambda: page.locator("#slices").get_by_role("button", name="To the target").click())
    assert [each.input_value() for each in page.locator(".plane input").all()] == ["2", "4", "2"]


def test_a_damaged_file_leaves_the_card_as_it_is(volume):
    run, arrays = volume
    file = run / "explain/test/samples/3/slices.npz"
    for damaged in (
        {**arrays, "truth": arrays["truth"][:2]},
        {k: v for k, v in arrays.items() if k != "native"},
    ):
        np.savez_compressed(file, **damaged)
        assert 'class="scroll-slices"' not in seglens.report([run], force=True).read_text()
    file.write_bytes(b"nothing")
    assert 'class="scroll-slices"' not in seglens.report([run], force=True).read_text()


def test_a_mosaic_holds_every_slice():
    volume = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    page = np.asarray(mosaic(volume))
    assert page.shape == (4, 9)
    assert isinstance(mosaic(volume), Image.Image)
    for z in range(5):
        top, left = 2 * (z // 3), 3 * (z % 3)
        np.testing.assert_array_equal(page[top : top + 2, left : left + 3], volume[z])
    assert not page[2:, 6:].any()


def test_fewer_voxels_are_means_of_boxes():
    values = np.random.default_rng(1).random((4, 6, 5)).astype(np.float32)
    values[:2, :2, :2] = np.nan
    values[3, 5, 0] = np.nan
    found = fewer(values, 3)
    assert found.shape == (3, 3, 3)
    cuts = [[(0, 1), (1, 2), (2, 4)], [(0, 2), (2, 4), (4, 6)], [(0, 1), (1, 3), (3, 5)]]
    for z, (a, b) in enumerate(cuts[0]):
        for y, (c, d) in enumerate(cuts[1]):
            for x, (e, f) in enumerate(cuts[2]):
                box = values[a:b, c:d, e:f]
                if np.isnan(box).all():
                    assert np.isnan(found[z, y, x])
                else:
                    assert found[z, y, x] == pytest.approx(np.nanmean(box), rel=1e-6)
