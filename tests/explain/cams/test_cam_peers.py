"""CAMs against other libraries, where these are right: plain layers after a ReLU."""

import pytest
import torch
from tests.explain.cams.compared import largest, normalised
from torch import nn

from seglens.explain import explain
from seglens.explain.cams import (
    eigen_cam,
    grad_cam_plus_plus,
)


class SegmentationTarget:
    """The sum of the logits over the pixels, as pytorch-grad-cam's own SemanticSegmentationTarget has it."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __call__(self, output):
        return (output[0] * self.pixels).sum()


@pytest.mark.parametrize("layer", ["down", "deep", "up"])
@pytest.mark.parametrize(
    ("method", "peer"),
    [
        ("grad-cam", "GradCAM"),
        ("layer-cam", "LayerCAM"),
        ("hires-cam", "HiResCAM"),
        ("xgrad-cam", "XGradCAM"),
    ],
)
def test_pytorch_grad_cam_agrees(method, peer, layer, run, images, target):
    import pytorch_grad_cam

    module = run.segmenter.module
    with getattr(pytorch_grad_cam, peer)(model=module, target_layers=[getattr(module, layer)]) as cam:
        theirs = torch.from_numpy(cam(images, targets=[SegmentationTarget(one) for one in target.pixels]))
    ours = explain(run, images, target, methods=[method], layers=[layer])[method, layer].map
    assert (normalised(ours) - normalised(theirs)).abs().max() < 1e-4


@pytest.mark.parametrize("layer", ["down", "deep"])
def test_pytorch_grad_cam_agrees_on_eigen_cam_once_the_layer_is_centred(layer, run, images):
    """The peer takes each channel's mean away first, which the paper does not, and leaves the sign open.

    Uncentred, after a ReLU, the component is positive throughout (Perron and Frobenius): mostly how strongly
    a cell fires at all. The two are different maps, so ours is compared on what theirs decomposes.
    """
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    module = run.segmenter.module
    with torch.no_grad():
        fine = module.down(images)
        activation = fine if layer == "down" else module.deep(nn.functional.max_pool2d(fine, 4))
    theirs = torch.from_numpy(get_2d_projection(activation.numpy()))
    ours = eigen_cam(activation - activation.mean((2, 3), keepdim=True), activation)
    for one, other in zip(ours, theirs, strict=True):
        sign = (one * other).sum().sign()
        assert largest(one[None], sign * other[None]) < 1e-4
    assert (eigen_cam(activation, activation) >= 0).all()
    assert largest(eigen_cam(activation, activation), ours) > 0.1


def test_pytorch_grad_cam_swamps_small_gradients_in_grad_cam_plus_plus(run, images, target):
    """Its denominator has an epsilon of 1e-6, far above g^2 where the score is a mean over many pixels.

    Equation 19 has none: a score scaled down to g of about 1e-6 gives half the sum of relu(g), see above. The
    peer's weights vanish with g^2 instead, which is another map; at the scale of the sum it agrees.
    """
    import numpy as np
    from pytorch_grad_cam import GradCAMPlusPlus

    draw = torch.Generator().manual_seed(0)
    activation = torch.rand(1, 4, 5, 6, generator=draw)
    gradient = torch.randn(1, 4, 5, 6, generator=draw) * torch.tensor([1.0, 0.3, 0.1, 3.0]).view(1, 4, 1, 1)

    def difference(scale):
        peer = GradCAMPlusPlus.get_cam_weights(
            None, None, None, None, activation.numpy(), (scale * gradient).numpy()
        )
        theirs = (torch.from_numpy(np.asarray(peer))[..., None, None] * activation).sum(1)
        ours = grad_cam_plus_plus(activation, scale * gradient)
        return largest(theirs / theirs.max(), ours / ours.max())

    assert difference(1.0) < 1e-3
    assert difference(1e-4) > 0.1


@pytest.mark.parametrize("layer", ["down", "deep", "up"])
def test_captum_agrees(layer, run, images, target):
    from captum.attr import LayerGradCam

    module = run.segmenter.module
    theirs = LayerGradCam(lambda x: (module(x)[:, 0] * target.pixels).sum((1, 2)), getattr(module, layer))
    grid = theirs.attribute(images)[:, 0].detach()
    ours = explain(run, images, target, layers=[layer])["grad-cam", layer]
    assert largest(ours.grid, grid) < 1e-5
