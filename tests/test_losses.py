import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import FocalLoss, TverskyLoss

from seglens.errors import DataError, SettingError, UnknownNameError
from seglens.losses import (
    BINARY_LOSSES,
    CLASS_LOSSES,
    LOSSES,
    WEIGHTED_LOSSES,
    bce,
    bce_dice,
    ce,
    ce_dice,
    choose_loss,
    class_weights,
    dice,
    focal,
    lovasz,
    tversky,
)

BOTH = [(name, loss, 1) for name, loss in BINARY_LOSSES.items()]
BOTH += [(name, loss, 3) for name, loss in CLASS_LOSSES.items()]


WEIGHTED = [case for case in BOTH if case[0] in WEIGHTED_LOSSES]
WEIGHTS = {1: torch.tensor([0.4, 1.6]), 3: torch.tensor([0.3, 2.0, 0.7])}


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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [ce, focal])
def test_two_channels_say_what_one_says(loss, weighted):
    # softmax(0, z) is (1 - sigmoid(z), sigmoid(z))
    logits, masks, valid = batch(1, dtype=torch.float64)
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    weights = WEIGHTS[1].double() if weighted else None
    one = bce if loss is ce else focal
    torch.testing.assert_close(loss(both, masks, valid, weights), one(logits, masks, valid, weights))


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
