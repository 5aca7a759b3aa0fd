"""The numbers that a scorecard is made of: one per image, map and score. Batches of them can be joined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seglens.errors import SettingError
from seglens.evaluate.intervals import numbered
from seglens.explain import explain
from seglens.explain.cams import CAMS
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target, for_head
from seglens.judge import case as cases
from seglens.judge.case import SCORES, Explainer, JudgedBatch, JudgeSettings, Key, ScoreValues
from seglens.judge.cells import PARTITIONS
from seglens.judge.context import context_faithfulness, faithfulness, target_faithfulness
from seglens.judge.effects import causal_agreement
from seglens.judge.faithfulness import FRACTIONS, TARGET_FRACTIONS, Curves
from seglens.judge.localisation import Attention, attention, join_attention, summarise
from seglens.judge.nulls import content_free, null_inputs, randomised
from seglens.judge.race import finished
from seglens.judge.randomisation import model_dependence
from seglens.judge.rerun import recipes
from seglens.judge.scorecard import Judgement, Scorecard
from seglens.judge.stability import stability
from seglens.judge.verdicts import attention_row, compared_rows, completeness_row, with_faithfulness
from seglens.results.names import count, map_name
from seglens.results.scorecard import Figures, RemovalCurves
from seglens.runs import Run
from seglens.shapes import Images, PerImage, Regions

REMOVING = {
    "faithfulness": faithfulness,
    "target_faithfulness": target_faithfulness,
    "context_faithfulness": context_faithfulness,
}
"""Scores that remove what a map ranks."""


@dataclass(frozen=True)
class BatchScores:
    """The numbers of one batch of images, on the CPU; NaN where an image is not evaluable.

    ``measured`` are the scores that are compared with reference rows, by name; the costly ones hold the first
    images only. ``curves`` are those of the removal scores, by score and map, and ``drawn`` what else there
    is to draw. ``scores`` are those that were asked for. In ``num_empty`` images nothing is of the target.
    """

    target: str
    scores: tuple[str, ...]
    num_images: int
    measured: dict[str, ScoreValues]
    attention: dict[Key, Attention]
    completeness: dict[Key, tuple[PerImage, PerImage]]
    curves: dict[str, dict[str, Curves]]
    drawn: Figures
    num_empty: int = 0
    dims: int = 2

    @property
    def racing(self) -> dict[str, float]:
        """Which share of the maps and reference rows the next images are measured for, by score that races.

        Where all maps are decided that is none.
        """
        return {
            name: len(found.race.running) / len(found.named) if found.race.maps else 0.0
            for name, found in self.measured.items()
            if found.race is not None
        }


def score_batch(
    run: Run,
    images: Images,
    target: Target,
    maps: Sequence[Explanation],
    *,
    valid: Regions | None = None,
    settings: JudgeSettings | None = None,
    explainers: Mapping[str, Explainer] | None = None,
    before: BatchScores | None = None,
    num: int = 0,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> BatchScores:
    """Measure every map of ``maps``, and the content-free ones, on ``images``.

    Where maps race, the images of a set must come in a random order, or those of all batches by their order
    decide.

    Args:
        run: the model.
        images: pictures in [0, 1].
        target: what the maps explain.
        maps: the maps.
        valid: what is no padding; everything by default.
        settings: which scores, and on how many images.
        explainers: what makes somebody's own maps again, by method or ``method@layer``.
        before: the numbers of the images of the set that came before these: races go on from there, and the
            costly scores need only the first images.
        num: how many images there are in all, which races are planned for; these if 0.
        groups: the name of the group of each image, of those before as well.
        seed: of everything random.
        batch_size: pictures in the model at once.

    Raises:
        SettingError: a map is not of this target, two maps share method and layer, or an explainer is for a
            map that isn't there.
    """
    chosen = JudgeSettings() if settings is None else settings
    target = for_head(target, run)
    run, images = run.opened(images)
    by_key = _by_key(maps, target)
    _refuse_strangers(explainers or {}, by_key)
    inputs = null_inputs(run, images, target, seed=seed)
    whole = (torch.ones_like(target.pixels) if valid is None else valid).to(images.device)
    case = JudgedBatch(
        run=run,
        images=images,
        target=target,
        maps=by_key,
        inputs=inputs,
        nulls=content_free(inputs),
        valid=whole,
        partition=PARTITIONS[chosen.cells](images, whole, chosen.across),
        settings=chosen,
        explainers=explainers or {},
        seed=seed,
        batch_size=batch_size,
        before={} if before is None else before.measured,
        num=num,
        groups=None if groups is None else numbered(groups),
    )
    done = 0 if before is None else before.num_images
    measured, curves = dict[str, ScoreValues](), dict[str, dict[str, Curves]]()
    for name, removing in REMOVING.items():
        if name in chosen.scores:
            measured[name], curves[name] = removing(case)
    drawn = Figures()
    left = chosen.num_occluded - done
    if "causal_agreement" in chosen.scores and left > 0:
        found, points = causal_agreement(case.first(left))
        measured |= found
        drawn = drawn.model_copy(update={"agreement": points})
    again, left = {"model_dependence", "stability"} & set(chosen.scores), chosen.num_again - done
    if again and left > 0:
        few = case.first(left)
        known = recipes(few)
        if "model_dependence" in again:
            measured["model_dependence"], cascade = model_dependence(few, known)
            drawn = drawn.model_copy(update={"cascade": cascade})
        if "stability" in again:
            measured["stability"] = stability(few, known)
    return BatchScores(
        target=target.label,
        scores=chosen.scores,
        num_images=len(images),
        measured=measured,
        attention=_attention(case) if "attention" in chosen.scores else {},
        completeness={
            key: (entry.diagnostics["completeness_error"].cpu(), entry.diagnostics["small_denominator"].cpu())
            for key, entry in by_key.items()
            if "completeness_error" in entry.diagnostics and "completeness" in chosen.scores
        },
        curves=curves,
        drawn=drawn,
        num_empty=int(target.empty().sum()),
        dims=run.spec.dims,
    )


def combine(parts: Sequence[BatchScores]) -> BatchScores:
    """Put the batches of one set of images together; all must hold the same maps.

    Raises:
        SettingError: maps raced in each batch by itself.
    """
    first, num = parts[0], sum(part.num_images for part in parts)
    for name, found in parts[-1].measured.items():
        if found.race is not None and found.race.seen != num:
            raise SettingError(
                f"The race of {name} has seen {found.race.seen} images, and there are {num}: each batch "
                "raced by itself. Give score_batch those before it as 'before', or judge with race=False."
            )
    scores = dict.fromkeys(name for part in parts for name in part.measured)
    return BatchScores(
        target=first.target,
        scores=first.scores,
        num_images=num,
        measured={
            name: cases.join_scores([part.measured[name] for part in parts if name in part.measured])
            for name in scores
        },
        attention={key: join_attention([part.attention[key] for part in parts]) for key in first.attention},
        completeness={
            key: (
                torch.cat([part.completeness[key][0] for part in parts]),
                torch.cat([part.completeness[key][1] for part in parts]),
            )
            for key in first.completeness
        },
        curves={
            score: {name: _whole([part.curves[score][name] for part in parts]) for name in found}
            for score, found in first.curves.items()
        },
        drawn=first.drawn,
        num_empty=sum(part.num_empty for part in parts),
        dims=first.dims,
    )


def score(evidence: BatchScores, *, groups: Sequence[str] | None = None, seed: int = 0) -> Scorecard:
    """Turn the numbers of all images into rows with intervals and verdicts.

    Intervals resample ``groups``: the name of each image's; without them every image is its own.
    """
    members = None if groups is None else numbered(groups)
    rows: list[Judgement] = []
    for name, found in evidence.measured.items():
        if found.race is not None:
            found = replace(found, race=finished(found.race, found.named, groups=members))
        rows += compared_rows(evidence.target, name, found, groups=members, seed=seed)
    rows += [
        attention_row(summarise(entry, groups=members, seed=seed)) for entry in evidence.attention.values()
    ]
    rows += [
        completeness_row(evidence.target, *key, error, small, groups=members, seed=seed)
        for key, (error, small) in evidence.completeness.items()
    ]
    if evidence.num_empty:
        rows = [row.saying(_empty(evidence)) if row.outcome == "too_few_images" else row for row in rows]
    curves = {
        name: {entry: _means(values) for entry, values in found.items()}
        for name, found in evidence.curves.items()
    }
    figures = evidence.drawn.model_copy(
        update={"fractions": FRACTIONS, "target_fractions": TARGET_FRACTIONS, "removal": curves}
    )
    left_out = tuple(name for name in SCORES if name not in evidence.scores)
    passes = {name: found.passes for name, found in evidence.measured.items() if found.passes}
    judged = tuple(with_faithfulness(rows))
    return Scorecard(judged, evidence.num_images, figures, left_out, passes, evidence.dims)


def _empty(evidence: BatchScores) -> str:
    """Say in how many pictures there is nothing to judge, as where the model predicts nothing."""
    pictures = count(evidence.num_images, "picture")
    why = " (the model predicts nothing there)" if evidence.target.startswith("predicted") else ""
    return f"{evidence.num_empty:,} of {pictures} hold nothing of the target {evidence.target!r}{why}"


def _attention(case: JudgedBatch) -> dict[Key, Attention]:
    """Attention and its nulls; the model with random weights for CAMs only, other methods cost too much."""
    cams = [(method, layer) for method, layer in case.maps if method in CAMS and layer is not None]
    chance: dict[Key, Explanation] = {}
    if cams:
        methods, layers = (tuple(dict.fromkeys(part)) for part in zip(*cams, strict=True))
        found = explain(
            randomised(case.run, case.images, seed=case.seed),
            case.images,
            case.target,
            methods=methods,
            layers=layers,
            seed=case.seed,
            batch_size=case.batch_size,
        )
        chance = {(entry.method, entry.layer): entry for entry in found.values()}
    return {
        key: attention(entry, case.inputs, randomised=chance.get(key), valid=case.valid)
        for key, entry in case.maps.items()
    }


def _by_key(maps: Sequence[Explanation], target: Target) -> dict[Key, Explanation]:
    """Index the maps, and refuse those of another target."""
    found: dict[Key, Explanation] = {}
    for entry in maps:
        key = (entry.method, entry.layer)
        same = entry.target.class_index == target.class_index and entry.target.against == target.against
        if not (same and torch.equal(entry.target.pixels.cpu(), target.pixels.cpu())):
            raise SettingError(
                f"Map {entry.name!r} explains target {entry.target.label!r} of class "
                f"{entry.target.class_index}, but is to be judged for {target.label!r} of class "
                f"{target.class_index}, or on other pixels. Judge it for its own target."
            )
        if key in found:
            raise SettingError(f"Two maps are called {entry.name!r}. Give one of them another method name.")
        found[key] = entry
    if not found:
        raise SettingError("There is no map to judge. Give at least one explanation.")
    return found


def _refuse_strangers(explainers: Mapping[str, Explainer], maps: Mapping[Key, Explanation]) -> None:
    known = [name for key in maps for name in (map_name(*key), key[0])]
    for name in explainers:
        if name not in known:
            raise SettingError(
                f"There is an explainer for {name!r}, but no such map. Allowed: {', '.join(known)}."
            )


def _whole(parts: Sequence[Curves]) -> Curves:
    dice = [part.dice for part in parts if part.dice is not None]
    return Curves(
        torch.cat([part.full for part in parts]),
        torch.cat([part.base for part in parts]),
        torch.cat([part.least_first for part in parts]),
        torch.cat([part.most_first for part in parts]),
        _whole(dice) if dice else None,
        least_kept=_joined([part.least_kept for part in parts]),
        most_kept=_joined([part.most_kept for part in parts]),
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Put the parts together; None where they have none."""
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None


def _means(curves: Curves) -> RemovalCurves:
    """Mean curves over the images that have them.

    Where some steps were made of each image, a step's mean change is that of the images that it was made of.
    """
    usable = curves.most_first.isfinite().any(1)
    full = curves.full[usable]

    def means(values: Tensor | None) -> tuple[float, ...]:
        if values is None:
            return ()
        return tuple((full.mean() + (values[usable] - full[:, None]).nanmean(0)).tolist())

    found = RemovalCurves(
        full=float(full.mean()),
        base=float(curves.base[usable].mean()),
        least_first=means(curves.least_first),
        most_first=means(curves.most_first),
        least_kept=means(curves.least_kept),
        most_kept=means(curves.most_kept),
        num=int(usable.sum()),
    )
    return found if curves.dice is None else found.model_copy(update={"s_dice": _means(curves.dice)})
