"""The demo in miniature: its parts are there and agree. What it finds needs the full size."""

import json

import pytest
import torch

from seglens.data.images import read_image
from seglens.data.labels import read_label
from seglens.demo import DemoSettings, demo
from seglens.errors import OutputExistsError
from seglens.judge.shortcut import DEFINITION

MINIATURE = DemoSettings(
    size=64,
    num_train=24,
    num_valid=2,
    num_test=4,
    width=4,
    epochs=4,
    batch_size=4,
    learning_rate=1e-2,
    num_explained=1,
    num_judged=2,
    num_occluded=1,
    num_examples=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    file = demo(out, seed=1, settings=MINIATURE)
    assert file == out / "report.html"
    return out


def test_it_leaves_runs_data_and_a_report(folder):
    for name in ("honest", "cheat"):
        assert (folder / "data" / name / "train" / "tags").is_dir()
        for part in ("run.json", "model.safetensors", "evaluate/test/scores.json"):
            assert (folder / name / part).is_file()
        assert (folder / name / "explain" / "test" / "explanations.json").is_file()
        assert (folder / name / "judge" / "test" / "scorecard.json").is_file()
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    assert json.loads((folder / "run.json").read_text())["kind"] == "demo"


def test_the_shortcut_table_agrees_with_the_evaluations(folder):
    table = json.loads((folder / "shortcut" / "shortcut.json").read_text())
    assert table["definition"] == DEFINITION
    for name, model in table["models"].items():
        scores = json.loads((folder / name / "evaluate" / "test" / "scores.json").read_text())
        assert model["dice"] == scores["pooled"]["dice"]
        causal = table["causal"][name]
        if causal["num"] > 1:
            expected = 1 - causal["tag_removed"] / causal["full"]
            assert causal["drop_removed"] == pytest.approx(expected, abs=1e-6)
    assert not table["valid"]  # two pictures are too few for a verdict
    files = [file for key, file in table["examples"][0].items() if key != "name"]
    assert len(files) == 6
    assert all((folder / "shortcut" / file).is_file() for file in files)


def test_both_models_saw_the_same_pictures_but_for_the_tags(folder):
    for file in (folder / "data" / "honest" / "train" / "images").iterdir():
        honest, cheat = (folder / "data" / name / "train" for name in ("honest", "cheat"))
        tags = read_label(honest / "tags" / file.name) | read_label(cheat / "tags" / file.name)
        same = (read_image(file) == read_image(cheat / "images" / file.name)).all(0)
        assert same[tags == 0].all()
        masks = [read_label(part / "masks" / file.name) for part in (honest, cheat)]
        assert torch.equal(*masks)


def test_what_is_there_is_not_replaced_unasked(folder):
    with pytest.raises(OutputExistsError, match=r"out exists already\. .* replace it with --force"):
        demo(folder, settings=MINIATURE)
