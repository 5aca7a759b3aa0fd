"""What is said to the person at the terminal, and what is asked of them.

Results go to standard output; questions, warnings and errors to standard error, each error on one line.
Questions are asked only where standard input is a terminal.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from seglens.cli.options import LAYERS
from seglens.errors import DataError, SeglensError, SettingError, UserError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: something went wrong or some pictures could not be done; the user's fault; Ctrl-C."""


def say(*lines: str) -> None:
    """Print lines of a result."""
    print(*lines, sep="\n")


def warn(text: str) -> None:
    """Print one line to standard error."""
    print(f"seglens: {_one_line(text)}", file=sys.stderr)


@contextmanager
def clean_warnings() -> Iterator[None]:
    """Show warnings as one line each, without file names and source lines."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,
        line: str | None = None,
    ) -> None:
        warn(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def explain_error(error: BaseException, *, debug: bool) -> int:
    """Say on one line what went wrong (with ``debug``, the trace before it), and return the exit code."""
    if debug and not isinstance(error, typer.Exit):
        traceback.print_exception(error)
    match error:
        case KeyboardInterrupt() | typer.Abort():
            warn(str(error) or "Stopped.")
            return INTERRUPTED
        case UserError():
            warn(str(error))
            return MISUSED
        case SeglensError():
            warn(str(error))
            return FAILED
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            verb = context.command_path if context is not None else "seglens"
            message = error.format_message()
            warn(f"{message if message.endswith(('.', '?')) else message + '.'} See '{verb} --help'.")
            return error.exit_code
        case BrokenPipeError():  # what reads our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        case OSError() if error.strerror:
            where = f": {error.filename}" if error.filename else ""
            warn(f"{error.strerror}{where}.")
            return FAILED
    first = (str(error).strip().splitlines() or ["no message"])[0]
    warn(f"Unexpected {type(error).__name__}: {first.removesuffix('.')}. Run with --debug to see where.")
    return FAILED


def list_failed(failed: Sequence[tuple[str, str]], num_total: int) -> None:
    """List pictures that could not be done, with the reason, and end with exit code 1; return if none.

    Raises:
        typer.Exit: there is one.
    """
    if not failed:
        return
    warn(f"{len(failed)} of {num_total} pictures could not be done:")
    for name, reason in failed:
        print(f"  {name}: {_one_line(reason)}", file=sys.stderr)
    raise typer.Exit(FAILED)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print a table: drawn in a terminal, plain columns elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*columns, title=title or None, title_justify="left")
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)
        return
    if title:
        print(title)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def interactive() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def ask(name: str, question: str, *, default: str = "") -> str:
    """Ask for a choice that the command lacks; ``name`` is what the command line calls it.

    Raises:
        SettingError: nobody is there to answer.
    """
    if not interactive():
        raise SettingError(f"{name} is missing. {question} Give it on the command line.")
    # Not typer.prompt(), which writes a blank to standard output.
    while True:
        print(f"{question} [{default}] " if default else f"{question} ", end="", file=sys.stderr, flush=True)
        try:
            answer = input().strip() or default
        except EOFError:
            print(file=sys.stderr)
            raise typer.Abort from None
        if answer:
            return answer


def need_path(given: Path | None, name: str, question: str, *, default: str = "") -> Path:
    """Return the path that was given, or ask for it."""
    return given if given is not None else Path(ask(name, question, default=default)).expanduser()


def need_run(given: Path | None) -> Path:
    """Return the run folder that was given, or let one be chosen among those below the current folder."""
    if given is not None:
        return given
    found = find_runs(Path()) if interactive() else []
    return need_path(None, "RUN", _choice("Which run folder?", found), default=str(found[0]) if found else "")


def find_runs(folder: Path) -> list[Path]:
    """Return the run folders up to two levels below ``folder``, the newest first."""
    files = [file for pattern in ("*/run.json", "*/*/run.json") for file in folder.glob(pattern)]
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return [file.parent for file in files if _is_run(file.parent)]


def need_layers(given: Sequence[str] | None) -> list[str]:
    """Return the layers that were given; ask for them only where somebody can answer."""
    if given:
        return list(given)
    default = " ".join(LAYERS)
    return ask("--layers", "Which layers?", default=default).split() if interactive() else list(LAYERS)


def ask_pictures(split: str, num: int) -> tuple[list[Path], list[int]]:
    """Let somebody choose the whole split, one of its pictures or an image file; return files and numbers.

    Both are empty for the whole split.
    """
    question = (
        f"What to explain: all {num} pictures of the {split} split, one (0 to {num - 1}) or an image file?"
    )
    answer = ask("IMAGE", question, default="all")
    if answer == "all":
        return [], []
    return ([], [int(answer)]) if answer.isdecimal() else ([Path(answer).expanduser()], [])


def _is_run(folder: Path) -> bool:
    from seglens import record as records  # not above: pydantic takes its time, and help shouldn't

    try:
        return records.read(folder).kind in ("train", "adopt")
    except DataError:
        return False


def _choice(question: str, found: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in found[:9])
    return f"{question} ({shown})" if shown else question


def _one_line(text: str) -> str:
    return " ".join(text.split())
