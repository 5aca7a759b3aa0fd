"""Removal at the target's scale, against a model whose answer rests on a known half of the target."""

import pytest
import torch
from benchmarks.removing import road
from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
from scipy.stats import spearmanr
from tests.judge.test_faithfulness import Contrast
from torch import nn

from seglens import impute, wrap
from seglens.explain.target import Target
from seglens.judge.cells import cell_sums, target_cells
from seglens.judge.faithfulness import TARGET_FRACTIONS, Curves

SIDE = 64
NUM = 10
WORTH = 0.9


def sharp() -> torch.Tensor:
    """Pictures whose every pixel differs from its neighbours: |2x - 1| is the same everywhere."""
    sign = (-1.0) ** (torch.arange(SIDE)[:, None] + torch.arange(SIDE)[None])
    images = (0.5 + 0.5 * WORTH * sign).expand(NUM, 3, SIDE, SIDE).clone()
    # What is random is drawn from the picture: each is another one, in a corner that no target reaches.
    images[:, :, 0, 0] = torch.linspace(0, 1, NUM)[:, None]
    images[:, :, 0, 1] = 1 - images[:, :, 0, 0]  # the mean, which fills holes, stays .5
    return images


def rectangle(rows: int, columns: int) -> torch.Tensor:
    pixels = torch.zeros(NUM, SIDE, SIDE, dtype=torch.bool)
    pixels[:, 8 : 8 + rows, 8 : 8 + columns] = True
    return pixels


def left_half(rows: int, columns: int) -> torch.Tensor:
    return rectangle(rows, columns // 2)


def judged(pixels: torch.Tensor, evidence: torch.Tensor, *, at_scale: bool) -> dict[str, Curves]:
    run = wrap(
        Contrast(evidence[0]),
        classes=("background", "cell"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_size=SIDE,
        head="sigmoid",
    )
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0))
    maps = {
        "evidence": evidence.float(),
        "mask": pixels.float(),
        "random": noise,
        "vague": evidence + 0.8 * noise,
        "vaguer": evidence + 1.6 * noise,
        "opposite": -evidence.float(),
    }
    return road(
        run.segmenter,
        sharp(),
        Target("target", 1, pixels),
        maps,
        cells=target_cells(pixels) if at_scale else None,
        area=pixels.flatten(1).sum(1).float() if at_scale else None,
        imputer=impute.fill_with_mean,
    )


# .5, 2, 6, 14 and 30 % of the picture.
@pytest.mark.parametrize(("rows", "columns"), [(5, 4), (8, 10), (16, 16), (24, 24), (35, 36)])
def test_the_map_that_shows_the_evidence_is_above_the_mask(rows: int, columns: int) -> None:
    found = judged(rectangle(rows, columns), left_half(rows, columns), at_scale=True)
    value = {name: curves.value for name, curves in found.items()}
    assert all(values.isfinite().all() for values in value.values())
    assert (value["evidence"] > value["mask"] + 0.05).all()
    assert (value["mask"] > value["random"]).all()
    torch.testing.assert_close(value["opposite"], -value["evidence"], atol=0.15, rtol=0)
    error = float(value["random"].std()) / NUM**0.5
    assert abs(float(value["random"].mean())) < 4 * error


def test_steps_of_the_picture_can_not_tell_the_evidence_from_a_small_mask() -> None:
    """Why the score exists: all of a target of 6 % is gone at the first step of a tenth of the picture."""
    found = judged(rectangle(16, 16), left_half(16, 16), at_scale=False)
    torch.testing.assert_close(found["evidence"].value, found["mask"].value, atol=1e-4, rtol=0)


def test_both_ends_are_shares_of_the_evidence_that_can_be_counted() -> None:
    """Half of the target is the evidence, 128 pixels in cells of 2 x 2; a step of f takes 256 f pixels."""
    found = judged(rectangle(16, 16), left_half(16, 16), at_scale=True)["evidence"]
    taken = torch.tensor([min(1.0, 2 * f) for f in TARGET_FRACTIONS]).expand(NUM, -1)
    assert found.least_kept is not None
    assert found.most_kept is not None
    for curve, share in (
        (found.most_first, 1 - taken),
        (found.least_first, torch.ones_like(taken)),
        (found.most_kept, taken),
        (found.least_kept, torch.zeros_like(taken)),
    ):
        torch.testing.assert_close(curve, WORTH * share, atol=1e-4, rtol=0)
    expected = WORTH * taken.mean(1) / (found.full - found.base)
    for value in (found.deletion, found.insertion, found.value):
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=0)


def test_on_large_targets_both_scales_rank_maps_alike() -> None:
    pixels, evidence = rectangle(35, 36), left_half(35, 36)
    both = [
        [float(curves.value.mean()) for curves in judged(pixels, evidence, at_scale=scale).values()]
        for scale in (True, False)
    ]
    assert spearmanr(*both).statistic > 0.9


def test_steps_that_are_most_of_the_picture_are_left_out() -> None:
    found = judged(rectangle(35, 36), left_half(35, 36), at_scale=True)["evidence"]
    kept = [f * 35 * 36 <= 0.9 * SIDE**2 for f in TARGET_FRACTIONS]
    assert kept == [True] * 5 + [False]
    assert found.most_first.isfinite().all(0).tolist() == kept


def test_cells_shrink_with_the_target_and_part_the_picture() -> None:
    pixels = torch.zeros(4, 256, 256, dtype=torch.bool)
    for row, side in enumerate((0, 16, 64, 200)):
        pixels[row, :side, :side] = True
    cells = target_cells(pixels)
    across = [round(int(each.max() + 1) ** 0.5) for each in cells]
    assert across == [16, 64, 32, 16]  # no target, more than 64 would be needed, 8 across 64, the least
    assert torch.equal(cell_sums(torch.ones(4, 256, 256), cells).sum(1), torch.full((4,), 256.0**2).double())
    volume = torch.zeros(1, 24, 48, 24, dtype=torch.bool)
    volume[:, :12, :12, :12] = True
    assert int(target_cells(volume).max()) + 1 == 21**3  # 8 x (24 x 48 x 24)^(1/3) / 12 = 20.2


class Bright(nn.Module):
    """The logit of a pixel is 6 times how much brighter than .5 its surroundings of 5 x 5 are."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 6 * (nn.functional.avg_pool2d(images.mean(1, keepdim=True), 5, 1, 2, False, False) - 0.5)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # theirs, of numpy and tensors
def test_pixel_by_pixel_the_curves_are_those_of_pytorch_grad_cam() -> None:
    """Its ROAD removes shares of the picture: those that are so many areas of the target, at both ends."""
    size, num = 32, 3
    total, generator = size**2, torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(num, 3, size, size, generator=generator)
    images[:, :, 12:20, 12:20] += 0.75
    pixels = torch.zeros(num, size, size, dtype=torch.bool)
    pixels[:, 12:20, 12:20] = True
    heat = torch.rand(num, size, size, generator=generator) + 0.5 * pixels
    heat /= heat.max()
    run = wrap(
        Bright(),
        classes=("background", "bright"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_size=size,
        head="sigmoid",
    )
    found = road(
        run.segmenter,
        images,
        Target("square", 1, pixels),
        {"map": heat},
        cells=torch.arange(total).view(size, size).expand(num, -1, -1),
        area=pixels.flatten(1).sum(1).float(),
    )["map"]
    assert found.evaluable.all()
    assert found.least_kept is not None
    assert found.most_kept is not None
    targets = [lambda logits: logits[0, 12:20, 12:20].sigmoid().mean()] * num
    for column, fraction in enumerate(TARGET_FRACTIONS):
        share = 100 * fraction * 64 / total
        for curve, remove, percentile in (
            (found.most_first, ROADMostRelevantFirst, 100 - share),
            (found.least_first, ROADLeastRelevantFirst, 100 - share),
            (found.most_kept, ROADLeastRelevantFirst, share),
            (found.least_kept, ROADMostRelevantFirst, share),
        ):
            theirs = remove(percentile)(images, heat.numpy(), targets, run.segmenter, return_diff=False)
            torch.testing.assert_close(curve[:, column], torch.from_numpy(theirs), atol=5e-3, rtol=0)
