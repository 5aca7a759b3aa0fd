import copy

import pytest
import torch
from torch import nn

from seglens.errors import ModelError, SettingError, UnknownNameError
from seglens.explain.cams import hires_cam
from seglens.explain.target import Target
from seglens.explain.trace import in_chunks, trace

LAYERS = ("down", "deep", "up", "head")


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


def state_of(segmenter):
    """All that a pass could leave behind."""
    return (
        [module.training for module in segmenter.modules()],
        [parameter.requires_grad for parameter in segmenter.parameters()],
        [parameter.grad is None for parameter in segmenter.parameters()],
        [len(module._forward_hooks) for module in segmenter.modules()],
        [tensor.clone() for tensor in segmenter.state_dict().values()],
        torch.get_rng_state(),
        ["forward" in vars(module) for module in segmenter.modules()],
    )


def assert_same(before, after):
    for one, other in zip(before[:4] + before[6:], after[:4] + after[6:], strict=True):
        assert one == other
    assert all(torch.equal(one, other) for one, other in zip(before[4], after[4], strict=True))
    assert torch.equal(before[5], after[5])


def assert_taps_equal(one, other, *, atol=1e-5):
    assert one.taps.keys() == other.taps.keys()
    for name, tap in one.taps.items():
        twin = other.taps[name]
        for mine, yours in ((tap.activation, twin.activation), (tap.gradient, twin.gradient)):
            torch.testing.assert_close(mine, yours, rtol=0, atol=atol * yours.abs().max().item())


# What the pass finds.


def test_taps_hold_activation_and_gradient(run, images, target):
    """Oracle: the network run by hand up to the layer, and autograd from there."""
    (found,) = trace(run.segmenter, images, [target], ["up"])
    module = run.segmenter.module
    fine = module.down(images)
    coarse = module.deep(nn.functional.max_pool2d(fine, 4))
    up = nn.functional.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
    activation = module.up(torch.cat([fine, up], 1)).detach().requires_grad_()
    logits = module.head(activation)
    score = (logits[:, 0] * target.pixels).sum((1, 2))
    (gradient,) = torch.autograd.grad(score.sum(), activation)
    torch.testing.assert_close(found.taps["up"].activation, activation.detach())
    torch.testing.assert_close(found.taps["up"].gradient, gradient)
    torch.testing.assert_close(found.score, score.detach())
    torch.testing.assert_close(found.logits, logits.detach())
    assert found.input_gradient is None


def test_layers_are_not_detached_from_one_another(run, images, target):
    alone = {name: trace(run.segmenter, images, [target], [name])[0].taps[name] for name in LAYERS}
    (together,) = trace(run.segmenter, images, [target], LAYERS, input_gradient=True)
    for name in LAYERS:
        torch.testing.assert_close(together.taps[name].gradient, alone[name].gradient)
    assert together.input_gradient is not None
    assert together.input_gradient.abs().sum() > 0


def test_results_are_keyed_by_name_whatever_the_order(run, images, target):
    (forth,) = trace(run.segmenter, images, [target], LAYERS)
    (back,) = trace(run.segmenter, images, [target], LAYERS[::-1])
    assert_taps_equal(forth, back, atol=0)


def test_a_batch_equals_its_pictures(run, images, target):
    (batch,) = trace(run.segmenter, images, [target], LAYERS, input_gradient=True)
    for row in range(3):
        chosen = slice(row, row + 1)
        (alone,) = trace(run.segmenter, images[chosen], [target.select(chosen)], LAYERS, input_gradient=True)
        for name in LAYERS:
            for field in ("activation", "gradient"):
                mine, batched = getattr(alone.taps[name], field), getattr(batch.taps[name], field)[chosen]
                torch.testing.assert_close(mine, batched, rtol=0, atol=1e-5 * batched.abs().max().item())


def test_several_targets_share_one_forward_pass(run, images, pixels):
    passes = []
    run.segmenter.register_forward_hook(lambda *_: passes.append(1))
    targets = [Target("a", 1, pixels), Target("b", 0, ~pixels), Target("c", 1, pixels.flip(1))]
    together = trace(run.segmenter, images, targets, LAYERS)
    assert len(passes) == 1
    for target, found in zip(targets, together, strict=True):
        assert_taps_equal(found, trace(run.segmenter, images, [target], LAYERS)[0])


def test_the_backward_pass_stops_at_the_earliest_tapped_layer(run, images, target):
    reached = []

    def spy(module, inputs, output):
        if output.requires_grad:
            output.register_hook(lambda gradient: reached.append("down"))

    run.segmenter.module.down.register_forward_hook(spy)
    trace(run.segmenter, images, [target], ["up"])
    assert reached == []
    trace(run.segmenter, images, [target], ["up"], input_gradient=True)
    assert reached == ["down"]


def test_an_empty_target_has_nan_score_and_zero_gradient(run, images, pixels):
    pixels[1] = False
    (found,) = trace(run.segmenter, images, [Target("region", 1, pixels)], LAYERS)
    assert found.score.isnan().tolist() == [False, True, False]
    assert all((tap.gradient[1] == 0).all() for tap in found.taps.values())


# The trap: an operation in place after the tapped layer.


@pytest.mark.parametrize("layer", ["down.0", "down.1", "deep.1", "up.1"])
def test_a_relu_in_place_after_the_layer_changes_nothing(layer, make_run, make_unet, images, target):
    plain, inplace = make_run(make_unet()), make_run(make_unet(inplace=True))
    (right,) = trace(plain.segmenter, images, [target], [layer])
    (found,) = trace(inplace.segmenter, images, [target], [layer])
    assert (right.taps[layer].activation < 0).any()  # a ReLU that reached the tap would show
    assert_taps_equal(found, right, atol=0)


def test_the_peer_falls_into_the_trap(make_unet, images, pixels):
    """Why the clone is there: grad-cam gives two maps for the same two networks; only one can be right."""
    from pytorch_grad_cam import GradCAM

    def theirs(module):
        with GradCAM(model=module, target_layers=[module.up[1]]) as cam:
            return torch.from_numpy(cam(images[:1], targets=[lambda out: (out[0] * pixels[0]).sum()]))

    difference = (theirs(make_unet()) - theirs(make_unet(inplace=True))).abs().max()
    assert difference > 0.1


def test_an_identity_before_an_operation_in_place_keeps_its_value(make_run, images, target):
    class Alias(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.same = nn.Identity()
            self.head = nn.Conv2d(8, 1, 1)

        def forward(self, images):
            features = self.conv(images)
            same = self.same(features)
            return self.head(torch.cat([features.relu_(), same], 1))

    run = make_run(Alias())
    (found,) = trace(run.segmenter, images, [target], ["same"])
    torch.testing.assert_close(found.taps["same"].activation, run.segmenter.module.conv(images).detach())


# The model is left as found, whoever calls and however it is wrapped.


def test_the_model_is_left_as_found(run, images, target):
    module = run.segmenter.module
    module.train()
    module.deep.eval()
    module.head.weight.requires_grad_(False)
    before = state_of(run.segmenter)
    trace(run.segmenter, images, [target], LAYERS, input_gradient=True)
    assert_same(before, state_of(run.segmenter))


def test_the_model_is_left_as_found_by_a_pass_that_fails(run, images, target):
    def broken(*_):
        raise RuntimeError("broken")

    run.segmenter.module.train()
    run.segmenter.module.head.register_forward_hook(broken)
    before = state_of(run.segmenter)
    with pytest.raises(RuntimeError, match="broken"):
        trace(run.segmenter, images, [target], LAYERS)
    assert_same(before, state_of(run.segmenter))


def test_gradients_that_were_there_stay(run, images, target):
    run.segmenter(images).sum().backward()
    kept = [parameter.grad.clone() for parameter in run.segmenter.parameters()]
    trace(run.segmenter, images, [target], LAYERS, input_gradient=True)
    assert all(torch.equal(p.grad, k) for p, k in zip(run.segmenter.parameters(), kept, strict=True))


def test_the_images_are_left_as_found(run, images, target):
    before = images.clone()
    trace(run.segmenter, images, [target], LAYERS, input_gradient=True)
    assert torch.equal(images, before)
    assert not images.requires_grad


def test_a_network_that_draws_numbers_moves_no_generator(make_run, images, target):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)

        def forward(self, images):
            return self.conv(images) + torch.rand(1)

    run = make_run(Noisy())
    before = torch.get_rng_state()
    trace(run.segmenter, images, [target], ["conv"])
    assert torch.equal(torch.get_rng_state(), before)


CALLERS = [
    pytest.param(torch.no_grad, id="no_grad"),
    pytest.param(torch.inference_mode, id="inference_mode"),
    pytest.param(lambda: torch.autocast("cpu", dtype=torch.bfloat16), id="autocast"),
]


@pytest.mark.parametrize("caller", CALLERS)
def test_it_does_not_matter_who_calls(caller, run, images, target):
    (right,) = trace(run.segmenter, images, [target], LAYERS, input_gradient=True)
    with caller():
        copies = images.clone()
        frozen = Target("region", 1, target.pixels.clone())
        (found,) = trace(run.segmenter, copies, [frozen], LAYERS, input_gradient=True)
    assert_taps_equal(found, right, atol=0)
    torch.testing.assert_close(found.input_gradient, right.input_gradient)


def test_frozen_weights_make_no_difference(run, images, target):
    (right,) = trace(run.segmenter, images, [target], LAYERS)
    run.segmenter.requires_grad_(False)
    (found,) = trace(run.segmenter, images, [target], LAYERS)
    assert_taps_equal(found, right, atol=0)


def test_an_encoder_that_runs_under_no_grad_can_be_tapped(make_run, make_unet, images, target):
    module = make_unet()
    frozen = copy.deepcopy(module)
    frozen.deep.forward = torch.no_grad()(frozen.deep.forward)
    (right,) = trace(make_run(module).segmenter, images, [target], ["deep"])
    (found,) = trace(make_run(frozen).segmenter, images, [target], ["deep"])
    assert_taps_equal(found, right, atol=0)


def test_a_compiled_model_runs_uncompiled(make_run, make_unet, images, target):
    (right,) = trace(make_run(make_unet()).segmenter, images, [target], LAYERS)
    module = make_unet()
    compiled = torch.compile(module, backend="eager")
    run = make_run(compiled)
    with torch.no_grad():
        run.segmenter(images)  # now the graph is there, without any hook
    (found,) = trace(run.segmenter, images, [target], [f"_orig_mod.{name}" for name in LAYERS])
    for name in LAYERS:
        torch.testing.assert_close(found.taps[f"_orig_mod.{name}"].gradient, right.taps[name].gradient)


def test_a_data_parallel_wrapper_is_passed_by(make_run, make_unet, images, target):
    class Scattering(nn.DataParallel):
        """Does what several GPUs do: runs copies, whose hooks would fire once each."""

        def forward(self, *inputs):
            return torch.cat([self.module(part) for part in inputs[0].split(1)])

    (right,) = trace(make_run(make_unet()).segmenter, images, [target], LAYERS)
    run = make_run(Scattering(make_unet()))
    before = state_of(run.segmenter)
    (found,) = trace(run.segmenter, images, [target], [f"module.{name}" for name in LAYERS])
    for name in LAYERS:
        torch.testing.assert_close(found.taps[f"module.{name}"].gradient, right.taps[name].gradient)
    assert_same(before, state_of(run.segmenter))


def test_half_precision_weights_give_float32_taps(run, images, target):
    (right,) = trace(run.segmenter, images, [target], LAYERS)
    (found,) = trace(run.segmenter.to(torch.bfloat16), images, [target], LAYERS)
    for name in LAYERS:
        tap = found.taps[name]
        assert tap.activation.dtype == tap.gradient.dtype == torch.float32
        pair = torch.stack([hires_cam(t.activation, t.gradient).flatten() for t in (tap, right.taps[name])])
        assert torch.corrcoef(pair)[0, 1] > 0.98


# Layers that can't be tapped are errors that name them.


class Odd(nn.Module):
    """Every way in which a layer can be of no use."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.pair = nn.Module()
        self.pair.forward = lambda images: (images, images)
        self.flat = nn.Flatten()
        self.side = nn.Conv2d(3, 1, 1)
        self.cut = nn.Conv2d(3, 3, 1)
        self.never = nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        images = self.relu(self.relu(images))
        first, _ = self.pair(images)
        self.flat(first)
        self.side(first)
        return self.head(first + self.cut(first).detach())


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("relu", r"'relu' \(ReLU\) ran twice"),
        ("pair", r"'pair' \(Module\) returned a tuple"),
        ("flat", r"'flat' \(Flatten\) returned torch.float32 of shape \(3, 3840\)"),
        ("never", "'never' did not run"),
        ("side", r"\(side\) influences the score of target 'region'"),
        ("cut", r"\(cut\) influences the score of target 'region'"),
    ],
)
def test_a_layer_of_no_use_is_named(layer, says, make_run, images, target):
    run = make_run(Odd())
    before = state_of(run.segmenter)
    with pytest.raises(ModelError, match=says):
        trace(run.segmenter, images, [target], [layer])
    assert_same(before, state_of(run.segmenter))


@pytest.mark.parametrize("layer", ["side", "cut"])
def test_a_layer_without_influence_is_named_among_others(layer, make_run, images, target):
    with pytest.raises(ModelError, match=f"Layer '{layer}' does not influence the score of target 'region'"):
        trace(make_run(Odd()).segmenter, images, [target], ["head", layer])


def test_an_unknown_layer_gets_the_nearest(run, images, target):
    with pytest.raises(UnknownNameError, match=r"Unknown layer 'down\.00'\. Did you mean 'down\.0'"):
        trace(run.segmenter, images, [target], ["down.00"])


# Chunks.


def test_chunks_cover_everything_once():
    seen: list[int] = []
    in_chunks(10, 4, lambda rows: seen.extend(range(rows.start, rows.stop)))
    assert seen == list(range(10))


def test_chunks_are_halved_when_memory_runs_out():
    seen: list[int] = []
    sizes: list[int] = []

    def work(rows):
        sizes.append(rows.stop - rows.start)
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("no more")
        seen.extend(range(rows.start, rows.stop))

    in_chunks(10, 8, work)
    assert seen == list(range(10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    with pytest.raises(SettingError, match="at least 1 picture, received 0"):
        in_chunks(1, 0, lambda rows: None)
    with pytest.raises(torch.OutOfMemoryError):
        in_chunks(1, 8, lambda rows: (_ for _ in ()).throw(torch.OutOfMemoryError("no more")))
