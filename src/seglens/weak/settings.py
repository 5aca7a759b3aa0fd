"""The settings of each stage from image-level labels to pseudo-masks: plain values, plain JSON.

How the defaults were found: between recipes (which maps and layers, how sure, how many neighbours) was chosen
with the masks of 76 training pictures of the pet part, every fourth; nothing else in this package has seen a
mask of them, and no test picture was looked at. Within a recipe nothing is chosen by masks: the threshold,
the seeds and the end of the rounds follow from the heat and the head alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from seglens.arguments import check_range
from seglens.arguments.validated import fault
from seglens.errors import SettingError

RANGES: dict[str, dict[str, tuple[int | float, int | float]]] = {
    "HeatSettings": {"scales": (16, 2**13), "side": (16, 2**13)},
    "ThresholdSettings": {"value": (0, 1)},
    "SpreadSettings": {
        "scales": (16, 2**13),
        "stride": (1, 2**13),
        "sure": (0.5, 1),
        "rounds": (1, 10**4),
        "settled": (0, 1),
        "weight": (0, 10**6),
        "colour": (1e-6, 10**6),
        "distance": (1e-6, 10**6),
        "penalty": (0, 10**6),
    },
    "RefineSettings": {
        "steps": (1, 10**4),
        "weight": (0, 10**6),
        "colour": (1e-6, 10**6),
        "distance": (1e-6, 10**6),
    },
    "SuperpixelSettings": {"num_segments": (2, 10**5), "compactness": (1e-9, 10**6), "sigma": (0, 1000)},
    "MaskSettings": {"margin": (0, 0.5), "opening": (0, 1000), "closing": (0, 1000)},
}
"""From where to where numbers go, by setting."""


class _Strict:
    """Names that are no setting are refused where settings come from JSON; numbers out of `RANGES` always."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        name = type(self).__name__
        for setting, (least, most) in RANGES.get(name, {}).items():
            value = getattr(self, setting)
            for number in value if isinstance(value, tuple) else (value,):
                check_range(f"{name}.{setting}", number, least, most)
            if value == ():
                raise SettingError(f"{name}.{setting} is empty: give one number or more.")


@dataclass(frozen=True)
class ScoreSettings(_Strict):
    """The classifier, and the classes whose score is explained.

    ``encoder`` is a classifier of timm with ``weights`` (``imagenet`` or a file), asked whether a picture
    shows one of ``positive``: numbers of ImageNet classes, ranges of them such as ``151-268``, or names of
    `seglens.weak.classifier_score.GROUPS`. With ``classifier``, the folder that
    `seglens.weak.classifier.train_classifier` wrote, that one is asked, and the other three settings say
    nothing.
    """

    encoder: str = "tf_efficientnet_lite0"
    weights: str = "imagenet"
    positive: tuple[str, ...] = ("pets",)
    classifier: str | None = None


@dataclass(frozen=True)
class HeatSettings(_Strict):
    """Which class activation maps are fused: ``maps`` are ``method@layer``, methods those of `CAMS`.

    ``scales`` are lengths of the longer side in pixels. The fused map is kept on the picture's own grid,
    scaled down so that the longer side is at most ``side``; later stages work on that grid.
    """

    maps: tuple[str, ...] = ("hires-cam@blocks.6", "layer-cam@blocks.6")
    scales: tuple[int, ...] = (224, 320, 448, 640)
    flips: bool = True
    side: int = 384


@dataclass(frozen=True)
class ThresholdSettings(_Strict):
    """``rule`` is one of `seglens.weak.threshold.RULES`; ``value`` is what the rule ``fixed`` returns."""

    rule: str = "otsu"
    value: float = 0.4


@dataclass(frozen=True)
class SpreadSettings(_Strict):
    """The head that learns the set's object from confident cells of its heat, on the classifier's features.

    ``layers`` are read at each of ``scales`` (longer side in pixels), and brought to one grid with a cell
    every ``stride`` pixels of the largest scale. Cells that are certain by the threshold's rule teach in the
    first of ``rounds``; later, those that the head itself is sure of: probability from ``sure`` on, or up to
    1 - ``sure``. Between rounds the labels of similar cells of a picture are made to agree (``weight``,
    ``colour`` and ``distance`` as in `RefineSettings`; weight 0: they are not). Rounds end before when less
    than the share ``settled`` of all cells change their label. ``penalty`` is on the squared weights of the
    standardised features.
    """

    layers: tuple[str, ...] = ("blocks.2", "blocks.5")
    scales: tuple[int, ...] = (448,)
    flips: bool = False
    stride: int = 16
    sure: float = 0.9
    rounds: int = 20
    settled: float = 0.002
    weight: float = 2.0
    colour: float = 0.1
    distance: float = 0.08
    penalty: float = 0.01


@dataclass(frozen=True)
class RefineSettings(_Strict):
    """``method`` is one of `seglens.weak.refine.REFINEMENTS`; ``steps`` is the number of updates.

    ``weight`` is the largest change that all neighbours together make, in logits; ``colour`` (in intensities)
    and ``distance`` (in shares of the longer side) are the widths of the kernel that compares two pixels.
    ``pamr`` uses none of these three, ``guided`` no steps and no weight.
    """

    method: str = "mean-field"
    steps: int = 5
    weight: float = 4.0
    colour: float = 0.06
    distance: float = 0.25


@dataclass(frozen=True)
class SuperpixelSettings(_Strict):
    """Superpixels: how many a picture has, what nearness weighs, how far the picture is blurred before.

    The defaults are those of the published reference. More or rounder patches voted worse (docs/weak.md).
    """

    num_segments: int = 200
    compactness: float = 0.01
    sigma: float = 5.0


@dataclass(frozen=True)
class MaskSettings(_Strict):
    """Pixels within ``margin`` of the threshold, in probability, are ignored (255).

    Masks are made of the stage before the superpixels' votes, or with ``votes`` of these. Superpixels are cut
    and vote in either case, where `PseudoSettings.patches` is given: students may use them.

    ``opening`` and ``closing`` are radii in pixels of the masks; 0 leaves the step out.
    """

    margin: float = 0.1
    votes: bool = False
    opening: int = 0
    closing: int = 0


@dataclass(frozen=True)
class PseudoSettings(_Strict):
    """All stages; ``spread``, ``refine`` and ``patches`` may be None, which leaves the stage out."""

    question: ScoreSettings = field(default_factory=ScoreSettings)
    heat: HeatSettings = field(default_factory=HeatSettings)
    threshold: ThresholdSettings = field(default_factory=ThresholdSettings)
    spread: SpreadSettings | None = field(default_factory=SpreadSettings)
    refine: RefineSettings | None = field(default_factory=RefineSettings)
    patches: SuperpixelSettings | None = field(default_factory=SuperpixelSettings)
    masks: MaskSettings = field(default_factory=MaskSettings)


def to_plain(settings: PseudoSettings) -> dict[str, object]:
    """Return the settings as they stand in ``run.json``."""
    return asdict(settings)


def from_plain(values: Mapping[str, object]) -> PseudoSettings:
    """Return the settings that `to_plain` wrote, or a user as JSON; what is missing is the default.

    Raises:
        SettingError: a name that there is none of, or a value of another kind.
    """
    try:
        return TypeAdapter(PseudoSettings).validate_python(values)
    except ValidationError as error:
        raise SettingError(f"PseudoSettings: {fault(error)}.") from error
