"""Pictures as users have them: every way of handing over the same picture gives the same tensor."""

import builtins

import numpy as np
import pytest
import torch
from PIL import Image

from seglens.arguments.inputs import Pictures, as_images, as_masks
from seglens.drawing.notebook import data_frame
from seglens.errors import SeglensWarning, SettingError

STORED = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
RAW = torch.from_numpy(STORED).permute(2, 0, 1)[None].float() / 255
DEEP = STORED.astype(np.uint16) * 257

EIGHT_BIT: dict[str, Pictures] = {
    "array [h w c]": STORED,
    "array [c h w]": STORED.transpose(2, 0, 1),
    "array [b h w c]": STORED[None],
    "array, big-endian": DEEP.astype(">u2"),
    "array of 16 bits": DEEP,
    "tensor": torch.from_numpy(STORED).permute(2, 0, 1)[None],
    "Pillow": Image.fromarray(STORED),
    "Pillow, alpha": Image.fromarray(STORED).convert("RGBA"),
    "a list": [STORED],
}


@pytest.mark.parametrize("way", EIGHT_BIT)
def test_integers_are_divided_by_their_range(way):
    with pytest.warns(SeglensWarning, match=r"uint(8|16) pictures are divided by (255|65535)"):
        found = as_images(EIGHT_BIT[way], 3)
    torch.testing.assert_close(found, RAW)


def test_floating_point_is_taken_as_it_is():
    torch.testing.assert_close(as_images(RAW[0].permute(1, 2, 0).double().numpy(), 3), RAW)
    assert as_images(RAW, 3) is RAW


def test_grey_is_repeated_and_colour_becomes_luma():
    with pytest.warns(SeglensWarning):
        grey = as_images(STORED[..., 0], 3)
    torch.testing.assert_close(grey, RAW[:, :1].expand(-1, 3, -1, -1))
    with pytest.warns(SeglensWarning):
        luma = as_images(Image.fromarray(STORED), 1)
    by_hand = (RAW * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    assert (luma - by_hand).abs().max() <= 1 / 255


def test_a_picture_is_turned_upright_as_files_are():
    turned = Image.fromarray(STORED)
    turned.getexif()[0x0112] = 6
    with pytest.warns(SeglensWarning):
        found = as_images(turned, 3)
    torch.testing.assert_close(found, RAW.rot90(-1, (2, 3)))


def test_masks():
    mask = torch.tensor([[0, 1], [2, 0]])
    for given in (mask[None], mask[None, None], mask[None].float(), mask[None].numpy(), [mask], [mask[None]]):
        assert torch.equal(as_masks(given), mask[None])
    palette = Image.fromarray(mask.numpy().astype(np.uint8), "L").convert("P")
    assert torch.equal(as_masks(palette), mask[None])
    stack = torch.rand(1, 3, 2, 2) > 0.5
    assert as_masks(stack) is stack


def test_pandas_is_named_where_it_is_missing(monkeypatch):
    pytest.importorskip("pandas")
    assert data_frame([{"a": 1, "b": None}, {"a": 2}]).shape == (2, 2)
    known = builtins.__import__

    def without(name, *rest, **more):
        if name == "pandas":
            raise ImportError(name)
        return known(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingError, match=r"needs pandas.*pip install pandas"):
        data_frame([])


@pytest.mark.parametrize(
    ("turned", "kind"),
    [
        (lambda images: images.to("meta"), "on 'meta'"),
        (lambda images: images.to_sparse(), "sparse"),
    ],
)
def test_tensors_without_a_number_in_every_place_are_refused(turned, kind):
    message = rf"the tensor is {kind}.*allowed are dense tensors"
    with pytest.raises(SettingError, match=message):
        as_images(turned(RAW), 3)
    with pytest.raises(SettingError, match=message):
        as_images([turned(RAW[0])], 3)
    with pytest.raises(SettingError, match=message):
        as_masks(turned(RAW[0].round()))
