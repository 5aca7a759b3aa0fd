"""Inputs whose sides differ. Oracles: sizes and places by hand, resizing by torch, foreign tools."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import seglens
from seglens.axes import padded_size
from seglens.data.frame import fit_frame, part_frame
from seglens.data.transforms import letterbox_image
from seglens.errors import ModelError, SettingError
from seglens.models.probing import probe_size
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict.original import Inference, at_original_size, decide, forward, place
from seglens.predict.tiles import number_of, plan
from seglens.train.patches import covering, drawn, number_in
from seglens.train.recipe import TrainSettings

PLAIN: dict[str, Any] = {"mean": (0.5,), "std": (0.25,), "channels": 1}
LABELS = ("background", "spot")


class Fixed(nn.Module):
    """Takes one size only: to each place belongs a weight of its own. Bright pixels are foreground."""

    def __init__(self, *sides: int) -> None:
        super().__init__()
        kind = nn.Conv3d if len(sides) == 3 else nn.Conv2d
        self.body = kind(1, 3, 3, padding=1, stride=4)
        self.places = nn.Parameter(torch.linspace(0.0, 1e-3, int(np.prod(sides))).reshape(1, 1, *sides))

    def forward(self, images):
        far = functional.interpolate(self.body(images).mean(1, keepdim=True), images.shape[2:])
        return 4 * images + self.places + 1e-3 * far


def fixed(*sides: int) -> seglens.Run:
    torch.manual_seed(0)
    return seglens.wrap(Fixed(*sides), classes=LABELS, image_size=sides, outputs_are="logits", **PLAIN)


def test_one_length_stands_for_all_and_old_records_load():
    spec = ModelSpec(architecture="wrapped", image_size=(32, 48))
    assert (spec.image_size, spec.sides) == ((32, 48), (32, 48))
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    same = ModelSpec(architecture="wrapped", image_size=(48, 48))
    assert (same.image_size, same.sides) == (48, (48, 48))
    old = ModelSpec.model_validate({"architecture": "wrapped", "image_size": 48})
    assert old == same
    assert ModelSpec(architecture="wrapped", dims=3, image_size=16).sides == (16, 16, 16)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((32, 48, 48), r"got 32 x 48 x 48; allowed is one length for all sides, or 2 \(rows, columns\)"),
        ((32, 0), r"one whole number from 1 to 16384 for all sides, or one for each"),
        ((), "one whole number"),
        ("32", "one whole number"),
        (32.0, "one whole number"),
        (True, "one whole number"),
    ],
)
def test_sizes_that_are_none_are_refused(size, said):
    with pytest.raises(SettingError, match=said):
        ModelSpec(architecture="wrapped", image_size=size)


def test_training_reads_the_same():
    assert TrainSettings(image_size=(32, 48)).image_size == (32, 48)
    with pytest.raises(SettingError, match="from 16 to 8192"):
        TrainSettings(image_size=(8, 48))


def test_a_picture_is_as_large_as_fits():
    # 48 x 60 pixels into 24 x 40: half, for the rows; the rest of the columns is padding, 5 either side.
    frame = fit_frame((48, 60), (24, 40))
    assert (frame.scaled, frame.corner, frame.sides, frame.scale) == ((24, 30), (0, 5), (24, 40), 0.5)
    # The pixel at column 20, row 8 begins at 20 and 8: half of it, and 5 more.
    assert frame.to_grid(20, 8) == (20.5 / 2 - 0.5 + 5, 8.5 / 2 - 0.5)
    # 10 slices of 3 mm and 30 x 20 mm into 32 x 48 x 48: 32 / 30, 48 / 30 and 48 / 20.
    volume = fit_frame((10, 30, 20), (32, 48, 48), (3.0, 1.0, 1.0))
    assert volume.scaled == (32, 32, 21)
    assert volume.corner == (0, 8, 13)
    with pytest.raises(SettingError, match=r"got 24 x 40; allowed .*or 3 \(slices, rows, columns\)"):
        fit_frame((10, 30, 20), (24, 40))


def test_logits_are_those_of_a_picture_resized_by_hand():
    run = fixed(24, 40)
    image = torch.rand(1, 48, 60, generator=torch.Generator().manual_seed(1))
    small = functional.interpolate(image[None], (24, 30), mode="bilinear", antialias=True).clamp(0, 1)
    by_hand = functional.pad(small, [5, 5, 0, 0])
    with torch.no_grad():
        expected = run.segmenter.module((by_hand - 0.5) / 0.25)
    grid, _ = letterbox_image(image, run.spec.image_size)
    torch.testing.assert_close(run.predict(grid[None]).logits, expected, atol=1e-6, rtol=0)
    with pytest.raises(ModelError, match=r"was tried with 24 x 40.*size=\(24, 40\)"):
        run.predict(torch.rand(1, 1, 40, 24))


def test_masks_come_back_to_the_original_grid():
    run = fixed(24, 40)
    image = torch.zeros(1, 48, 60)
    image[:, 8:20, 42:50] = 1
    placed = place(image, run.spec)
    (found,) = forward(run.segmenter, [placed], Inference("32"))
    mask = decide(at_original_size(placed, found), run.spec)
    assert torch.equal(mask, image[0].long())

    run = fixed(16, 24, 32)
    volume = torch.zeros(1, 8, 24, 32)  # slices of 2 mm: they become two each
    volume[:, 2:5, 4:10, 20:26] = 1
    placed = place(volume, run.spec, spacing=(2.0, 1.0, 1.0))
    assert placed.image.shape == (1, 16, 24, 32)
    (found,) = forward(run.segmenter, [placed], Inference("32"))
    assert torch.equal(decide(at_original_size(placed, found), run.spec), volume[0].long())


def test_windows_are_counted_along_each_side():
    spec = ModelSpec(architecture="wrapped", image_size=(32, 64), scale=1.0, patches=True)
    assert plan((32, 64), spec) is None
    windows = plan((33, 64), spec)  # two rows of them, as rows begin every 16
    assert windows is not None
    assert (windows.sides, number_of(windows)) == ((32, 64), 2)
    assert plan((32, 65), spec) is not None
    whole = ModelSpec(architecture="wrapped", image_size=(32, 64), scale=1.0)
    assert plan((64, 128), whole) is None  # half the scale, both ways
    assert plan((65, 100), whole) is not None  # 32 rows of 65
    assert plan((100, 65), whole) is not None
    frame = part_frame((100, 65), (32, 64), 1.0, None, None)
    assert (frame.sides, frame.corner) == ((32, 64), (-34, 0))


def test_patches_cover_each_pixel_once():
    size, scaled = (8, 12, 20), (17, 12, 33)
    patches = covering(scaled, size)
    assert len(patches) == number_in(scaled, size) == 3 * 1 * 2
    covered = torch.zeros(scaled)
    for patch in patches:
        fresh = torch.zeros(size)
        fresh[patch.fresh] = 1
        covered += patch.frame.inner(fresh)
    assert torch.equal(covered, torch.ones(scaled))
    chance, about = torch.Generator().manual_seed(0), [torch.tensor([[16, 0, 32]])]
    for _ in range(30):
        frame = drawn(scaled, size, about, chance)
        assert frame.sides == size
        assert all(
            0 <= -at <= length - side for at, length, side in zip(frame.corner, scaled, size, strict=True)
        )


def test_layers_and_maps_of_a_network_of_one_size():
    run = fixed(24, 40)
    assert probe_size(run.segmenter) == (24, 40)  # it takes no other
    (layer,) = seglens.layers(run)
    assert (layer.name, layer.shape, layer.stride) == ("body", (3, 6, 10), 4)
    images = torch.rand(2, 1, 24, 40)
    target = seglens.targets.predicted(run, images)
    maps = seglens.explain(run, images, target, methods=("hires-cam", "occlusion", "rise"), layers="body")
    assert {tuple(each.map.shape) for each in maps.values()} == {(2, 24, 40)}
    checks = seglens.verify(run, images, target, layers="body")
    assert checks.passed


def test_layers_of_tokens_over_an_oblong_picture():
    """A grid of 6 x 10 cells of 8 pixels: rows and columns are not mixed up."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Conv2d(1, 4, 8, stride=8)
            self.mix = nn.Linear(4, 4)
            self.head = nn.Conv2d(4, 1, 1)

        def forward(self, images):
            cells = self.cut(images)
            mixed = self.mix(cells.flatten(2).transpose(1, 2)).transpose(1, 2)
            return functional.interpolate(self.head(mixed.unflatten(2, cells.shape[2:])), images.shape[2:])

    torch.manual_seed(0)
    run = seglens.wrap(Tokens(), classes=LABELS, image_size=(64, 96), outputs_are="logits", **PLAIN)
    found = {layer.name: layer for layer in seglens.layers(run)}
    assert found["mix"].shape == (4, 8, 12)
    assert found["mix"].stride == 8


def test_own_networks_are_tried_with_padded_sides():
    spec = ModelSpec(architecture="unet", width=2, image_size=(40, 72))
    segmenter = Segmenter.from_spec(spec).eval()
    assert segmenter.try_out(spec.image_size).shape[2:] == padded_size((40, 72), segmenter.spec.divisor)
    assert segmenter(torch.rand(1, 3, 40, 72)).shape[2:] == (40, 72)


def test_the_dimensions_follow_from_the_sides():
    assert fixed(8, 12, 20).spec.dims == 3
    with pytest.raises(SettingError, match=r"got 8 x 12 x 20; allowed .*or 2 \(rows, columns\)"):
        seglens.wrap(Fixed(8, 12, 20), classes=LABELS, image_size=(8, 12, 20), dims=2, **PLAIN)
