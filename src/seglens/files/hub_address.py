"""Addresses of repositories on Hugging Face's hub, ``hf://owner/name``; its client is not needed to tell."""

import re
from pathlib import Path

from seglens.errors import SettingError

SCHEME = "hf:/"
"""How an address begins; as a `Path` it has lost the second of its strokes."""
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def is_address(file: str | Path) -> bool:
    """Whether ``file`` is the address of a repository."""
    return str(file).startswith(SCHEME)


def repository_of(address: str | Path) -> tuple[str, str | None]:
    """Return the name of a repository, and its revision (after an ``@``), in an address.

    Raises:
        SettingError: it names none.
    """
    name, _, revision = str(address).removeprefix("hf:").strip("/").partition("@")
    if not _REPOSITORY.fullmatch(name):
        raise SettingError(
            f"{name!r} names no repository of the hub. Allowed is OWNER/NAME, such as anna/pets; for adopt "
            "hf://anna/pets, or hf://anna/pets@REVISION."
        )
    return name, revision or None
