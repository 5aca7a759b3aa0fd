"""A plan: how often an explanation goes through the model. That follows from the settings, and is exact."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import torch

from seglens.arguments import checked
from seglens.arguments.byte_sizes import say_seconds
from seglens.arguments.inputs import Pictures, as_images
from seglens.arguments.renamed import renamed
from seglens.axes import size_of, spelled
from seglens.errors import SettingError
from seglens.explain.costs import cost_of
from seglens.explain.members import members_of
from seglens.explain.memory import BATCH_SIZE, within
from seglens.explain.methods import Method, ParsedMethods, methods_of, parse
from seglens.explain.passes import passes
from seglens.explain.target import Target, targets_on
from seglens.models.layers import resolve
from seglens.models.members import explained
from seglens.models.segmenter import each_pass
from seglens.results.names import count as counted
from seglens.runs import Run
from seglens.shapes import Images

COLUMNS = ("methods", "forwards", "backwards", "batch_size", "time")

TRIED = 3
"""Calls of the model after which a pass of one picture has shown whether it stays within a budget."""


@renamed(chunk="batch_size")
@dataclass(frozen=True)
class PassPlan:
    """Passes of all pictures through the model; the methods that share the trace share one entry.

    ``extra`` is how many more pairs of forward and backward pass may come where a method goes on until it is
    good enough. ``batch_size`` pictures are in the model at once, fewer where memory ends.
    """

    methods: tuple[str, ...]
    forwards: int
    backwards: int
    extra: int
    batch_size: int


@dataclass(frozen=True)
class WindowsPlan:
    """Pictures that are explained in windows; ``forwards`` are passes of one window, the prediction's too.

    They are what it takes where every window holds a pixel of the target: those that don't are left out of
    most passes. Where the pictures will fail, ``refused`` says why.
    """

    num_images: int
    windows: int
    forwards: int = 0
    refused: str = ""


@dataclass(frozen=True)
class Plan:
    """What an explanation takes; ``seconds`` are known where a first chunk was explained (`plan_folder`).

    ``num_images`` go into one input each; those that are explained in windows come on top, in ``large``.
    """

    num_images: int
    size: tuple[int, ...]
    targets: int
    passes: tuple[PassPlan, ...]
    large: WindowsPlan | None = None
    seconds: float | None = None

    @property
    def forwards(self) -> int:
        """Forward passes of one picture, or one window, through the model."""
        return sum(entry.forwards for entry in self.passes) + (self.large.forwards if self.large else 0)

    @property
    def backwards(self) -> int:
        """Backward passes of one picture and target."""
        return sum(entry.backwards for entry in self.passes)

    def to_json(self) -> dict[str, object]:
        """The plan and its sums as plain data."""
        return asdict(self) | {"forwards": self.forwards, "backwards": self.backwards}

    def rows(self) -> list[dict[str, str]]:
        """The plan as a table to be read: a row for each pass, one for pictures in windows, and the sum."""
        table: list[tuple[object, ...]] = []
        for entry in self.passes:
            more, counts = entry.extra, (entry.forwards, entry.backwards)
            spans = (f"{num} to {num + more}" if more else num for num in counts)
            table.append((" ".join(entry.methods), *spans, entry.batch_size, ""))
        what, large = f"all, {counted(self.num_images, 'picture')} of {spelled(self.size)}", self.large
        if large is not None:
            end = f": will fail. {large.refused}" if large.refused else ", all told"
            most = "" if large.refused else f"at most {large.forwards}"
            pictures, windows = counted(large.num_images, "picture"), counted(large.windows, "window")
            table.append((f"{pictures} in {windows}{end}", most, "", "", ""))
            what += f" and {large.num_images} in windows"
        time = "" if self.seconds is None else f"about {say_seconds(self.seconds)}"
        table.append((what, self.forwards, self.backwards, "", time))
        return [dict(zip(COLUMNS, map(str, row), strict=True)) for row in table]


@renamed(chunk="batch_size")
@checked
def plan(
    run: Run,
    images: Pictures,
    target: Target | Sequence[Target],
    *,
    methods: Method | Sequence[Method] = ("grad-cam",),
    layers: str | Sequence[str] = ("encoder_last", "decoder_last"),
    num_images: int | None = None,
    per_call: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
) -> Plan:
    """Say how often `explain` would go through the model with these arguments; nothing is explained.

    ``images`` may be a few of the ``num_images`` that are meant (as many as given, by default), which go to
    `explain` ``per_call`` at a time (all, by default). Pictures whose target is empty and channels that are
    constant are counted in full, though a method may leave them out. With ``memory`` each pass is begun on
    one picture.

    Raises:
        UnknownNameError, SettingError, ModelError: as `explain`.
    """
    if per_call is not None and per_call < 1:
        raise SettingError(f"per_call is {per_call}, but must be at least 1.")
    images = as_images(images, run.spec.channels, run.spec.dims)
    targets = targets_on(run, images, target)
    asked = parse(methods_of(methods))
    layers = asked.layers(layers)
    resolve(run.segmenter, layers)
    there = images.to(run.segmenter.device)
    num = len(images) if num_images is None else num_images
    if memory is not None:
        few = [one.select(slice(0, 1)) for one in targets]
        for step in passes(explained(run.segmenter), asked, layers, seed=seed):
            with within(memory, step.methods, there, 1), watched(lambda seen: seen.calls >= TRIED):
                step.work(there[:1], few, batch_size=1)
    most = BATCH_SIZE if batch_size is None else batch_size
    entries = count(run, asked, layers, there, len(targets), num, per_call or num, most)
    return Plan(num, size_of(images), len(targets), entries)


def count(
    run: Run,
    asked: ParsedMethods,
    layers: Sequence[str],
    images: Images,
    targets: int,
    num: int,
    per_call: int,
    batch_size: int = BATCH_SIZE,
) -> tuple[PassPlan, ...]:
    """Count what each pass takes for ``num`` pictures like ``images``, which go in ``per_call`` at a time."""
    found, members = [], len(members_of(run)) or 1
    segmenter = explained(run.segmenter)
    for step in passes(segmenter, asked, layers, seed=0):
        cost, most = cost_of(step, segmenter, images), batch_size
        if step.settings is None:
            most = min(most, per_call, num)
        forwards, each = members * cost.forwards(num, per_call, batch_size), num * members
        forwards *= targets if cost.apart else 1
        backwards = each * cost.graded * targets
        found.append(PassPlan(step.methods, forwards, backwards, each * cost.extra, most))
    return tuple(found)


class _EnoughError(BaseException):
    """Ends work that is watched. It is no `Exception`, so that no handler of errors takes it for one."""


@dataclass
class Seen:
    """Calls of the model, and the passes that were made in them; ``ended`` says that there were enough."""

    calls: int = 0
    passes: int = 0
    ended: bool = False
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.perf_counter() - self.began


@contextmanager
def watched(enough: Callable[[Seen], bool], backwards: int = 0) -> Iterator[Seen]:
    """Count what goes through any `Segmenter` within, and end the work at the call before which it's enough.

    With a graph each picture has so many ``backwards``, which take as long as two forward passes.
    """
    seen = Seen()

    def note(num: int) -> None:
        if enough(seen):
            raise _EnoughError
        seen.calls += 1
        seen.passes += num * (1 + 2 * backwards * torch.is_grad_enabled())

    try:
        with each_pass(note):
            yield seen
    except _EnoughError:
        seen.ended = True
