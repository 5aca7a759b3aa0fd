"""The configuration of a MONAI bundle, read without running anything of it.

MONAI's own ``ConfigParser`` calls whatever ``_target_`` names and evaluates what follows a ``$``: a file can
do anything. Here components stay dictionaries, references (``@a::b``) and macros (``%a::b``) are followed,
and of expressions only arithmetic on plain values is worked out, by a walk through their syntax tree. Only
what is asked for is looked at, so that ``imports``, data lists and handlers never matter.
"""

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from seglens.data.tables import read_text
from seglens.errors import CheckpointError, DataError, ModelError

TARGET = "_target_"
MOST_BYTES = 2**22
MOST_VALUES = 100_000
"""Values that a configuration may come to once its references are followed."""
LONGEST = 1000
"""Letters of an expression, and items of a list or text that it makes."""
LARGEST = 2**53
"""Above it numbers of an expression are refused: powers of powers take forever."""
DTYPES = re.compile(r"(?:torch|np|numpy)\.((?:float|int|uint)\d+|bool|long|half|float|double|int)")
_REFERENCE = re.compile(r"@(\w+(?:::\w+)*)")
_IGNORED = (
    "_desc_",
    "_disabled_",
    "_mode_",
    "buffer_dim",
    "buffer_steps",
    "cache_roi_weight_map",
    "cpu_thresh",
    "device",
    "progress",
    "sw_device",
)
"""What is not looked at in a component: it says where numbers are kept, and not what they are."""
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (int, float, bool, len, max, min, abs, round, list, tuple)
}
"""What an expression may call: what has no effect and makes nothing large of something small."""


@dataclass(frozen=True)
class Config:
    """A configuration as it was written; ``file`` is for messages."""

    content: Mapping[str, Any]
    file: Path
    _count: list[int] = field(default_factory=lambda: [0])

    def __contains__(self, name: str) -> bool:
        return name in self.content

    def value(self, name: str) -> Any:
        """Return the entry ``name`` as plain data; components stay dictionaries with ``_target_``.

        Raises:
            ModelError: it would take more than that; it is said what.
        """
        return self._follow(name, ())

    def raw(self, value: Any) -> Any:
        """Return what a reference by itself stands for, as it was written; anything else as it is."""
        trail: list[str] = []
        while isinstance(value, str) and _REFERENCE.fullmatch(joined := value.strip().replace("#", "::")):
            if joined in trail:
                raise self._refused(joined, "refers to itself")
            trail.append(joined)
            value = self._at(joined[1:])
        return value

    def plain(self, value: Any, place: str) -> Any:
        """Return what was written at ``place`` as plain data, as `value` does."""
        return self._plain(value, place, ())

    def _follow(self, place: str, trail: tuple[str, ...]) -> Any:
        if place in trail:
            raise self._refused(f"@{place}", "refers to itself")
        return self._plain(self._at(place), place, (*trail, place))

    def _at(self, place: str) -> Any:
        """Return what was written at a place such as ``preprocessing::transforms::0``."""
        found: Any = self.content
        for step in place.split("::"):
            if isinstance(found, Mapping) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            else:
                raise self._refused(f"@{place}", f"is not there: there is no {step}")
        return found

    def _plain(self, value: Any, place: str, trail: tuple[str, ...]) -> Any:
        self._count[0] += 1
        if self._count[0] > MOST_VALUES:
            raise self._refused(place, f"comes to more than {MOST_VALUES} values")
        if isinstance(value, Mapping):
            if disabled := value.get("_disabled_"):
                raise self._refused(place, f"has _disabled_ = {disabled!r} where a value is wanted")
            if wrong := [key for key in value if key in ("_requires_", "_mode_") and value[key] != "default"]:
                raise self._refused(place, f"has {wrong[0]} = {value[wrong[0]]!r}")
            return {
                str(key): self._plain(each, f"{place}::{key}", trail)
                for key, each in value.items()
                if not (TARGET in value and key in _IGNORED)
            }
        if isinstance(value, list):
            kept = [
                each
                for each in value
                if not (isinstance(each, Mapping) and str(each.get("_disabled_")).lower() == "true")
            ]
            return [self._plain(each, f"{place}::{n}", trail) for n, each in enumerate(kept)]
        if isinstance(value, str):
            return self._text(value, place, trail)
        if value is None or isinstance(value, bool | int | float):
            return value
        raise self._refused(place, f"is {type(value).__name__}, which is no plain value")

    def _text(self, text: str, place: str, trail: tuple[str, ...]) -> Any:
        joined = text.strip().replace("#", "::") if text.strip()[:1] in ("@", "%", "$") else text
        if joined.startswith("%"):
            if not re.fullmatch(r"%\w+(::\w+)*", joined):
                raise self._refused(place, f"takes a part of another file ({text})")
            return self._follow(joined[1:], trail)
        if joined.startswith("$"):
            return self._worked_out(joined[1:], place, trail)
        if joined.startswith("@"):
            if not _REFERENCE.fullmatch(joined):
                raise self._refused(place, f"has the reference {text}")
            return self._follow(joined[1:], trail)
        return text

    def _worked_out(self, text: str, place: str, trail: tuple[str, ...]) -> Any:
        """Return the value of an expression of plain values and references.

        A type of numbers (``torch.float32``) stays what it is, a text that begins with ``$``.
        """
        if DTYPES.fullmatch(text.strip()):
            return f"${text.strip()}"
        names: dict[str, str] = {}

        def name_of(match: re.Match[str]) -> str:
            names[f"_reference_{len(names)}"] = match[1]
            return list(names)[-1]

        try:
            if len(text) > LONGEST:
                raise _NotPlainError(f"is longer than {LONGEST} letters")
            tree = ast.parse(_REFERENCE.sub(name_of, text).strip(), mode="eval")
            return _listed(_value(tree.body, lambda name: self._follow(names[name], trail), names))
        except _NotPlainError as error:
            raise self._refused(place, f"is the expression ${text}, which {error}") from error
        except (
            SyntaxError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            RecursionError,
            MemoryError,
        ) as error:
            raise self._refused(place, f"is the expression ${text}, which has no plain value") from error

    def _refused(self, place: str, what: str) -> ModelError:
        return ModelError(
            f"{self.file}: {place} {what}. Nothing of a configuration is run here. Allowed are plain values, "
            "references (@name), and expressions of numbers and references ($@size // 2): write the value "
            "itself in its place."
        )


class _NotPlainError(Exception):
    """An expression does more than work with plain values."""


def read_config(folder: Path) -> Config:
    """Return the inference configuration of a bundle, with its metadata under ``_meta_``.

    Raises:
        CheckpointError: a file is missing or can't be read.
    """
    found = [file for end in ("json", "yaml", "yml") if (file := folder / f"inference.{end}").is_file()]
    if len(found) != 1:
        names = ", ".join(file.name for file in found)
        raise CheckpointError(
            f"{folder} holds {names or 'no inference.json or inference.yaml'}; a MONAI bundle has one such "
            "file, with network_def, preprocessing, inferer and postprocessing."
        )
    content, meta = _read(found[0]), folder / "metadata.json"
    return Config({**content, "_meta_": _read(meta) if meta.is_file() else {}}, found[0])


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{file} has more than {MOST_BYTES} bytes: that is no configuration.")
        text = read_text(file)
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, OSError, DataError, yaml.YAMLError, RecursionError) as error:
        first = str(error).partition("\n")[0]
        raise CheckpointError(f"{file} can't be read: {first}. Restore the file of the bundle.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} doesn't hold names and values. Restore the file of the bundle.")
    return content


def _value(node: ast.expr, follow: Callable[[str], Any], names: Mapping[str, str]) -> Any:
    """Return the value of a part of an expression; what isn't needed isn't looked at, as in Python."""

    def of(part: ast.expr) -> Any:
        return _value(part, follow, names)

    match node:
        case ast.Constant(value=None | bool() | int() | float() | str()):
            return _bounded(node.value)
        case ast.Name(id=name) if name in names:
            return follow(name)
        case ast.List() | ast.Tuple():
            return [of(each) for each in node.elts]
        case ast.IfExp():
            return of(node.body) if of(node.test) else of(node.orelse)
        case ast.BoolOp():
            first, *rest = node.values
            found = of(first)
            for each in rest:
                if bool(found) == isinstance(node.op, ast.Or):
                    break
                found = of(each)
            return found
        case ast.UnaryOp() if type(node.op) in _OPERATORS:
            return _bounded(_OPERATORS[type(node.op)](of(node.operand)))
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _applied(_OPERATORS[type(node.op)], _bounded(of(node.left)), _bounded(of(node.right)))
        case ast.Compare() if len(node.ops) == 1 and type(node.ops[0]) in _OPERATORS:
            return _OPERATORS[type(node.ops[0])](of(node.left), of(node.comparators[0]))
        case ast.Subscript() if not isinstance(node.slice, ast.Slice):
            return of(node.value)[of(node.slice)]
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*(of(each) for each in node.args)))
    raise _NotPlainError(f"does more than work with plain values ({ast.unparse(node)[:60]})")


def _applied(operation: Callable[..., Any], left: Any, right: Any) -> Any:
    """Return what an operation makes of two values that can't become too large."""
    numbers = isinstance(left, bool | int | float) and isinstance(right, bool | int | float)
    if operation is operator.pow and (not numbers or abs(right) > 64 or abs(left) > LONGEST):
        raise _NotPlainError("takes a power of that size")
    if operation is operator.mod and not numbers:
        raise _NotPlainError("formats a text")
    if operation is operator.mul and not numbers and isinstance(left, int | str | list | tuple):
        times, items = (left, right) if isinstance(left, int) else (right, left)
        if isinstance(times, int) and times * len(items) > LONGEST:
            raise _NotPlainError(f"makes more than {LONGEST} items")
    return _bounded(operation(left, right))


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > LONGEST:
        raise _NotPlainError(f"makes more than {LONGEST} items")
    if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= LARGEST:
        raise _NotPlainError("makes too large a number")
    return value


def _listed(value: Any) -> Any:
    """Return a value with lists for tuples, as a record can hold it."""
    if isinstance(value, list | tuple):
        return [_listed(each) for each in value]
    return {key: _listed(each) for key, each in value.items()} if isinstance(value, dict) else value
