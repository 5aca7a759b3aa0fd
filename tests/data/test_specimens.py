"""Specimens: the truth is known, and sets differ in their tags alone."""

import math

import pytest
import torch
from PIL import Image
from torch import Tensor

from seglens.data import specimens as drawing
from seglens.data.images import read_image
from seglens.data.labels import read_label
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.planting import PLACEMENTS
from seglens.data.specimens import specimens, write_specimens
from seglens.errors import OutputExistsError, SettingError, UnknownNameError


def bare(drawn):
    return [specimen.untagged for specimen in drawn]


def truth(specimen) -> Tensor:
    return specimen.sample.mask


def has_objects(specimen):
    return bool(truth(specimen).any())


def test_sets_differ_in_their_tags_and_in_nothing_else():
    none, with_object, independent = (specimens(8, size=64, tag=tag) for tag in PLACEMENTS)
    for plain, one, other in zip(none, with_object, independent, strict=True):
        assert torch.equal(truth(plain), truth(one))
        assert torch.equal(truth(plain), truth(other))
        for tagged in (one, other):
            changed = (tagged.sample.image != plain.sample.image).any(0)
            assert torch.equal(changed, tagged.tag)
            assert torch.equal(tagged.untagged, plain.sample.image)


def test_the_tag_goes_with_the_object_or_is_as_often_anywhere():
    with_object = specimens(16, size=64, tag="with-object")
    assert [bool(s.tag.any()) for s in with_object] == [has_objects(s) for s in with_object]
    independent = specimens(16, size=64, tag="independent")
    table = [(has_objects(s), bool(s.tag.any())) for s in independent]
    assert all(table.count((objects, tag)) == 4 for objects in (True, False) for tag in (True, False))
    assert not any(s.tag.any() for s in specimens(4, size=64))


def test_the_tag_is_in_the_background_away_from_every_cell():
    for specimen in specimens(12, size=64, tag="independent", first=100):
        if specimen.tag.any():
            near = torch.nn.functional.max_pool2d(specimen.tag[None].float(), 5, stride=1, padding=2)[0] > 0
            assert not (near & specimen.cells).any()
            assert 10 < specimen.tag.sum() < 0.03 * 64 * 64


def test_the_mask_is_the_cells_of_interest_or_nothing():
    for specimen in specimens(12, size=64):
        expected = specimen.cells if has_objects(specimen) else torch.zeros_like(specimen.cells)
        assert torch.equal(truth(specimen).bool(), expected)
        assert 0.03 < specimen.cells.float().mean() < 0.35
        assert specimen.sample.valid.all()


def test_cells_are_where_the_mask_says():
    """Oracle: stained cells take more green light away than the ground does."""
    for specimen in specimens(8, size=64):
        green = specimen.untagged[1]
        assert green[specimen.cells].mean() < 0.75 * green[~specimen.cells].mean()


def test_a_ring_absorbs_as_much_as_a_solid_nucleus():
    """Oracle: the integral over the disc, by a fine sum."""
    radius = (torch.arange(20000, dtype=torch.float32) + 0.5) / 20000
    weights = 2 * radius / 20000
    ring, solid = (
        float((profile(radius.reshape(1, 1, -1)).flatten() * weights).sum())
        for profile in (drawing._ring, drawing._solid)
    )
    assert math.isclose(ring, solid, rel_tol=1e-4)


def test_kinds_differ_inside_the_nucleus_only():
    """A threshold on darkness or size can't tell them apart, so that a network has to learn the texture."""
    drawn = specimens(40, size=64)
    dark: dict[bool, list[float]] = {kind: [] for kind in (True, False)}
    for specimen in drawn:
        dark[has_objects(specimen)].append(float(specimen.untagged[:, specimen.cells].mean()))
    one, other = torch.tensor(dark[True]), torch.tensor(dark[False])
    better = (one[:, None] < other[None]).float().mean()
    assert 0.3 < better < 0.7


def test_a_specimen_depends_on_its_number_and_the_seed():
    few, many = specimens(3, size=64, seed=1), specimens(6, size=64, seed=1)
    later = specimens(3, size=64, seed=1, first=3)
    for one, other in zip(bare(few + later), bare(many), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(bare(few)[0], bare(specimens(1, size=64, seed=2))[0])
    assert not torch.equal(bare(many)[0], bare(many)[2])


def test_written_specimens_are_those_drawn(tmp_path):
    folder = write_specimens(
        tmp_path / "set", num_train=3, num_valid=1, num_test=4, size=64, seed=5, tag="with-object"
    )
    assert sorted(p.name for p in folder.iterdir()) == ["run.json", "test", "train", "valid"]
    drawn = specimens(8, size=64, seed=5, tag="with-object")
    for specimen, split in zip(drawn, ["train"] * 3 + ["valid"] + ["test"] * 4, strict=True):
        file = f"{specimen.sample.name}.png"
        assert torch.equal(read_image(folder / split / "images" / file), specimen.sample.image)
        mask, tag = (read_label(folder / split / kind / file) for kind in ("masks", "tags"))
        assert torch.equal(mask, 255 * truth(specimen))
        assert torch.equal(tag > 0, specimen.tag)
    with Image.open(folder / "test" / "tags" / "0004.png") as read:
        assert read.mode == "L"
    with pytest.raises(OutputExistsError, match="exists already"):
        write_specimens(folder, num_train=1, num_valid=1, num_test=1)


def test_the_written_set_is_recognised(tmp_path):
    folder = write_specimens(tmp_path / "set", num_train=4, num_valid=2, num_test=2, size=64)
    data = open_data(DataSettings(path=folder))
    assert data.layout == "pairs"
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "valid": 2, "test": 2}
    read = data.split("train")[0]
    assert read.mask is not None
    assert torch.equal(read.mask, truth(specimens(1, size=64)[0]))


def test_what_cannot_be_drawn_says_so():
    with pytest.raises(UnknownNameError, match=r"Unknown tag 'objects'.* Allowed: none, with-object, indep"):
        specimens(1, tag="objects")
    with pytest.raises(SettingError, match="at least 48 pixels a side to show a nucleus, got 20"):
        specimens(1, size=20)
