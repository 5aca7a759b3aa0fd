"""Names that all results share (maps, nulls, verdicts), and numbers as text."""

import re
from typing import Literal

Verdict = Literal["pass", "warn", "fail", "not evaluable", "reference"]
"""``reference`` stands on the rows of content-free maps: they are what others are compared with."""

MARKS: dict[str, str] = {"pass": "✓", "warn": "!", "fail": "✕", "not evaluable": "—", "reference": "·"}
"""Signs that tell verdicts apart without colour."""

NULL = "null:"
"""The prefix of the method of a null's row."""

RESTATES = "restates the prediction"
"""The label in tables of a map that is no better than its mirror, a coarse copy of the predicted mask."""

REPEATS = "repeats the prediction"
"""What people read in place of `RESTATES`."""

REFERENCES: dict[str, str] = {
    "random": "noise",
    "centre": "centre blob",
    "edges": "image edges",
    "mirror": "coarse mask",
    "distance": "depth in the mask",
    "probability": "probability map",
    "other_images": "maps of other pictures",
    "randomised_model": "untrained network",
}
"""What people read for the names of nulls: maps that are made without looking into the model."""

DETAILS: dict[str, str] = {
    "s_dice": "the same for the whole mask",
    "emprt": "detail added by random weights",
    "repeat": "agreement when made again",
    "randomised": "agreement with random weights",
    "flip": "agreement on the mirrored picture",
    "context_reliance": "use of the surroundings",
    "context_worth": "share of the score in the surroundings",
    "ceiling": "agreement of two ways to remove",
}
"""What people read for the numbers beside a score."""

STATUSES: dict[str, str] = {
    "no_target": "this picture has no pixel of this target",
    "degenerate": "this layer holds no evidence for the class",
    "failed": "the method gave numbers that are not finite",
}
"""Why a map is missing, by its status."""


TARGET_SCALE = "target_faithfulness"
"""The score whose steps are in units of the target's area; its curves are two: removed, and kept."""

CARD_SCORES = (
    "faithfulness",
    TARGET_SCALE,
    "context_faithfulness",
    "causal_agreement",
    "completeness",
    "model_dependence",
    "stability",
    "attention",
)
"""Every score of a scorecard. (The seventh, shortcut recovery, is a test of its own: `judge.shortcut`.)"""

ROLES = (
    "encoder_early",
    "encoder_mid",
    "encoder_last",
    "bottleneck",
    "decoder_first",
    "decoder_last",
    "seg_head",
)
"""The roles that a layer can play in a network, from the input to the output."""


_ABOUT = re.compile(r"(?<![\w./\\:='\"<-])(?:[Pp]icture|[Pp]ixel)(?=s?\b(?![\w/\\:='\"-]|\.\w))")
_OF_VOLUMES = {"picture": "volume", "Picture": "Volume", "pixel": "voxel", "Pixel": "Voxel"}


def worded(text: str, dims: int) -> str:
    """Return sentences about pictures and pixels as ones about volumes and voxels where ``dims`` is 3.

    A sentence that names volumes itself tells the two apart, and stays as it is; so do words that are a part
    of a path, a flag, a key or a quotation.
    """
    if dims != 3:
        return text
    parts = re.split(r"((?<=[.!?])\s+)", text)
    return "".join(
        part if "volume" in part.lower() else _ABOUT.sub(lambda found: _OF_VOLUMES[found[0]], part)
        for part in parts
    )


def folds_layer(layer: str | None) -> str:
    """Return what stands for the layer in the name of the map that says how far folds are apart."""
    return f"{layer}@folds" if layer else "folds"


def map_name(method: str, layer: str | None, *, target: str = "", at: str = "@") -> str:
    """Return what a map is called: ``method@layer``, with its target in front where one is given."""
    return at.join(part for part in (target, method, layer) if part)


def null_in_words(name: str) -> str:
    """Return a name as a reader sees it: ``null:mirror-16`` is ``coarse mask (16 px)``."""
    name = name.removeprefix(NULL)
    kind, _, size = name.partition("-")
    if kind in REFERENCES and size.isdecimal():
        return f"{REFERENCES[kind]} ({size} px)"
    if "@" in name:  # a map: as people write it on the command line
        return name
    return REFERENCES.get(name, DETAILS.get(name, name.replace("_", " ")))


def label_in_words(label: str) -> str:
    """Return the label of a map as a reader sees it."""
    return REPEATS if label == RESTATES else label


def status_in_words(status: str) -> str:
    """Return why a map of this status is missing."""
    return STATUSES.get(status, status.replace("_", " "))


def count(number: int, noun: str, several: str = "") -> str:
    """Return a number with its noun, in the plural but for 1: ``1 picture``, ``1,200 pictures``."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def shortened(name: str, most: int) -> str:
    """Return a name of at most ``most`` letters; one that is longer loses its middle: both ends tell most."""
    if len(name) <= most:
        return name
    front = (most - 1) // 2
    return f"{name[:front]}…{name[len(name) - (most - 1 - front) :]}"


def formatted(value: float | None, form: str = ".3g", *, dash: str = "—") -> str:
    """Return a number in the format ``form``; a dash where there is none (None or NaN)."""
    return dash if value is None or value != value else format(value, form)


def attention_ratio(value: float | None, form: str = ".3f") -> str:
    """Return an attention ratio; above a thousand no digits, since next to nothing lies outside then."""
    return "over 1,000" if value is not None and value > 1000 else formatted(value, form, dash="-")


def number(value: object, digits: int = 3) -> str:
    """Return a number with so many digits after the point, whole ones with commas; a dash for None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "—" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def significant(value: object) -> str:
    """Return a number whose size is not known beforehand, to three significant digits; a dash for None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return number(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(value: object) -> str:
    """Return a share as a percentage; a dash where there is none."""
    return f"{value:z.1%}" if isinstance(value, int | float) and not isinstance(value, bool) else "—"


def duration(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
