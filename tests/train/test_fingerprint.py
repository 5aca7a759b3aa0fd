"""Settings from the data: worked out by hand on sets whose pictures are known."""

import json

import numpy as np
import pytest
from PIL import Image

import seglens
from seglens.data.layout import DataSettings
from seglens.errors import SettingError
from seglens.train import TrainSettings, train
from seglens.train.fingerprint import choose, fingerprint, usual_batch


@pytest.mark.parametrize(
    ("pictures", "world", "batch"),
    [
        (1, 1, 2),
        (8, 1, 2),
        (16, 1, 4),
        (31, 1, 7),
        (32, 1, 8),
        (999, 1, 8),
        (8, 4, 4),
        (20, 2, 4),
        (999, 3, 6),
        (999, 16, 16),
    ],
)
def test_an_epoch_has_four_steps_where_nobody_chose_a_batch(pictures, world, batch):
    assert usual_batch(pictures, world) == batch


def test_the_default_learns_from_eight_pictures(discs, tmp_path, results_of):
    """With one step an epoch, as batches of 8 have, its Dice was .23 here."""
    settings = TrainSettings(width=8, image_size=64, device="cpu", precision="32")
    run = train(discs, settings, tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["settings"]["batch_size"] == 2
    assert (seglens.evaluate(run, seglens.open_split(run, "test")).pooled.dice or 0) > 0.95
    # A resumed training has the settings that it began with.
    assert train(discs, settings, tmp_path / "run", resume=True).sha256 == run.sha256


@pytest.mark.parametrize("chosen", [None, 0.3])
def test_the_last_line_says_what_an_evaluation_says(chosen, discs, tmp_path, tiny, results_of, capsys):
    from seglens.cli.printing import print_training

    settings = tiny(epochs=2, threshold=chosen, batch_size=8)
    run = train(discs, settings, tmp_path / "run")
    print_training(tmp_path / "run")
    scored = seglens.evaluate(run, seglens.open_split(run, "valid"), precision="32")
    results = results_of(tmp_path / "run")
    said = results["valid_at_threshold"] if chosen is None else results["valid"]
    for name in ("dice", "iou"):
        assert said[name] == pytest.approx(scored.pooled.score(name), abs=2e-3)
    line = capsys.readouterr().out
    assert f"Dice {said['dice']:.3f}" in line
    assert ("at the threshold chosen there" in line) == (chosen is None)


def write_set(folder, size, boxes, *, num, white=255):
    """Pictures of ``size`` (rows, columns) with the same boxes (top, left, side) marked."""
    for split, count in (("train", num), ("valid", 2), ("test", 2)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for index in range(count):
            random = np.random.default_rng(index + 1000 * len(split))
            mask = np.zeros(size, np.uint8)
            for top, left, side in boxes:
                mask[top : top + side, left : left + side] = 255
            picture = random.integers(0, white, size=size, dtype=np.uint16)
            depth = np.uint8 if white == 255 else np.uint16
            Image.fromarray(picture.astype(depth)).save(folder / split / "images" / f"{index:03d}.png")
            Image.fromarray(mask).save(folder / split / "masks" / f"{index:03d}.png")
    return seglens.open_data(DataSettings(path=folder, channels=1))


def test_a_fingerprint_and_what_follows_from_it(tmp_path):
    """Two boxes of 8 x 8 and 64 x 64 in 600 x 400 pixels."""
    data = write_set(tmp_path, (600, 400), [(10, 10, 8), (100, 100, 64)], num=12)
    found = fingerprint(data.split("train"))
    assert (found.pictures, found.size, found.longest, found.objects) == (12, (600, 400), 600, 24)
    assert found.foreground == pytest.approx((8**2 + 64**2) / (600 * 400))
    assert found.small_object == pytest.approx(2 * np.sqrt(64 / np.pi))  # the area of the smaller box
    assert found.small_share == pytest.approx(found.small_object / 600)
    chosen = {each.setting: each for each in choose(TrainSettings(), found, data)}
    # 8 pixels across takes 8 / (9.03 / 600) = 532 pixels: more than the most, 512.
    assert chosen["image_size"].value == 512
    assert "keep 8 of 8" in chosen["image_size"].reason
    assert chosen["batch_size"].value == 2  # of 3, as 8 pictures of 256 x 256 are 2 of 512 x 512
    assert chosen["epochs"].value == 100  # 6 steps each
    assert chosen["loss"].value == "bce+dice"  # 1.7 % is foreground
    assert "a quarter or more" in chosen["window"].reason
    assert all(each.reason for each in chosen.values())


def test_rare_foreground_dark_pictures_and_what_was_given(tmp_path):
    data = write_set(tmp_path, (96, 96), [(10, 10, 5)], num=40, white=900)
    found = fingerprint(data.split("train"))
    chosen = {each.setting: each for each in choose(TrainSettings(), found, data)}
    assert chosen["image_size"].value == 96  # nothing is gained by enlarging
    assert (chosen["loss"].value, chosen["batch_size"].value) == ("tversky", 8)
    assert chosen["epochs"].value == 100
    assert "0.0% to 1.4%" in chosen["window"].reason
    kept = TrainSettings(image_size=64, loss="bce", epochs=3, batch_size=4, window="full")
    assert choose(kept, found, data) == ()
    weighted = choose(TrainSettings(balanced=True), found, data)
    assert {each.setting: each.value for each in weighted}["loss"] == "bce+dice"


def test_auto_is_printed_and_kept(discs, tmp_path, capsys, results_of):
    settings = TrainSettings(auto=True, width=4, epochs=2, device="cpu", precision="32")
    train(discs, settings, tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    choices = {each["setting"]: each for each in record["results"]["auto"]["choices"]}
    assert set(choices) == {"image_size", "batch_size", "loss", "window"}
    for name, each in choices.items():
        assert record["settings"][name] == each["value"]
    assert record["results"]["auto"]["fingerprint"]["pictures"] == 8
    printed = capsys.readouterr().out
    assert all(f"{name} = {each['value']}: {each['reason']}." in printed for name, each in choices.items())
    # The same command goes on; another doesn't.
    train(discs, settings, tmp_path / "run", resume=True)
    with pytest.raises(SettingError, match=r"begun with the setting image_size = 32, received 64"):
        train(discs, settings.model_copy(update={"image_size": 64}), tmp_path / "run", resume=True)
