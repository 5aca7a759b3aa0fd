"""Every command on volumes, from training to the report. Oracle: the files' own voxels, affines and sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglens.report.cards import cards_of
from seglens.report.contents import read_run

nibabel = pytest.importorskip("nibabel", reason="needs the extra medical")

SHAPE = (14, 16, 9)
AFFINE = np.array([[0.0, -1.0, 0, 5], [1, 0, 0, 7], [0, 0, 1.5, -3], [0, 0, 0, 1]])
"""Turned: i runs to the front, j to the left, slices are 1.5 mm thick."""


def volume_set(folder: Path, num: int = 6) -> Path:
    """Bright balls on dark noise, in nnU-Net's layout; two volumes are the test split."""
    generator = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    for number in range(num):
        centre = generator.uniform((5, 5, 3), (9, 11, 6))
        ball = ((places - centre[:, None, None, None]) ** 2).sum(0) < 10
        part = "Ts" if number >= num - 2 else "Tr"
        for kind, values in (("images", 300 * ball + generator.normal(100, 20, SHAPE)), ("labels", ball)):
            (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
            name = f"ball{number}{'_0000' * (kind == 'images')}.nii.gz"
            dtype = np.int16 if kind == "images" else np.uint8
            nibabel.save(nibabel.Nifti1Image(values.astype(dtype), AFFINE), folder / f"{kind}{part}" / name)
    text = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(text))
    return folder


@pytest.fixture
def trained(seglens, tmp_path) -> Path:
    data = volume_set(tmp_path / "set")
    words = "--model unet3d --image-size 16 --width 2 --epochs 2 --batch-size 2 --run balls"
    ended = seglens("train", data, *words.split())
    assert (ended.code, ended.err) == (0, "")
    return tmp_path / "balls"


def test_from_training_to_the_report(seglens, tmp_path, trained):
    record = json.loads((trained / "run.json").read_text())
    assert (record["model"]["dims"], record["model"]["intensities"]) == (3, [None])
    assert record["model"]["scale"] == 1.0  # 16 rows of 1 mm are the longest side, in a cube of 16

    ended = seglens("train", "--resume", "--run", trained)
    assert (ended.code, "is finished: there is nothing to resume" in ended.err) == (0, True)

    ended = seglens("evaluate", trained, "--save-images")
    assert (ended.code, ended.err) == (0, "")
    scores = json.loads((trained / "evaluate/test/scores.json").read_text())
    assert scores["unit"] == "mm"
    for row in scores["images"]:
        truth = nibabel.load(tmp_path / f"set/labelsTs/{row['name']}.nii.gz").get_fdata()
        assert row["classes"]["ball"]["truth_ml"] == pytest.approx(truth.sum() * 1.5 / 1000)
        assert (trained / "evaluate/test" / row["files"]["overlay"]).is_file()

    words = "--methods grad-cam --methods integrated-gradients --layers encoder_last"
    assert seglens("explain", trained, *words.split()).code == 0
    sample = trained / "explain/test/samples/ball4"
    for name in ("pred", "grad-cam@encoder_last", "integrated-gradients"):
        written = nibabel.load(sample / f"{name}.nii.gz")
        assert written.shape == SHAPE
        np.testing.assert_allclose(written.affine, AFFINE)
    kept = np.load(sample / "maps.npz")["map:integrated-gradients"]
    again = nibabel.load(sample / "integrated-gradients.nii.gz").get_fdata()
    # i runs to the front and rows to the back, j to the left as columns do.
    np.testing.assert_allclose(kept, again.transpose(2, 0, 1)[:, ::-1], rtol=1e-6)

    # Its map and its picture are drawn in the same planes, whatever the evaluation drew.
    contents = read_run(trained, "balls")
    (card,) = [each for each in cards_of(contents) if each.name == "ball4"]
    assert card.pictures["orig"] == sample / "orig.png"
    with Image.open(sample / "orig.png") as drawn:
        assert card.native == (drawn.height, drawn.width)
    assert np.load(sample / "planes.npz")["map:integrated-gradients"].shape == card.native

    # Small enough to be scrolled through as it is: the slices of the report are those of the file.
    slices = np.load(sample / "slices.npz")
    assert tuple(slices["native"]) == slices["image"].shape == kept.shape
    np.testing.assert_allclose(slices["spacing"], nibabel.affines.voxel_sizes(AFFINE)[[2, 0, 1]])
    np.testing.assert_array_equal(slices["map:integrated-gradients"], kept)
    written = nibabel.load(sample / "pred.nii.gz").get_fdata()
    np.testing.assert_array_equal(slices["prediction"], written.transpose(2, 0, 1)[:, ::-1])

    words = f"--layers encoder_last --audit border --audit mask:{tmp_path / 'set/labelsTs'}"
    assert seglens("judge", trained, *words.split()).code == 0
    audit = json.loads((trained / "judge/test/audit.json").read_text())
    assert len(audit["regions"]) == 2
    assert json.loads((trained / "judge/test/scorecard.json").read_text())["rows"]
    assert seglens("report", trained).code == 0
    page = (trained / "report.html").read_text()
    assert "ball4" in page
    assert "HD95, mm" in page
    assert "per volume, ball" in page
    assert 'class="scroll-slices"' in page


def test_files_are_predicted_on_their_own_grid(seglens, tmp_path, trained):
    file = tmp_path / "set/imagesTs/ball5_0000.nii.gz"
    ended = seglens("predict", trained, file, "--out", "out")
    assert (ended.code, ended.err) == (0, "")
    mask = nibabel.load(tmp_path / "out/masks/ball5_0000.nii.gz")
    assert mask.shape == SHAPE
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(mask.affine, AFFINE)


def test_in_windows_a_volume_is_predicted_and_explained_too(seglens, tmp_path, trained):
    """The volume is larger than the input at the scale of the training: it is covered with windows."""
    record = json.loads((trained / "run.json").read_text())
    record["model"] |= {"scale": 3.0}
    (trained / "run.json").write_text(json.dumps(record))
    words = "--num-images 1 --methods grad-cam --layers encoder_last --force"
    assert seglens("explain", trained, *words.split()).code == 0
    (sample,) = (trained / "explain/test/samples").iterdir()
    assert nibabel.load(sample / "grad-cam@encoder_last.nii.gz").shape == SHAPE
    assert seglens("evaluate", trained).code == 0


def test_pictures_and_volumes_are_not_mixed(seglens, tmp_path, trained, small_run, small_set):
    ended = seglens("evaluate", trained, "--data", small_set)
    assert ended.code == 2
    assert "is for volumes, and" in ended.err
    ended = seglens("evaluate", small_run, "--data", tmp_path / "set")
    assert ended.code == 2
    assert "is for pictures, and" in ended.err
    assert "seglens data slices" in ended.err
    picture = tmp_path / "grey.png"
    Image.new("L", (20, 20)).save(picture)
    ended = seglens("predict", trained, picture, "--out", "out")
    assert ended.code == 2
    assert "grey.png is not read as a volume" in ended.err
    ended = seglens("predict", small_run, tmp_path / "set/imagesTs/ball5_0000.nii.gz", "--out", "out2")
    assert ended.code != 0
    assert "volume" in ended.err
    ended = seglens("train", tmp_path / "set", "--run", "other")
    assert ended.code == 2
    assert "The model unet is for pictures" in ended.err
    assert "unet3d" in ended.err


def test_a_set_of_volumes_is_drawn_and_what_is_for_pictures_refuses_it(seglens, tmp_path):
    volume_set(tmp_path / "set")
    assert seglens("data", "show", tmp_path / "set", "--out", "set.png", "--num-images", 2).code == 0
    with Image.open(tmp_path / "set.png") as drawn:
        assert drawn.width > 448
    ended = seglens("weak", tmp_path / "set", "--run", "weak")
    assert ended.code == 2
    assert "learns from pictures" in ended.err


def test_sides_of_different_lengths(seglens, tmp_path):
    """14 x 16 mm and 9 slices of 1.5 mm: an input of 16 x 24 x 16 voxels holds them at one voxel a mm."""
    data = volume_set(tmp_path / "set")
    words = f"--model unet3d --image-size 16 24 16 {data} --width 4 --epochs 12 --batch-size 2 "
    ended = seglens("train", *words.split(), "--learning-rate", "0.02", "--run", "balls")
    assert (ended.code, ended.err) == (0, "")
    trained = tmp_path / "balls"
    record = json.loads((trained / "run.json").read_text())
    assert (record["model"]["image_size"], record["model"]["scale"]) == ([16, 24, 16], 1.0)
    assert seglens("train", "--resume", "--run", trained).code == 0
    assert seglens("evaluate", trained).code == 0
    words = "--methods hires-cam --layers encoder_last --target class"
    assert seglens("explain", trained, *words.split()).code == 0
    sample = trained / "explain/test/samples/ball4"
    for name in ("pred", "hires-cam@encoder_last"):
        written = nibabel.load(sample / f"{name}.nii.gz")
        assert written.shape == SHAPE
        np.testing.assert_allclose(written.affine, AFFINE)
    ended = seglens("data", "show", data, "--run", trained, "--out", tmp_path / "seen.png")
    assert (ended.code, ended.err) == (0, "")
    ended = seglens("report", trained)
    assert (ended.code, ended.err) == (0, "")
    assert "16 x 24 x 16 voxels" in next(trained.glob("**/*.html")).read_text()
    ended = seglens("train", data, "--image-size", "16", "24", "--model", "unet3d", "--run", tmp_path / "no")
    assert ended.code == 2
    assert "got 16 x 24; allowed is one length for all sides, or 3 (slices, rows, columns)" in ended.err


def test_patches_of_different_lengths(seglens, tmp_path):
    data = volume_set(tmp_path / "set")
    words = "--model unet3d --image-size 16 16 24 --patch-scale 1.5 --width 2 --epochs 1 --batch-size 2"
    ended = seglens("train", data, *words.split(), "--run", tmp_path / "balls")
    assert (ended.code, ended.err) == (0, "")
    # 14 x 16 x 13.5 mm become 20 slices, 21 rows, 24 columns or so: windows are needed along two axes.
    ended = seglens("predict", tmp_path / "balls", tmp_path / "set/imagesTs/ball4_0000.nii.gz")
    assert (ended.code, ended.err) == (0, "")
    (mask,) = tmp_path.glob("**/masks/*.nii.gz")
    assert nibabel.load(mask).shape == SHAPE
