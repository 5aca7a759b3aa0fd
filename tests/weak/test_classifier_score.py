"""The question: its score in closed form, its gradients, and which ImageNet classes words mean."""

import pytest
import timm
import torch
from tests.weak.scenes import red_score, red_square
from torch import nn

from seglens.errors import ModelError, SettingError, UnknownNameError
from seglens.models.weights import save_weights
from seglens.weak.classifier_score import (
    ClassifierScore,
    class_numbers,
    features,
    imagenet_score,
    trace_score,
)


def test_the_score_is_the_log_odds_under_the_softmax() -> None:
    outputs = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    question = ClassifierScore(nn.Identity(), (1, 4), (0.5,), (0.5,), "")
    chance = outputs.softmax(1)[:, [1, 4]].sum(1)
    torch.testing.assert_close(question.score(outputs), (chance / (1 - chance)).log())


def test_one_output_is_the_score_itself() -> None:
    question = ClassifierScore(nn.Identity(), (0,), (0.5,), (0.5,), "")
    assert torch.equal(question.score(torch.tensor([[2.0], [-1.0]])), torch.tensor([2.0, -1.0]))


def test_activation_and_gradient_of_a_network_by_hand() -> None:
    image = red_square((32, 32))[0]
    question = red_score()
    answer = trace_score(question, image[None], ("act",))
    activation, gradient = answer.taps["act"]
    torch.testing.assert_close(activation[0, 0], (image[0] - 0.5).relu())
    torch.testing.assert_close(answer.score[0], 4 * (image[0] - 0.5).relu().mean())
    assert torch.allclose(gradient[0, 0], torch.tensor(4 / 32**2))
    assert not gradient[0, 1].any()
    assert not any(module._forward_hooks for module in question.network.modules())
    assert torch.equal(features(question, image[None], ("act",))["act"], activation)


def test_layers_that_are_none() -> None:
    image = red_square()[0][None]
    with pytest.raises(UnknownNameError, match=r"Unknown layer 'acts'\. Did you mean 'act'"):
        trace_score(red_score(), image, ("acts",))
    with pytest.raises(ModelError, match="'head' returns no grid"):
        trace_score(red_score(), image, ("head",))
    question = red_score()
    question.network.spare = nn.Conv2d(1, 1, 1)
    with pytest.raises(ModelError, match="didn't run its layer 'spare'"):
        features(question, image, ("spare",))


def test_words_for_imagenet_classes() -> None:
    assert class_numbers(("pets",)) == (*range(151, 269), *range(281, 286))
    assert class_numbers(("285", "3-5", "4")) == (3, 4, 5, 285)
    with pytest.raises(UnknownNameError, match=r"group of ImageNet classes 'pet'\. Did you mean 'pets'"):
        class_numbers(("pet",))
    for wrong in (("1000",), (), ("0-999",)):
        with pytest.raises(
            SettingError,
            match=r"Allowed are numbers from 0 to 999 and the groups .*: at least one class, and not all",
        ):
            class_numbers(wrong)


def test_weights_of_a_file_are_those_of_the_classifier(tmp_path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050").eval()
    save_weights(network, tmp_path / "w.safetensors")
    question = imagenet_score(
        "mobilenetv3_small_050", str(tmp_path / "w.safetensors"), ("dogs",), device=torch.device("cpu")
    )
    images = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (question.mean, question.std))
    torch.testing.assert_close(question.outputs(images), network((images - mean) / std))
    assert not question.network.training
    assert "118 of the 1000 ImageNet classes" in question.about
    with pytest.raises(UnknownNameError, match="classifier of timm 'mobilenet_v3"):
        imagenet_score("mobilenet_v3_smal", "none", ("dogs",), device=torch.device("cpu"))
