"""Settings of methods as they are typed: ``rise.num_masks=500``, read by the type of the field."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from seglens.arguments.renamed import old_names_of, warn_of_old
from seglens.errors import SettingError, unknown_name
from seglens.explain.methods import METHODS, Method


def changed_methods(texts: Sequence[str], asked: Sequence[str]) -> dict[str, Method]:
    """Return the methods that ``texts`` change, by name, with their settings changed.

    Raises:
        UnknownNameError: there is no such method or setting; the nearest is named.
        SettingError: a text can't be read, comes twice, or is about a method that is not ``asked`` for.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        method, dot, setting = place.rpartition(".")
        if not (equals and dot and method and setting):
            raise SettingError(
                f"--set {text} can't be read. Write METHOD.SETTING=VALUE, such as "
                "integrated-gradients.steps=64."
            )
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
        if method not in asked:
            raise SettingError(
                f"--set {text} is a setting of {method}, which is not among {', '.join(asked)}. Add it to "
                "--methods or leave the setting out."
            )
        setting = _renewed(method, setting)
        kind = _type_of(method, setting)
        if setting in changes.setdefault(method, {}):
            raise SettingError(f"--set {method}.{setting} is given twice. Give one value.")
        changes[method][setting] = read_setting(value, kind, f"--set {method}.{setting}")
    made: dict[str, Any] = METHODS
    return {method: replace(made[method], **values) for method, values in changes.items()}


def typed_settings(method: str) -> dict[str, object]:
    """Return the types of a method's settings by name; none where it is a formula.

    What doesn't take part in comparisons is no plain value, such as pictures, and can't be typed.
    """
    value = METHODS[method]
    if not is_dataclass(value) or not hasattr(value, "label"):
        return {}
    hints = get_type_hints(type(value))
    return {field.name: hints[field.name] for field in fields(value) if field.init and field.compare}


def read_setting(text: str, kind: Any, what: str) -> Any:
    """Read ``text`` as a value of type ``kind``; ``what`` is what errors call it.

    Numbers, yes and no, names, ``none``, and values between commas for a tuple.

    Raises:
        UnknownNameError: it is none of the names that are allowed.
        SettingError: it is no such value, or can't be typed at all.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if NoneType in inner and text.lower() == "none":
            return None
        return _first(text, [part for part in inner if part is not NoneType], what)
    if origin is Literal:
        named = {str(name): name for name in inner}
        if text not in named:
            raise unknown_name(f"value of {what}", text, named)
        return named[text]
    if origin is tuple:
        parts = text.split(",") if text else []
        kinds = [inner[0]] * len(parts) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
        if len(kinds) != len(parts):
            raise SettingError(f"{what}={text} must be {len(kinds)} values with commas between them.")
        return tuple(read_setting(part, one, what) for part, one in zip(parts, kinds, strict=True))
    if kind not in READERS:
        raise SettingError(f"{what} can't be typed: it is a {kind}. Give it in Python.")
    try:
        return READERS[kind](text)
    except (ValueError, KeyError):
        raise SettingError(f"{what}={text} is not allowed: it must be {NAMES[kind]}.") from None


def pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """Return ``KEY=VALUE`` texts as a dict.

    Raises:
        SettingError: a text is none, or a key comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise SettingError(
                f"{flag} {text} can't be read. Write KEY=VALUE, such as decoder_interpolation=bilinear."
            )
        if key in found:
            raise SettingError(f"{flag} {key} is given twice. Give one value.")
        found[key] = value
    return found


def _renewed(method: str, setting: str) -> str:
    """Return what a setting is called today, with a warning where that is not how it was called."""
    old = old_names_of(type(METHODS[method]))
    if setting in old:
        warn_of_old(f"--set {method}", setting, old[setting])
    return old.get(setting, setting)


def _type_of(method: str, setting: str) -> Any:
    allowed = typed_settings(method)
    if not allowed:
        with_settings = ", ".join(name for name in METHODS if typed_settings(name))
        raise SettingError(f"{method} has no settings. Methods that have some: {with_settings}.")
    if setting not in allowed:
        raise unknown_name(f"setting of {method}", setting, allowed)
    return allowed[setting]


def _first(text: str, kinds: Sequence[Any], what: str) -> Any:
    """The first of several types that the text can be read as; the last one's error where it is none."""
    for kind in kinds[:-1]:
        try:
            return read_setting(text, kind, what)
        except SettingError:
            continue
    return read_setting(text, kinds[-1], what)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("not finite")
    return number


READERS: dict[Any, Any] = {
    int: int,
    float: _finite,
    str: str,
    bool: lambda text: {"true": True, "yes": True, "false": False, "no": False}[text.lower()],
}
NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
}
