"""The default type of torch: float32 in public functions, the caller's own while their network runs.

``torch.set_default_dtype`` is the caller's to set. What is computed here doesn't depend on it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CALLERS: list[Any] = []


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Make float32 the default type of torch, where it is loaded and another one was set."""
    torch = sys.modules.get("torch")
    theirs = None if torch is None else torch.get_default_dtype()
    if torch is None or theirs == torch.float32:
        yield
        return
    _CALLERS.append(theirs)
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(_CALLERS.pop())


@contextmanager
def callers_default() -> Iterator[None]:
    """Make the caller's default type that of torch again, for a network that relies on it."""
    if not _CALLERS:
        yield
        return
    torch = sys.modules["torch"]
    torch.set_default_dtype(_CALLERS[-1])
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
