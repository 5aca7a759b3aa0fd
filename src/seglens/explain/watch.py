"""Watch a pass at work: calls of the model, their seconds, bytes that are alive; stop when they are known.

Costs are taken from the method itself and not from a stand-in, so that whatever it does besides (masks,
formulas, another precision) is in them.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seglens.explain.costs import Cost
from seglens.models.segmenter import Segmenter

ENOUGH = {False: 10, True: 4}
"""Calls of the model without and with a graph after which a pass has shown what it costs.

A method may begin with a few calls that are unlike the rest, to try out what makes the rest faster.
"""

LAST = 3
"""Of the calls that were seen, the last ones tell how long the rest will take."""

RARE = 0.1
"""Calls without a graph that are fewer than this share of the others aren't waited for."""

FORWARD = 1 / 3
"""Share of a forward pass in a forward and a backward pass, roughly, for calls that weren't waited for."""


@dataclass
class Call:
    """One forward pass: of how many pictures, with a graph or without.

    Seconds until the next one began, and the most bytes that were alive meanwhile where that is asked for.
    """

    pictures: int
    graded: bool
    seconds: float = 0.0
    bytes: int = 0


@dataclass
class Watched:
    """The calls that were seen, with seconds and bytes before the first one."""

    calls: list[Call]
    before: float = 0.0
    bytes_before: int = 0

    def of(self, graded: bool) -> list[Call]:
        """The calls with a graph, or those without."""
        return [call for call in self.calls if call.graded == graded]

    def pace(self, graded: bool) -> float:
        """Seconds for each picture in the last large calls; guessed where none without a graph was seen."""
        calls = self.of(graded)
        if not calls:
            return 0.0 if graded else self.pace(True) * FORWARD
        most = max(call.pictures for call in calls)
        large = [call.seconds / most for call in calls if call.pictures == most][-LAST:]
        return sum(large) / len(large)

    @property
    def seconds(self) -> float:
        """Of everything that was seen."""
        return self.before + sum(call.seconds for call in self.calls)

    @property
    def most(self) -> int:
        """How many pictures were in the model at once."""
        return max((call.pictures for call in self.calls), default=0)


class _EnoughError(BaseException):
    """Ends a pass that is watched; nothing that handles errors is to see it."""


def watch(
    work: Callable[[], object],
    device: torch.device,
    enough: Callable[[Watched], bool],
    meter: "Meter | None" = None,
) -> Watched:
    """Run ``work`` and note every call of a `Segmenter`, until it ends or has shown ``enough``.

    With a ``meter`` bytes are noted, too; seconds are longer then.
    """
    seen = Watched([])
    last = now(device)

    def close() -> None:
        nonlocal last
        before, last = last, now(device)
        peak = meter.lap() if meter else 0
        if seen.calls:
            seen.calls[-1].seconds, seen.calls[-1].bytes = last - before, peak
        else:
            seen.before, seen.bytes_before = last - before, peak

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, Segmenter):
            close()
            if enough(seen):
                raise _EnoughError
            seen.calls.append(Call(len(given[0]), torch.is_grad_enabled()))

    handle = register_module_forward_pre_hook(note)
    try:
        work()
        close()
    except _EnoughError:
        pass
    finally:
        handle.remove()
    return seen


def shown(cost: Cost, num: int) -> Callable[[Watched], bool]:
    """Say when a pass over ``num`` pictures has shown every kind of call that it costs."""

    def enough(seen: Watched) -> bool:
        for graded, each in ((False, cost.plain), (True, cost.graded)):
            calls = seen.of(graded)
            rare = not graded and each < RARE * cost.graded
            if not rare and len(calls) < ENOUGH[graded] and sum(call.pictures for call in calls) < each * num:
                return False
        return True

    return enough


def now(device: torch.device) -> float:
    """Return the time at which the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Meter(Protocol):
    """Counts the bytes of tensors that are made while it is on."""

    def lap(self) -> int:
        """Return the most that were alive at once since the last time; begin anew with those now alive."""


@contextmanager
def metering(device: torch.device) -> Iterator[Meter]:
    """Count what tensors take: on a GPU as its allocator does, elsewhere by `LiveBytes`."""
    if device.type == "cuda":
        yield AllocatedBytes(device)
    else:
        with LiveBytes() as live:
            yield live


class AllocatedBytes:
    """What the allocator of a GPU has given out, above what it had before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)

    def lap(self) -> int:
        """See `Meter`."""
        peak = torch.cuda.max_memory_allocated(self._device) - self._before
        torch.cuda.reset_peak_memory_stats(self._device)
        return peak


class LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation makes until it is freed, those that autograd keeps included.

    What an operation needs inside of itself, such as the scratch of a convolution, is not seen.
    """

    peak: int
    live: int

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.live = 0
        self._known: set[int] = set()

    def lap(self) -> int:
        """See `Meter`."""
        peak, self.peak = self.peak, self.live
        return peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what is new in its results."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, id(storage), storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
