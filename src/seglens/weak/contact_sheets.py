"""Contact sheets: for some pictures the result of every stage and every student, and last the truth."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image as pil

from seglens.drawing.draw import Scale, Tile, hatch, heat, outline, overlay, picture, save_png, sheet
from seglens.errors import SettingError
from seglens.evaluate.scores import confusion, scores
from seglens.shapes import Image, Mask
from seglens.weak.data import Truth
from seglens.weak.ignore_band import IGNORED
from seglens.weak.pseudo_masks import PseudoMasks
from seglens.weak.self_training import decided, masks_of, read_answer
from seglens.weak.students import LearningPictures

NUM_SAMPLES = 6
"""The number of pictures that are drawn by default, evenly spread over those that show the object."""

SHARE = Scale((0.0, 1.0), unit="share of the largest value")
CHANCE = Scale((0.0, 1.0), unit="probability")

SHOWN = {
    "heat": ("class activation map", SHARE),
    "spread": ("head on the features", CHANCE),
    "refined": ("refined by likeness", CHANCE),
    "voted": ("votes of superpixels", CHANCE),
}


def chosen_numbers(pictures: LearningPictures, samples: Sequence[int] | None) -> list[int]:
    """Return the numbers of the pictures to draw.

    Raises:
        SettingError: there is no picture of a number.
    """
    if samples is not None:
        for index in samples:
            if not 0 <= index < len(pictures):
                raise SettingError(
                    f"Picture {index} can't be drawn, because there is none. The pictures that students "
                    f"learn from have the numbers 0 to {len(pictures) - 1}."
                )
        return list(samples)
    there = pictures.labelled.positive
    num = min(NUM_SAMPLES, len(there))
    return [there[position * len(there) // num] for position in range(num)]


def write_sheets(
    folder: Path,
    pictures: LearningPictures,
    pseudo: PseudoMasks,
    answers: Sequence[tuple[Path, float]],
    indices: Sequence[int],
    *,
    margin: float,
    truth: Truth | None = None,
) -> None:
    """Draw a sheet for each of ``indices`` into ``folder``; the truth is on it where one is given.

    ``answers`` are the folders of each teacher's answers with that student's threshold.
    """
    folder.mkdir(exist_ok=True)
    for index in indices:
        image = pictures.labelled.split[index].image
        shown = None
        if truth is not None:
            sample = truth.split[index]
            assert sample.mask is not None
            shown = sample.mask.clamp(max=1).masked_fill(~sample.valid, IGNORED)
        rows = [
            _stages(image, pseudo, index),
            _masks(image, pictures, pseudo, answers, index, margin=margin, truth=shown),
        ]
        name = pictures.labelled.split.entries[index].name
        save_png(sheet(rows, title=f"{name} (picture {index})"), folder / f"{pictures.files[index]}.png")


def _stages(image: Image, pseudo: PseudoMasks, index: int) -> list[Tile]:
    tiles = [Tile(picture(image), "picture")]
    for stage in pseudo.stages:
        if stage.name == "patches":
            tiles.append(_patches(image, pseudo, index, stage.seconds))
        if stage.name in SHOWN:
            title, scale = SHOWN[stage.name]
            values = pseudo.load_stage(stage.name, index)
            drawn = heat(values, scale)
            caption = "no threshold"
            if stage.threshold is not None:
                there = values >= stage.threshold
                drawn = outline(drawn, there)
                caption = f"threshold {stage.threshold:.2f}, object {float(there.float().mean()):.0%}"
            tiles.append(Tile(drawn, title, caption, scale))
    return tiles


def _patches(image: Image, pseudo: PseudoMasks, index: int, seconds: float) -> Tile:
    numbers = pseudo.load_superpixels(index)
    edges = torch.zeros_like(numbers, dtype=torch.bool)
    edges[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    edges[1:] |= numbers[1:] != numbers[:-1]
    drawn = picture(image)
    lines = pil.fromarray(edges.to(torch.uint8).mul(255).numpy())
    drawn.paste((255, 255, 255), mask=lines)
    return Tile(drawn, "superpixels", f"{int(numbers.max()) + 1}, once for all rounds")


def _masks(
    image: Image,
    pictures: LearningPictures,
    pseudo: PseudoMasks,
    answers: Sequence[tuple[Path, float]],
    index: int,
    *,
    margin: float,
    truth: Mask | None,
) -> list[Tile]:
    values = pseudo.load_stage("masks", index)
    tiles = [_mask(image, masks_of(values), "pseudo-mask", truth)]
    for number, (folder, threshold) in enumerate(answers):
        answer = read_answer(folder, pictures, index)
        tiles.append(_mask(image, decided(answer, threshold, margin), f"student {number}", truth))
    if truth is not None:
        tiles.append(_mask(image, truth, "truth", None))
    return tiles


def _mask(image: Image, mask: Mask, title: str, truth: Mask | None) -> Tile:
    """Draw a mask over its picture, ignored pixels hatched; the caption compares it with the truth."""
    ignored = mask == IGNORED
    drawn = hatch(overlay(image, mask.masked_fill(ignored, 0)), ignored)
    caption = f"ignored {float(ignored.float().mean()):.0%}"
    if truth is not None:
        both = ~ignored & (truth != IGNORED)
        counts = confusion(mask.masked_fill(~both, 0), truth.masked_fill(~both, 0), both, 2)
        iou = float(scores(counts)["iou"])
        caption += f", IoU {iou:.2f} of the rest" if iou == iou else ", no object in either: no IoU"
    return Tile(drawn, title, caption)
