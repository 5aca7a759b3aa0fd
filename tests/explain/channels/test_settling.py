"""Score-CAM that ends early: its Gaussian process against plain formulas, its maps against the whole one."""

import pytest
import torch
from torch import nn

import seglens
from seglens.errors import SettingError
from seglens.evaluate.correlation import spearman
from seglens.explain import kriging
from seglens.explain.channels import ScoreCam, score_cam
from seglens.explain.kriging import LENGTHS, NOISES, Guess, distances, guess, next_to_try
from seglens.explain.settling import FIRST
from seglens.explain.target import Target


def problem(seed=0, num=30, known=12):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(num, 5, generator=generator).double()
    trend = torch.cat([torch.rand(num, 2, generator=generator), torch.ones(num, 1)], 1).double()
    scores = (masks.sin().sum(1) + 2 * trend[:, 0]).double()
    return distances(masks), trend, torch.randperm(num, generator=generator)[:known], scores


def plain(apart, trend, tried, scores, length, noise):
    """The system of universal kriging: weights that sum up to the trend (Cressie 1993, equation 3.4.2)."""
    kernel = (-0.5 * (apart / length) ** 2).exp()
    num, terms = len(tried), trend.shape[1]
    system = torch.zeros(num + terms, num + terms, dtype=torch.float64)
    system[:num, :num] = kernel[tried][:, tried] + noise * torch.eye(num).double()
    system[:num, num:], system[num:, :num] = trend[tried], trend[tried].T
    sides = torch.cat([kernel[tried], trend.T])
    weights = torch.linalg.solve(system, sides)
    covariance = kernel + noise * torch.eye(len(kernel)).double() - sides.T @ weights
    return weights[:num].T @ scores[tried], covariance


def left_out(apart, trend, tried, scores, length, noise):
    """How likely known scores are as the others alone foretell them, and the factor of the variance."""
    found = []
    for place in range(len(tried)):
        others = torch.cat([tried[:place], tried[place + 1 :]])
        mean, covariance = plain(apart, trend, others, scores, length, noise)
        at = tried[place]
        found.append((scores[at] - mean[at], covariance[at, at]))
    errors, variances = map(torch.stack, zip(*found, strict=True))
    factor = (errors**2 / variances).mean()
    likelihood = -0.5 * ((factor * variances).log() + errors**2 / (factor * variances)).sum()
    return float(factor), float(likelihood)


@pytest.mark.parametrize("seed", range(3))
def test_the_guess_is_that_of_the_likeliest_kernel(seed):
    apart, trend, tried, scores = problem(seed)
    kernels = [(length, noise) for length in LENGTHS for noise in NOISES]
    judged = [left_out(apart, trend, tried, scores, *kernel) for kernel in kernels]
    best = max(range(len(kernels)), key=lambda at: judged[at][1])
    mean, covariance = plain(apart, trend, tried, scores, *kernels[best])
    found = guess(apart, trend, tried, scores[tried])
    rest = torch.ones(len(scores), dtype=torch.bool)
    rest[tried] = False
    torch.testing.assert_close(found.mean[rest], mean[rest], rtol=1e-3, atol=1e-4)
    wanted = judged[best][0] * covariance[rest][:, rest]
    torch.testing.assert_close(found.covariance[rest][:, rest], wanted, rtol=1e-2, atol=1e-4)
    assert torch.equal(found.mean[tried], scores[tried])
    assert not found.covariance[tried].any()


def test_what_is_drawn_has_the_mean_and_the_covariance():
    apart, trend, tried, scores = problem()
    found = guess(apart, trend, tried, scores[tried])
    drawn = found.draws(20000, torch.Generator().manual_seed(0))
    spread = found.covariance.diagonal().amax().sqrt()
    torch.testing.assert_close(drawn.mean(0), found.mean, rtol=0, atol=float(5 * spread / 20000**0.5))
    torch.testing.assert_close(drawn.T.cov(), found.covariance, rtol=0.05, atol=float(0.05 * spread**2))
    certain = Guess(found.mean, torch.zeros_like(found.covariance))
    assert torch.equal(certain.draws(2, torch.Generator()), found.mean.expand(2, -1))


def test_the_next_ones_leave_the_least_unknown():
    # Two pairs of equal channels and one alone: of each pair one is enough.
    covariance = torch.block_diag(4 * torch.ones(2, 2), 3 * torch.ones(2, 2), torch.ones(1, 1)).double()
    known = Guess(torch.zeros(5).double(), covariance)
    assert next_to_try([known], torch.ones(5), 3).tolist() == [0, 2, 4]
    assert next_to_try([known], torch.tensor([1.0, 1, 1, 1, 10]), 1).tolist() == [4]


class Wide(nn.Module):
    """Many channels that look alike, and a head that isn't linear in what it sees."""

    def __init__(self, num=96) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.wide = nn.Conv2d(3, num, 9, stride=4, padding=4)
        self.head = nn.Conv2d(3, 1, 9, padding=4)
        with torch.no_grad():
            for weight in (self.wide.weight, self.head.weight):
                weight.copy_(torch.randn(weight.shape, generator=generator) / 9)

    def forward(self, images):
        self.wide(images)
        return self.head(images).tanh() + self.head(images.square())


@pytest.fixture(scope="module")
def wide():
    module = Wide().eval()
    return seglens.wrap(module, classes=("background", "x"), mean=(0.5,) * 3, std=(0.25,) * 3, image_size=32)


@pytest.fixture(scope="module")
def shown():
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    images = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    pixels = torch.zeros(3, 32, 32, dtype=torch.bool)
    pixels[:, 6:20, 10:24] = True
    return images, Target("region", 1, pixels)


def cam(run, shown, settings=None, rows=slice(None), batch_size=16):
    images, target = shown[0][rows], shown[1].select(rows)
    return score_cam(
        run.segmenter, images, (target,), ("wide",), settings or ScoreCam(), batch_size=batch_size
    )[0]


def test_the_map_is_that_of_all_channels_with_fewer(wide, shown):
    whole, early = cam(wide, shown), cam(wide, shown, ScoreCam(settle=0.99))
    tried = early.diagnostics["tried_channels"]
    assert ((tried >= FIRST) & (tried < 96)).all()
    assert tried.sum() < 3 * 96 / 2
    assert (spearman(whole.map.flatten(1), early.map.flatten(1)) >= 0.99).all()
    assert early.settings["settle"] == 0.99
    assert "tried_channels" not in whole.diagnostics


def test_company_and_batch_size_change_nothing(wide, shown):
    together = cam(wide, shown, ScoreCam(settle=0.99))
    alone = cam(wide, shown, ScoreCam(settle=0.99), slice(1, 2), batch_size=5)
    torch.testing.assert_close(
        alone.map[0], together.map[1], rtol=0, atol=1e-5 * float(together.map[1].max())
    )
    assert alone.diagnostics["tried_channels"][0] == together.diagnostics["tried_channels"][1]


def test_what_does_not_settle_tries_all_channels(wide, shown):
    whole, early = cam(wide, shown), cam(wide, shown, ScoreCam(settle=1 - 1e-12))
    assert early.diagnostics["tried_channels"].tolist() == [96] * 3
    torch.testing.assert_close(early.map, whole.map, rtol=1e-5, atol=1e-5 * float(whole.map.max()))


def test_a_target_without_pixels_waits_for_no_one(wide, shown):
    images, target = shown
    none = Target("none", 1, target.pixels & False)
    both = score_cam(wide.segmenter, images, (none, target), ("wide",), ScoreCam(settle=0.99))
    assert both[0].status == ("no_target",) * 3
    assert (both[1].diagnostics["tried_channels"] < 96).all()


def test_settle_is_a_rank_correlation_of_increases():
    for wrong in (0.0, 1.0, 1.5):
        with pytest.raises(SettingError, match="above 0 and below 1"):
            ScoreCam(settle=wrong)
    with pytest.raises(SettingError, match="settle is for the weighting 'increase'"):
        ScoreCam("softmax", settle=0.99)
    assert kriging.JITTER < min(NOISES)
