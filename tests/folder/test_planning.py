"""Plans of folders: counted against the folder that is then made, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.folder.discs import split_of
from torch.nn.modules.module import register_module_forward_pre_hook

import seglens
from seglens.errors import SettingError
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.rise import Rise
from seglens.folder import planning
from seglens.models.segmenter import Segmenter
from seglens.runs import Run

METHODS = ("grad-cam", "saliency", IntegratedGradients(steps=3))


def test_a_folder_takes_the_passes_that_were_planned(run: Run, folder: Path):
    """The random model that CAMs are compared with is not a pass of the maps: it is part of the rest."""
    split = split_of(folder).select([0, 1])
    planned = seglens.plan_folder(run, split, methods=METHODS, layers=("body",), batch_size=1)
    assert planned.num_images == 2
    assert [entry.forwards for entry in planned.passes] == [2, 2 * (2 + 3)]
    assert [entry.backwards for entry in planned.passes] == [2, 2 * 3]
    graded = []

    def note(module, given) -> None:
        if isinstance(module, Segmenter) and torch.is_grad_enabled():
            graded.append(len(given[0]))

    handle = register_module_forward_pre_hook(note)
    seglens.explain_folder(run, split, out=folder / "out", methods=METHODS, layers=("body",), batch_size=1)
    handle.remove()
    assert sum(graded) == planned.backwards + 2  # once more for the random model


def test_nothing_is_left_and_the_first_pictures_are_timed(run: Run, folder: Path):
    before = sorted(folder.rglob("*"))
    planned = seglens.plan_folder(run, split_of(folder), layers=("body",), num_images=2)
    assert sorted(folder.rglob("*")) == before
    assert planned.seconds is not None
    assert planned.seconds > 0


def passes_of(folder: Path, work: Callable[[], object]) -> int:
    """How many pictures go through a model."""
    seen = []

    def note(module, given) -> None:
        if isinstance(module, Segmenter):
            seen.append(len(given[0]))

    handle = register_module_forward_pre_hook(note)
    work()
    handle.remove()
    return sum(seen)


def test_no_more_than_the_first_chunk_is_explained(run: Run, folder: Path):
    """Counted: of 5 pictures, 2 at a time, the plan makes the passes of 2."""
    split = split_of(folder)
    asked: dict[str, Any] = {"methods": METHODS[1:], "batch_size": 2}
    out = folder / "out"
    chunk = passes_of(folder, lambda: seglens.explain_folder(run, split.select([0, 1]), out=out, **asked))
    assert passes_of(folder, lambda: seglens.plan_folder(run, split, **asked)) <= chunk


def test_long_work_is_ended_and_its_time_follows_from_the_passes(run: Run, folder: Path, monkeypatch):
    """What was made in that time is to the time as all passes are to the whole."""
    split = split_of(folder)
    asked: dict[str, Any] = {"methods": (Rise(num_masks=1000),), "layers": ()}
    monkeypatch.setattr(planning, "LONG", 0.05)
    found: list[seglens.Plan] = []
    made = passes_of(folder, lambda: found.append(seglens.plan_folder(run, split, **asked)))
    assert made < 1000
    assert found[0].forwards == 1000 * len(split)
    assert found[0].seconds is not None
    assert found[0].seconds > 0.05 * 5000 / made


def test_a_broken_picture_does_not_stand_for_the_others(run: Run, folder: Path):
    (folder / "images" / "0.png").write_bytes(b"broken")
    planned = seglens.plan_folder(run, split_of(folder), layers=("body",), num_images=2)
    assert planned.passes[0].forwards == 2


def test_a_budget_goes_to_the_maps_and_to_the_plan(run: Run, folder: Path):
    with pytest.raises(SettingError, match="more than the budget of 1 KB"):
        seglens.plan_folder(run, split_of(folder), layers=("body",), memory=1000)
    with pytest.raises(SettingError, match="more than the budget of 1 KB"):
        seglens.explain_folder(run, split_of(folder), out=folder / "out", layers=("body",), memory=1000)
