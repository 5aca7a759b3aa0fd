"""CAMs by hand algebra, and by an independent second formula in float64."""

import pytest
import torch
from tests.explain.cams.compared import largest

from seglens.errors import SettingError
from seglens.explain import explain
from seglens.explain.cams import (
    CAMS,
    SegXResCam,
    crossed_denominators,
    eigen_cam,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    seg_xres_cam,
    unweighted_channels,
    xgrad_cam,
)
from seglens.explain.methods import Method
from seglens.explain.target import Target

# Hand algebra.


def test_grad_cam_is_cam_where_the_head_is_linear_after_pooling():
    """Zhou et al. 2016: pooling and weights w make CAM ``sum_k w_k A_k``; Z = h w stays a factor."""
    activation = torch.rand(2, 5, 6, 7, requires_grad=True)
    weights = torch.randn(5)
    score = (activation.mean((2, 3)) @ weights).sum()
    (gradient,) = torch.autograd.grad(score, activation)
    cam = torch.einsum("k,bkhw->bhw", weights, activation)
    torch.testing.assert_close(grad_cam(activation, gradient) * 42, cam)


def test_hires_cam_sums_to_the_score_less_the_bias(run, images, target):
    """The head is a 1x1 convolution: the score is linear in the last block's output."""
    maps = explain(run, images, target, methods=["hires-cam"], layers=["up"])
    logits = run.predict(images).logits
    bias = run.segmenter.module.head.bias.detach() * target.pixels.sum((1, 2))
    score = target.score(logits, torch.arange(3), "sum")
    grid = maps["hires-cam", "up"].grid
    assert grid is not None
    torch.testing.assert_close(grid.sum((1, 2)), score - bias)


def test_activation_is_the_mean_magnitude(run, images, target):
    found = explain(run, images, target, methods=["activation"], layers=["down.1"])["activation", "down.1"]
    module = run.segmenter.module
    torch.testing.assert_close(found.grid, module.down[1](module.down[0](images)).detach().abs().mean(1))


def test_xgrad_cam_weighs_gradients_by_the_activation():
    activation = torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]])
    gradient = torch.tensor([[[[4.0, 8.0]], [[1.0, -3.0]]]])
    # (4 * 1 + 8 * 3) / 4 = 7 and (1 * 2 - 3 * 2) / 4 = -1.
    assert xgrad_cam(activation, gradient).tolist() == [[[7 * 1 - 2, 7 * 3 - 2]]]
    assert unweighted_channels(activation, gradient).tolist() == [0.0]


def test_xgrad_cam_falls_back_on_the_plain_mean_where_a_channel_sums_to_nothing():
    """Sums of 0, -1 and 4; a channel of zeros is none that could count."""
    activation = torch.tensor([[[[1.0, -1.0]], [[-2.0, 1.0]], [[3.0, 1.0]], [[0.0, 0.0]]]])
    gradient = torch.tensor([[[[2.0, 4.0]], [[1.0, 5.0]], [[1.0, 5.0]], [[9.0, 9.0]]]])
    expected = [3 * 1 + 3 * -2 + 2 * 3, 3 * -1 + 3 * 1 + 2 * 1]
    assert xgrad_cam(activation, gradient).tolist() == [[expected]]
    assert unweighted_channels(activation, gradient).tolist() == [pytest.approx(2 / 3)]
    assert unweighted_channels(activation[:, 3:], gradient[:, 3:]).tolist() == [0.0]


def test_xgrad_cam_keeps_the_sum_of_hires_cam_where_it_is_well_posed(run, images, target):
    """Fu et al. 2020, the axiom of conservation: after a ReLU no channel sums to less than zero."""
    maps = explain(run, images, target, methods=["xgrad-cam", "hires-cam"], layers=["deep"])
    ours, theirs = maps["xgrad-cam", "deep"].grid, maps["hires-cam", "deep"].grid
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours.double().sum((1, 2)), theirs.double().sum((1, 2)), rtol=1e-4, atol=0)
    assert maps["xgrad-cam", "deep"].diagnostics["unweighted_channels"].tolist() == [0, 0, 0]


def test_eigen_cam_of_one_pattern_is_the_pattern():
    """A = pattern x channels has rank one: its projection is the pattern times the channels' length."""
    pattern = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]])
    channels = torch.tensor([2.0, -1.0, 2.0, 0.0])
    activation = (channels[:, None, None] * pattern)[None]
    torch.testing.assert_close(eigen_cam(activation, activation)[0], 3 * pattern)


def pooled_by_loops(gradient, window, pool):
    """Each block by itself, the last ones holding what is left."""
    pooled = torch.empty_like(gradient)
    for top in range(0, gradient.shape[2], window):
        for left in range(0, gradient.shape[3], window):
            block = gradient[:, :, top : top + window, left : left + window]
            values = block.mean((2, 3)) if pool == "mean" else block.amax((2, 3))
            pooled[:, :, top : top + window, left : left + window] = values[..., None, None]
    return pooled


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 7, 8, 100])
def test_seg_xres_cam_is_hires_cam_with_gradients_pooled_over_blocks(window, pool):
    """5 x 7 cells: no window but 1 divides both, so there are ragged blocks."""
    draw = torch.Generator().manual_seed(0)
    activation, gradient = torch.randn(2, 2, 3, 5, 7, generator=draw, dtype=torch.float64)
    expected = hires_cam(activation, pooled_by_loops(gradient, window, pool))
    torch.testing.assert_close(seg_xres_cam(activation, gradient, window=window, pool=pool), expected)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_seg_xres_cam_with_window_1_is_hires_cam(pool, run, images, target):
    asked: list[Method] = ["hires-cam", SegXResCam(window=1, pool=pool)]
    maps = explain(run, images, target, methods=asked, layers=["deep", "up"])
    for layer in ("deep", "up"):
        assert largest(maps["seg-xres-cam", layer].map, maps["hires-cam", layer].map) < 1e-6


def test_seg_xres_cam_with_one_mean_over_all_is_grad_cam(run, images, target):
    maps = explain(run, images, target, methods=["grad-cam", SegXResCam(window=64)], layers=["deep", "up"])
    for layer in ("deep", "up"):
        assert largest(maps["seg-xres-cam", layer].map, maps["grad-cam", layer].map) < 1e-5


# Settings of Seg-XRes-CAM.


def test_settings_of_seg_xres_cam_come_from_one_trace(run, images, target):
    passes = []
    run.segmenter.register_forward_pre_hook(lambda module, given: passes.append(len(given[0])))
    asked: list[Method] = [
        "grad-cam",
        "seg-xres-cam",
        SegXResCam(window=4, pool="max"),
        SegXResCam(window=3, label="mine"),
    ]
    maps = explain(run, images, target, methods=asked, layers=["deep"])
    assert passes == [3]
    assert set(maps) == {
        ("grad-cam", "deep"),
        ("seg-xres-cam(window=2, pool=mean)", "deep"),
        ("seg-xres-cam(window=4, pool=max)", "deep"),
        ("mine", "deep"),
    }
    assert maps["mine", "deep"].settings == {"unit": "sum", "relu": True, "window": 3, "pool": "mean"}
    assert set(explain(run, images, target, methods=["seg-xres-cam"], layers=["deep"])) == {
        ("seg-xres-cam", "deep")
    }


@pytest.mark.parametrize(
    "asked",
    [
        [SegXResCam(label="grad-cam")],
        ["grad-cam", SegXResCam(label="grad-cam")],
        [SegXResCam(window=3, label="mine"), SegXResCam(window=4, label="mine")],
    ],
)
def test_two_methods_of_one_name_are_refused(asked, run, images, target):
    with pytest.raises(SettingError, match=r"Two methods are called '(grad-cam|mine)'\. Give .* label"):
        explain(run, images, target, methods=asked, layers=["deep"])


def test_wrong_settings_of_seg_xres_cam():
    with pytest.raises(SettingError, match="window is 0, but must be at least 1 cell"):
        SegXResCam(window=0)
    settings = SegXResCam()
    object.__setattr__(settings, "pool", "median")  # here the test run's type checks would be first
    with pytest.raises(SettingError, match=r"pool is 'median'\. Allowed: mean, max\."):
        settings.__post_init__()


# An independent second formula in float64.


def chattopadhyay(activation, gradient):
    """Equation 19 term by term, with second and third derivatives of exp(S) as g^2 and g^3, by loops."""
    batch, channels, height, width = activation.shape
    grids = torch.zeros(batch, height, width, dtype=torch.float64)
    for b in range(batch):
        for k in range(channels):
            weight = 0.0
            for g in gradient[b, k].flatten().tolist():
                if g != 0:
                    alpha = g**2 / (2 * g**2 + activation[b, k].sum().item() * g**3)
                    weight += alpha * max(g, 0.0)
            grids[b] += weight * activation[b, k]
    return grids


def test_grad_cam_plus_plus_is_equation_19():
    draw = torch.Generator().manual_seed(0)
    activation = torch.rand(2, 4, 5, 6, generator=draw, dtype=torch.float64)
    gradient = torch.randn(2, 4, 5, 6, generator=draw, dtype=torch.float64)
    expected = chattopadhyay(activation, gradient)
    torch.testing.assert_close(grad_cam_plus_plus(activation, gradient), expected)
    single = grad_cam_plus_plus(activation.float(), gradient.float())
    assert largest(single, expected.float()) < 1e-5


def by_loops(activation, gradient, weight):
    """``sum_k w_k A_k`` with ``w_k = weight(A_k, g_k)``, one channel after another."""
    grids = torch.zeros_like(activation[:, 0])
    for b in range(len(activation)):
        for a, g in zip(activation[b], gradient[b], strict=True):
            grids[b] += weight(a, g) * a
    return grids


SECOND = {
    "grad-cam": lambda a, g: by_loops(a, g, lambda a, g: g.sum() / g.numel()),
    "hires-cam": lambda a, g: by_loops(a, g, lambda a, g: g),
    "layer-cam": lambda a, g: by_loops(a, g, lambda a, g: g.clamp(min=0)),
    "xgrad-cam": lambda a, g: by_loops(a, g, lambda a, g: (g * (a / a.sum())).sum()),
    "activation": lambda a, g: sum(a[:, k].abs() for k in range(a.shape[1])) / a.shape[1],
}
"""The formulas of the sources once more. Those that are not here have a test of their own."""


@pytest.mark.parametrize("method", SECOND)
def test_a_second_formula_agrees_in_float64(method):
    """Activations of both signs, as SiLU layers have them; sums stay away from zero."""
    draw = torch.Generator().manual_seed(0)
    activation = torch.randn(2, 4, 5, 6, generator=draw, dtype=torch.float64) + 0.5
    gradient = torch.randn(2, 4, 5, 6, generator=draw, dtype=torch.float64)
    assert unweighted_channels(activation, gradient).tolist() == [0, 0]
    torch.testing.assert_close(
        CAMS[method].formula(activation, gradient), SECOND[method](activation, gradient)
    )


@pytest.mark.parametrize("shape", [(3, 5, 6), (40, 5, 6)])
def test_eigen_cam_is_the_full_svd(shape):
    """Through the smaller Gram matrix, whichever that is: of 3 channels, or of 30 cells."""
    draw = torch.Generator().manual_seed(0)
    activation = torch.randn(2, *shape, generator=draw, dtype=torch.float64)
    found = eigen_cam(activation, torch.zeros_like(activation))
    for one, grid in zip(activation, found, strict=True):
        cells = one.flatten(1).T
        component = torch.linalg.svd(cells, full_matrices=True).Vh[0]
        projection = (cells @ component).view(shape[1:])
        energy = one.square().sum(0)
        assert torch.corrcoef(torch.stack([grid.flatten(), energy.flatten()]))[0, 1] > 0
        torch.testing.assert_close(grid, projection if (grid * projection).sum() > 0 else -projection)


def test_eigen_cam_and_activation_know_no_class(make_run, make_unet, images, target):
    run = make_run(make_unet(outputs=2), outputs=2)
    other = Target("other", 0, target.pixels.flip(1))
    for method in ("eigen-cam", "activation"):
        maps = explain(run, images, [target, other], methods=[method], layers=["deep"])
        ours, theirs = (maps[label, method, "deep"].map for label in ("region", "other"))
        torch.testing.assert_close(ours, theirs)
    assert maps["region", "activation", "deep"].settings["relu"] is False


def test_grad_cam_plus_plus_keeps_gradients_far_below_the_peers_epsilon():
    """With g sum(A) near zero, alpha is 1/2: the map is half of the one with plain relu(g) weights."""
    draw = torch.Generator().manual_seed(0)
    activation, gradient = (
        torch.rand(1, 4, 5, 6, generator=draw),
        1e-9 * torch.randn(1, 4, 5, 6, generator=draw),
    )
    plain = (gradient.relu().sum((2, 3), keepdim=True) * activation).sum(1) / 2
    assert largest(grad_cam_plus_plus(activation, gradient), plain) < 1e-5


def test_a_denominator_of_zero_is_left_out_and_counted():
    activation = torch.full((1, 1, 2, 2), -0.5)  # sums to -2, so g = 1 makes 2 + g sum(A) zero
    gradient = torch.tensor([[[[1.0, 0.5], [0.0, -1.0]]]])
    grid = grad_cam_plus_plus(activation, gradient)
    torch.testing.assert_close(grid, activation[:, 0] * 0.5 / (2 - 0.5 * 2))
    assert crossed_denominators(activation, gradient).tolist() == [0.5]
    assert crossed_denominators(activation.relu(), gradient).tolist() == [0.0]


def test_hires_cam_of_the_peer_is_the_sum_too():
    """The free test of the table: g A summed over channels, nothing else."""
    activation, gradient = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(
        hires_cam(activation, gradient), torch.einsum("bkhw,bkhw->bhw", gradient, activation)
    )
