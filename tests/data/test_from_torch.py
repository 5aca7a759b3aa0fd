"""Data sets and loaders of PyTorch: the same scores and maps as of the same pictures in files."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, WeightedRandomSampler
from torch.utils.data import Dataset as TorchDataset

import seglens
from seglens.data.from_torch import torch_splits
from seglens.errors import DataError, MaskValueError, SeglensWarning, SettingError, SizeMismatchError


class Pictures(TorchDataset):
    """Discs of their own colour, as 8-bit arrays, made anew at each call."""

    def __init__(self, num=4, make=lambda image, mask: (image, mask)):
        self.num, self.make = num, make

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        if not 0 <= index < self.num:
            raise IndexError(index)
        rows, columns = np.mgrid[:24, :32]
        mask = (rows - 10) ** 2 + (columns - 8 - 4 * index) ** 2 < 36
        image = np.where(mask[..., None], [200, 40, 60 + index], [30, 80, 90]).astype(np.uint8)
        return self.make(image, mask)


class TooLong(Pictures):
    """A set of four that says it has another number of items."""

    def __init__(self, told):
        super().__init__(4, tensors)
        self.told = told

    def __len__(self):
        return self.told


def tensors(image, mask):
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255, torch.from_numpy(mask).long()


@pytest.fixture
def run():
    """Red above its green is the pet."""
    net = nn.Conv2d(3, 1, 1)
    net.weight.data = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1)
    torch.nn.init.constant_(net.get_parameter("bias"), 0.0)
    return seglens.wrap(net, classes=("background", "pet"), image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)


MADE = {
    "tensors": tensors,
    "grey mask [1 h w]": lambda i, m: (tensors(i, m)[0], tensors(i, m)[1][None].float()),
    "a dict": lambda i, m: {"image": tensors(i, m)[0], "mask": tensors(i, m)[1], "id": 3},
    "labels of another library": lambda i, m: {"pixel_values": tensors(i, m)[0], "labels": tensors(i, m)[1]},
}


def scores(found):
    return [(row["name"], row["dice"], row["image_hash"], row["truth_pixels"]) for row in found.images]


@pytest.mark.parametrize("made", MADE)
def test_evaluation_of_a_data_set_and_its_loader(run, made):
    data = Pictures(make=MADE[made])
    found = scores(seglens.evaluate(run, data))
    assert [dice for _, dice, *_ in found] == [1.0] * 4
    assert len({digest for _, _, digest, _ in found}) == 4
    assert {pixels for *_, pixels in found} == {int(Pictures()[0][1].sum())}
    loader = DataLoader(data, batch_size=3, shuffle=True)
    assert scores(seglens.evaluate(run, loader)) == found


@pytest.mark.parametrize("make", [lambda i, m: (i, m), lambda i, m: (Image.fromarray(i), Image.fromarray(m))])
def test_eight_bits_are_divided_and_said(run, make):
    with pytest.warns(SeglensWarning, match="uint8 pictures are divided by 255"):
        found = seglens.evaluate(run, Pictures(make=make))
    assert scores(found) == scores(seglens.evaluate(run, Pictures(make=tensors)))


def test_a_loader_is_taken_as_it_picks_and_batches(run):
    subset = DataLoader(Pictures(make=tensors), sampler=SubsetRandomSampler([3, 1]))
    assert [row["index"] for row in seglens.evaluate(run, subset).images] == [0, 1]
    assert [entry.name for entry in seglens.from_torch(subset).entries] == ["00001", "00003"]

    def stacked(items):
        made = [tensors(*item) for item in items]
        return {"image": torch.stack([a for a, _ in made]), "label": torch.stack([b for _, b in made])}

    own = DataLoader(Pictures(), batch_size=2, collate_fn=stacked)
    assert scores(seglens.evaluate(run, own)) == scores(seglens.evaluate(run, Pictures(make=tensors)))


def test_maps_and_judgements_of_a_data_set(run, tmp_path):
    data = Subset(Pictures(make=tensors), [0, 2])
    done = seglens.explain_folder(run, data, out=tmp_path / "maps", methods="saliency", target="truth")
    assert (done.num_done, done.failed) == (2, ())
    assert (tmp_path / "maps/samples/00001/maps.npz").is_file()
    again = seglens.explain_folder(run, data, out=str(tmp_path / "again"), methods="saliency", target="truth")
    hashes = [seglens.results.record.read_record(place.folder).data_sha256 for place in (done, again)]
    assert hashes[0] == hashes[1] != seglens.results.record.sha256([])
    judging = seglens.JudgeSettings(scores=("attention",))
    judged = seglens.judge_folder(run, data, out=tmp_path / "card", methods=("saliency",), judging=judging)
    assert judged.num_done == 2


def test_ignored_pixels_count_nowhere():
    data = Pictures(1, lambda i, m: (tensors(i, m)[0], np.where(m, 255, 0)))
    sample = seglens.from_torch(data, ignore=255)[0]
    assert torch.equal(sample.valid, torch.from_numpy(data[0][1] != 255))
    assert sample.mask is not None
    assert sample.mask.max() == 0
    for value in (0, 1):
        with pytest.raises(SettingError, match=f"value {value} of a mask can't be ignored: it is the class"):
            seglens.from_torch(data, ignore=value)


class Stream(IterableDataset):
    def __iter__(self):
        yield from [Pictures()[0]]


def loader(**settings):
    return DataLoader(Pictures(make=tensors), **settings)


def with_mask(make):
    return Pictures(make=lambda image, mask: (tensors(image, mask)[0], make(mask)))


def changed(make):
    return Pictures(make=lambda image, mask: (make(tensors(image, mask)[0]), mask))


REFUSED = {
    "normalised": (
        changed(lambda image: image - 0.5),
        DataError,
        "Item 0, picture.*raw",
    ),
    "not divided": (
        changed(lambda image: image * 255),
        DataError,
        "Item 0, picture.*Div",
    ),
    "0 and 255": (
        with_mask(lambda m: m * 255),
        MaskValueError,
        "0, 255, but .* 2",
    ),
    "fractions": (
        with_mask(lambda m: m / 255),
        DataError,
        "Item 0, mask: fractions",
    ),
    "one-hot": (
        with_mask(lambda m: np.stack([~m, m])),
        DataError,
        r"Item 0, mask has shape \(2, 24, 32\).*argmax",
    ),
    "sizes": (
        with_mask(lambda m: m[:-1]),
        SizeMismatchError,
        "transform both alike",
    ),
    "picture alone": (Pictures(make=lambda i, m: tensors(i, m)[0]), DataError, "Item 0 is Tensor of float32"),
    "three": (Pictures(make=lambda i, m: (i, m, 3)), DataError, "Item 0 is 3 entries"),
    "two masks": (
        Pictures(make=lambda i, m: {"image": i, "mask": m, "label": m}),
        DataError,
        "image, mask, label",
    ),
    "nothing": (Pictures(0), DataError, "no items"),
    "fewer than it says": (TooLong(2**40), DataError, "Item 4 can't be read: the data set raised IndexError"),
    "no length": (TooLong(-1), SettingError, "TooLong can't say how many items it has.*ValueError"),
    "a huge length": (TooLong(2**70), SettingError, "TooLong can't say how many.*OverflowError"),
    "a stream": (Stream(), SettingError, "Stream can only be run through"),
    "a loader of a stream": (DataLoader(Stream()), SettingError, "Stream can only be run through"),
    "drawn": (loader(sampler=WeightedRandomSampler([1.0] * 4, 4)), SettingError, "WeightedRandomSampler"),
    "own batches": (loader(batch_sampler=[[0, 1], [1, 2]]), SettingError, "list, which may repeat"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(run, case):
    data, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        seglens.evaluate(run, data)


def test_random_transforms_are_found_out():
    noise = torch.Generator().manual_seed(0)
    data = Pictures(2, lambda i, m: (torch.rand(3, 24, 32, generator=noise), m))
    split = seglens.from_torch(data)
    with pytest.raises(DataError, match=r"Item 0 is another one .*augment=True"):
        split[0]


def test_training_on_data_sets(tmp_path):
    settings = seglens.TrainSettings(
        model="unet", width=4, image_size=32, epochs=1, batch_size=2, device="cpu"
    )
    valid = DataLoader(Pictures(2, tensors), batch_size=2)
    data: dict[str, Any] = {"train": Pictures(4, tensors), "valid": valid}
    run = seglens.train(data, settings, tmp_path / "run")
    record = seglens.results.record.read_record(tmp_path / "run")
    assert (record.data, record.results["num_train"], record.results["num_valid"]) == (None, 4, 2)
    assert record.task is not None
    assert record.task.classes == ("background", "foreground")
    assert seglens.evaluate(run, valid).images
    with pytest.raises(SettingError, match="knows no data"):
        seglens.open_split(run)
    seglens.train(data, settings, tmp_path / "run", resume=True)  # the same pictures: it is finished
    with pytest.raises(SettingError, match="not those"):
        seglens.train({**data, "train": Pictures(3, tensors)}, settings, tmp_path / "run", resume=True)


def test_one_data_set_is_dealt_as_a_folder_is():
    noise = torch.rand(20, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    noise[1] = noise[0].flip(-1) * 0.5  # a near-duplicate
    made = torch.utils.data.TensorDataset(noise, torch.zeros(20, 24, 24))
    splits = torch_splits(made).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 14, "valid": 3, "test": 3}
    names = [{entry.name for entry in split.entries} for split in splits.values()]
    assert any({"00000", "00001"} <= each for each in names)


def test_files_of_a_data_set_can_not_be_predicted_but_its_maps_can_be_planned(run, tmp_path):
    data = Pictures(make=tensors)
    with pytest.raises(SettingError, match=r"pictures must be a Split or a list or tuple.*type Pictures"):
        seglens.predict_files(run, data, out=tmp_path / "out")  # type: ignore[arg-type]
    split = seglens.from_torch(data, classes=("background", "pet"))
    with pytest.raises(SettingError, match=r"the 4 items of 'torch' are PyTorch's.*run\.predict\(images\)"):
        seglens.predict_files(run, split, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    planned = seglens.plan_folder(run, split, methods="saliency")
    assert (planned.num_images, planned.large) == (4, None)
