"""Subgroups: intervals and p-values against plain loops, Holm by hand, and leaks that were planted."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from tests import evaluated

import seglens
from seglens.data.layout import Grouped
from seglens.data.sample import Sample
from seglens.evaluate.intervals import RESAMPLES, difference, holm, numbered, separation
from seglens.evaluate.strata import strata_table
from seglens.evaluate.surroundings import cross_validated, leaks, surroundings
from seglens.results.scores import PictureScores


def draws(num):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(num, (RESAMPLES, num), generator=generator).tolist()


def test_a_difference_is_that_of_a_loop_over_groups():
    values = torch.tensor([0.1, 0.2, 0.9, nan, 0.8, 0.7, 0.3, 0.4, 0.95])
    inside = torch.tensor([True, True, False, True, False, False, True, False, False])
    names = ["a", "a", "b", "b", "b", "c", "c", "d", "e"]
    found, p_value = difference(values, inside, groups=numbered(names))
    known = [i for i in range(9) if not isnan(float(values[i]))]
    groups = list(dict.fromkeys(names[i] for i in known))
    gaps = []
    for drawn in draws(len(groups)):
        rows = [i for g in drawn for i in known if names[i] == groups[g]]
        sides = [[float(values[i]) for i in rows if bool(inside[i]) == side] for side in (True, False)]
        if all(sides):
            gaps.append(np.mean(sides[0]) - np.mean(sides[1]))
    assert found.mean == pytest.approx(0.2 - np.mean([0.9, 0.8, 0.7, 0.4, 0.95]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(gaps, (0.025, 0.975))))
    side = min(sum(gap <= 0 for gap in gaps), sum(gap >= 0 for gap in gaps))
    assert p_value == pytest.approx(min(1, 2 * (1 + side) / (1 + len(gaps))))
    assert (found.num, found.num_groups) == (3, 5)


def test_p_values_of_nothing_are_even():
    """Of sets without any difference a twentieth has a p-value below .05, about."""
    rng = np.random.default_rng(0)
    below = 0
    for _ in range(200):
        values = torch.from_numpy(rng.normal(size=60))
        below += difference(values, torch.from_numpy(rng.random(60) < 0.5))[1] < 0.05
    assert 3 <= below <= 22  # 99.9 % of a binomial of 200 and .05, a little wide for the bootstrap


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_separation_is_the_share_of_pairs_and_agrees_with_scipy():
    rng = np.random.default_rng(1)
    values, yes = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.4
    found = separation(torch.from_numpy(values), torch.from_numpy(yes))
    statistic = mannwhitneyu(values[yes], values[~yes]).statistic
    assert found.mean == pytest.approx(statistic / (yes.sum() * (~yes).sum()))
    areas = []
    for drawn in draws(40):
        up, down = ([values[i] for i in drawn if yes[i] == side] for side in (True, False))
        pairs = [(u > d) + 0.5 * (u == d) for u in up for d in down]
        areas.append(np.mean(pairs))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(areas, (0.025, 0.975))))


def rows_of(num, dice, group=lambda i: f"g{i}"):
    return [PictureScores(index=i, name=f"p{i}", group=group(i), dice=dice(i)) for i in range(num)]


def test_strata_are_listed_worst_first_with_differences_and_what_was_left_out():
    site = ["north", "south", "east"]
    rows = rows_of(60, lambda i: (0.9, 0.6, 0.91)[i % 3] + 0.001 * (i % 7))
    strata = [
        {"site": site[i % 3], "sex": "fm"[i // 3 % 2], "age": f"{20 + i}", "ward": "1", "stain": "ab"[i < 55]}
        for i in range(60)
    ]
    found = strata_table(rows, strata)
    assert [found.strata[0].value, found.strata[0].scores["dice"].mean] == [
        "south",
        pytest.approx(0.603, abs=1e-3),
    ]
    dice = [each.scores["dice"].mean or 0 for each in found.strata]
    assert dice == sorted(dice)
    # Three sites, one comparison of two sexes; five pictures of a stain are too few to compare.
    assert found.comparisons == 4
    assert {each.value for each in found.strata if each.differs} == {"north", "south", "east"}
    by_value = {each.value: each for each in found.strata}
    assert by_value["f"].p_adjusted == by_value["m"].p_adjusted
    assert by_value["a"].p_adjusted is None
    assert by_value["south"].difference.mean == pytest.approx(-0.305, abs=1e-2)
    assert set(found.left_out) == {"age", "ward"}
    assert "60 different values in 60 rows are too many" in found.left_out["age"]
    assert any("site south: Dice is 0.30" in text and "4 comparisons" in text for text in found.sentences)


def test_levels_that_are_one_value_in_two_spellings_make_no_strata():
    rows = rows_of(6, lambda _: 0.5)
    for spelt in (("GE", "ge"), ("GE  x", "GE x"), ("1", "01"), ("1.0", "1")):
        found = strata_table(
            rows, [{"scanner": spelt[place % 2], "site": "AB"[place % 2]} for place in range(6)]
        )
        assert {each.column for each in found.strata} == {"site"}
        assert found.left_out["scanner"] == f"{' and '.join(spelt)} look like one value; write it in one way."


def test_a_stratum_of_few_patients_is_not_compared():
    rows = rows_of(60, lambda i: 0.5 + 0.4 * (i % 2), group=lambda i: f"patient-{i % 4}")
    found = strata_table(rows, [{"site": "ab"[i % 2]} for i in range(60)])
    assert (found.comparisons, {each.num_groups for each in found.strata}) == (0, {2})


def picture(rng, frame=0.0, size=24):
    image = 0.5 + 0.1 * torch.from_numpy(rng.normal(size=(1, size, size))).float()
    edge = torch.ones(size, size, dtype=torch.bool)
    edge[2:-2, 2:-2] = False
    image[:, edge] += frame
    mask = torch.zeros(size, size, dtype=torch.int64)
    mask[8:14, 8:14] = 1
    return Sample("one", image, mask, torch.ones(size, size, dtype=torch.bool))


def test_surroundings_are_what_lies_around():
    rng = np.random.default_rng(0)
    one = picture(rng, frame=0.25)
    found = surroundings(one)
    values = one.image[0].numpy().astype(np.float64)
    inside = np.zeros((24, 24), bool)
    inside[2:-2, 2:-2] = True  # a border of 24 / 16 pixels, rounded
    assert found["border"][0] == pytest.approx(values[~inside].mean())
    near = np.zeros((24, 24), bool)
    for i in range(24):
        for j in range(24):
            # Three steps to a neighbour by edge from the object of rows and columns 8 to 13.
            away = max(8 - i, i - 13, 0) + max(8 - j, j - 13, 0)
            near[i, j] = away <= 3
    assert found["background"][0] == pytest.approx(values[inside & ~near].mean())
    # What is marked changes neither.
    changed = replace(one, image=torch.where(one.mask > 0, 0.0, one.image))
    again = surroundings(changed)
    for place in ("border", "background"):
        assert found[place][:7] == pytest.approx(again[place][:7])


def test_ridge_scores_are_those_of_a_fit_without_the_fold():
    rng = np.random.default_rng(2)
    x, y, folds = (
        torch.from_numpy(rng.normal(size=(20, 3))),
        torch.from_numpy(rng.normal(size=20)),
        [0, 1] * 10,
    )
    scores = cross_validated(x, folds).scores(y[:, None])[:, 0]
    for fold in (0, 1):
        train, held = ([i for i in range(20) if (folds[i] == fold) == side] for side in (False, True))
        mean, std = x[train].mean(0), x[train].std(0, correction=0)
        a = ((x[train] - mean) / std).numpy()
        # The minimum of |y - a w|^2 + |w|^2, as least squares with rows of the identity below.
        stacked = np.vstack([a, np.eye(3)])
        target = np.concatenate([y[train].numpy() - y[train].numpy().mean(), np.zeros(3)])
        w = np.linalg.lstsq(stacked, target, rcond=None)[0]
        assert scores[held].numpy() == pytest.approx(((x[held] - mean) / std).numpy() @ w)


def test_a_planted_frame_tells_and_nothing_does_not():
    """Frames of one scanner are a little brighter; the other column is drawn at random."""
    rng = np.random.default_rng(3)
    scanner, sex = ["AB"[i % 2] for i in range(60)], ["fm"[j] for j in rng.integers(0, 2, 60)]
    features = [surroundings(picture(rng, frame=0.08 * (name == "B"))) for name in scanner]
    found = leaks(features, {"scanner": scanner, "sex": sex}, torch.arange(60))
    table = {(leak.column, leak.place): leak for leak in found}
    assert table["scanner", "border"].tells
    assert (table["scanner", "border"].auroc.mean or 0) > 0.9
    assert not any(leak.tells for leak in found if leak is not table["scanner", "border"])
    assert all(0.3 < (leak.auroc.mean or 0) < 0.7 for leak in found if leak.column == "sex")


def test_pictures_of_one_patient_are_one_piece_of_evidence():
    """Every patient has a frame of his own, and the two brightest of six were at B: that may be chance."""
    rng = np.random.default_rng(4)
    frames = np.sort(rng.normal(scale=0.1, size=6))[::-1]
    patient = [i // 12 for i in range(72)]
    features = [surroundings(picture(rng, frame=float(frames[p]))) for p in patient]
    scanner = ["B" if p < 2 else "A" for p in patient]
    honest = leaks(features, {"scanner": scanner}, numbered(patient))
    assert not any(leak.tells for leak in honest)
    blind = leaks(features, {"scanner": scanner}, torch.arange(72))
    assert any(leak.tells for leak in blind)


def test_an_evaluation_has_the_strata_of_its_pictures(tmp_path):
    """Predictions of site b are half wrong."""
    samples = [
        evaluated.sample(f"s{i}", evaluated.HALF if i % 2 else evaluated.TRUTH, evaluated.TRUTH)
        for i in range(20)
    ]
    split = evaluated.split_of(*samples)
    entries = tuple(
        replace(entry, strata=(("site", "ab"[i % 2]),), group=f"g{i}")
        for i, entry in enumerate(split.entries)
    )
    split = replace(split, entries=entries, grouped=Grouped("table", "groups.csv"))
    found = seglens.evaluate(evaluated.bright_run(), split, out=tmp_path / "scores")
    assert [(each.value, each.scores["dice"].mean) for each in found.strata.strata] == [
        ("b", pytest.approx(0.5)),
        ("a", 1.0),
    ]
    assert found.strata.strata[0].differs
    assert {leak.place for leak in found.strata.leaks} == {"border", "background"}
    assert seglens.evaluate(evaluated.bright_run(), evaluated.split_of(*samples)).strata.strata == ()
