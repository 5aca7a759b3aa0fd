"""The stages from image-level labels to pseudo-masks, in order, each with its input and output."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from seglens.data.labels import read_label
from seglens.data.layout import DataSettings, Entry
from seglens.errors import SettingError, unknown_name
from seglens.results import record as records
from seglens.results.names import count
from seglens.runtime.progress import track
from seglens.runtime.threads import read_ahead
from seglens.shapes import Image, Map
from seglens.weak.classifier import open_classifier
from seglens.weak.classifier_score import ClassifierScore, check_classifier, class_numbers, imagenet_score
from seglens.weak.heat import blank, fused_heat, map_taps, working_size
from seglens.weak.ignore_band import IGNORED, as_values, mask_file, with_ignore_band, write_pair
from seglens.weak.labels import Labelled
from seglens.weak.pixel_classifier import (
    LinearHead,
    TrainingSample,
    fit_head,
    load_head,
    pixel_probability,
    save_head,
    training_sample,
)
from seglens.weak.refine import refine, vote
from seglens.weak.settings import PseudoSettings, ScoreSettings, to_plain
from seglens.weak.stage_cache import Stage, StageCache, stems_of, to_size
from seglens.weak.superpixels import cut_superpixels, read_superpixels
from seglens.weak.threshold import Cut, choose_threshold, count_values

PICTURES = "pictures.json"
"""Names, files and sizes of the pictures, beside the folders of the stages."""

CERTAIN = math.log(9)
"""The logit, of probability 0.9, that heat stands for where a threshold's certainty begins."""


def as_probability(values: Map, cut: Cut) -> Map:
    """Read heat as a probability: 0.5 at the threshold, 0.9 and 0.1 where certainty begins."""
    above = (values - cut.middle) / max(cut.high - cut.middle, 1e-3)
    below = (values - cut.middle) / max(cut.middle - cut.low, 1e-3)
    return (CERTAIN * torch.where(values >= cut.middle, above, below)).sigmoid()


def open_classifier_score(settings: ScoreSettings, device: torch.device) -> ClassifierScore:
    """Return the classifier that the settings name, ready to be asked.

    Raises:
        DataError, SettingError, UnknownNameError, CheckpointError, ModelError: it can't be had.
    """
    if settings.classifier is not None:
        return open_classifier(Path(settings.classifier), device=device)
    return imagenet_score(settings.encoder, settings.weights, settings.positive, device=device)


def check_score_settings(settings: ScoreSettings) -> None:
    """Refuse what `open_classifier_score` can't open, as far as that is known without a network.

    Raises:
        DataError, SettingError, UnknownNameError, CheckpointError: it can't be had.
    """
    if settings.classifier is None:
        check_classifier(settings.encoder, settings.weights)
        class_numbers(settings.positive)


class PseudoMaskJob:
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
                f"The object is in 0 of {count(len(labelled), 'picture')}. Give pictures that show it, or "
                "check the labels."
            )
        if settings.masks.votes and settings.patches is None:
            raise SettingError(
                "The masks need superpixels, because 'votes' is on, but 'patches' is left out. Set patches, "
                "or switch votes off."
            )
        map_taps(settings.heat)
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
    def classifier(self) -> ClassifierScore:
        """The classifier, opened when the first stage needs it."""
        return open_classifier_score(self.settings.question, self.device)

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

    def heat(self) -> StageCache:
        """Make the fused maps, then the threshold."""
        cache, done = self._cache("heat", "question", "heat", "threshold")
        if not done:
            cache.do_once(lambda: self.classifier)
            scores: list[float] = []

            def work(index: int) -> Map:
                image = self._image(index)
                if not self.labelled.present[index]:
                    return blank(image.shape[1:], self.settings.heat.side)
                found, score = fused_heat(self.classifier, image, self.settings.heat)
                scores.append(score)
                return found

            cache.fill(self.stems, work)
            positive = [self.stems[index] for index in self.labelled.positive]
            cut = choose_threshold(
                count_values(cache.read(stem) for stem in positive), self.settings.threshold
            )
            cache.threshold = cut.middle
            cache.facts = {
                "question": self.classifier.about,
                "low": cut.low,
                "middle": cut.middle,
                "high": cut.high,
            }
            cache.close()
        self.cut = Cut(*(cache.facts[name] for name in ("low", "middle", "high")))
        return self._passed(cache)

    def patches(self) -> None:
        """Cut the superpixels, which depend on the pictures and nothing before."""
        assert self.settings.patches is not None
        cache = StageCache(
            "patches",
            self.folder / "patches",
            {"pictures": self.made_with["pictures"], "patches": self.plain["patches"]},
        )
        if not cache.open():
            settings, files = self.settings.patches, [entry.image for entry in self.entries]
            channels = self.labelled.channels
            cache.do_once(
                lambda: cut_superpixels(files, self.stems, settings, cache.folder, channels=channels)
            )
            cache.close()
        self._passed(cache)

    def spread(self, before: StageCache) -> StageCache:
        """Fit the head to the heat, then apply it to every picture."""
        settings = self.settings.spread
        assert settings is not None
        cache, done = self._cache("spread", "spread")
        if not done:
            file = cache.folder / "head.npz"
            positive = self.labelled.positive

            def read(number: int) -> TrainingSample:
                index = positive[number]
                warm = before.read(self.stems[index]).to(self.device)
                return training_sample(self.classifier, self._image(index), warm, settings)

            def learn() -> None:
                save_head(fit_head(read, len(positive), settings, self.cut, seed=self.seed), file)

            if not file.is_file():
                cache.do_once(learn)
            head = load_head(file, self.device)
            self._fill(cache, lambda index: self._spread_one(index, head))
            cache.threshold = 0.5
            cache.facts = {
                "settled": head.history[-1][1] < settings.settled,
                "rounds": [{"taught": first, "changed": second} for first, second in head.history],
            }
            cache.close()
        return self._passed(cache)

    def _spread_one(self, index: int, head: LinearHead) -> Map:
        assert self.settings.spread is not None
        image = self._image(index)
        return pixel_probability(self.classifier, image, head, self.settings.spread, self.settings.heat.side)

    def refined(self, before: StageCache, cut: Cut) -> StageCache:
        """Bring the maps to the edges of their pictures."""
        settings = self.settings.refine
        assert settings is not None
        cache, done = self._cache("refined", "refine")
        if not done:

            def work(index: int) -> Map:
                image = self._image(index)
                size = working_size((image.shape[1], image.shape[2]), self.settings.heat.side)
                small = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
                return refine(small, self._probability(before, index, cut).to(self.device), settings)

            self._fill(cache, work)
            cache.threshold = 0.5
            cache.close()
        return self._passed(cache)

    def voted(self, before: StageCache, cut: Cut) -> StageCache:
        """Give every superpixel its mean, at the pictures' own size."""
        cache, done = self._cache("voted", "patches")
        if not done:

            def work(index: int) -> Map:
                values = to_size(self._probability(before, index, cut), self.sizes[index])
                return vote(values, read_superpixels(self.folder / "patches", self.stems[index]))

            self._fill(cache, work)
            cache.threshold = 0.5
            cache.close()
        return self._passed(cache)

    def masks(self, before: StageCache, cut: Cut) -> None:
        """Write the masks with their ignored band."""
        cache, done = self._cache("masks", "masks")
        if not done:
            shares: list[list[float]] = []

            def write() -> None:
                for index in track(range(len(self.stems)), total=len(self.stems), what="masks"):
                    values = to_size(self._probability(before, index, cut), self.sizes[index])
                    mask = with_ignore_band(values, 0.5, self.settings.masks)
                    mask = mask if self.labelled.present[index] else torch.zeros_like(mask)
                    shares.append([float((mask == value).double().mean()) for value in (IGNORED, 1)])
                    write_pair(cache.folder / "train", self.stems[index], self.entries[index].image, mask)

            cache.do_once(write)
            ignored, there = (sum(share) for share in zip(*shares, strict=True))
            cache.threshold = 0.5
            cache.facts = {"ignored": ignored / len(self.stems), "object": there / len(self.stems)}
            cache.close()
        self._passed(cache)

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

    def _probability(self, before: StageCache, index: int, cut: Cut) -> Map:
        values = before.read(self.stems[index])
        return as_probability(values, cut) if before.name == "heat" else values

    def _cache(self, name: str, *settings: str) -> tuple[StageCache, bool]:
        """Open the folder of a stage that depends on these settings and all of the stages before."""
        self.made_with = {**self.made_with, **{key: self.plain[key] for key in settings}}
        cache = StageCache(name, self.folder / name, self.made_with)
        return cache, cache.open()

    def _fill(self, cache: StageCache, work: Callable[[int], Map]) -> None:
        """Make the maps of the pictures with the object; those of others are 0."""

        def one(index: int) -> Map:
            if self.labelled.present[index]:
                return work(index)
            return blank(self.sizes[index], self.settings.heat.side)

        cache.fill(self.stems, one)

    def _passed(self, cache: StageCache) -> StageCache:
        self.stages.append(
            Stage(
                cache.name,
                cache.folder,
                cache.seconds,
                cache.once,
                cache.processor_seconds,
                cache.threshold,
                cache.facts,
            )
        )
        return cache


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
        return to_size(StageCache(name, stage.folder, {}).read(self.files[index]), self.sizes[index])

    def load_superpixels(self, index: int) -> Int[Tensor, "h w"]:
        """Return the superpixels of picture ``index`` at its own size, numbered from 0.

        Raises:
            UnknownNameError: the settings left superpixels out.
            DataError: the file is missing or damaged.
        """
        return read_superpixels(self.stage("patches").folder, self.files[index])

    def data_settings(self) -> DataSettings:
        """Return how to open the pseudo-masks as a set: layout ``pairs``, 255 ignored, all in train."""
        return DataSettings(
            path=self.stage("masks").folder, layout="pairs", ignore=IGNORED, masks="foreground"
        )


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
    job = PseudoMaskJob(labelled, settings, Path(folder), device, seed)
    stages = job.run()
    return PseudoMasks(Path(folder), job.names, job.stems, job.sizes, stages)
