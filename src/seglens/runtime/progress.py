"""Progress on long work: a bar with the time left in a terminal, nothing where output is no terminal."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import cycle
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

_Item = TypeVar("_Item")

LATE = 0.5
"""Seconds after which a wheel turns where nothing was printed."""

_SILENT = ContextVar("silent", default=False)


def is_shown() -> bool:
    """Whether progress is shown: in a terminal, unless it was silenced."""
    return sys.stderr.isatty() and not _SILENT.get()


@contextmanager
def silence() -> Iterator[None]:
    """Show no progress within."""
    before = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(before)


@contextmanager
def until_output(what: str) -> Iterator[None]:
    """Turn a wheel beside ``what`` on standard error, from `LATE` seconds on until anything is printed.

    Loading libraries takes seconds, in which nothing else would tell a terminal that work has begun. One that
    calls itself dumb can't go back in a line.
    """
    # Of several processes the first one speaks.
    if not is_shown() or "LOCAL_RANK" in os.environ or os.environ.get("TERM") == "dumb":
        yield
        return
    streams, printed = (sys.stdout, sys.stderr), Event()

    def turn() -> None:
        for wheel in cycle("-\\|/"):
            if printed.wait(0.1 if began else LATE):
                break
            began.append(streams[1].write(f"\r{wheel} {what}"))
            streams[1].flush()
        if began:
            streams[1].write("\r\x1b[K")
            streams[1].flush()

    began: list[int] = []
    turning = Thread(target=turn, daemon=True)

    def stop() -> None:
        printed.set()
        turning.join()

    watched = [_Watched(stream, stop) for stream in streams]
    turning.start()
    sys.stdout, sys.stderr = watched
    try:
        yield
    finally:
        stop()
        sys.stdout, sys.stderr = streams


class _Watched:
    """A stream that calls ``before`` each time when something is written to it."""

    def __init__(self, stream: Any, before: Callable[[], None]) -> None:
        self._stream, self._before = stream, before

    def write(self, text: str) -> int:
        self._before()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def track(items: Iterable[_Item], *, total: int, what: str) -> Iterator[_Item]:
    """Yield ``items`` under a progress bar on standard error called ``what``."""
    if not is_shown():
        yield from items
        return
    with _bar() as bar:
        yield from bar.track(items, total=total, description=what)


class Count(NamedTuple):
    """What a bar is told: how many more are ``made``, and how many are ``left`` at most from here on."""

    made: Callable[[int], None]
    left: Callable[[int], None]


@contextmanager
def counted(what: str, *, total: int) -> Iterator[Count]:
    """Yield what to tell a bar called ``what``, which shows how many of ``total`` are made."""
    if not is_shown():
        yield Count(lambda num: None, lambda num: None)
        return
    with _bar() as bar:
        task = bar.add_task(what, total=total)
        yield Count(
            lambda num: bar.advance(task, num),
            lambda num: bar.update(task, total=bar.tasks[0].completed + num),
        )


def _bar() -> "Progress":
    """Return a bar whose spinner and clock move while one long step is at work: nothing seems to stop."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn("line"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def count_bytes(what: str, *, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield a function to be told of bytes as they come, under a bar on standard error called ``what``.

    ``total`` is how many there will be (None: nobody knows), ``done`` how many there were before.
    """
    if not is_shown():
        yield lambda num: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda num: bar.advance(task, num)
