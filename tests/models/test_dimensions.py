"""Networks for volumes and signals are refused as such; mean and std are never rounded."""

import subprocess
import sys

import pytest
import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.vnet import VNet
from torch import nn

import seglens
from seglens.errors import CheckpointError, ModelError
from seglens.models.segmenter import ModelSpec, Segmenter


class Volume(nn.Module):
    """A volume of one slice, made and unmade inside of a network for pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 2, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, images):
        return self.conv(images[:, :, None])[:, :, 0]


class Added(nn.Module):
    """Returns volumes."""

    def forward(self, images):
        return images[:, :2, None].expand(-1, -1, 4, -1, -1) - 1


class Unpacks(nn.Module):
    """Fails before any layer runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 2, 1)

    def forward(self, images):
        _, _, _, _, _ = images.shape
        return self.conv(images)


def wrap(module, channels=3):
    mean = (0.5,) * channels
    return seglens.wrap(
        module, classes=("background", "thing"), image_size=32, channels=channels, mean=mean, std=mean
    )


@pytest.mark.parametrize(
    ("make", "channels", "told"),
    [
        (lambda: nn.Conv3d(1, 2, 3, padding=1), 1, "3-D, for volumes: its layer 'itself' is a Conv3d"),
        (lambda: nn.Conv3d(1, 1, 3, padding=1), 1, "3-D, for volumes"),
        (lambda: nn.Conv3d(3, 2, 1), 3, "3-D, for volumes"),
        (lambda: nn.Sequential(nn.InstanceNorm3d(3), nn.Conv3d(3, 2, 1)), 3, "'0' is a InstanceNorm3d"),
        (lambda: nn.Sequential(nn.MaxPool3d(1), nn.Conv2d(3, 2, 1)), 3, "'0' is a MaxPool3d"),
        (lambda: nn.Conv1d(3, 2, 1), 3, "1-D, for signals: its layer 'itself' is a Conv1d"),
        (lambda: BasicUNet(spatial_dims=3, in_channels=1, out_channels=2), 1, "3-D, for volumes"),
        (lambda: VNet(spatial_dims=3, in_channels=1, out_channels=2), 1, "spatial_dims=2 in MONAI"),
        (Unpacks, 3, "3-D, for volumes: its layer 'conv'"),
        (Added, 3, "returns volumes"),
    ],
)
def test_networks_for_volumes_and_signals_are_refused(make, channels, told):
    with pytest.raises(ModelError, match=told):
        wrap(make(), channels)


def test_a_network_for_pictures_may_hold_a_layer_for_volumes():
    module = Volume()
    wrap(module)
    assert not module.conv._forward_pre_hooks


@pytest.mark.parametrize(("layer", "axes"), [(nn.Conv3d(3, 2, 1), 3), (nn.Conv1d(3, 2, 1), 1)])
def test_weights_for_volumes_and_signals_are_refused(layer, axes, tmp_path):
    torch.save({f"conv.{name}": value for name, value in layer.state_dict().items()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"a {axes}-D network, for .*conv.weight has shape"):
        seglens.adopt(
            tmp_path / "w.pth",
            model="unet",
            classes=("background", "thing"),
            image_size=32,
            out=tmp_path / "run",
        )


def test_the_refusal_is_one_line_without_type_checks():
    code = (
        "import seglens; from torch import nn\n"
        "try: seglens.wrap(nn.Conv3d(3, 2, 1), classes=('a', 'b'), image_size=32)\n"
        "except seglens.errors.UserError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("The network is 3-D, for volumes")
    assert found.count("\n") == 1


SPEC = ModelSpec(
    architecture="wrapped", head="softmax", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("when", ["before", "after", "inside", "and back"])
def test_mean_and_std_are_never_rounded(kind, when):
    network = nn.Conv2d(3, 2, 1)
    if when == "before":
        segmenter = Segmenter(network.to(kind), SPEC)
    elif when == "inside":
        segmenter = Segmenter(network, SPEC)
        segmenter.module.to(kind)
    else:
        segmenter = Segmenter(network, SPEC).to(kind)
        segmenter = segmenter.to(torch.float32) if when == "and back" else segmenter
    own = torch.float32 if when == "and back" else kind
    assert segmenter.dtype == own
    exact = torch.tensor(SPEC.mean, dtype=segmenter.mean.dtype)[:, None, None]
    assert segmenter.mean.dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(segmenter.mean, exact, rtol=0, atol=0)
    images = torch.rand(1, 3, 4, 4)
    expected = images.double() - torch.tensor(SPEC.mean).double()[:, None, None]
    expected = expected / torch.tensor(SPEC.std).double()[:, None, None]
    found = segmenter.normalise(images)
    assert found.dtype == own
    torch.testing.assert_close(found.double(), expected, rtol=torch.finfo(own).eps, atol=1e-6)
    assert segmenter(images).dtype in (torch.float32, torch.float64)


def test_mean_and_std_move_with_the_network():
    segmenter = Segmenter(nn.Conv2d(3, 2, 1), SPEC)
    assert segmenter.to("meta").device == torch.device("meta")
    back = segmenter.to_empty(device="cpu")
    assert back.device == torch.device("cpu")
    assert back.mean.flatten().tolist() == pytest.approx(SPEC.mean)
    assert "mean" not in segmenter.state_dict()
