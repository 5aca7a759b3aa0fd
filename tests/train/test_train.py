"""Training on a handful of discs, drawn on the fly, with a network of a few hundred weights."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import seglens
from seglens.data.layout import DataSettings
from seglens.errors import DataError, OutputExistsError, SettingError, TrainingError, UnknownNameError
from seglens.evaluate.advice import SELECTION
from seglens.files.ownership import contents
from seglens.models.weights import read_state_dict
from seglens.train import train
from seglens.train.history import COLUMNS

SIZE = 32


def test_a_run_folder_is_complete(discs, tmp_path, capfd, tiny, history_of):
    run = seglens.train(discs, tiny(keep_every=2), tmp_path / "run")
    folder = tmp_path / "run"
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    expected = {"run.json", "model.safetensors", "history.csv", "curves.png"}
    expected |= {f"checkpoints/{name}" for name in ("best.ckpt", "last.ckpt", "epoch-002.safetensors")}
    assert expected <= found
    assert any(name.startswith("logs/events.out.tfevents") for name in found)
    assert not [name for name in found if "lightning_logs" in name or ".partial" in name]

    record = json.loads((folder / "run.json").read_text())
    rows = history_of(folder)
    assert (record["kind"], record["state"], record["seed"]) == ("train", "finished", 0)
    assert record["model_sha256"] == seglens.results.record.sha256([folder / "model.safetensors"])
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


def test_the_best_epoch_is_what_is_kept(discs, tmp_path, tiny, weights_of, assert_same_weights):
    train(discs, tiny(epochs=4, keep_every=1, learning_rate=0.05), tmp_path / "run")
    best = json.loads((tmp_path / "run/run.json").read_text())["results"]["best_epoch"]
    kept = read_state_dict(tmp_path / f"run/checkpoints/epoch-{best:03d}.safetensors")
    assert_same_weights(weights_of(tmp_path / "run"), kept)


def test_it_learns(discs, tmp_path, tiny):
    settings = tiny(epochs=40, width=8, learning_rate=0.01, augment=False)
    train(discs, settings, tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["results"]["valid"]["dice"] > 0.9


def test_same_seed_same_weights_and_another_seed_others(
    discs, tmp_path, tiny, weights_of, assert_same_weights
):
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        train(discs, tiny(epochs=2, seed=seed), tmp_path / name)
    assert_same_weights(weights_of(tmp_path / "one"), weights_of(tmp_path / "two"))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(
            weights_of(tmp_path / "one").values(), weights_of(tmp_path / "three").values(), strict=True
        )
    )


def test_worker_processes_change_nothing(discs, tmp_path, tiny, weights_of, assert_same_weights):
    for workers in (0, 2):
        train(discs, tiny(epochs=2, workers=workers), tmp_path / str(workers))
    assert_same_weights(weights_of(tmp_path / "0"), weights_of(tmp_path / "2"))


def test_a_users_folder_is_never_replaced(discs, tmp_path, tiny):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.txt").write_text("keep")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match=r"holds mine\.txt that"):
            train(discs, tiny(), tmp_path / "run", force=force)
    assert (tmp_path / "run/mine.txt").read_text() == "keep"
    for place in (discs.path, discs.path / "train", discs.path / "run", discs.path.parent):
        with pytest.raises(SettingError, match="data"):
            train(discs, tiny(), place, force=True)
    assert discs.path.is_dir()


def test_the_old_run_is_kept_until_the_new_one_is_whole(
    discs, tmp_path, monkeypatch, tiny, interrupt, weights_of, assert_same_weights
):
    train(discs, tiny(epochs=1), tmp_path / "run")
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(UnknownNameError):  # a mistake costs nothing, with --force too
        train(discs, tiny(model="unett"), tmp_path / "run", force=True)
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            train(discs, tiny(), tmp_path / "run", force=True)
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    with pytest.raises(OutputExistsError, match=r"holds a run that has not ended\. Go on with --resume"):
        train(discs, tiny(), tmp_path / "run")
    train(discs, tiny(), tmp_path / "whole")
    train(discs, tiny(), tmp_path / "run", resume=True)
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))
    assert contents(tmp_path / "run").others == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]
    # A new one that never got so far as to keep anything leaves nothing.
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt, epoch=0)
        with pytest.raises(KeyboardInterrupt):
            train(discs, tiny(), tmp_path / "run", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]


def test_a_broken_picture_is_named_before_anything_is_written(tmp_path, tiny, write_discs):
    for split in ("train", "valid", "test"):
        write_discs(tmp_path / "data" / split, 4)
    broken = tmp_path / "data/train/images/disc-02.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"disc-02\.png"):
        train(DataSettings(path=tmp_path / "data"), tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("num", "batch_size"), [(1, 8), (3, 8), (5, 4), (2, 1)])
def test_any_number_of_pictures_and_any_batch_size(tmp_path, num, batch_size, tiny, write_discs):
    write_discs(tmp_path / "data/train", num)
    write_discs(tmp_path / "data/valid", 1, first=50)
    write_discs(tmp_path / "data/test", 1, first=80)
    train(DataSettings(path=tmp_path / "data"), tiny(epochs=1, batch_size=batch_size), tmp_path / "run")
    assert (tmp_path / "run/model.safetensors").is_file()


def test_one_picture_in_all_is_trained_on_without_validation(tmp_path, tiny, history_of, write_discs):
    write_discs(tmp_path / "data", 1)
    train(DataSettings(path=tmp_path / "data"), tiny(epochs=2), tmp_path / "run")
    results = json.loads((tmp_path / "run/run.json").read_text())["results"]
    assert (results["best_epoch"], results["valid"]["dice"], results["num_train"]) == (2, None, 1)
    assert history_of(tmp_path / "run")[-1]["valid_dice"] == "nan"


def test_nothing_to_train_on(tmp_path, tiny, write_discs):
    write_discs(tmp_path / "data/test", 2)
    with pytest.raises(DataError, match=r"has no picture to train on, only: test\."):
        train(DataSettings(path=tmp_path / "data", layout="pairs"), tiny(), tmp_path / "run")


def test_pictures_on_which_nothing_is_marked(tmp_path, tiny, write_discs, capfd):
    for split in ("train", "valid"):
        write_discs(tmp_path / "set" / split, 3)
    for mask in (tmp_path / "set/valid/masks").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    train(DataSettings(path=tmp_path / "set", layout="pairs"), tiny(epochs=1), tmp_path / "run")
    assert "0 of 3 pictures of the valid split show foreground" in capfd.readouterr().err
    for mask in (tmp_path / "set/train/masks").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    with pytest.raises(DataError, match=r"0 of 2 pictures of the train split show foreground: nothing is"):
        train(DataSettings(path=tmp_path / "set", layout="pairs"), tiny(epochs=1), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_copies_of_pictures_to_train_on_are_told_at_the_training_and_of_scores(
    tmp_path, tiny, write_discs, capfd
):
    write_discs(tmp_path / "set/train", 6)
    write_discs(tmp_path / "set/valid", 3, first=50)
    write_discs(tmp_path / "set/test", 4, first=4)  # 4 and 5 are those of train
    run = train(DataSettings(path=tmp_path / "set"), tiny(epochs=1), tmp_path / "run")
    err = capfd.readouterr().err
    assert "the test split holds 2 pictures to train on, too (disc-04, disc-05): scores there" in err
    assert "the valid split holds" not in err
    for folder in ("images", "masks"):  # another set, under other names
        for place, file in enumerate(sorted((tmp_path / "set/train" / folder).iterdir())[:5]):
            (tmp_path / "other" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "other" / folder / f"new-{place}.png").write_bytes(file.read_bytes())
    write_discs(tmp_path / "other", 2, first=90)
    splits = {"test": None, "valid": None, "train": None, "all": tmp_path / "other"}
    for (name, data), num in zip(
        splits.items(), ("2 of these 4", "", "6 of these 6", "5 of these 7"), strict=True
    ):
        told = seglens.evaluate(run, seglens.open_split(run, name, data=data)).trained_on
        expected = f"The model was trained on {num} pictures: their scores say little about new ones."
        assert told == (expected if num else "")


def test_scores_of_pictures_on_which_something_was_chosen_are_said_to_be_so(tmp_path, tiny, discs):
    run = train(discs, tiny(epochs=1, calibrate=True), tmp_path / "run")

    def told(name):
        found = seglens.evaluate(run, seglens.open_split(run, name))
        return [(each.scores, each.text) for each in found.advice if each.source == SELECTION]

    assert told("valid") == [
        (
            ("dice", "iou", "calibration"),
            "the model's epoch, temperature and threshold were chosen on 4 of these 4 pictures, to be best "
            "there: new ones may have lower scores.",
        )
    ]
    assert told("test") == told("train") == []
    assert "4 of these 16 pictures" in told("all")[0][1]


def test_a_loss_on_the_valid_split_that_is_no_number_ends_the_training(discs, tmp_path, tiny):
    """Such answers would count as background, and an epoch of them might be the best."""
    with pytest.raises(
        TrainingError, match=r"loss on the valid split is nan after epoch 1.*\(it is 1e\+06\)"
    ):
        train(discs, tiny(learning_rate=1e6, schedule="constant"), tmp_path / "run")


def test_pictures_that_are_all_of_one_class_are_warned_of(tmp_path, tiny, write_discs, capfd):
    """As of masks whose background is 1 and not 0."""
    write_discs(tmp_path / "set", 6)
    for file in (tmp_path / "set/masks").iterdir():
        Image.fromarray(np.asarray(Image.open(file)) + 1).save(file)
    data = DataSettings(path=tmp_path / "set", masks="instances")
    train(data, tiny(epochs=1), tmp_path / "run")
    assert "every pixel of the 4 pictures to train on is foreground: there is" in capfd.readouterr().err


def test_a_class_that_no_picture_shows_is_warned_of(tmp_path, tiny, write_discs, capfd):
    write_discs(tmp_path / "set", 6)
    data = DataSettings(path=tmp_path / "set", classes=("background", "disc", "ring", "dot"))
    train(data, tiny(epochs=1), tmp_path / "run")
    err = capfd.readouterr().err
    assert "no picture of the train split shows ring or dot at the size of inputs: it can't" in err
    assert "no picture of the valid split shows ring or dot. One pixel predicted so makes its Dice 0" in err


def test_several_classes(tmp_path, tiny, write_discs):
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


def test_batches_of_one_are_refused_where_the_network_needs_two(tmp_path, tiny, write_discs):
    for split in ("train", "valid", "test"):
        write_discs(tmp_path / "data" / split, 1)
    data, deep = DataSettings(path=tmp_path / "data"), tiny(model="deeplabv3", encoder="resnet18", width=None)
    with pytest.raises(SettingError, match=r"deeplabv3 .* batches of 1 picture\. Choose a batch size of 2"):
        train(data, deep.model_copy(update={"batch_size": 1}), tmp_path / "one")
    train(data, deep.model_copy(update={"epochs": 1}), tmp_path / "two")


def test_bf16_trains(discs, tmp_path, tiny, weights_of):
    train(discs, tiny(epochs=1, precision="bf16"), tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["results"]["precision"] == "bf16"
    assert {tensor.dtype for tensor in weights_of(tmp_path / "run").values()} <= {torch.float32, torch.int64}


def test_no_warning_reaches_the_user(discs, tmp_path, tiny):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(discs, tiny(epochs=1), tmp_path / "run")
    assert [str(warning.message) for warning in caught] == []
