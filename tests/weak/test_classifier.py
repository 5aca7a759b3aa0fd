"""A classifier of red and blue pictures: resumed to the same weights, refused without negatives; tiles."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.weak.scenes import red_score

from seglens.data.layout import Entry, PictureOnly, Split
from seglens.data.sample import Task
from seglens.errors import DataError, OutputExistsError, SettingError
from seglens.weak import classifier
from seglens.weak.classifier import (
    ClassifierSettings,
    measure_classifier,
    open_classifier,
    part,
    train_classifier,
    write_state,
)
from seglens.weak.labels import Labelled

CPU = torch.device("cpu")

SETTINGS = ClassifierSettings(
    encoder="mobilenetv3_small_050",
    weights="none",
    image_size=32,
    epochs=2,
    batch_size=8,
    learning_rate=5e-3,
    valid_share=0.25,
)


@pytest.fixture
def labelled(tmp_path: Path) -> Labelled:
    """Eight red pictures, twelve blue ones."""
    generator = torch.Generator().manual_seed(0)
    entries, present = [], []
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        image = torch.rand(3, 32, 32, generator=generator) * 0.3
        image[0 if number < 8 else 2] += 0.6
        file = tmp_path / "pictures" / f"p{number:02d}.png"
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(file)
        entries.append(Entry(file.stem, file, labelled=False))
        present.append(number < 8)
    return Labelled(Split("train", Task(), tuple(entries), PictureOnly(3)), tuple(present))


def test_either_label_is_held_out_by_its_share(labelled: Labelled) -> None:
    found = part(labelled, 0.25, seed=0)
    assert (len(found.positive), len(found.negative), len(found.held_out)) == (6, 9, 5)
    assert sorted((*found.positive, *found.negative, *found.held_out)) == list(range(20))
    assert all(labelled.present[index] for index in found.positive)
    with pytest.raises(
        DataError, match=r"with the object and pictures without it\. Here are 8 with it and 0 without it"
    ):
        part(labelled.select(range(8)), 0.0, seed=0)


def test_how_often_it_is_right_by_hand(labelled: Labelled) -> None:
    found = measure_classifier(red_score(), labelled, 32)
    # Half of the red values are 0 after the ReLU of blue pictures: their score is 0, which counts as "no".
    assert found == {"num": 20, "balanced_accuracy": 1.0, "area_under_roc": 1.0}
    assert measure_classifier(red_score(), labelled.select([0]), 32)["area_under_roc"] is None


def test_a_resumed_training_gives_the_same_weights(
    labelled: Labelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = train_classifier(labelled, tmp_path / "whole", device=CPU, seed=0, settings=SETTINGS)
    assert isinstance(results["loss"], list)
    assert len(results["loss"]) == 2
    assert results["train"] == {"object": 6, "none": 9}
    real, epochs = write_state, []

    def stops(*given: object) -> None:
        real(*given)  # type: ignore[arg-type]
        epochs.append(1)
        if len(epochs) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(classifier, "write_state", stops)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(labelled, tmp_path / "parts", device=CPU, seed=0, settings=SETTINGS)
    with pytest.raises(DataError, match="training was stopped before its end"):
        open_classifier(tmp_path / "parts", device=CPU)
    again = train_classifier(labelled, tmp_path / "parts", device=CPU, seed=0, settings=SETTINGS)
    assert len(epochs) == 2
    assert again["loss"] == pytest.approx(results["loss"])
    one, two = (open_classifier(tmp_path / name, device=CPU) for name in ("whole", "parts"))
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], tensor)
    assert "image-level labels" in one.about
    assert train_classifier(labelled, tmp_path / "whole", device=CPU, seed=0, settings=SETTINGS) == results


def test_another_classifier_is_not_written_over(labelled: Labelled, tmp_path: Path) -> None:
    quick = replace(SETTINGS, epochs=1)
    train_classifier(labelled, tmp_path / "c", device=CPU, seed=0, settings=quick)
    with pytest.raises(
        OutputExistsError, match="a classifier that was trained with other settings: epochs was"
    ):
        train_classifier(labelled, tmp_path / "c", device=CPU, seed=0, settings=SETTINGS)


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="epochs 0, "):
        ClassifierSettings(epochs=0)
    with pytest.raises(SettingError, match=r"valid_share is 1\.0"):
        ClassifierSettings(valid_share=1.0)
    with pytest.raises(DataError, match="holds no classifier that can be used: there is none in it"):
        open_classifier(tmp_path, device=CPU)
