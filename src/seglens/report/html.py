"""The page: one file with templates, style and script, which loads no other file.

What the tables and file names say is data and is escaped. The style and the script are ours; the content
security policy names their hashes, so a browser runs nothing else even if something had slipped through.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from seglens.report import answers, cards, figures, findings, gallery_data, missing, mistakes, tables, wording
from seglens.report.contents import TABLES, RunContents, RunPart
from seglens.report.glossary import glossary
from seglens.results import names
from seglens.results.recommendation import lines_of
from seglens.results.record import versions
from seglens.results.scorecard import TagTest

OWN = "seglens.report"

SCRIPTS = ("colours.js", "maps.js", "stage.js", "viewer.js", "slices.js", "gallery.js", "mistakes.js")
"""What the gallery and the errors need, in the order in which they build on each other."""

SECTIONS = {
    "summary": "Overview",
    "shortcut": "Shortcut",
    "training": "Training",
    "scores": "Scores",
    "calibration": "Calibration",
    "gallery": "Gallery",
    "mistakes": "Errors",
    "attention": "Attention",
    "scorecard": "Scorecard",
    "audit": "Audit",
    "provenance": "Provenance",
    "glossary": "Glossary",
}
"""The titles of the sections, in the order of the page. Those that have nothing to show are left out."""

REST = 600_000
"""Bytes of a page without its data and pictures, tables of a large scorecard included."""


@dataclass(frozen=True)
class Example:
    """A picture of the shortcut check: what it is called, and files by what they show."""

    name: str
    pictures: dict[str, Path]


def page(
    template: str,
    view: Mapping[str, object],
    *,
    scripts: Sequence[str] = (),
    package: str = OWN,
) -> str:
    """Render ``template``, which extends ``page.html.jinja``, into one HTML file that loads nothing.

    The page gets the style and the script that all pages share, and a content security policy that allows
    nothing else. ``view`` is what the template names; it may be any data, and is escaped. Of ``style``,
    ``script``, ``policy``, ``seglens_version`` and ``verdicts`` the page takes its own. Every template has
    the filters ``number``, ``significant``, ``recommended``, ``duration`` and ``percent``, and may import
    ``macros.html.jinja``, whose macros need ``glossary`` and ``colours`` in the view, and ``tile`` needs
    ``addresses``.

    Args:
        template: a file in the folder ``templates`` of ``package``, or of the report.
        view: names of the template, and what they stand for.
        scripts: more script files of those folders, run in this order after ``page.js``.
        package: whose ``templates`` are looked in first.
    """
    style = _source(package, "style.css")
    script = "\n".join(_source(package, name) for name in ("page.js", *scripts))
    shared = {
        "style": Markup(style),
        "script": Markup(script),
        "policy": policy(style, script),
        "seglens_version": versions()["seglens"],
        "verdicts": {name: mark for name, mark in names.MARKS.items() if name != "reference"},
    }
    return _environment(package).get_template(template).render({**view, **shared})


def render(runs: Sequence[RunContents], shortcut: RunPart[TagTest] | None, *, beside: Path) -> str:
    """Return the report as one HTML page, to be put into the folder ``beside``."""
    shown, num_cards = cards.gallery(runs)
    examples = shortcut_examples(shortcut) if shortcut else []
    others = [file for example in examples for file in example.pictures.values()]
    data = as_script_data(numbers(runs, shortcut))
    used = len(data) + REST + sum(len(str(card.scores)) * 3 for card in shown)
    found = gallery_data.build_gallery_data(shown, others, beside=beside, used=used)
    calibrated = [
        f"{run.name if len(runs) > 1 else 'On'} {part.split}: {sentence}"
        for run in runs
        for part in run.evaluations
        if (sentence := findings.about_calibration(part.table.calibration))
    ]
    background = next((colour for run in runs if (colour := run.record.background)), "#000000")
    attention, judgements = tables.attention_chart(runs), tables.judgements(runs)
    view: dict[str, object] = {
        "runs": runs,
        "colours": {run.name: i for i, run in enumerate(runs)},
        "sentences": {run.name: tables.sentences(run) for run in runs},
        "answers": {run.name: answers.answers(run, shortcut.table if shortcut else None) for run in runs},
        "findings": {run.name: findings.findings(run) for run in runs},
        "missing": {run.name: missing.missing(run) for run in runs},
        "matrix": findings.matrix(runs),
        "charts": tables.charts(runs),
        "score_rows": tables.score_rows(runs),
        "score_titles": tables.SCORES | {"hd95": f"HD95, {tables.unit_of_distances(runs)}"},
        "histograms": tables.histograms(runs),
        "reliability": tables.reliability(runs),
        "calibrated": calibrated,
        "cards": shown,
        "num_cards": num_cards,
        "switches": cards.switches(shown),
        "album": found,
        "album_data": as_script_data(
            found.data
            | {
                "background": int(background.lstrip("#"), 16),
                "classes": {run.name: run.record.task.classes for run in runs if run.record.task},
                "nouns": {run.name: "volume" if _is_of_volumes(run) else "picture" for run in runs},
                "overlapping": {run.name: run.record.task.multilabel for run in runs if run.record.task},
            }
        ),
        "addresses": found.thumbnails,
        "mistakes": mistakes.cases(shown, runs),
        "attention": attention,
        "judgements": judgements,
        "audits": tables.audits(runs),
        "provenance": {run.name: tables.provenance(run) for run in runs},
        "shortcut": shortcut.table if shortcut else None,
        "tag_rows": tables.tag_rows(shortcut.table) if shortcut else [],
        "both_true": wording.both_true(shortcut.table, runs) if shortcut else "",
        "how_found": wording.how_found(shortcut.table) if shortcut else [],
        "examples": examples,
        "glossary": glossary(runs),
        "data": data,
        "repeats": names.REPEATS,
    }
    content = {
        "shortcut": shortcut,
        "training": view["charts"],
        "scores": view["score_rows"],
        "calibration": view["reliability"],
        "gallery": shown,
        "mistakes": view["mistakes"],
        "attention": attention.rows,
        "scorecard": judgements.by_score,
        "audit": view["audits"],
    }
    view["sections"] = {name: title for name, title in SECTIONS.items() if content.get(name, True)}
    made = page("report.html.jinja", view, scripts=SCRIPTS if shown else ())
    return _of_volumes(made) if all(map(_is_of_volumes, runs)) else made


def _is_of_volumes(run: RunContents) -> bool:
    return run.record.model is not None and run.record.model.dims == 3


def _of_volumes(made: str) -> str:
    """Return a page whose sentences, read or heard, speak of volumes and voxels; the rest stays as it is."""

    def heard(tag: str) -> str:
        return re.sub(r'(?<= )((?:aria-label|alt)=")([^"]*)', lambda at: at[1] + names.worded(at[2], 3), tag)

    parts = re.split(r"(<script\b.*?</script>|<style\b.*?</style>|<[^>]*>)", made, flags=re.DOTALL)
    ours = ("<script", "<style")
    return "".join(
        part if part.startswith(ours) else heard(part) if part.startswith("<") else names.worded(part, 3)
        for part in parts
    )


def shortcut_examples(shortcut: RunPart[TagTest]) -> list[Example]:
    """Return the example pictures of the shortcut check that exist, with what each of them shows."""
    labels = {
        "orig": "Image",
        "pred_honest": "Honest model: prediction",
        "map_honest": "Honest model: heat",
        "pred_cheat": "Cheating model: prediction",
        "map_cheat": "Cheating model: heat",
        "without_tag_cheat": "Cheating model, tag removed",
    }
    found = []
    for example in shortcut.table.examples:
        files = {label: shortcut.file(example[key]) for key, label in labels.items() if key in example}
        found.append(Example(example.get("name", ""), {k: f for k, f in files.items() if f}))
    return [example for example in found if example.pictures]


def numbers(runs: Sequence[RunContents], shortcut: RunPart[TagTest] | None) -> dict[str, object]:
    """Return every number behind the page, for a program to read."""
    return {
        "runs": [
            {
                "name": run.name,
                "record": run.record.model_dump(),
                "history": run.history,
                **{
                    command: [part.raw for part in run.parts if part.command == command] for command in TABLES
                },
            }
            for run in runs
        ],
        "shortcut": shortcut.raw if shortcut else None,
    }


def as_script_data(data: object) -> Markup:
    """Return JSON that can't end the ``script`` element that holds it."""
    text = json.dumps(_plain(data), ensure_ascii=True, default=str, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _plain(data: object) -> object:
    """Return data as JSON can say it: numbers to six digits, null for what is not a number."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data


def policy(style: str, script: str) -> str:
    """Return a content security policy: this style, this script, pictures inside of the page or beside it."""
    return (
        f"default-src 'none'; img-src data: 'self' file:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in dict.fromkeys((package, OWN))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: dict[str, Callable[..., Any]] = {
        "number": names.number,
        "significant": names.significant,
        "recommended": lines_of,
        "duration": names.duration,
        "percent": names.percent,
        "in_words": names.null_in_words,
        "label_in_words": names.label_in_words,
        "count": names.count,
        "shortened": names.shortened,
    }
    environment.filters.update(shown)
    environment.globals.update({"bars": figures.bars})
    return environment


def _source(package: str, name: str) -> str:
    """Return a file of the templates of ``package``, or else of the report."""
    own = files(package).joinpath("templates", name)
    found = own if own.is_file() else files(OWN).joinpath("templates", name)
    return found.read_text(encoding="utf-8")


def write_html(page: str, file: Path) -> None:
    """Write the page."""
    file.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")
