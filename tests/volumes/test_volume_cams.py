"""CAMs of volumes, against formulas written down again, hooks made by hand, and MONAI's Grad-CAM."""

from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from monai.visualize.class_activation_maps import GradCAM
from tests.volumes.networks import MONAI, SIZE, grid_of, run_of, scattered, small, volumes
from torch.nn import functional

import seglens
from seglens import targets
from seglens.explain.cams import CAMS, Pool, SegXResCam
from seglens.explain.trace import trace


def hooked(network, layer, images, pixels):
    """Activation and gradient at a layer, by hooks and plain autograd, in float64."""
    kept = []
    module = network.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, given, output: kept.append(output))
    logits = network((images - 0.5) / 0.5)
    handle.remove()
    (gradient,) = torch.autograd.grad((logits[:, 1] * pixels).sum(), kept[0])
    return kept[0].detach().numpy(), gradient.numpy()


def grad_cam(a, g):
    return sum(g[k].mean() * a[k] for k in range(len(a)))


def grad_cam_plus_plus(a, g):
    grid = 0
    for k in range(len(a)):
        below = 2 + g[k] * a[k].sum()
        alpha = np.where(np.abs(below) < 1e-3, 0, 1 / np.where(below == 0, 1, below))
        grid = grid + (alpha * np.maximum(g[k], 0)).sum() * a[k]
    return grid


def hires_cam(a, g):
    return sum(g[k] * a[k] for k in range(len(a)))


def layer_cam(a, g):
    return sum(np.maximum(g[k], 0) * a[k] for k in range(len(a)))


def xgrad_cam(a, g):
    grid = 0
    for k in range(len(a)):
        even = a[k].sum() <= 0.01 * np.abs(a[k]).sum()
        grid = grid + (g[k].mean() if even else (g[k] * a[k]).sum() / a[k].sum()) * a[k]
    return grid


def eigen_cam(a, g):
    rows = a.reshape(len(a), -1).T
    grid = (rows @ np.linalg.svd(rows, full_matrices=False)[2][0]).reshape(a.shape[1:])
    energy = (a**2).sum(0)
    return grid if (grid * (energy - energy.mean())).sum() >= 0 else -grid


def activation_map(a, g):
    return np.abs(a).mean(0)


def seg_xres_cam(a, g, window, pool):
    """Block by block, the last ones cut off at the border."""
    grid = np.zeros(a.shape[1:])
    for corner in np.ndindex(*[-(-length // window) for length in grid.shape]):
        block = (slice(None), *(slice(i * window, (i + 1) * window) for i in corner))
        pooled = getattr(g[block].reshape(len(g), -1), pool)(1)
        grid[block[1:]] = sum(pooled[k] * a[block][k] for k in range(len(a)))
    return grid


ORACLES = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "hires-cam": hires_cam,
    "layer-cam": layer_cam,
    "xgrad-cam": xgrad_cam,
    "eigen-cam": eigen_cam,
    "activation": activation_map,
}
BLOCKS: list[tuple[int, Pool]] = [(window, pool) for window in (2, 3) for pool in get_args(Pool)]


@pytest.mark.parametrize("name", MONAI)
def test_cams_of_volumes_are_those_of_hooks_made_by_hand(name):
    make, layers = MONAI[name]
    network, images = make().double(), volumes().double()
    target = scattered(images)
    traced = trace(run_of(make(), divisor=4).segmenter.double(), images, [target], layers)[0]
    assert CAMS.keys() == ORACLES.keys() | {"seg-xres-cam"}
    for layer in layers:
        a, g = hooked(network, layer, images, target.pixels)
        tap = traced.taps[layer]
        formulas = {key: (CAMS[key].formula, oracle) for key, oracle in ORACLES.items()}
        for window, pool in BLOCKS:
            formulas[f"{window} {pool}"] = (
                SegXResCam(window=window, pool=pool).cam.formula,
                partial(seg_xres_cam, window=window, pool=pool),
            )
        for key, (formula, oracle) in formulas.items():
            found = formula(tap.activation, tap.gradient).numpy()
            expected = np.stack([oracle(*pair) for pair in zip(a, g, strict=True)])
            assert found.shape[1:] == a.shape[2:]
            # Before a normalisation the means are nothing but rounding: next to the terms they are of.
            terms = (np.abs(g).mean((2, 3, 4), keepdims=True) * np.abs(a)).sum(1)
            size = max(np.abs(expected).max(), terms.max())
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * size, err_msg=f"{key}@{layer}")


def test_maps_are_interpolated_along_every_axis():
    images = volumes()
    found = seglens.explain(run_of(small()), images, scattered(images), methods="hires-cam", layers="deep")
    explanation = found["hires-cam", "deep"]
    assert grid_of(explanation).shape[1:] == (12, 10, 8)
    expected = functional.interpolate(grid_of(explanation)[:, None].relu(), SIZE, mode="trilinear")[:, 0]
    torch.testing.assert_close(explanation.map, expected)


def test_what_was_padded_is_cut_off():
    images = volumes(size=(10, 9, 7))
    target = scattered(images)
    found = seglens.explain(run_of(small(), divisor=4), images, target, methods="grad-cam", layers="deep")
    explanation = found["grad-cam", "deep"]
    assert grid_of(explanation).shape[1:] == (6, 6, 4)
    whole = functional.interpolate(grid_of(explanation)[:, None].relu(), (12, 12, 8), mode="trilinear")[:, 0]
    torch.testing.assert_close(explanation.map, whole[:, :10, :9, :7])


@pytest.mark.parametrize("name", MONAI)
def test_grad_cam_of_the_whole_volume_is_that_of_monai(name):
    make, layers = MONAI[name]
    network, images = make(), volumes(1)
    target = targets.whole_class(torch.ones(1, *SIZE, dtype=torch.bool))
    found = seglens.explain(run_of(make(), divisor=4), images, target, methods="grad-cam", layers=layers)
    told = [layer for layer in layers if found["grad-cam", layer].status == ("ok",)]
    assert len(told) >= 2  # the mean of a gradient before a normalisation is none, which MONAI draws
    for layer in told:
        peer = GradCAM(network, layer, postprocessing=lambda x: x)
        expected = peer(((images - 0.5) / 0.5).requires_grad_(), class_idx=1)[:, 0].detach()
        ours = found["grad-cam", layer].map
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * expected.max().item())
