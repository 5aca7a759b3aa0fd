"""The class of all commands: lists of values, flags that every command has, examples and completion."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from seglens.arguments import RANGES, check_ranges
from seglens.arguments.renamed import refuse_both, warn_of_old
from seglens.cli import terminal
from seglens.cli.examples import EXAMPLES
from seglens.cli.given_flags import flag_of
from seglens.cli.names import RENAMED
from seglens.data import limits
from seglens.errors import DataError
from seglens.files.hub_address import is_address
from seglens.runtime import progress

VALUES_END = "--"

SIZE = "--image-size"
"""A list of one to three numbers that ends where a word is none, so that DATA may come after it."""

SPLIT_AT_COMMAS = (
    "--samples",
    "--methods",
    "--layers",
    "--baseline",
    "--mean",
    "--std",
    "--class-weights",
    "--logger",
    "--scores",
    "--audit",
    "--export",
    SIZE,
)
"""Flags whose values hold no comma themselves; the name of a class may."""

READS_NO_PICTURES = ("get", "adopt", "layers", "push")
"""Commands that open no picture of the user's, so that ``--max-pixels`` means nothing to them."""

READ_BY_FLAGS = ("data", "stages", "pseudo", "repeat", "shortcut")
READ_BY_PLACE = ("run", "runs", "data", "images", "file")
"""Flags and arguments that name what is read; arguments of other names are what is made."""

_OPEN_LIST = "seglens.open_list"
"""Where a context keeps the list flag whose values are being typed, for completion."""


class Command(TyperCommand):
    """A command with ``--json`` and its like, and lists that take values in the ways that people write them.

    ``--samples 0 3 7``, ``--samples 0,3,7`` and ``--samples 0 --samples 3`` mean the same. The values of a
    list end at the next flag or at ``--``, so arguments come first: ``seglens explain RUN cell.png --layers
    encoder_last decoder_last``.

    The function of a command knows nothing of ``--json``, ``--quiet`` and ``--max-pixels``: it hands its
    result to `seglens.cli.terminal.print_result`, as plain data and as a function that prints it.
    """

    context_class: type[Any] = typer.Context  # what a command that asks for its context is said to get

    def get_params(self, ctx: Any) -> list[Any]:  # Click's Context and Parameter, wherever Typer keeps them
        """Return the command's own parameters, then those that all commands have, then ``--help``."""
        own = {parameter.name for parameter in self.params}
        own |= {"max_pixels"} if self.name in READS_NO_PICTURES else set()
        *found, last = super().get_params(ctx)
        found += [*(option for option in _EVERYWHERE if option.name not in own), last]
        if ctx.resilient_parsing and _OPEN_LIST in ctx.meta:  # what is typed now is no argument
            return [option for option in found if option.param_type_name == "option"]
        return found

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, after the lists have been spelled as one flag a value, which is what Click knows."""
        lists = {flag: flag in SPLIT_AT_COMMAS for option in self.params for flag in _list_flags(option)}
        known = {flag for option in self.params for flag in getattr(option, "opts", ())}
        args = renew_flags(args, {old: new for old, new in RENAMED.items() if new in known - {old}})
        rest = super().parse_args(ctx, spread_lists(args, lists))
        flag = open_list(args, lists)
        if flag is not None:
            ctx.meta[_OPEN_LIST] = flag
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command and print its result in the form that the flags ask for."""
        own = {parameter.name for parameter in self.params}
        asked = {
            option.name: ctx.params[option.name] if option.name in own else ctx.params.pop(option.name, None)
            for option in _EVERYWHERE
        }
        terminal.speak_of(_dims_of(ctx.params))
        check_options(ctx.params)
        _look_at_paths(self.params, ctx.params)
        with (
            # Before standard output is kept for the document of --json: that ends the wheel, too.
            nullcontext() if asked["quiet"] else progress.until_output("at work"),
            terminal.output_mode(as_json=asked["as_json"], quiet=asked["quiet"]),
            limits.allowing(asked["max_pixels"]),
        ):
            return super().invoke(ctx)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Offer flags, or values of the list that is being typed."""
        for option in self.params:
            if not incomplete.startswith("-") and ctx.meta.get(_OPEN_LIST) in getattr(option, "opts", ()):
                return list(option.shell_complete(ctx, incomplete))
        return super().shell_complete(ctx, incomplete)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write what stands below the options, and the examples of the command."""
        super().format_epilog(ctx, formatter)
        lines = EXAMPLES.get(ctx.command_path.partition(" ")[2], ())
        if lines:
            with formatter.section("Examples"):
                for line, what in lines:
                    formatter.write("".join(f"  {part}\n" for part in (f"# {what}", *_folded(line))))


class CommandGroup(TyperGroup):
    """The commands in the order in which they are used, which is that of the examples."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands; those without an example come last."""
        order = list(dict.fromkeys(words.partition(" ")[0] for words in EXAMPLES))
        return sorted(super().list_commands(ctx), key=lambda name: _place(order, name))


def renew_flags(args: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Write flags that are called by a name of before as they are called today, with a warning.

    Raises:
        SettingError: one is given by both names.
    """
    end = args.index(VALUES_END) if VALUES_END in args else len(args)
    given = [word.partition("=") for word in args[:end]]
    for old in renamed.keys() & {flag for flag, _, _ in given}:
        if any(flag == renamed[old] for flag, _, _ in given):
            refuse_both("", old, renamed[old])
        warn_of_old("", old, renamed[old])
    return [renamed.get(flag, flag) + equals + value for flag, equals, value in given] + list(args[end:])


def spread_lists(args: Sequence[str], lists: Mapping[str, bool]) -> list[str]:
    """Repeat each flag of ``lists`` before each of its values; True there means to split at commas too.

    >>> spread_lists(["run", "--samples", "0", "3,7", "--force"], {"--samples": True})
    ['run', '--samples', '0', '--samples', '3', '--samples', '7', '--force']
    """
    spelled: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == VALUES_END:
            return [*spelled, word, *rest]
        flag, equals, value = word.partition("=")
        if flag not in lists:
            spelled.append(word)
            continue
        values = [value] if equals else []
        while (
            not equals
            and rest
            and _is_value(rest[0])
            and not (flag == SIZE and values and not _is_number(rest[0]))
        ):
            values.append(rest.pop(0))
        if rest[:1] == [VALUES_END]:
            rest.pop(0)
        if lists[flag]:
            values = [part for value in values for part in value.split(",") if part]
        # A flag without values stays alone, for Click to say so.
        spelled += [part for value in values for part in (flag, value)] or [flag]
    return spelled


def open_list(args: Sequence[str], lists: Mapping[str, bool]) -> str | None:
    """Return the flag of ``lists`` whose values the next word would be among; None where it would not be.

    >>> open_list(["run", "--samples", "0", "3"], {"--samples": True})
    '--samples'
    """
    found = None
    for word in args:
        if word == VALUES_END:
            return None
        if not _is_value(word):
            found = word if word in lists else None
    return found


def check_options(values: Mapping[str, object]) -> None:
    """Raise a SettingError that names the first flag whose number is out of `RANGES`."""
    for name in RANGES.keys() & values.keys():
        check_ranges(flag_of(name), values[name], RANGES[name])


def _dims_of(values: Mapping[str, Any]) -> int:
    """Return the axes of what the first run takes; what is wrong with it is said when it is opened."""
    run = values.get("run") or next(iter(values.get("runs") or ()), None)
    try:
        found = json.loads((Path(run) / "run.json").read_bytes())["model"]["dims"] if run else 2
    except (OSError, ValueError, KeyError, TypeError):
        return 2
    return 3 if found == 3 else 2


def _look_at_paths(options: Sequence[Any], values: Mapping[str, Any]) -> None:
    """Refuse paths that are not there, before anything is loaded for what is.

    Of several pictures some may be missing: those are listed when the others are done.

    Raises:
        DataError: one is not there.
    """
    for option in options:
        by_place = option.param_type_name == "argument"
        if option.name not in (READ_BY_PLACE if by_place else READ_BY_FLAGS) or not values[option.name]:
            continue
        given = values[option.name]
        paths = [
            path for path in (given if isinstance(given, list | tuple) else [given]) if isinstance(path, Path)
        ]
        missing = [path for path in paths if not is_address(path) and not os.path.exists(path.expanduser())]
        if not missing or (option.name == "images" and len(missing) < len(paths)):
            continue
        if by_place and option.name in ("run", "runs"):
            from seglens.results import (
                record as records,  # not above: pydantic takes its time, and help shouldn't
            )

            records.read_record(missing[0])  # says which run may be meant
        name = (option.metavar or option.name.upper()).strip("[].") if by_place else option.opts[0]
        raise DataError(
            f"{name}: there is no {missing[0]}. Look for a mistyped name, or give the whole path."
        )


def _folded(line: str) -> list[str]:
    """Break a command line so that it can be copied."""
    parts = wrap(line, 72, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [f"{part} \\" for part in parts[:-1]] + parts[-1:]


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _is_number(word: str) -> bool:
    return word.replace(",", "").isdigit()


def _is_value(word: str) -> bool:
    """A word that is no flag: numbers may be negative."""
    return not word.startswith("-") or word[1:2].isdigit() or word[1:2] == "."


def _list_flags(option: object) -> tuple[str, ...]:
    return tuple(getattr(option, "opts", ())) if getattr(option, "multiple", False) else ()


_flags = typer.Typer(add_completion=False)


@_flags.command()
def _flags_of_every_verb(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document, and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings and errors.")] = False,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1, max=10**12, help="Pixels that one picture file may have.", show_default="100 million"
        ),
    ] = None,
) -> None:
    pass


_EVERYWHERE = typer.main.get_command(_flags).params
"""The options that every command has, made by Typer as it makes all others."""
