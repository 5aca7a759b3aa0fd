"""The judge on volumes: of one slice it says what it says of the picture, score by score."""

import pytest
import torch
from tests.volumes.networks import run_of, scattered, small, volumes, with_weights

import seglens
from seglens.explain.target import Target


def judged(network, images, target):
    run = run_of(network)
    maps = seglens.explain(
        run,
        images,
        target,
        methods=("grad-cam", seglens.IntegratedGradients(steps=6)),
        layers="deep",
    )
    return seglens.judge(run, images, target, maps)


def test_a_volume_of_one_slice_is_judged_as_its_picture():
    """Oracle: the 2-D judge. Cells, fills, noise, null inputs, changed weights and pictures are all in it."""
    flat = small((3, 3))
    deep = with_weights(flat, (1, 3, 3), lambda weight: weight.unsqueeze(2))
    images = volumes(3, (32, 40))
    target = scattered(images)
    expected = judged(flat, images, target)
    found = judged(deep, images[:, :, None], Target("scattered", 1, target.pixels[:, None]))
    names = [[(row.method, row.layer, row.score) for row in card.rows] for card in (found, expected)]
    assert names[0] == names[1]
    assert len({row.score for row in found.rows}) >= 6
    for row, other in zip(found.rows, expected.rows, strict=True):
        # Ranks of cells whose effects are nearly equal turn with the rounding of the fill.
        near = 1e-2 if row.score == "causal_agreement" else 2e-3
        for name in ("mean", "low", "high"):
            mine, theirs = getattr(row.interval, name), getattr(other.interval, name)
            assert mine == pytest.approx(theirs, rel=1e-3, abs=near, nan_ok=True), (
                row.method,
                row.layer,
                row.score,
            )
        assert row.verdict == other.verdict


def test_passes_of_a_volume_are_planned():
    network, images = small(), volumes(2, (8, 12, 10))
    run = run_of(network)
    plan = seglens.plan(run, images, scattered(images), methods="grad-cam", layers="deep")
    assert plan.size == (8, 12, 10)
    assert (plan.forwards, plan.passes[0].backwards) == (2, 2)
    assert torch.isfinite(torch.tensor(float(plan.forwards)))
