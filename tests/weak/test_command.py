"""The verb ``seglens weak``: what it makes of its flags, and how it ends."""

import json

import pytest
from tests.weak.test_weak import _stand_in

from seglens.cli import command, weak
from seglens.weak import rounds

STUDENT = "--student unet --width 4 --image-size 32 --epochs 1 --batch-size 4 --rounds 0 --device cpu"


@pytest.fixture
def bright(monkeypatch):
    monkeypatch.setattr(rounds, "make_pseudo_masks", _stand_in)


def test_from_a_set_to_a_table(tmp_path, bright, small_set, capsys):
    out = tmp_path / "run"
    words = ["weak", str(small_set), "--run", str(out), *STUDENT.split(), "--samples", "1"]
    assert command([*words, "--no-evaluate"]) == 0
    told = capsys.readouterr().out
    assert "No mask was read, so there is no comparison." in told
    assert f"{out}: rounds/0/student after 0 rounds." in told
    assert "Masks were read 0 times; other than for the final evaluation: never." in told
    # The evaluation can be asked for later, and nothing is trained again for it.
    trained = (out / "rounds/0/student/run.json").read_bytes()
    assert command([*words, "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (out / "rounds/0/student/run.json").read_bytes() == trained
    assert found["run"] == str(out)
    assert [row["name"] for row in found["rows"] if row["split"] == "test"] == ["student"]
    assert command(words) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_question_as_it_is_typed():
    assert weak._question("labels") == ("labels", ())
    assert weak._question("imagenet:pets") == ("imagenet", ("pets",))
    assert weak._question("imagenet:151-268, 281") == ("imagenet", ("151-268", "281"))


@pytest.mark.parametrize("text", ["imagenet", "imagenet:", "labels:pets", "breeds"])
def test_a_question_that_can_not_be_put(text, tmp_path, small_set, capsys):
    assert command(["weak", str(small_set), "--run", str(tmp_path / "run"), "--question", text]) == 2
    assert (
        f"--question {text} is not known. Allowed are 'labels', and 'imagenet:CLASSES'"
        in capsys.readouterr().err
    )


def test_settings_of_stages_in_a_file(tmp_path):
    file = tmp_path / "stages.json"
    file.write_text(json.dumps({"spread": None, "question": {"positive": ["birds"]}}))
    settings = weak._stages(file, {"encoder": "tf_efficientnet_lite0", "weights": "here.pth"})
    assert settings.spread is None
    assert settings.question.positive == ("birds",)
    assert settings.question.weights == "here.pth"


def test_a_file_of_stages_that_can_not_be_read(tmp_path, small_set, capsys):
    file = tmp_path / "stages.json"
    for text, said in (
        ("{", "can't be read as JSON"),
        ("[]", "holds list. It must hold a JSON object with settings"),
    ):
        file.write_text(text)
        words = ["weak", str(small_set), "--run", str(tmp_path / "run"), "--stages", str(file)]
        assert command(words) == 2
        assert said in capsys.readouterr().err
