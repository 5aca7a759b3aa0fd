"""Sentences about a picture, an explanation and a removal: short pieces of HTML, every name escaped."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from seglens.drawing.draw import Scale
from seglens.evaluate.scores import DEFINITIONS as SCORES
from seglens.explain.explanation import reason
from seglens.explain.statistics import DEFINITIONS
from seglens.inspection.drawing import bar, scale_of
from seglens.inspection.explaining import ExplainedPicture
from seglens.inspection.opened import Opened, size_in_words
from seglens.inspection.removing import RemovedRegion
from seglens.masks import of_class
from seglens.results.maps import OneMap
from seglens.results.names import formatted, worded
from seglens.runs import Run

NULLS = {
    "mirror": "the predicted region itself, on the layer's grid",
    "centre": "a blob in the middle",
    "edges": "the picture's edges",
    "random": "noise",
}
"""Maps that know nothing of how the model works, in plain words."""

NEGLIGIBLE = 0.02
"""A change of the probability below this is none to speak of, whatever the controls say: they are few."""

REASONS = {
    "no_target": "There is no pixel to explain: the target is empty in this picture. Ask for another target, "
    "or click on the picture.",
    "degenerate": "Nothing in this layer speaks for the target: the map is the same everywhere. Try another "
    "layer, or another method.",
    "failed": "The method gave values that are not numbers for this picture, so there is no map to draw.",
}
"""Why there is no map, and what to do."""


def about_picture(run: Run, opened: Opened) -> str:
    """Describe the prediction, with its scores where the truth is known."""
    valid, dims = opened.sample.valid, run.spec.dims
    parts = [f"<b>{escape(opened.sample.name)}</b>, {size_in_words(opened.frame.native)}."]
    areas = [
        f"{escape(name)} {float((of_class(opened.mask, index, valid.ndim) & valid).sum() / valid.sum()):.1%}"
        for index, name in enumerate(run.task.classes)
        if index
    ]
    parts.append(f"Predicted: {', '.join(areas)} {worded('of the picture.', dims)}")
    if opened.part.windows is not None:
        parts.append(worded("The picture is large: it was predicted in windows.", dims))
    text = f"<p>{' '.join(parts)}</p>"
    if not opened.scores:
        return text + "<p>The truth is not known, so nothing is scored.</p>"
    cells = [
        (escape(worded(name.replace("_", " "), dims)), formatted(value, ".3f"), worded(SCORES[name], dims))
        for name, value in opened.scores.items()
    ]
    return text + _table(("score", worded("of this picture", dims)), cells)


def about_answer(answer: ExplainedPicture) -> str:
    """Describe the colours and the place of the map, next to null maps."""
    dims = len(answer.heatmaps.frame.native)
    if answer.status != "ok":
        evidence = scale_of(answer, evidence=True)
        why = worded(reason(answer.status, answer.row.diagnosed) or REASONS[answer.status], dims)
        found = f'<p role="status">{escape(why)}</p>'
        return found + (_bar(evidence, "for (red) and against (blue)") if evidence else "")
    row, scale = answer.row, scale_of(answer)
    assert scale is not None  # it is ok
    text = _bar(
        scale, "speaks for (red) and against (blue)" if scale.limits[0] < 0 else "speaks for the target"
    )
    evidence = scale_of(answer, evidence=True)
    if evidence is not None:
        text += _bar(evidence, "for (red) and against (blue)")
    if answer.request.where != "region":
        share = row.statistics["mass_context"]
        return (
            text + f"<p>{formatted(share, '.1%')} of the map lies outside of the target and its margin.</p>"
        )
    then = "Brush something out to find that." if dims == 2 else "seglens judge finds that."
    return text + worded(_inside(row, answer.label, then), dims) + _diagnosed(row.diagnosed)


def about_removal(removal: RemovedRegion) -> str:
    """Describe the effect of the removal, and that of removing the same shape elsewhere."""
    before, after = removal.before, removal.after
    cells = [
        ("probability of the target", before.probability, after.probability, ".3f"),
        ("logit of the target", before.logit, after.logit, ".2f"),
        ("predicted area of the class", before.area, after.area, ".1%"),
    ]
    cells += [
        (name, value, after.scores[name], ".3f") for name, value in before.scores.items() if name == "dice"
    ]
    rows = [
        (escape(name), formatted(old, form), formatted(new, form), _change(old, new, form))
        for name, old, new, form in cells
    ]
    text = (
        f"<p>Removed: {removal.share:.1%} of the picture, {removal.of_target:.0%} of the target. The "
        "target's pixels are those of the question, before and after.</p>"
    )
    text += _table(("measured", "before", "after", "change"), rows)
    return text + f"<p>{_compared(removal)}</p>"


def _compared(removal: RemovedRegion) -> str:
    """Set the change beside that of the controls."""
    if math.isnan(removal.before.probability):
        return "The target is empty, so its change can't be measured. Choose a target first."
    if not removal.controls:
        return (
            "The same shape has no room elsewhere in the picture, so there is nothing to compare this with."
        )
    before = removal.before.probability
    change, others = removal.after.probability - before, [value - before for value in removal.controls]
    least, most = min(others), max(others)
    if abs(change) < NEGLIGIBLE:
        verdict = "Hardly any change: the target does not rest on what was here, or not on it alone."
    elif least <= change <= most:
        verdict = "Nothing special: the same shape does as much elsewhere."
    elif change < least:
        verdict = "It fell more than at any of them: what was here speaks for the target."
    else:
        verdict = "It rose more than at any of them: what was here speaks against the target."
    return (
        f"The probability changed by {change:+.3f}; with the same shape removed at {len(others)} other "
        f"places it changed by {least:+.3f} to {most:+.3f}. {verdict}"
    )


def _inside(row: OneMap, label: str, then: str) -> str:
    """Where the map lies, its nulls, and what to do ``then``."""
    own, nulls = row.statistics, row.nulls
    names = ("mass_inside", "enrichment_log2")
    cells = [("this map", *(formatted(own[name], ".3g") for name in names))]
    cells += [
        (f"{escape(words)}", *(formatted(nulls[null][name], ".3g") for name in names))
        for null, words in NULLS.items()
        if null in nulls
    ]
    heads = (
        "map",
        *(f'<span title="{escape(DEFINITIONS[name])}">{name.replace("_", " ")}</span>' for name in names),
    )
    sentence = (
        "This map only repeats the predicted region. It doesn't show what the model used."
        if label
        else "Where the heat lies doesn't show what the model used."
    )
    return _table(heads, cells) + f"<p>{sentence} {then}</p>"


def _diagnosed(diagnostics: Mapping[str, float]) -> str:
    known = reason("ok", diagnostics)
    if known:
        return f"<p>{escape(known)}</p>"
    error = diagnostics.get("completeness_error")
    if error is None:
        return ""
    doubtful = (
        " The scores at both ends are too alike for this to say much."
        if diagnostics["small_denominator"]
        else ""
    )
    return (
        f"<p>Completeness error {formatted(error, '.2%')} in {diagnostics['steps']:.0f} steps.{doubtful}</p>"
    )


def _bar(scale: Scale, what: str) -> str:
    """A colour bar with its ends; its style stands in it, since a notebook has none of the page's."""
    low, high = scale.limits
    unit = f", {escape(scale.unit)}" if scale.unit else ""
    return (
        '<figure class="seglens-bar" style="margin: .5em 0; max-width: 48em">'
        f'<img src="{bar(scale)}" alt="colour bar from {low:.3g} to {high:.3g}" '
        'style="width: 100%; height: 12px">'
        '<figcaption style="display: flex; justify-content: space-between; gap: 1em; font-size: .85em">'
        f"<span>{low:.3g}</span><span>{escape(what)}{unit}</span><span>{high:.3g}</span></figcaption>"
        "</figure>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a score's definition is its row's last cell, shown on hover."""
    shown = len(heads)
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f'<tr title="{escape(" ".join(row[shown:]))}"><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{cell}</td>" for cell in row[1:shown])
        + "</tr>"
        for row in rows
    )
    return f'<table class="seglens-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _change(old: float, new: float, form: str) -> str:
    return "—" if math.isnan(new - old) else format(new - old, f"+{form}")
