"""The perturbation engine: scores by row against scores one by one, whatever the chunks and the memory."""

import pytest
import torch
from torch import nn

from seglens import wrap
from seglens.explain.masked import clean_scores, masked_scores
from seglens.explain.target import Target


@pytest.fixture
def run():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))
    return wrap(module, classes=("background", "cell"), mean=(0.5,) * 3, std=(0.25,) * 3, image_size=16)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> Target:
    pixels = torch.zeros(3, 16, 16, dtype=torch.bool)
    for row in range(3):
        pixels[row, 2 : 6 + row, 3:9] = True
    return Target("box", 1, pixels)


ROWS = torch.tensor([0, 2, 2, 1, 0, 1, 2])


def dim(images: torch.Tensor, copies: torch.Tensor) -> torch.Tensor:
    """Copy i is darkened by i tenths."""
    return images * (1 - copies.to(images) / 10)[:, None, None, None]


@pytest.mark.parametrize("unit", ["sum", "mean", "probability"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_scores_are_those_of_the_copies_one_by_one(run, images, target, unit, chunk) -> None:
    found = masked_scores(run.segmenter, images, (target,), ROWS, dim, unit=unit, chunk=chunk)[0]
    for copy, row in enumerate(ROWS.tolist()):
        logit = run.predict(images[row : row + 1] * (1 - copy / 10)).logits[0, 0][target.pixels[row]]
        expected = {"sum": logit.sum(), "mean": logit.mean(), "probability": logit.sigmoid().mean()}[unit]
        torch.testing.assert_close(found[copy], expected, atol=1e-5, rtol=1e-5)


def test_memory_that_runs_out_halves_the_chunk(run, images, target) -> None:
    sizes = []

    def greedy(copies: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        sizes.append(len(copies))
        if len(copies) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return dim(copies, which)

    found = masked_scores(run.segmenter, images, (target,), ROWS, greedy, unit="mean", chunk=8)[0]
    torch.testing.assert_close(
        found, masked_scores(run.segmenter, images, (target,), ROWS, dim, unit="mean")[0]
    )
    assert sizes[:3] == [7, 4, 2]


def test_memory_that_is_not_enough_for_one_copy_is_an_error(run, images, target) -> None:
    def hopeless(copies: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (pretended)")

    with pytest.raises(torch.OutOfMemoryError, match="pretended"):
        masked_scores(run.segmenter, images, (target,), ROWS, hopeless)[0]


def test_the_model_is_left_as_found(run, images, target) -> None:
    run.segmenter.train()
    before = {name: value.clone() for name, value in run.segmenter.state_dict().items()}
    scores = masked_scores(run.segmenter, images, (target,), ROWS, dim)[0]
    assert run.segmenter.training
    assert not scores.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in run.segmenter.state_dict().items())


def test_a_picture_without_a_target_scores_nan(run, images, target) -> None:
    pixels = target.pixels.clone()
    pixels[1] = False
    scores = clean_scores(run.segmenter, images, (Target("box", 1, pixels),))[0]
    assert scores.isnan().tolist() == [False, True, False]
