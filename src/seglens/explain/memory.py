"""Memory: chunks of work are halved where memory ends, and a budget in bytes is a memory that ends earlier.

Nothing is estimated: tensors are counted while a chunk is at work, and the chunk is ended when they are more
than the budget. `seglens.explain.trace.in_chunks` then goes on with half as many pictures. What lay there
before the chunk (weights, pictures, maps that were made) doesn't count.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seglens.arguments.byte_sizes import say_bytes
from seglens.axes import num_pixels, size_of, spelled
from seglens.errors import NoMemoryError, SettingError
from seglens.runtime.device import free_bytes, is_out_of_memory
from seglens.shapes import Images

BATCH_SIZE = 16
"""Pictures in the model at once where nobody says otherwise: larger chunks are hardly any faster."""

SCRATCH = 1.25
"""Memory of a process by the bytes of tensors that are seen: operations such as convolutions have scratch.

Peaks of child processes on a CPU were 1.0 to 1.16 times the tensors (``benchmarks/growth.py``).
"""

ROUGH = 16 * 1024
"""Bytes for each pixel of a picture that hardly a network takes: 4,096 maps of the picture's size.

Traced to the input, a U-Net takes 2 KB with a ResNet34, a U-Net++ with an EfficientNet-B5 12 KB.
"""

LEFT = 0.8
"""The share of a CPU's free memory that a chunk may take: a system without any ends processes."""

ADVICE = "or explain smaller pictures, fewer layers or fewer methods at a time."


class OverBudgetError(MemoryError):
    """A chunk took more than its budget; ``bytes`` is how much it had taken then."""

    def __init__(self, taken: int) -> None:
        self.bytes = taken
        super().__init__(f"The work took {say_bytes(taken)}, more than its budget.")


class LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation makes until it is freed, those that autograd keeps included.

    What an operation needs inside of itself, such as the scratch of a convolution, is not seen. A `chunk`
    may take ``limit`` bytes; with ``spare`` one of a single picture may take more.
    """

    live: int
    before: int
    peak: int

    def __init__(self, limit: int | None = None, *, spare: bool = False) -> None:
        super().__init__()
        self.limit = limit
        self.spare = spare
        self.live = self.peak = self.before = 0
        self._chunk: Literal["none", "several", "alone", "kept"] = "none"
        self._known: set[int] = set()

    @contextmanager
    def chunk(self, alone: bool) -> Iterator[None]:
        """Hold what is done within to the limit; a chunk in a chunk is held to that of the outer one.

        One picture ``alone`` can't be halved: it goes on to the end, so that the error says what it takes.

        Raises:
            OverBudgetError: it took more.
        """
        outer, peak = self._chunk, self.peak
        self.before = self.live if outer == "none" else self.before
        self.peak, self._chunk = self.live, "alone" if alone else "several"
        try:
            yield
            self.keep()
            peak = max(peak, self.peak)
        finally:
            self.peak, self._chunk = peak, outer

    def keep(self) -> None:
        """See `keep_chunk`."""
        if self._chunk == "alone" and not self.spare:
            self._check(self.peak)
        self._chunk = "kept"

    def _check(self, most: int) -> None:
        if self.limit is not None and most - self.before > self.limit:
            raise OverBudgetError(most - self.before)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what is new in its results."""
        self._count(args, new=False)
        result = func(*args, **(kwargs or {}))
        self._count((result,), new=True)
        if self._chunk == "several":
            self._check(self.live)
        return result

    def _count(self, values: Sequence[Any], *, new: bool) -> None:
        for value in values:
            if isinstance(value, list | tuple):
                self._count(value, new=new)
            elif isinstance(value, Tensor) and id(storage := value.untyped_storage()) not in self._known:
                size = storage.nbytes() if new else 0
                self._known.add(id(storage))
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._forget, id(storage), size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


_COUNTED: ContextVar[LiveBytes | None] = ContextVar("counted", default=None)


def one_chunk(*, alone: bool) -> AbstractContextManager[None]:
    """Hold a chunk of work to the budget that `within` set, if there is one; see `LiveBytes.chunk`."""
    counted = _COUNTED.get()
    return nullcontext() if counted is None else counted.chunk(alone)


def keep_chunk() -> None:
    """Say that what a chunk made is added to what others made: no budget ends it from here on."""
    counted = _COUNTED.get()
    if counted is not None:
        counted.keep()


@contextmanager
def within(memory: int | None, methods: Sequence[str], images: Images, batch_size: int) -> Iterator[None]:
    """Hold chunks of ``methods`` on ``images`` to ``memory`` bytes; say where one picture alone is too much.

    Without a budget chunks of several pictures are held to the free memory of a CPU, where ``batch_size`` of
    them could be more than that. (A GPU says by itself when it is full.)

    Raises:
        SettingError: not even one picture is within the budget.
        NoMemoryError: memory ended with one picture.
    """
    size = size_of(images)
    what = f"{', '.join(methods)} on one picture of {spelled(size)} pixels takes"
    limit, free = memory, free_bytes(images.device) if memory is None else None
    if free is not None and batch_size * num_pixels(size) * ROUGH > LEFT * free:
        limit = int(LEFT * free)
    try:
        if limit is None:
            yield
            return
        with LiveBytes(int(limit / SCRATCH), spare=memory is None) as counted:
            token = _COUNTED.set(counted)
            try:
                yield
            finally:
                _COUNTED.reset(token)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if isinstance(error, OverBudgetError) and memory is not None:
            raise SettingError(
                f"{what} about {say_bytes(round(error.bytes * SCRATCH))}, more than the budget of "
                f"{say_bytes(memory)}. Allow that much, {ADVICE}"
            ) from error
        raise NoMemoryError(
            f"{what} more memory than {images.device} has left. Free some, {ADVICE} The first line of "
            f"what was said: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
        ) from error
