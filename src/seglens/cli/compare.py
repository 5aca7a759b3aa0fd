"""The command ``seglens compare``: two or more runs side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import seglens
from seglens.cli import data_options, names, terminal
from seglens.cli import options as o
from seglens.cli.given_flags import refuse
from seglens.cli.printing import formatted_number
from seglens.cli.terminal import print_result, print_table, say
from seglens.results.names import count, formatted, map_name

if TYPE_CHECKING:
    from seglens.results.comparison import ComparisonTable


def compare_command(
    context: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN RUN...",
            help="Run folders; the first is what the others are compared with.",
            show_default=False,
            autocompletion=names.runs,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="Evaluate all runs on these, in place of what is there.", show_default=False
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, valid, test or all.",
            show_default="the first that all have",
            autocompletion=names.among(names.SPLITS),
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many pictures that gained, and that lost, most.")] = 8,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="[default: RUN/compare/OTHER]", show_default=False)
    ] = None,
    force: o.Force = False,
) -> None:
    """Compare runs: scores, pictures, attention, verdicts.

    Goes by what evaluate, explain and judge left in the runs, on the pictures that all of them have.
    """
    given = list(runs or ()) or ([terminal.need_run(None)] if terminal.interactive() else [])
    if len(given) < 2 and terminal.interactive():
        given.append(terminal.need_path(None, "RUN", "Which other run folder?"))
    if data is None:
        refuse(context, ("device",), "nothing is computed without --data")
        refuse(context, data_options.GROUPS, "without --data the groups are those of the evaluations")
    found = seglens.compare(
        given,
        out=out,
        split=split,
        data=data_options.other_data(context, data),
        class_map=data_options.class_map(context),
        device=device,
        top=top,
        seed=seed,
        force=force,
    )
    print_result({"folder": str(found.folder), **found.to_json()}, lambda: _show(found))


def _show(found: "seglens.Comparison") -> None:
    table = found.table
    for run in table.runs[1:]:
        _show_scores(table, run)
        _show_maps(table, run)
    if table.resampling.text:
        say(table.resampling.text)
    if table.about_verdicts:
        say(table.about_verdicts)
    if table.left_out:
        say(f"Left out: {count(len(table.left_out), 'picture')}, see compare.json.")
    for entry in table.missing:
        say(f"Missing: {entry.command}")
    say(f"The comparison is in {found.page}")


def _show_scores(table: "ComparisonTable", run: str) -> None:
    rows = [
        (
            f"{row.score.replace('_', ' ')}, {row.kind}",
            formatted_number(row.reference),
            formatted_number(row.value),
            f"{row.difference:+.3f}",
            "-" if row.low != row.low else f"{row.low:+.3f} to {row.high:+.3f}",
            row.verdict,
        )
        for row in table.scores
        if row.run == run
    ]
    if rows:
        title = f"{run} against {table.reference}: {table.num_common} common pictures of {table.split}"
        columns = ("score", table.reference, run, "difference", "95 % interval", "verdict")
        print_table(columns, rows, title=title)


def _show_maps(table: "ComparisonTable", run: str) -> None:
    rows = [
        (
            f"{row.target}: {map_name(row.method, row.layer)}",
            formatted(row.moved.mean, ".0%", dash="-"),
            formatted(row.unrelated.mean, ".0%", dash="-"),
            *(
                formatted(row.shares[place].difference.mean, "+.3f", dash="-") if place in row.shares else "-"
                for place in ("truth", "invented", "missed")
            ),
            str(row.num),
        )
        for row in table.maps
        if row.run == run
    ]
    if rows:
        columns = ("map", "moved", "unrelated maps", "on truth", "on invented", "on missed", "pictures")
        print_table(columns, rows, title=f"Attention of {run} against {table.reference}")
