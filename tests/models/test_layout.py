import pytest
import torch

from seglens.models.layout import MOST_PREFIX, FeatureLayout, readings


def kinds(shape, size):
    return [(one.kind, one.rows, one.columns, one.prefix) for one in readings(shape, size)]


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((2, 96, 16, 24), (64, 96), ("channels first", 16, 24, 0)),
        ((2, 16, 24, 96), (64, 96), ("channels last", 16, 24, 0)),
        ((2, 8, 13, 20), (50, 77), ("channels first", 13, 20, 0)),  # cells that were begun count
        ((2, 9, 12, 19), (50, 77), ("channels first", 12, 19, 0)),  # or they don't
        ((2, 8, 1, 1), (64, 96), ("channels first", 1, 1, 0)),
        ((2, 8, 60, 92), (64, 96), ("channels first", 60, 92, 0)),  # two convolutions without padding
        ((2, 196, 8), (224, 224), ("tokens", 14, 14, 0)),
        ((2, 197, 8), (224, 224), ("tokens", 14, 14, 1)),
        ((2, 201, 8), (224, 224), ("tokens", 14, 14, 5)),  # a class token and four registers
        ((2, 24, 8), (64, 96), ("tokens", 4, 6, 0)),
        ((2, 260, 8), (50, 77), ("tokens", 13, 20, 0)),
    ],
)
def test_one_reading(shape, size, expected):
    assert kinds(shape, size) == [expected]


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 8), (64, 64)),
        ((2, 8, 3, 3, 3), (64, 64)),
        ((2, 4, 49, 32), (64, 96)),  # windows
        ((2, 100, 8), (64, 64)),  # queries
        ((2, 16 + MOST_PREFIX + 1, 8), (64, 64)),
        ((2, 1, 8), (64, 64)),  # one cell is no map
    ],
)
def test_no_reading(shape, size):
    assert kinds(shape, size) == []


def test_several_readings():
    assert [kind for kind, *_ in kinds((1, 96, 96, 96), (384, 384))] == ["channels first", "channels last"]
    assert [prefix for *_, prefix in kinds((1, 9, 5), (96, 96))] == [0, 5]  # 3 x 3, or 2 x 2 after five


@pytest.mark.parametrize("layout", [
    FeatureLayout("channels first", 4, 6), FeatureLayout("channels last", 4, 6),
    FeatureLayout("tokens", 4, 6, 3),
])  # fmt: skip
def test_there_and_back(layout):
    """Every cell is where rows and columns put it; the prefix stays."""
    flow = torch.rand(
        {"channels first": (2, 5, 4, 6), "channels last": (2, 4, 6, 5), "tokens": (2, 27, 5)}[layout.kind]
    )
    maps = layout.to_map(flow)
    assert maps.shape == (2, 5, 4, 6)
    by_hand = {
        "channels first": lambda b, d, i, j: flow[b, d, i, j],
        "channels last": lambda b, d, i, j: flow[b, i, j, d],
        "tokens": lambda b, d, i, j: flow[b, 3 + i * 6 + j, d],
    }[layout.kind]
    for cell in ((0, 0, 0, 0), (1, 2, 3, 4), (1, 4, 1, 5)):
        assert maps[cell] == by_hand(*cell)
    assert torch.equal(layout.put_back(maps, flow), flow)
    doubled = layout.put_back(2 * maps, flow)
    assert torch.equal(layout.to_map(doubled), 2 * maps)
    if layout.kind == "tokens":
        assert torch.equal(doubled[:, :3], flow[:, :3])
