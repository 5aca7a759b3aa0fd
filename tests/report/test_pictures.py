import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglens.report import cards, pictures
from seglens.report.cards import GalleryCard
from seglens.results.maps import OneMap
from seglens.results.scores import PictureScores


def noise(file: Path, seed: int, side: int = 300) -> Path:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(values).save(file)
    return file


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_pictures_keep_their_shape_and_are_never_enlarged(tmp_path: Path):
    Image.new("RGB", (1000, 500)).save(tmp_path / "wide.png")
    Image.new("L", (20, 30)).save(tmp_path / "small.png")
    found = pictures.embed([tmp_path / "wide.png", tmp_path / "small.png"])
    assert [opened(address).size for address in found.values()] == [(384, 192), (20, 30)]


def test_embed_keeps_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = [noise(tmp_path / f"{seed}.png", seed) for seed in range(6)]
    monkeypatch.setattr(pictures, "BUDGET", 100_000)
    found = pictures.embed(files)
    assert len(found) == 6
    assert sum(len(base64.b64decode(address.partition(",")[2])) for address in found.values()) <= 100_000
    assert opened(next(iter(found.values()))).width in pictures.SIDES


def test_what_cannot_be_read_is_left_out(tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    assert pictures.embed([tmp_path / "bad.png", tmp_path / "missing.png"]) == {}


def card(name: str, dice: float | None, *, explained: bool = False) -> GalleryCard:
    heatmaps = (cards.Heat("predicted", OneMap(method="grad-cam"), None),) if explained else ()
    return GalleryCard("run", "test", name, "ok", "", PictureScores(name=name, dice=dice), {}, heatmaps)


def test_choose_keeps_the_explained_the_worst_and_a_spread():
    many = [card(f"{i:03d}", i / 100) for i in range(100)]
    many[90] = card("090", 0.9, explained=True)
    kept = [one.name for one in cards.choose_cards(many, 10)]
    assert len(set(kept)) == 10
    assert kept[:5] == ["090", "000", "001", "002", "003"]
    assert max(kept[5:]) > "075"
    assert cards.choose_cards(many[:5], 10) == many[:5]
