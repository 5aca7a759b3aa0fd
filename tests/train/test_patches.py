"""Patches hold what the picture holds there and cover it once; their model sees pictures at their scale."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seglens
from seglens.data.frame import fit_frame
from seglens.data.layout import DataSettings, Entry, Split
from seglens.data.sample import Sample, Task
from seglens.data.volumes import Grid
from seglens.errors import SettingError
from seglens.folder.chunks import read_chunks
from seglens.predict.original import input_frame
from seglens.predict.tiles import plan
from seglens.train.dataset import TrainingDataset
from seglens.train.patches import ABOUT_MARKED, covering, drawn, marked_places, number_in


def split_of(*samples):
    table = {sample.name: sample for sample in samples}
    entries = tuple(Entry(name=name, image=Path(f"{name}.png")) for name in table)
    return Split("train", Task(), entries, lambda entry: table[entry.name])


def same(one, other):
    pairs = ((one.image, other.image), (one.mask, other.mask), (one.valid, other.valid))
    return one.name == other.name and all(torch.equal(a, b) for a, b in pairs)


SHAPES = ((50, 37), (10, 70), (20, 20), (13, 9), (30, 25, 41), (8, 50, 5))


@pytest.mark.parametrize("shape", SHAPES)
def test_patches_cover_every_pixel_once(shape):
    size = 20
    numbers = torch.arange(1, 1 + int(np.prod(shape))).reshape(shape)
    seen = []
    for patch in covering(shape, size):
        cut = patch.frame.padded(numbers)
        assert cut.shape == (size,) * len(shape)
        seen.append(cut[patch.fresh].flatten())
    assert torch.equal(torch.cat(seen).sort().values, numbers.flatten())
    assert len(seen) == number_in(shape, size)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_patch_that_is_drawn_is_a_part_of_the_picture(shape):
    size = 20
    numbers = torch.arange(1, 1 + int(np.prod(shape))).reshape(shape)
    for seed in range(20):
        frame = drawn(shape, size, [], torch.Generator().manual_seed(seed))
        cut = frame.padded(numbers)
        inside = (cut > 0).nonzero()
        first, last = inside.amin(0), inside.amax(0) + 1
        begins = np.unravel_index(int(cut[tuple(first)]) - 1, shape)
        parts = tuple(slice(at, at + int(n)) for at, n in zip(begins, last - first, strict=True))
        whole = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        assert torch.equal(cut[whole], numbers[parts])
        for axis, length in enumerate(shape):
            assert int(last[axis] - first[axis]) == min(size, length)  # as much of it as there is
            if length < size:
                assert int(first[axis]) == fit_frame((length,), length).corner[0] + (size - length) // 2


def test_a_third_of_the_patches_lies_about_a_marked_pixel():
    mask = torch.zeros(200, 300, dtype=torch.int64)
    mask[2, 297] = 2  # chance alone finds it in hardly any patch
    places = marked_places(mask, torch.ones(200, 300, dtype=torch.bool), 4)
    assert [each.tolist() for each in places] == [[[2, 297]]]
    frames = [drawn((200, 300), 16, places, torch.Generator().manual_seed(seed)) for seed in range(900)]
    share = np.mean([bool(frame.padded(mask).any()) for frame in frames])
    spread = (ABOUT_MARKED * (1 - ABOUT_MARKED) / 900) ** 0.5
    assert abs(share - ABOUT_MARKED) < 4 * spread


def test_classes_are_drawn_alike_and_what_is_not_valid_is_not_drawn():
    mask = torch.zeros(60, 60, dtype=torch.int64)
    mask[:30], mask[40, 40], mask[50, 50] = 1, 2, 3
    valid = torch.ones(60, 60, dtype=torch.bool)
    valid[50, 50] = False
    places = marked_places(mask, valid, 4)
    assert len(places) == 2
    assert len(places[0]) <= 1000
    assert all(mask[tuple(place)] == 1 for place in places[0])
    assert places[1].tolist() == [[40, 40]]


def large(name, seed=0, shape=(50, 37)):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (3, *shape), generator=generator) / 255
    valid = torch.rand(shape, generator=generator) < 0.9
    return Sample(name, image, torch.randint(2, shape, generator=generator), valid)


def feed_of(*samples, **settings):
    feed = TrainingDataset(split_of(*samples), size=16, patch_scale=1.0, **settings)
    feed.preload()
    return feed


def test_patches_in_order_count_the_pixels_of_the_pictures():
    samples = [large("a"), large("b", 1, (9, 40))]
    feed = feed_of(*samples, in_order=True)
    assert len(feed) == 4 * 3 + 1 * 3
    found = torch.zeros(2, dtype=torch.int64)
    for index in range(len(feed)):
        patch = feed[0, index]
        found += torch.bincount(patch.mask[patch.valid], minlength=2)
    wanted = torch.zeros(2, dtype=torch.int64)
    for one in samples:
        assert one.mask is not None
        wanted += torch.bincount(one.mask[one.valid], minlength=2)
    assert torch.equal(found, wanted)
    assert torch.equal(feed.class_pixels(2), wanted)
    assert not feed.blank().valid.any()


def test_patches_depend_on_seed_epoch_and_index_alone():
    samples = [large("a"), large("b", 1)]
    one, other = feed_of(*samples), feed_of(*samples, memory=0)
    assert len(one) == 24  # as many as cover both
    assert all(same(one[epoch, index], other[epoch, index]) for epoch in (0, 3) for index in (5, 0, 20))
    assert not same(one[0, 0], one[1, 0])
    assert not same(one[0, 0], one[0, 1])
    assert not same(one[0, 0], feed_of(*samples, seed=1)[0, 0])


def test_pictures_are_brought_to_the_scale_first():
    sample = large("a", shape=(64, 48))
    feed = TrainingDataset(split_of(sample), size=16, patch_scale=0.5, in_order=True)
    feed.preload()
    wanted = torch.nn.functional.interpolate(sample.image[None], (32, 24), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(feed[0, 0].image, wanted[:, :16, :16], rtol=0, atol=0.5 / 255 + 1e-6)
    assert feed.scale == 0.5


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Pictures of 72 x 96 pixels with discs of a radius of 6."""
    folder = tmp_path_factory.mktemp("fields")
    rows, columns = np.mgrid[:72, :96]
    for index in range(12):
        random = np.random.default_rng(index)
        mask = np.zeros((72, 96), bool)
        for top, left in random.integers(8, (64, 88), size=(3, 2)):
            mask |= (rows - top) ** 2 + (columns - left) ** 2 < 36
        picture = 60 + 120 * mask[..., None] + random.integers(0, 40, size=(72, 96, 3))
        part = folder / ("train" if index < 6 else "valid" if index < 9 else "test")
        for kind, array in (("images", picture), ("masks", mask)):
            (part / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(part / kind / f"field-{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def patched(fields, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "patched"
    settings = tiny(patch_scale=1.0, epochs=6, learning_rate=1e-2, augment=False)
    return seglens.train(DataSettings(path=fields), settings, folder)


def test_a_model_of_patches_predicts_at_their_scale(patched):
    spec = patched.spec
    assert (spec.patches, spec.scale, spec.patch_scale) == (True, 1.0, 1.0)
    windows = plan((40, 40), spec)  # any that is larger, by however little
    assert windows is not None
    assert windows.scaled == (40, 40)
    small = Sample("s", torch.rand(3, 20, 12), None, torch.ones(20, 12, dtype=torch.bool))
    frame = input_frame(small, spec)
    assert (frame.scaled, frame.corner) == ((20, 12), (6, 10))  # not enlarged
    learned = replace(small, image=torch.rand(3, 64, 32), valid=torch.ones(64, 32, dtype=torch.bool))
    assert input_frame(learned, spec.model_copy(update={"patches": False})).scaled == (32, 16)


def test_a_model_of_patches_is_evaluated_and_explained(patched, tmp_path):
    table = seglens.evaluate(patched, seglens.open_split(patched, "test"))
    assert (table.pooled.dice or 0) > 0.9
    done = seglens.explain_folder(
        patched, seglens.open_split(patched, "test"), out=tmp_path / "x", layers="encoder_last", num_images=1
    )
    assert done.num_done == 1


def test_one_window_is_judged_the_one_that_holds_the_most_of_the_mask(patched):
    split = seglens.open_split(patched, "test")
    (part,) = read_chunks(patched, split, most=16, failed=[])
    assert part.batch.images.shape[2:] == (32, 32)
    assert part.batch.masks is not None
    for sample, frame, image, mask in zip(
        part.originals, part.frames, part.batch.images, part.batch.masks, strict=True
    ):
        assert isinstance(sample.mask, torch.Tensor)
        top, left = (-at for at in frame.corner)
        assert torch.equal(image, sample.image[:, top : top + 32, left : left + 32])
        assert torch.equal(mask, sample.mask[top : top + 32, left : left + 32])
        sums = sample.mask.float().unfold(0, 32, 1).unfold(1, 32, 1).sum((-1, -2))
        assert mask.sum() >= 0.9 * sums.max()  # windows begin every 4 pixels


def test_a_judgement_says_that_it_is_of_windows(patched, tmp_path):
    done = seglens.judge_folder(
        patched,
        seglens.open_split(patched, "test"),
        out=tmp_path / "judged",
        layers="encoder_last",
        judging=seglens.JudgeSettings(("attention",)),
    )
    assert done.card is not None
    assert done.card.num_windows == 3
    assert done.card.judged_in_words.startswith("3 pictures larger than one input of the network")


def test_patches_of_volumes_are_at_voxels_a_millimetre():
    shape = (10, 24, 30)
    image = torch.rand(1, *shape)
    grid = Grid(shape[::-1], np.diag([1.0, 1.0, 2.0, 1.0]))
    sample = Sample("v", image, torch.zeros(shape, dtype=torch.int64), image[0] >= 0, grid=grid)
    split = Split("train", Task(), split_of(sample).entries, lambda _: sample, 3)
    feed = TrainingDataset(split, size=8, patch_scale=0.5, in_order=True)
    feed.preload()
    assert len(feed) == 2 * 2 * 2  # 10, 12 and 15 voxels of 2 mm
    assert feed.scale == 0.5


def test_patches_are_not_normalised_one_by_one(tiny):
    with pytest.raises(SettingError, match="every patch would be normalised by itself"):
        tiny(patch_scale=1.0, normalise="image")
    with pytest.raises(SettingError, match="patch_scale"):
        tiny(patch_scale=0.0)
