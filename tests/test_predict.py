import pytest
import torch
from torch import nn

from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict import infer


def segmenter(**fields) -> Segmenter:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 1, 1))
    return Segmenter(module, ModelSpec(architecture="wrapped", channels=1, mean=(0.5,), std=(0.5,), **fields))


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_chunks_change_nothing(chunk):
    model, images = segmenter(), torch.rand(5, 1, 12, 16)
    model.eval()
    expected = model(images)
    torch.testing.assert_close(infer(model, images, chunk=chunk).logits, expected)


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
