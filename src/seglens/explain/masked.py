"""The perturbation engine: the scores that a model gives to changed copies of pictures, one for each copy.

One engine serves every method and every judge that changes the input and looks what becomes of the score.
"""

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seglens.axes import CHANNELS_LAST, axes, num_pixels, size_of
from seglens.errors import SettingError
from seglens.evaluate.correlation import spearman
from seglens.explain.target import Target, Unit
from seglens.explain.trace import in_chunks
from seglens.models.folding import quick
from seglens.models.segmenter import Segmenter, evaluating
from seglens.runtime.device import at_once, choose_precision
from seglens.runtime.progress import is_shown
from seglens.shapes import Images, Logits, Maps, Rows

Perturb = Callable[[Images, Rows], Images]
"""Gets clean copies of pictures and which copies of all they are; gives the changed ones."""

Read = Callable[[Logits, Rows], Float[Tensor, "numbers n"]]
"""Gets the logits of changed copies and which pictures they are of; gives some numbers for each copy."""

TargetScores = Float[Tensor, "targets n"]
"""One score for each target and copy."""

Agreement = Float[Tensor, "targets b"]
"""One number for each target and picture."""

Compile = Literal["never", "auto", "always"]
COMPILE = ("never", "auto", "always")

PAYS = 4000 * 256 * 256
"""Pixels to be sent through the model from which on `auto` compiles it: that takes about half a minute."""

SAMPLE = 16
"""Copies of each picture that are scored in float32 as well where the model runs in bfloat16."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model made ready for many forward passes without gradients.

    ``size`` is the batch that it was compiled for, which took ``seconds``; 0 where it was not compiled.
    """

    segmenter: Segmenter
    precision: Literal["32", "bf16"] = "32"
    channels_last: bool = False
    size: int = 0
    seconds: float = 0.0

    def forward(self, images: Images) -> Logits:
        """Return the logits of raw images, in float32 at least."""
        num, size = len(images), self.size
        if size >= num:  # Other shapes would be compiled anew: it is the batch, or halves when memory ends.
            while size // 2 >= num:
                size //= 2
            images = torch.cat([images, images[-1:].expand(size - num, *images.shape[1:])])
        if self.channels_last:
            images = images.contiguous(memory_format=CHANNELS_LAST[images.ndim - 2])
        mixed = self.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed):
            return self.segmenter(images)[:num]


def prepare(
    segmenter: Segmenter,
    images: Images,
    *,
    forwards: int,
    batch_size: int,
    precision: str = "32",
    compile: Compile = "never",
    fold: bool = True,
) -> Prepared:
    """Make a faster copy of the model: batch norms folded (see `quick`), channels last, perhaps compiled.

    ``precision`` is as in `choose_precision`; in bfloat16 logits leave the model as float32 all the same.
    ``compile`` set to ``auto`` tries it where ``forwards`` pictures like ``images`` can make up for the time
    that it takes, and keeps what is quicker (on CPUs without AMX that is often the uncompiled network). Where
    compiling fails (on a CPU it needs a C++ compiler) a warning says so and the model runs uncompiled.
    Without ``fold`` every layer is still there and returns what it returned.

    Raises:
        SettingError: there is no such precision, or ``compile`` is none of `COMPILE`.
    """
    chosen = choose_precision(precision, segmenter.device)
    check_compile(compile)
    own = quick(segmenter) if fold else segmenter
    if segmenter.spec.foreign:  # as it is: it may rely on the order of memory
        model = Prepared(own, chosen, channels_last=chosen == "bf16")
    else:
        own = deepcopy(segmenter).eval() if own is segmenter else own
        model = Prepared(own.to(memory_format=CHANNELS_LAST[own.spec.dims]), chosen, channels_last=True)
    pays = forwards * num_pixels(size_of(images)) >= PAYS
    if compile == "never" or (compile == "auto" and not pays):
        return model
    most = at_once(size_of(images), segmenter.device, batch_size)
    trial = images[:1].to(segmenter.device).expand(min(most, max(forwards, 1)), *images.shape[1:])
    compiled = _compiled(model, trial)
    return compiled if compile == "always" or _seconds(compiled, trial) < _seconds(model, trial) else model


def check_compile(value: str) -> None:
    """Raise where ``value`` is none of `COMPILE`.

    Raises:
        SettingError: it is not.
    """
    if value not in COMPILE:
        raise SettingError(f"compile is {value!r}. Allowed: {', '.join(COMPILE)}.")


def check_precision(value: str) -> None:
    """Raise where ``value`` is no precision.

    Raises:
        SettingError: it is not.
    """
    choose_precision(value, torch.device("cpu"))


def _compiled(model: Prepared, trial: Images) -> Prepared:
    """Compile for chunks like ``trial``; the same model again where that fails."""
    began = time.perf_counter()
    network = torch.compile(model.segmenter.module, dynamic=False, options={"freezing": True})
    assert isinstance(network, nn.Module)  # a module's compiled form is one
    own = model.segmenter
    ready = replace(model, segmenter=Segmenter(network, own.spec, own.select, own.call), size=len(trial))
    try:
        _seconds(ready, trial)
    except RuntimeError as error:  # of many kinds, with the compiler's output behind the first line
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"The network runs uncompiled, because compiling failed: {reason}. Install a C++ compiler, or "
            "ask for compile='never'.",
            UserWarning,
            stacklevel=3,
        )
        return model
    seconds = time.perf_counter() - began
    if is_shown():
        print(f"Compiled the network in {seconds:.0f} s.", file=sys.stderr)
    return replace(ready, seconds=seconds)


def _seconds(model: Prepared, trial: Images) -> float:
    """How long one forward pass takes."""
    began = time.perf_counter()
    with evaluating(model.segmenter), torch.no_grad():
        model.forward(trial).sum().item()  # which waits for a GPU
    return time.perf_counter() - began


def score_copies(
    model: Prepared,
    images: Images,
    targets: Sequence[Target],
    rows: Rows,
    perturb: Perturb,
    *,
    unit: Unit = "probability",
    batch_size: int = 16,
) -> TargetScores:
    """Score ``len(rows)`` changed copies; copy i is of picture ``rows[i]`` and keeps its frozen pixels.

    All targets are scored from the same forward pass. Copies are made and scored ``batch_size`` at a time, or
    fewer on a CPU (`at_once`) and where memory runs out. That changes nothing in the result as long as
    ``perturb`` treats every copy by itself. Scores are on the model's device, and nothing here waits for it.
    """
    targets = [replace(target, pixels=target.pixels.to(model.segmenter.device)) for target in targets]

    def read(logits: Logits, which: Rows) -> TargetScores:
        return torch.stack([target.score(logits, which, unit) for target in targets])

    return read_copies(model, images, rows, perturb, read, len(targets), batch_size=batch_size)


def clean_logits(
    model: Prepared, images: Images, targets: Sequence[Target], *, batch_size: int = 16
) -> Float[Tensor, "targets b *size"]:
    """Return what each target reads of the pictures as they are, pixel by pixel (see `Target.logit`)."""
    device, parts = model.segmenter.device, list[Tensor]()

    def work(part: slice) -> None:
        logits = model.forward(images[part].to(device))
        parts.append(torch.stack([target.logit(logits) for target in targets]))

    with evaluating(model.segmenter), torch.no_grad():
        in_chunks(len(images), at_once(size_of(images), device, batch_size), work)
    return torch.cat(parts, 1)


def score_drops(
    model: Prepared,
    images: Images,
    targets: Sequence[Target],
    rows: Rows,
    perturb: Perturb,
    clean: Float[Tensor, "targets b *size"],
    *,
    unit: Literal["sum", "mean"] = "sum",
    batch_size: int = 16,
) -> TargetScores:
    """Return how much each copy loses: the score of its picture, as in ``clean``, less its own.

    They are subtracted pixel by pixel. A change of a millionth would be lost in the rounding of two sums.
    """
    targets = [replace(target, pixels=target.pixels.to(model.segmenter.device)) for target in targets]

    def read(logits: Logits, which: Rows) -> TargetScores:
        pairs = zip(targets, clean, strict=True)
        return torch.stack(
            [target.over(before[which] - target.logit(logits), which, unit) for target, before in pairs]
        )

    return read_copies(model, images, rows, perturb, read, len(targets), batch_size=batch_size)


def read_copies(
    model: Prepared,
    images: Images,
    rows: Rows,
    perturb: Perturb,
    read: Read,
    num: int,
    *,
    batch_size: int = 16,
) -> Float[Tensor, "numbers n"]:
    """Return the ``num`` numbers that ``read`` gives of each changed copy, as `score_copies` does scores."""
    device = model.segmenter.device
    images, rows = images.to(device), rows.to(device)
    copies = torch.arange(len(rows), device=device)
    found = torch.empty(num, len(rows), device=device)

    most = at_once(size_of(images), device, batch_size)

    def work(part: slice) -> None:
        changed = perturb(images[rows[part]], copies[part])
        logits = torch.cat([model.forward(few) for few in changed.split(most)])
        found[:, part] = read(logits, rows[part])

    with evaluating(model.segmenter), torch.no_grad():
        # Imputers take more at once than a model: their steps are many and short.
        in_chunks(len(rows), min(batch_size, 4 * most), work)
    return found


def clean_scores(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    *,
    unit: Unit = "probability",
    batch_size: int = 16,
) -> TargetScores:
    """Score the pictures as they are."""
    model, rows = Prepared(segmenter), torch.arange(len(images))
    return score_copies(model, images, targets, rows, lambda same, _: same, unit=unit, batch_size=batch_size)


def rank_agreement(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    rows: Rows,
    perturb: Perturb,
    scores: TargetScores,
    *,
    unit: Unit,
    batch_size: int = 16,
) -> Agreement:
    """Spearman's rank correlation of ``scores`` with those of the given model in float32, per picture.

    Over `SAMPLE` copies of each picture, evenly spaced; NaN where there are fewer than 3, or all are equal.
    """
    picked = [_spaced((rows == row).nonzero()[:, 0]) for row in range(len(images))]
    sample = torch.cat(picked)
    exact = score_copies(
        Prepared(segmenter),
        images,
        targets,
        rows[sample],
        lambda copies, which: perturb(copies, sample[which]),
        unit=unit,
        batch_size=batch_size,
    )
    sizes = [len(part) for part in picked]
    pairs = zip(scores[:, sample].split(sizes, 1), exact.split(sizes, 1), strict=True)
    return torch.stack([_spearman(one, other) for one, other in pairs], 1)


def _spaced(copies: Rows) -> Int[Tensor, " sample"]:
    """At most `SAMPLE` of them, evenly spaced."""
    at = torch.linspace(0, len(copies) - 1, min(SAMPLE, len(copies)), dtype=torch.float64)
    return copies[at.round().long().to(copies.device)]


def _spearman(one: TargetScores, other: TargetScores) -> Float[Tensor, " targets"]:
    """The rank correlation of each row; NaN for fewer than three copies."""
    if one.shape[1] < 3:
        return torch.full((len(one),), torch.nan, device=one.device)
    return spearman(one, other).to(one.device, torch.float32)


def faded(segmenter: Segmenter, images: Images, masks: Maps) -> Images:
    """Show each picture through its mask, 1 as it is and 0 as the data set's mean: ``x0 + m (x - x0)``.

    After normalisation that is ``m x``, what the papers of Score-CAM and RISE do, since ``x0`` becomes 0.
    """
    low, high = segmenter.spec.window
    # A model that normalises by each picture knows no mean of the data: the picture's own stands for it.
    own = segmenter.spec.normalise == "image"
    mean = images.mean(axes(images), keepdim=True) if own else low + segmenter.mean * (high - low)
    return mean + masks[:, None] * (images.clamp(low, high) - mean)
