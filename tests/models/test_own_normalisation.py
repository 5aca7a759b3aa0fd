"""Mean and std that a network or its file brings along: taken or refused, never replaced by ImageNet's."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import Normalize, v2

import seglens
from seglens.errors import CheckpointError, ModelError, SeglensWarning

TWO = ("background", "cell")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Inside(nn.Module):
    """Normalises pictures itself, as ``how`` holds its mean and std."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv = how, nn.Conv2d(3, 1, 3, padding=1)
        if how == "buffers":
            self.register_buffer("pixel_mean", torch.tensor(MEAN).view(1, 3, 1, 1))
            self.register_buffer("pixel_std", torch.tensor(STD).view(1, 3, 1, 1))
        elif how == "compose":
            self.step: Any = v2.Compose([v2.Normalize(MEAN, STD)])
        else:
            self.step = Normalize(MEAN, STD)

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "buffers":
            images = (images - self.pixel_mean) / self.pixel_std
        else:
            images = self.step(images)
        return self.conv(images)


@pytest.mark.parametrize("how", ["buffers", "module", "compose"])
def test_a_network_that_normalises_itself_is_not_given_normalised_pictures(how):
    module = Inside(how)
    with pytest.raises(ModelError, match=r"mean and std of its own .*0\.5, 0\.4, 0\.3.*mean=\(0,\)\*3"):
        seglens.wrap(module, classes=TWO, image_size=32)
    run = seglens.wrap(module, classes=TWO, image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    images = torch.rand(1, 3, 32, 32)
    by_hand = module.conv((images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    torch.testing.assert_close(run.predict(images).logits, by_hand.detach())


class Changes(nn.Module):
    """Changes pictures by a function before its first layer."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.conv = how, nn.Conv2d(3, 1, 3, padding=1)
        assert self.conv.bias is not None
        nn.init.normal_(self.conv.bias, std=9.0)  # what is left of a picture divided by 255 is near it

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.how(images))


def _by_constants(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (_by_constants, "by 5, 4, 3.333 and adds -2.5, -1.6, -1 before"),
        (lambda images: _by_constants(images.flip(1)), "by 5, 4, 3.333 and adds -2.5, -1.6, -1 before"),
        (lambda images: 2 * images - 1, "by 2, 2, 2 and adds -1, -1, -1 before"),
        (lambda images: images.mul_(2).sub_(1), "by 2, 2, 2 and adds -1, -1, -1 before"),
        (lambda images: images * 255, "by 255, 255, 255 and adds 0, 0, 0 before"),
        (lambda images: images / 255, "by 0.003922, 0.003922, 0.003922 and adds 0, 0, 0 before"),
    ],
    ids=["constants", "and BGR", "to -1 and 1", "in place", "to 255", "from 255"],
)
def test_constants_in_the_forward_pass_are_seen(how, said):
    with pytest.raises(ModelError, match=f"{re.escape(said)}.*Give mean=.0,.*std=.1,"):
        seglens.wrap(Changes(how), classes=TWO, image_size=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = seglens.wrap(Changes(how), classes=TWO, image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    images = torch.rand(1, 3, 32, 32)
    network = run.segmenter.module
    assert isinstance(network, Changes)
    torch.testing.assert_close(run.predict(images).logits, network.conv(how(images.clone())).detach())
    with pytest.warns(SeglensWarning, match=re.escape(said)):
        seglens.wrap(Changes(how), classes=TWO, image_size=32, mean=MEAN, std=STD)


@pytest.mark.parametrize(
    "how",
    [
        lambda images: images,
        lambda images: images.flip(1),
        functional.instance_norm,
        lambda images: images / images.amax((1, 2, 3), keepdim=True),
        functional.relu,
        lambda images: images.to(memory_format=torch.channels_last),
    ],
    ids=["nothing", "BGR", "each picture's own", "each picture's range", "no line", "memory format"],
)
def test_what_depends_on_the_picture_is_no_normalisation_of_all(how):
    assert seglens.wrap(Changes(how), classes=TWO, image_size=32).spec.mean == (0.485, 0.456, 0.406)


def test_a_network_that_is_called_twice_is_looked_at_once():
    def both(network: nn.Module, images: Tensor) -> Tensor:
        return network(images) + network(images.flip(-1)).flip(-1)

    assert seglens.wrap(Changes(functional.relu), classes=TWO, image_size=32, call=both)
    with pytest.raises(ModelError, match=r"by 5, 4, 3\.333 and adds"):
        seglens.wrap(Changes(_by_constants), classes=TWO, image_size=32, call=both)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
def test_a_network_that_hides_its_parts_must_be_told_its_normalisation():
    script = torch.jit.trace(Changes(lambda images: 2 * images - 1), torch.rand(1, 3, 32, 32))
    with pytest.raises(ModelError, match=r"doesn't show its parts.*no mean and std are given"):
        seglens.wrap(script, classes=TWO, image_size=32)
    run = seglens.wrap(script, classes=TWO, image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(run.predict(images).logits, script(images).detach())


@pytest.mark.parametrize("given", [{"mean": (0.5,) * 3, "std": (0.5,) * 3}, {"normalise": "image"}])
def test_what_is_taken_for_mean_and_std_is_said(given):
    said = (
        r"mean and std are left out.*\(0\.485, 0\.456, 0\.406\) and \(0\.229, .*that the network was trained"
    )
    with pytest.warns(SeglensWarning, match=said):
        seglens.wrap(Changes(functional.relu), classes=TWO, image_size=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seglens.wrap(Changes(functional.relu), classes=TWO, image_size=32, **given)


def test_means_that_are_no_pictures_are_no_reason():
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1)
            self.register_buffer("mean", torch.zeros(1, 3, 1, 1))  # changes nothing
            self.register_buffer("std", torch.ones(1, 3, 1, 1))
            self.register_buffer("latent_mean", torch.rand(3))
            self.register_buffer("latent_std", torch.rand(3))

        def forward(self, images: Tensor) -> Tensor:
            return self.bn(self.conv(images))

    assert seglens.wrap(Other(), classes=TWO, image_size=32).spec.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("given", [{"mean": MEAN}, {"std": (1.0,) * 3}])
def test_half_of_a_normalisation_is_not_completed_by_imagenets(given):
    with pytest.raises(ModelError, match=r"Of mean and std, (mean|std) is left out"):
        seglens.wrap(nn.Conv2d(3, 1, 1), classes=TWO, image_size=32, **given)
    seglens.wrap(nn.Conv2d(3, 1, 1), classes=TWO, image_size=32, mean=(0.485, 0.456, 0.406))


def _kept(how: str, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return a checkpoint that holds MEAN and STD as training scripts keep them."""
    lightning = {f"model.{name}": tensor for name, tensor in state.items()}
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    if how == "buffers":
        return {"state_dict": {**lightning, "mean": mean, "std": std}}
    if how == "of 255":
        return {"state_dict": {**lightning, "pixel_mean": 255 * mean, "pixel_std": 255 * std}}
    return {"state_dict": lightning, "hyper_parameters": {"lr": 1e-3, "mean": list(MEAN), "std": list(STD)}}


@pytest.mark.parametrize("how", ["buffers", "of 255", "hyper parameters"])
def test_mean_and_std_beside_the_weights_are_taken(how, tmp_path):
    network = smp.Unet("mobilenet_v2", encoder_weights=None, classes=1).eval()
    torch.save(_kept(how, network.state_dict()), tmp_path / "last.ckpt")
    told: dict[str, Any] = {
        "model": "resnet-unet",
        "encoder": "mobilenet_v2",
        "classes": TWO,
        "image_size": 32,
    }
    run = seglens.adopt(tmp_path / "last.ckpt", out=tmp_path / "run", **told)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        by_hand = network((images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    torch.testing.assert_close(run.predict(images).logits, by_hand)
    with pytest.warns(SeglensWarning, match="holds a mean and std"):
        other = seglens.adopt(
            tmp_path / "last.ckpt", out=tmp_path / "other", mean=(0.0,) * 3, std=(1.0,) * 3, **told
        )
    assert other.spec.mean == (0, 0, 0)


def test_two_normalisations_in_a_file_are_not_chosen_from(tmp_path):
    state = smp.Unet("mobilenet_v2", encoder_weights=None, classes=1).state_dict()
    kept = {**_kept("buffers", state), "hyper_parameters": {"mean": [0.1] * 3, "std": [1.0] * 3}}
    torch.save(kept, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"2 pairs of mean and std that differ.*state_dict\.mean"):
        seglens.adopt(
            tmp_path / "last.ckpt", model="resnet-unet", encoder="mobilenet_v2", out=tmp_path / "run"
        )
    chosen = seglens.adopt(
        tmp_path / "last.ckpt", model="resnet-unet", encoder="mobilenet_v2", mean=[0.1] * 3, std=[1.0] * 3,
        out=tmp_path / "run",
    )  # fmt: skip
    assert (chosen.spec.mean, chosen.spec.std) == ((0.1,) * 3, (1.0,) * 3)
