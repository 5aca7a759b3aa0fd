"""The scores of an evaluation: ``scores.json``."""

from collections.abc import Mapping
from typing import Literal

from seglens.results.names import count
from seglens.results.objects import ObjectTable, PictureObjects
from seglens.results.resampling import Resampling
from seglens.results.spread import Spread
from seglens.results.strata import StrataTable
from seglens.results.tables import Number, Result
from seglens.results.uncertainty import ErrorDetection

SCORES = ("dice", "iou", "miou", "pixel_accuracy", "precision", "recall")
"""Scores that are pooled and per image."""
SURFACES = ("boundary_iou", "nsd", "hd95")
"""Scores of outlines, per image only: there is no outline of pixels that are pooled."""
CENTRE_LINES = ("cldice",)
"""Scores of centre lines, for thin shapes; per image only."""
PIXELS = ("false_positive_pixels", "false_negative_pixels", "truth_pixels", "predicted_pixels")


class Scores(Result):
    """Scores by name; None where one says nothing."""

    dice: Number = None
    iou: Number = None
    miou: Number = None
    pixel_accuracy: Number = None
    precision: Number = None
    recall: Number = None

    def score(self, name: str) -> float | None:
        """Return the score called ``name``; None where there is none."""
        return getattr(self, name, None)


class PooledScores(Scores):
    """Scores over all pixels of all pictures, and of each class below."""

    per_class: Mapping[str, Scores] = {}


class ClassScores(Result):
    """The scores of one class in one volume: overlap, outlines in millimetres, and millilitres.

    ``difference_ml`` is the predicted volume less the true one.
    """

    dice: Number = None
    nsd: Number = None
    hd95: Number = None
    truth_ml: Number = None
    predicted_ml: Number = None
    difference_ml: Number = None


class Evaluated(Result):
    """One picture of an evaluation: its number in the split, group and hashes, and whether it was scored."""

    index: int | None = None
    name: str
    group: str = ""
    image_hash: str = ""
    truth_hash: str = ""
    status: Literal["ok", "empty", "failed"] = "ok"
    error: str = ""


class PictureScores(Scores, Evaluated):
    """The scores, pixels and files of one picture.

    ``shows`` are the classes that its truth has. ``classes`` are the scores of each class, of volumes only.
    ``objects`` are how many were found and missed. ``elongation`` is how many times longer than wide what is
    true is, by its centre lines.
    """

    false_positive_pixels: int | None = None
    false_negative_pixels: int | None = None
    truth_pixels: int | None = None
    predicted_pixels: int | None = None
    shows: tuple[int, ...] = ()
    boundary_iou: Number = None
    nsd: Number = None
    hd95: Number = None
    cldice: Number = None
    elongation: Number = None
    files: Mapping[str, str] = {}
    classes: Mapping[str, ClassScores] = {}
    objects: PictureObjects = PictureObjects()


class WeakScores(Result):
    """Scores of weakly supervised masks; those without border are None where it is not marked."""

    pictures: int
    miou: Number = None
    fg_iou: Number = None
    fg_iou_per_image: Spread = Spread()
    miou_no_border: Number = None
    fg_iou_no_border: Number = None
    miou_per_batch: Number = None
    decided: Number = None


class WeakRow(WeakScores):
    """One row of the comparison: what was scored, on which split, and whether masks were used before."""

    name: str
    split: str
    uses_masks: bool = False
    seconds: Number = None


class Bin(Result):
    """Pixels with a probability from ``low`` to ``high``: its mean, and the share where it was right."""

    low: float = 0.0
    high: float = 1.0
    pixels: int = 0
    probability: Number = None
    share: Number = None


class Reliability(Result):
    """The calibration error, and the bins of the most probable class and of the foreground."""

    error: Number = None
    maximum_error: Number = None
    bins: tuple[Bin, ...] = ()
    foreground: tuple[Bin, ...] | None = None

    def known(self, bins: tuple[Bin, ...]) -> list[tuple[int, float, float]]:
        """Return pixels, mean probability and share of those of ``bins`` that have pixels."""
        return [
            (row.pixels, row.probability, row.share)
            for row in bins
            if row.pixels and row.probability is not None and row.share is not None
        ]


LEAKAGE = "Kapoor, Narayanan 2023"
"""The source of the advice that a model was trained on some of the pictures."""


class Advice(Result):
    """Which scores to read of these data, or not to trust, and why, in one sentence with its source."""

    scores: tuple[str, ...]
    read: bool
    text: str
    source: str


class Emptiness(Result):
    """Pictures without foreground: in truth and prediction, in the truth alone, in the prediction alone.

    ``dice`` is the mean over pictures with true foreground, which no convention has a say in.
    """

    both: int = 0
    no_truth: int = 0
    nothing_predicted: int = 0
    with_truth: int = 0
    dice: Spread = Spread()

    @property
    def text(self) -> str:
        """One sentence for people; empty where every picture has foreground in truth and prediction."""
        if not (self.both or self.no_truth or self.nothing_predicted):
            return ""
        mean = "unknown" if self.dice.mean is None else f"{self.dice.mean:.3f}"
        return (
            f"{count(self.both, 'picture')} without foreground in truth and prediction (Dice 1 by "
            f"convention), {self.no_truth} in the truth alone (Dice 0), {self.nothing_predicted} in the "
            "prediction alone (Dice 0). Where the truth has foreground "
            f"({count(self.with_truth, 'picture')}), the mean Dice is {mean}."
        )


class EvaluationTable(Result):
    """The contents of ``scores.json``.

    ``images`` has one row a picture, worst Dice first, then those that failed. ``shown`` is how many of the
    pictures scored show each class: where none shows any, scores of overlap are NaN. ``settings`` are those
    that the numbers depend on. ``unit`` is that of distances; ``per_class`` are, of volumes, means over those
    of them for which a class has the score. ``strata`` are the subgroups that a table of pictures names,
    ``advice`` says which scores to read of data like these.
    """

    split: str = ""
    num_images: int | None = None
    num_failed: int = 0
    num_empty: int = 0
    classes: tuple[str, ...] = ()
    shown: Mapping[str, int] = {}
    settings: Mapping[str, object] = {}
    resampling: Resampling = Resampling()
    objects: ObjectTable = ObjectTable()
    strata: StrataTable = StrataTable()
    emptiness: Emptiness = Emptiness()
    advice: tuple[Advice, ...] = ()
    uncertainty: tuple[ErrorDetection, ...] = ()
    definitions: Mapping[str, str] = {}
    pooled: PooledScores = PooledScores()
    per_image: Mapping[str, Spread] = {}
    per_class: Mapping[str, Mapping[str, Spread]] = {}
    unit: Literal["px", "mm"] = "px"
    calibration: Reliability = Reliability()
    images: tuple[PictureScores, ...]

    @property
    def trained_on(self) -> str:
        """That the model was trained on some of the pictures, in a sentence; empty where it wasn't."""
        text = next((each.text for each in self.advice if each.source == LEAKAGE), "")
        return text[:1].upper() + text[1:]

    def average(self, name: str) -> Spread:
        """Return the score called ``name`` over the pictures; without a mean where there is none."""
        return self.per_image.get(name, Spread())
