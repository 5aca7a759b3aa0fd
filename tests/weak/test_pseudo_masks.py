"""Pseudo-masks from end to end on pictures whose truth is known, resumed, refused, and blind to masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.weak.scenes import red_score, red_square

from seglens.data.layout import Entry, PictureOnly, Split
from seglens.data.opening import open_data
from seglens.data.sample import Task
from seglens.errors import DataError, OutputExistsError, SettingError, UnknownNameError
from seglens.weak import pseudo_masks
from seglens.weak.ignore_band import IGNORED, as_values, with_ignore_band
from seglens.weak.labels import Labelled
from seglens.weak.pseudo_masks import as_probability, make_pseudo_masks
from seglens.weak.refine import refine
from seglens.weak.settings import (
    HeatSettings,
    MaskSettings,
    PseudoSettings,
    RefineSettings,
    SpreadSettings,
    SuperpixelSettings,
    from_plain,
    to_plain,
)
from seglens.weak.threshold import Cut

CPU = torch.device("cpu")

SETTINGS = PseudoSettings(
    heat=HeatSettings(maps=("hires-cam@act",), scales=(64,), side=64),
    spread=SpreadSettings(layers=("body",), scales=(64,), stride=4, rounds=3),
    patches=SuperpixelSettings(num_segments=40, compactness=10.0, sigma=0.0),
)


@pytest.fixture(autouse=True)
def _asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_masks, "open_classifier_score", lambda settings, device: red_score())


@pytest.fixture
def labelled(tmp_path: Path) -> Labelled:
    """Three pictures with a red square, and one without."""
    entries = []
    for number in range(4):
        image, there = red_square((48, 64), seed=number)
        pixels = image if number < 3 else image.masked_fill(there, 0.1)
        file = tmp_path / "pictures" / f"p{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy()).save(file)
        entries.append(Entry(f"p{number}", file, labelled=False))
    return Labelled(Split("train", Task(), tuple(entries), PictureOnly(3)), (True, True, True, False))


def iou(values: torch.Tensor, there: torch.Tensor) -> float:
    return float(((values >= 0.5) & there).sum() / ((values >= 0.5) | there).sum())


def test_every_stage_finds_the_square(labelled: Labelled, tmp_path: Path) -> None:
    made = make_pseudo_masks(labelled, SETTINGS, tmp_path / "out", device=CPU, seed=0)
    assert [stage.name for stage in made.stages] == ["heat", "patches", "spread", "refined", "voted", "masks"]
    assert made.names == made.files == ("p0", "p1", "p2", "p3")
    for name in ("spread", "refined", "voted", "masks"):
        for index in range(3):
            values = made.load_stage(name, index)
            assert iou(values, red_square((48, 64), seed=index)[1]) > 0.85, name
        assert not made.load_stage(name, 3).any()
        assert made.stage(name).seconds > 0
        assert made.stage(name).processor_seconds > 0
    assert made.load_superpixels(1).shape == (48, 64)
    facts = made.stage("spread").facts
    assert facts["settled"] == (facts["rounds"][-1]["changed"] < 0.002)
    heat = made.stage("heat")
    assert heat.threshold == heat.facts["middle"]
    assert 0 < heat.facts["low"] < heat.facts["middle"] < heat.facts["high"] < 1
    with pytest.raises(UnknownNameError, match="stage that predicts 'patches'"):
        made.load_stage("patches", 0)
    with pytest.raises(UnknownNameError, match=r"Unknown stage 'refine'\. Did you mean 'refined'"):
        made.stage("refine")


def test_masks_are_a_set_that_trains(labelled: Labelled, tmp_path: Path) -> None:
    settings = replace(SETTINGS, spread=None, refine=None, masks=MaskSettings(margin=0.3))
    made = make_pseudo_masks(labelled, settings, tmp_path / "out", device=CPU, seed=0)
    data = open_data(made.data_settings())
    samples = {
        split.entries[index].name: split[index]
        for split in data.splits.values()
        for index in range(len(split))
    }
    assert sorted(samples) == ["p0", "p1", "p2", "p3"]
    for index in range(4):
        sample, values = samples[f"p{index}"], made.load_stage("masks", index)
        assert torch.equal(sample.valid, values != 0.5)
        assert torch.equal(sample.mask, (values == 1).long())  # type: ignore[arg-type]
        assert torch.equal(sample.image, labelled.split[index].image)


def test_a_stopped_call_goes_on_and_a_finished_one_only_reads(
    labelled: Labelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_pseudo_masks(labelled, SETTINGS, tmp_path / "whole", device=CPU, seed=0)
    asked: list[int] = []

    def stops(image: torch.Tensor, values: torch.Tensor, settings: RefineSettings) -> torch.Tensor:
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(1)
        return refine(image, values, settings)

    monkeypatch.setattr(pseudo_masks, "refine", stops)
    with pytest.raises(KeyboardInterrupt):
        make_pseudo_masks(labelled, SETTINGS, tmp_path / "parts", device=CPU, seed=0)
    done = tmp_path / "parts" / "refined" / "p0.npz"
    before = done.stat().st_mtime_ns
    monkeypatch.setattr(pseudo_masks, "refine", refine)
    parts = make_pseudo_masks(labelled, SETTINGS, tmp_path / "parts", device=CPU, seed=0)
    assert done.stat().st_mtime_ns == before
    for name in ("heat", "spread", "refined", "voted", "masks"):
        for index in range(4):
            assert torch.equal(whole.load_stage(name, index), parts.load_stage(name, index))
    monkeypatch.setattr(
        pseudo_masks, "open_classifier_score", lambda settings, device: pytest.fail("asked again")
    )
    again = make_pseudo_masks(labelled, SETTINGS, tmp_path / "parts", device=CPU, seed=0)
    assert again == parts


def test_other_settings_are_not_mixed_in_but_earlier_stages_serve(labelled: Labelled, tmp_path: Path) -> None:
    import shutil

    make_pseudo_masks(labelled, SETTINGS, tmp_path, device=CPU, seed=0)
    other = replace(SETTINGS, refine=None)
    with pytest.raises(OutputExistsError, match=r"voted was made with other settings: .* or delete this one"):
        make_pseudo_masks(labelled, other, tmp_path, device=CPU, seed=0)
    heat = (tmp_path / "heat" / "p0.npz").stat().st_mtime_ns
    for name in ("refined", "voted", "masks"):
        shutil.rmtree(tmp_path / name)
    made = make_pseudo_masks(labelled, other, tmp_path, device=CPU, seed=0)
    assert (tmp_path / "heat" / "p0.npz").stat().st_mtime_ns == heat
    assert "refined" not in [stage.name for stage in made.stages]
    with pytest.raises(OutputExistsError, match="heat was made with other settings: seed was 0 and is now 1"):
        make_pseudo_masks(labelled, other, tmp_path, device=CPU, seed=1)


def test_damaged_files_are_named(labelled: Labelled, tmp_path: Path) -> None:
    made = make_pseudo_masks(labelled, replace(SETTINGS, spread=None), tmp_path, device=CPU, seed=0)
    (tmp_path / "refined" / "p1.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"p1\.npz should hold a map, and holds none"):
        made.load_stage("refined", 1)


def test_masks_are_made_of_votes_where_asked_for(labelled: Labelled, tmp_path: Path) -> None:
    settings = replace(SETTINGS, spread=None, masks=MaskSettings(margin=0.0, votes=True))
    made = make_pseudo_masks(labelled, settings, tmp_path / "votes", device=CPU, seed=0)
    plain = replace(settings, masks=MaskSettings(margin=0.0))
    other = make_pseudo_masks(labelled, plain, tmp_path / "none", device=CPU, seed=0)
    for index in range(3):
        assert torch.equal(made.load_stage("masks", index) == 1, made.load_stage("voted", index) >= 0.5)
        assert torch.equal(other.load_stage("masks", index) == 1, other.load_stage("refined", index) >= 0.5)
    with pytest.raises(SettingError, match=r"'patches' is left out\. Set patches, or switch votes off"):
        make_pseudo_masks(labelled, replace(settings, patches=None), tmp_path / "c", device=CPU, seed=0)


def test_no_picture_with_the_object(labelled: Labelled, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="The object is in 0 of 1 picture"):
        make_pseudo_masks(labelled.select([3]), SETTINGS, tmp_path, device=CPU, seed=0)


def test_settings_are_plain_json() -> None:
    assert from_plain(to_plain(SETTINGS)) == SETTINGS
    assert from_plain({"spread": None, "heat": {"flips": False}}).heat == HeatSettings(flips=False)
    with pytest.raises(SettingError, match=r"PseudoSettings: there is no setting heat\.flip\."):
        from_plain({"heat": {"flip": True}})


def test_heat_read_as_probability() -> None:
    values = torch.tensor([[0.1, 0.2, 0.4, 0.8]])
    found = as_probability(values, Cut(0.2, 0.4, 0.8))
    torch.testing.assert_close(found, torch.tensor([[1 / (1 + 27.0), 0.1, 0.5, 0.9]]))


def test_the_band_lies_around_the_threshold() -> None:
    values = torch.tensor([[0.1, 0.35, 0.5, 0.65, 0.9]])
    mask = with_ignore_band(values, 0.5, MaskSettings(margin=0.1))
    assert mask.tolist() == [[0, 0, IGNORED, 1, 1]]
    assert as_values(mask).tolist() == [[0, 0, 0.5, 1, 1]]
    assert not (with_ignore_band(values, 0.5, MaskSettings(margin=0.0)) == IGNORED).any()
    with pytest.raises(SettingError, match=r"MaskSettings\.margin is -0\.1, but must be from 0 to 0\.5"):
        with_ignore_band(values, 0.5, MaskSettings(margin=-0.1))
    assert np.unique(mask.numpy()).max() <= 255
