"""Former names of public arguments and fields: they still work, with a warning."""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from seglens.errors import SettingError

C = TypeVar("C", bound=Callable[..., Any])
V = TypeVar("V")


def renamed(**names: str) -> Callable[[C], C]:
    """Return a decorator that accepts former names of arguments, as in ``renamed(chunk="batch_size")``.

    Of a class the old names can be read as well. Type checkers know the new ones only.

    Raises:
        SettingError: when an argument is given by both names.
    """

    def rename(known: C) -> C:
        if not isinstance(known, type):
            return _renaming(known, known.__name__, names)
        made: Any = known
        made.old_names = names
        made.__init__ = _renaming(made.__init__, known.__name__, names)
        for old, new in names.items():
            setattr(known, old, property(_reading(known.__name__, old, new)))
        return known

    return rename


def old_names_of(kind: type) -> Mapping[str, str]:
    """Return what the fields of a class were called before, and what they are called today."""
    return getattr(kind, "old_names", {})


def in_new_names(settings: Mapping[str, V], names: Mapping[str, str]) -> dict[str, V]:
    """Return what a record of before says, under the names of today."""
    return {names.get(name, name): value for name, value in settings.items()}


def warn_of_old(where: str, old: str, new: str) -> None:
    """Warn that a name is an old one, once for each line that uses it; of a command there is no ``where``."""
    warnings.warn(
        f"{_of(where)}{old} is now called {new}. The old name goes in a later version: write {new}.",
        FutureWarning,
        stacklevel=3,
    )


def refuse_both(where: str, old: str, new: str) -> None:
    """Raise, because one thing was given by two names."""
    raise SettingError(f"{_of(where)}{old} is the old name of {new}, and both were given. Give {new} only.")


def _of(where: str) -> str:
    return f"{where}: " if where else ""


def _renaming(function: C, where: str, names: Mapping[str, str]) -> C:
    @wraps(function)
    def taking(*args: Any, **kwargs: Any) -> Any:
        for old in names.keys() & kwargs.keys():
            if names[old] in kwargs:
                refuse_both(where, old, names[old])
            warn_of_old(where, old, names[old])
            kwargs[names[old]] = kwargs.pop(old)
        return function(*args, **kwargs)

    return taking  # type: ignore[return-value]


def _reading(where: str, old: str, new: str) -> Callable[[Any], Any]:
    def read(known: Any) -> Any:
        warn_of_old(where, old, new)
        return getattr(known, new)

    return read
