"""Modules that can be called, so that a public function and its module share one name.

``seglens.explain(...)`` is the function and ``seglens.explain.cams`` a module below it. A name can't be both
by plain assignment (importing a submodule rebinds it), so the module ``seglens.explain`` is itself callable.
"""

import sys
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
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
    sys.modules[module_name].__class__ = CallableModule
