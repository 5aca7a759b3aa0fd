"""Each loss by hand, against NumPy, and against torch and segmentation-models-pytorch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import FocalLoss, TverskyLoss
from tests.losses.cases import WEIGHTS, batch

from seglens.train.losses import bce, bce_dice, ce, ce_dice, dice, focal, lovasz, tversky


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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [ce, focal])
def test_two_channels_say_what_one_says(loss, weighted):
    # softmax(0, z) is (1 - sigmoid(z), sigmoid(z))
    logits, masks, valid = batch(1, dtype=torch.float64)
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    weights = WEIGHTS[1].double() if weighted else None
    one = bce if loss is ce else focal
    torch.testing.assert_close(loss(both, masks, valid, weights), one(logits, masks, valid, weights))


def test_focal_by_hand():
    # p_t = .5 everywhere: (1 - .5)^2 log 2
    _, masks, valid = batch(1)
    assert focal(torch.zeros(2, 1, 5, 7), masks, valid).item() == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize("outputs", [1, 3])
def test_focal_against_numpy(outputs):
    logits, masks, valid = batch(outputs, dtype=torch.float64)
    z, t, v = logits.numpy(), masks.numpy(), valid.numpy()
    z = np.concatenate([np.zeros_like(z), z], axis=1) if outputs == 1 else z
    t = np.where(t == 1, 1, 0) if outputs == 1 else t
    p = np.take_along_axis(np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), t[:, None], axis=1)[:, 0][v]
    w = WEIGHTS[outputs].double().numpy()[t[v]]
    expected = -(w * (1 - p) ** 2 * np.log(p)).sum() / w.sum()
    value = focal(logits, masks, valid, WEIGHTS[outputs].double())
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_focal_agrees_with_smp_for_one_channel():
    logits, masks, valid = batch(1)
    theirs = FocalLoss("binary", gamma=2.0, ignore_index=-1)
    torch.testing.assert_close(
        focal(logits, masks, valid), theirs(logits[:, 0], masks.masked_fill(~valid, -1))
    )


def test_focal_is_stable_where_the_model_is_sure():
    masks = torch.tensor([[[1, 0, 1, 0]]])
    logits = torch.tensor([[[[200.0, -200.0, -200.0, 200.0]]]], requires_grad=True)
    value = focal(logits, masks, masks >= 0)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(100)  # two of four pixels cost 200 each
    torch.testing.assert_close(gradient.flatten(), torch.tensor([0.0, 0.0, -0.25, 0.25]))


def test_tversky_by_hand():
    # p = .5 on four pixels, two of them true: TP = FP = FN = 1
    masks = torch.tensor([[[1, 1], [0, 0]]])
    value = tversky(torch.zeros(1, 1, 2, 2), masks, masks >= 0)
    assert value.item() == pytest.approx(1 - 1.5 / (1.5 + 0.3 + 0.7))


def test_tversky_minds_a_miss_more_than_a_false_alarm():
    masks = torch.zeros(1, 8, 8, dtype=torch.int64)
    masks[:, 2:6, 2:6] = 1
    smaller, larger = masks.clone(), masks.clone()
    smaller[:, 2, 2:6], larger[:, 6, 2:6] = 0, 1

    def of(mask):
        return tversky((mask * 60.0 - 30.0)[:, None], masks, masks >= 0).item()

    assert of(larger) == pytest.approx(1 - 16.5 / (16.5 + 0.3 * 4))
    assert of(smaller) == pytest.approx(1 - 12.5 / (12.5 + 0.7 * 4))


@pytest.mark.parametrize("outputs", [1, 3])
def test_tversky_agrees_with_smp_where_every_class_is_there(outputs):
    logits, masks, valid = batch(outputs)
    if outputs == 1:
        theirs = TverskyLoss("binary", smooth=0.5, ignore_index=9, alpha=0.3, beta=0.7)
    else:
        theirs = TverskyLoss("multiclass", classes=[1, 2], smooth=0.5, ignore_index=9, alpha=0.3, beta=0.7)
    torch.testing.assert_close(
        tversky(logits, masks, valid), theirs(logits, masks.masked_fill(~valid, 9)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("loss", [dice, tversky])
def test_false_positives_cost_where_a_class_is_not_there(loss):
    logits, _, valid = batch(1)
    logits.requires_grad_()
    value = loss(logits, torch.zeros_like(valid).long(), valid)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() > 0.5
    assert (gradient[:, 0][valid] > 0).all()


def jaccard_loss(true, predicted):
    union = (true | predicted).sum().item()
    return 1 - (true & predicted).sum().item() / union if union else 0.0


def lovasz_extension(errors, true):
    """Definition 2 of the paper, the set function spelled out: no cumulative sums."""
    order = errors.argsort(descending=True)
    value = errors.new_zeros(())
    for step in range(len(order)):
        wrong = torch.zeros_like(true)
        before = jaccard_loss(true, true ^ wrong.index_fill(0, order[:step], True))
        after = jaccard_loss(true, true ^ wrong.index_fill(0, order[: step + 1], True))
        value = value + errors[order[step]] * (after - before)
    return value


@pytest.mark.parametrize("outputs", [1, 3])
def test_lovasz_against_its_definition(outputs):
    logits, masks, valid = batch(outputs, dtype=torch.float64)
    logits.requires_grad_()
    kept, truth = logits.movedim(1, -1)[valid], masks[valid]
    if outputs == 1:
        expected = lovasz_extension((1 - kept[:, 0] * (2.0 * truth - 1)).relu(), truth == 1)
    else:
        p = kept.softmax(dim=1)
        classes = [lovasz_extension(((truth == c).double() - p[:, c]).abs(), truth == c) for c in range(3)]
        expected = torch.stack(classes).mean()
    value = lovasz(logits, masks, valid)
    torch.testing.assert_close(value, expected.float())
    found, wanted = (torch.autograd.grad(each, logits)[0] for each in (value, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("outputs", [1, 3])
def test_lovasz_of_a_sure_answer_is_the_jaccard_loss(outputs):
    _, masks, valid = batch(outputs)
    guess = masks.flip(1)
    if outputs == 1:
        # An error of the hinge is 0 or 2 at logits of 1 and -1.
        value = lovasz((2.0 * guess - 1)[:, None], masks, valid) / 2
        expected = jaccard_loss((masks == 1)[valid], (guess == 1)[valid])
    else:
        value = lovasz(60.0 * F.one_hot(guess, 3).permute(0, 3, 1, 2), masks, valid)
        expected = np.mean([jaccard_loss((masks == c)[valid], (guess == c)[valid]) for c in range(3)])
    assert value.item() == pytest.approx(expected, rel=1e-5)
