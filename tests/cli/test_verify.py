"""The verb ``verify``, on a run folder with an untrained network."""

import json
import shutil

import pytest
from tests.cli.test_volumes import volume_set

from seglens.explain.verify.case import Measured
from seglens.explain.verify.rules import RULES

QUICK = ("hires-cam-is-window-1", "hires-completeness", "compiled-is-eager", "model-as-found")


@pytest.fixture
def quick(monkeypatch):
    """Leave out the checks that take long; all of them run in the first test."""
    monkeypatch.setattr("seglens.explain.verify.RULES", {name: RULES[name] for name in QUICK})


def test_verify_shows_every_check(seglens, one_run, small_set):
    picture = small_set / "test" / "images" / "test-0.png"
    ended = seglens("verify", one_run, picture, "--device", "cpu")
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(RULES)
    assert lines[0].split() == ["check", "result", "value", "at", "most", "what", "it", "says"]
    assert (
        lines[-1] == "11 passed, 0 failed, 1 not applicable; on 1 picture, layers encoder_last, decoder_last."
    )
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.usefixtures("quick")
def test_verify_takes_the_runs_own_pictures(seglens, one_run):
    ended = seglens("verify", one_run, "--json", "--layers", "decoder_last", "--num-images", 3, "--seed", 5)
    assert ended.err == ""
    found = json.loads(ended.out)
    assert (ended.code, found["num_images"], found["layers"], found["seed"]) == (0, 3, ["decoder_last"], 5)
    assert [check["name"] for check in found["checks"]] == list(QUICK)
    assert [check["outcome"] for check in found["checks"]] == ["pass", "pass", "not applicable", "pass"]
    assert found["note"] == ""


@pytest.mark.usefixtures("quick")
def test_verify_takes_the_pictures_that_there_are(seglens, one_run, small_set, tmp_path):
    for split in ("train", "valid"):
        shutil.copytree(small_set / split, tmp_path / "set" / split)
        words = ("--data", tmp_path / "set", "--layers", "decoder_last")
        ended = seglens("verify", one_run, *words)
        assert ended.code == 0
        taken = {"train": "train", "valid": "valid"}[split]
        assert ended.err.endswith(f"There is no split 'test': pictures are those of '{taken}'.\n")
        asked = seglens("verify", one_run, "--split", "test", *words)
        assert (asked.code, "Unknown split 'test'" in asked.err) == (2, True)


@pytest.mark.usefixtures("quick")
def test_verify_takes_noise_where_a_run_knows_no_pictures(seglens, one_run, tmp_path):
    alone = shutil.copytree(one_run, tmp_path / "alone")
    record = json.loads((alone / "run.json").read_text())
    (alone / "run.json").write_text(json.dumps(record | {"data": None}))
    ended = seglens("verify", alone, "--layers", "decoder_last")
    assert ended.code == 0
    assert ended.err.endswith("knows no data. Name some with --data. Noise is taken instead.\n")
    assert ended.out.endswith("There are no pictures, so 2 of noise are taken.\n")
    asked = seglens("verify", alone, "--split", "valid")
    assert (asked.code, len(asked.err.splitlines())) == (2, 1)


def test_verify_ends_with_1_where_a_check_fails(seglens, one_run, monkeypatch):
    wrong = RULES["hires-completeness"]._replace(measure=lambda case: Measured(0.5, "at decoder_last"))
    monkeypatch.setattr("seglens.explain.verify.RULES", {"hires-completeness": wrong})
    ended = seglens("verify", one_run, "--num-images", 1)
    assert ended.code == 1
    (line,) = [line for line in ended.out.splitlines() if line.startswith("hires-completeness")]
    assert line.split()[1:5] == ["fail", "5.0e-01", "1e-05", "at"]
    assert "0 passed, 1 failed, 0 not applicable" in ended.out


def test_an_option_that_does_not_suit_the_model_is_no_failure_of_its_maps(seglens, one_run, monkeypatch):
    wrong = RULES["bf16-scores"]._replace(measure=lambda case: Measured(0.5, "far off"))
    monkeypatch.setattr("seglens.explain.verify.RULES", {"bf16-scores": wrong})
    ended = seglens("verify", one_run, "--num-images", 1)
    assert ended.code == 0
    assert "0 passed, 1 failed, 0 not applicable" in ended.out
    assert "bf16-scores: leave precision=bf16 off with this model, as it is by default." in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layers", "encoder_lst"), "encoder_last"),
        (("--num-images", "0"), "--num-images is 0, but must be from 1"),
        (("--split", "tset"), "test"),
        (("missing.png",), "there is no missing.png"),
    ],
)
def test_wrong_arguments_are_told(words, message, seglens, one_run):
    ended = seglens("verify", one_run, *words)
    assert ended.code == 2
    assert message in ended.err


@pytest.mark.usefixtures("quick")
def test_verify_takes_files_of_volumes(seglens, tmp_path):
    """They lie on the input grid as in a split of the run's own set."""
    pytest.importorskip("nibabel", reason="needs the extra medical")
    data = volume_set(tmp_path / "set")
    words = "--model unet3d --image-size 16 --width 2 --epochs 1 --batch-size 2 --run balls"
    assert seglens("train", data, *words.split()).code == 0
    ended = seglens(
        "verify", "balls", data / "imagesTs/ball4_0000.nii.gz", "--layers", "encoder_last", "--json"
    )
    assert (ended.code, ended.err) == (0, "")
    of_files = json.loads(ended.out)
    ended = seglens("verify", "balls", "--layers", "encoder_last", "--num-images", 1, "--json")
    of_split = json.loads(ended.out)
    assert of_files["num_images"] == 1
    assert [check["value"] for check in of_files["checks"]] == [
        check["value"] for check in of_split["checks"]
    ]
