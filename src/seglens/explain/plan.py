"""A plan: what an explanation will take, before it is made.

Passes through the model follow from the settings and are exact. Seconds and bytes are measured: each pass
begins its work on the pictures given, with the batch size that it will have, and is stopped when it has shown
how long a call takes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from seglens.arguments import checked
from seglens.arguments.byte_sizes import say_bytes
from seglens.arguments.inputs import Pictures, as_images, names_of
from seglens.arguments.renamed import renamed
from seglens.explain.costs import Cost, cost_of
from seglens.explain.memory import Needs, batch_size_of, measure, sample
from seglens.explain.methods import Method, methods_of, sorted_out
from seglens.explain.passes import Pass, passes
from seglens.explain.target import Target, targets_on
from seglens.explain.watch import Watched, shown, watch
from seglens.models.layers import resolve
from seglens.runs import Run

SHORT = 1.0
"""A pass that showed what it takes in less than so many seconds is timed again, now that it is warm."""


@renamed(chunk="batch_size")
@dataclass(frozen=True)
class PassPlan:
    """What one pass takes for all pictures; the methods that share the trace share one pass.

    ``extra`` is how many more pairs of forward and backward pass may come where a method goes on until it is
    good enough, and ``seconds_at_most`` the time with all of them. ``bytes`` are as in ``memory.py``.
    """

    methods: tuple[str, ...]
    forwards: int
    backwards: int
    extra: int
    batch_size: int
    bytes: int
    seconds: float
    seconds_at_most: float


@dataclass(frozen=True)
class WindowsPlan:
    """What pictures take that are explained in windows, all told, as measured on the smallest of them.

    ``forwards`` are passes of one window, those of the prediction among them. Where the methods mean nothing
    over windows, ``refused`` says so, and the pictures will be listed as failed.
    """

    num_images: int
    windows: int
    forwards: int = 0
    bytes: int = 0
    seconds: float = 0.0
    refused: str = ""


@dataclass(frozen=True)
class Plan:
    """What an explanation takes; ``rest`` are the seconds for each picture of all that is not a pass.

    ``num_images`` go into one input each; those that are explained in windows come on top, in ``large``.
    """

    num_images: int
    size: tuple[int, int]
    targets: int
    passes: tuple[PassPlan, ...]
    rest: float = 0.0
    large: WindowsPlan | None = None

    @property
    def forwards(self) -> int:
        """Forward passes of one picture, or one window, through the model."""
        return sum(entry.forwards for entry in self.passes) + (self.large.forwards if self.large else 0)

    @property
    def backwards(self) -> int:
        """Backward passes of one picture and target."""
        return sum(entry.backwards for entry in self.passes)

    @property
    def bytes(self) -> int:
        """The most that any pass takes."""
        return max([entry.bytes for entry in self.passes] + [self.large.bytes if self.large else 0])

    @property
    def seconds(self) -> float:
        """Of everything."""
        in_windows = self.large.seconds if self.large else 0.0
        return sum(entry.seconds for entry in self.passes) + self.rest * self.num_images + in_windows

    def to_json(self) -> dict[str, Any]:
        """The plan and its sums as plain data."""
        sums = {"forwards": self.forwards, "backwards": self.backwards}
        return asdict(self) | sums | {"bytes": self.bytes, "seconds": self.seconds}

    def rows(self) -> list[dict[str, str]]:
        """The plan as a table to be read: a row for each pass, what is not a pass, and the sum."""
        table = [
            {
                "methods": " ".join(entry.methods),
                "forwards": f"{entry.forwards}"
                + (f" to {entry.forwards + entry.extra}" if entry.extra else ""),
                "backwards": f"{entry.backwards}"
                + (f" to {entry.backwards + entry.extra}" if entry.extra else ""),
                "batch_size": f"{entry.batch_size}",
                "memory": say_bytes(entry.bytes),
                "time": say_seconds(entry.seconds)
                + (f" to {say_seconds(entry.seconds_at_most)}" if entry.extra else ""),
            }
            for entry in self.passes
        ]
        blank = {"forwards": "", "backwards": "", "batch_size": "", "memory": ""}
        if self.rest:
            time = say_seconds(self.rest * self.num_images)
            table.append({"methods": "reading, measuring, writing", **blank, "time": time})
        what = f"all, {self.num_images} pictures of {self.size[0]} x {self.size[1]}"
        if self.large is not None:
            table.append(_row_of_windows(self.large))
            what += f" and {self.large.num_images} in windows"
        total = {
            "methods": what,
            "forwards": f"{self.forwards}",
            "backwards": f"{self.backwards}",
            "batch_size": "",
            "memory": say_bytes(self.bytes),
            "time": say_seconds(self.seconds),
        }
        return [*table, total]


def _row_of_windows(large: WindowsPlan) -> dict[str, str]:
    """The pictures in windows as a row of the table."""
    what = f"{large.num_images} pictures in {large.windows} windows"
    if large.refused:
        blank = dict.fromkeys(("forwards", "backwards", "batch_size", "memory", "time"), "")
        return {"methods": f"{what}: will fail. {large.refused}", **blank}
    return {
        "methods": f"{what}, all told",
        "forwards": f"{large.forwards}",
        "backwards": "",
        "batch_size": "",
        "memory": say_bytes(large.bytes),
        "time": say_seconds(large.seconds),
    }


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
    """Say what `explain` would take with these arguments; nothing is explained.

    ``images`` may be a few of the ``num_images`` that are meant (as many as given, by default), which go to
    `explain` ``per_call`` at a time (all, by default). Pictures whose target is empty and channels that are
    constant are counted in full, though a method may leave them out.

    Raises:
        UnknownNameError, SettingError, ModelError: as `explain`.
    """
    images = as_images(images, run.spec.channels)
    targets = targets_on(run, images, target)
    asked = sorted_out(methods_of(methods))
    layers = names_of(layers) if asked.need_layers else ()
    resolve(run.segmenter, layers)
    there = images.to(run.segmenter.device)
    num = len(images) if num_images is None else num_images
    together = min(num, per_call or num)
    steps = passes(run.segmenter, asked, layers, seed=seed)
    planned = []
    for step in steps:
        size = batch_size_of(
            step, run.segmenter, there, targets, num=together, batch_size=batch_size, memory=memory
        )
        need = measure(step, run.segmenter, there, targets)
        cost = cost_of(step, run.segmenter, there, len(targets))
        few, aims = sample(there, targets, min(size, together))
        work = partial(step.work, few, aims, size)
        seen = watch(work, run.segmenter.device, shown(cost, len(few)))
        if seen.seconds < SHORT:
            seen = watch(work, run.segmenter.device, shown(cost, len(few)))
        planned.append(_of_pass(step, cost, need, seen, len(few), num, -(-num // together)))
    return Plan(num, (images.shape[-2], images.shape[-1]), len(targets), tuple(planned))


def _of_pass(
    step: Pass, cost: Cost, need: Needs, seen: Watched, shown: int, num: int, calls: int
) -> PassPlan:
    """Draw from a pass that was ``seen`` on ``shown`` pictures what it takes on ``num``, in so many calls."""
    plain, graded = seen.pace(graded=False), seen.pace(graded=True)
    seconds = (
        num * (seen.before / shown + cost.plain * plain + cost.graded * graded) + calls * cost.once * plain
    )
    return PassPlan(
        methods=step.methods,
        forwards=cost.forwards(num, calls),
        backwards=num * cost.backwards,
        extra=num * cost.extra,
        batch_size=seen.most,
        bytes=need.of(seen.most),
        seconds=seconds,
        seconds_at_most=seconds + num * cost.extra * graded,
    )


def say_seconds(seconds: float) -> str:
    """Write a duration with two digits or so.

    >>> say_seconds(0.0423), say_seconds(75), say_seconds(7300)
    ('0.042 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
