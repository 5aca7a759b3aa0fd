"""Settings of pydantic whose errors are one line: what is wrong, what was received, what is allowed."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from seglens.arguments import in_words
from seglens.errors import SettingError

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class Validated(BaseModel):
    """Named values that are checked when they are made, from Python or from a file, and frozen.

    A value that is not allowed raises a SettingError of one line. Values that contradict one another are
    refused by `_agree`, which may complete them.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            made = handler(values)
        except ValidationError as error:
            raise SettingError(f"{cls.__name__}: {fault(error, allowed=cls.model_fields)}.") from error
        try:
            made._agree()
        except ValueError as error:
            raise SettingError(f"{cls.__name__}: {error}.") from error
        return made

    def _agree(self) -> None:
        """Raise ValueError, or an error of Seglens, where values don't go together."""


def fault(error: ValidationError, *, called: Callable[[str], str] = str, allowed: Iterable[str] = ()) -> str:
    """Return the first fault in words, without a full stop; ``called`` is what a field is called.

    ``allowed`` are the names of the fields, of which the nearest is named where a name is unknown.
    """
    first = error.errors()[0]
    name, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if not name:
        return reason
    names = list(allowed)
    if first["type"] in UNKNOWN:
        near = get_close_matches(name, names, n=1)
        hint = f" Did you mean {called(near[0])}?" if near else ""
        shown = f" Allowed: {', '.join(map(called, names))}" if names else ""
        return f"there is no setting {called(name)}.{hint}{shown}".rstrip(".")
    if first["type"] in ("missing", "missing_argument"):
        return f"{called(name)} is missing: name it"
    value = first["input"]
    received = repr(value) if isinstance(value, int | float) else in_words(value)
    return f"{called(name)} is not allowed: {reason}, received {received}"
