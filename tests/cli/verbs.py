"""Every verb of the command line."""

import typer

from seglens import cli


def commands(group=None, prefix=()):
    """Every verb by its words, with its Click command."""
    group = group or typer.main.get_command(cli.app)
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from commands(verb, (*prefix, name))
        else:
            yield (*prefix, name), verb


VERBS = {" ".join(words): verb for words, verb in commands()}
"""Every verb as it is typed, with its Click command."""
