"""The page: templates, style and script put into one file that loads nothing from anywhere.

What the tables and file names say is data and is escaped. The style and the script are ours; the content
security policy names their hashes, so a browser runs nothing else even if something had slipped through.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from seglens.record import versions
from seglens.report import cards, figures, pictures, tables, words
from seglens.report.contents import Part, RunContents
from seglens.report.glossary import RESTATES, glossary

OWN = "seglens.report"

VERDICTS = {"pass": "✓", "warn": "!", "fail": "✕", "not evaluable": "—"}


def page(
    template: str,
    view: Mapping[str, Any],
    *,
    scripts: Sequence[str] = (),
    package: str = OWN,
) -> str:
    """Render ``template``, which extends ``page.html.jinja``, into one HTML file that loads nothing.

    The page gets the style and the script that all pages share, and a content security policy that allows
    nothing else. ``view`` is what the template names; it may be any data, and is escaped. Of ``style``,
    ``script``, ``policy``, ``seglens_version`` and ``verdicts`` the page takes its own. The filters
    ``number``, ``significant`` and ``duration``, and the macros of ``macros.html.jinja`` (which need
    ``glossary`` and ``colours`` in the view) are there for every template.

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
        "verdicts": VERDICTS,
    }
    return _environment(package).get_template(template).render({**view, **shared})


def render(runs: Sequence[RunContents], shortcut: Part | None) -> str:
    """Return the report as one HTML page."""
    shown, num_cards = cards.gallery(runs)
    examples = shortcut_examples(shortcut) if shortcut else []
    wanted = [file for card in shown for file in card.files]
    wanted += [file for example in examples for file in example["pictures"].values()]
    view = {
        "runs": runs,
        "colours": {run.name: i for i, run in enumerate(runs)},
        "sentences": {run.name: tables.sentences(run) for run in runs},
        "charts": tables.charts(runs),
        "score_rows": tables.score_rows(runs),
        "score_titles": tables.SCORES,
        "histograms": tables.histograms(runs) + tables.reliability(runs),
        "cards": shown,
        "num_cards": num_cards,
        "switches": cards.switches(shown),
        "plain": cards.PLAIN,
        "addresses": pictures.embed(wanted),
        "attention": tables.attention(runs),
        "judgements": tables.judgements(runs),
        "provenance": {run.name: tables.provenance(run) for run in runs},
        "shortcut": shortcut.table if shortcut else None,
        "tag_rows": tables.tag_rows(shortcut.table) if shortcut else [],
        "how_found": words.how_found(shortcut.table) if shortcut else [],
        "examples": examples,
        "glossary": glossary(runs),
        "data": as_script_data(numbers(runs, shortcut)),
        "restates": RESTATES,
    }
    return page("report.html.jinja", view, scripts=("gallery.js",))


def shortcut_examples(shortcut: Part) -> list[dict[str, Any]]:
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
    for example in shortcut.table.get("examples", []):
        files = {label: shortcut.file(example.get(key)) for key, label in labels.items()}
        found.append({"name": example.get("name", ""), "pictures": {k: f for k, f in files.items() if f}})
    return [example for example in found if example["pictures"]]


def numbers(runs: Sequence[RunContents], shortcut: Part | None) -> dict[str, Any]:
    """Return every number behind the page, for a program to read."""
    return {
        "runs": [
            {
                "name": run.name,
                "record": run.record.model_dump(),
                "history": run.history,
                **{verb: [part.table for part in parts] for verb, parts in _by_verb(run).items()},
            }
            for run in runs
        ],
        "shortcut": shortcut.table if shortcut else None,
    }


def _by_verb(run: RunContents) -> dict[str, tuple[Part, ...]]:
    return {"evaluate": run.evaluations, "explain": run.explanations, "judge": run.scorecards}


def as_script_data(data: object) -> Markup:
    """Return JSON that can't end the ``script`` element that holds it."""
    text = json.dumps(data, ensure_ascii=True, default=str, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def policy(style: str, script: str) -> str:
    """Return a content security policy that allows this style, this script and embedded pictures only."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
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
        "number": words.number,
        "significant": words.significant,
        "duration": words.duration,
    }
    environment.filters.update(shown)
    environment.globals.update({"bars": figures.bars})
    return environment


def _source(package: str, name: str) -> str:
    """Return a file of the templates of ``package``, or else of the report."""
    own = files(package).joinpath("templates", name)
    found = own if own.is_file() else files(OWN).joinpath("templates", name)
    return found.read_text(encoding="utf-8")


def write(page: str, file: Path) -> None:
    """Write the page."""
    file.write_text(page, encoding="utf-8", newline="\n")
