"""The stages from image-level labels to pseudo-masks, in their order: what each reads and what it leaves."""

import hashlib
import json
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from seglens.data.layout import Entry
from seglens.errors import SettingError
from seglens.results import record as records
from seglens.runtime.progress import track
from seglens.runtime.threads import read_ahead
from seglens.shapes import Image, Map
from seglens.weak.banded import IGNORED, banded, write_pair
from seglens.weak.classifier import open_classifier
from seglens.weak.heat import blank, heat, taps, working_size
from seglens.weak.labels import Labelled
from seglens.weak.patches import cut_patches, read_patches
from seglens.weak.question import Question, check_classifier, class_numbers, imagenet_question
from seglens.weak.refine import refine, vote
from seglens.weak.settings import PseudoSettings, QuestionSettings, to_plain
from seglens.weak.shelf import Shelf, Stage, stems_of, to_size
from seglens.weak.spreading import Head, Lesson, fit_head, lesson, load_head, save_head, spread
from seglens.weak.threshold import Cut, choose, histogram

PICTURES = "pictures.json"
"""Names, files and sizes of the pictures, beside the folders of the stages."""

CERTAIN = math.log(9)
"""The logit, of probability 0.9, that heat stands for where a threshold's certainty begins."""


def as_probability(values: Map, cut: Cut) -> Map:
    """Read heat as a probability: 0.5 at the threshold, 0.9 and 0.1 where certainty begins."""
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


def check_question(settings: QuestionSettings) -> None:
    """Refuse what `open_question` can't open, as far as that is known without a network.

    Raises:
        DataError, SettingError, UnknownNameError, CheckpointError: it can't be had.
    """
    if settings.classifier is None:
        check_classifier(settings.encoder, settings.weights)
        class_numbers(settings.positive)


class Making:
    """One call of `make_pseudo_masks` on its way; the methods are the stages, in their order."""

    labelled: Labelled
    settings: PseudoSettings
    folder: Path
    device: torch.device
    seed: int
    entries: tuple[Entry, ...]
    names: tuple[str, ...]
    stems: tuple[str, ...]
    plain: dict[str, Any]
    cut: Cut

    def __init__(
        self, labelled: Labelled, settings: PseudoSettings, folder: Path, device: torch.device, seed: int
    ) -> None:
        if not labelled.positive:
            raise SettingError(
                f"None of the {len(labelled)} pictures shows the object. Give pictures that do, or "
                "check the labels."
            )
        if settings.masks.votes and settings.patches is None:
            raise SettingError(
                "Masks are to be made of votes, but superpixels are left out. Give patches, or no votes."
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

    def run(self) -> tuple[Stage, ...]:
        """Pass all stages that the settings have."""
        last = self.heat()
        cut = self.cut
        if self.settings.patches is not None:
            self.patches()
        if self.settings.spread is not None:
            last = self.spread(last)
        if self.settings.refine is not None:
            last = self.refined(last, cut)
        if self.settings.patches is not None:
            voted = self.voted(last, cut)
            last = voted if self.settings.masks.votes else last
        self.masks(last, cut)
        return tuple(self.stages)

    def heat(self) -> Shelf:
        """Make the fused maps, then the threshold."""
        shelf, done = self._shelf("heat", "question", "heat", "threshold")
        if not done:
            shelf.do_once(lambda: self.question)
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
            settings, files = self.settings.patches, [entry.image for entry in self.entries]
            channels = self.labelled.channels
            shelf.do_once(lambda: cut_patches(files, self.stems, settings, shelf.folder, channels=channels))
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

            def read(number: int) -> Lesson:
                index = positive[number]
                warm = before.read(self.stems[index]).to(self.device)
                return lesson(self.question, self._image(index), warm, settings)

            def learn() -> None:
                save_head(fit_head(read, len(positive), settings, self.cut, seed=self.seed), file)

            if not file.is_file():
                shelf.do_once(learn)
            head = load_head(file, self.device)
            self._fill(shelf, lambda index: self._spread_one(index, head))
            shelf.threshold = 0.5
            shelf.facts = {
                "settled": head.history[-1][1] < settings.settled,
                "rounds": [{"taught": first, "changed": second} for first, second in head.history],
            }
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
            shares: list[list[float]] = []

            def write() -> None:
                for index in track(range(len(self.stems)), total=len(self.stems), what="masks"):
                    values = to_size(self._probability(before, index, cut), self.sizes[index])
                    mask = banded(values, 0.5, self.settings.masks)
                    mask = mask if self.labelled.present[index] else torch.zeros_like(mask)
                    shares.append([float((mask == value).double().mean()) for value in (IGNORED, 1)])
                    write_pair(shelf.folder / "train", self.stems[index], self.entries[index].image, mask)

            shelf.do_once(write)
            ignored, there = (sum(share) for share in zip(*shares, strict=True))
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
            Stage(
                shelf.name,
                shelf.folder,
                shelf.seconds,
                shelf.once,
                shelf.processor_seconds,
                shelf.threshold,
                shelf.facts,
            )
        )
        return shelf
