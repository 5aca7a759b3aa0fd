"""The case that every score is measured on, and the numbers that it gives: one per image and map."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.arguments import check_fields, check_range
from seglens.errors import SettingError, unknown_name
from seglens.evaluate.intervals import Groups
from seglens.explain.explanation import Explanation
from seglens.explain.masked import check_precision
from seglens.explain.target import Target
from seglens.judge.cells import CELLS, PARTITIONS, Partition, PerCell, cell_means
from seglens.judge.nulls import NullInputs
from seglens.judge.race import Race
from seglens.judge.reading import Reading, reading
from seglens.results.names import CARD_SCORES, NULL, TARGET_SCALE, map_name
from seglens.runs import Run
from seglens.shapes import Images, Maps, PerImage, Regions

Key = tuple[str, str | None]
"""Method and layer of a map."""

Explainer = Callable[[Run, Images, Target], Maps]
"""Makes the map of somebody's own method again: for another model, or for changed pictures."""

Outcome = Literal[
    "better",
    "undecided",
    "worse",
    "complete",
    "incomplete",
    "restates",
    "where_not_why",
    "reference",
    "too_few_images",
    "no_other_pictures",
    "context_unused",
    "imputers_disagree",
    "not_repeatable",
    "no_explainer",
    "no_weights",
    "too_slow",
]
"""What a row came to, for programs to read; its reason says the same in words.

The first three are of the comparison with the best reference row, the next two of completeness, two of
attention. Those from ``too_few_images`` on are why a row is not evaluable.
"""


class Reason(NamedTuple):
    """Why a row is not evaluable."""

    outcome: Outcome
    text: str


SCORES = CARD_SCORES

CHEAP = (TARGET_SCALE, "completeness", "attention")
"""Those that need few passes of the model, and no map made again."""


@dataclass(frozen=True)
class JudgeSettings:
    """The scores to make, and the number of images for the costly ones.

    ``num_again`` images serve the scores that make maps again (model dependence, stability), of methods that
    take at most ``max_seconds`` an image, measured on the first one. ``num_occluded`` images are occluded
    cell by cell for causal agreement. All scores cut the pictures alike: ``cells`` names a way of
    `cells.PARTITIONS` and ``across`` squared is how many there are. ``num_models`` sets of random weights are
    drawn, and ``stages`` steps lead from the trained model to a random one in the cascade. ``precision`` is
    that of the forward passes of removal: ``32``, ``bf16`` or ``auto``; in bfloat16 the table says how well
    scores are ranked as in float32. With ``race`` the removal scores let go of maps and reference rows as
    soon as they are decided (see `judge.race`); without it all are measured on all pictures, at all steps.
    """

    scores: tuple[str, ...] = SCORES
    num_again: int = 16
    max_seconds: float = 1.0
    num_occluded: int = 16
    cells: str = "grid"
    across: int = CELLS
    num_models: int = 3
    stages: int = 4
    precision: str = "32"
    race: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.scores:
            if name not in SCORES:
                raise unknown_name("score", name, SCORES)
        check_precision(self.precision)
        if self.cells not in PARTITIONS:
            raise unknown_name("way to cut pictures into cells", self.cells, list(PARTITIONS))
        if not self.scores:
            raise SettingError(f"No score was asked for. Allowed: {', '.join(SCORES)}.")
        for name in ("num_again", "num_occluded", "across", "num_models", "stages"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}, but must be at least 1.")
            check_range(name, getattr(self, name), 1, {"across": 256, "stages": 1000}.get(name, 10**6))
        check_range("max_seconds", self.max_seconds, 0, inf)
        if "stability" in self.scores and not {"faithfulness", TARGET_SCALE} & set(self.scores):
            # A constant map is the stablest of all: the score is never shown without faithfulness.
            object.__setattr__(self, "scores", ("faithfulness", *self.scores))


@dataclass(frozen=True)
class JudgedBatch:
    """The maps of one batch of images, with the model, pictures, nulls and settings to judge them by.

    ``valid`` is what is no padding, ``partition`` the cells that all scores are measured on. ``before`` are
    the scores of the images before these, ``num`` is how many there are in all, and ``groups`` are those of
    all up to these.
    """

    run: Run
    images: Images
    target: Target
    maps: Mapping[Key, Explanation]
    inputs: NullInputs
    nulls: Mapping[str, Maps]
    valid: Regions
    partition: Partition
    settings: JudgeSettings
    explainers: Mapping[str, Explainer]
    seed: int
    batch_size: int
    before: Mapping[str, "ScoreValues"] = field(default_factory=dict)
    num: int = 0
    groups: Groups | None = None

    @cached_property
    def reading(self) -> Reading:
        """Reads changed copies of the pictures; made once for all scores."""
        return reading(self.run.segmenter, self.images, self.target, self.valid, batch_size=self.batch_size)

    def first(self, num: int) -> "JudgedBatch":
        """Return the case of the first ``num`` images only."""
        if num >= len(self.images):
            return self
        rows = slice(num)
        return replace(
            self,
            images=self.images[rows],
            target=self.target.select(rows),
            maps={key: select(entry, rows) for key, entry in self.maps.items()},
            inputs=replace(
                self.inputs,
                images=self.inputs.images[rows],
                pixels=self.inputs.pixels[rows],
                probability=self.inputs.probability[rows],
            ),
            nulls={name: maps[rows] for name, maps in self.nulls.items()},
            valid=self.valid[rows],
            partition=self.partition[rows],
        )

    def cells(self, maps: Maps) -> PerCell:
        """Return ``maps`` averaged over the cells, padding left out; NaN in a cell of nothing else."""
        return cell_means(maps.to(self.valid.device), self.partition, self.valid)

    @property
    def counted(self) -> Bool[Tensor, "b cells"]:
        """The cells that hold a pixel of the picture."""
        return self.cells(self.valid.float()).isfinite()


@dataclass(frozen=True)
class ScoreValues:
    """One score of all maps and reference rows, image by image on the CPU; NaN where not evaluable.

    ``about`` belongs to the images, ``details`` to a map and ``reference_details`` to a reference row;
    ``reasons`` say why a map has no value at all. ``race`` is how the race stands, of scores that have one,
    and ``passes`` are the copies of pictures that went through the model for it.
    """

    values: dict[Key, PerImage]
    references: dict[str, PerImage]
    about: dict[str, PerImage] = field(default_factory=dict)
    details: dict[Key, dict[str, PerImage]] = field(default_factory=dict)
    reasons: dict[Key, Reason] = field(default_factory=dict)
    reference_details: dict[str, dict[str, PerImage]] = field(default_factory=dict)
    race: Race | None = None
    passes: int = 0

    @property
    def named(self) -> dict[str, PerImage]:
        """The values of all rows by name, with `NULL` in front of those of reference rows."""
        own = {map_name(*key): values for key, values in self.values.items()}
        return own | {NULL + name: values for name, values in self.references.items()}


def join_scores(parts: Sequence[ScoreValues]) -> ScoreValues:
    """Put the batches of one score together; a map without a value in one of them has none at all."""
    reasons = {key: why for part in parts for key, why in part.reasons.items()}

    def together(tables: Sequence[Mapping]) -> dict:
        shared = [name for name in tables[0] if all(name in table for table in tables)]
        return {name: torch.cat([table[name] for table in tables]) for name in shared}

    details = {
        key: together([part.details.get(key, {}) for part in parts])
        for key in parts[0].details
        if key not in reasons
    }
    return ScoreValues(
        values={
            key: values if key not in reasons else torch.full_like(values, torch.nan)
            for key, values in together([part.values for part in parts]).items()
        },
        references=together([part.references for part in parts]),
        about=together([part.about for part in parts]),
        details=details,
        reasons=reasons,
        reference_details={
            name: together([part.reference_details.get(name, {}) for part in parts])
            for name in parts[0].reference_details
        },
        race=parts[-1].race,
        passes=sum(part.passes for part in parts),
    )


def select(entry: Explanation, rows: slice) -> Explanation:
    """Return the explanation of these pictures only."""
    return replace(
        entry,
        target=entry.target.select(rows),
        map=entry.map[rows],
        grid=None if entry.grid is None else entry.grid[rows],
        status=entry.status[rows],
        diagnostics={name: values[rows] for name, values in entry.diagnostics.items()},
        channels=None if entry.channels is None else entry.channels[rows],
    )
