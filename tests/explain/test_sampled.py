"""SmoothGrad and Expected Gradients against algebra, brute force and captum."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

import seglens
from seglens.errors import SettingError
from seglens.explain import Method, explain
from seglens.explain.sampled import (
    ExpectedGradients,
    SmoothGrad,
    chosen_references,
    expected_gradients,
    needs_references,
    smoothgrad,
    with_references,
)
from seglens.explain.target import Target
from seglens.seeds import content_generator

WEIGHT = torch.tensor([2.0, -3.0, 0.5]).view(1, 3, 1, 1)


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


@pytest.fixture
def references():
    return torch.rand(5, 3, 32, 40, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def linear(make_run):
    """A 1x1 convolution: dS/dx is `WEIGHT` over the number of pixels, in the target."""
    module = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        module.weight.copy_(WEIGHT)
    return make_run(module)


class Square(nn.Module):
    """The sum of squares over the channels: dS/dx is 2 x."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images.square().sum(1, keepdim=True)


def smooth(run, images, target, seed=0, batch_size=16, **settings):
    return smoothgrad(
        run.segmenter, images, (target,), SmoothGrad(**settings), seed=seed, batch_size=batch_size
    )[0]


def expect(run, images, target, references, seed=0, batch_size=16, **settings):
    asked = ExpectedGradients(references, **settings)
    return expected_gradients(run.segmenter, images, (target,), asked, seed=seed, batch_size=batch_size)[0]


def share(target):
    """The mean's weight of each pixel of the target."""
    return target.pixels / target.pixels.sum((1, 2), keepdim=True)


# SmoothGrad.


def test_noise_changes_nothing_where_the_gradient_is_the_same_everywhere(linear, images, target):
    found = smooth(linear, images, target, num_samples=4)
    torch.testing.assert_close(found.map, 3.0 * share(target))
    assert (found.diagnostics["standard_error"] < 1e-3).all()
    squared = smooth(linear, images, target, num_samples=4, squared=True)
    torch.testing.assert_close(squared.map, 9.0 * share(target) ** 2)


def test_the_gradient_of_a_square_follows_the_noise(make_run, images, target):
    """dS/dx is 2 (x + noise): its mean is known exactly, its standard error in expectation."""
    run = make_run(Square())
    found = smooth(run, images, target, noise=0.2, num_samples=6, seed=3)
    expected = torch.zeros_like(images)
    for row, image in enumerate(images):
        deviation = 0.2 * (image.max() - image.min())
        for number in range(6):
            generator = content_generator(image, 3, f"smoothgrad {number}")
            expected[row] += 2 * (image + deviation * torch.randn(image.shape, generator=generator)) / 6
    torch.testing.assert_close(found.map, expected.abs().amax(1) * share(target))
    # Standard deviation 2 * 0.2, over the root of 6; the mean magnitude is that of 2 x, or 1.
    inside = found.diagnostics["standard_error"]
    assert ((inside - 0.4 / 6**0.5).abs() < 0.03).all()


def test_captum_averages_to_the_same(run, images, target):
    """Captum draws noise of its own and takes one deviation for all: both come near the expectation."""
    from captum.attr import NoiseTunnel, Saliency

    score = Saliency(
        lambda rows: target.score(run.segmenter(rows), torch.arange(3).repeat_interleave(100), "mean")
    )
    width = (images.flatten(1).amax(1) - images.flatten(1).amin(1)).mean().item()
    theirs = (
        NoiseTunnel(score).attribute(images, nt_samples=100, stdevs=0.05 * width, abs=False).abs().amax(1)
    )
    found = smooth(run, images, target, noise=0.05, num_samples=100).map
    for one, other in zip(found, theirs, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.98


def test_more_samples_are_surer(run, images, target):
    few, many = (smooth(run, images, target, num_samples=n).diagnostics["standard_error"] for n in (8, 64))
    assert (many < 0.6 * few).all()


# Expected Gradients.


def test_a_linear_model_gives_w_times_the_distance_from_the_mean_reference(
    linear, images, target, references
):
    found = expect(linear, images, target, references, num_samples=10)
    expected = WEIGHT * (images - references.mean(0)) * share(target)[:, None]
    torch.testing.assert_close(found.channels, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.map, found.channels.sum(1))
    assert (found.diagnostics["completeness_error"] < 1e-3).all()


def test_stratified_positions_are_nearly_exact_on_a_square(make_run, images, target, references):
    """The integral of (x - r) 2 (r + a (x - r)) over a is x^2 - r^2; here are 200 points in 200 strata."""
    found = expect(make_run(Square()), images, target, references, num_samples=200)
    expected = (images.square() - references.square().mean(0)) * share(target)[:, None]
    difference = (found.channels - expected).flatten(1).abs().mean(1)
    assert (difference < 0.05 * expected.flatten(1).abs().mean(1)).all()


def test_the_map_sums_to_what_the_picture_has_over_the_mean_of_the_references(
    run, images, target, references
):
    found = expect(run, images, target, references, num_samples=200)
    with torch.no_grad():
        reached = target.score(run.segmenter(images), torch.arange(3), "mean")
        rows = torch.arange(3).repeat_interleave(5)
        left = target.score(run.segmenter(references.repeat(3, 1, 1, 1)), rows, "mean").view(3, 5).mean(1)
    gained = reached - left
    missing = (found.map.sum((1, 2)) - gained).abs()
    assert (missing < 0.05 * found.map.abs().sum((1, 2))).all()
    torch.testing.assert_close(
        found.diagnostics["completeness_error"], missing / gained.abs(), rtol=2e-2, atol=1e-4
    )


def test_one_reference_is_integrated_gradients(run, images, target):
    """From black, by 256 points in strata against 256 of Gauss and Legendre."""
    black = torch.zeros(1, 3, 32, 40)
    found = expect(run, images, target, black, num_samples=256)
    right = explain(run, images, target, methods=[seglens.IntegratedGradients(steps=256)])[
        "integrated-gradients"
    ]
    difference = (found.map - right.map).abs().amax((1, 2))
    assert (difference < 0.03 * right.map.abs().amax((1, 2))).all()


def test_each_reference_is_used_equally_often(linear, images, target, references):
    """A linear model's map knows how often: 5 references in 10 points, and 3 of them in 3."""
    few = expect(linear, images, target, references, num_samples=3)
    used = few.channels[0] / (WEIGHT * share(target)[:, None])[0]
    inside = target.pixels[0].expand(3, -1, -1)
    triples = [references[list(three)].mean(0) for three in torch.combinations(torch.arange(5), 3).tolist()]
    gaps = [(used - (images[0] - mean))[inside].abs().max() for mean in triples]
    assert min(gaps) < 1e-4


@pytest.mark.parametrize("wrong", [torch.zeros(0, 3, 32, 40), torch.full((1, 3, 32, 40), torch.nan)])
def test_references_that_can_not_be_used(wrong):
    with pytest.raises(SettingError, match="hold no picture, or values that are not finite"):
        ExpectedGradients(wrong)


def test_references_must_be_given_and_fit(run, images, target, references):
    with pytest.raises(
        SettingError, match=r"was given none\. Give some .* ExpectedGradients\(references=images\)"
    ):
        explain(run, images, target, methods=["expected-gradients"])
    with pytest.raises(SettingError, match=r"have shape \(3, 32, 20\), the pictures \(3, 32, 40\)"):
        expect(run, images, target, references[..., :20])


def test_references_are_written_down_by_their_hash(run, images, target, references):
    found = expect(run, images, target, references, num_samples=2)
    assert json.loads(json.dumps(found.settings)) == found.settings
    assert found.settings["num_references"] == 5
    same, other = ExpectedGradients(references.clone(), 2), ExpectedGradients(references.flip(0), 2)
    assert found.settings["references_sha256"] == same.references_sha256 != other.references_sha256
    assert ExpectedGradients(references, 2) == same != other
    maps = explain(run, images, target, methods=[same, ExpectedGradients(references, 3)])
    assert list(maps) == ["expected-gradients(num_samples=2)", "expected-gradients(num_samples=3)"]


def test_the_command_line_s_references(references):
    mine = ExpectedGradients(references[:1])
    asked = ["grad-cam", "expected-gradients", ExpectedGradients(num_samples=8, label="x"), mine]
    assert needs_references(asked)
    assert not needs_references(["grad-cam", mine])
    cam, named, labelled, same = with_references(asked, references)
    assert cam == "grad-cam"
    assert same is mine
    assert named == ExpectedGradients(references)
    assert labelled == ExpectedGradients(references, 8, "x")
    assert chosen_references(3) == [0, 1, 2]
    drawn = chosen_references(1000, seed=1)
    assert drawn == sorted(set(drawn)) == chosen_references(1000, seed=1) != chosen_references(1000, seed=2)
    assert len(drawn) == 32


# Both.


@pytest.fixture(params=["smoothgrad", "smoothgrad squared", "expected-gradients"])
def method(request, references):
    """Runs one of the methods with few samples."""
    if request.param == "expected-gradients":
        return lambda run, images, target, **options: expect(
            run, images, target, references, num_samples=7, **options
        )
    squared = request.param == "smoothgrad squared"
    return lambda run, images, target, **options: smooth(
        run, images, target, num_samples=7, squared=squared, **options
    )


def test_order_batch_and_chunk_change_nothing(method, run, images, target):
    found = method(run, images, target, seed=3)
    limit = {"rtol": 0, "atol": 1e-5 * found.map.abs().max().item()}
    turned = Target("region", 1, target.pixels.flip(0))
    backwards = method(run, images.flip(0), turned, seed=3, batch_size=4)
    torch.testing.assert_close(backwards.map.flip(0), found.map, **limit)
    for row in range(3):
        chosen = slice(row, row + 1)
        alone = method(run, images[chosen], target.select(chosen), seed=3, batch_size=1)
        torch.testing.assert_close(alone.map, found.map[chosen], **limit)
    assert not torch.allclose(method(run, images, target, seed=4).map, found.map, **limit)


def test_a_picture_without_a_target_is_left_out(method, run, images, pixels):
    pixels[1] = False
    found = method(run, images, Target("region", 1, pixels))
    assert found.status == ("ok", "no_target", "ok")
    assert found.map[1].isnan().all()
    assert all(values.isnan().tolist() == [False, True, False] for values in found.diagnostics.values())
    nothing = method(run, images, Target("region", 1, torch.zeros_like(pixels)))
    assert nothing.status == ("no_target",) * 3


def test_several_targets_are_as_each_alone(run, images, target, references):
    other = Target("other", 0, ~target.pixels)
    asked: list[Method] = [SmoothGrad(num_samples=3), ExpectedGradients(references, num_samples=3)]
    together = explain(run, images, [target, other], methods=asked)
    for aim in (target, other):
        for right in explain(run, images, aim, methods=asked).values():
            torch.testing.assert_close(together[aim.label, right.name].map, right.map)


def test_the_model_is_left_as_found(method, run, images, target):
    run.segmenter.module.train()
    before = torch.get_rng_state()
    with torch.inference_mode():
        method(run, images.clone(), Target("region", 1, target.pixels.clone()))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in run.segmenter.module.modules())
    assert all(p.requires_grad and p.grad is None for p in run.segmenter.parameters())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (lambda: SmoothGrad(noise=0.0), r"noise is 0\.0"),
        (lambda: SmoothGrad(num_samples=1), "num_samples is 1"),
        (lambda: ExpectedGradients(num_samples=0), "num_samples is 0"),
    ],
)
def test_settings_outside_of_what_is_allowed(settings, says):
    with pytest.raises(SettingError, match=says):
        settings()


def test_bare_names_stand_for_the_defaults(run, images, target):
    found = explain(run, images[:1], target.select(slice(0, 1)), methods=["smoothgrad"])["smoothgrad"]
    assert found.settings == asdict(SmoothGrad()) | {"seed": 0, "unit": "mean"}
