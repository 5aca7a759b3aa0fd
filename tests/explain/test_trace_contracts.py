"""A pass leaves the model as it was, and it doesn't matter who calls, or what the model is wrapped in."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import seglens
from seglens.errors import ModelError
from seglens.explain.cams import hires_cam
from seglens.explain.target import Target
from seglens.explain.trace import trace

LAYERS = ("down", "deep", "up", "head")


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


def test_the_model_is_left_as_found(run, images, target, unchanged):
    module = run.segmenter.module
    module.train()
    module.deep.eval()
    module.head.weight.requires_grad_(False)
    with unchanged(run.segmenter):
        trace(run.segmenter, images, [target], LAYERS, input_gradient=True)


def test_the_model_is_left_as_found_by_a_pass_that_fails(run, images, target, unchanged):
    def broken(*_):
        raise RuntimeError("broken")

    run.segmenter.module.train()
    run.segmenter.module.head.register_forward_hook(broken)
    with unchanged(run.segmenter), pytest.raises(RuntimeError, match="broken"):
        trace(run.segmenter, images, [target], LAYERS)


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
def test_it_does_not_matter_who_calls(caller, run, images, target, assert_taps_equal):
    (right,) = trace(run.segmenter, images, [target], LAYERS, input_gradient=True)
    with caller():
        copies = images.clone()
        frozen = Target("region", 1, target.pixels.clone())
        (found,) = trace(run.segmenter, copies, [frozen], LAYERS, input_gradient=True)
    assert_taps_equal(found, right, atol=0)
    torch.testing.assert_close(found.input_gradient, right.input_gradient)


def test_frozen_weights_make_no_difference(run, images, target, assert_taps_equal):
    (right,) = trace(run.segmenter, images, [target], LAYERS)
    run.segmenter.requires_grad_(False)
    (found,) = trace(run.segmenter, images, [target], LAYERS)
    assert_taps_equal(found, right, atol=0)


def test_an_encoder_that_runs_under_no_grad_can_be_tapped(
    make_run, make_unet, images, target, assert_taps_equal
):
    module = make_unet()
    frozen = copy.deepcopy(module)
    frozen.deep.forward = torch.no_grad()(frozen.deep.forward)
    (right,) = trace(make_run(module).segmenter, images, [target], ["deep"])
    (found,) = trace(make_run(frozen).segmenter, images, [target], ["deep"])
    assert_taps_equal(found, right, atol=0)


def test_parts_that_are_computed_again_in_the_backward_pass_can_be_tapped(
    make_run, make_unet, images, target, assert_taps_equal
):
    """Gradient checkpointing changes nothing but the memory that a pass takes; the oracle is without."""
    module, checkpointed = make_unet(), make_unet()
    checkpointed.load_state_dict(module.state_dict())
    for part in (checkpointed.down, checkpointed.deep):
        part.forward = partial(checkpoint, part.forward, use_reentrant=False)
    run, other = make_run(module), make_run(checkpointed)
    inside = [*LAYERS, "deep.0", "down.2"]
    targets = [target, Target("other", 0, target.pixels)]
    expected = trace(run.segmenter, images, targets, inside, input_gradient=True)
    found = trace(other.segmenter, images, targets, inside, input_gradient=True)
    for one, right in zip(found, expected, strict=True):
        assert_taps_equal(one, right, atol=0)
        torch.testing.assert_close(one.input_gradient, right.input_gradient)
    assert seglens.layers(other) == seglens.layers(run)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
def test_checkpoints_that_serve_training_only_are_refused(make_run, make_unet, images, target):
    module = make_unet()
    module.deep.forward = partial(checkpoint, module.deep.forward, use_reentrant=True)
    run = make_run(module)
    for work in (seglens.layers, lambda run: trace(run.segmenter, images, [target], ["down"])):
        with pytest.raises(ModelError, match="use_reentrant=True, which has gradients for training only"):
            work(run)


def test_a_compiled_model_runs_uncompiled(make_run, make_unet, images, target, assert_taps_equal):
    (right,) = trace(make_run(make_unet()).segmenter, images, [target], LAYERS)
    module = make_unet()
    compiled = torch.compile(module, backend="eager")
    run = make_run(compiled)
    with torch.no_grad():
        run.segmenter(images)  # now the graph is there, without any hook
    (found,) = trace(run.segmenter, images, [target], [f"_orig_mod.{name}" for name in LAYERS])
    assert_taps_equal(found, right, prefix="_orig_mod.")


def test_a_data_parallel_wrapper_is_passed_by(
    make_run, make_unet, images, target, assert_taps_equal, unchanged
):
    class Scattering(nn.DataParallel):
        """Does what several GPUs do: runs copies, whose hooks would fire once each."""

        def forward(self, *inputs):
            return torch.cat([self.module(part) for part in inputs[0].split(1)])

    (right,) = trace(make_run(make_unet()).segmenter, images, [target], LAYERS)
    run = make_run(Scattering(make_unet()))
    with unchanged(run.segmenter):
        (found,) = trace(run.segmenter, images, [target], [f"module.{name}" for name in LAYERS])
    assert_taps_equal(found, right, prefix="module.")


def test_half_precision_weights_give_float32_taps(run, images, target):
    (right,) = trace(run.segmenter, images, [target], LAYERS)
    (found,) = trace(run.segmenter.to(torch.bfloat16), images, [target], LAYERS)
    for name in LAYERS:
        tap = found.taps[name]
        assert tap.activation.dtype == tap.gradient.dtype == torch.float32
        pair = torch.stack([hires_cam(t.activation, t.gradient).flatten() for t in (tap, right.taps[name])])
        assert torch.corrcoef(pair)[0, 1] > 0.98


def test_a_distributed_wrapper_is_passed_by(
    make_run, make_unet, images, target, assert_taps_equal, unchanged, tmp_path
):
    (right,) = trace(make_run(make_unet()).segmenter, images, [target], LAYERS)
    place = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    try:
        run = make_run(nn.parallel.DistributedDataParallel(make_unet()))
        with unchanged(run.segmenter):
            (found,) = trace(run.segmenter, images, [target], [f"module.{name}" for name in LAYERS])
    finally:
        torch.distributed.destroy_process_group()
    assert_taps_equal(found, right, prefix="module.")


def test_an_encoder_that_was_compiled_runs_uncompiled(make_run, make_unet, images, target, assert_taps_equal):
    (right,) = trace(make_run(make_unet()).segmenter, images, [target], ["deep", "up"])
    module = make_unet()
    module.deep.compile(backend="eager")
    run = make_run(module)
    with torch.no_grad():
        run.segmenter(images)
    assert_taps_equal(trace(run.segmenter, images, [target], ["deep", "up"])[0], right)


def test_a_network_with_autocast_inside_gives_float32_taps(make_run, make_unet, images, target):
    """Its own autocast stays: that is how it was trained."""
    (right,) = trace(make_run(make_unet()).segmenter, images, [target], LAYERS)
    module = make_unet()
    module.deep.forward = torch.autocast("cpu", dtype=torch.bfloat16)(module.deep.forward)
    (found,) = trace(make_run(module).segmenter, images, [target], LAYERS)
    for name in LAYERS:
        tap = found.taps[name]
        assert tap.activation.dtype == tap.gradient.dtype == torch.float32
        pair = torch.stack([tap.activation.flatten(), right.taps[name].activation.flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.99
