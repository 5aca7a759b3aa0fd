"""The temperature against one that was planted, and against a grid of them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss  # type: ignore[import-untyped]

from seglens.data.sample import Sample
from seglens.evaluate.temperature import Pixels, best_temperature, calibrated, pixels_of
from seglens.models.segmenter import ModelSpec, Segmenter


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_planted_temperature_is_found(planted, classes):
    """Labels are drawn from the probabilities; logits are then multiplied."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(40_000, 1 if classes == 2 else classes))
    if classes == 2:
        truth = (rng.random(len(logits)) < 1 / (1 + np.exp(-logits[:, 0]))).astype(int)
    else:
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        truth = (rng.random(len(logits))[:, None] > chances.cumsum(1)).sum(1)
    pixels = Pixels(torch.from_numpy(logits * planted), torch.from_numpy(truth))
    found = best_temperature(pixels)
    assert found == pytest.approx(planted, rel=0.04)
    grid = np.linspace(0.3, 5, 200)
    assert pixels.loss(found) <= min(pixels.loss(float(each)) for each in grid) + 1e-9
    result = calibrated([pixels])
    assert result["error_after"] < 0.01
    if planted != 1:
        assert result["error_before"] > 2 * result["error_after"]


@pytest.mark.parametrize("classes", [1, 3])
def test_where_no_temperature_is_best_it_is_one(classes):
    """Where all answers are right the loss falls for ever as T falls; where all are wrong as it rises."""
    truth = torch.arange(60) % max(2, classes)
    right = torch.eye(3, dtype=torch.float64)[truth] if classes > 1 else (2.0 * truth - 1)[:, None].double()
    for logits in (right, -right):
        grid = [Pixels(logits, truth).loss(each) for each in (0.05, 0.3, 1.0, 4.0, 20.0)]
        assert grid in (sorted(grid), sorted(grid, reverse=True))
        result = calibrated([Pixels(logits, truth)])
        assert result["temperature"] == 1
        assert result["loss_after"] == result["loss_before"]


def test_the_loss_is_scikit_learns():
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    scaled = np.exp(logits / 1.7)
    expected = log_loss(truth, scaled / scaled.sum(1, keepdims=True), labels=[0, 1, 2])
    assert Pixels(torch.from_numpy(logits), torch.from_numpy(truth)).loss(1.7) == pytest.approx(expected)


def test_pixels_are_valid_ones_with_their_logits():
    mask = torch.arange(16).reshape(4, 4) % 2
    valid = torch.ones(4, 4, dtype=torch.bool)
    valid[0] = False
    foreground = 0.2 + 0.6 * mask
    sample = Sample("one", torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)), mask, valid)
    found = pixels_of(torch.stack([1 - foreground, foreground]), sample, ModelSpec(architecture="unet"))
    assert sorted(found.truth.tolist()) == [0] * 6 + [1] * 6
    assert torch.allclose(found.logits[found.truth == 1].sigmoid(), torch.tensor(0.8, dtype=torch.float64))


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_a_model_divides_its_logits(head):
    torch.manual_seed(0)
    classes = 2 if head == "sigmoid" else 3
    spec = ModelSpec(architecture="unet", width=2, image_size=16, head=head, classes=classes)
    plain = Segmenter.from_spec(spec).eval()
    warm = Segmenter(plain.module, spec.model_copy(update={"temperature": 2.5})).eval()
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(warm(images), plain(images) / 2.5)
    # At .5, and of several classes always, the mask is the same.
    assert torch.equal(warm.mask(warm(images)), plain.mask(plain(images)))
