"""Networks for volumes, for pictures and for signals are told apart; mean and std are never rounded."""

import subprocess
import sys

import pytest
import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.vnet import VNet
from torch import nn

import seglens
from seglens.errors import CheckpointError, ModelError, SettingError
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


def wrap(module, channels=3, dims=None):
    mean = (0.5,) * channels
    return seglens.wrap(
        module,
        classes=("background", "thing"),
        image_size=32,
        channels=channels,
        mean=mean,
        std=mean,
        dims=dims,
        outputs_are="logits",
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
def test_networks_for_volumes_and_signals_are_refused_as_networks_for_pictures(make, channels, told):
    with pytest.raises(ModelError, match=told):
        wrap(make(), channels, dims=2)


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda: nn.Conv3d(1, 2, 3, padding=1), 1),
        (lambda: nn.Conv3d(1, 1, 3, padding=1), 1),
        (lambda: nn.Sequential(nn.InstanceNorm3d(3), nn.Conv3d(3, 2, 1)), 3),
        (lambda: BasicUNet(spatial_dims=3, in_channels=1, out_channels=2, features=(2,) * 6), 1),
        (Unpacks, 3),
    ],
)
def test_networks_for_volumes_are_told_from_their_layers(make, channels):
    module = make()
    run = wrap(module, channels)
    assert (run.spec.dims, run.spec.image_size) == (3, 32)
    volumes = torch.rand(1, channels, 32, 16, 16)
    centred = (volumes - 0.5) / 0.5
    torch.testing.assert_close(run.predict(volumes).logits, module.eval()(centred), rtol=0, atol=1e-6)


def test_networks_of_other_kinds_are_refused_as_networks_for_volumes():
    with pytest.raises(ModelError, match=r"2-D, for pictures: its layer 'itself' is a Conv2d.*dims=2"):
        wrap(nn.Conv2d(3, 2, 1), dims=3)
    with pytest.raises(ModelError, match="'0' is a MaxPool3d"):
        wrap(nn.Sequential(nn.MaxPool3d(1), nn.Conv2d(3, 2, 1)))
    with pytest.raises(ModelError, match="1-D, for signals"):
        wrap(nn.Conv1d(3, 2, 1))


def test_pictures_and_volumes_are_refused_where_the_model_takes_the_other():
    volumes, pictures = wrap(nn.Conv3d(3, 2, 1)), wrap(nn.Conv2d(3, 2, 1))
    with pytest.raises(SettingError, match=r"4 axes, .*a tensor has 5, .b c d h w.*The model is 3-D"):
        volumes.predict(torch.rand(1, 3, 8, 8))
    with pytest.raises(SettingError, match=r"5 axes, .*a tensor has 4, .b c h w.*Volumes are for 3-D models"):
        pictures.predict(torch.rand(1, 3, 8, 8, 8))
    with pytest.raises(ModelError, match=r"3-D, for volumes: it takes .*slices, rows, columns"):
        volumes.segmenter(torch.rand(1, 3, 8, 8))
    with pytest.raises(ModelError, match=r"2-D, for pictures: it takes .*channels, rows, columns"):
        pictures.segmenter(torch.rand(1, 3, 8, 8, 8))


def test_a_network_for_pictures_may_hold_a_layer_for_volumes():
    module = Volume()
    assert wrap(module).spec.dims == 2
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
        "try: seglens.wrap(nn.Conv3d(3, 2, 1), classes=('a', 'b'), dims=2)\n"
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
