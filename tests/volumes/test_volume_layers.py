"""Layers and roles of 3-D networks, and what `verify` says of them."""

import pytest
import torch
from tests.volumes.networks import MONAI, monai_segresnet, monai_unet, run_of, scattered, small, volumes
from torch import nn

import seglens
from seglens.models.layout import FeatureLayout, readings


class Thick(nn.Module):
    """Halves rows and columns twice, slices only once, as networks for thick slices do."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv3d(2, 4, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.ReLU())
        self.two = nn.Sequential(nn.Conv3d(4, 6, 3, 2, 1), nn.ReLU())
        self.back = nn.Sequential(nn.ConvTranspose3d(6, 4, 2, 2), nn.ReLU())
        self.last = nn.ConvTranspose3d(4, 2, (1, 2, 2), (1, 2, 2))

    def forward(self, images):
        return self.last(self.back(self.two(self.one(images))))


def test_roles_of_a_unet_for_volumes():
    torch.manual_seed(0)
    infos = {info.name: info for info in seglens.layers(run_of(monai_unet(), divisor=4))}
    roles = {role: info for info in infos.values() for role in info.roles}
    assert roles["encoder_early"].name == "model.0"
    assert roles["encoder_last"].shape == (14, 16, 16, 16)
    assert roles["encoder_last"].stride == 4
    assert roles["decoder_last"].name == "model.1.submodule.2"
    assert roles["seg_head"].answer
    assert infos["model.0.conv.unit0.conv"].averages_out  # before an instance normalisation


def test_roles_of_a_segresnet_for_volumes():
    roles = {
        role: info for info in seglens.layers(run_of(monai_segresnet(), divisor=4)) for role in info.roles
    }
    assert roles["encoder_last"].shape == (16, 32, 32, 32)
    assert roles["encoder_last"].stride == 2


def test_cells_may_be_thicker_along_an_axis():
    torch.manual_seed(0)
    network = Thick().eval()
    run = run_of(network, divisor=4)
    infos = {info.name: info for info in seglens.layers(run)}
    assert (infos["one"].shape, infos["one"].stride) == ((4, 64, 32, 32), 2)
    assert (infos["two"].shape, infos["two"].stride) == ((6, 32, 16, 16), 4)
    assert "encoder_last" in infos["two"].roles
    images = volumes(1, (6, 24, 20))
    target = scattered(images)
    found = seglens.explain(run, images, target, methods="hires-cam", layers=("one", "two"))
    assert found["hires-cam", "one"].map.shape == (1, 6, 24, 20)


@pytest.mark.parametrize(
    ("shape", "size", "kind", "grid"),
    [
        ((1, 8, 12, 10, 8), (24, 20, 16), "channels first", (12, 10, 8)),
        ((1, 7, 6, 5, 4), (24, 20, 16), "channels first", (6, 5, 4)),
        ((1, 7, 1, 10, 8), (1, 20, 16), "channels first", (1, 10, 8)),
        ((1, 6, 5, 4, 96), (24, 20, 16), "channels last", (6, 5, 4)),
        ((1, 121, 96), (24, 20, 16), "tokens", (6, 5, 4)),
    ],
)
def test_grids_over_volumes(shape, size, kind, grid):
    assert (kind, grid) in [(one.kind, one.grid) for one in readings(shape, size)]


@pytest.mark.parametrize(
    "layout",
    [
        FeatureLayout("channels first", 4, 6, slices=3),
        FeatureLayout("channels last", 4, 6, slices=3),
        FeatureLayout("tokens", 4, 6, 2, slices=3),
    ],
)
def test_a_layout_goes_there_and_back(layout):
    shapes = {"channels first": (2, 5, 3, 4, 6), "channels last": (2, 3, 4, 6, 5), "tokens": (2, 74, 5)}
    value = torch.rand(shapes[layout.kind])
    maps = layout.to_map(value)
    assert maps.shape == (2, 5, 3, 4, 6)
    assert torch.equal(layout.put_back(maps, value), value)
    if layout.kind == "tokens":
        assert maps[1, 2, 1, 3, 5] == value[1, 2 + (1 * 4 + 3) * 6 + 5, 2]


NAMES = (
    "hires-cam-is-window-1",
    "gradient-is-slope",
    "ig-completeness",
    "hires-completeness",
    "batch-is-single",
)


@pytest.mark.parametrize("name", ["small", *MONAI])
def test_verify_holds_for_volumes(name):
    make, layers = MONAI.get(name, (small, ("down", "deep", "up")))
    images = volumes(2, (12, 8, 16))
    run = run_of(make(), divisor=4)
    found = seglens.verify(run, images, scattered(images), layers=layers[:2])
    wrong = {check.name: (check.value, check.note) for check in found.checks if check.outcome == "fail"}
    wrong.pop("bf16-scores", None)  # an option, which four masks are too few for
    assert not wrong
    assert found.passed
    assert {check.name for check in found.checks if check.outcome == "pass"}.issuperset(NAMES)


def test_verify_takes_noise_where_there_are_no_volumes():
    found = seglens.verify(run_of(small()), layers="deep")
    assert found.passed
    assert found.num_images == 2
