"""Regions of volumes, which overlap: from a set on disk to the report. Oracle: the files' own label maps."""

import json
from pathlib import Path
from typing import Any

import nibabel as nibabel_untyped
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from tests.multilabel.networks import TwoLabels

import seglens
from seglens.data.check import check_data
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.sample import Sample, Task
from seglens.data.volumes import Grid
from seglens.errors import DataError, MaskValueError, SettingError
from seglens.folder import explain_folder, judge_folder, predict_files
from seglens.folder.writer import label_maps, write_prediction
from seglens.inspection.clicks import class_at
from seglens.inspection.drawing import predicted_over
from seglens.inspection.opened import open_sample
from seglens.inspection.sentences import about_picture
from seglens.judge.case import JudgeSettings
from seglens.masks import foreground, of_class, only_valid, painted
from seglens.report import report
from seglens.runs.data import open_split

nibabel: Any = nibabel_untyped

SHAPE = (14, 16, 9)
AFFINE = np.array([[0.0, -1.0, 0, 5], [1, 0, 0, 7], [0, 0, 1.5, -3], [0, 0, 0, 1]])
LABELS: dict[str, Any] = {"core": [2], "background": 0, "whole": [1, 2], "shell": 1}
ORDER = [2, 1, 1]
"""Written so, whole covers all of the core: a label map tells whether the order was kept."""


def region_set(folder: Path, num: int = 6, **described: object) -> Path:
    """A bright core in a less bright ball, in nnU-Net's layout; two volumes are the test split."""
    generator = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    for number in range(num):
        centre = generator.uniform((5, 5, 3), (9, 11, 6))
        away = ((places - centre[:, None, None, None]) ** 2).sum(0)
        truth = (away < 16).astype(np.uint8) + (away < 5)
        picture = 100 + 300.0 * truth + generator.normal(0, 20, SHAPE)
        part = "Ts" if number >= num - 2 else "Tr"
        for kind, values in ((f"images{part}", picture.astype(np.int16)), (f"labels{part}", truth)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            name = f"ball{number}{'_0000' * (kind[0] == 'i')}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(values, AFFINE), folder / kind / name)
    text = {"channel_names": {"0": "MRI"}, "labels": LABELS, "regions_class_order": ORDER} | described
    (folder / "dataset.json").write_text(json.dumps(text | {"file_ending": ".nii.gz"}))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    settings = seglens.TrainSettings(
        model="unet3d",
        width=4,
        image_size=16,
        epochs=8,
        batch_size=1,
        learning_rate=0.02,
        loggers=("none",),
        device="cpu",
    )
    return seglens.train(DataSettings(path=region_set(folder / "set")), settings, folder / "run")


def truth_of(run, name: str) -> np.ndarray:
    """The label map of a test volume as its file has it."""
    return np.asarray(nibabel.load(run.folder.parent / f"set/labelsTs/{name}.nii.gz").dataobj)


def ml_of(given: float | None) -> float:
    assert given is not None
    return given


REGIONS = {"core": (2,), "whole": (1, 2), "shell": (1,)}


def test_regions_are_read_as_a_mask_each(tmp_path):
    folder = region_set(tmp_path / "set")
    dataset = open_data(DataSettings(path=folder))
    task = dataset.task
    assert (task.classes, task.multilabel) == (("background", *REGIONS), True)
    assert (task.regions, task.region_order) == (((2,), (1, 2), (1,)), (2, 1, 1))
    sample = dataset.split("test")[0]
    assert sample.mask is not None
    assert sample.grid is not None
    truth = np.asarray(nibabel.load(folder / f"labelsTs/{sample.name}.nii.gz").dataobj)
    for layer, labels in zip(sample.mask, REGIONS.values(), strict=True):
        assert (sample.grid.from_zyx(layer.numpy()) == np.isin(truth, labels)).all()
    assert open_data(DataSettings(path=folder, multilabel=True)).task == task
    found = check_data(DataSettings(path=folder))
    assert found.num_errors == 0
    every = [np.asarray(nibabel.load(file).dataobj) for file in sorted(folder.glob("labels*/*.nii.gz"))]
    shares = {share.name: share.pixels for share in found.classes}
    for name, labels in REGIONS.items():
        assert shares[name] == pytest.approx(np.mean([np.isin(each, labels).mean() for each in every]))
    assert seglens.show_data(DataSettings(path=folder), tmp_path / "shown.png").is_file()


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"regions_class_order": None}, r"3 regions \(core, whole, shell\), and regions_class_order is None"),
        ({"regions_class_order": [1, 2]}, r"regions_class_order is \[1, 2\].*such as \[2, 1, 1\]"),
        ({"regions_class_order": [1, 2, 3]}, r"regions_class_order is \[1, 2, 3\]"),
        ({"labels": {"background": 0, "all": [0, 1, 2]}}, r"the region 'all' holds it"),
        ({"labels": {"whole": [1, 2], "some": []}}, r"'some' the value \[\]; allowed is a whole number"),
        ({"labels": {"background": 0, "whole": [1, 3]}}, r"labels \[0, 1, 3\]; allowed are 0, 1, 2, \.\.\. "),
    ],
)
def test_regions_that_are_not_understood_are_refused(tmp_path, described, message):
    with pytest.raises(DataError, match=message):
        open_data(DataSettings(path=region_set(tmp_path, **described)))


def test_labels_of_no_region_and_the_ignored_one(tmp_path):
    labels = {"background": 0, "all": [1, 2], "ignore": 3}
    folder = region_set(tmp_path, labels=labels, regions_class_order=[1])
    split = open_data(DataSettings(path=folder)).split("test")
    file = folder / f"labelsTs/{split[0].name}.nii.gz"
    truth = np.asarray(nibabel.load(file).dataobj)
    truth[0] = 3
    nibabel.save(nibabel.Nifti1Image(truth, AFFINE), file)
    sample = split[0]
    assert sample.mask is not None
    assert int(sample.valid.sum()) == int((truth < 3).sum())
    assert int(sample.mask.sum()) == int(np.isin(truth, (1, 2)).sum())
    truth[0] = 4
    nibabel.save(nibabel.Nifti1Image(truth, AFFINE), file)
    with pytest.raises(MaskValueError, match=r"holds the label 4; allowed are 0 to 2, which background"):
        split[0]
    region_set(tmp_path / "plain", labels={"background": 0, "a": 1, "b": 2})
    with pytest.raises(SettingError, match="single labels, which never overlap"):
        open_data(DataSettings(path=tmp_path / "plain", multilabel=True))


def test_masks_of_volumes_are_asked_as_those_of_pictures():
    index = torch.randint(0, 3, (2, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    stack = torch.stack([index == 1, index == 2], 1)
    valid = torch.rand(index.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    for class_index in range(3):
        assert torch.equal(of_class(stack, class_index, 3), of_class(index, class_index, 3))
    assert torch.equal(foreground(stack, 3), foreground(index, 3))
    assert torch.equal(
        of_class(only_valid(stack, valid, 3), 2, 3), of_class(only_valid(index, valid, 3), 2, 3)
    )
    assert torch.equal(painted(stack[0], (1, 2)), index[0])


def test_the_order_of_regions_says_which_label_is_written(trained):
    # As nnU-Net's LabelManager.convert_probabilities_to_segmentation: one region after another.
    sample = open_split(trained)[0]
    expected = np.zeros(SHAPE, np.int64)
    for labels, number in zip(REGIONS.values(), ORDER, strict=True):
        expected[np.isin(truth_of(trained, sample.name), labels)] = number
    assert sample.mask is not None
    assert sample.grid is not None
    (found,) = label_maps(trained.task, sample.mask).values()
    assert (sample.grid.from_zyx(found.numpy()) == expected).all()


def test_scores_are_those_of_each_region(trained):
    assert (trained.spec.head, trained.spec.outputs, trained.spec.dims) == ("multilabel", 3, 3)
    found = seglens.evaluate(trained, open_split(trained), save_images=True)
    sums = np.zeros((3, 2))
    split = open_split(trained)
    for number in range(len(split)):
        sample = split[number]
        summary = predict_files(
            trained,
            [trained.folder.parent / f"set/imagesTs/{sample.name}_0000.nii.gz"],
            out=trained.folder.parent / f"predicted{number}",
        )
        assert not summary.failed
        written = np.asarray(
            nibabel.load(summary.folder / f"masks/{sample.name}_0000.nii.gz").dataobj
        )  # whole over core: the core can't be told from this order
        assert set(np.unique(written)) <= {0, 1, 2}
        scores = found.images[number].classes
        truth = truth_of(trained, sample.name)
        for place, (name, labels) in enumerate(REGIONS.items()):
            true = np.isin(truth, labels)
            assert scores[name].truth_ml == pytest.approx(true.sum() * 1.5 / 1000)
            guess = ml_of(scores[name].predicted_ml) / 1.5 * 1000
            sums[place] += [scores[name].dice * (true.sum() + guess) / 2, true.sum() + guess]
        assert (written > 0).sum() >= ml_of(scores["whole"].predicted_ml) / 1.5 * 1000 - 1e-6
    pooled = [found.pooled["per_class"][name]["dice"] for name in REGIONS]
    assert pooled == pytest.approx(2 * sums[:, 0] / sums[:, 1])
    assert pooled[1] > 0.5  # it has learned something, so that maps are about something


def test_surface_scores_of_a_region_are_those_of_its_mask(trained, tmp_path):
    """HD95 in mm of the whole ball against scipy's distance transform."""
    found = seglens.evaluate(trained, open_split(trained), out=tmp_path / "scores")
    sample = open_split(trained)[0]
    out = explain_folder(
        trained,
        open_split(trained),
        out=trained.folder / "explain/test",
        methods=("grad-cam", "saliency"),
        layers=("encoder_last",),
        class_name="whole",
        samples=(0,),
        montage="coronal",
    ).folder
    (card,) = json.loads((out / "explanations.json").read_text())["samples"]
    assert [entry["status"] for entry in card["maps"]] == ["ok", "ok"]
    drawn = {each["title"]: out / each["file"] for each in card["sheets"]}
    assert {"montage@grad-cam@encoder_last", "montage@saliency"} < set(drawn)
    with Image.open(drawn["montage@saliency"]) as page:  # 14 coronal slices: three lines of six
        assert page.width > page.height
    slices = np.load(out / card["files"]["slices"])
    core, whole, shell = ((slices["prediction"] >> bit) & 1 for bit in range(3))
    assert sample.mask is not None
    assert sample.grid is not None
    for bit, layer in enumerate(sample.mask):
        assert (((slices["truth"] >> bit) & 1) == layer.numpy()).all()
    written = np.asarray(nibabel.load(out / card["files"]["pred volume"]).dataobj)
    assert (sample.grid.to_zyx(written) == np.where(shell | whole, 1, 2 * core)).all()
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (whole > 0, sample.mask[1].numpy())]
    away = [ndimage.distance_transform_edt(~surface, (1.5, 1.0, 1.0)) for surface in surfaces]
    farther = max(np.percentile(away[1 - n][surfaces[n]], 95) for n in range(2))
    assert found.images[0].classes["whole"].hd95 == pytest.approx(farther)


def test_all_commands_take_regions(trained, tmp_path):
    card = judge_folder(
        trained,
        open_split(trained),
        out=trained.folder / "judge/test",
        layers="encoder_last",
        num_images=1,
        judging=JudgeSettings(scores=("faithfulness", "stability"), cells="grid", across=4, num_again=2),
    ).card
    assert card is not None
    assert card.rows
    page = report([trained.folder], out=tmp_path / "report.html")
    text = page.read_text()
    for name in REGIONS:
        assert name in text
    opened = open_sample(trained, open_split(trained), 0)
    assert np.asarray(predicted_over(trained, opened)).std() > 5
    assert "whole" in about_picture(trained, opened)
    centre = [int(v) for v in opened.mask[1].nonzero().double().mean(0).round()]
    said = class_at("component", opened, (centre[2], centre[1], centre[0]), trained.task)
    assert said in (None, "whole")  # None where the core is there, too


def test_labels_without_an_order_are_a_mask_each(tmp_path):
    task = Task(classes=("background", "a", "b"), multilabel=True)
    module = TwoLabels()
    module.mix = torch.nn.Conv3d(2, 2, 1)  # type: ignore[assignment]
    run = seglens.wrap(
        module.eval(),
        classes=("a", "b"),
        head="multilabel",
        channels=2,
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        image_size=8,
        outputs_are="logits",
    )
    assert run.task == task
    grid = Grid(SHAPE, AFFINE)
    shape = grid.to_zyx(np.zeros(SHAPE)).shape
    mask = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) > 0.5
    sample = Sample("v", torch.rand(2, *shape), None, torch.ones(shape, dtype=torch.bool), grid)
    for name in ("masks/a", "masks/b", "overlays"):
        (tmp_path / name).mkdir(parents=True)
    row = write_prediction(run, sample, mask, tmp_path, "v")
    for number, name in enumerate("ab"):
        written = np.asarray(nibabel.load(tmp_path / str(row[f"mask {name}"])).dataobj)
        assert (written == grid.from_zyx(mask[number].numpy())).all()
        assert row[f"{name} pixels"] == int(mask[number].sum())
        assert row[f"{name} ml"] == pytest.approx(int(mask[number].sum()) * 1.5 / 1000)
