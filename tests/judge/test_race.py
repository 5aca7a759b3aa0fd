"""The race of maps: its intervals against scipy, its error as it adds up, and who leaves when."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from benchmarks.race import KINDS, drawn, in_full, raced
from scipy import stats

from seglens.evaluate.intervals import interval
from seglens.judge.faithfulness import some_of
from seglens.judge.race import (
    ERROR,
    FIRST,
    Race,
    finished,
    go_on,
    levels,
    look,
    looks_of,
    moments,
    steps_made,
)

NUM = 40


def values(seed: int, mean: float, wide: float = 0.2) -> torch.Tensor:
    return mean + wide * torch.randn(NUM, generator=torch.Generator().manual_seed(seed))


def table() -> dict[str, torch.Tensor]:
    common = values(0, 0.0)
    means = {"good": 1.2, "bad": 0.2, "even": 0.801, "best": 0.8, "second": 0.78, "worst": 0.0}
    found = {name: common + values(place, mean, 0.1) for place, (name, mean) in enumerate(means.items(), 1)}
    found["even"] = found["best"] + values(9, 0.0, 0.05) - values(9, 0.0, 0.05).mean()
    return found


def start() -> Race:
    return Race(NUM, ("good", "bad", "even"), ("best", "second", "worst"))


def race_on(found: dict[str, torch.Tensor], *sizes: int) -> tuple[Race, dict[str, int]]:
    """Race over batches of these sizes; return how often each row was measured."""
    race, measured = start(), dict.fromkeys(found, 0)
    known = {name: torch.empty(0) for name in found}
    for size in sizes:
        first = race.seen

        def measure(race: Race, rows: torch.Tensor, first: int = first) -> dict[str, torch.Tensor]:
            for name in race.running:
                measured[name] += len(rows)
            return {name: found[name][rows + first] for name in race.running}

        race, more = go_on(race, torch.arange(size), measure, known)
        known = {name: torch.cat([known[name], more[name]]) for name in known}
    return finished(race, known), measured


def test_an_interval_is_student_s() -> None:
    numbers = values(0, 0.3)
    numbers[3] = torch.nan
    found = moments(numbers).interval(0.01, 0.04)
    known = numbers[numbers.isfinite()].double().numpy()
    for level, end in ((0.01, found.low), (0.96, found.high)):
        expected = stats.t.ppf(level, len(known) - 1, loc=known.mean(), scale=stats.sem(known))
        assert end == pytest.approx(expected, rel=1e-6)
    assert found.num == NUM - 1


def test_of_groups_of_one_size_the_interval_is_that_of_their_means() -> None:
    numbers, groups = values(0, 0.3), torch.arange(NUM) // 4
    found = moments(numbers, groups)
    means = numbers.double().view(-1, 4).mean(1).numpy()
    assert found.independent == NUM // 4
    assert found.mean == pytest.approx(means.mean())
    assert found.error == pytest.approx(stats.sem(means), rel=1e-6)


@pytest.mark.parametrize("num", [3, 8, 10, 11, 16, 32, 100, 1000])
def test_looks_spend_the_whole_error_and_no_more(num: int) -> None:
    looks = looks_of(num)
    assert looks[-1] == num
    assert list(looks) == sorted(set(looks))
    assert all(one >= FIRST for one in looks[:-1])
    shares = [0.0, *(one / num for one in looks)]
    spent = [levels(before, share) for before, share in pairwise(shares)]
    assert [sum(each) for each in zip(*spent, strict=True)] == pytest.approx([ERROR, ERROR])


def test_rows_leave_when_they_are_decided_and_are_measured_no_more() -> None:
    race, measured = race_on(table(), NUM)
    assert {name: found.end for name, found in race.ended.items()} == {
        "good": "above",
        "bad": "below",
        "even": "undecided",
    }
    assert {found.reference for found in race.ended.values()} <= {"best", "second"}
    assert measured["good"] == measured["bad"] == measured["worst"] == FIRST
    assert measured["best"] == max(measured.values()) == race.ended["even"].after


def test_a_race_doesn_t_depend_on_how_pictures_come_in_batches() -> None:
    assert race_on(table(), NUM) == race_on(table(), 5, 16, 3, 16)


def test_where_fewer_pictures_came_than_planned_the_last_look_is_at_the_last() -> None:
    race, _ = race_on(table(), 30)
    assert not race.maps
    assert {found.end for found in race.ended.values()} == {"above", "below", "undecided"}


def test_a_map_that_is_empty_everywhere_doesn_t_keep_the_others_running() -> None:
    found = table()
    found["even"] = torch.full((NUM,), torch.nan)
    race, measured = race_on(found, NUM)
    assert (race.ended["even"].end, race.ended["even"].after) == ("undecided", FIRST)
    assert measured["best"] == FIRST


def test_too_few_groups_decide_nothing() -> None:
    few = {name: each[:16] for name, each in table().items()}
    race = look(replace(start(), num=16, seen=16), few, groups=torch.arange(16) // 4)
    assert {found.end for found in race.ended.values()} == {"undecided"}


@pytest.mark.parametrize("allowed", [6, 5, 1])
@pytest.mark.parametrize("thinned", [6, 3])
def test_all_steps_are_made_equally_often(allowed: int, thinned: int) -> None:
    """So the mean over some of the steps has the expectation of the mean over all."""
    places = torch.arange(6 * 5 * 4)
    steps = (torch.arange(6) < allowed).expand(len(places), 2, 6)
    wanted = some_of(steps, places, thinned)
    each = -(-allowed // thinned)
    assert (wanted.sum(2) == each).all()
    assert wanted.sum(0)[:, :allowed].unique().tolist() == [len(places) * each / allowed]
    assert not wanted[:, :, allowed:].any()
    if allowed == 6:
        assert steps_made(len(places), 6) == 8 * 1 + (len(places) - 8) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_maps_that_are_no_better_hardly_ever_pass(kind: str) -> None:
    """40 tables a kind: where one passes with a chance of 2.5 %, more than 3 do with one of 2 %."""
    generator = torch.Generator().manual_seed(1)
    tables = [drawn(kind, 32, 0.0, generator) for _ in range(40)]
    ends, made = zip(*map(raced, tables), strict=True)
    assert ends.count("above") <= 3
    whole = 40 * 32 * 12 * len(tables[0].values)
    # The first look of groups of three has too few of them to decide anything.
    assert sum(made) * (3 if kind == "groups" else 4) < whole
    assert in_full(tables[0]) in ("above", "below", "undecided")


def test_clear_differences_are_found_as_in_full() -> None:
    generator = torch.Generator().manual_seed(2)
    for gap, end in ((1.0, "above"), (-0.6, "below")):
        of = drawn("one", 32, gap, generator)
        assert raced(of)[0] == in_full(of) == end


def test_the_interval_of_a_look_holds_that_of_the_bootstrap() -> None:
    apart = values(3, 0.1)
    own, plain = moments(apart).interval(*levels(0.5, 1.0)), interval(apart)
    assert own.low < plain.low < plain.high < own.high
