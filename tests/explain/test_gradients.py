"""Maps of the input's gradient, and averages of it over many points."""

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import nn

from seglens.explain import explain
from seglens.explain.gradients import GRADIENTS, averages, input_gradients, scores_of
from seglens.explain.target import Target
from seglens.explain.trace import left_as_found


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


def score_of(run, target):
    """What captum is given: the mean logit over the target's pixels."""
    return lambda rows: target.score(run.segmenter(rows), torch.arange(len(rows)), "mean")


@pytest.fixture
def linear(make_run):
    """A 1x1 convolution: dS/dx is its weight over the number of pixels, in the target."""
    module = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([2.0, -3.0, 0.5]).view(1, 3, 1, 1))
    return make_run(module)


# Hand algebra.


def test_saliency_of_a_linear_model_is_its_largest_weight(linear, images, target):
    found = explain(linear, images, target, methods=["saliency"])["saliency"]
    torch.testing.assert_close(found.map, 3.0 * target.pixels / target.pixels.sum((1, 2), keepdim=True))
    assert found.channels is None  # the largest channel, not a sum


def test_input_x_gradient_of_a_linear_model_is_its_score_in_parts(linear, images, target):
    found = explain(linear, images, target, methods=["input-x-gradient"])["input-x-gradient"]
    count = target.pixels.sum((1, 2)).view(-1, 1, 1, 1)
    weight = torch.tensor([2.0, -3.0, 0.5]).view(1, 3, 1, 1)
    torch.testing.assert_close(found.channels, weight * images * target.pixels[:, None] / count)
    torch.testing.assert_close(found.map, (weight * images * target.pixels[:, None] / count).sum(1))
    bias = linear.segmenter.module.bias.detach()
    torch.testing.assert_close(found.map.sum((1, 2)) + bias, score_of(linear, target)(images).detach())


# Another library. Captum returns channels: Simonyan's map is the largest of them, our sum is over them.


def test_captum_agrees(run, images, target):
    score, asking = score_of(run, target), images.clone().requires_grad_()
    theirs = {
        "saliency": Saliency(score).attribute(asking, abs=True).amax(1),
        "input-x-gradient": InputXGradient(score).attribute(asking).sum(1),
    }
    found = explain(run, images, target, methods=list(GRADIENTS))
    assert list(theirs) == list(GRADIENTS)
    for name, right in theirs.items():
        limit = 1e-5 * right.abs().max().item()
        torch.testing.assert_close(found[name].map, right.detach(), rtol=0, atol=limit)


# Averages over points.


def test_averages_are_weighted_sums_over_the_steps_of_each_path(run, images, target):
    """Brute force in a loop; path 2 belongs to the first picture again."""
    owner, weights = torch.tensor([0, 1, 0, 2]), torch.rand(4, 3)
    other = Target("other", 0, ~target.pixels)
    shift = torch.tensor([0.0, 0.1, 0.3])

    def point(path, step):
        return images[owner[path]] * (1 - 0.1 * path.view(-1, 1, 1, 1)) + shift[step].view(-1, 1, 1, 1)

    def values(path, step, slope):
        return slope, (1 + path + 10 * step).view(-1, 1, 1, 1) * slope.square()

    with left_as_found(run.segmenter, images):
        found = averages(run.segmenter, (target, other), owner, weights, point, values, batch_size=5)
        for position, aim in enumerate((target, other)):
            for path in range(4):
                plain, squared = torch.zeros(2, *images.shape[1:])
                for step in range(3):
                    at = images[owner[path]][None] * (1 - 0.1 * path) + shift[step]
                    at.requires_grad_()
                    score = aim.score(run.segmenter(at), owner[path : path + 1], "mean")
                    slope = torch.autograd.grad(score, at)[0][0]
                    plain += weights[path, step] * slope
                    squared += weights[path, step] * (1 + path + 10 * step) * slope.square()
                for ours, right in ((found[0], plain), (found[1], squared)):
                    limit = 1e-5 * right.abs().max().item()
                    torch.testing.assert_close(ours[position, path], right, rtol=0, atol=limit)


def test_several_targets_share_a_forward_pass(run, images, target):
    passes = []
    run.segmenter.register_forward_hook(lambda *_: passes.append(1))
    targets = [
        target,
        Target("other", 0, ~target.pixels),
        Target("nothing", 1, torch.zeros_like(target.pixels)),
    ]
    rows = torch.tensor([2, 0, 1])
    with left_as_found(run.segmenter, images):
        together = input_gradients(run.segmenter, images[rows], targets, rows)
        assert len(passes) == 1
        alone = [input_gradients(run.segmenter, images[rows], [one], rows)[0] for one in targets]
    for one, right in zip(together, alone, strict=True):
        torch.testing.assert_close(one, right)
    assert not together[2].any()


def test_scores_are_those_of_the_target(run, images, target):
    rows = torch.tensor([2, 2, 0])
    found = scores_of(run.segmenter, images, (target,), rows, batch_size=2)
    with torch.no_grad():
        torch.testing.assert_close(found[0], target.score(run.segmenter(images), rows, "mean"))
