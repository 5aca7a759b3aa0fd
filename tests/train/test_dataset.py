"""What is kept in memory is what was read; what is augmented depends on seed, epoch and index alone."""

import threading
from pathlib import Path

import pytest
import torch

from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task
from seglens.data.transforms import DEFAULT_POLICY, letterbox
from seglens.errors import DataError
from seglens.runtime.threads import read_ahead
from seglens.train.dataset import BLANK, Part, Shuffled, TrainingDataset, validation_batches


def split_of(*samples):
    table = {sample.name: sample for sample in samples}
    entries = tuple(Entry(name=name, image=Path(f"{name}.png")) for name in table)
    return Split("train", Task(), entries, lambda entry: table[entry.name])


def noise(name, *, levels=256, shape=(20, 12), seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(levels, (3, *shape), generator=generator) / (levels - 1)
    mask = torch.randint(2, shape, generator=generator)
    return Sample(name, image, mask, torch.rand(shape, generator=generator) < 0.9)


def feed_of(*samples, policy=None, seed=0, memory=1 << 20, size=20):
    feed = TrainingDataset(split_of(*samples), size=size, seed=seed, policy=policy, memory=memory)
    feed.preload()
    return feed


def same(one, other):
    pairs = ((one.image, other.image), (one.mask, other.mask), (one.valid, other.valid))
    return one.name == other.name and all(torch.equal(a, b) for a, b in pairs)


def test_eight_bit_pictures_are_kept_exactly():
    given = noise("a")
    kept = feed_of(given)[0, 0]
    inside = kept.image[:, :, 4:16]  # 12 of 20 columns, centred
    torch.testing.assert_close(inside, given.image, rtol=0, atol=1e-6)
    assert torch.equal(kept.mask[:, 4:16], given.mask)
    assert torch.equal(kept.valid[:, 4:16], given.valid)
    assert not kept.valid[:, :4].any()


def test_deeper_pictures_keep_their_depth():
    # 12 bits stored in 16: all values below 1/16, where 8 bits would leave 16 shades.
    dark = noise("dark", levels=65536)
    dark = Sample("dark", dark.image / 16, dark.mask, dark.valid)
    kept = feed_of(dark)[0, 0].image[:, :, 4:16]
    assert ((kept - dark.image).abs() <= dark.image * 2**-11 + 1e-7).all()


def test_bright_pictures_of_few_grey_levels_keep_them():
    """16 bits with an offset: float16 has steps of 32 counts at 40,000, of 60 that the pictures use."""
    counts = torch.randint(40_000, 40_060, (3, 20, 12), generator=torch.Generator().manual_seed(0))
    given = Sample("offset", counts / 65535, torch.zeros(20, 12, dtype=torch.int64), torch.ones(20, 12) > 0)
    window = (40_000 / 65535, 40_060 / 65535)
    for ends in (window, (0.0, 1.0)):  # of all of the range: each picture may be normalised by itself
        kept = TrainingDataset(split_of(given), size=20, window=ends)[0, 0].image[:, :, 4:16]
        assert torch.equal((kept * 65535).round().long(), counts)
    tiny = Sample("tiny", given.image * 1e-6, given.mask, given.valid)  # of floats; 8 bits would be black
    kept = TrainingDataset(split_of(tiny), size=20, window=(0.0, 1e-6))[0, 0].image[:, :, 4:16]
    torch.testing.assert_close(kept, tiny.image, rtol=1e-3, atol=0)


def test_few_shades_of_eight_bits_are_scaled_as_they_are_predicted():
    """Of 10 shades half a one is a twentieth of what the model sees; networks predict without rounding."""
    shades = torch.randint(10, (3, 40, 40), generator=torch.Generator().manual_seed(0))
    given = Sample("dark", shades / 255, torch.zeros(40, 40, dtype=torch.int64), torch.ones(40, 40) > 0)
    scaled = letterbox(given, 20)[0].image
    kept = TrainingDataset(split_of(given), size=20, window=(0.0, 10 / 255))[0, 0].image
    assert (kept - scaled).abs().max() < 1e-3 * 10 / 255
    assert (TrainingDataset(split_of(given), size=20)[0, 0].image - scaled).abs().max() < 0.51 / 255
    assert (
        TrainingDataset(split_of(given), size=40, window=(0.0, 10 / 255))._read(0).image.dtype == torch.uint8
    )


def test_what_does_not_fit_into_memory_is_read_again_and_is_the_same():
    samples = [noise(f"s{index}", seed=index) for index in range(4)]
    one_picture = 20 * 20 * 5
    whole, part, none = (feed_of(*samples, memory=memory) for memory in (1 << 20, 2 * one_picture, 0))
    assert [len(feed._kept) for feed in (whole, part, none)] == [4, 2, 0]
    for index in range(4):
        assert same(whole[0, index], part[0, index])
        assert same(whole[0, index], none[0, index])


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    samples = [noise(f"s{index}", seed=index) for index in range(3)]
    feed, again, other = (feed_of(*samples, policy=DEFAULT_POLICY, seed=seed) for seed in (0, 0, 1))
    backwards = [again[1, index] for index in (2, 1, 0)][::-1]
    assert all(same(feed[1, index], backwards[index]) for index in range(3))
    assert not same(feed[1, 0], feed[2, 0])
    assert not same(feed[1, 0], other[1, 0])


def test_a_picture_without_mask_is_named():
    bare = Sample("bare", torch.zeros(3, 8, 8), None, torch.ones(8, 8, dtype=torch.bool))
    with pytest.raises(DataError, match=r"bare\.png has no mask: training needs one"):
        feed_of(noise("good"), bare)


def test_validation_batches_hold_every_picture_once_in_order():
    samples = [noise(f"s{index}", seed=index) for index in range(5)]
    batches = validation_batches(feed_of(*samples), batch_size=2)
    assert [name for batch in batches for name in batch.names] == [f"s{index}" for index in range(5)]


def test_read_ahead_keeps_order_and_reads_only_a_little_ahead():
    started = []
    gate = threading.Event()

    def read(item):
        started.append(item)
        gate.wait(5)
        return item * 10

    stream = read_ahead(read, range(100), threads=2)
    gate.set()
    assert [next(stream) for _ in range(3)] == [0, 10, 20]
    assert len(started) <= 3 + 2 * 2 + 1


def test_read_ahead_raises_where_the_reading_did():
    def read(item):
        if item == 2:
            raise DataError("two is broken")
        return item

    stream = read_ahead(read, range(4))
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(DataError, match="two is broken"):
        next(stream)


def test_order_of_an_epoch():
    order = Shuffled(9, batch_size=4, seed=3)
    first, again = list(order), list(order)
    order.set_epoch(1)
    second = list(order)
    assert first == again
    assert [index for _, index in first] != [index for _, index in second]
    assert {epoch for epoch, _ in second} == {1}
    # 9 = 4 + 4 + 1: a rest of one sits the epoch out.
    assert len(first) == len(order) == len({index for _, index in first}) == 8
    assert len(Shuffled(10, batch_size=4, seed=3)) == 10
    assert len(Shuffled(3, batch_size=1, seed=3)) == 3
    assert list(Shuffled(1, batch_size=4, seed=3)) == [(0, 0), (0, 0)]


@pytest.mark.parametrize("of", [2, 3, 4])
@pytest.mark.parametrize(
    ("num", "batch_size", "splits"), [(50, 12, 1), (49, 12, 1), (61, 24, 2), (12, 12, 1), (7, 24, 1)]
)
def test_processes_share_every_step_and_no_picture_is_lost_or_doubled(num, batch_size, splits, of):
    orders = [
        Shuffled(num, batch_size=batch_size, seed=1, part=Part(i, of), splits=splits) for i in range(of)
    ]
    size = batch_size // of // splits
    shown = [[index for _, index in order] for order in orders]
    # Equally many batches in every process, and none of a single picture.
    assert len({order.num_batches for order in orders}) == 1
    for order, indices in zip(orders, shown, strict=True):
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        assert order.num_batches == len(batches)
        assert all(len(batch) > 1 for batch in batches) or size == 1
    together = [index for indices in shown for index in indices]
    alone = list(Shuffled(num, batch_size=batch_size, seed=1))
    if num >= batch_size:
        # Each picture once, but for fewer than a step's that sit the epoch out.
        assert len(set(together)) == len(together) > num - batch_size
        # A step holds the pictures that it holds in a single process.
        share = batch_size // of
        first = {index for indices in shown for index in indices[:share]}
        assert first == {index for _, index in alone[:batch_size]}
    else:
        assert set(together) == set(range(num))


def test_validation_is_shared_and_filled_up_with_blanks():
    samples = [noise(f"s{index}", seed=index) for index in range(5)]
    feed = feed_of(*samples)
    parts = [list(validation_batches(feed, batch_size=4, part=Part(i, 3))) for i in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    names = [[name for batch in part for name in batch.names] for part in parts]
    assert names == [["s0", "s3"], ["s1", "s4"], ["s2", ""]]
    blank = feed[0, BLANK]
    assert not blank.valid.any()
    assert blank.image.shape == feed[0, 0].image.shape


def test_pixels_of_classes_are_those_of_the_masks():
    samples = [noise(f"s{index}", seed=index) for index in range(3)]
    feed = feed_of(*samples, memory=2 * 20 * 20 * 5)  # the third is read again
    counts = [torch.bincount(sample.mask[sample.valid], minlength=2) for sample in samples]
    expected = torch.stack(counts).sum(dim=0)
    assert torch.equal(feed.class_pixels(2), expected)
    assert feed.scale == 1.0


def test_classes_that_no_picture_shows_at_the_size_of_inputs():
    mask = torch.zeros(40, 40, dtype=torch.int64)
    mask[:20], mask[0, 0], mask[30, 30] = 1, 2, 3  # class 2 and 3 are a pixel, of which each fourth is taken
    valid = torch.ones(40, 40, dtype=torch.bool)
    valid[30, 30] = False
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    sample = Sample("a", image, mask, valid)
    shown = {size: feed_of(sample, size=size)[0, 0] for size in (40, 20)}
    for size, kept in shown.items():
        assert feed_of(sample, size=size).shown(5) == set(kept.mask[kept.valid].tolist())
    assert feed_of(sample, size=40).shown(5) == {0, 1, 2}
