import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seglens.errors import SettingError, UnknownNameError
from seglens.losses import BINARY_LOSSES, CLASS_LOSSES, LOSSES, bce, bce_dice, ce, ce_dice, choose_loss, dice

BOTH = [(name, loss, 1) for name, loss in BINARY_LOSSES.items()]
BOTH += [(name, loss, 3) for name, loss in CLASS_LOSSES.items()]


def batch(outputs, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, outputs, 5, 7, generator=generator, dtype=dtype)
    masks = torch.randint(max(outputs, 2), (2, 5, 7), generator=generator)
    valid = torch.rand(2, 5, 7, generator=generator) < 0.7
    return logits, masks, valid


def test_bce_of_a_zero_logit_is_log_two():
    _, masks, valid = batch(1)
    assert bce(torch.zeros(2, 1, 5, 7), masks, valid).item() == pytest.approx(math.log(2))


def test_ce_of_equal_logits_is_log_of_the_number_of_classes():
    _, masks, valid = batch(3)
    assert ce(torch.zeros(2, 3, 5, 7), masks, valid).item() == pytest.approx(math.log(3))


def test_dice_by_hand():
    # p = 0.5 on four pixels, two of them true: 1 - (2 * 1 + 1) / (2 + 2 + 1)
    masks = torch.tensor([[[1, 1], [0, 0]]])
    loss = dice(torch.zeros(1, 1, 2, 2), masks, torch.ones(1, 2, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(1 - 3 / 5)


def test_against_numpy_in_float64():
    logits, masks, valid = batch(1, dtype=torch.float64)
    z, t, v = logits.numpy()[:, 0], masks.numpy() == 1, valid.numpy()
    p = 1 / (1 + np.exp(-z))
    entropy = -np.where(t, np.log(p), np.log(1 - p))[v].mean()
    soft = 1 - (2 * p[v & t].sum() + 1) / (p[v].sum() + (t & v).sum() + 1)
    assert bce_dice(logits, masks, valid).item() == pytest.approx(entropy + soft, rel=1e-12)


def test_several_classes_against_numpy_in_float64():
    logits, masks, valid = batch(3, dtype=torch.float64)
    z, t, v = logits.numpy(), masks.numpy(), valid.numpy()
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    entropy = -np.log(np.take_along_axis(p, t[:, None], axis=1))[:, 0][v].mean()
    soft = [
        1 - (2 * p[:, c][v & (t == c)].sum() + 1) / (p[:, c][v].sum() + (v & (t == c)).sum() + 1)
        for c in (1, 2)
    ]
    assert ce_dice(logits, masks, valid).item() == pytest.approx(entropy + np.mean(soft), rel=1e-12)


def test_ce_agrees_with_torch_where_all_is_valid():
    logits, masks, _ = batch(3)
    valid = torch.ones_like(masks, dtype=torch.bool)
    torch.testing.assert_close(ce(logits, masks, valid), F.cross_entropy(logits, masks))


@pytest.mark.parametrize(("name", "loss", "outputs"), BOTH)
def test_invalid_pixels_count_for_nothing(name, loss, outputs):
    logits, masks, valid = batch(outputs)
    logits.requires_grad_()
    expected = loss(logits, masks, valid)
    (gradient,) = torch.autograd.grad(expected, logits)
    assert (gradient.abs().sum(dim=1)[~valid] == 0).all()
    if name != "lovasz":  # Its gradient is 0 at pixels beyond the margin, and at those of least error.
        assert (gradient.abs().sum(dim=1)[valid] > 0).all()
    other = torch.where(valid[:, None], logits, 50.0)
    torch.testing.assert_close(loss(other, masks.masked_fill(~valid, 255), valid), expected)


@pytest.mark.parametrize(("name", "loss", "outputs"), BOTH)
def test_padding_changes_nothing(name, loss, outputs):
    logits, masks, valid = batch(outputs)
    wider = [F.pad(array, (0, 3)) for array in (logits, masks, valid)]
    torch.testing.assert_close(loss(*wider), loss(logits, masks, valid))


@pytest.mark.parametrize(("name", "loss", "outputs"), BOTH)
def test_right_is_nearly_zero_and_wrong_is_large(name, loss, outputs):
    _, masks, valid = batch(outputs)
    sure = torch.where(
        torch.nn.functional.one_hot(masks, max(outputs, 2)).permute(0, 3, 1, 2) > 0, 30.0, -30.0
    )
    sure = sure[:, 1:] if outputs == 1 else sure
    assert loss(sure, masks, valid).item() < 1e-5
    assert loss(-sure, masks, valid).item() > 0.5


@pytest.mark.parametrize(("name", "loss", "outputs"), BOTH)
def test_no_valid_pixel_gives_zero_with_a_zero_gradient(name, loss, outputs):
    logits, masks, valid = batch(outputs)
    logits.requires_grad_()
    value = loss(logits, masks, torch.zeros_like(valid))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize(("name", "loss", "outputs"), BOTH)
def test_float32_under_autocast(name, loss, outputs):
    logits, masks, valid = batch(outputs)
    reduced = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(reduced, masks, valid)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(reduced.float(), masks, valid))


def test_choice():
    assert choose_loss(None, 1) is bce_dice
    assert choose_loss(None, 3) is ce_dice
    assert choose_loss("dice", 3) is dice
    assert set(LOSSES) == {"bce+dice", "bce", "ce+dice", "ce", "dice", "focal", "tversky", "lovasz"}
    with pytest.raises(UnknownNameError, match=r"Unknown loss 'dicee'\. Did you mean 'dice'\?"):
        choose_loss("dicee", 1)
    with pytest.raises(
        SettingError, match=r"'ce' doesn't fit a model with 1 output channel\. Choose one of: bce"
    ):
        choose_loss("ce", 1)
