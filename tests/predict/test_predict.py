import pytest
import torch
from torch import nn

from seglens.errors import SettingError
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict import infer


def segmenter(**fields) -> Segmenter:
    torch.manual_seed(0)
    spec = ModelSpec(architecture="wrapped", channels=1, mean=(0.5,), std=(0.5,), **fields)
    parts = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, spec.outputs, 1)
    return Segmenter(nn.Sequential(*parts), spec)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_chunks_change_nothing(batch_size):
    model, images = segmenter(), torch.rand(5, 1, 12, 16)
    model.eval()
    expected = model(images)
    torch.testing.assert_close(infer(model, images, batch_size=batch_size).logits, expected)


def test_parts_agree_with_each_other():
    model, images = segmenter(threshold=0.45), torch.rand(2, 1, 12, 16)
    found = infer(model, images)
    torch.testing.assert_close(found.probabilities[:, 1], found.logits[:, 0].sigmoid())
    assert torch.equal(found.mask, (found.probabilities[:, 1] >= 0.45).long())
    assert found.mask.shape == (2, 12, 16)


def test_model_is_left_as_found():
    model = segmenter().train()
    module = model.get_submodule("module")
    module.get_submodule("1").eval()
    infer(model, torch.rand(2, 1, 8, 8))
    assert [part.training for part in module.children()] == [True, False, True, True]
    assert module.state_dict()["1.num_batches_tracked"] == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_results_can_take_part_in_gradients():
    """Tensors of inference mode could not, and what a network keeps of them would spoil later traces."""
    found = infer(segmenter(), torch.rand(1, 1, 8, 8))
    weight = torch.ones((), requires_grad=True)
    (found.logits * weight).sum().backward()
    assert not found.logits.requires_grad
    torch.testing.assert_close(weight.grad, found.logits.sum())


def test_bfloat16_is_near_and_float32_is_the_default():
    model, images = segmenter().eval(), torch.rand(3, 1, 12, 16)
    plain = infer(model, images)
    assert torch.equal(plain.logits, model(images).detach())
    mixed = infer(model, images, precision="bf16")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mixed.logits, model(images).detach(), rtol=0, atol=0.01)
    assert mixed.logits.dtype == torch.float32
    assert not torch.equal(mixed.logits, plain.logits)
    torch.testing.assert_close(mixed.logits, plain.logits, rtol=0, atol=0.02)
    assert next(model.parameters()).dtype == torch.float32


def test_an_unknown_precision():
    with pytest.raises(SettingError, match=r"Unknown precision '16'\. Allowed: auto, 32, bf16\."):
        infer(segmenter(), torch.rand(1, 1, 8, 8), precision="16")


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_flips_are_the_mean_over_the_four_mirror_images(head):
    model = segmenter(head=head, threshold=0.45).eval()
    images = torch.rand(3, 1, 12, 16)
    found = infer(model, images, tta=True, batch_size=2)
    turns = [lambda x: x, torch.fliplr, torch.flipud, lambda x: torch.rot90(x, 2)]
    expected = torch.stack(
        [
            torch.stack(
                [turn(model.probabilities(model(turn(image[0])[None, None]))[0, 1]) for turn in turns]
            )
            for image in images
        ]
    ).mean(1)
    torch.testing.assert_close(found.probabilities[:, 1], expected.detach())
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(3, 12, 16))
    assert torch.equal(found.mask, model.mask(found.logits))
    if head == "sigmoid":
        torch.testing.assert_close(found.logits[:, 0], expected.logit().detach(), rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(found.logits[:, 1], expected.log().detach(), rtol=1e-4, atol=1e-5)


def test_flips_of_a_certain_model_have_finite_logits():
    convolution = nn.Conv2d(1, 1, 1)
    convolution.load_state_dict({"weight": torch.zeros(1, 1, 1, 1), "bias": torch.tensor([200.0])})
    spec = ModelSpec(architecture="wrapped", channels=1, mean=(0.5,), std=(0.5,))
    certain = Segmenter(convolution, spec)
    torch.testing.assert_close(
        infer(certain, torch.rand(1, 1, 4, 4), tta=True).logits, torch.full((1, 1, 4, 4), 200.0)
    )
