"""The logits among the tensors that a network returns: found where only one can be, else chosen by name.

Networks return a tensor, or several in lists, tuples, dicts and objects, one inside the other: auxiliary
heads, deep supervision, features. Those whose channels suit the head are candidates. One candidate is the
answer; of several it is that called ``out`` or ``logits`` where all others are known to stand beside it
(``aux...``, hidden states); any other choice is the user's, and never guessed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from seglens.axes import LENGTHS, spelled
from seglens.errors import ModelError

Outputs = Literal["logits", "probabilities"]
Choice = str | int | None
"""A key or an index, from the outside in with dots between: ``out``, ``-1``, ``heads.0``."""
Selector = Callable[[Any], Tensor]
"""Takes what the network returned and gives the logits."""

MAIN = ("out", "logits")
_TRACES = ("hidden_states", "attentions")
"""How the names end of what Hugging Face models hand out beside their logits."""
_DEPTH = 4
"""Lists in lists deeper than this are not looked into."""
_ALLOWED = (
    "allowed are floating-point logits [batch, outputs, {size}], one output for a sigmoid head or one "
    "for each class"
)
_SHOWN = 12
_ENOUGH = 64
"""Fewer pixels of one channel tell too little about what they are."""
_AT_AN_END = 1e-2
"""Share of the values that stand at the very end of what a last step such as ReLU lets through."""
_NO_LOGARITHM = 1e-6
"""Nearer to 0 is the logarithm of a probability of 1."""
_CORNER = {2: (0, 2), 3: (0, 1, 2)}
"""Which third of each axis is changed to see where the answer changes."""
_THIRDS = 6
"""Rows and columns from which on thirds of an answer are told apart."""
_HARDLY, _MOSTLY = 0.02, 0.6
"""Shares of a change: that at its own place, and that at another, where the answer lies otherwise."""
_ROUNDING = 1e-2
"""How far the sum of a softmax over many classes may be off in half precision."""


@dataclass(frozen=True)
class OutputTensor:
    """A tensor in what a network returned, and where it stands; ``""`` where there is nothing but it."""

    place: str
    tensor: Tensor

    def __str__(self) -> str:
        """Name and shape, as errors list them."""
        shape = " x ".join(map(str, self.tensor.shape)) or "scalar"
        return f"{self.place or 'the output'} ({shape})"


def find_output(
    output: Any, channels: Collection[int], batch: int, choice: Choice = None, dims: int = 2
) -> OutputTensor:
    """Return the answer in ``output``: fractions ``[batch, k, rows, columns]`` with k in ``channels``.

    Of volumes (3 ``dims``) the answer has slices before the rows.

    Raises:
        ModelError: there is no such tensor, or there are several and ``choice`` names none; all are listed.
    """
    if (
        choice is None
        and isinstance(output, Tensor)
        and _is_grid(output, batch, dims)
        and output.shape[1] in channels
    ):
        return OutputTensor("", output)
    inside = output if choice is None else _part(output, str(choice), str(choice), dims)
    prefix = "" if choice is None else str(choice)
    tensors = list(_tensors(inside, prefix, dims))
    if not tensors:
        kind = type(inside).__name__
        held = ", ".join(type(part).__name__ for _, part in _parts(inside, dims)) or "nothing"
        todo = "Wrap a network that segments."
        if kind == "ndarray":
            todo = "Return what stands before .numpy(): behind it there are no gradients."
        elif inside is None:
            todo = "Its forward has no return, or returns nothing in evaluation mode."
        raise ModelError(f"The network returns no tensor but {kind} of {held}; {_allowed(dims)}. {todo}")
    grids = [found for found in tensors if _is_grid(found.tensor, batch, dims)]
    if not grids:
        raise ModelError(_no_grid(tensors, batch, dims))
    fitting = _different([found for found in grids if found.tensor.shape[1] in channels])
    if not fitting:
        raise ModelError(_no_channels(grids, channels))
    if len(fitting) == 1:
        return fitting[0]
    main = [found for found in fitting if _last(found) in MAIN]
    if len(main) == 1 and all(found is main[0] or _stands_beside(found) for found in fitting):
        return main[0]
    example = max(reversed(fitting), key=lambda found: found.tensor.shape[-1])  # the last of the finest
    raise ModelError(
        f"The network returns {len(fitting)} outputs that could be its answer: {_listed(fitting)}. Say which "
        f"by its key or index: output={_example(example)!r} in Python, --output {example.place} on "
        "the command line; in Python a function of the output serves too."
    )


def check_outputs(raw: Tensor, declared: Outputs | None, *, exclusive: bool = True) -> None:
    """Raise where what a network returned is not what it is ``declared`` to be; undeclared means logits.

    Probabilities taken for logits make every later number wrong without a sign of it, and so do labels with a
    sigmoid each that are taken for ``exclusive`` classes of a softmax. Looked at once, when a foreign network
    comes in, and not at each forward pass: it costs a synchronisation, and a traced pass must not branch on
    values.

    Raises:
        ModelError: the outputs are not finite, or a mask; undeclared outputs are those of a last step that
            gives no logits, or all lie in [0, 1]; or declared probabilities don't lie there, or don't sum to
            1 over several classes.
    """
    check_finite(raw)
    low, high = raw.min().item(), raw.max().item()
    within, several = 0 <= low and high <= 1, raw.shape[1] > 1
    if declared == "probabilities" and not within:
        raise ModelError(
            f"The network's outputs are declared to be probabilities, but lie between {low:.3g} and "
            f"{high:.3g}. Declare outputs_are='logits'."
        )
    if declared == "logits":
        return
    if low == high == 1 and not several:
        raise ModelError(
            "The network's only output channel is 1 everywhere, as a softmax over one channel makes it: "
            "nothing is left of its answer. Return what stands before the softmax. Declare "
            "outputs_are='logits' if it is a logit."
        )
    if low == high:
        return
    if raw.numel() >= _ENOUGH and (levels := _levels(raw, low, high)):
        raise ModelError(
            f"The network's outputs are {levels}: that is a mask already. Return what stands before the "
            "threshold, round or argmax."
        )
    if not exclusive and several and _sums_to_one(raw if within else raw.exp()):
        raise ModelError(
            f"The network's {raw.shape[1]} output channels are {'' if within else 'logarithms of '}"
            "probabilities that sum to 1, as a softmax makes them: a pixel has one class, and not several "
            "labels. Take head='softmax', with the background among the classes."
        )
    if not within and not (several and exclusive) and (squashed := _squashed(raw, low, high)):
        raise ModelError(
            f"The network's outputs lie between {low:.3g} and {high:.3g}, as {squashed} returns them. Logits "
            "are expected: above 0 where a class is there, and below 0 where it isn't. Return what stands "
            "before it, or declare outputs_are='logits' if they are logits."
        )
    if several and exclusive and low >= 0 and not within and _sums_to_one(raw / raw[:1].sum(1).mean()):
        raise ModelError(
            f"The network's {raw.shape[1]} output channels lie between {low:.3g} and {high:.3g} and have the "
            "same sum at every pixel, as probabilities times a number. Return what stands before that, or "
            "declare outputs_are='logits' if they are logits."
        )
    if not within:
        return
    if several and exclusive and not _sums_to_one(raw):
        raise ModelError(
            f"The network's {raw.shape[1]} output channels all lie in [0, 1] ({low:.3g} to {high:.3g}) and "
            "don't sum to 1: no softmax over classes. They look like several labels with a sigmoid each: "
            "head='multilabel', outputs_are='probabilities', and a name for each of them in classes. Declare "
            "outputs_are='logits' if they are logits of a softmax."
        )
    if declared is None and (several or raw.numel() >= _ENOUGH):
        raise ModelError(
            f"The network's outputs all lie in [0, 1] ({low:.3g} to {high:.3g}), like probabilities, where "
            "logits are expected. Say which they are: outputs_are='probabilities' (they are turned back into "
            "logits) or outputs_are='logits'."
        )


def listed(output: Any, dims: int = 2) -> str:
    """Return the tensors in what a network returned with their places and shapes, as errors list them."""
    return _listed(list(_tensors(output, "", dims))) or "no tensors"


def check_finite(raw: Tensor) -> None:
    """Raise where a network's answer to a trial picture holds NaN or infinity.

    Raises:
        ModelError: it does.
    """
    broken = int((~raw.isfinite()).sum())
    if broken:
        raise ModelError(
            f"The network's answer to a trial picture is not finite: {broken} of {raw.numel()} values are "
            "NaN or infinite. Check its weights, mean, std and precision."
        )


def check_resolution(returned: Sequence[int], given: Sequence[int]) -> None:
    """Raise where an answer of the lengths ``returned`` can't be laid on a picture of ``given`` ones.

    It can where all sides are the picture's, a whole fraction of them (rounded up or down), or a multiple:
    the answer is that of the whole picture then, and is scaled to it.

    Raises:
        ModelError: the sizes differ otherwise, as where convolutions without padding cut the border off.
    """
    if all(_is_whole_share(*sides) for sides in zip(returned, given, strict=True)):
        return
    border = [more - less for more, less in zip(reversed(given), reversed(returned), strict=True)]
    pad = tuple(side for each in border for side in (each // 2, each - each // 2))
    raise ModelError(
        f"The network returns {spelled(returned)} values for {spelled(given)} pixels: neither as many, nor "
        "a whole fraction, so that it isn't known which pixels they are of. If convolutions without "
        f"padding cut the border off, put it back: torch.nn.functional.pad(output, {pad})."
    )


def check_alike(returned: Sequence[int], given: Sequence[int], tried: Sequence[int]) -> None:
    """Raise where rows and columns of an answer are scaled differently, on a picture of another shape.

    A network that pads pictures to squares inside, or stretches them, shows nothing of that where it was
    ``tried`` with squares; `check_field` tells which it is, for the shape that it was tried with.

    Raises:
        ModelError: the answer may be that of a padded picture.
    """
    both = [(min(pair), max(pair)) for pair in zip(returned, given, strict=True)]
    shares = {share for less, more in both for share in (more // less, -(-more // less))}
    rows, columns = (back - sent for back, sent in zip(returned, given, strict=True))
    alike = any(all(_divided(less, more, share) for less, more in both) for share in shares)
    if (alike and rows * columns >= 0) or given[0] * tried[1] == given[1] * tried[0]:
        return
    raise ModelError(
        f"The network returns {spelled(returned)} values for {spelled(given)} pixels: other shares of rows "
        "than of columns. Whether it pads such pictures inside or stretches them isn't known, because it was "
        f"tried with {spelled(tried)}. Scale the images to that shape, or wrap it with "
        f"image_size=({given[0]}, {given[1]}), with which it is tried then."
    )


def _is_whole_share(returned: int, given: int) -> bool:
    """Whether one of both lengths is the other, divided by a whole number and rounded up or down."""
    less, more = sorted((returned, given))
    if less < 1:
        return False
    return any(_divided(less, more, share) for share in (more // less, -(-more // less)))


def _divided(less: int, more: int, share: int) -> bool:
    return less in (more // share, -(-more // share))


def check_steady(answer: Tensor, others: Mapping[str, Tensor]) -> None:
    """Raise where a picture's ``answer`` is another one among ``others``, which say when that came.

    Half precision may differ by a tenth of the largest logit, other numbers by a thousandth.

    Raises:
        ModelError: one differs by more.
    """
    allowed = 0.1 if answer.dtype in (torch.float16, torch.bfloat16) else 1e-3
    largest = float(answer.float().abs().max())
    for when, other in others.items():
        apart = float((answer.float() - other.float()).abs().max())
        if apart > allowed * largest:
            raise ModelError(
                f"The network gives another answer to the same picture {when}: up to {apart:.3g} apart, the "
                f"largest logit is {largest:.3g}. What it answers can't be scored or explained then. Look "
                "for dropout that ignores training=False (F.dropout(x) without training=self.training), "
                "random noise, or a normalisation over the batch (track_running_stats=False, x.min()). "
                "If its answers to single pictures are right, give it those: "
                "call=lambda net, x: torch.cat([net(each) for each in x.split(1)])."
            )


def _levels(raw: Tensor, low: float, high: float) -> str:
    """Say which few values there are, where all are those of a mask; else nothing."""
    if low == 0 and bool((raw == raw.round()).all()):
        return f"whole numbers from 0 to {high:.3g}"
    varies = bool((raw.flatten(2).amin(2) != raw.flatten(2).amax(2)).any())
    two = varies and bool(((raw == low) | (raw == high)).all())
    return f"{low:.3g} or {high:.3g} and nothing between" if two else ""


def _squashed(raw: Tensor, low: float, high: float) -> str:
    """Return what squashes the outputs of a sigmoid head, by the end that they stand at; else nothing.

    The second trial picture has so much contrast that what a last step allows is reached.
    """

    def many(there: Tensor) -> bool:
        return there.float().mean().item() > _AT_AN_END

    if low >= 0 and high in (100, 255) and many(raw == high):
        return f"a sigmoid times {high:.0f}"
    if low >= 0 and many(raw <= _NO_LOGARITHM * high):
        return "a ReLU, a softplus, an exponential or a sigmoid times a number"
    if low < -1 and high <= 0 and many(raw > -_NO_LOGARITHM):
        return "a logarithm of probabilities (logsigmoid)"
    return "a tanh" if low >= -1 and high <= 1 and many(raw.abs() == 1) else ""


def corner(sides: Sequence[int]) -> tuple[slice, ...]:
    """Return a ninth of a picture, or a 27th of a volume, that no swap or flip of axes leaves where it is."""
    return tuple(_third(place, side) for place, side in zip(_CORNER[len(sides)], sides, strict=True))


def check_places(before: Tensor, after: Tensor) -> None:
    """Raise where a change of the `corner` of a picture changes the answer somewhere else, and hardly there.

    Raises:
        ModelError: the axes of the answer are not those of the picture.
    """
    change = (after - before).detach().double().abs().sum(dim=(0, 1))
    total = change.sum().item()
    if not total or min(change.shape) < _THIRDS:
        return
    shares = {
        places: change[tuple(map(_third, places, change.shape))].sum().item() / total
        for places in product(range(3), repeat=change.ndim)
    }
    own = _CORNER[change.ndim]
    largest = max(shares, key=lambda places: shares[places])
    turned = sorted(abs(place - 1) for place in largest) == sorted(abs(place - 1) for place in own)
    if turned and shares[own] < _HARDLY and shares[largest] > _MOSTLY:
        raise ModelError(
            "The network's answer doesn't lie as its picture does. A change in the "
            f"{_said(own)} third of the {LENGTHS[change.ndim]} changes the answer in the {_said(largest)} "
            f"third ({shares[largest]:.0%} of it): axes are swapped or turned. Turn the answer back: "
            "output.transpose(-1, -2), or output.flip(-1)."
        )


def _third(place: int, side: int) -> slice:
    return slice(side * place // 3, side * (place + 1) // 3)


def _said(places: Sequence[int]) -> str:
    return ", ".join(("first", "middle", "last")[place] for place in places)


def _sums_to_one(raw: Tensor) -> bool:
    return bool(((raw.float().sum(dim=1) - 1).abs() < _ROUNDING).all())


def _parts(value: Any, dims: int) -> list[tuple[tuple[str, ...], Any]]:
    """Return what a list, tuple, dict, object or stack of heads ``[b, n, k, *size]`` holds, with its names.

    The first name is the one that is shown; places in lists count from the end too.
    """
    if isinstance(value, Mapping):
        return [((str(key),), part) for key, part in value.items()]
    if isinstance(value, Tensor):
        heads = list(value.unbind(1)) if value.ndim == dims + 3 else []
        return _numbered(heads)
    if isinstance(value, tuple | list):
        keys = getattr(value, "_fields", ())
        numbered = _numbered(list(value))
        return [((*keys[i : i + 1], *names), part) for i, (names, part) in enumerate(numbered)]
    named = [each.name for each in fields(value)] if is_dataclass(value) else []  # those with slots, too
    every = {name: getattr(value, name) for name in named if hasattr(value, name)}
    return [((name,), part) for name, part in (every | getattr(value, "__dict__", {})).items()]


def _numbered(values: list[Any]) -> list[tuple[tuple[str, ...], Any]]:
    return [((str(i), str(i - len(values))), part) for i, part in enumerate(values)]


def _part(value: Any, choice: str, whole: str, dims: int) -> Any:
    """Return the part of ``value`` that ``choice`` names."""
    for names, part in _parts(value, dims):
        for name in names:
            if choice == name:
                return part
            if choice.startswith(f"{name}."):
                return _part(part, choice.removeprefix(f"{name}."), whole, dims)
    allowed = ", ".join(names[0] for names, _ in _parts(value, dims)[:_SHOWN])
    raise ModelError(
        f"The network's output has no part {whole!r}: it is {type(value).__name__}. "
        f"Allowed: {allowed or 'none, it is the output itself; leave the choice out'}."
    )


def _tensors(value: Any, place: str, dims: int, depth: int = 0) -> Iterator[OutputTensor]:
    if isinstance(value, Tensor) and value.ndim != dims + 3:
        yield OutputTensor(place, value)
        return
    if isinstance(value, str | bytes | type) or callable(value) or depth > _DEPTH:
        return
    for names, part in _parts(value, dims):
        yield from _tensors(part, f"{place}.{names[0]}" if place else names[0], dims, depth + 1)


def _is_grid(tensor: Tensor, batch: int, dims: int) -> bool:
    return tensor.ndim == dims + 2 and tensor.is_floating_point() and tensor.shape[0] == batch


def _different(found: list[OutputTensor]) -> list[OutputTensor]:
    """Leave out what is the very tensor of another place."""
    return [each for i, each in enumerate(found) if all(each.tensor is not one.tensor for one in found[:i])]


def _last(found: OutputTensor) -> str:
    return found.place.rpartition(".")[2]


def _stands_beside(found: OutputTensor) -> bool:
    """Whether its name says that it is never the answer where one called as in ``MAIN`` is there."""
    return any(step.startswith("aux") or step.endswith(_TRACES) for step in found.place.split("."))


def _example(found: OutputTensor) -> str | int:
    return int(found.place) if found.place.isdigit() else found.place


def _listed(found: list[OutputTensor]) -> str:
    rest = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(map(str, found[:_SHOWN])) + rest


def _allowed(dims: int) -> str:
    return _ALLOWED.format(size=LENGTHS[dims])


def _no_grid(tensors: list[OutputTensor], batch: int, dims: int) -> str:
    """Say what is wrong where nothing has the axes of an answer and fractions, by what is usual."""
    first = tensors[0].tensor
    returned = f"The network returns {_listed(tensors)}, {str(first.dtype).removeprefix('torch.')}"
    if any(_last(found) == "boxes" for found in tensors):
        todo = "That is a detector, with masks for each object it found: wrap a network that segments."
    elif first.is_complex():
        todo = (
            "Those are complex numbers: return their real part, or their magnitude, whichever is the answer."
        )
    elif not first.is_floating_point():
        todo = "That is a mask already: return what stands before argmax, round or the threshold."
    elif first.ndim == dims + 1:
        todo = "The axis of channels is missing: return output[:, None], of one channel."
    elif first.ndim == 2:
        todo = "That looks like a classifier, which has one answer a picture: wrap a network that segments."
    elif first.ndim == dims + 2:
        todo = f"The first axis is not that of the {batch} pictures: return one answer for each."
    else:
        todo = f"Wrap a network that segments {'pictures of two dimensions' if dims == 2 else 'volumes'}."
    return f"{returned}; {_allowed(dims)}. {todo}"


def _no_channels(grids: list[OutputTensor], channels: Collection[int]) -> str:
    wanted = " or ".join(map(str, sorted(channels)))
    returned = f"The network returns {_listed(grids)}; the classes need {wanted} output channels. "
    last = grids[0].tensor.ndim - 1
    turn = ", ".join(map(str, (0, last, *range(1, last))))
    if any(found.tensor.shape[-1] in channels for found in grids):
        return f"{returned}They seem to come last: return output.permute({turn})."
    return f"{returned}Check classes and head."
