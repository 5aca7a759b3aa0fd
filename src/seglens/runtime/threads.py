"""Reading ahead in threads, so that the model does not wait for pictures."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[_Item], Result], items: Iterable[_Item], *, threads: int = 0
) -> Iterator[Result]:
    """Yield ``read(item)`` in order while the next few are read in threads (0: one a core, at most 8)."""
    threads = threads or min(8, os.cpu_count() or 1)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
