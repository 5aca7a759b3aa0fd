"""Folded networks answer as those that they were made of, in every architecture."""

import pytest
import torch
from torch import nn

from seglens.models.folding import folded
from seglens.models.segmenter import ModelSpec, Segmenter

NETWORKS = [
    ("unet", None),
    ("resnet-unet", "resnet18"),
    ("resnet-unet", "mobilenet_v2"),
    ("resnet-unet", "tf_efficientnet_lite0"),
    ("unetplusplus", "resnet18"),
    ("deeplabv3", "resnet18"),
]


def learned(architecture, encoder, width=None):
    """A network whose batch norms are no identities."""
    torch.manual_seed(0)
    spec = ModelSpec(architecture=architecture, encoder=encoder, width=width, image_size=64)
    segmenter = Segmenter.from_spec(spec)
    for module in segmenter.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return segmenter


@pytest.mark.parametrize(("architecture", "encoder"), NETWORKS)
def test_a_folded_network_gives_the_same_logits(architecture, encoder):
    segmenter = learned(architecture, encoder, 8 if encoder is None else None).double().eval()
    copy = folded(segmenter)
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(copy(images), segmenter(images), rtol=1e-9, atol=1e-9)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    assert copy is not segmenter
    assert left == 0


def test_the_given_network_is_left_as_it_was():
    segmenter = learned("unet", None, 4).train()
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    folded(segmenter)
    assert segmenter.training
    assert all(torch.equal(before[name], tensor) for name, tensor in segmenter.state_dict().items())


class Crossed(nn.Module):
    """Children that follow one another, but are not applied one after the other."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Conv2d(3, 1, 1)
        assert self.norm.running_mean is not None
        nn.init.uniform_(self.norm.running_mean, 0.5, 1.0)

    def forward(self, images):
        return self.last(torch.relu(self.first(self.norm(images))))


def test_a_network_that_would_answer_otherwise_is_left_alone():
    torch.manual_seed(0)
    segmenter = Segmenter(Crossed().eval(), ModelSpec(architecture="unet", image_size=16))
    assert folded(segmenter) is segmenter
