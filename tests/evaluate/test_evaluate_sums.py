"""What adds up over pictures: calibration, outlines, shares of a split, mirror images."""

import math

import pytest
import torch
from PIL import Image
from tests.evaluated import HALF, MIRRORS, NOTHING, TRUTH, bright_run, random_samples, sample, split_of
from torch import nn

import seglens
from seglens.data.sample import Sample
from seglens.data.transforms import letterbox_image
from seglens.errors import DataError
from seglens.evaluate import evaluate
from seglens.evaluate.boundaries import mean_of_classes, surface_scores
from seglens.evaluate.scores import confusion, scores
from seglens.evaluate.tally import tally
from seglens.models.segmenter import Segmenter
from seglens.predict import infer
from seglens.predict.original import Inference, probabilities_at_original_size
from seglens.results.record import to_json
from seglens.results.scores import SURFACES
from seglens.runs import Run


def unsure(share: float, size: int = 32) -> torch.Tensor:
    """A picture in which ``Bright`` gives every pixel the probability ``share``."""
    brightness = 0.5 + math.log(share / (1 - share)) / 100
    return torch.full((3, size, size), brightness)


def all_valid(size: int = 32) -> torch.Tensor:
    return torch.ones(size, size, dtype=torch.bool)


@pytest.mark.parametrize(("right", "error"), [(0.75, 0.0), (0.5, 0.25), (1.0, 0.25)])
def test_calibration_by_hand(right, error, tmp_path):
    truth = (torch.arange(32 * 32).reshape(32, 32) < right * 32 * 32).long()
    split = split_of(Sample("a", unsure(0.75), truth, all_valid()))
    found = evaluate(bright_run(), split, out=tmp_path / "out")
    assert found.calibration["error"] == pytest.approx(error, abs=1e-5)
    assert found.calibration["maximum_error"] == pytest.approx(error, abs=1e-5)
    filled = [row for row in found.calibration["bins"] if row["pixels"]]
    assert [(row["pixels"], row["share"]) for row in filled] == [(1024, pytest.approx(right))]
    with Image.open(tmp_path / "out/reliability.png") as plot:
        assert plot.format == "PNG"


def test_calibration_counts_valid_pixels_of_all_pictures():
    """Two thirds of the pixels are right to be sure by 0.75, in the picture that has twice the pixels."""
    half = all_valid()
    half[:, 16:] = False
    right, wrong = torch.ones(32, 32, dtype=torch.int64), NOTHING
    found = evaluate(
        bright_run(),
        split_of(Sample("a", unsure(0.75), right, all_valid()), Sample("b", unsure(0.75), wrong, half)),
        batch_size=1,
    )
    assert found.calibration["error"] == pytest.approx(0.75 - 2 / 3, abs=1e-5)


def test_outlines_are_scored_per_image_and_never_pooled():
    valid = all_valid()
    valid[:2] = False
    none = sample("none", NOTHING, NOTHING)
    found = evaluate(bright_run(), split_of(sample("half", HALF, TRUTH, valid), none))
    rows = {row["name"]: row for row in found.images}
    expected = mean_of_classes(surface_scores(HALF, TRUTH, valid, 2))
    assert {name: rows["half"][name] for name in SURFACES} == expected
    assert rows["half"]["hd95"] == 8
    assert all(math.isnan(rows["none"][name]) for name in SURFACES)
    assert found.per_image["hd95"]["mean"] == 8
    assert found.per_image["hd95"]["num"] == 1
    assert not set(SURFACES) & set(found.pooled.plain())


def test_shares_of_a_split_add_up():
    split, run, how = split_of(*random_samples(7), DataError("broken")), bright_run(), Inference()
    whole = tally(run, split, range(8), how)
    parts = [tally(run, split, indices, how, batch_size=2) for indices in ([1, 4], [7], [6, 0, 2, 3, 5])]
    joined = parts[0] + parts[1] + parts[2]
    assert parts[1].calibration is None
    assert isinstance(joined.counts, torch.Tensor)
    assert isinstance(whole.counts, torch.Tensor)
    assert torch.equal(joined.counts, whole.counts)
    assert joined.calibration is not None
    assert whole.calibration is not None
    assert joined.calibration.error() == pytest.approx(whole.calibration.error(), rel=1e-12)
    by_index = sorted(joined.rows, key=lambda row: row["index"])
    assert to_json(by_index) == to_json(whole.rows)
    assert [row["index"] for row in whole.rows] == list(range(8))


class Slanted(nn.Module):
    """Sees more on the right and at the bottom, so that its mirror images disagree."""

    def forward(self, images):
        rows, columns = (torch.linspace(-2, 2, side) for side in images.shape[-2:])
        return images[:, :1] * 4 - 2 + rows[:, None] + columns


def slanted_run(**spec) -> Run:
    run = seglens.wrap(
        Slanted(), classes=("background", "disc"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=32
    )
    segmenter = Segmenter(run.segmenter.module, run.spec.model_copy(update=spec))
    return Run(segmenter, run.task)


def test_mirror_images_are_averaged_at_native_size():
    run, image = slanted_run(), torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(3))
    grid, frame = letterbox_image(image, 32)
    turned = [infer(run.segmenter, grid[None].flip(axes)).probabilities.flip(axes) for axes in MIRRORS]
    expected = frame.maps_to_native(torch.stack(turned).mean(0)[0])
    found = probabilities_at_original_size(run.segmenter, [image], precision="32", tta=True)[0]
    torch.testing.assert_close(found, expected)
    truth = torch.randint(2, (64, 48), generator=torch.Generator().manual_seed(4))
    split = split_of(Sample("a", image, truth, torch.ones(64, 48, dtype=torch.bool)))
    plain, averaged = (evaluate(run, split, tta=tta, precision="32") for tta in (False, True))
    counts = confusion((expected[1] >= 0.5).long(), truth, torch.ones(64, 48, dtype=torch.bool), 2)
    assert averaged.images[0]["dice"] == pytest.approx(float(scores(counts)["dice"]))
    assert averaged.images[0]["dice"] != plain.images[0]["dice"]
    how = {"precision": "32", "tta": True, "tiles": "auto", "threshold": 0.5}
    assert averaged.settings == {**how, "sizes": None, "split_touching": False, "uncertainty": False}


def test_pictures_of_several_sizes_and_ways_go_together():
    """Each as it would be alone, whether in one input or in windows."""
    run = slanted_run(scale=1.0)
    images = [torch.rand(3, *size) for size in ((32, 32), (100, 70), (20, 40), (65, 65))]
    together = probabilities_at_original_size(run.segmenter, images, precision="32")
    assert probabilities_at_original_size(run.segmenter, []) == []
    for image, found in zip(images, together, strict=True):
        assert found.shape[1:] == image.shape[1:]
        assert torch.equal(probabilities_at_original_size(run.segmenter, [image], precision="32")[0], found)
        grid, frame = letterbox_image(image, 32)
        boxed = frame.maps_to_native(infer(run.segmenter, grid[None]).probabilities[0])
        same = torch.allclose(found, boxed, atol=1e-6)
        assert same == (max(image.shape) <= 64)
        torch.testing.assert_close(
            probabilities_at_original_size(run.segmenter, [image], precision="32", tiles="never")[0], boxed
        )
