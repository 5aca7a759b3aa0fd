"""Which values the colours of a heat map stand for: limits of one picture, of the set, or given."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from seglens.drawing.draw import HEAT, SIGNED, Scale, heat_scale, signed_scale
from seglens.errors import SettingError, unknown_name

Limits = tuple[float, float]

SCALES: dict[str, str] = {
    "image": "every map has limits of its own: shapes can be compared, values can't",
    "dataset": "maps of one method, layer and target share their limits over all pictures",
    "fixed": "fixed:LOW,HIGH, the limits for all maps",
}
"""What `--scale` can be. A signed scale is symmetric about 0, whatever it is."""

PIXELS_IN_SCALE = 0.99
"""Share of the pixels that the colours tell apart in a map that has a value of its own for every pixel."""

UNITS = {"sum": "sum of logits", "mean": "mean logit", "probability": "probability"}
"""What the numbers of a colour bar are differences or derivatives of, by the unit of the score."""

CLASS_AGNOSTIC = ("activation", "eigen-cam")
"""Methods whose maps are in units of the layer's activation, and not of the score."""


@dataclass(frozen=True)
class Scaling:
    """What decides the limits of colours: a key of `SCALES`, with ``limits`` where they are fixed."""

    kind: str
    limits: Limits | None = None


def scaling(text: str) -> Scaling:
    """Read what the command line calls ``image``, ``dataset`` or ``fixed:LOW,HIGH``.

    Raises:
        UnknownNameError: there is no such scale.
        SettingError: the limits can't be read, are in the wrong order, or negative and not symmetric.
    """
    kind, _, rest = text.partition(":")
    if kind not in SCALES:
        raise unknown_name("scale", kind, SCALES)
    if kind != "fixed":
        if rest:
            raise SettingError(f"Scale {text!r} can't be read: {kind!r} takes no limits. Write {kind!r}.")
        return Scaling(kind)
    try:
        low, high = (float(part) for part in rest.split(","))
    except ValueError:
        raise SettingError(
            f"Scale {text!r} can't be read. Write it with two numbers, as 'fixed:0,2.5' or 'fixed:-1,1'."
        ) from None
    if not low < high or (low < 0 and low != -high) or not abs(low) + abs(high) < float("inf"):
        raise SettingError(
            f"Scale {text!r} is not allowed: LOW must be below HIGH and, where it is negative, -HIGH, so "
            "that white is 0. Write it as 'fixed:0,2.5' or 'fixed:-1,1'."
        )
    return Scaling(kind, (low, high))


def own_limits(values: Float[Tensor, "..."], *, detailed: bool, signed: bool = False) -> Limits:
    """Return the limits of one map by itself; symmetric where it is signed.

    A ``detailed`` map has a value of its own for every pixel: the few extreme ones share a colour.
    """
    share = PIXELS_IN_SCALE if detailed else 1.0
    made = signed_scale if signed or bool((values < 0).any()) else heat_scale
    return made(values, share=share).limits


def shared_limits(limits: Iterable[Limits]) -> Limits:
    """Return the limits that hold all of ``limits``: symmetric where one of them is signed."""
    found = list(limits)
    reach = max(high for _, high in found)
    return (-reach, reach) if any(low < 0 for low, _ in found) else (0.0, reach)


def colours(limits: Limits, unit: str = "") -> Scale:
    """Return the scale with these limits: diverging where they are signed."""
    return Scale(limits, SIGNED if limits[0] < 0 else HEAT, unit)


def colour_unit(method: str, settings: Mapping[str, object]) -> str:
    """Return what the numbers of a method's colour bar are about."""
    if method in CLASS_AGNOSTIC:
        return "activation"
    unit = str(settings.get("unit", ""))
    return UNITS.get(unit, unit)
