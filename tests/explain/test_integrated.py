import math

import pytest
import torch
from torch import nn

from seglens.errors import ModelError, SettingError
from seglens.explain import explain
from seglens.explain.baselines import BASELINES
from seglens.explain.integrated import QUADRATURES, IntegratedGradients, integrated_gradients
from seglens.explain.target import Target


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


def attribute(run, images, target, settings, **options):
    return integrated_gradients(run.segmenter, images, (target,), settings, **options)[0]


def starts_of(baseline, images):
    """The baselines that the settings' defaults give."""
    return BASELINES[baseline](images, 0, 3, 0.05)


class Linear(nn.Module):
    """One 1x1 convolution: the gradient is the same everywhere."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        return self.conv(images)


# Hand algebra.


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_linear_model_gives_w_times_the_difference(baseline, steps, make_run, images, target):
    run, settings = make_run(Linear()), IntegratedGradients(baseline, steps=steps)
    found = attribute(run, images, target, settings)
    start = starts_of(baseline, images).mean(1)
    weight = run.segmenter.module.conv.weight.detach() * target.pixels[:, None]
    expected = weight * (images - start) / target.pixels.sum((1, 2)).view(-1, 1, 1, 1)
    torch.testing.assert_close(found.channels, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.map, expected.sum(1), rtol=0, atol=1e-7)
    assert (found.diagnostics["completeness_error"] < 1e-4).all()


def test_a_square_is_exact_with_one_point(make_run, images, target):
    """The integral of 2 t x^2 over t is x^2: one point suffices, a left sum never gets there."""

    class Square(Linear):
        def forward(self, images):
            return self.conv.weight.sum() * images.square().sum(1, keepdim=True)

    run = make_run(Square())
    found = attribute(run, images, target, IntegratedGradients(steps=1))
    factor = run.segmenter.module.conv.weight.detach().sum() / target.pixels.sum((1, 2)).view(-1, 1, 1, 1)
    torch.testing.assert_close(found.channels, factor * images.square() * target.pixels[:, None])


def test_the_baseline_lives_in_raw_pixel_space(make_run, images, target):
    """Normalisation is part of the model: zero stays black, and a linear model's map knows no mean."""
    run = make_run(Linear())
    run.segmenter.mean.fill_(0.5)
    run.segmenter.std.fill_(0.25)
    found = attribute(run, images, target, IntegratedGradients(steps=2))
    weight = run.segmenter.module.conv.weight.detach() / 0.25 * target.pixels[:, None]
    expected = weight * images / target.pixels.sum((1, 2)).view(-1, 1, 1, 1)
    torch.testing.assert_close(found.channels, expected, rtol=0, atol=1e-6)


# Another library.


@pytest.mark.parametrize("baseline", ["zero", "blur"])
def test_captum_with_gauss_legendre_agrees(baseline, run, images, target):
    from captum.attr import IntegratedGradients as Captum

    settings = IntegratedGradients(baseline, steps=12, quadrature="gauss-legendre")
    found = attribute(run, images, target, settings)

    def score(rows):
        copies = len(rows) // 3  # captum stacks the points: all pictures of the first, then of the second
        return target.score(run.segmenter(rows), torch.arange(3).repeat(copies), "mean")

    theirs = Captum(score).attribute(
        images, starts_of(baseline, images)[:, 0], n_steps=12, method="gausslegendre"
    )
    torch.testing.assert_close(found.channels, theirs.float(), rtol=0, atol=1e-5 * theirs.abs().max().item())


# Completeness and steps.


@pytest.mark.parametrize("baseline", ["zero", "random"])
def test_pictures_and_models_in_float64_have_the_same_map(baseline, run, images, target):
    expected = attribute(run, images, target, IntegratedGradients(baseline, steps=4))
    run.segmenter.double()
    found = attribute(run, images.double(), target, IntegratedGradients(baseline, steps=4))
    assert found.map.dtype == torch.float32
    size = expected.map.abs().max().item()
    torch.testing.assert_close(found.map, expected.map, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_map_sums_to_the_difference_of_the_scores(baseline, run, images, target):
    settings = IntegratedGradients(baseline, steps=128)
    found = attribute(run, images, target, settings)
    starts = starts_of(baseline, images)
    rows = torch.arange(3)
    with torch.no_grad():
        before = [target.score(run.segmenter(starts[:, i]), rows, "mean") for i in range(starts.shape[1])]
        gained = target.score(run.segmenter(images), rows, "mean") - torch.stack(before).mean(0)
    missing = (found.map.sum((1, 2)) - gained).abs()
    assert (missing < 0.005 * found.map.abs().sum((1, 2))).all()
    reported = found.diagnostics["completeness_error"]
    torch.testing.assert_close(reported, missing / gained.abs(), rtol=5e-2, atol=1e-4)  # folding rounds
    torch.testing.assert_close(found.channels.sum(1), found.map)


def test_steps_double_until_the_tolerance_is_met_or_the_limit_reached(run, images, target):
    settings = IntegratedGradients(steps=2, tolerance=0.01, max_steps=16)
    found = attribute(run, images, target, settings).diagnostics
    assert set(found["steps"].tolist()) <= {2.0, 4.0, 8.0, 16.0}
    assert ((found["completeness_error"] <= 0.01) == (found["converged"] == 1)).all()
    assert ((found["steps"] == 16) | (found["converged"] == 1)).all()
    for row, steps in enumerate(found["steps"].int().tolist()):
        alone = attribute(run, images, target, IntegratedGradients(steps=steps)).diagnostics
        torch.testing.assert_close(
            alone["completeness_error"][row], found["completeness_error"][row], rtol=0, atol=1e-4
        )
    hopeless = attribute(run, images, target, IntegratedGradients(steps=2, tolerance=1e-9, max_steps=7))
    assert hopeless.diagnostics["steps"].tolist() == [4.0] * 3
    assert hopeless.diagnostics["converged"].tolist() == [0.0] * 3


def test_a_small_difference_of_scores_is_flagged(make_run, target):
    """The weights cancel: attribution of +1 and -1 per pixel sums to nothing."""
    run = make_run(Linear())
    with torch.no_grad():
        run.segmenter.module.conv.weight.copy_(torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1))
    images = torch.full((3, 3, 32, 40), 0.5)
    images[0, 0] = 1.0
    found = attribute(run, images, target, IntegratedGradients(steps=2)).diagnostics
    assert found["small_denominator"].isnan().tolist() == [False, True, True]  # flat maps are degenerate
    assert found["small_denominator"][0] == 0
    images[0, 0] = 0.5
    images[0, :2, 10, 10] = torch.tensor([0.9, 0.8])
    assert (
        attribute(run, images, target, IntegratedGradients(steps=2)).diagnostics["small_denominator"][0] == 1
    )


# Where the points lie.


@pytest.mark.parametrize("name", QUADRATURES)
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_quadratures_are_exact_on_straight_lines(name, steps):
    points, weights = QUADRATURES[name](steps)
    assert weights.sum().item() == pytest.approx(1)
    assert (weights * points).sum().item() == pytest.approx(0.5)
    assert (points.diff() > 0).all()
    assert 0 < points[0] <= points[-1] < 1


def test_points_suit_scores_that_saturate_at_contrasts_even_in_the_logarithm():
    """Ramps ``min(t, b) / b`` have slopes of 1 / b up to b, whose integral is 1 whatever b is."""
    ends = torch.exp(torch.rand(200, 40, generator=torch.Generator().manual_seed(0)) * -math.log(50))
    errors = {}
    for name, rule in QUADRATURES.items():
        points, weights = rule(24)
        found = ((points < ends[..., None]) / ends[..., None] * weights).sum(2).mean(1)
        errors[name] = (found - 1).square().mean().sqrt().item()
    assert errors["log-midpoint"] < 0.6 * errors["gauss-legendre"]


@pytest.mark.parametrize(("baseline", "wide"), [("zero", "last"), ("random", "first")])
def test_points_lie_close_where_the_contrast_is_least(baseline, wide, make_run, images, target):
    """Of two parts, that of the smaller contrast is the narrower: it is KNEE * (21^.5 - 1) wide."""
    points = []

    class Watched(Linear):
        def forward(self, images):
            if images.requires_grad:
                points.append(images.detach()[:, 0, 0, 0])
            return super().forward(images)

    settings = IntegratedGradients(baseline, steps=2, draws=1)
    attribute(make_run(Watched()), images[:1], target.select(slice(0, 1)), settings)
    start, end = (BASELINES[baseline](images, 0, 1, 0.05)[0, 0], images[0])
    found = (torch.cat(points) - start[0, 0, 0]) / (end - start)[0, 0, 0]
    border = 0.05 * (21**0.5 - 1)
    expected = [border / 2, (1 + border) / 2] if wide == "last" else [(1 - border) / 2, 1 - border / 2]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_several_targets_share_the_path_s_forward_passes(run, images, target):
    """Also where one target is finished sooner than the other, and where a picture has one of them only."""
    less = target.pixels.clone()
    less[0] = False
    targets = (target, Target("less", 0, less))
    settings = IntegratedGradients(steps=2, tolerance=0.02, max_steps=32)
    together = integrated_gradients(run.segmenter, images, targets, settings)
    for one, aim in zip(together, targets, strict=True):
        alone = attribute(run, images, aim, settings)
        assert one.status == alone.status
        limit = 1e-5 * alone.map[alone.ok].abs().max().item()
        torch.testing.assert_close(one.map, alone.map, rtol=0, atol=limit, equal_nan=True)
        torch.testing.assert_close(one.diagnostics["steps"], alone.diagnostics["steps"], equal_nan=True)


# What may not change the result.


@pytest.mark.parametrize("baseline", BASELINES)
def test_order_batch_and_chunk_change_nothing(baseline, run, images, target):
    settings = IntegratedGradients(baseline, steps=5)
    found = attribute(run, images, target, settings, seed=3)
    limit = {"rtol": 0, "atol": 1e-5 * found.map.abs().max().item()}
    turned = Target("region", 1, target.pixels.flip(0))
    backwards = attribute(run, images.flip(0), turned, settings, seed=3, batch_size=7)
    torch.testing.assert_close(backwards.map.flip(0), found.map, **limit)
    for row in range(3):
        chosen = slice(row, row + 1)
        alone = attribute(run, images[chosen], target.select(chosen), settings, seed=3, batch_size=1)
        torch.testing.assert_close(alone.map, found.map[chosen], **limit)


def test_random_baselines_follow_the_seed_and_report_their_spread(run, images, target):
    settings = IntegratedGradients("random", steps=4, draws=4)
    one, again, other = (attribute(run, images, target, settings, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.map, again.map)
    assert not torch.allclose(one.map, other.map)
    singles = BASELINES["random"](images, 0, 4, 0.05)
    assert singles.shape == (3, 4, 3, 32, 40)
    assert (one.diagnostics["spread"] > 0).all()
    assert "spread" not in attribute(run, images, target, IntegratedGradients(steps=2)).diagnostics


def test_the_chunk_is_halved_when_memory_runs_out(make_run, make_unet, images, target):
    sizes = []

    class Tight(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, images):
            sizes.append(len(images))
            if len(images) > 5:
                raise torch.OutOfMemoryError("no more")
            return self.module(images)

    tight = Tight(make_unet())
    found = attribute(make_run(tight), images, target, IntegratedGradients(steps=8), batch_size=16)
    right = attribute(make_run(make_unet()), images, target, IntegratedGradients(steps=8))
    torch.testing.assert_close(found.map, right.map, rtol=0, atol=1e-5 * right.map.abs().max().item())
    assert max(sizes) == 16
    assert 4 in sizes


def test_only_the_input_requires_grad_and_all_is_left_as_found(run, images, target):
    seen = []

    def look(module, inputs):
        seen.append((inputs[0].requires_grad, module.weight.requires_grad, module.training))

    run.segmenter.module.train()
    run.segmenter.module.head.register_forward_pre_hook(look)
    before = torch.get_rng_state()
    with torch.no_grad():
        attribute(run, images, target, IntegratedGradients("random", steps=2))
    assert {entry[1:] for entry in seen} == {(False, False)}
    assert any(entry[0] for entry in seen)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in run.segmenter.module.modules())
    assert all(p.requires_grad and p.grad is None for p in run.segmenter.parameters())


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode])
def test_it_does_not_matter_who_calls(caller, run, images, target):
    right = attribute(run, images, target, IntegratedGradients(steps=3))
    with caller():
        copies, frozen = images.clone(), Target("region", 1, target.pixels.clone())
        found = attribute(run, copies, frozen, IntegratedGradients(steps=3))
    torch.testing.assert_close(found.map, right.map)
    asking = attribute(run, images.clone().requires_grad_(), target, IntegratedGradients("blur", steps=3))
    assert not asking.map.requires_grad


def test_rows_without_a_target_are_left_out(run, images, pixels):
    pixels[1] = False
    found = attribute(run, images, Target("region", 1, pixels), IntegratedGradients(steps=2, tolerance=0.5))
    assert found.status == ("ok", "no_target", "ok")
    for values in (found.map, found.channels, *found.diagnostics.values()):
        assert values.flatten(1).isnan().all(1).tolist() == [False, True, False] if values.ndim > 1 else True
    assert found.diagnostics["steps"].isnan().tolist() == [False, True, False]
    nothing = attribute(
        run, images, Target("region", 1, torch.zeros_like(pixels)), IntegratedGradients(steps=2)
    )
    assert nothing.status == ("no_target",) * 3
    assert nothing.map.isnan().all()


def test_a_model_that_cuts_the_gradient_is_an_error(make_run, images, target):
    class Cut(Linear):
        def forward(self, images):
            return self.conv(images.detach())

    with pytest.raises(ModelError, match=r"\(the input\) influences the score of target 'region'"):
        attribute(make_run(Cut()), images, target, IntegratedGradients(steps=2))


# Settings and their labels.


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 8, "max_steps": 4}, "max_steps 4"),
        ({"draws": 0}, "draws is 0"),
        ({"blur": 0.5}, r"blur is 0\.5"),
        ({"tolerance": 0.0}, r"tolerance is 0\.0"),
    ],
)
def test_settings_outside_of_what_is_allowed(settings, says):
    with pytest.raises(SettingError, match=says):
        IntegratedGradients(**settings)


def test_two_settings_get_distinct_labels(run, images, target):
    asked = (IntegratedGradients(steps=2), IntegratedGradients("blur", steps=2), IntegratedGradients(steps=2))
    maps = explain(run, images, target, methods=asked)
    assert list(maps) == ["integrated-gradients(baseline=zero)", "integrated-gradients(baseline=blur)"]
    one = explain(run, images, target, methods=[IntegratedGradients("mean", steps=2, label="mine")])
    assert list(one) == ["mine"]
    assert one["mine"].settings["baseline"] == "mean"
    assert one["mine"].settings["seed"] == 0


# A baseline of one's own.


@pytest.mark.parametrize("given", ["one for all", "one for each"])
def test_a_tensor_as_baseline(given, make_run, images, target):
    run = make_run(Linear())
    own = torch.rand(images.shape if given == "one for each" else images.shape[1:])
    settings = IntegratedGradients(baseline=own)
    (found,) = explain(run, images, target, methods=settings).values()
    weight = run.segmenter.module.conv.weight.detach() * target.pixels[:, None]
    expected = weight * (images - own) / target.pixels.sum((1, 2)).view(-1, 1, 1, 1)
    torch.testing.assert_close(found.channels, expected, rtol=0, atol=1e-6)
    assert settings == IntegratedGradients(baseline=own.clone()) != IntegratedGradients(baseline=own.flip(-1))
    assert found.settings["baseline"] == settings.baseline
    assert len(settings.baseline) == 64


def test_a_baseline_that_does_not_fit(make_run, images, target):
    run = make_run(Linear())
    with pytest.raises(SettingError, match=r"baseline has shape .* one for each"):
        explain(run, images, target, methods=IntegratedGradients(baseline=torch.rand(3, 2, 2)))
    with pytest.raises(SettingError, match=r"The baseline: values from -.*raw pictures"):
        IntegratedGradients(baseline=torch.rand(3, 8, 8) - 1)
    with pytest.raises(SettingError, match=r"shape \(8, 8\)\. Allowed"):
        IntegratedGradients(baseline=torch.rand(8, 8))
