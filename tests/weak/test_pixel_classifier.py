"""The head: its fit against another optimizer, and what self-training brings on a known case."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from tests.weak.scenes import red_score, red_square

from seglens.errors import DataError, SettingError
from seglens.weak.pixel_classifier import (
    TrainingSample,
    _fit,
    cells,
    fit_head,
    load_head,
    pixel_probability,
    save_head,
    training_sample,
)
from seglens.weak.settings import SpreadSettings
from seglens.weak.threshold import Cut

CUT = Cut(0.2, 0.4, 0.6)
SETTINGS = SpreadSettings(layers=("body",), scales=(64,), stride=4, weight=0.0)


def test_the_fit_minimises_the_weighted_and_penalised_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(300, 4, generator=generator)
    there = known[:, 0] + 0.8 * torch.randn(300, generator=generator) > 0.7
    absent = ~there
    absent[:40] = False
    taught = there | absent
    found = _fit(known, there, absent, 0.01, torch.zeros(5), 200)
    points, sign = known[taught].double().numpy(), np.where(there[taught], 1.0, -1.0)
    share = np.where(there[taught], 0.5 / float(there.sum()), 0.5 / float(absent.sum()))

    def loss(free: np.ndarray) -> float:
        entropy = np.logaddexp(0, -sign * (points @ free[:4] + free[4]))
        return float((share * entropy).sum() + 0.01 * (free[:4] ** 2).sum())

    theirs = minimize(loss, np.zeros(5), tol=1e-10).x
    np.testing.assert_allclose(found.numpy(), theirs, atol=2e-3)


def taught_by_a_part(number: int) -> tuple[TrainingSample, torch.Tensor]:
    """Heat covers a quarter of the object; features tell object from none, with noise."""
    generator = torch.Generator().manual_seed(number)
    there = torch.zeros(16, 16, dtype=torch.bool)
    there[4:12, 4:12] = True
    heat = torch.full((16, 16), 0.3)
    heat[4:8, 4:8] = 0.9
    heat[0:3] = 0.0
    given = torch.randn(1, 6, 16, 16, generator=generator)
    given[:, 0] += 3.0 * there
    given[:, 1] -= 3.0 * there
    return TrainingSample(given, heat, torch.rand(3, 16, 16, generator=generator)), there


def test_the_head_finds_what_the_heat_left_out() -> None:
    head = fit_head(lambda number: taught_by_a_part(number)[0], 4, SETTINGS, CUT, seed=0)
    for number in range(4, 6):
        given, there = taught_by_a_part(number)
        found = head.logits(given.features[0].flatten(1).T).view(16, 16) > 0
        assert float((found & there).sum() / (found | there).sum()) > 0.9
        assert float(((given.heat > 0.4) & there).sum() / there.sum()) == 0.25


def test_rounds_end_when_labels_settle() -> None:
    read = lambda number: taught_by_a_part(number)[0]  # noqa: E731
    head = fit_head(read, 4, SETTINGS, CUT, seed=0)
    assert len(head.history) < SETTINGS.rounds
    assert head.history[-1][1] < SETTINGS.settled
    again = fit_head(read, 4, SETTINGS, CUT, seed=0)
    assert torch.equal(again.weight, head.weight)


def test_neighbours_that_look_alike_settle_alike() -> None:
    from dataclasses import replace

    def read(number: int) -> TrainingSample:
        given, there = taught_by_a_part(number)
        noise = 1.5 * torch.randn(given.features.shape, generator=torch.Generator().manual_seed(number + 50))
        return TrainingSample(given.features + noise, given.heat, there.float().expand(3, -1, -1).clone())

    def right(weight: float) -> float:
        settings = replace(SETTINGS, weight=weight, distance=0.3, settled=0.0, rounds=4)
        head = fit_head(read, 6, settings, CUT, seed=0)
        truth = taught_by_a_part(0)[1]
        cells = [head.logits(read(number).features[0].flatten(1).T).view(16, 16) > 0 for number in range(6)]
        return sum(float(((found > 0) == truth).double().mean()) for found in cells) / 6

    assert right(2.0) >= right(0.0)


def test_from_a_picture_to_its_map_and_back_from_disk(tmp_path) -> None:
    pairs = [red_square(seed=number) for number in range(3)]

    def read(number: int) -> TrainingSample:
        image, there = pairs[number]
        return training_sample(red_score(), image, there.float(), SETTINGS)

    head = fit_head(read, 3, SETTINGS, CUT, seed=0)
    save_head(head, tmp_path / "head.npz")
    loaded = load_head(tmp_path / "head.npz", torch.device("cpu"))
    assert loaded.history == head.history
    image, there = red_square((64, 48), seed=7)
    found = pixel_probability(red_score(), image, loaded, SETTINGS, 64)
    assert found.shape == there.shape
    assert float(((found >= 0.5) == there).double().mean()) > 0.93
    (tmp_path / "head.npz").write_bytes(b"")
    with pytest.raises(DataError, match="holds no pixel classifier"):
        load_head(tmp_path / "head.npz", torch.device("cpu"))


def test_features_of_a_finer_layer_are_averaged_over_cells() -> None:
    image, _ = red_square((32, 64))
    found = cells(red_score(), image, SETTINGS)
    assert found.shape == (1, 2, 8, 16)
    expected = torch.nn.functional.avg_pool2d(image[None, [0, 2]], 4) - torch.tensor([0.5, 0.0]).view(
        1, 2, 1, 1
    )
    torch.testing.assert_close(found, expected)


def test_what_is_refused() -> None:
    def cold(number: int) -> TrainingSample:
        given, _ = taught_by_a_part(number)
        return TrainingSample(given.features, given.heat * 0, given.image)

    with pytest.raises(DataError, match="In round 1 it has 0 and 512 of 512"):
        fit_head(cold, 2, SETTINGS, CUT, seed=0)
    with pytest.raises(SettingError, match=r"SpreadSettings\.sure is 0\.4, but must be from 0\.5"):
        fit_head(cold, 2, SpreadSettings(sure=0.4), CUT, seed=0)
    with pytest.raises(SettingError, match="Name at least one layer and one scale"):
        fit_head(cold, 2, SpreadSettings(layers=()), CUT, seed=0)
    with pytest.raises(SettingError, match=r"weight is -1\.0"):
        fit_head(cold, 2, SpreadSettings(weight=-1.0), CUT, seed=0)
