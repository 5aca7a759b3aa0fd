"""Modules that can be called: a verb's module, function and command share one name.

``seglens.explain(...)`` is the function and ``seglens.explain.cams`` the module below it. A name can't
be both by plain assignment (importing a submodule rebinds it), so a verb's module is itself callable.
"""

import sys
from types import ModuleType
from typing import Any


class Verb(ModuleType):
    """A module whose call is a call of the function that bears the module's name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with what was given."""
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """The function, where ``inspect.signature`` looks for it."""
        return self.__dict__[self.__name__.rpartition(".")[2]]


def make_callable(module_name: str) -> None:
    """Make the module called ``module_name`` callable; call it with ``__name__`` at the module's foot."""
    sys.modules[module_name].__class__ = Verb
