"""What describes a model: enough to build it again."""

from math import inf, isfinite
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from seglens.arguments.validated import Validated
from seglens.axes import InputSize, sides_of
from seglens.models import zoo
from seglens.models.adapters import ADAPTERS
from seglens.models.encoders import IMAGENET_MEAN, IMAGENET_STD
from seglens.models.outputs import Choice, Outputs

Head = Literal["sigmoid", "softmax", "multilabel"]
Normalise = Literal["dataset", "image"]
"""By the mean and std of the model, or by those of each picture itself."""
WRAPPED = "wrapped"
"""The architecture of a module that somebody else made: it can be used, not rebuilt."""
SMALLEST_STD = 1e-6
"""Of pictures in [0, 1]: below it a standard deviation is a mistake, and overflows in half precision."""
LARGEST = 2.0
"""A mean or deviation above it is none of pictures in [0, 1]: those of 0 to 255 were meant."""


def whole_numbers(least: int, most: int) -> BeforeValidator:
    """Return what reads one whole number from ``least`` to ``most``, or one for each axis."""

    def read(value: Any) -> Any:
        sides = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not sides or not all(type(side) is int and least <= side <= most for side in sides):
            raise ValueError(
                f"it is one whole number from {least} to {most} for all sides, or one for each (rows, "
                "columns; of volumes slices, rows, columns)"
            )
        return sides[0] if len(sides) == 1 else sides

    return BeforeValidator(read)


class ModelSpec(Validated):
    """Enough to build a model again; together with its weights it is a checkpoint.

    ``window`` is the range of intensities that is mapped to [0, 1], as fractions of the file's integer
    range: 12-bit pictures stored in 16 bits have (0, 4095 / 65535). ``mean`` and ``std`` apply after it;
    with ``normalise`` "image" each picture's own do in their place (z-score, as nnU-Net does).
    ``scale`` is how many pixels of the input grid one pixel of the median training picture became, or one
    millimetre of a volume (None: not known): a picture that would have to shrink far more is predicted in
    windows. A model that learned from ``patches`` of pictures at this scale sees every picture at it.
    ``output`` is the place of the answer in what the network returns, see `seglens.models.outputs`; None
    where it returns a tensor, or where only one can be meant. ``options`` are other arguments of the
    architecture, see `seglens.models.options`.

    ``dims`` is 2 for pictures and 3 for volumes; ``image_size`` is the length of every side, or of each
    (see `sides`).
    ``intensities`` are, for volumes, the numbers of each channel that become 0 and 1, see
    `seglens.data.volumes.sets`. ``spacing`` are the millimetres of a pixel of every input along each axis,
    where they differ: then bands and blurs are as wide in millimetres along all.

    Logits are divided by ``temperature`` (Guo et al. 2017). A model of several ``members`` (folds) is the
    mean of their logits.

    A ``multilabel`` head has a sigmoid for each class but the background, so that classes may overlap: class
    i is output i - 1, and class 0 stands for none of them. It has a threshold a label, in ``thresholds``.
    """

    architecture: str
    encoder: str | None = None
    width: int | None = Field(default=None, ge=1, le=1024, strict=True)
    channels: int = Field(default=3, ge=1, le=1024, strict=True)
    classes: int = Field(default=2, ge=2, le=2**16, strict=True)
    dims: int = Field(default=2, ge=2, le=3, strict=True)
    intensities: tuple[tuple[float, float] | None, ...] = ()
    spacing: tuple[float, ...] = ()
    head: Head = "sigmoid"
    image_size: Annotated[InputSize, whole_numbers(1, 2**14)] = 256
    window: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    normalise: Normalise = "dataset"
    divisor: int = Field(default=1, ge=1, le=2**14, strict=True)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    thresholds: tuple[float, ...] = ()
    outputs_are: Outputs = "logits"
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    members: int = Field(default=1, ge=1, le=100, strict=True)
    scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    patches: bool = False
    output: Choice = None
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Channels of the network's output."""
        return {"sigmoid": 1, "softmax": self.classes, "multilabel": self.classes - 1}[self.head]

    @property
    def sides(self) -> tuple[int, ...]:
        """The lengths of an input: rows and columns, or slices, rows and columns."""
        return sides_of(self.image_size, self.dims)

    @property
    def patch_scale(self) -> float | None:
        """The scale of all pictures, where the model learned from patches."""
        return self.scale if self.patches else None

    @property
    def foreign(self) -> bool:
        """Whether the network is none of the zoo: it may take one size only, or rely on memory's order."""
        return self.architecture == WRAPPED or self.architecture in ADAPTERS

    def _agree(self) -> None:
        if len(set(self.sides)) == 1:
            object.__setattr__(self, "image_size", self.sides[0])
        if self.head == "sigmoid" and self.classes != 2:
            raise ValueError(f"a sigmoid head has 2 classes, background and one more, not {self.classes}")
        if self.head == "multilabel" and not self.thresholds:
            object.__setattr__(self, "thresholds", (self.threshold,) * self.outputs)
        if len(self.thresholds) != (self.outputs if self.head == "multilabel" else 0):
            raise ValueError(
                f"there are {len(self.thresholds)} thresholds; a multilabel head has one for each label, "
                "others have none"
            )
        if self.patches and (self.scale is None or self.normalise == "image"):
            raise ValueError(
                "a model of patches needs the scale of its pictures, and can't normalise by each picture: "
                f"the scale is {self.scale}, normalise is {self.normalise!r}"
            )
        if not all(0 < threshold < 1 for threshold in self.thresholds):
            raise ValueError(f"thresholds must lie between 0 and 1, got {self.thresholds}")
        if self.spacing and (len(self.spacing) != self.dims or not all(0 < mm < inf for mm in self.spacing)):
            raise ValueError(
                f"spacing is one positive number of millimetres for each of {self.dims} axes, got "
                f"{self.spacing}"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"mean {self.mean} and std {self.std} need one value for each of {self.channels} channels"
            )
        if not all(map(isfinite, self.mean)):
            raise ValueError(f"mean must be finite numbers, got {self.mean}")
        if not all(SMALLEST_STD <= value < inf for value in self.std):
            raise ValueError(f"std must be finite and at least {SMALLEST_STD:g}, got {self.std}")
        if max(*map(abs, self.mean), *self.std) > LARGEST:
            raise ValueError(
                f"mean {self.mean} and std {self.std} are not those of pictures in [0, 1], which the model "
                "is given; of 0 to 255 divide both by 255"
            )
        if not all(map(isfinite, self.window)) or self.window[0] >= self.window[1]:
            raise ValueError(
                f"the window's ends must be finite and the low one below the high one, got {self.window}"
            )
        if self.window[0] < 0 or self.window[1] > 1:
            raise ValueError(
                f"the window's ends are shares of what the files can hold, from 0 to 1, got {self.window}; "
                "divide them by 255 (8 bits) or 65535 (16 bits)"
            )


def complete(spec: ModelSpec) -> ModelSpec:
    """Return ``spec`` with the encoder, width, divisor and axes of its architecture where none are named.

    Raises:
        UnknownNameError: there is no such architecture.
    """
    chosen = zoo.architecture(spec.architecture)
    defaults = {
        "encoder": spec.encoder or chosen.encoder,
        "width": spec.width or chosen.width,
        "divisor": max(spec.divisor, chosen.divisor),
        "dims": chosen.dims,
    }
    return spec.model_copy(update=defaults)
