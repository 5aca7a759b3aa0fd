"""Which parameters were given on the command line, and which are defaults."""

from collections.abc import Sequence

import typer

from seglens.errors import SettingError

READING = "seglens.reading"
"""Where a context keeps the options that say how a set is read (`seglens.cli.data_options`)."""


def refuse_others(context: typer.Context, allowed: Sequence[str], reason: str) -> None:
    """Raise where a parameter that is not among ``allowed`` was given on the command line.

    Raises:
        SettingError: one was given.
    """
    for name in (*context.params, *context.meta.get(READING, ())):
        if name not in allowed and was_given(context, name):
            raise SettingError(f"{flag_of(name)} can't be given here: {reason}.")


def refuse(context: typer.Context, names: Sequence[str], reason: str) -> None:
    """Raise where one of the parameters ``names`` was given on the command line, which would do nothing.

    Raises:
        SettingError: one was given.
    """
    for name in names:
        if was_given(context, name):
            raise SettingError(f"{flag_of(name)} can't be given here: {reason}.")


def was_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def flag_of(name: str) -> str:
    """Return the flag of a parameter."""
    return f"--{name.strip('_').replace('_', '-')}"
