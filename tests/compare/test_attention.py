"""How far attention moved, against closed forms."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from seglens.compare.attention import CELLS, movements, on_cells, shares
from seglens.errors import DataError
from seglens.report.contents import read_explanation

SIDE = CELLS
LEFT, RIGHT = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.float32)
LEFT[:, : SIDE // 2] = 1
RIGHT[:, SIDE // 2 :] = 1


def make_part(folder, maps, *, truth=None, said=None, images=None):
    """Write pictures and maps as ``explain`` does, and return them as a part."""
    rows = []
    for index, values in enumerate(maps):
        place = folder / f"samples/{index}"
        place.mkdir(parents=True)
        shade = images[index] if images else index
        Image.new("RGB", (SIDE, SIDE), (shade, 0, 0)).save(place / "orig.png")
        files = {"orig": f"samples/{index}/orig.png", "raw": f"samples/{index}/maps.npz"}
        for kind, region in (("gt", truth), ("pred", said)):
            if region is not None:
                pixels = np.where(region[..., None] > 0, (230, 159, 0), (0, 0, 0)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{kind}.png")
                files[kind] = f"samples/{index}/{kind}.png"
        np.savez(place / "maps.npz", **{"map:cam@last": values})
        entry = {"target": "predicted", "method": "cam", "layer": "last", "where": "region", "status": "ok"}
        rows.append({"name": str(index), "status": "ok", "files": files, "maps": [entry]})
    table = {"split": "test", "samples": rows}
    (folder / "explanations.json").write_text(json.dumps(table))
    return read_explanation(folder)


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (LEFT, LEFT, 0.0),
        (LEFT, 7 * LEFT, 0.0),
        (LEFT, RIGHT, 1.0),
        (LEFT, LEFT + RIGHT, 0.5),
        (LEFT, LEFT - RIGHT, 0.0),
    ],
)
def test_moved_is_the_share_that_lies_elsewhere(tmp_path, before, after, moved):
    parts = make_part(tmp_path / "a", [before] * 2), make_part(tmp_path / "b", [after] * 2)
    rows, each = movements(*parts)
    assert rows[0]["moved"]["mean"] == pytest.approx(moved, abs=1e-6)
    assert [row["moved"] for row in each] == pytest.approx([moved] * 2, abs=1e-6)
    assert rows[0]["num"] == 2


def test_unrelated_maps_are_those_of_other_pictures(tmp_path):
    """Maps that follow the picture in both runs have not moved, and unrelated ones share nothing."""
    rows, _ = movements(make_part(tmp_path / "a", [LEFT, RIGHT]), make_part(tmp_path / "b", [LEFT, RIGHT]))
    assert rows[0]["moved"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert rows[0]["unrelated"]["mean"] == pytest.approx(1.0)
    assert rows[0]["unrelated"]["num"] == 2


def test_shares_are_of_the_truth_and_of_the_reference_s_errors(tmp_path):
    """The reference looks left, where it invents an object; the other looks right, where the truth is."""
    first = make_part(tmp_path / "a", [LEFT], truth=RIGHT, said=LEFT)
    second = make_part(tmp_path / "b", [RIGHT], truth=RIGHT, said=RIGHT)
    found = movements(first, second)[0][0]["shares"]
    for region, before, after in (("truth", 0, 1), ("invented", 1, 0), ("missed", 0, 1)):
        row = found[region]
        assert (row["reference"], row["value"], row["area"]) == pytest.approx((before, after, 0.5))
        assert row["difference"]["mean"] == pytest.approx(after - before)


def test_a_region_that_is_empty_has_no_share(tmp_path):
    first = make_part(tmp_path / "a", [LEFT], truth=LEFT, said=LEFT)
    found = movements(first, make_part(tmp_path / "b", [LEFT]))[0][0]["shares"]
    assert set(found) == {"truth"}


def test_other_pictures_are_not_compared(tmp_path):
    first = make_part(tmp_path / "a", [LEFT, LEFT])
    assert movements(first, make_part(tmp_path / "b", [LEFT, LEFT], images=[0, 9]))[0][0]["num"] == 1


def test_maps_that_one_run_lacks_are_left_out(tmp_path):
    first, file = make_part(tmp_path / "a", [LEFT]), tmp_path / "b/explanations.json"
    make_part(file.parent, [LEFT])
    table = json.loads(file.read_text())
    table["samples"][0]["maps"][0]["status"] = "no-target"
    file.write_text(json.dumps(table))
    assert movements(first, read_explanation(file.parent)) == ([], [])


@pytest.mark.parametrize(("text", "error"), [(b"nothing", "can't be read"), (None, "are not in")])
def test_a_broken_raw_map_is_named(tmp_path, text, error):
    parts = make_part(tmp_path / "a", [LEFT]), make_part(tmp_path / "b", [LEFT])
    file = tmp_path / "b/samples/0/maps.npz"
    file.write_bytes(text) if text else file.unlink()
    with pytest.raises(DataError, match=error):
        movements(*parts)


def test_a_map_without_attention_has_none():
    assert shares(torch.full((8, 8), torch.nan)).sum() == 0
    assert float(on_cells(torch.rand(90, 70)).sum()) == pytest.approx(1.0)
    assert shares(-torch.ones(4, 4)).sum() == 0
