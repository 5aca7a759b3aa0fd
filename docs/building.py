"""What the documentation makes of the project while it is built: nothing here can go stale.

MkDocs calls the functions whose names begin with ``on_`` (``hooks`` in ``mkdocs.yml``). They add the pages
that lie elsewhere (`OUTSIDE`), fill in the command line's own help and the public names, and turn fenced
blocks called ``math`` into MathML, which browsers draw without a script.
"""

import re
from collections.abc import Iterator
from html import escape
from inspect import cleandoc
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

import typer
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import seglens
from seglens import cli
from seglens.cli.examples import EXAMPLES
from seglens.explain.cams import CAMS
from seglens.judge.definitions import DEFINITIONS
from seglens.report.glossary import WORDS

ROOT = Path(__file__).parents[1]

OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    **{f"benchmarks/{file.name}": f"benchmarks/{file.name}" for file in (ROOT / "benchmarks").glob("*.md")},
}
"""Pages that are files of the repository elsewhere, by their place in it, and their place on the site."""

NAMES = {
    "Runs": ("load", "wrap", "adopt", "export", "Run", "Segmenter", "ModelSpec", "Task"),
    "Data": ("DataSettings", "open_data", "open_split", "Sample", "read_images", "check_data", "show_data",
             "get_data", "slice_volumes"),
    "Training and evaluation": ("TrainSettings", "train", "evaluate", "predict_files", "spread", "Share"),
    "Explaining": ("explain", "explain_folder", "show", "layers", "targets", "Target", "Explanation", "Explanations",
                   "statistics", "plan", "plan_folder", "verify", "Verification"),
    "Methods with settings": ("ScoreCam", "AblationCam", "SegXResCam", "IntegratedGradients", "SmoothGrad",
                              "ExpectedGradients", "Occlusion", "SuperpixelOcclusion", "Rise", "Shapley", "ExtremalMask",
                              "FusedHiResCam", "Lrp"),
    "Judging": ("judge", "judge_folder", "JudgeSettings", "Scorecard"),
    "Reports": ("report", "demo"),
    "Errors": ("SeglensError", "UserError"),
}  # fmt: skip
"""The public names in the order of the reference; those that are missing here come last."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw fenced blocks called ``math``, and list all that was measured."""
    measured = [page for page in OUTSIDE.values() if page.startswith("benchmarks/")]
    config.nav = [*(config.nav or []), {"Measured": sorted(measured)}, "contributing.md"]
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "math", "format": formula})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated, and make links to files of the repository links to pages."""
    place = page.file.src_uri
    if place == "commands.md":
        markdown += "\n".join(commands())
    if place == "api.md":
        markdown += "\n".join(names())
    if place == "glossary.md":
        markdown += "\n".join(terms())
    if place == "methods.md":
        markdown = with_every_cam(markdown)
    places = {site: source for source, site in OUTSIDE.items()}
    return mend_links(markdown, places.get(place, f"docs/{place}"))


def formula(source: str, *_: Any, **__: Any) -> str:
    """MathML of formulas in TeX: those parted by wide spaces come below one another where a line is short."""
    parts = [convert(part, display="block") for part in re.split(r"(?:\\qquad\s*)+", source) if part.strip()]
    return f'<div class="formula" tabindex="0">{"".join(parts)}</div>'


LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def mend_links(markdown: str, source: str) -> str:
    """Make links that are right in the repository right on the site.

    ``source`` is the page's place in the repository. A link to a file that is no page, such as a module,
    becomes its name.
    """

    def mended(link: re.Match[str]) -> str:
        mark, text, path, anchor = link[1], link[2], link[3], link[4] or ""
        aim = normpath(join(dirname(source), path))
        page = OUTSIDE.get(aim, aim.removeprefix("docs/") if aim.startswith("docs/") else None)
        if page is None:
            return text if text.startswith("`") else f"{text} (`{aim}`)"
        here = OUTSIDE.get(source, source.removeprefix("docs/"))
        return f"{mark}[{text}]({relpath(page, dirname(here) or '.')}{anchor})"

    return LINK.sub(mended, markdown)


def every_command() -> Iterator[tuple[str, Any]]:
    """Yield every command, as it is typed, with its Typer object."""
    root: Any = typer.main.get_command(cli.app)
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield f"seglens {name}", command
        else:
            yield from ((f"seglens {name} {part}", found) for part, found in inner.items())


def commands() -> Iterator[str]:
    """Yield the lines of the reference of the command line."""
    for name, command in every_command():
        if command.hidden:
            continue
        context = typer.Context(command, info_name=name)
        usage = " ".join(command.collect_usage_pieces(context))
        yield from ("", f"## {name} {{ #{name.replace(' ', '-')} }}", "", cleandoc(command.help or ""), "")
        yield from ("```text", f"{name} {usage}", "```", "")
        yield from ('<div class="flags" markdown="0"><table>', "<thead><tr><th>Flag</th><th>What it is</th>")
        yield "</tr></thead><tbody>"
        for parameter in command.get_params(context):
            row = parameter.get_help_record(context)
            if row is not None:
                yield f"<tr><td><code>{escape(row[0])}</code></td><td>{escape(row[1])}</td></tr>"
        yield from ("</tbody></table></div>", "")
        if command.epilog:
            yield from (" ".join(line.split()) + "\n" for line in cleandoc(command.epilog).split("\n\n"))
        yield from ("```bash", *examples(name.removeprefix("seglens ")), "```", "")


def examples(name: str) -> Iterator[str]:
    """Yield the examples of a command's help, each under what it is for."""
    for line, purpose in EXAMPLES.get(name, ()):
        yield from (f"# {purpose}", line)


def terms() -> Iterator[str]:
    """Yield the words of the report and the definitions of the scorecard, as they stand there."""
    for title, words in (("In the report", WORDS), ("In the scorecard", DEFINITIONS)):
        yield from ("", f"## {title}", "")
        for word, meaning in words.items():
            yield from (
                f"{word.replace('_', ' ')[0].upper()}{word.replace('_', ' ')[1:]}",
                f":   {meaning}",
                "",
            )


def with_every_cam(markdown: str) -> str:
    """Return the page of methods with a section for each CAM that none was written for: its docstring."""
    missing = [name for name in CAMS if f"### {name}\n" not in markdown]
    sections = [
        f"### {name}\n\n{cleandoc(CAMS[name].formula.__doc__ or '')}\n\n**Don't believe** it before "
        f"`seglens judge` has compared it with its nulls on your data.\n\n"
        for name in missing
    ]
    return markdown.replace("### score-cam\n", f"{''.join(sections)}### score-cam\n")


def names() -> Iterator[str]:
    """Yield the lines of the reference of the package: where each public name is documented."""
    listed = {name for group in NAMES.values() for name in group}
    others = tuple(name for name in seglens.__all__ if name not in listed and not name.startswith("_"))
    for group, members in {**NAMES, **({"More": others} if others else {})}.items():
        yield from ("", f"## {group}", "")
        for name in members:
            module = seglens._MODULES.get(name)
            path = f"seglens.{module}" if module else f"seglens.{seglens._HOMES[name]}.{name}"
            yield from (f"::: {path}", "    options:", f"      heading: seglens.{name}")
            yield from (f"      toc_label: {name}", "")
