"""Output to the terminal, and questions to the user.

Results go to standard output; questions, warnings and errors to standard error, each error on one line.
Questions are asked only where standard input and standard error are a terminal, and never with ``--quiet``
or ``--json``; and only for what has no default.
"""

import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO
from unicodedata import category

import typer

from seglens.cli.names import misspelt_flag
from seglens.errors import DataError, SeglensError, SettingError, UserError
from seglens.files.overwrite import refuse_overlap
from seglens.runtime import progress
from seglens.runtime.signals import Terminated, drop_output

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: something went wrong or some pictures could not be done; the user's fault; Ctrl-C."""


_BREAKS = re.compile(r"(?<=[ _])|(?<=[a-z]-)|(?=@)|(?<=\.)(?=[A-Za-z])")
"""Where a cell of a table may go on in the next line: within names, and not within numbers."""

_DOCUMENT: ContextVar[TextIO | None] = ContextVar("document", default=None)
"""The stream for a JSON document; None where results are printed as tables."""

_MAY_ASK: ContextVar[bool] = ContextVar("may_ask", default=True)
"""Whether the output is for somebody who reads along: false with ``--quiet`` and ``--json``."""


_DIMS: ContextVar[int] = ContextVar("dims", default=2)
"""The axes of the samples that a command is about: 3 where they are volumes."""


def speak_of(dims: int) -> None:
    """Print, from now on, of volumes and voxels where ``dims`` is 3, and else of pictures and pixels."""
    _DIMS.set(dims)


def _in_words(text: str) -> str:
    from seglens.results.names import worded  # not above: help shouldn't wait for it

    return worded(text, _DIMS.get())


@contextmanager
def output_mode(*, as_json: bool, quiet: bool) -> Iterator[None]:
    """Choose how results are printed within the block.

    With ``as_json`` standard output belongs to the document of `print_result`: what else is printed, by
    whatever library, goes to standard error. With ``quiet`` nothing is printed there, and no progress is
    shown.
    """
    if not (as_json or quiet):
        yield
        return
    with open(os.devnull, "w") as nowhere:
        token, asking = _DOCUMENT.set(sys.stdout if as_json else None), _MAY_ASK.set(False)
        try:
            with redirect_stdout(nowhere if quiet else sys.stderr):
                if not quiet:
                    yield
                    return
                with progress.silence():
                    yield
        finally:
            _DOCUMENT.reset(token)
            _MAY_ASK.reset(asking)


def print_result(found: object, show: Callable[[], None]) -> None:
    """Print the result of a command: ``found``, plain data, as one JSON document, or what ``show`` prints.

    A command calls it once, as soon as it has its result; what is not a number becomes null.
    """
    document = _DOCUMENT.get()
    if document is None:
        show()
        return
    from seglens.results.record import to_json  # not above: pydantic takes its time, and help shouldn't

    print(to_json(found), file=document, flush=True)


def say(*lines: str) -> None:
    """Print lines of a result; nothing where there are none."""
    if lines:
        print(*(printable(_in_words(line)) for line in lines), sep="\n")


def warn(text: str) -> None:
    """Print one line to standard error; its beginning is coloured where colours are wanted."""
    name = "\033[1;31mseglens:\033[0m" if _coloured() else "seglens:"
    print(f"{name} {_one_line(_in_words(text))}", file=sys.stderr)


def _coloured() -> bool:
    """Whether standard error is a terminal with colours, and ``NO_COLOR`` is not set (no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


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


NO_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "bad alloc",
    "Storage size calculation overflowed",
    "array is too big",
    "Maximum allowed dimension exceeded",
    "too large to convert",
    "can't start new thread",
    "could not create a primitive\n",  # without "descriptor", which is about what an operation supports
    "could not create a memory object\n",
    "failed to map segment from shared object\n",  # where it isn't allowed to, that is said after it
)
"""Parts of the messages of torch and numpy where memory is not enough."""

STYLES = {
    "pass": "green",
    "warn": "yellow",
    "fail": "bold red",
    "better": "green",
    "worse": "bold red",
}
"""Cells of tables that have a colour, where colours are shown."""


def explain_error(error: BaseException, *, debug: bool) -> int:
    """Print an error on one line (with ``debug``, the trace before it), and return the exit code."""
    if debug and not isinstance(error, typer.Exit):
        traceback.print_exception(error)
    match error:
        case KeyboardInterrupt() | typer.Abort():
            warn(str(error) or "Stopped.")
            return INTERRUPTED
        case Terminated():
            warn(f"Stopped by signal {error.number}.")
            return 128 + error.number
        case UserError():
            warn(str(error))
            return MISUSED
        case SeglensError():
            warn(str(error))
            return FAILED
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "seglens"
            message = misspelt_flag(error) or error.format_message()
            warn(f"{message if message.endswith(('.', '?')) else message + '.'} See '{command} --help'.")
            return error.exit_code
        case BrokenPipeError():  # what reads our output has seen enough
            drop_output()
            return FAILED
        case OSError() if error.strerror:
            drop_output()  # where it is the output that has no room
            where = f": {error.filename}" if error.filename else ""
            warn(f"{error.strerror}{where}.")
            return FAILED
    if _is_of_memory(error):
        why = (str(error).strip().splitlines() or ["no more is to be had"])[0]
        warn(
            f"Memory doesn't suffice: {why.removesuffix('.')}. Take smaller pictures, networks or batches. "
            "What was there before is as it was."
        )
        return FAILED
    first = (str(error).strip().splitlines() or ["no message"])[0]
    warn(f"Unexpected {type(error).__name__}: {first.removesuffix('.')}. Run with --debug to see where.")
    return FAILED


def _is_of_memory(error: BaseException) -> bool:
    """Whether memory was not enough; torch and numpy raise errors of several types for it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ValueError | OverflowError | ImportError)
        and any(part in f"{error}\n" for part in NO_MEMORY)
    )


def list_failed(failed: Sequence[tuple[str, str]], num_total: int) -> None:
    """List pictures that could not be done, with the reason, and end with exit code 1; return if none.

    Raises:
        typer.Exit: there is one.
    """
    if not failed:
        return
    from seglens.results.names import count  # not above: help shouldn't wait for it

    warn(f"{len(failed)} of {count(num_total, 'picture')} could not be done:")
    for name, reason in failed:
        print(f"  {_one_line(name)}: {_one_line(reason)}", file=sys.stderr)
    raise typer.Exit(FAILED)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print a table: drawn in a terminal, plain columns elsewhere."""
    # One word is a name, which may be that of a class or a file.
    rows = [[_one_line(_in_words(cell) if " " in cell else cell) for cell in row] for row in rows]
    columns, title = [_in_words(column) for column in columns], _in_words(title)
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console()
        wide = (
            sum(max(map(len, column)) + 3 for column in zip(columns, *rows, strict=True)) + 1 <= console.width
        )
        head, *body = (columns, *rows) if wide else _narrowed((columns, *rows), console.width)
        drawn = Table(title=title or None, title_justify="left")
        if not wide:
            drawn.box, drawn.pad_edge, drawn.padding = SIMPLE_HEAD, False, (0, 1, 0, 0)
        for column in head:
            drawn.add_column(column, overflow="fold")
        for row, shown in zip(rows, body, strict=True):
            drawn.add_row(
                *(Text(new, style=STYLES.get(cell, "")) for cell, new in zip(row, shown, strict=True))
            )
        console.print(drawn)
        return
    if title:
        print(title)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _narrowed(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Break the cells of a table so that it is ``width`` wide, two blanks between columns, where that can be.

    Nothing is cut off, and no word is broken but one that is wider than the table.
    """
    columns = list(zip(*rows, strict=True))
    least = [max(len(part.rstrip()) for cell in column for part in _BREAKS.split(cell)) for column in columns]
    room = width - sum(least) - 2 * (len(columns) - 1)
    widths = []
    for narrowest, column in zip(least, columns, strict=True):
        more = max(0, min(room, max(map(len, column)) - narrowest))
        widths.append(narrowest + more)
        room -= more
    return [[_in_lines(cell, width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def _in_lines(cell: str, width: int) -> str:
    """Return a cell in lines of at most ``width``, unless a word is longer."""
    found = [""]
    for part in _BREAKS.split(cell):
        if found[-1] and len((found[-1] + part).rstrip()) > width:
            found.append("")
        found[-1] += part
    return "\n".join(line.rstrip() for line in found)


def interactive() -> bool:
    """Whether questions can be asked: somebody sits at a terminal, sees them and can answer."""
    return _MAY_ASK.get() and sys.stdin.isatty() and sys.stderr.isatty()


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


def keep_apart(
    out: Path | None, *, run: Path | None, data: Path | None = None, files: Sequence[Path] = ()
) -> None:
    """Refuse to write to ``out`` where that overlaps with what is read, before anything of it is.

    Raises:
        SettingError: it does.
    """
    if out is not None:
        refuse_overlap(out, runs=[run] if run else [], data=[data] if data else [], files=files)


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


def ask_pictures(split: str, num: int) -> tuple[list[Path], list[int]]:
    """Ask for the whole split, one of its pictures or an image file; return files and numbers.

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
    from seglens.results import record as records  # not above: pydantic takes its time, and help shouldn't

    try:
        return records.read_record(folder).kind in ("train", "adopt")
    except DataError:
        return False


def _choice(question: str, found: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in found[:9])
    return f"{question} ({shown})" if shown else question


def printable(text: str) -> str:
    """Return a text with the characters that a terminal obeys written as their numbers: names may hold some.

    Those are the control characters but for the end of a line, and what turns the direction of writing.
    """
    return "".join(
        letter if letter == "\n" or category(letter) not in ("Cc", "Cf") else ascii(letter)[1:-1]
        for letter in text
    )


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
