"""Training on a handful of discs, drawn on the fly, with a network of a few hundred weights."""

import csv
import json
import warnings
from math import nan
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seglens
from seglens.data.layout import DataSettings
from seglens.errors import DataError, OutputExistsError, SettingError, TrainingError, UnknownNameError
from seglens.models.weights import read_state_dict
from seglens.train import Learner, relative_rate, train
from seglens.train.feed import Shuffled
from seglens.train.history import COLUMNS, History

SIZE = 32


def write_discs(folder, num, first=0):
    """Write ``num`` pictures of a bright disc with their masks (0 and 1), in the layout ``pairs``."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for index in range(first, first + num):
        random = np.random.default_rng(index)
        top, left = random.integers(8, 24, size=2)
        mask = (rows - top) ** 2 + (columns - left) ** 2 < 36
        picture = 60 + 120 * mask[..., None] + random.integers(0, 40, size=(SIZE, SIZE, 3))
        for kind, array in (("images", picture), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(folder / kind / f"disc-{index:02d}.png")


@pytest.fixture(scope="session")
def discs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discs")
    for split, num, first in (("train", 8, 0), ("valid", 4, 50), ("test", 4, 80)):
        write_discs(folder / split, num, first)
    return DataSettings(path=folder)


def tiny(**changes: Any) -> seglens.TrainSettings:
    given: dict[str, Any] = {
        "model": "unet",
        "width": 4,
        "image_size": SIZE,
        "epochs": 3,
        "batch_size": 4,
        "augment": True,
    }
    return seglens.TrainSettings(**(given | {"device": "cpu", "precision": "32"} | changes))


def history(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def weights(folder):
    return read_state_dict(folder / "model.safetensors")


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def interrupt(monkeypatch, error, *, epoch, batch=0):
    """Make training raise ``error`` at a batch of an epoch (counted from 0)."""
    step = Learner.training_step

    def stop_there(self, given, batch_index):
        if self.current_epoch == epoch and batch_index == batch:
            raise error
        return step(self, given, batch_index)

    monkeypatch.setattr(Learner, "training_step", stop_there)


def test_a_run_folder_is_complete(discs, tmp_path, capfd):
    run = seglens.train(discs, tiny(keep_every=2), tmp_path / "run")
    folder = tmp_path / "run"
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    expected = {"run.json", "model.safetensors", "history.csv", "curves.png"}
    expected |= {f"checkpoints/{name}" for name in ("best.ckpt", "last.ckpt", "epoch-002.safetensors")}
    assert expected <= found
    assert any(name.startswith("logs/events.out.tfevents") for name in found)
    assert not [name for name in found if "lightning_logs" in name or ".partial" in name]

    record = json.loads((folder / "run.json").read_text())
    rows = history(folder)
    assert (record["kind"], record["state"], record["seed"]) == ("train", "finished", 0)
    assert record["model_sha256"] == seglens.record.sha256([folder / "model.safetensors"])
    assert [record["results"][f"num_{split}"] for split in ("train", "valid", "test")] == [8, 4, 4]
    assert tuple(rows[0]) == COLUMNS
    best = max(rows, key=lambda row: float(row["valid_dice"]))
    assert record["results"]["best_epoch"] == int(best["epoch"])
    assert record["results"]["valid"]["dice"] == float(best["valid_dice"])
    assert all(float(row["images_per_second"]) > 0 for row in rows)

    assert run.folder == folder
    images = torch.rand(1, 3, SIZE, SIZE)
    torch.testing.assert_close(run.predict(images).logits, seglens.load(folder).predict(images).logits)
    assert capfd.readouterr() == ("", "")


def test_the_best_epoch_is_what_is_kept(discs, tmp_path):
    train(discs, tiny(epochs=4, keep_every=1, learning_rate=0.05), tmp_path / "run")
    best = json.loads((tmp_path / "run/run.json").read_text())["results"]["best_epoch"]
    kept = read_state_dict(tmp_path / f"run/checkpoints/epoch-{best:03d}.safetensors")
    assert_same_weights(weights(tmp_path / "run"), kept)


def test_it_learns(discs, tmp_path):
    settings = tiny(epochs=40, width=8, learning_rate=0.01, augment=False)
    train(discs, settings, tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["results"]["valid"]["dice"] > 0.9


def test_same_seed_same_weights_and_another_seed_others(discs, tmp_path):
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        train(discs, tiny(epochs=2, seed=seed), tmp_path / name)
    assert_same_weights(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(tmp_path / "one").values(), weights(tmp_path / "three").values(), strict=True)
    )


def test_worker_processes_change_nothing(discs, tmp_path):
    for workers in (0, 2):
        train(discs, tiny(epochs=2, workers=workers), tmp_path / str(workers))
    assert_same_weights(weights(tmp_path / "0"), weights(tmp_path / "2"))


@pytest.mark.parametrize("batch", [0, 1], ids=["between epochs", "within an epoch"])
def test_interrupted_and_resumed_equals_uninterrupted(discs, tmp_path, monkeypatch, batch):
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
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "moved"))
    for one, other in zip(history(tmp_path / "whole"), history(tmp_path / "moved"), strict=True):
        assert {name: one[name] for name in one if "second" not in name}.items() <= other.items()


def test_dropout_is_resumed_too(discs, tmp_path, monkeypatch):
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
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


def test_killed_before_the_first_checkpoint_begins_again(discs, tmp_path, monkeypatch):
    train(discs, tiny(epochs=2), tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt, epoch=0)
        with pytest.raises(KeyboardInterrupt, match="after 0 of 2 epochs"):
            train(discs, tiny(epochs=2), tmp_path / "run")
    train(discs, tiny(epochs=2), tmp_path / "run", resume=True)
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "run"))


def test_killed_after_the_last_epoch_is_only_closed(discs, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("seglens.train.save_run", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            train(discs, tiny(epochs=2), tmp_path / "run")
    interrupt(monkeypatch, AssertionError("trained again"), epoch=0)
    train(discs, tiny(epochs=2), tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run/run.json").read_text())["results"]["epochs"] == 2


def test_patience_ends_training_and_a_resumed_one_stays_ended(discs, tmp_path, monkeypatch):
    # With a rate of nearly nothing the Dice stays at 0 from the first epoch on.
    settings = tiny(epochs=9, patience=2, learning_rate=1e-12)
    with monkeypatch.context() as patch:
        patch.setattr("seglens.train.save_run", lambda *_: (_ for _ in ()).throw(MemoryError))
        patch.setattr(seglens.Segmenter, "mask", lambda self, logits: torch.zeros_like(logits[:, 0]).long())
        with pytest.raises(MemoryError):
            train(discs, settings, tmp_path / "run")
    train(discs, settings, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run/run.json").read_text())["results"]["epochs"] == 3


def test_resume_of_a_finished_run_says_so_and_does_nothing(discs, tmp_path, capsys, monkeypatch):
    train(discs, tiny(epochs=1), tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    interrupt(monkeypatch, AssertionError("trained again"), epoch=0)
    run = train(discs, tiny(epochs=1), tmp_path / "run", resume=True)
    assert "is finished: there is nothing to resume" in capsys.readouterr().err
    assert (run.folder, before) == (tmp_path / "run", (tmp_path / "run/run.json").read_bytes())


def test_resume_with_other_settings_names_the_difference(discs, tmp_path):
    train(discs, tiny(epochs=1), tmp_path / "run")
    with pytest.raises(
        SettingError, match=r"the setting learning_rate = 0\.001, received 0\.5\. Resume with the"
    ):
        train(discs, tiny(epochs=1, learning_rate=0.5), tmp_path / "run", resume=True)
    with pytest.raises(DataError, match="is not a run folder: there is no such folder"):
        train(discs, tiny(epochs=1), tmp_path / "nowhere", resume=True)


def test_an_existing_folder_is_kept_unless_forced(discs, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.txt").write_text("keep")
    with pytest.raises(OutputExistsError, match="exists already"):
        train(discs, tiny(), tmp_path / "run")
    with pytest.raises(UnknownNameError):  # a mistake costs nothing, with --force too
        train(discs, tiny(model="unett"), tmp_path / "run", force=True)
    assert (tmp_path / "run/mine.txt").read_text() == "keep"
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            train(discs, tiny(), tmp_path / "run", force=True)
    assert not (tmp_path / "run/mine.txt").exists()
    with pytest.raises(OutputExistsError, match=r"holds a training that has not ended\. Go on with --resume"):
        train(discs, tiny(), tmp_path / "run")


def test_a_loss_that_is_not_finite_is_named_and_never_saved(discs, tmp_path, monkeypatch):
    calls = []

    def goes_wrong(logits, masks, valid):
        calls.append(1)
        return (logits * (nan if len(calls) == 5 else 1)).mean()

    monkeypatch.setattr("seglens.train.choose_loss", lambda *_: goes_wrong)
    with pytest.raises(TrainingError, match=r"The loss is nan in epoch 2, batch 2: \w.*, \w.*is intact"):
        train(discs, tiny(), tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["epoch"] == 0
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"setting batch_size is not allowed: .*greater than or equal to 1, received 0\."),
        ({"epochs": -1}, r"setting epochs is not allowed"),
        ({"learning_rate": nan}, r"setting learning_rate is not allowed: .*finite"),
        ({"colour": "red"}, r"setting colour is not allowed: .*not permitted"),
        ({"mean": (0.5,), "std": (0.5,)}, r"need one value for each of 3 channels"),
        ({"device": "gpu"}, "Unknown device 'gpu'"),
        ({"precision": "16"}, "Unknown precision '16'"),
        ({"loss": "ce"}, "'ce' doesn't fit a model with 1 output channel"),
    ],
)
def test_wrong_settings_are_told_in_one_line_before_anything_is_written(discs, tmp_path, changes, message):
    with pytest.raises(SettingError, match=message) as caught:
        train(discs, tiny(**changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_broken_picture_is_named_before_anything_is_written(tmp_path):
    for split in ("train", "valid", "test"):
        write_discs(tmp_path / "data" / split, 4)
    broken = tmp_path / "data/train/images/disc-02.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"disc-02\.png"):
        train(DataSettings(path=tmp_path / "data"), tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("num", "batch_size"), [(1, 8), (3, 8), (5, 4), (2, 1)])
def test_any_number_of_pictures_and_any_batch_size(tmp_path, num, batch_size):
    write_discs(tmp_path / "data/train", num)
    write_discs(tmp_path / "data/valid", 1, first=50)
    write_discs(tmp_path / "data/test", 1, first=80)
    train(DataSettings(path=tmp_path / "data"), tiny(epochs=1, batch_size=batch_size), tmp_path / "run")
    assert (tmp_path / "run/model.safetensors").is_file()


def test_one_picture_in_all_is_trained_on_without_validation(tmp_path):
    write_discs(tmp_path / "data", 1)
    train(DataSettings(path=tmp_path / "data"), tiny(epochs=2), tmp_path / "run")
    results = json.loads((tmp_path / "run/run.json").read_text())["results"]
    assert (results["best_epoch"], results["valid"]["dice"], results["num_train"]) == (2, None, 1)
    assert history(tmp_path / "run")[-1]["valid_dice"] == "nan"


def test_nothing_to_train_on(tmp_path):
    write_discs(tmp_path / "data/test", 2)
    with pytest.raises(DataError, match=r"has no picture to train on, only: test\."):
        train(DataSettings(path=tmp_path / "data", layout="pairs"), tiny(), tmp_path / "run")


def test_several_classes(tmp_path):
    for split in ("train", "valid", "test"):
        write_discs(tmp_path / "data" / split, 4)
        for file in sorted((tmp_path / "data" / split / "masks").iterdir())[:2]:
            Image.fromarray(np.asarray(Image.open(file)) * 2).save(file)
    data = DataSettings(path=tmp_path / "data", classes=("background", "left", "right"))
    run = train(data, tiny(epochs=1), tmp_path / "run")
    assert (run.spec.head, run.spec.outputs) == ("softmax", 3)
    found = seglens.evaluate(run, seglens.open_data(data).split("test"))
    assert set(found.pooled["per_class"]) == {"background", "left", "right"}
    assert (tmp_path / "run/evaluate/test/scores.json").is_file()


def test_batches_of_one_are_refused_where_the_network_needs_two(tmp_path):
    for split in ("train", "valid", "test"):
        write_discs(tmp_path / "data" / split, 1)
    data, deep = DataSettings(path=tmp_path / "data"), tiny(model="deeplabv3", encoder="resnet18", width=None)
    with pytest.raises(SettingError, match=r"deeplabv3 .* batches of 1 picture\. Choose a batch size of 2"):
        train(data, deep.model_copy(update={"batch_size": 1}), tmp_path / "one")
    train(data, deep.model_copy(update={"epochs": 1}), tmp_path / "two")


def test_bf16_trains(discs, tmp_path):
    train(discs, tiny(epochs=1, precision="bf16"), tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["results"]["precision"] == "bf16"
    assert {tensor.dtype for tensor in weights(tmp_path / "run").values()} <= {torch.float32, torch.int64}


def test_no_warning_reaches_the_user(discs, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(discs, tiny(epochs=1), tmp_path / "run")
    assert [str(warning.message) for warning in caught] == []


def test_order_of_an_epoch():
    order = Shuffled(9, batch_size=4, seed=3)
    first, again = list(order), list(order)
    order.set_epoch(1)
    second = list(order)
    assert first == again
    assert [index for _, index in first] != [index for _, index in second]
    assert {epoch for epoch, _ in second} == {1}
    # 9 = 4 + 4 + 1: a rest of one sits the epoch out.
    assert len(first) == len(order) == len({index for _, index in first}) == 8
    assert len(Shuffled(10, batch_size=4, seed=3)) == 10
    assert len(Shuffled(3, batch_size=1, seed=3)) == 3
    assert list(Shuffled(1, batch_size=4, seed=3)) == [(0, 0), (0, 0)]


def test_learning_rate_by_hand():
    rates = [relative_rate(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1
    assert rates[5 + 95 // 2] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 0.001
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert relative_rate(0, 1) == 1


def test_history_decides_by_its_rows():
    history = History()
    for epoch, dice in enumerate((0.2, 0.5, 0.5, 0.4), start=1):
        history.add({"epoch": epoch, "valid_dice": dice})
    assert history.best()["epoch"] == 2
    assert history.is_over(2)
    assert not history.is_over(3)
    assert not history.is_over(None)
    unscored = History()
    for epoch in (1, 2):
        unscored.add({"epoch": epoch})
    assert unscored.best()["epoch"] == 2
    assert not unscored.is_over(1)
