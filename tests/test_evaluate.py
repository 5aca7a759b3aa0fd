"""Evaluation of a network whose answer is known: a pixel is foreground where its first channel is bright."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import seglens
from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task
from seglens.data.transforms import letterbox_image
from seglens.errors import DataError, OutputExistsError, SettingError
from seglens.evaluate import evaluate, native_mask
from seglens.scores import DEFINITIONS


class Bright(nn.Module):
    """Logit of each class but the background: how bright its channel is, above a half."""

    def __init__(self, outputs=1):
        super().__init__()
        self.outputs = outputs

    def forward(self, images):
        if self.outputs == 1:
            return (images[:, :1] - 0.5) * 100
        background = torch.full_like(images[:, :1], 0.5)
        return torch.cat([background, images[:, : self.outputs - 1]], dim=1) * 100


def bright_run(classes=("background", "disc"), size=32):
    outputs = 1 if len(classes) == 2 else len(classes)
    return seglens.wrap(Bright(outputs), classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=size)


def sample(name, predicted, truth, valid=None):
    """A picture for which ``Bright`` predicts ``predicted``."""
    image = torch.stack([(predicted == index).float() for index in (1, 2, 3)])
    return Sample(name, image, truth, torch.ones_like(truth).bool() if valid is None else valid)


def split_of(*samples, classes=("background", "disc"), name="test"):
    """A split that holds ``samples``; an exception is raised in the place of a picture."""
    table = {}
    for index, given in enumerate(samples):
        table[f"broken-{index}" if isinstance(given, Exception) else given.name] = given

    def read(entry):
        if isinstance(table[entry.name], Exception):
            raise table[entry.name]
        return table[entry.name]

    entries = tuple(Entry(name=key, image=Path(f"{key}.png")) for key in table)
    return Split(name, Task(classes=classes), entries, read)


def box(rows, columns, size=32):
    mask = torch.zeros(size, size, dtype=torch.int64)
    mask[rows, columns] = 1
    return mask


TRUTH = box(slice(0, 16), slice(0, 16))
HALF = box(slice(0, 16), slice(8, 24))
NOTHING = torch.zeros(32, 32, dtype=torch.int64)


def test_scores_by_hand():
    found = evaluate(bright_run(), split_of(sample("half", HALF, TRUTH), sample("right", TRUTH, TRUTH)))
    assert [row["name"] for row in found.images] == ["half", "right"]  # the worst first
    half = found.images[0]
    assert half["dice"] == pytest.approx(0.5)
    assert half["iou"] == pytest.approx(1 / 3)
    assert half["precision"] == half["recall"] == pytest.approx(0.5)
    assert half["pixel_accuracy"] == pytest.approx(1 - 256 / 1024)
    assert (half["false_positive_pixels"], half["false_negative_pixels"]) == (128, 128)
    assert (half["truth_pixels"], half["predicted_pixels"]) == (256, 256)
    assert found.pooled["dice"] == pytest.approx(2 * 384 / 1024)
    assert found.pooled["per_class"]["disc"]["iou"] == pytest.approx(384 / 640)
    assert found.per_image["dice"]["mean"] == pytest.approx(0.75)
    assert found.per_image["dice"]["num"] == 2


def test_only_valid_pixels_are_scored():
    valid = torch.zeros(32, 32, dtype=torch.bool)
    valid[:, :16] = True
    found = evaluate(bright_run(), split_of(sample("a", HALF, TRUTH, valid)))
    assert found.images[0]["precision"] == 1
    assert found.images[0]["recall"] == pytest.approx(0.5)


def test_no_object_and_none_found_is_counted_apart():
    found = evaluate(bright_run(), split_of(sample("none", NOTHING, NOTHING), sample("half", HALF, TRUTH)))
    assert {row["name"]: row["status"] for row in found.images} == {"none": "empty", "half": "ok"}
    assert found.to_json()["num_empty"] == 1
    assert found.per_image["dice"]["mean"] == pytest.approx(0.75)
    missed = evaluate(bright_run(), split_of(sample("missed", NOTHING, TRUTH)))
    assert missed.images[0]["precision"] != missed.images[0]["precision"]
    assert missed.per_image["precision"]["num"] == 0


def test_several_classes():
    classes = ("background", "disc", "box")
    truth = torch.zeros(32, 32, dtype=torch.int64)
    truth[:8], truth[8:16] = 1, 2
    predicted = truth.clone()
    predicted[8:12] = 1
    found = evaluate(bright_run(classes), split_of(sample("a", predicted, truth), classes=classes))
    disc, other = 2 * 8 / (8 + 12), 2 * 4 / (8 + 4)
    assert found.pooled["per_class"]["disc"]["dice"] == pytest.approx(disc)
    assert found.pooled["per_class"]["box"]["dice"] == pytest.approx(other)
    assert found.pooled["dice"] == pytest.approx((disc + other) / 2)
    assert found.images[0]["false_positive_pixels"] == found.images[0]["false_negative_pixels"] == 4 * 32


@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (20, 12)])
def test_scored_at_native_size_whatever_the_network_takes(shape, tmp_path):
    mask = torch.zeros(shape, dtype=torch.int64)
    mask[shape[0] // 4 : shape[0] // 2, : shape[1] // 2] = 1
    split = split_of(sample("a", mask, mask))
    found = evaluate(bright_run(), split, out=tmp_path / "out", save_images=True)
    row = found.images[0]
    assert row["truth_pixels"] == int(mask.sum())
    assert row["dice"] > 0.9
    for file in row["files"].values():
        with Image.open(tmp_path / "out" / file) as picture:
            assert picture.size == (shape[1], shape[0])


def test_probabilities_are_scaled_not_masks():
    # Half a pixel of the grid: a mask scaled by nearest would be off by a pixel of the picture.
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    _, frame = letterbox_image(image, 32)
    ramp = torch.linspace(0, 1, 32).expand(32, 32)
    mask = native_mask(torch.stack([1 - ramp, ramp]), frame, bright_run().spec)
    expected = torch.nn.functional.interpolate(ramp[None, None], size=(64, 64), mode="bilinear")[0, 0] >= 0.5
    assert torch.equal(mask, expected.long())


def test_broken_pictures_are_listed_and_the_rest_is_done(tmp_path):
    unlabelled = Sample("unlabelled", torch.zeros(3, 32, 32), None, torch.ones(32, 32, dtype=torch.bool))
    ignored = sample("ignored", TRUTH, TRUTH, torch.zeros(32, 32, dtype=torch.bool))
    out_of_range = sample("range", TRUTH, TRUTH * 9)
    good = sample("good", HALF, TRUTH)
    split = split_of(DataError("a.png can't be read"), good, unlabelled, ignored, out_of_range)
    found = evaluate(bright_run(), split, out=tmp_path / "out", save_images=True, batch_size=2)
    assert found.images[0]["name"] == "good"
    assert {row["name"]: row["error"] for row in found.failed} == {
        "broken-0": "a.png can't be read",
        "unlabelled": "The picture has no mask to compare with.",
        "ignored": "No pixel of the picture is valid.",
        "range": "Mask values run from 0 to 9, allowed are 0 to 1 (2 classes). "
        "Name the classes, or correct the masks.",
    }
    assert found.per_image["dice"] == found.per_image["dice"] | {"num": 1, "mean": pytest.approx(0.5)}
    with pytest.raises(DataError, match=r"None of the 1 pictures .* The first, broken-0: b\.png"):
        evaluate(bright_run(), split_of(DataError("b.png")), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_batch_size_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    samples = []
    for index in range(5):
        predicted, truth = (torch.randint(2, (32, 40), generator=generator) for _ in range(2))
        samples.append(sample(f"s{index}", predicted, truth))
    one, five = (evaluate(bright_run(), split_of(*samples), batch_size=size) for size in (1, 5))
    assert one == five


def test_the_folder(tmp_path):
    samples = [sample("a/b", HALF, TRUTH), sample("a_b", TRUTH, TRUTH)]
    found = evaluate(bright_run(), split_of(*samples), out=tmp_path / "out", save_images=True)
    folder = tmp_path / "out"
    assert sorted(file.name for file in folder.iterdir()) == [
        "run.json",
        "samples",
        "scores.csv",
        "scores.json",
    ]
    assert sorted(file.name for file in (folder / "samples").iterdir()) == ["a_b", "a_b-2"]
    files = sorted(file.name for file in (folder / "samples/a_b-2").iterdir())
    assert files == ["gt.png", "metrics.json", "orig.png", "overlay.png", "pred.png"]
    written = json.loads((folder / "scores.json").read_text())
    assert written == json.loads(json.dumps(found.to_json()))
    assert written["definitions"] == DEFINITIONS
    metrics = json.loads((folder / "samples/a_b/metrics.json").read_text())
    assert metrics == written["images"][0]
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["a/b", "a_b"]
    assert float(rows[0]["dice"]) == pytest.approx(0.5)
    record = json.loads((folder / "run.json").read_text())
    assert (record["kind"], record["state"], record["settings"]["split"]) == ("evaluate", "finished", "test")
    with Image.open(folder / "samples/a_b/pred.png") as picture:
        assert picture.convert("RGB").getpixel((20, 4)) == (
            0xE6,
            0x9F,
            0x00,
        )  # the palette's colour of class 1


def test_an_existing_result_is_kept(tmp_path):
    split = split_of(sample("a", HALF, TRUTH))
    evaluate(bright_run(), split, out=tmp_path / "out")
    with pytest.raises(OutputExistsError, match="exists already"):
        evaluate(bright_run(), split, out=tmp_path / "out")
    evaluate(bright_run(), split, out=tmp_path / "out", force=True)
    assert not [file for file in tmp_path.iterdir() if "partial" in file.name]


def test_what_cannot_be_evaluated_says_why(tmp_path):
    split = split_of(sample("a", HALF, TRUTH))
    with pytest.raises(DataError, match="The test split is empty"):
        evaluate(bright_run(), split_of())
    with pytest.raises(SettingError, match=r"model has 3 classes \(background, a, b\), the data have 2"):
        evaluate(bright_run(("background", "a", "b")), split)
    with pytest.raises(SettingError, match="at least 1, received 0"):
        evaluate(bright_run(), split, batch_size=0)
    with pytest.raises(SettingError, match="run without folder"):
        evaluate(bright_run(), split, save_images=True)
