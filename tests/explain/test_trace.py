import pytest
import torch
from torch import nn

from seglens.errors import ModelError, SettingError, UnknownNameError
from seglens.explain.target import Target
from seglens.explain.trace import in_chunks, trace

LAYERS = ("down", "deep", "up", "head")


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


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


def test_results_are_keyed_by_name_whatever_the_order(run, images, target, assert_taps_equal):
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


def test_several_targets_share_one_forward_pass(run, images, pixels, assert_taps_equal):
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
def test_a_relu_in_place_after_the_layer_changes_nothing(
    layer, make_run, make_unet, images, target, assert_taps_equal
):
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
def test_a_layer_of_no_use_is_named(layer, says, make_run, images, target, unchanged):
    run = make_run(Odd())
    with unchanged(run.segmenter), pytest.raises(ModelError, match=says):
        trace(run.segmenter, images, [target], [layer])


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


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no more"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate ..."),
    ],
)
def test_chunks_are_halved_when_memory_runs_out(error):
    seen: list[int] = []
    sizes: list[int] = []

    def work(rows):
        sizes.append(rows.stop - rows.start)
        if sizes[-1] > 3:
            raise error
        seen.extend(range(rows.start, rows.stop))

    in_chunks(10, 8, work)
    assert seen == list(range(10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    with pytest.raises(SettingError, match="at least 1 picture, received 0"):
        in_chunks(1, 0, lambda rows: None)
    with pytest.raises(RuntimeError, match="shapes differ"):
        in_chunks(4, 2, lambda rows: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(torch.OutOfMemoryError):
        in_chunks(1, 8, lambda rows: (_ for _ in ()).throw(torch.OutOfMemoryError("no more")))
