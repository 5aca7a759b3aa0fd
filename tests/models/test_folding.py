"""Folded networks answer as those that they were made of, in every architecture."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from seglens.models.folding import folded, quick
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


class Unmatched(nn.Module):
    """A batch norm that was made after the head, with other channels than that has."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images):
        return self.head(torch.relu(self.norm(self.first(images))))


def test_a_batch_norm_of_other_channels_is_not_that_of_the_convolution_before_it():
    segmenter = Segmenter(Unmatched().eval(), ModelSpec(architecture="unet", image_size=16))
    assert folded(segmenter) is segmenter


# Networks of somebody else's.


class Foreign(nn.Module):
    """A convolution and a batch norm that is no identity, and a head."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 1, 1)
        assert self.norm.running_mean is not None
        nn.init.uniform_(self.norm.running_mean, 0.5, 1.0)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, images):
        return self.last(torch.relu(self.norm(self.first(images))))


def wrapped(module):
    torch.manual_seed(0)
    return Segmenter(module.eval(), ModelSpec(architecture="wrapped", image_size=16))


def kernels(segmenter):
    return [module.weight for module in segmenter.modules() if isinstance(module, nn.Conv2d)]


def norms(segmenter):
    return sum(isinstance(module, nn.BatchNorm2d) for module in segmenter.modules())


def test_a_foreign_network_is_folded_where_the_trial_shows_that_it_may_be():
    segmenter = wrapped(Foreign()).double()
    copy = folded(segmenter)
    images = torch.rand(2, 3, 24, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(copy(images), segmenter(images), rtol=1e-12, atol=1e-12)
    assert (norms(copy), norms(segmenter)) == (0, 1)


class Locked(Foreign):
    """Nobody can copy it."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Choosy(Foreign):
    """It takes pictures of 24 pixels, and not of the size that its spec says."""

    def forward(self, images):
        if images.shape[-1] != 24:
            raise ValueError("24 pixels, please")
        return super().forward(images)


def of_the_batch():
    """Its batch norm goes by the batch even in evaluation."""
    module = Foreign()
    module.norm = nn.BatchNorm2d(4, track_running_stats=False)
    return module


def normalised():
    """Its convolution works out its weights anew each time."""
    module = Foreign()
    weight_norm(module.first)
    return module


@pytest.mark.parametrize(
    "make", [Crossed, Locked, Choosy, of_the_batch, normalised, lambda: nn.Conv2d(3, 1, 1)]
)
def test_networks_that_can_not_be_folded_are_used_as_they_are(make):
    segmenter = wrapped(make())
    assert folded(segmenter) is segmenter
    assert quick(segmenter) is segmenter


def test_a_compiled_network_is_not_copied():
    segmenter = wrapped(torch.compile(Foreign(), backend="eager"))
    assert folded(segmenter) is segmenter


# Copies for many passes.


@pytest.mark.parametrize(("architecture", "encoder"), [NETWORKS[0], NETWORKS[2]])
def test_a_quick_copy_has_the_same_gradients(architecture, encoder):
    segmenter = learned(architecture, encoder, 8 if encoder is None else None).double().eval()
    copy = quick(segmenter)
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    right, found = (torch.autograd.grad(one(images).mean(), images)[0] for one in (segmenter, copy))
    torch.testing.assert_close(found, right, rtol=0, atol=1e-9 * right.abs().max().item())
    assert norms(copy) == 0
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels(copy))


def test_a_quick_copy_of_a_foreign_network_keeps_the_order_of_memory():
    """It may rely on it: to flatten channels-last pictures by a view is an error."""
    copy = quick(wrapped(Foreign()))
    assert norms(copy) == 0
    assert kernels(copy)[0].is_contiguous()


def test_a_quick_copy_is_made_when_there_is_nothing_to_fold():
    torch.manual_seed(0)
    segmenter = Segmenter(nn.Conv2d(3, 1, 3, padding=1), ModelSpec(architecture="unet", image_size=16))
    copy = quick(segmenter)
    assert copy is not segmenter
    assert kernels(segmenter)[0].is_contiguous()
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(copy(images), segmenter(images))
