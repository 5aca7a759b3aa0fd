from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglens.data.layout import DataSettings
from seglens.drawing.gallery import show_data
from seglens.errors import DataError, OutputExistsError, SettingError, UnknownNameError
from seglens.models.segmenter import ModelSpec


@pytest.fixture
def data(tmp_path: Path) -> DataSettings:
    """Twelve red pictures of two sizes, half of each covered by the object."""
    for part in ("images", "masks"):
        (tmp_path / "set" / part).mkdir(parents=True)
    shades = np.random.default_rng(0).integers(0, 90, (12, 60, 60), dtype=np.uint8)
    for i in range(12):
        size = (40, 60) if i % 2 else (60, 40)
        image = np.zeros((*size, 3), np.uint8)
        image[..., 0] = 160 + shades[i, : size[0], : size[1]]
        mask = np.zeros(size, np.uint8)
        mask[:, : size[1] // 2] = 1
        Image.fromarray(image).save(tmp_path / "set" / "images" / f"{i:02d}.png")
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{i:02d}.png")
    return DataSettings(path=tmp_path / "set")


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def test_sheet_has_a_row_for_each_sample_and_a_column_for_each_view(data: DataSettings, tmp_path: Path):
    shapes = {}
    for num, augmented in ((1, 0), (2, 0), (1, 2)):
        file = tmp_path / f"{num}-{augmented}.png"
        assert show_data(data, file, num_images=num, augmented=augmented, image_size=64) == file
        shapes[num, augmented] = pixels_of(file).shape
    tile = shapes[2, 0][0] - shapes[1, 0][0]
    assert tile > 224
    assert (shapes[1, 2][1] - shapes[1, 0][1]) == 2 * (224 + 10)


def test_pictures_are_letterboxed_and_the_mask_is_on_them(data: DataSettings, tmp_path: Path):
    values = pixels_of(show_data(data, tmp_path / "a.png", num_images=1, augmented=0, image_size=64))
    red = (values[..., 0] > 140) & (values[..., 1] < 40) & (values[..., 2] < 40)
    orange = (values[..., 0] > 150) & (values[..., 1] > 50) & (values[..., 1] < 120) & (values[..., 2] < 40)
    # Two thirds of the square are picture; half of it is object, on the second tile only.
    assert red.sum() == pytest.approx(1.5 * 224**2 * 2 / 3, rel=0.05)
    assert orange.sum() == pytest.approx(0.5 * 224**2 * 2 / 3, rel=0.1)


def test_a_model_of_patches_is_shown_the_patch_that_holds_the_most_of_the_mask(
    data: DataSettings, tmp_path: Path
):
    """The object fills 60 x 20 pixels of 60 x 40: a patch of 16 lies within it."""
    spec = ModelSpec(architecture="unet", image_size=16, scale=1.0, patches=True)
    values = pixels_of(show_data(data, tmp_path / "a.png", num_images=1, augmented=0, spec=spec))
    red = (values[..., 0] > 140) & (values[..., 1] < 40) & (values[..., 2] < 40)
    orange = (values[..., 0] > 150) & (values[..., 1] > 50) & (values[..., 1] < 120) & (values[..., 2] < 40)
    assert red.sum() == pytest.approx(224**2, rel=0.05)
    assert orange.sum() == pytest.approx(224**2, rel=0.1)
    with pytest.raises(SettingError, match=r"The model is for volumes, and .* holds pictures"):
        show_data(data, tmp_path / "b.png", spec=spec.model_copy(update={"dims": 3}))


def test_same_seed_same_sheet(data: DataSettings, tmp_path: Path):
    files = [
        show_data(data, tmp_path / f"{i}.png", num_images=2, image_size=64, seed=seed)
        for i, seed in enumerate((1, 1, 2))
    ]
    pages = [pixels_of(file) for file in files]
    assert (pages[0] == pages[1]).all()
    assert (pages[0] != pages[2]).any()


def test_a_broken_picture_leaves_its_place(data: DataSettings, tmp_path: Path):
    for file in sorted((data.path / "images").iterdir())[:6]:
        file.write_bytes(file.read_bytes()[:90])
    show_data(data, tmp_path / "a.png", split="all", num_images=12, image_size=64)
    for file in (data.path / "images").iterdir():
        file.write_bytes(file.read_bytes()[:90])
    with pytest.raises(DataError, match="None of 12 samples could be read"):
        show_data(data, tmp_path / "b.png", split="all", num_images=12, image_size=64)
    assert not (tmp_path / "b.png").exists()


def test_errors(data: DataSettings, tmp_path: Path):
    with pytest.raises(SettingError, match="num_images is 0, but must be from 1"):
        show_data(data, tmp_path / "a.png", num_images=0)
    with pytest.raises(UnknownNameError, match=r"Unknown split 'trian'. Did you mean 'train'"):
        show_data(data, tmp_path / "a.png", split="trian")
    with pytest.raises(DataError, match="does not exist"):
        show_data(DataSettings(path=tmp_path / "nowhere"), tmp_path / "a.png")
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(OutputExistsError, match="no page or picture that Seglens made"):
        show_data(data, tmp_path / "a.png", image_size=64, force=True)
    assert (tmp_path / "a.png").read_text() == "mine"
    show_data(data, tmp_path / "b.png", image_size=64)
    with pytest.raises(OutputExistsError, match="replace it with --force"):
        show_data(data, tmp_path / "b.png", image_size=64)
    show_data(data, tmp_path / "b.png", image_size=64, force=True)


def test_a_16_bit_picture_is_drawn_in_the_window_that_is_found_or_given(tmp_path: Path):
    for part in ("images", "masks"):
        (tmp_path / "set" / part).mkdir(parents=True)
    values = np.linspace(0, 1000, 64 * 64).reshape(64, 64).astype(np.uint16)  # almost black out of 65535
    Image.fromarray(values).save(tmp_path / "set/images/a.png")
    Image.fromarray((values > 500).astype(np.uint8)).save(tmp_path / "set/masks/a.png")
    data = DataSettings(path=tmp_path / "set")
    found = pixels_of(
        show_data(data, tmp_path / "a.png", split="all", num_images=1, augmented=0, image_size=64)
    )
    given = pixels_of(
        show_data(
            data,
            tmp_path / "b.png",
            split="all",
            num_images=1,
            augmented=0,
            spec=ModelSpec(architecture="unet", image_size=64, window=(0.0, 500 / 65535)),
        )
    )
    first = (slice(60, 250), slice(20, 220))  # inside of the tile of the picture itself
    assert found[first].max() > 200
    assert found[first].min() < 40
    assert (given[first] > 250).mean() == pytest.approx(0.5, abs=0.1)  # half of it is above the window
