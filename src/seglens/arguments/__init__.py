"""Arguments of public functions are checked against their annotations; the error is one line.

A type checker sees a wrong type before the program runs; most notebooks have none. `checked` refuses by name
what an annotation doesn't allow, before any work is done. Values (ranges, shapes, names) are checked where
they are used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from inspect import Signature, signature
from pathlib import Path
from types import UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from seglens.arguments.default_type import float32_by_default
from seglens.errors import SettingError

P = ParamSpec("P")
R = TypeVar("R")

WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    type(None): "None",
}
"""Plain names of the most common types of arguments."""

HOW = {
    "Run": "Make one by seglens.load (a run folder) or seglens.wrap (any nn.Module).",
    "HasSegmenter": "Make one by seglens.load (a run folder) or seglens.wrap (any nn.Module).",
    "Target": "Make one by seglens.targets, such as seglens.targets.predicted(run, images).",
    "Explanation": "Make them by seglens.explain, or of anybody's map by seglens.Explanation(method=..., "
    "layer=None, target=target, map=...).",
    "Split": "Open one by seglens.open_split(run, 'test').",
    "DataSettings": "Write seglens.DataSettings(path=...) for a folder.",
    "Module": "Build the network and give it its weights: module.load_state_dict(...).",
    "Path": "Write pathlib.Path(...).",
    "ndarray": "Read files by seglens.read_images.",
}
"""How to get a value of a type, by the name of the type."""


RANGES: dict[str, tuple[int | float, int | float]] = {
    "seed": (0, 2**32 - 1),
    "split_seed": (0, 2**32 - 1),
    "pseudo_seed": (0, 2**32 - 1),
    "samples": (0, 10**9),
    "batch_size": (1, 2**16),
    "num_images": (1, 10**9),
    "epoch": (1, 10**9),
    "devices": (1, 1024),
    "num_nodes": (1, 4096),
    "image_size": (1, 2**14),
    "channels": (1, 1024),
    "width": (1, 1024),
    "port": (1, 2**16 - 1),
    "top": (0, 10**6),
    "memory": (1, 2**60),
    "stall_seconds": (0.1, 86400),
}
"""From where to where numbers go that mean the same everywhere, by the names of arguments and flags."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function``, which then refuses arguments that its annotations don't allow.

    Raises:
        SettingError: when called with one; it is named, with what was received and what is allowed.
    """

    @wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        hints, declared = _declared(function)
        try:
            given = declared.bind(*args, **kwargs).arguments
        except TypeError:  # a name or a number of arguments that Python itself reports, better than we could
            return function(*args, **kwargs)
        for name, value in given.items():
            _refuse_other(function.__name__, name, value, hints.get(name, Any))
            if name in RANGES:
                check_ranges(f"{function.__name__}: {name}", value, RANGES[name])
        with float32_by_default():
            return function(*args, **kwargs)

    return checking


def check_range(name: str, value: int | float | None, least: int | float, most: int | float) -> None:
    """Refuse a number that is not from ``least`` to ``most``, as NaN never is; None is no number.

    Raises:
        SettingError: it is not.
    """
    if value is not None and not least <= value <= most:
        long = isinstance(value, int) and abs(value) >= 10**18
        shown = "a number of more than 18 digits" if long else f"{value}"
        raise SettingError(f"{name} is {shown}, but must be from {least:.15g} to {most:.15g}.")


def check_ranges(name: str, value: object, bounds: tuple[int | float, int | float]) -> None:
    """Refuse a number, or one of a list of them, that is not within ``bounds``; what is none is let pass.

    Raises:
        SettingError: one is not.
    """
    for number in value if isinstance(value, list | tuple) else (value,):
        if isinstance(number, int | float):
            check_range(name, number, *bounds)


def check_fields(settings: Any) -> None:
    """Refuse a frozen dataclass of settings whose fields don't hold what they are annotated with.

    Raises:
        SettingError: the first that doesn't.
    """
    hints = get_type_hints(type(settings))
    # A wrong name is left to the settings, which know what each stands for.
    for field in fields(settings):
        value, allowed = getattr(settings, field.name), hints[field.name]
        if not (isinstance(value, str) and get_origin(allowed) is Literal):
            _refuse_other(type(settings).__name__, field.name, value, allowed)


def in_words(value: object) -> str:
    """Return a value as an error shows it: with its type, and no longer than a line."""
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{kind} of {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    text = repr(value) if isinstance(value, str | int | float | Path) else ""
    if isinstance(value, list | tuple) and len(repr(value)) <= 60:
        text = repr(value)
    return f"{text} ({kind})" if 0 < len(text) <= 80 else f"a value of type {kind}"


@cache
def _declared(function: Callable[..., Any]) -> tuple[dict[str, Any], Signature]:
    return get_type_hints(function), signature(function)


def _refuse_other(where: str, name: str, value: object, allowed: Any) -> None:
    if _fits(value, allowed):
        return
    hint = next((f" {HOW[kind]}" for kind in _kinds(allowed) if kind in HOW), "")
    union = get_origin(allowed) in (Union, UnionType)
    kinds = [kind for kind in get_args(allowed) if kind is not type(None)] if union else [allowed]
    if isinstance(value, str) and [get_origin(kind) for kind in kinds] in ([Sequence], [tuple]):
        hint = f" Write ({value!r},), or name all of them."
    raise SettingError(f"{where}: {name} must be {_said(allowed)}, received {in_words(value)}.{hint}")


def _fits(value: object, allowed: Any) -> bool:
    """Whether an annotation allows a value; where that can't be decided, the value is allowed."""
    origin, parts = get_origin(allowed), get_args(allowed)
    if allowed is Any or isinstance(allowed, TypeVar):
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if hasattr(allowed, "array_type"):
        return _is_array(value, allowed)
    if origin is tuple:
        each = parts[0] if len(parts) == 2 and parts[1] is Ellipsis else Any
        return isinstance(value, tuple) and all(_fits(entry, each) for entry in value)
    if origin is Sequence or origin is list:
        listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return listed and all(_fits(entry, parts[0]) for entry in value)  # type: ignore[attr-defined]
    if origin is Mapping or origin is dict:
        return isinstance(value, Mapping)
    if origin is Callable or allowed is Callable:
        return callable(value)
    if allowed is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if allowed is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or allowed) if isinstance(origin or allowed, type) else True


def _is_array(value: object, allowed: Any) -> bool:
    """Whether a tensor has the kind of numbers and the number of axes of a jaxtyping annotation.

    Not by isinstance, which would bind the letters of the axes for whoever called.
    """
    if not isinstance(value, allowed.array_type):
        return False
    kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
    fits = not allowed.dtypes or kind in allowed.dtypes
    return fits and ("*" in allowed.dim_str or getattr(value, "ndim", None) == len(allowed.dim_str.split()))


def _kinds(allowed: Any) -> list[str]:
    """The names of all types in an annotation, the outermost first."""
    found = [getattr(allowed, "__name__", "")]
    return found + [name for part in get_args(allowed) for name in _kinds(part)]


def _said(allowed: Any) -> str:
    """An annotation in words."""
    origin, parts = get_origin(allowed), get_args(allowed)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_said(part) for part in parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if hasattr(allowed, "array_type"):
        kind = allowed.__name__.partition("[")[0].lower()
        return f"a {kind} tensor [{' '.join(allowed.dim_str.split())}]"
    if origin in (Sequence, list, tuple):
        return f"a {'tuple' if origin is tuple else 'list or tuple'} of which each is {_said(parts[0])}"
    if origin in (Mapping, dict):
        return "a dict"
    if origin is Callable:
        return "a function"
    if allowed in WORDS:
        return WORDS[allowed]
    name = getattr(allowed, "__name__", str(allowed))
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
