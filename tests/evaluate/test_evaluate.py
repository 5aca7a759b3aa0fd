"""Evaluation of a network whose answer is known: a pixel is foreground where its first channel is bright."""

import csv
import json
import weakref
from pathlib import Path

import pytest
import tifffile
import torch
from PIL import Image
from tests.evaluated import (
    HALF,
    NOTHING,
    TRUTH,
    bright_run,
    random_samples,
    sample,
    split_of,
)

from seglens.data.images import read_image
from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task
from seglens.data.transforms import letterbox_image
from seglens.errors import DataError, OutputExistsError, SettingError, UnknownNameError
from seglens.evaluate import evaluate, mask_at_original_size
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict.original import decide
from seglens.results.record import to_json
from seglens.results.scores import SCORES, SURFACES
from seglens.runs import Run


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


def test_where_no_picture_shows_the_class_there_is_no_score():
    """Nothing marked and nothing found would be a Dice of 1."""
    found = evaluate(bright_run(), split_of(sample("one", NOTHING, NOTHING), sample("two", NOTHING, NOTHING)))
    assert found.not_shown == ("None of 2 pictures shows disc.",)
    told = json.loads(to_json(found.to_json()))
    for name in ("dice", "iou", "precision", "recall"):
        assert told["pooled"][name] is None, name
        assert told["per_image"][name]["mean"] is None, name
    assert all(row["dice"] != 1 for row in found.images)


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
    mask = mask_at_original_size(torch.stack([1 - ramp, ramp]), frame, bright_run().spec)
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
    assert (found.per_image["dice"].num, found.per_image["dice"].mean) == (1, pytest.approx(0.5))
    with pytest.raises(DataError, match=r"0 of 1 picture .* The first, broken-0: b\.png"):
        evaluate(bright_run(), split_of(DataError("b.png")), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_batch_size_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    samples = []
    for index in range(5):
        predicted, truth = (torch.randint(2, (32, 40), generator=generator) for _ in range(2))
        samples.append(sample(f"s{index}", predicted, truth))
    one, five = (evaluate(bright_run(), split_of(*samples), batch_size=size) for size in (1, 5))
    assert to_json(one.to_json()) == to_json(five.to_json())  # as text, since NaN is not NaN


def test_the_folder(tmp_path):
    samples = [sample("a/b", HALF, TRUTH), sample("a_b", TRUTH, TRUTH)]
    found = evaluate(bright_run(), split_of(*samples), out=tmp_path / "out", save_images=True)
    folder = tmp_path / "out"
    assert sorted(file.name for file in folder.iterdir()) == [
        "objects.csv",
        "reliability.png",
        "run.json",
        "samples",
        "scores.csv",
        "scores.json",
    ]
    assert sorted(file.name for file in (folder / "samples").iterdir()) == ["a_b", "a_b-2"]
    files = sorted(file.name for file in (folder / "samples/a_b-2").iterdir())
    assert files == ["gt.png", "metrics.json", "orig.png", "overlay.png", "pred.png"]
    written = json.loads((folder / "scores.json").read_text())
    assert written == json.loads(to_json(found.to_json()))
    assert written["definitions"].keys() > {*SCORES, *SURFACES, "pooled", "per_image", "ece", "threshold"}
    metrics = json.loads((folder / "samples/a_b/metrics.json").read_text())
    assert metrics == written["images"][0]
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["a/b", "a_b"]
    assert float(rows[0]["hd95"]) == pytest.approx(8)  # a square moved by 8 pixels
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
    with pytest.raises(SettingError, match=r"model has background, a, b; the data have background, disc"):
        evaluate(bright_run(("background", "a", "b")), split)
    with pytest.raises(SettingError, match="batch_size is 0, but must be from 1 to 65536"):
        evaluate(bright_run(), split, batch_size=0)
    with pytest.raises(SettingError, match="Unknown precision 'half'"):
        evaluate(bright_run(), split, precision="half")
    with pytest.raises(UnknownNameError, match="rule for tiles 'sometimes'"):
        evaluate(bright_run(), split, tiles="sometimes")
    with pytest.raises(SettingError, match="run without folder"):
        evaluate(bright_run(), split, save_images=True)


def test_large_pictures_are_scored_at_the_scale_of_the_training():
    """Stripes of one pixel are gone once the picture is scaled down, and there in windows."""
    stripes = torch.zeros(100, 70, dtype=torch.int64)
    stripes[::2] = 1
    split = split_of(sample("stripes", stripes, stripes))
    run = bright_run()
    known = Run(Segmenter(run.segmenter.module, run.spec.model_copy(update={"scale": 1.0})), run.task)
    assert evaluate(known, split).pooled["dice"] == 1
    assert evaluate(run, split, tiles="always").pooled["dice"] == 1
    for found in (evaluate(run, split), evaluate(known, split, tiles="never")):
        assert found.pooled["dice"] < 0.8
    assert evaluate(run, split, tiles="always").settings["tiles"] == "always"


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_decisions(head):
    classes = 2 if head == "sigmoid" else 3
    spec = ModelSpec(architecture="unet", head=head, classes=classes, threshold=0.3)
    probabilities = torch.rand(classes, 4, 5)
    expected = [
        [
            int(probabilities[1, y, x] >= 0.3)
            if head == "sigmoid"
            else max(range(3), key=lambda k: float(probabilities[k, y, x]))
            for x in range(5)
        ]
        for y in range(4)
    ]
    assert decide(probabilities, spec).tolist() == expected


def test_bfloat16_scores_are_near_and_are_said_to_be(tmp_path):
    split = split_of(*random_samples(3))
    exact, rough = (evaluate(bright_run(), split, precision=name) for name in ("32", "bf16"))
    assert rough.pooled["dice"] == pytest.approx(exact.pooled["dice"], abs=0.02)
    assert rough.settings["precision"] == "bf16"
    evaluate(bright_run(), split, precision="bf16", tiles="never", out=tmp_path / "out")
    settings = json.loads((tmp_path / "out/run.json").read_text())["settings"]
    assert settings == settings | {"precision": "bf16", "tta": False, "tiles": "never", "threshold": 0.5}


def test_pictures_are_let_go(monkeypatch):
    """However many there are: those that are read ahead, those in a batch, and those being scored."""
    monkeypatch.setattr("seglens.runtime.threads.os.cpu_count", lambda: 2)
    alive: set[int] = set()
    most = []

    def read(entry):
        made = sample(entry.name, HALF, TRUTH)
        alive.add(int(entry.name))
        weakref.finalize(made, alive.discard, int(entry.name))
        most.append(len(alive))
        return made

    entries = tuple(Entry(name=str(index), image=Path(f"{index}.png")) for index in range(80))
    evaluate(bright_run(), Split("test", Task(), entries, read), batch_size=2)
    assert len(most) == 80
    assert max(most) < 20


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_with_values_that_are_no_numbers_is_named(value, tmp_path):
    pixels = torch.rand(32, 32, 3).numpy().astype("float32")
    pixels[3, 4, 1] = value
    tifffile.imwrite(tmp_path / "torn.tif", pixels, photometric="rgb")
    entries = (Entry("torn", tmp_path / "torn.tif"),)
    right = sample("right", TRUTH, TRUTH)

    def read(entry):
        image = read_image(entry.image, 3)
        return Sample(entry.name, image, TRUTH, torch.ones(32, 32, dtype=torch.bool))

    with pytest.raises(DataError, match=r"torn\.tif.*1 of its values are not finite"):
        evaluate(bright_run(), Split("test", Task(classes=("background", "disc")), entries, read))
    image = right.image.clone()
    image[0, 3, 4] = value
    broken = Sample("broken", image, TRUTH, right.valid)
    rows = {row["name"]: row for row in evaluate(bright_run(), split_of(right, broken)).images}
    assert (rows["right"]["status"], rows["right"]["dice"]) == ("ok", 1.0)
    assert (rows["broken"]["status"], "dice" in rows["broken"]) == ("failed", False)
    assert "picture 'broken' is not finite (NaN or infinity)" in rows["broken"]["error"]
