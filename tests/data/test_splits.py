from itertools import chain

import numpy as np
import pytest
from PIL import Image

from seglens.data.splits import SHARES, near_duplicates, split_pictures


def scene(seed: int) -> np.ndarray:
    """A smooth random picture of 48 x 60, unlike that of any other seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((60, 48), Image.Resampling.BICUBIC))


def write(folder, pictures):
    files = []
    for index, pixels in enumerate(pictures):
        files.append(folder / f"{index:03d}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def test_the_same_scene_is_found_in_any_guise(tmp_path):
    base = scene(0)
    darker = (base * 0.5 + 20).astype(np.uint8)
    noisy = np.clip(base + np.random.default_rng(1).normal(0, 6, base.shape), 0, 255).astype(np.uint8)
    larger = np.asarray(Image.fromarray(base).resize((120, 96)))
    guises = [base, darker, noisy, larger, base[:, ::-1], base[::-1], base[::-1, ::-1]]
    files = write(tmp_path, [np.ascontiguousarray(pixels) for pixels in [*guises, scene(2), scene(3)]])
    Image.fromarray(base).save(tmp_path / "base.jpg", quality=60)
    groups = near_duplicates([*files, tmp_path / "base.jpg"])
    assert sorted(groups) == [[0, 1, 2, 3, 4, 5, 6, 9], [7], [8]]


def test_different_plain_and_broken_pictures_stay_alone(tmp_path):
    plain = [np.full((20, 20), value, np.uint8) for value in (0, 0, 200)]
    files = write(tmp_path, [scene(seed) for seed in range(20)] + plain)
    (tmp_path / "broken.png").write_bytes(b"broken")
    files += [tmp_path / "broken.png", tmp_path / "missing.png"]
    assert near_duplicates(files) == [[index] for index in range(len(files))]


def test_pictures_that_all_look_alike_are_no_single_group(tmp_path):
    """A blob on even ground, each a little elsewhere: thumbnails correlate, yet no two are the same."""
    rows, columns = np.mgrid[:64, :64]
    blobs = []
    for seed in range(40):
        y, x, width = np.random.default_rng(seed).normal((32, 32, 14), (2.5, 2.5, 1.5))
        blobs.append((230 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2 / width**2)).astype(np.uint8))
    assert max(len(group) for group in near_duplicates(write(tmp_path, blobs))) <= 8


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_stay_together_and_shares_are_held(tmp_path, seed):
    pictures = [scene(index // 3) for index in range(90)]  # thirty scenes, three times each
    files = write(tmp_path, pictures)
    dealt = split_pictures(files, [""] * 90, SHARES, seed)
    assert sorted(chain(*dealt.values())) == list(range(90))
    for positions in dealt.values():
        scenes = {position // 3 for position in positions}
        assert positions == sorted(3 * index + copy for index in scenes for copy in range(3))
    assert [len(dealt[name]) for name in ("train", "valid", "test")] == pytest.approx([63, 13.5, 13.5], abs=3)


def test_every_kind_gets_its_share_and_the_seed_decides(tmp_path):
    files = write(tmp_path, [scene(index) for index in range(100)])
    kinds = ["rare" if index < 20 else "common" for index in range(100)]
    dealt = split_pictures(files, kinds, SHARES, 0)
    rare = {name: sum(position < 20 for position in positions) for name, positions in dealt.items()}
    assert rare == {"train": 14, "valid": 3, "test": 3}
    assert dealt == split_pictures(files, kinds, SHARES, 0)
    assert dealt != split_pictures(files, kinds, SHARES, 1)


@pytest.mark.parametrize("num", [0, 1, 2, 3, 4, 5, 9])
def test_no_split_is_empty_where_it_need_not_be(tmp_path, num):
    dealt = split_pictures(write(tmp_path, [scene(index) for index in range(num)]), [""] * num, SHARES, 0)
    filled = [name for name in SHARES if dealt[name]]
    assert len(filled) == min(num, 3)
    assert filled[:1] == ["train"][:num]
