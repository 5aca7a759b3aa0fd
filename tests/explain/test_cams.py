import pytest
import torch
from torch import nn

import seglens.explain as explaining
from seglens.explain import explain
from seglens.explain.cams import CAMS, crossed_denominators, grad_cam, grad_cam_plus_plus, hires_cam, upsample
from seglens.explain.target import Target

CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


def normalised(maps):
    """Each map scaled to [0, 1], as the peers return theirs."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def largest(one, other):
    """The largest difference, as a share of the map's maximum."""
    return ((one - other).abs().amax((1, 2)) / other.abs().amax((1, 2))).max().item()


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


# Other libraries, where they are right: plain layers after a ReLU.


class SegmentationTarget:
    """The sum of the logits over the pixels, as pytorch-grad-cam's own SemanticSegmentationTarget has it."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __call__(self, output):
        return (output[0] * self.pixels).sum()


@pytest.mark.parametrize("layer", ["down", "deep", "up"])
@pytest.mark.parametrize(
    ("method", "peer"), [("grad-cam", "GradCAM"), ("layer-cam", "LayerCAM"), ("hires-cam", "HiResCAM")]
)
def test_pytorch_grad_cam_agrees(method, peer, layer, run, images, target):
    import pytorch_grad_cam

    module = run.segmenter.module
    with getattr(pytorch_grad_cam, peer)(model=module, target_layers=[getattr(module, layer)]) as cam:
        theirs = torch.from_numpy(cam(images, targets=[SegmentationTarget(one) for one in target.pixels]))
    ours = explain(run, images, target, methods=[method], layers=[layer])[method, layer].map
    assert (normalised(ours) - normalised(theirs)).abs().max() < 1e-4


@pytest.mark.parametrize("layer", ["down", "deep", "up"])
def test_captum_agrees(layer, run, images, target):
    from captum.attr import LayerGradCam

    module = run.segmenter.module
    theirs = LayerGradCam(lambda x: (module(x)[:, 0] * target.pixels).sum((1, 2)), getattr(module, layer))
    grid = theirs.attribute(images)[:, 0].detach()
    ours = explain(run, images, target, layers=[layer])["grad-cam", layer]
    assert largest(ours.grid, grid) < 1e-5


# Properties of every entry of the dict.

LINEAR = ("grad-cam", "hires-cam", "layer-cam")
"""Weights are of degree one in the gradient: a scaled score gives a scaled map."""


@pytest.mark.parametrize("method", CAMS)
def test_a_batch_equals_its_pictures_and_chunks_change_nothing(method, run, images, target):
    batch = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"].map
    chunked = explain(run, images, target, methods=[method], layers=["deep"], chunk=2)[method, "deep"].map
    assert largest(chunked, batch) < 1e-5
    for row in range(3):
        chosen = slice(row, row + 1)
        alone = explain(run, images[chosen], target.select(chosen), methods=[method], layers=["deep"])
        assert largest(alone[method, "deep"].map, batch[chosen]) < 1e-5


@pytest.mark.parametrize("method", CAMS)
def test_flipping_image_and_target_flips_the_map(method, make_run, target, images):
    class Symmetric(nn.Module):
        """Flips with its input: 1x1 convolutions and pooling."""

        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(
                nn.Conv2d(3, 6, 1), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(6, 6, 1), nn.ReLU()
            )
            self.head = nn.Sequential(nn.Conv2d(6, 1, 1), nn.Upsample(scale_factor=4, mode="bilinear"))

        def forward(self, images):
            return self.head(self.first(images))

    run = make_run(Symmetric())
    with torch.no_grad():
        run.segmenter.module.head[0].weight.abs_()  # some evidence for the class, or the map is flat
    plain = explain(run, images, target, methods=[method], layers=["first"])[method, "first"].map
    mirrored = Target("region", 1, target.pixels.flip(2))
    flipped = explain(run, images.flip(3), mirrored, methods=[method], layers=["first"])[method, "first"].map
    assert largest(flipped.flip(2), plain) < 1e-5


@pytest.mark.parametrize("method", LINEAR)
def test_scaling_the_score_leaves_the_normalised_map(method, run, images, target):
    before = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"].map
    with torch.no_grad():
        run.segmenter.module.head.weight.mul_(7)
    after = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"].map
    assert largest(after, 7 * before) < 1e-5


@pytest.mark.parametrize("method", CAMS)
def test_grid_is_signed_and_the_map_follows_from_it(method, run, images, target):
    found = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"]
    assert found.grid is not None
    assert found.grid.shape == (3, 8, 10)
    grid = found.grid.relu() if CAMS[method].relu else found.grid
    expected = nn.functional.interpolate(grid[:, None], (32, 40), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found.map, expected)
    assert found.settings == {"unit": "sum", "relu": CAMS[method].relu}


@pytest.mark.parametrize("method", CAMS)
def test_rows_without_a_target_or_without_variation_hold_nan(method, make_run, images, pixels):
    class Flat(nn.Module):
        """A layer that is constant over the picture where the picture is."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)
            self.head = nn.Conv2d(4, 1, 1)

        def forward(self, images):
            return self.head(self.layer(images))

    pixels = torch.ones_like(pixels)
    pixels[1] = False
    images = images.clone()
    images[2] = 0.5
    images[0, 0, 0, 0] = torch.nan
    run = make_run(Flat())
    found = explain(run, images, Target("region", 1, pixels), methods=[method], layers=["layer"])[
        method, "layer"
    ]
    assert found.status == ("failed", "no_target", "degenerate")
    assert found.map.isnan().all()
    assert found.grid is not None
    assert found.grid.isnan().all()
    assert found.ok.tolist() == [False] * 3


@pytest.mark.parametrize("method", CAMS)
def test_the_map_lies_where_the_padded_picture_was(method, make_run, make_unet, images, target):
    """Padding by hand, then cutting off, is what the segmenter does: the grid covers the padded picture."""
    padded = nn.functional.pad(images[..., :30, :37], (0, 3, 0, 2), mode="replicate")
    frozen = target.pixels[:, :30, :37]
    all_of_it = nn.functional.pad(frozen, (0, 3, 0, 2))
    by_hand = explain(
        make_run(make_unet()), padded, Target("t", 1, all_of_it), methods=[method], layers=["deep"]
    )
    run = make_run(make_unet(), divisor=8)
    cropped = explain(run, images[..., :30, :37], Target("t", 1, frozen), methods=[method], layers=["deep"])
    torch.testing.assert_close(cropped[method, "deep"].map, by_hand[method, "deep"].map[:, :30, :37])


def test_relu_before_upsampling_is_another_map():
    grid = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = CAMS["grad-cam"].map_of(grid, (64, 64))
    assert (ours - upsample(grid, (64, 64)).relu()).abs().max() / ours.max() > 0.1


def test_every_cam_has_a_line_in_methods():
    assert set(CAMS) < set(explaining.METHODS)


def test_hires_cam_of_the_peer_is_the_sum_too():
    """The free test of the table: g A summed over channels, nothing else."""
    activation, gradient = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(
        hires_cam(activation, gradient), torch.einsum("bkhw,bkhw->bhw", gradient, activation)
    )
