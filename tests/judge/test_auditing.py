"""Where the regions and groups of an audited folder come from."""

from pathlib import Path

import pytest
import torch
from PIL import Image as pil

from seglens.data.layout import Split
from seglens.data.sample import Task
from seglens.drawing import draw
from seglens.errors import DataError, SettingError, SizeMismatchError, UnknownNameError
from seglens.folder.auditing import check_regions, groups_of, regions_of
from seglens.folder.chunks import read_chunks, split_of
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.runs import Run


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two pictures of 16 x 32 pixels in folders of their own."""
    files = [tmp_path / "a" / "one.png", tmp_path / "b" / "two.png"]
    for file in files:
        file.parent.mkdir()
        draw.save_png(draw.picture(torch.full((3, 16, 32), 0.5)), file)
    return files


@pytest.fixture
def run() -> Run:
    spec = ModelSpec(architecture="wrapped", mean=(0.0,) * 3, std=(1.0,) * 3, image_size=32)
    return Run(Segmenter(torch.nn.Conv2d(3, 1, 1), spec), Task(classes=("background", "cell")))


@pytest.fixture
def split(run: Run, pictures: list[Path]) -> Split:
    return split_of(run, pictures)


def test_groups_by_folder_and_by_column(split: Split, tmp_path: Path) -> None:
    assert groups_of(split, None) is None
    assert groups_of(split, "folder") == {"one": "a", "two": "b"}
    table = tmp_path / "sites.csv"
    table.write_text("image,site\none.png,north\ntwo,south\n")
    assert groups_of(split, f"{table}:site") == {"one": "north", "two": "south"}
    with pytest.raises(SettingError, match=r"has no column 'place'. It has: image, site"):
        groups_of(split, f"{table}:place")
    table.write_text("image,site\none.png,north\n")
    with pytest.raises(DataError, match="has no row for 'two' in its column 'image'"):
        groups_of(split, f"{table}:site")
    with pytest.raises(SettingError, match="Groups 'site' are unknown"):
        groups_of(split, "site")
    table.write_text("image,site\none,north\ntwo,south\none,south\n")
    with pytest.raises(DataError, match="two rows for 'one', with 'north' and 'south' as site"):
        groups_of(split, f"{table}:site")
    table.write_text("image,site\none,GE\ntwo,ge\n")
    with pytest.raises(DataError, match=r"site has GE and ge\. Write what is one value in one way"):
        groups_of(split, f"{table}:site")
    with pytest.raises(DataError, match=r"There is no file nowhere.csv"):
        groups_of(split, "nowhere.csv:site")


def test_a_mask_file_is_of_the_size_of_every_picture(run: Run, split: Split, tmp_path: Path) -> None:
    half = torch.zeros(16, 32, dtype=torch.uint8)
    half[:, :16] = 1
    pil.fromarray(half.numpy()).save(tmp_path / "half.png")
    (tmp_path / "each").mkdir()
    pil.fromarray(half.numpy()).save(tmp_path / "each" / "two.png")
    names = [f"mask:{tmp_path / 'half.png'}", f"mask:{tmp_path / 'each'}", "corners"]
    (part,) = read_chunks(run, split, most=4, failed=[])
    found = regions_of(part, names)
    assert list(found) == names
    expected = part.batch.valid.clone()
    expected[:, :, 16:] = False
    assert torch.equal(found[names[0]], expected)
    assert found[names[1]].flatten(1).any(1).tolist() == [False, True]
    assert not (found["corners"] & ~part.batch.valid).any()
    pil.fromarray(half[::2, ::2].numpy()).save(tmp_path / "half.png")
    with pytest.raises(SizeMismatchError, match=r"half\.png is 16 x 8 pixels, the picture one 32 x 16"):
        regions_of(part, names)


def test_unknown_regions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown region 'boarder'"):
        check_regions(["boarder"])
    with pytest.raises(DataError, match=r"There is no .*none.png to audit"):
        check_regions([f"mask:{tmp_path / 'none.png'}"])
    with pytest.raises(DataError, match=r"holds no mask NAME.png"):
        check_regions([f"mask:{tmp_path}"])
    (tmp_path / "a.png").touch()
    check_regions(["border", f"mask:{tmp_path}"])
