"""Threads that start only where memory suffices, and reading ahead in them, so that no model waits.

Python waits without end for a thread that runs out of memory before its first line (``Thread.start``):
work stood still where memory ended between two stages. `Pool` looks first.
"""

import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_Item = TypeVar("_Item")
Result = TypeVar("Result")
P = ParamSpec("P")

ROOM = 32 * 2**20
"""Bytes that must be free to start a thread: its stack (8 MB), what Python sets up for it, and a margin."""


class Pool(ThreadPoolExecutor):
    """A pool of threads that starts none where memory would not suffice for it.

    Raises:
        MemoryError: on ``submit`` and ``map``, there is no `ROOM`.
    """

    def submit(self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Future[Result]:
        """Have ``fn`` called in a thread."""
        refuse_without_room()
        return super().submit(fn, *args, **kwargs)


def refuse_without_room() -> None:
    """Raise where there is no `ROOM` to start a thread: reserved and given back, in microseconds.

    Raises:
        MemoryError: there is none.
    """
    try:
        mmap.mmap(-1, ROOM).close()
    except OSError as error:
        raise MemoryError(f"There are no {ROOM >> 20} MB of memory to start a thread in.") from error


def read_ahead(
    read: Callable[[_Item], Result], items: Iterable[_Item], *, threads: int = 0
) -> Iterator[Result]:
    """Yield ``read(item)`` in order while the next few are read in threads (0: one a core, at most 8)."""
    threads = threads or min(8, os.cpu_count() or 1)
    waiting: deque[Future[Result]] = deque()
    with Pool(threads) as pool:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
