"""What holds for every loss, and how one is chosen."""

import pytest
import torch
import torch.nn.functional as F
from tests.losses.cases import BOTH, WEIGHTS, batch

from seglens.errors import SettingError, UnknownNameError
from seglens.train.losses import LOSSES, WEIGHTED_LOSSES, bce_dice, ce_dice, choose_loss, dice


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


@pytest.mark.parametrize(("name", "loss", "outputs"), [case for case in BOTH if case[0] != "lovasz"])
def test_gradient_in_float64(name, loss, outputs):
    logits, masks, valid = batch(outputs, dtype=torch.float64)
    weights = WEIGHTS[outputs].double() if name in WEIGHTED_LOSSES else None
    assert torch.autograd.gradcheck(lambda z: loss(z, masks, valid, weights), logits.requires_grad_())


@pytest.mark.parametrize(("name", "loss", "outputs"), BOTH)
def test_a_surer_right_answer_lowers_the_loss(name, loss, outputs):
    logits, masks, valid = batch(outputs)
    right = F.one_hot(masks, max(outputs, 2)).permute(0, 3, 1, 2).float()
    right = 2 * right[:, 1:] - 1 if outputs == 1 else right
    values = [loss(logits + push * right, masks, valid).item() for push in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


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
