"""Verbs from end to end on a small set."""

import csv
import json
import shutil
from inspect import signature
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

import seglens as package


def test_train(seglens, small_set):
    settings = "--width 4 --image-size 32 --epochs 1 --batch-size 2 --device cpu --precision 32 --aug"
    ended = seglens("train", small_set, "--run", "made", *settings.split())
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("made: weights of epoch 1 of 1; on the valid split Dice 0.")
    record = json.loads(Path("made/run.json").read_text())
    assert record["settings"]["augment"] is True
    assert record["settings"]["width"] == 4


def test_train_can_be_repeated_and_resumed_by_its_record(seglens, small_set, tmp_path):
    settings = "--width 4 --image-size 32 --epochs 1 --batch-size 2 --device cpu --precision 32"
    assert seglens("train", small_set, "--run", tmp_path / "one", *settings.split()).code == 0
    again = seglens("train", "--repeat", tmp_path / "one", "--run", tmp_path / "two")
    assert again.code == 0
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert first == second
    wrong = seglens("train", "--repeat", tmp_path / "one", "--run", tmp_path / "three", "--epochs", "5")
    assert wrong.code == 2
    assert "--epochs can't be given here: --repeat takes all else from RUN." in wrong.err
    resumed = seglens("train", "--run", tmp_path / "one", "--resume")
    assert resumed.code == 0
    assert "is finished: there is nothing to resume" in resumed.err
    wrong = seglens("train", "--run", tmp_path / "one", "--resume", "--width", "8")
    assert wrong.code == 2
    assert "--width can't be given here: --resume without DATA takes all else from the run." in wrong.err
    wrong = seglens("train", "--run", tmp_path / "none", "--resume")
    assert (wrong.code, "is not a run folder" in wrong.err) == (2, True)


def test_adopt_says_what_no_tensor_tells(seglens, tmp_path):
    """What is assumed are the defaults of the library's own signature, and nothing that was given."""
    torch.save(smp.FPN("resnet18", encoder_weights=None, classes=1).state_dict(), tmp_path / "a.pth")
    words = "adopt a.pth --model fpn --encoder resnet18 --image-size 64 --classes background disc"
    ended = seglens(*words.split(), "--run", "guess")
    defaults = {name: value.default for name, value in signature(smp.FPN).parameters.items()}
    told = ", ".join(f"{name}={defaults[name]}" for name in ("decoder_interpolation", "upsampling"))
    told += ", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]"  # torchvision's, for ImageNet
    what = "Assumed, as the file doesn't tell (--set changes it, or --mean, --std, --image-size, --head)"
    assert f"\n{what}: {told}.\n" in ended.out
    words += " --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5"
    ended = seglens(*words.split(), "--run", "said", "--set", "decoder_interpolation=nearest", "upsampling=4")
    assert (ended.code, "Assumed" in ended.out) == (0, False), ended.err


def test_adopt(seglens, small_run):
    settings = "--width 4 --image-size 32 --mean 0.5,0.5,0.5 --std 0.5 0.5 0.5 --classes background disc"
    ended = seglens("adopt", small_run / "model.safetensors", "--run", "adopted", *settings.split())
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "adopted: unet for background, disc.\nTry: seglens layers adopted\n"
    assert package.load("adopted", device="cpu").spec.mean == (0.5, 0.5, 0.5)


def test_evaluate(seglens, small_run):
    ended = seglens("evaluate", small_run, "--save-images")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("test split, 3 pictures, at the original resolution\nscore ")
    with open(small_run / "evaluate/test/scores.csv") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert len(list((small_run / "evaluate/test/samples").glob("*/overlay.png"))) == 3


def test_evaluate_as_json(seglens, small_run):
    ended = seglens("evaluate", small_run, "--json", "--split", "all")
    assert json.loads(ended.out)["num_images"] == 9
    assert json.loads(ended.out) == json.loads((small_run / "evaluate/all/scores.json").read_text())


def test_evaluate_shows_outlines_and_calibration(seglens, small_run):
    ended = seglens("evaluate", small_run, "--precision", "bf16", "--tta", "--tiles", "never")
    assert (ended.code, ended.err) == (0, "")
    written = json.loads((small_run / "evaluate/test/scores.json").read_text())
    expected = {"precision": "bf16", "tta": True, "tiles": "never", "threshold": 0.5}
    expected |= {"sizes": None, "split_touching": False, "uncertainty": False}
    assert written["settings"] == expected
    row = next(line for line in ended.out.splitlines() if line.startswith("hd95"))
    mean = written["per_image"]["hd95"]["mean"]
    assert row.split()[1:3] == ["-", f"{mean:.3f}"]  # nothing pooled
    error, worst = (written["calibration"][name] for name in ("error", "maximum_error"))
    said = f"Probabilities are off by {error:.3f} on average, {worst:.3f} at most (calibration error)."
    assert ended.out.splitlines()[-2:] == [said, f"The scores are in {small_run / 'evaluate/test'}"]


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_settings_of_predictions_are_checked(seglens, small_run, small_set, verb):
    picture = [next((small_set / "test/images").iterdir())] if verb == "predict" else []
    ended = seglens(verb, small_run, *picture, "--tiles", "allways", "--out", "new")
    assert (ended.code, ended.out) == (2, "")
    assert "Unknown rule for tiles 'allways'. Did you mean 'always'?" in ended.err
    ended = seglens(verb, small_run, *picture, "--precision", "16", "--out", "new")
    assert (ended.code, ended.err) == (2, "seglens: Unknown precision '16'. Allowed: auto, 32, bf16.\n")


def test_predict_in_windows(seglens, small_run, small_set):
    picture = next((small_set / "test/images").iterdir())
    words = ("predict", small_run, picture, "--tiles", "always", "--tta", "--precision", "32")
    assert seglens(*words, "--out", "masks").code == 0
    settings = json.loads((small_run.parent / "masks/run.json").read_text())["settings"]
    assert settings == settings | {"precision": "32", "tta": True, "tiles": "always"}


def test_predict(seglens, small_run, small_set):
    pictures = sorted((small_set / "test/images").iterdir())
    ended = seglens("predict", small_run, *pictures[:2], "--out", "masks")
    assert (ended.code, ended.out, ended.err) == (0, "2 pictures predicted: masks\n", "")
    with Image.open(next((small_run.parent / "masks/masks").iterdir())) as mask:
        assert mask.size == (40, 32)


def test_layers(seglens, small_run):
    ended = seglens("layers", small_run)
    rows = ended.out.splitlines()
    assert rows[0].split() == "layer roles type channels x rows x columns stride note".split()
    assert any("decoder_last" in row for row in rows)
    listed = json.loads(seglens("layers", small_run, "--json").out)
    assert len(listed) == len(rows) - 1
    assert {"name", "roles", "type", "shape", "stride", "answer", "averages_out", "advice"} == set(listed[0])


def test_explain_chosen_samples(seglens, small_run):
    methods = "--methods grad-cam integrated-gradients --baseline zero blur --steps 4 --layers decoder_last"
    ended = seglens("explain", small_run, "--samples", 0, 2, *methods.split())
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == f"2 pictures explained: {small_run / 'explain/test'}"
    table = json.loads((small_run / "explain/test/explanations.json").read_text())
    assert [row["name"] for row in table["samples"]] == ["test-0", "test-2"]
    assert len(table["summary"]) == 3
    assert len(table["methods"]) == 3


def test_explain_pictures(seglens, small_run, small_set):
    picture = small_set / "test/images/test-1.png"
    ended = seglens("explain", small_run, picture, "--target", "point:20,16", "--out", "maps")
    assert (ended.code, ended.err) == (0, "")
    assert {row.split("  ")[0] for row in ended.out.splitlines()[1:3]} == {
        "grad-cam@encoder_last",
        "grad-cam@decoder_last",
    }
    assert (small_run.parent / "maps/explanations.json").is_file()


def test_explain_several_targets(seglens, small_run):
    words = "--target predicted false-negative --layers decoder_last --num-images 2 --raw safetensors"
    ended = seglens("explain", small_run, *words.split(), "--out", "maps")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0].split()[-3:] == ["pictures", "no", "target"]
    assert [row.split("  ")[0] for row in ended.out.splitlines()[1:3]] == [
        "predicted: grad-cam@decoder_last",
        "false-negative: grad-cam@decoder_last",
    ]
    ended = seglens("explain", small_run, *words.split(), "--out", "out", "--where", "context")
    assert (ended.code, ended.err) == (0, "")
    assert "share outside of the target" in ended.out.splitlines()[0]


def test_judge_and_report(seglens, small_run):
    ended = seglens("judge", small_run, "--num-images", 2, "--layers", "decoder_last")
    assert (ended.code, ended.err) == (0, "")
    assert "grad-cam@decoder_last" in ended.out
    assert ended.out.splitlines()[-1] == f"2 pictures judged: {small_run / 'judge/test'}"
    ended = seglens("report", small_run)
    assert (ended.code, ended.out) == (0, f"The report is in {small_run / 'report.html'}\n")


def test_other_data_are_read_like_the_run_s_own(seglens, small_run, tmp_path, small_set):
    moved = tmp_path / "elsewhere"
    moved.symlink_to(small_set / "test")
    ended = seglens("evaluate", small_run, "--data", moved, "--split", "all", "--json")
    assert json.loads(ended.out)["num_images"] == 3


def test_a_broken_picture_is_listed_and_the_rest_is_done(seglens, small_run, tmp_path, small_set):
    good = small_set / "test/images/test-0.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:300])
    ended = seglens("predict", small_run, good, broken, "--out", "masks")
    assert ended.code == 1
    assert ended.out == "1 picture predicted: masks\n"
    first, listed = ended.err.splitlines()
    assert first == "seglens: 1 of 2 pictures could not be done:"
    assert listed.startswith("  broken: ")
    assert (tmp_path / "masks/table.csv").is_file()


def test_a_set_that_is_named_again_keeps_the_splits_of_the_training(seglens, tmp_path, small_set):
    """Oracle: the run's own list of its splits; named by --data its test pictures are the same few."""
    pool = tmp_path / "pool"
    for place in ("images", "masks"):
        (pool / place).mkdir(parents=True)
        for file in sorted(small_set.glob(f"*/{place}/*.png")):
            shutil.copy(file, pool / place)
    words = "--image-size 32 --width 4 --epochs 1 --batch-size 4"
    assert seglens("train", pool, "--run", "run", *words.split()).code == 0
    listed = json.loads((tmp_path / "run/split.json").read_text())["splits"]["test"]
    ended = seglens("evaluate", "run", "--data", pool, "--json")
    assert sorted(row["name"] for row in json.loads(ended.out)["images"]) == sorted(listed)


def test_data_show_as_a_run_sees_it(seglens, small_run, small_set):
    ended = seglens("data", "show", small_set, "--run", small_run, "--num-images", "1", "--out", "seen.png")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "The picture is in seen.png"
    ended = seglens("data", "show", small_set, "--run", small_run, "--image-size", "64", "--out", "b.png")
    assert (ended.code, ended.out) == (2, "")
    assert "--image-size can't be given here: --run says how large its inputs are." in ended.err


def test_errors_of_an_evaluation_are_exported(seglens, small_run):
    ended = seglens("evaluate", small_run, "--export", "coco", "geojson", "--split", "valid")
    assert (ended.code, ended.err) == (0, "")
    written = json.loads((small_run / "evaluate/valid/errors/coco.json").read_text())
    assert [each["name"] for each in written["categories"]] == [
        f"foreground {kind}" for kind in ("found", "missed", "invented")
    ]
    assert len(list((small_run / "evaluate/valid/errors/geojson").iterdir())) == 2
