"""Memory that doesn't suffice: played by a network that refuses batches above a size."""

import pytest
import torch

from seglens.errors import TrainingError
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import is_out_of_memory
from seglens.train import train


def refuse_above(monkeypatch, most, *, from_call=0):
    """Let batches of more than ``most`` pictures fail, from a call on, as a GPU does."""
    forward, calls = Segmenter.forward, []

    def limited(self, images):
        calls.append(len(images))
        if len(images) > most and self.training and len(calls) > from_call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, images)

    monkeypatch.setattr(Segmenter, "forward", limited)


def test_it_says_which_batch_size_fits(discs, tmp_path, tiny, monkeypatch):
    refuse_above(monkeypatch, 3)
    with pytest.raises(
        TrainingError,
        match=r"A batch of 8 pictures of 32 x 32 pixels doesn't fit .* of 2 was tried and fits: give",
    ):
        train(discs, tiny(batch_size=8), tmp_path / "run")


def test_where_nothing_fits_it_says_so(discs, tmp_path, tiny, monkeypatch):
    refuse_above(monkeypatch, 0)
    with pytest.raises(TrainingError, match=r"Smaller ones don't either: choose a smaller image size"):
        train(discs, tiny(), tmp_path / "run")


def test_halved_batches_make_the_same_steps(discs, tmp_path, tiny, monkeypatch, history_of, results_of):
    """A loss that is a mean over pixels, and no batch norm at work: the gradient of a step is the same."""
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda self, images: images)
    settings = tiny(epochs=2, loss="bce", batch_size=4, halve_batch=True, augment=False)
    train(discs, settings, tmp_path / "whole")
    refuse_above(monkeypatch, 1)
    with pytest.warns(UserWarning, match=r"don't fit into memory: going on in batches of \d, \d to a step"):
        train(discs, settings, tmp_path / "halved")
    assert results_of(tmp_path / "whole")["batch_splits"] == 1
    assert results_of(tmp_path / "halved")["batch_splits"] == 4
    for one, other in zip(history_of(tmp_path / "whole"), history_of(tmp_path / "halved"), strict=True):
        assert float(one["valid_loss"]) == pytest.approx(float(other["valid_loss"]), rel=1e-4)


def test_memory_that_ends_in_the_second_epoch_costs_no_epoch(discs, tmp_path, tiny, monkeypatch, history_of):
    refuse_above(monkeypatch, 2, from_call=2)  # one epoch has two batches of four
    with pytest.warns(UserWarning, match="batches of 2, 2 to a step"):
        train(discs, tiny(halve_batch=True), tmp_path / "run")
    assert [row["epoch"] for row in history_of(tmp_path / "run")] == ["1", "2", "3"]


def test_what_counts_as_memory():
    refused = RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"
    )
    assert is_out_of_memory(refused)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
