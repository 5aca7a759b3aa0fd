"""What was meant by a flag that a verb doesn't have. Verbs are guessed by Typer, values by verbs."""

from collections.abc import Iterator
from typing import Any

from seglens.cli.names import ELSEWHERE


def misspelt_flag(error: Exception) -> str:
    """Say what a flag that the verb doesn't have is called here, or which verbs have it; empty if unknown."""
    flag, context = getattr(error, "option_name", ""), getattr(error, "ctx", None)
    if not flag or context is None or not hasattr(error, "possibilities"):
        return ""
    flag = flag.partition("=")[0]
    ours = ELSEWHERE.get(flag.replace("_", "-").lower())
    if ours in _flags(context.command, context):
        return f"No such option: {flag}. Here it is called {ours}."
    near = sorted(name for name in error.possibilities or () if name.startswith("--"))
    spelled = flag.replace("_", "-").lower()
    same = [name for name in near if name in (spelled, f"{spelled}s", spelled.removesuffix("s"))]
    having = [name for name, verb in _verbs(context.find_root().command) if flag in _flags(verb, context)]
    if having and not same:
        return f"No such option: {flag}. It is one of {', '.join(having)}."
    return f"No such option: {flag}. Did you mean {' or '.join(same or near)}?" if near else ""


def _flags(verb: Any, context: Any) -> list[str]:
    found = verb.get_params(context)
    return [flag for option in found for flag in (*option.opts, *option.secondary_opts)]


def _verbs(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from _verbs(verb, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", verb
