"""The libraries of the extra ``medical``, imported where a file needs them."""

from importlib import import_module
from types import ModuleType

from seglens.errors import DataError


def imported(library: str, package: str, path: object) -> ModuleType:
    """Return the module ``library``, which ``path`` needs and the distribution ``package`` brings.

    Raises:
        DataError: it is not installed.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library.partition(".")[0]:
            raise
        raise DataError(
            f"{path} needs {package}, which is not installed. Install the extra: pip install "
            "'seglens[medical]'."
        ) from error
