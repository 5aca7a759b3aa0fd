"""From image-level labels to pseudo-masks: each stage has its folder, is written once and can be taken up."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from seglens import record as records
from seglens.data.images import read_label
from seglens.data.layout import DataSettings
from seglens.errors import SettingError, unknown_name
from seglens.progress import track
from seglens.shapes import Image, Map
from seglens.threads import read_ahead
from seglens.weak.banded import IGNORED, as_values, banded, mask_file, write_pair
from seglens.weak.classifier import open_classifier
from seglens.weak.heat import blank, heat, taps, working_size
from seglens.weak.labels import Labelled
from seglens.weak.patches import cut_patches, read_patches
from seglens.weak.question import Question, imagenet_question
from seglens.weak.refine import refine, vote
from seglens.weak.settings import PseudoSettings, QuestionSettings, to_plain
from seglens.weak.shelf import Shelf, stems_of
from seglens.weak.spreading import Head, cells, fit_head, load_head, on_grid, save_head, spread
from seglens.weak.threshold import Cut, choose, histogram

STAGES = ("heat", "patches", "spread", "refined", "voted", "masks")
"""The folders, in the order in which they are made; ``patches`` are superpixels and predict nothing."""

PICTURES = "pictures.json"
"""Names, files and sizes of the pictures, beside the folders of the stages."""

CERTAIN = math.log(9)
"""The logit, of probability 0.9, that heat stands for where a threshold's certainty begins."""


@dataclass(frozen=True)
class Stage:
    """One stage that was passed: its folder, the seconds of work it took, and what it says of itself.

    ``seconds`` are those of the work itself, also where it was done in an earlier call; of them, ``once``
    were spent for the set as a whole (asking for the classifier, fitting the head). ``threshold`` is where a
    map of the stage is cut into object and none, chosen without masks; None where the stage predicts nothing.
    ``facts`` are plain values for ``run.json``.
    """

    name: str
    folder: Path
    seconds: float
    once: float
    threshold: float | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class PseudoMasks:
    """All that was made: the stages in order, and the pictures they were made for.

    ``names`` are those of the pictures, ``files`` the stem under which each is kept in a stage's folder, and
    ``sizes`` their rows and columns.
    """

    folder: Path
    names: tuple[str, ...]
    files: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        """Return the stage called ``name``.

        Raises:
            UnknownNameError: there is none, or the settings left it out.
        """
        found = next((stage for stage in self.stages if stage.name == name), None)
        if found is None:
            raise unknown_name("stage", name, [stage.name for stage in self.stages])
        return found

    def load_stage(self, name: str, index: int) -> Map:
        """Return what a stage predicts for picture ``index``, in [0, 1], at the picture's own size.

        `Stage.threshold` says from which value on a pixel is object. Of ``masks``, ignored pixels are 0.5.

        Raises:
            UnknownNameError: there is no such stage, or it predicts nothing.
            DataError: a file is missing or damaged.
        """
        stage = self.stage(name)
        if stage.threshold is None:
            raise unknown_name(
                "stage that predicts", name, [one.name for one in self.stages if one.threshold]
            )
        if name == "masks":
            return as_values(read_label(mask_file(stage.folder / "train", self.files[index])))
        return to_size(Shelf(name, stage.folder, {}).read(self.files[index]), self.sizes[index])

    def load_patches(self, index: int) -> Int[Tensor, "h w"]:
        """Return the superpixels of picture ``index`` at its own size, numbered from 0.

        Raises:
            UnknownNameError: the settings left superpixels out.
            DataError: the file is missing or damaged.
        """
        return read_patches(self.stage("patches").folder, self.files[index])

    def data_settings(self) -> DataSettings:
        """Return how to open the pseudo-masks as a set: layout ``pairs``, 255 ignored, all in train."""
        return DataSettings(path=self.stage("masks").folder, layout="pairs", ignore=IGNORED)


def make_pseudo_masks(
    labelled: Labelled, settings: PseudoSettings, folder: Path, *, device: torch.device, seed: int
) -> PseudoMasks:
    """Make pseudo-masks of pictures with image-level labels; no mask is read.

    In ``folder`` every stage has a folder: ``heat/`` (fused maps), ``patches/`` (superpixels), ``spread/``
    (the head's maps), ``refined/``, ``voted/``, ``masks/`` (the set in layout ``pairs``, with 0, 1 and 255).
    A call with the same settings goes on where an earlier one was stopped; a stage depends on the settings of
    those before it only, so that another way to end may use the heat that is there (after deleting the
    folders of later stages). Pictures without the object get maps and masks of 0.

    Raises:
        SettingError, UnknownNameError: a setting is not allowed, or no picture shows the object.
        OutputExistsError: ``folder`` holds stages of other settings or other pictures.
        DataError: a picture can't be read, or nothing can be told apart.
        CheckpointError, ModelError: the classifier can't be had.
    """
    return _Work(labelled, settings, Path(folder), device, seed).run()


def to_size(values: Map, size: tuple[int, int]) -> Map:
    """Return a map at another size, bilinear, corners not aligned."""
    if tuple(values.shape) == tuple(size):
        return values
    return F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0].clamp(0, 1)


def as_probability(values: Map, cut: Cut) -> Map:
    """Read heat as a probability: 0.5 at the threshold, 0.9 and 0.1 where certainty begins, in logits linear."""
    above = (values - cut.middle) / max(cut.high - cut.middle, 1e-3)
    below = (values - cut.middle) / max(cut.middle - cut.low, 1e-3)
    return (CERTAIN * torch.where(values >= cut.middle, above, below)).sigmoid()


def open_question(settings: QuestionSettings, device: torch.device) -> Question:
    """Return the classifier that the settings name, ready to be asked.

    Raises:
        DataError, SettingError, UnknownNameError, CheckpointError, ModelError: it can't be had.
    """
    if settings.classifier is not None:
        return open_classifier(Path(settings.classifier), device=device)
    return imagenet_question(settings.encoder, settings.weights, settings.positive, device=device)


class _Work:
    """One call of `make_pseudo_masks` on its way; the methods are the stages, in their order."""

    def __init__(
        self, labelled: Labelled, settings: PseudoSettings, folder: Path, device: torch.device, seed: int
    ) -> None:
        if not labelled.positive:
            raise SettingError(
                f"None of the {len(labelled)} pictures shows the object. Give pictures that do, or check the labels."
            )
        taps(settings.heat)
        self.labelled, self.settings, self.folder = labelled, settings, folder
        self.device, self.seed = device, seed
        self.entries = labelled.split.entries
        self.names = tuple(entry.name for entry in self.entries)
        self.stems = stems_of(self.names)
        pictures = [(entry.name, there) for entry, there in zip(self.entries, labelled.present, strict=True)]
        self.made_with: dict[str, Any] = {
            "pictures": hashlib.sha256(repr(pictures).encode()).hexdigest(),
            "seed": seed,
        }
        self.plain = to_plain(settings)
        self.stages: list[Stage] = []

    @cached_property
    def question(self) -> Question:
        """The classifier, opened when the first stage needs it."""
        return open_question(self.settings.question, self.device)

    def run(self) -> PseudoMasks:
        last = self.heat()
        cut = self.cut
        if self.settings.patches is not None:
            self.patches()
        if self.settings.spread is not None:
            last = self.spread(last)
        if self.settings.refine is not None:
            last = self.refined(last, cut)
        if self.settings.patches is not None:
            last = self.voted(last, cut)
        self.masks(last, cut)
        return PseudoMasks(self.folder, self.names, self.stems, self.sizes, tuple(self.stages))

    def heat(self) -> Shelf:
        """Make the fused maps, then the threshold."""
        shelf, done = self._shelf("heat", "question", "heat", "threshold")
        if not done:
            self._once(shelf, lambda: self.question)
            scores: list[float] = []

            def work(index: int) -> Map:
                image = self._image(index)
                if not self.labelled.present[index]:
                    return blank(image.shape[1:], self.settings.heat.side)
                found, score = heat(self.question, image, self.settings.heat)
                scores.append(score)
                return found

            shelf.fill(self.stems, work)
            positive = [self.stems[index] for index in self.labelled.positive]
            cut = choose(histogram(shelf.read(stem) for stem in positive), self.settings.threshold)
            shelf.threshold = cut.middle
            shelf.facts = {
                "question": self.question.about,
                "low": cut.low,
                "middle": cut.middle,
                "high": cut.high,
            }
            shelf.close()
        self.cut = Cut(*(shelf.facts[name] for name in ("low", "middle", "high")))
        return self._passed(shelf)

    def patches(self) -> None:
        """Cut the superpixels, which depend on the pictures and nothing before."""
        assert self.settings.patches is not None
        shelf = Shelf(
            "patches",
            self.folder / "patches",
            {"pictures": self.made_with["pictures"], "patches": self.plain["patches"]},
        )
        if not shelf.open():
            began = time.perf_counter()
            files = [entry.image for entry in self.entries]
            channels = self.labelled.split.reader.channels  # type: ignore[attr-defined]
            cut_patches(files, self.stems, self.settings.patches, shelf.folder, channels=channels)
            shelf.seconds += time.perf_counter() - began
            shelf.once = shelf.seconds
            shelf.close()
        self._passed(shelf)

    def spread(self, before: Shelf) -> Shelf:
        """Fit the head to the heat, then ask it about every picture."""
        settings = self.settings.spread
        assert settings is not None
        shelf, done = self._shelf("spread", "spread")
        if not done:
            file = shelf.folder / "head.npz"
            positive = self.labelled.positive

            def read(number: int) -> tuple[Tensor, Map]:
                index = positive[number]
                image = self._image(index)
                grid = cells(self.question, image, settings)
                return grid, on_grid(before.read(self.stems[index]).to(self.device), image, settings)

            def learn() -> None:
                save_head(fit_head(read, len(positive), settings, self.cut, seed=self.seed), file)

            if not file.is_file():
                self._once(shelf, learn)
            head = load_head(file, self.device)
            self._fill(shelf, lambda index: self._spread_one(index, head))
            shelf.threshold = 0.5
            shelf.facts = {"rounds": [{"taught": first, "changed": second} for first, second in head.history]}
            shelf.close()
        return self._passed(shelf)

    def _spread_one(self, index: int, head: Head) -> Map:
        assert self.settings.spread is not None
        image = self._image(index)
        return spread(self.question, image, head, self.settings.spread, self.settings.heat.side)

    def refined(self, before: Shelf, cut: Cut) -> Shelf:
        """Bring the maps to the edges of their pictures."""
        settings = self.settings.refine
        assert settings is not None
        shelf, done = self._shelf("refined", "refine")
        if not done:

            def work(index: int) -> Map:
                image = self._image(index)
                size = working_size((image.shape[1], image.shape[2]), self.settings.heat.side)
                small = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
                return refine(small, self._probability(before, index, cut).to(self.device), settings)

            self._fill(shelf, work)
            shelf.threshold = 0.5
            shelf.close()
        return self._passed(shelf)

    def voted(self, before: Shelf, cut: Cut) -> Shelf:
        """Give every superpixel its mean, at the pictures' own size."""
        shelf, done = self._shelf("voted", "patches")
        if not done:

            def work(index: int) -> Map:
                values = to_size(self._probability(before, index, cut), self.sizes[index])
                return vote(values, read_patches(self.folder / "patches", self.stems[index]))

            self._fill(shelf, work)
            shelf.threshold = 0.5
            shelf.close()
        return self._passed(shelf)

    def masks(self, before: Shelf, cut: Cut) -> None:
        """Write the masks with their ignored band."""
        shelf, done = self._shelf("masks", "masks")
        if not done:
            began, ignored, there = time.perf_counter(), 0.0, 0.0
            for index in track(range(len(self.stems)), total=len(self.stems), what="masks"):
                values = to_size(self._probability(before, index, cut), self.sizes[index])
                mask = banded(values, 0.5, self.settings.masks)
                mask = mask if self.labelled.present[index] else torch.zeros_like(mask)
                ignored += float((mask == IGNORED).double().mean())
                there += float((mask == 1).double().mean())
                write_pair(shelf.folder / "train", self.stems[index], self.entries[index].image, mask)
            shelf.seconds = time.perf_counter() - began
            shelf.threshold = 0.5
            shelf.facts = {"ignored": ignored / len(self.stems), "object": there / len(self.stems)}
            shelf.close()
        self._passed(shelf)

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the pictures, as read: kept on disk, since every picture has to be opened."""
        file = self.folder / PICTURES
        if file.is_file():
            known = json.loads(file.read_text(encoding="utf-8"))
            if known["names"] == list(self.names):
                return tuple((rows, columns) for rows, columns in known["sizes"])
        split = self.labelled.split
        shapes = (tuple(sample.image.shape) for sample in read_ahead(split.__getitem__, range(len(split))))
        sizes = tuple((rows, columns) for _, rows, columns in shapes)
        self.folder.mkdir(parents=True, exist_ok=True)
        records.write_json(file, {"names": self.names, "files": self.stems, "sizes": sizes})
        return sizes

    def _image(self, index: int) -> Image:
        image: Image = self.labelled.split[index].image.to(self.device)
        return image

    def _probability(self, before: Shelf, index: int, cut: Cut) -> Map:
        values = before.read(self.stems[index])
        return as_probability(values, cut) if before.name == "heat" else values

    def _once(self, shelf: Shelf, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        shelf.note_once(time.perf_counter() - began)

    def _shelf(self, name: str, *settings: str) -> tuple[Shelf, bool]:
        """Open the folder of a stage that depends on these settings and all of the stages before."""
        self.made_with = {**self.made_with, **{key: self.plain[key] for key in settings}}
        shelf = Shelf(name, self.folder / name, self.made_with)
        return shelf, shelf.open()

    def _fill(self, shelf: Shelf, work: Callable[[int], Map]) -> None:
        """Make the maps of the pictures with the object; those of others are 0."""

        def one(index: int) -> Map:
            if self.labelled.present[index]:
                return work(index)
            return blank(self.sizes[index], self.settings.heat.side)

        shelf.fill(self.stems, one)

    def _passed(self, shelf: Shelf) -> Shelf:
        self.stages.append(
            Stage(shelf.name, shelf.folder, shelf.seconds, shelf.once, shelf.threshold, shelf.facts)
        )
        return shelf
