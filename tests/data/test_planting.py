"""Planted tags: places by brute force, looks by counting pixels, placements by their table."""

import math

import pytest
import torch
from benchmarks.shortcut_scenes import free_spot

from seglens.data.images import read_image
from seglens.data.labels import read_label
from seglens.data.planting import (
    GAP,
    PLACEMENTS,
    TagLook,
    UntaggedScene,
    mark,
    plant,
    stands,
    write_splits,
)
from seglens.data.specimens import specimens
from seglens.errors import SettingError, UnknownNameError

SIZE = 40


def scenes(num: int = 8) -> list[UntaggedScene]:
    generator = torch.Generator().manual_seed(0)
    things = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    things[20:30, 5:20] = True
    return [
        UntaggedScene(
            f"{index}",
            (torch.rand(3, SIZE, SIZE, generator=generator) * 255).round() / 255,
            things,
            index % 2 == 0,
            torch.tensor([10.5, 30.5]),
        )
        for index in range(num)
    ]


def test_sets_differ_in_tags_alone() -> None:
    drawn = {placement: plant(scenes(), placement) for placement in PLACEMENTS}
    for one, *others in zip(*drawn.values(), strict=True):
        for other in others:
            assert torch.equal(one.sample.mask, other.sample.mask)
            assert torch.equal(one.untagged, other.untagged)
            changed = (other.sample.image != one.sample.image).any(0)
            assert not (changed & ~other.tag).any()
            assert bool(changed.any()) == bool(other.tag.any())
    rates = {name: [bool(each.tag.any()) for each in found] for name, found in drawn.items()}
    assert rates["with-object"] == [True, False] * 4
    assert rates["independent"] == [True, True, False, False] * 2
    assert not any(rates["none"])


def test_look_alikes_are_background() -> None:
    for index, found in enumerate(plant(scenes(), "none")):
        assert found.sample.mask is not None
        assert torch.equal(found.sample.mask > 0, found.cells & (index % 2 == 0))


def test_opacity_mixes_the_colour_in() -> None:
    look = TagLook(opacity=0.25)
    scene, found = scenes(1)[0], plant(scenes(1), "with-object", look)[0]
    expected = 0.25 * torch.tensor(look.colour)[:, None] + 0.75 * scene.image[:, found.tag]
    assert (found.sample.image[:, found.tag] - expected).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("radius", [0.1, 0.2, 0.3])
def test_the_area_of_a_tag_is_that_of_a_ring_and_a_plus(radius: float) -> None:
    """Oracle: the ring is as wide as a third of the radius; the arms cross in a square of that side."""
    side = 400
    region = mark(torch.tensor([200.0, 190.0]), (side, side), TagLook(radius=radius))
    r = radius * side
    line = r / 6
    ring = math.pi * ((r + line) ** 2 - (r - line) ** 2)
    plus = 2 * (2 * (r - line)) * (2 * line) - (2 * line) ** 2
    assert int(region.sum()) == pytest.approx(ring + plus, rel=0.02)
    ys, xs = region.nonzero().T
    assert float(ys.float().mean() + 0.5) == pytest.approx(200, abs=0.1)
    assert float(xs.float().mean() + 0.5) == pytest.approx(190, abs=0.1)


def test_free_spots_keep_their_distance_and_come_from_everywhere_free() -> None:
    """Oracle: distances to every pixel that is taken, one by one."""
    taken = torch.zeros(16, 20, dtype=torch.bool)
    taken[5:9, 6:13] = True
    look = TagLook(radius=0.16)
    reach = (look.radius + GAP) * 16
    middles = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(20), indexing="ij"), 2) + 0.5
    gaps = torch.cdist(middles.view(-1, 2), middles[taken]).min(1).values.view(16, 20)
    border = torch.stack([middles[..., 0], middles[..., 1], 16 - middles[..., 0], 20 - middles[..., 1]])
    free = (gaps > reach) & (border.min(0).values + 0.5 > reach)
    generator, seen = torch.Generator().manual_seed(0), torch.zeros(16, 20, dtype=torch.bool)
    for _ in range(900):
        spot = free_spot(taken, look, generator)
        assert spot is not None
        seen[int(spot[0]), int(spot[1])] = True
    assert torch.equal(seen, free)


def test_no_spot_where_there_is_no_room_to_move() -> None:
    generator, look = torch.Generator().manual_seed(0), TagLook(radius=0.1)
    full = torch.ones(20, 20, dtype=torch.bool)
    assert free_spot(full, look, generator) is None
    full[:8, :8] = False
    assert free_spot(full, look, generator) is not None
    assert free_spot(full, look, generator, others=1) is None
    full[12:, 12:] = False
    assert free_spot(full, look, generator, others=1) is not None


def test_what_is_written_is_what_was_drawn(tmp_path) -> None:
    drawn = plant(scenes(4), "independent", TagLook(radius=0.1))
    folder = write_splits(tmp_path / "set", {"train": drawn[:2], "test": drawn[2:]})
    for split, found in (("train", drawn[:2]), ("test", drawn[2:])):
        for each in found:
            file = f"{each.sample.name}.png"
            assert torch.equal(read_image(folder / split / "images" / file), each.sample.image)
            assert torch.equal(read_label(folder / split / "tags" / file) > 0, each.tag)
            assert each.sample.mask is not None
            assert torch.equal(read_label(folder / split / "masks" / file) > 0, each.sample.mask > 0)


def test_another_look_moves_no_cell() -> None:
    usual, small = (specimens(3, size=64, tag="with-object", look=look) for look in (None, TagLook(0.04)))
    for one, other in zip(usual, small, strict=True):
        assert torch.equal(one.untagged, other.untagged)
        assert torch.equal(one.cells, other.cells)
        assert int(one.tag.sum()) >= int(other.tag.sum())


def test_what_cannot_be_planted_says_so() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown tag 'objects'.* Allowed: none, with-object, indep"):
        stands("objects", 0)
    with pytest.raises(SettingError, match="at index 1 shows objects: scenes must alternate"):
        plant([scenes(1)[0]] * 2, "none")
    with pytest.raises(SettingError, match=r"radius is 0.7 of the side, but must lie between 0 and .5"):
        TagLook(radius=0.7)
    with pytest.raises(SettingError, match=r"opacity is 0.0, but must be above 0"):
        TagLook(opacity=0.0)
