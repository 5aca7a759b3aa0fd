"""Pictures much larger than the input among others: explained in windows, written like the rest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.large_targets import large_mask, large_target
from PIL import Image
from tests.arrays import arrays_of
from tests.folder.discs import read, size_of, split_of, table_of
from torch.nn.modules.module import register_module_forward_pre_hook

import seglens
from seglens.errors import UnknownNameError
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.sampled import ExpectedGradients
from seglens.explain.tiled import explain_large
from seglens.folder import measuring
from seglens.folder.large import large_chunk, predict_large
from seglens.judge.nulls import randomised
from seglens.models.segmenter import Segmenter
from seglens.predict.tiles import Windows, bands, plan
from seglens.runs import Run

SIZE = (150, 210)
METHODS = ("grad-cam", "hires-cam", "saliency")


@pytest.fixture
def run(run: Run) -> Run:
    """The run as if trained on pictures of about the input's size."""
    run.segmenter.spec = run.spec.model_copy(update={"scale": 1.0})
    return run


@pytest.fixture
def folder(folder: Path) -> Path:
    """Five small pictures and a large one with three discs."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    places = ((30, 30, 9), (80, 120, 14), (120, 180, 11))
    discs = np.any([(y - row) ** 2 + (x - column) ** 2 < r**2 for row, column, r in places], axis=0)
    image = np.where(discs, 250, 10 + (x + y) % 7).astype(np.uint8)
    Image.fromarray(np.stack([image] * 3, -1)).save(folder / "images" / "large.png")
    Image.fromarray(discs.astype(np.uint8)).save(folder / "masks" / "large.png")
    return folder


def windows_of(run: Run) -> Windows:
    windows = plan(SIZE, run.spec)
    assert windows is not None
    return windows


def test_a_large_picture_is_explained_in_windows_and_measured_like_the_others(run: Run, folder: Path):
    split = split_of(folder)
    done = seglens.explain_folder(
        run, split, out=folder / "out", methods=METHODS, layers=("body",), target=("predicted", "component:2")
    )
    assert (done.num_done, done.failed) == (6, ())
    table = table_of(folder / "out" / "explanations.json")
    (row,) = [row for row in table["samples"] if row["name"] == "large"]
    assert all(size_of(folder / "out" / entry["file"]) == SIZE[::-1] for entry in row["maps"])
    assert all(entry["status"] == "ok" for entry in row["maps"])
    raw = arrays_of(folder / "out" / row["files"]["raw"])

    image, windows = split[5].image, windows_of(run)

    def cut(rows: slice, columns: slice) -> torch.Tensor:
        return image[:, rows, columns]

    for text in ("predicted", "component:2"):
        target = large_target(text, run, cut, windows)
        right = explain_large(run, cut, windows, target, methods=METHODS, layers=("body",))
        assert np.array_equal(raw[f"region:{text}"] > 0, target.pixels[0].numpy())
        for entry in right.values():
            assert np.allclose(raw[f"map:{text}@{entry.name}"], entry.at(SIZE), atol=1e-6)
            measured = seglens.statistics(entry.explanation())
            (found,) = [
                each["statistics"]
                for each in row["maps"]
                if (each["target"], each["method"]) == (text, entry.method)
            ]
            for name in ("mean", "max", "area", "mass_inside", "enrichment_log2"):
                assert found[name] == pytest.approx(measured[name].item(), rel=1e-4), name
    assert {entry["num_ok"] for entry in table["summary"] if entry["target"] == "predicted"} == {6}


def test_the_prediction_in_the_square_is_that_of_the_windows(run: Run, folder: Path):
    sample, windows = split_of(folder)[5], windows_of(run)
    part = large_chunk(sample, windows, 5, 0)
    found = predict_large(run, part)
    right = large_mask(run, lambda rows, columns: sample.image[:, rows, columns], windows)
    assert torch.equal(found.mask[0, : SIZE[0], : SIZE[1]], right.long())
    assert part.batch.valid.sum() == SIZE[0] * SIZE[1]
    assert not found.mask[0, SIZE[0] :].any()
    torch.testing.assert_close(
        found.logits[0, 0].sigmoid()[: SIZE[0]], found.probabilities[0, 1, : SIZE[0]], atol=1e-5, rtol=0
    )


def test_a_method_that_means_nothing_there_fails_on_that_picture_only(run: Run, folder: Path):
    done = seglens.explain_folder(
        run, split_of(folder), out=folder / "out", methods=("grad-cam", "score-cam"), layers=("body",)
    )
    assert done.num_done == 5
    (failure,) = done.failed
    assert failure.name == "large"
    assert "'score-cam' has no meaning over the windows of a large picture" in failure.error


def test_all_pictures_go_into_one_input_where_windows_are_not_wanted(run: Run, folder: Path):
    split = replace(split_of(folder), entries=split_of(folder).entries[5:])
    out = seglens.explain_folder(
        run, split, out=folder / "out", layers=("body",), tiles="never", scale="dataset"
    ).folder
    row = table_of(out / "explanations.json")["samples"][0]
    assert arrays_of(out / row["files"]["raw"])["grid:grad-cam@body"].shape == (32, 32)
    assert read(split.entries[0]).image.shape[1:] == SIZE
    with pytest.raises(UnknownNameError, match="rule for tiles 'sometimes'"):
        seglens.explain_folder(run, split, out=folder / "more", layers=("body",), tiles="sometimes")


def test_limits_of_the_whole_set_hold_for_large_pictures_too(run: Run, folder: Path):
    out = seglens.explain_folder(
        run,
        split_of(folder),
        out=folder / "out",
        layers=("body",),
        target="false-negative",
        scale="dataset",
        where="context",
    ).folder
    table = table_of(out / "explanations.json")
    scales = {
        tuple(entry["scale"]["limits"])
        for row in table["samples"]
        for entry in row["maps"]
        if entry["status"] == "ok"
    }
    assert len(scales) <= 1


def test_windows_are_cut_out_of_the_scaled_picture_as_out_of_the_native_one(run: Run, folder: Path):
    run.segmenter.spec = run.spec.model_copy(update={"scale": 0.8})
    sample, windows = split_of(folder)[5], windows_of(run)
    part = large_chunk(sample, windows, 5, 0)

    def cut(rows: slice, columns: slice) -> torch.Tensor:
        return sample.image[:, rows, columns]

    right = torch.cat(list(bands(run.segmenter, cut, replace(windows, native=SIZE))), dim=1)
    found = part.frames[0].maps_to_native(predict_large(run, part).probabilities)[0]
    torch.testing.assert_close(found, right, atol=1e-5, rtol=0)


LINEAR = (
    IntegratedGradients(steps=2),
    ExpectedGradients(num_samples=2, references=torch.rand(2, 3, 64, 64)),
)


@pytest.mark.parametrize(
    "methods", [METHODS, ("grad-cam++",), ("activation", "xgrad-cam"), LINEAR, ("occlusion",)]
)
def test_a_plan_counts_the_windows_of_large_pictures(run: Run, folder: Path, methods, monkeypatch):
    """Where every window holds pixels of the target, the passes are those of the folder.

    Those of the model with random weights that CAMs are compared with are no passes of the maps.
    """
    split = split_of(folder)
    planned = seglens.plan_folder(run, split, methods=methods, layers=("body",), target="class")
    assert planned.num_images == 5
    assert planned.large is not None
    cut = size_of_windows(run)
    assert (planned.large.num_images, planned.large.windows) == (1, cut)
    seen: list[int] = []
    making: list[bool] = []
    random: list[Segmenter] = []

    def note(module, given) -> None:
        if isinstance(module, Segmenter) and not making and module not in random:
            seen.append(len(given[0]))

    def kept(*args, **kwargs):
        making.append(True)
        made = randomised(*args, **kwargs)
        making.clear()
        random.append(made.segmenter)
        return made

    monkeypatch.setattr(measuring, "randomised", kept)
    large = split.select([[entry.name for entry in split.entries].index("large")])
    handle = register_module_forward_pre_hook(note)
    seglens.explain_folder(run, large, out=folder / "out", methods=methods, layers=("body",), target="class")
    handle.remove()
    assert planned.large.forwards == sum(seen)
    assert planned.seconds is not None
    assert [row["methods"] for row in planned.rows()][-2:] == [
        f"1 picture in {cut} windows, all told",
        f"all, 5 pictures of {run.spec.image_size} x {run.spec.image_size} and 1 in windows",
    ]


def size_of_windows(run: Run) -> int:
    """Counted without the code: windows of s pixels at steps of s / 2, the last one shifted inwards."""
    size, _ = run.spec.sides
    down, across = (1 + -(-(length - size) // (size // 2)) for length in SIZE)
    return down * across


def test_a_plan_says_what_will_be_refused(run: Run, folder: Path):
    split = split_of(folder)
    planned = seglens.plan_folder(run, split, methods=("seg-xres-cam",), layers=("body",), num_images=None)
    assert planned.large is not None
    assert "'seg-xres-cam' has no meaning over the windows" in planned.large.refused
    assert "1 picture in" in planned.rows()[-2]["methods"]
    assert planned.large.forwards == 0


def test_a_plan_of_large_pictures_only(run: Run, folder: Path):
    planned = seglens.plan_folder(run, [folder / "images" / "large.png"], layers=("body",))
    assert (planned.num_images, planned.passes) == (0, ())
    assert (
        seglens.plan_folder(run, [folder / "images" / "large.png"], layers=("body",), tiles="never").large
        is None
    )
