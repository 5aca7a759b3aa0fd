"""Rows of a scorecard from the numbers of all images; `verdict_of` is the rule of all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from seglens.evaluate.intervals import Groups, Interval, interval, interval_of
from seglens.judge.case import Key, Outcome, Reason, ScoreValues
from seglens.judge.context import RELIANCE
from seglens.judge.definitions import CLAIM_IMAGES, COMPLETE, MIN_IMAGES
from seglens.judge.randomisation import REPEATS
from seglens.judge.scorecard import Judgement
from seglens.results.maps import MapSummary
from seglens.results.names import NULL, Verdict, count, map_name
from seglens.results.scorecard import faithfulness_of
from seglens.shapes import PerImage


def always_evaluable(known: Mapping[str, Interval]) -> Reason | None:
    """Return None: nothing makes rows of this score not evaluable."""
    return None


@dataclass(frozen=True)
class ScoreRule:
    """What makes a whole row not evaluable, and which reference rows can't be compared with.

    The centre blob is the same whatever happens: its stability is 1 by definition, and not a measurement.
    """

    guard: Callable[[Mapping[str, Interval]], Reason | None] = always_evaluable
    idle: tuple[str, ...] = ()


def verdict_of(difference: Interval) -> tuple[Verdict, Outcome, str]:
    """Judge a paired difference to the best reference row, and say why.

    ``pass`` where the lower 95 % bound is above 0, ``fail`` where the upper one is below 0, else ``warn``.
    A claim rests on `CLAIM_IMAGES` measured pictures: what a race decided on fewer is an indication.
    """
    if difference.independent < MIN_IMAGES:
        return "not evaluable", *_too_few(difference)
    what = "images" if difference.independent == difference.num else "groups of images"
    enough = difference.independent >= CLAIM_IMAGES
    few = "" if enough else f" (an indication: a claim needs {CLAIM_IMAGES} {what})"
    if difference.low > 0:
        return "pass", "better", f"better than the best reference map{few}"
    if difference.high < 0:
        return "fail", "worse", f"worse than the best reference map{few}"
    return "warn", "undecided", f"these pictures cannot tell it from the best reference map{few}"


def compared_rows(
    target: str, score: str, found: ScoreValues, *, groups: Groups | None = None, seed: int
) -> list[Judgement]:
    """Compare every map with the best reference row, and list the reference rows as well.

    A map and the reference rows are averaged over the images where all of them are evaluable (not NaN).
    Intervals resample ``groups`` of images. ``score`` may name the imputer behind a colon: these rows come
    without reference rows of their own.
    """
    name, _, variant = score.partition(":")
    rule = RULES.get(name, ScoreRule())
    within = partial(interval, groups=groups, seed=seed)
    about = {key: within(values) for key, values in found.about.items()}
    rows = []
    for key in found.values:
        compared = _in_race(key, found) if found.race else _with_best(key, found, rule, within)
        more = {part: within(each) for part, each in found.details.get(key, {}).items()}
        verdict, outcome, reason = verdict_of(compared.difference)
        if compared.when:
            reason = f"{reason}; {compared.when}"
        against = found.reasons.get(key) or rule.guard({**about, **more})
        if against is not None:
            verdict, outcome, reason = "not evaluable", *against
        rows.append(
            Judgement(
                target=target,
                method=key[0],
                layer=key[1],
                score=name,
                interval=within(compared.values),
                verdict=verdict,
                outcome=outcome,
                reason=f"{reason}; effects by {variant}" if variant else reason,
                num_total=compared.num,
                nulls=compared.nulls,
                reference=compared.reference if compared.difference.num else "",
                difference=compared.difference,
                details={**about, **more},
            )
        )
    if not variant:
        rows += [
            _reference(target, name, null, values, found.reference_details.get(null, {}), within)
            for null, values in found.references.items()
        ]
    return rows


@dataclass(frozen=True)
class Compared:
    """A map beside the reference rows: its values, their means, and the difference to the best of them."""

    values: PerImage
    num: int
    nulls: Mapping[str, float]
    reference: str
    difference: Interval
    when: str = ""


def _with_best(
    key: Key, found: ScoreValues, rule: ScoreRule, within: Callable[[PerImage], Interval]
) -> Compared:
    """Compare a map with the row of the best mean, on the images where all of them are evaluable."""
    values = found.values[key]
    shared = ~torch.stack([values, *found.references.values()]).isnan().any(0)
    means = {null: float(other[shared].mean()) for null, other in found.references.items()}
    best = max((null for null in means if null not in rule.idle), key=lambda null: means[null])
    apart = within((values - found.references[best]).masked_fill(~shared, torch.nan))
    return Compared(values.masked_fill(~shared, torch.nan), len(values), means, best, apart)


def _in_race(key: Key, found: ScoreValues) -> Compared:
    """Return what the race found of a map; its means are over the images that both rows were measured on."""
    race, values = found.race, found.values[key]
    assert race is not None
    ended = race.ended[map_name(*key)]
    means = {
        null: float(other[(values - other).isfinite()].mean()) for null, other in found.references.items()
    }
    when = f"decided after {ended.after} of {count(race.num, 'image')}" if ended.after < race.num else ""
    return Compared(values, ended.after, means, ended.reference.removeprefix(NULL), ended.difference, when)


def _reference(
    target: str,
    score: str,
    null: str,
    values: PerImage,
    details: Mapping[str, PerImage],
    within: Callable[[PerImage], Interval],
) -> Judgement:
    return Judgement(
        target=target,
        method=NULL + null,
        layer=None,
        score=score,
        interval=within(values),
        verdict="reference",
        outcome="reference",
        reason="made without looking into the model",
        num_total=len(values),
        nulls={},
        details={name: within(each) for name, each in details.items()},
    )


def attention_row(row: MapSummary) -> Judgement:
    """Turn the summary of a map into a judgement: a warning at best, see `localisation`."""
    level = "enrichment_log2"
    found = interval_of(row.statistics[level])
    verdict: Verdict = "warn"
    outcome: Outcome = "restates" if row.label else "where_not_why"
    reason = "this proves nothing: we asked about that same region"
    if row.label:
        reason = "it repeats the prediction: a coarse copy of the predicted mask does as well or looks alike"
    if found.independent < MIN_IMAGES:
        verdict, outcome, reason = "not evaluable", *_too_few(found)
    return Judgement(
        target=row.target,
        method=row.method,
        layer=row.layer,
        score="attention",
        interval=found,
        verdict=verdict,
        outcome=outcome,
        reason=reason,
        num_total=row.num_total or 0,
        nulls={name: mean for name, mean in row.of_nulls(level).items() if mean is not None},
        reference="mirror",
        difference=interval_of(row.difference_to_mirror),
        label=row.label,
        details={
            "ratio": interval_of(row.statistics["ratio"]),
            "ratio_of_mirror": interval_of(row.null_intervals["mirror"]["ratio"]),
            "mass_inside": interval_of(row.statistics["mass_inside"]),
            "resemblance_to_mirror": interval_of(row.resemblance_to_mirror),
        },
    )


def completeness_row(
    target: str,
    method: str,
    layer: str | None,
    error: PerImage,
    small_denominator: PerImage,
    *,
    groups: Groups | None = None,
    seed: int,
) -> Judgement:
    """Compare the relative error of completeness with `COMPLETE`; flagged images are left out and counted."""
    flagged = small_denominator > 0
    found = interval(error.masked_fill(flagged, torch.nan), groups=groups, seed=seed)
    out = f"{count(int(flagged.sum()), 'image')} left out, as the score hardly changes from the baseline"
    reasons = [out] if bool(flagged.any()) else []
    verdict: Verdict = "warn"
    outcome: Outcome = "undecided"
    if found.independent < MIN_IMAGES:
        verdict, (outcome, few) = "not evaluable", _too_few(found)
        reasons = [few, *reasons]
    elif found.high <= COMPLETE:
        verdict, outcome = "pass", "complete"
    elif found.low > COMPLETE:
        verdict, outcome = "fail", "incomplete"
    return Judgement(
        target=target,
        method=method,
        layer=layer,
        score="completeness",
        interval=found,
        verdict=verdict,
        outcome=outcome,
        reason="; ".join(reasons),
        num_total=len(error),
        nulls={},
        reference=f"a tolerance of {COMPLETE:g}",
    )


def needs_context(known: Mapping[str, Interval]) -> Reason | None:
    """Return the reason where the model hardly uses the context; None where it does."""
    reliance = known["context_reliance"]
    if reliance.num == 0:
        return Reason("no_other_pictures", "there are no other pictures to lay the target on")
    if reliance.mean < RELIANCE:
        carried = f"they carry {reliance.mean:z.3f} of its score, below {RELIANCE:g}"
        what = "the model hardly uses the surroundings, or uses what all these pictures share"
        return Reason("context_unused", f"{what}: {carried}")
    return None


def needs_agreement(known: Mapping[str, Interval]) -> Reason | None:
    """Return the reason where the two imputers disagree on the effects; None where they agree."""
    ceiling = known["ceiling"]
    if ceiling.num > 1 and ceiling.low <= 0:
        text = (
            f"two ways of removing cells disagree on which matter: their correlation is {ceiling.mean:z.2f}"
        )
        return Reason("imputers_disagree", text)
    return None


def needs_repeat(known: Mapping[str, Interval]) -> Reason | None:
    """Return the reason where the map is another one when it is made again; None where it is the same."""
    repeat = known.get("repeat")
    if repeat is not None and repeat.num and repeat.mean < REPEATS:
        text = f"the map changes when it is made again: correlation {repeat.mean:z.2f}, below {REPEATS:g}"
        return Reason("not_repeatable", text)
    return None


RULES: dict[str, ScoreRule] = {
    "context_faithfulness": ScoreRule(needs_context),
    "causal_agreement": ScoreRule(needs_agreement),
    "causal_agreement_context": ScoreRule(needs_agreement),
    "model_dependence": ScoreRule(needs_repeat),
    "stability": ScoreRule(idle=("centre",)),
}
"""Scores with guards of their own."""


def with_faithfulness(rows: list[Judgement]) -> list[Judgement]:
    """Add the verdict of the map's faithfulness to each row of stability."""
    known: dict[Key, Verdict] = {(row.method, row.layer): row.verdict for row in faithfulness_of(rows)}
    return [
        row.saying(f"read it with faithfulness ({known[row.method, row.layer]}): alone it proves nothing")
        if row.score == "stability" and row.verdict not in ("reference", "not evaluable")
        else row
        for row in rows
    ]


def _too_few(found: Interval) -> Reason:
    num = found.independent
    what = "image" if num == found.num else "group"
    of = f" ({found.num} images)" if num != found.num else ""
    return Reason(
        "too_few_images", f"only {count(num, what)}{of} can be evaluated, at least {MIN_IMAGES} are needed"
    )
