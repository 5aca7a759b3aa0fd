"""Class weights: how they are found, what they change, and which losses take them."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.losses.cases import WEIGHTED, WEIGHTS, batch

from seglens.errors import DataError, SettingError
from seglens.train.losses import LOSSES, WEIGHTED_LOSSES, bce, ce, class_weights, dice


def test_weighted_ce_is_that_of_torch():
    logits, masks, valid = batch(3, dtype=torch.float64)
    weights = WEIGHTS[3].double()
    expected = F.cross_entropy(logits, masks.masked_fill(~valid, -100), weight=weights, ignore_index=-100)
    torch.testing.assert_close(ce(logits, masks, valid, weights), expected)


def test_weighted_bce_by_hand():
    # -log .5 at every background pixel, -log .25 at every foreground pixel
    masks = torch.tensor([[[1, 0, 0, 0]]])
    logits = torch.where(masks == 1, -math.log(3), 0.0)[:, None]
    value = bce(logits, masks, masks >= 0, torch.tensor([1.0, 5.0]))
    assert value.item() == pytest.approx((3 * math.log(2) + 5 * math.log(4)) / (3 + 5))


@pytest.mark.parametrize(("name", "loss", "outputs"), WEIGHTED)
def test_weights_of_one_change_nothing(name, loss, outputs):
    logits, masks, valid = batch(outputs)
    ones = torch.full((max(outputs, 2),), 3.0)
    torch.testing.assert_close(loss(logits, masks, valid, ones), loss(logits, masks, valid))


@pytest.mark.parametrize(("name", "loss", "outputs"), WEIGHTED)
def test_a_class_of_weight_zero_counts_as_invalid(name, loss, outputs):
    logits, masks, valid = batch(outputs)
    weights = torch.ones(max(outputs, 2))
    weights[0] = 0
    alone = LOSSES[name.removesuffix("+dice")]
    rest = loss(logits, masks, valid, weights) - (dice(logits, masks, valid) if "dice" in name else 0)
    torch.testing.assert_close(rest, alone(logits, masks, valid & (masks != 0), None))


@pytest.mark.parametrize(("name", "loss", "outputs"), WEIGHTED)
def test_weighted_too_invalid_pixels_count_for_nothing(name, loss, outputs):
    logits, masks, valid = batch(outputs)
    expected = loss(logits, masks, valid, WEIGHTS[outputs])
    other = torch.where(valid[:, None], logits, 50.0)
    changed = loss(other, masks.masked_fill(~valid, 255), valid, WEIGHTS[outputs])
    torch.testing.assert_close(changed, expected)
    nothing = loss(logits, masks, torch.zeros_like(valid), WEIGHTS[outputs])
    assert nothing.item() == 0


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - set(WEIGHTED_LOSSES)))
def test_losses_of_areas_refuse_weights(name):
    logits, masks, valid = batch(3)
    with pytest.raises(SettingError, match=rf"'{name}' takes no class weights; those that do are: bce\+dice"):
        LOSSES[name](logits, masks, valid, WEIGHTS[3])


def test_class_weights_by_hand():
    # inverses 1/6, 1/3, 1/2 with mean 1/3
    weights = class_weights(torch.tensor([6, 3, 2]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 1.0, 1.5]))


def test_class_weights_give_every_class_the_same_share():
    counts = torch.tensor([10**11, 7, 12345])
    weights = class_weights(counts)
    assert weights.mean().item() == pytest.approx(1)
    shares = counts.double() * weights.double()
    torch.testing.assert_close(shares, shares[:1].expand(3), rtol=1e-6, atol=0)


def test_a_class_that_never_occurs_has_weight_zero():
    torch.testing.assert_close(class_weights(torch.tensor([4, 0, 4])), torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(DataError, match="none of the 3 classes has one"):
        class_weights(torch.zeros(3, dtype=torch.int64))
