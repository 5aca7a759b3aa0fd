"""From a set on disk to masks, scores, maps and a scorecard of labels that overlap."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tests.multilabel.networks import two_labels
from tests.multilabel.sets import picture, write_coco, write_folders

import seglens
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.errors import SettingError
from seglens.folder import explain_folder, judge_folder, predict_files
from seglens.inspection.clicks import class_at
from seglens.inspection.drawing import predicted_over
from seglens.inspection.explaining import ExplainRequest, explain_picture
from seglens.inspection.opened import open_sample
from seglens.inspection.removing import remove_region, target_of
from seglens.inspection.sentences import about_picture
from seglens.runs.data import open_split

NUM = {"train": 8, "valid": 3, "test": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a set in the layout ``coco``."""
    folder = tmp_path_factory.mktemp("multilabel")
    data = DataSettings(path=write_coco(folder / "coco", num=NUM), multilabel=True)
    settings = seglens.TrainSettings(
        width=8, image_size=32, epochs=30, batch_size=4, learning_rate=0.01, loggers=("none",), device="cpu"
    )
    return seglens.train(data, settings, folder / "run")


def test_training_finds_both_labels_where_they_overlap(trained):
    assert trained.spec.head == "multilabel"
    assert trained.spec.outputs == 2
    results = json.loads((trained.folder / "run.json").read_text())["results"]
    assert list(results["thresholds"]) == ["man", "shirt"]
    assert trained.spec.thresholds == tuple(each["threshold"] for each in results["thresholds"].values())
    found = seglens.evaluate(trained, open_split(trained), save_images=True)
    assert found.pooled["per_class"]["man"]["dice"] > 0.9
    assert found.pooled["per_class"]["shirt"]["dice"] > 0.9
    # The pooled Dice is their mean, and each that of its own masks, counted here once more by hand.
    sums = np.zeros((2, 2))
    for sample in map(open_split(trained).__getitem__, range(3)):
        said = trained.predict(sample.image[None]).mask[0]
        assert sample.mask is not None
        sums += [
            [2 * int((a & b).sum()), int(a.sum() + b.sum())] for a, b in zip(said, sample.mask, strict=True)
        ]
    by_hand = sums[:, 0] / sums[:, 1]
    assert [found.pooled["per_class"][name]["dice"] for name in ("man", "shirt")] == pytest.approx(by_hand)
    assert found.pooled["dice"] == pytest.approx(by_hand.mean())
    assert np.isnan(found.pooled["pixel_accuracy"])
    assert (trained.folder / "evaluate/test/samples/test-0/overlay.png").is_file()


def test_masks_are_written_one_file_a_class_and_read_back(trained, tmp_path):
    split = open_split(trained)
    predict_files(trained, split, out=tmp_path / "said")
    for index in range(len(split)):
        said = trained.predict(split[index].image[None]).mask[0]
        for label, layer in zip(("man", "shirt"), said, strict=True):
            written = np.asarray(Image.open(tmp_path / f"said/masks/{label}/test-{index}.png"))
            assert np.array_equal(written, layer.numpy() * np.uint8(255))
    with (tmp_path / "said/table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert int(rows[0]["man pixels"]) == int(trained.predict(split[0].image[None]).mask[0, 0].sum())
    # Beside their pictures they are a set of their own, on which the model is right everywhere.
    images = tmp_path / "said/images"
    images.mkdir()
    for entry in split.entries:
        shutil.copy(entry.image, images)
    again = open_data(DataSettings(path=tmp_path / "said", multilabel=True))
    found = seglens.evaluate(trained, again.split("all"), out=tmp_path / "scores")
    assert found.pooled["per_class"]["shirt"]["dice"] == 1


def test_maps_and_scorecard_of_a_class_by_name(trained, tmp_path):
    split = open_split(trained)
    explain_folder(
        trained, split, out=tmp_path / "maps", target=("predicted", "false-negative"), class_name="shirt"
    )
    found = json.loads((tmp_path / "maps/explanations.json").read_text())
    assert found["class"] == "shirt"
    area = found["samples"][0]["maps"][0]["statistics"]["prediction_ratio"]
    assert area == pytest.approx(
        float(trained.predict(split[0].image[None]).mask[0, 1].float().mean()), abs=1e-6
    )
    assert found["samples"][0]["files"]["overlay"]
    settings = seglens.JudgeSettings(num_occluded=1, num_again=1)
    judge_folder(trained, split, out=tmp_path / "card", class_name="shirt", judging=settings)
    assert json.loads((tmp_path / "card/scorecard.json").read_text())["rows"]
    with pytest.raises(SettingError, match="class 0 of a multilabel model"):
        explain_folder(trained, split, out=tmp_path / "none", class_name="background")


def test_large_pictures_in_windows(trained, tmp_path):
    pixels, man, shirt = (np.tile(each, (2, 2, 1)[: each.ndim]) for each in picture(7))
    Image.fromarray(pixels).save(tmp_path / "large.png")
    predict_files(trained, [tmp_path / "large.png"], out=tmp_path / "said", tiles="always")
    for label, truth in (("man", man), ("shirt", shirt)):
        said = np.asarray(Image.open(tmp_path / f"said/masks/{label}/large.png")) > 0
        assert 2 * (said & truth).sum() / (said.sum() + truth.sum()) > 0.8
    done = explain_folder(
        trained, [tmp_path / "large.png"], out=tmp_path / "maps", tiles="always", class_name="shirt"
    )
    assert done.num_done == 1


def test_the_page_asks_about_a_label(trained):
    split = open_split(trained)
    opened = open_sample(trained, split, 0)
    answer = explain_picture(trained, opened, ExplainRequest(class_name="shirt"))
    assert answer.status == "ok"
    assert torch.equal(
        answer.explanation.target.pixels[0], opened.prediction.mask[0, 1] & opened.sample.valid
    )
    assert opened.sample.mask is not None
    rows, columns = opened.sample.image.shape[1:]
    man, shirt = opened.sample.mask
    for region, name in ((man & ~shirt, "man"), (shirt & ~man, "shirt"), (man & shirt, None)):
        y, x = divmod(int(region.flatten().nonzero()[0]), columns)
        assert class_at("truth-component", opened, (x, y), trained.task) == name
    brushed = torch.zeros(rows, columns, dtype=torch.bool)
    brushed[: rows // 2] = True
    removal = remove_region(trained, opened, brushed, target_of(trained, opened, "shirt", None))
    assert predicted_over(trained, opened).size
    assert "shirt" in about_picture(trained, opened)
    assert removal.before.area == pytest.approx(float(opened.prediction.mask[0, 1].float().mean()))


def test_data_of_another_kind_are_refused(trained, tmp_path):
    data = DataSettings(path=write_coco(tmp_path / "coco", num=NUM), merge=False)
    with pytest.raises(
        SettingError, match=r"the model may overlap, those of the data hold one class a pixel"
    ):
        seglens.evaluate(trained, open_data(data).split("test"))


def test_a_wrapped_model_reads_other_data_as_its_own(tmp_path):
    folder = write_folders(tmp_path / "set", num={"test": 2})
    found = seglens.evaluate(two_labels(), open_split(two_labels(), data=folder))
    assert found.classes == ("background", "man", "shirt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "ce"}, "'ce' doesn't fit a multilabel model with 2 output channels"),
        ({"loss": "lovasz"}, "Choose one of: bce.dice, bce, dice, focal, tversky"),
        ({"balanced": True}, "a multilabel model takes none"),
    ],
)
def test_settings_that_mean_nothing_here(tmp_path, change, message):
    data = DataSettings(path=write_folders(tmp_path / "set", num=NUM), multilabel=True)
    settings = seglens.TrainSettings(
        width=4, image_size=32, epochs=1, loggers=("none",), device="cpu", **change
    )
    with pytest.raises(SettingError, match=message):
        seglens.train(data, settings, tmp_path / "run")


def test_weak_supervision_is_not_for_overlapping_classes(tmp_path):
    data = DataSettings(path=write_folders(tmp_path / "set", num=NUM), multilabel=True)
    with pytest.raises(SettingError, match="'seglens weak' learns one class a pixel"):
        seglens.weak(data, seglens.WeakSettings(labels="folders"), tmp_path / "run")


def test_report_and_comparison(trained, tmp_path):
    seglens.report([trained.folder])
    other = tmp_path / "other"
    shutil.copytree(trained.folder, other)
    seglens.compare([trained.folder, other], out=tmp_path / "compared")
