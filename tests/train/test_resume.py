"""Training on a handful of discs, drawn on the fly, with a network of a few hundred weights."""

import json
from math import nan
from pathlib import Path

import pytest
import torch

import seglens
from seglens.errors import OutputExistsError, SettingError, TrainingError
from seglens.train import go_on, train
from seglens.train.fit import CheckpointCallback


@pytest.mark.parametrize("batch", [0, 1], ids=["between epochs", "within an epoch"])
def test_interrupted_and_resumed_equals_uninterrupted(
    discs, tmp_path, monkeypatch, batch, tiny, history_of, weights_of, assert_same_weights, interrupt
):
    settings = tiny(epochs=4, learning_rate=0.01)
    train(discs, settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt, epoch=2, batch=batch)
        with pytest.raises(KeyboardInterrupt, match=r"Stopped after 2 of 4 epochs\. Go on with --resume\."):
            train(discs, settings, tmp_path / "broken")
    assert json.loads((tmp_path / "broken/run.json").read_text())["state"] == "running"
    assert (tmp_path / "broken/curves.png").is_file()
    # A run folder may be moved in between.
    (tmp_path / "broken").rename(tmp_path / "moved")
    train(discs, settings, tmp_path / "moved", resume=True)
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "moved"))
    for one, other in zip(history_of(tmp_path / "whole"), history_of(tmp_path / "moved"), strict=True):
        assert {name: one[name] for name in one if "second" not in name}.items() <= other.items()


def test_dropout_is_resumed_too(
    discs, tmp_path, monkeypatch, tiny, weights_of, assert_same_weights, interrupt
):
    build = seglens.Segmenter.from_spec

    def with_dropout(spec, encoder_weights="none"):
        segmenter = build(spec, encoder_weights)
        segmenter.module.register_forward_hook(
            lambda module, _, output: torch.nn.functional.dropout(output, 0.5, module.training)
        )
        return segmenter

    monkeypatch.setattr(seglens.Segmenter, "from_spec", with_dropout)
    train(discs, tiny(), tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            train(discs, tiny(), tmp_path / "broken")
    train(discs, tiny(), tmp_path / "broken", resume=True)
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "broken"))


def test_a_run_goes_on_by_what_it_tells_of_itself(
    discs, tmp_path, monkeypatch, tiny, weights_of, assert_same_weights, interrupt
):
    settings = tiny(epochs=3, learning_rate=0.01, width=6)
    train(discs, settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            train(discs, settings, tmp_path / "broken")
    go_on(tmp_path / "broken", device="cpu")
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "broken"))


def test_killed_before_the_first_checkpoint_begins_again(
    discs, tmp_path, monkeypatch, tiny, weights_of, assert_same_weights, interrupt
):
    train(discs, tiny(epochs=2), tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt, epoch=0)
        with pytest.raises(KeyboardInterrupt, match="after 0 of 2 epochs"):
            train(discs, tiny(epochs=2), tmp_path / "run")
    train(discs, tiny(epochs=2), tmp_path / "run", resume=True)
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))


def test_killed_after_the_last_epoch_is_only_closed(discs, tmp_path, monkeypatch, tiny, interrupt):
    with monkeypatch.context() as patch:
        patch.setattr("seglens.train.save_run", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            train(discs, tiny(epochs=2), tmp_path / "run")
    interrupt(monkeypatch, AssertionError("trained again"), epoch=0)
    train(discs, tiny(epochs=2), tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run/run.json").read_text())["results"]["epochs"] == 2


def test_patience_ends_training_and_a_resumed_one_stays_ended(discs, tmp_path, monkeypatch, tiny):
    # With a rate of nearly nothing the Dice stays at 0 from the first epoch on.
    settings = tiny(epochs=9, patience=2, learning_rate=1e-12)
    with monkeypatch.context() as patch:
        patch.setattr("seglens.train.save_run", lambda *_: (_ for _ in ()).throw(MemoryError))
        patch.setattr(seglens.Segmenter, "mask", lambda self, logits: torch.zeros_like(logits[:, 0]).long())
        with pytest.raises(MemoryError):
            train(discs, settings, tmp_path / "run")
    train(discs, settings, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run/run.json").read_text())["results"]["epochs"] == 3


def test_resume_of_a_finished_run_says_so_and_does_nothing(
    discs, tmp_path, capsys, monkeypatch, tiny, interrupt
):
    train(discs, tiny(epochs=1), tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    interrupt(monkeypatch, AssertionError("trained again"), epoch=0)
    run = train(discs, tiny(epochs=1), tmp_path / "run", resume=True)
    assert "is finished: there is nothing to resume" in capsys.readouterr().err
    assert (run.folder, before) == (tmp_path / "run", (tmp_path / "run/run.json").read_bytes())


def test_resume_with_other_settings_names_the_difference(discs, tmp_path, tiny):
    train(discs, tiny(epochs=1), tmp_path / "run")
    with pytest.raises(
        SettingError, match=r"the setting learning_rate = 0\.001, received 0\.5\. Leave data and flags"
    ):
        train(discs, tiny(epochs=1, learning_rate=0.5), tmp_path / "run", resume=True)


def test_resume_begins_what_never_began(discs, tmp_path, tiny):
    """Killed before the first file, or in the middle of writing it."""
    (tmp_path / "killed/checkpoints").mkdir(parents=True)
    (tmp_path / "killed/.run.json.partial").write_text("{")
    for name in ("nowhere", "killed"):
        train(discs, tiny(epochs=1), tmp_path / name, resume=True)
        assert (tmp_path / name / "model.safetensors").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(OutputExistsError, match="exists already"):
        train(discs, tiny(epochs=1), tmp_path / "mine", resume=True)


def test_a_loss_that_is_not_finite_is_named_and_never_saved(discs, tmp_path, monkeypatch, tiny):
    calls = []

    def goes_wrong(logits, masks, valid, weights):
        calls.append(1)
        return (logits * (nan if len(calls) == 5 else 1)).mean()

    monkeypatch.setattr("seglens.train.choose_loss", lambda *_, **__: goes_wrong)
    with pytest.raises(TrainingError, match=r"The loss is nan in epoch 2, batch 2: \w.*, \w.*is intact"):
        train(discs, tiny(), tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["epoch"] == 0
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_the_history_is_found_under_the_key_of_earlier_checkpoints():
    """Lightning finds a callback's state by this key; another one would lose the rows of a training."""
    assert CheckpointCallback(Path("run"), patience=None, keep_every=None, resumed=True).state_key == "Keeper"
