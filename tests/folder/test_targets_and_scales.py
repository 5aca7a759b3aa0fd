"""Several targets at once, what counts, evidence for and against, limits of colours, formats of raw maps."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from tests.arrays import arrays_of
from tests.folder.discs import Bright, make_run, split_of, table_of, write_discs
from tests.pages import album_of

import seglens
from seglens.errors import SettingError, UnknownNameError
from seglens.explain.cams import upsample
from seglens.folder.scales import Scaling, scaling, shared_limits
from seglens.runs import Run

ERRORS = ("predicted", "false-positive", "false-negative")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three targets on four pictures, one of them with two missed corners; read it, don't change it."""
    run, folder = make_run(), write_discs(tmp_path_factory.mktemp("several"))
    for file in (folder / "images").iterdir():
        if file.stem == "2":
            file.unlink()
    mask = np.zeros((64, 64), np.uint8)
    mask[:8, :8] = mask[-8:, -8:] = 1
    Image.fromarray(mask).save(folder / "masks" / "1.png")
    # Two channels see what is dark: one speaks for the class a little, the other against it.
    module = run.segmenter.module
    assert isinstance(module, Bright)
    assert module.body.bias is not None
    assert module.head.bias is not None
    with torch.no_grad():
        module.body.weight[2:] *= -1
        module.body.bias.copy_(torch.tensor([0, 0, 0.1, 0.5]))
        module.head.weight.copy_(torch.tensor([5.0, 5, 5, -8]).view(1, 4, 1, 1))
        module.head.bias.fill_(-6)
    return seglens.explain_folder(
        run, split_of(folder), out=folder / "out", layers=("body",), target=ERRORS,
        methods=("grad-cam", "input-x-gradient", "saliency"), scale="dataset", raw="safetensors",
    ).folder  # fmt: skip


def test_several_targets_share_one_pass_and_give_what_each_gives_alone(run: Run, folder: Path):
    passes: list[int] = []
    run.segmenter.register_forward_hook(lambda *_: passes.append(1))
    split = split_of(folder)
    seglens.explain_folder(run, split, out=folder / "all", layers=("body",), target=ERRORS)
    together = len(passes)
    passes.clear()
    for target in ERRORS:
        out = folder / target
        seglens.explain_folder(run, split, out=out, layers=("body",), target=target)
        alone = table_of(out / "explanations.json")
        for one, row in zip(
            alone["samples"], table_of(folder / "all/explanations.json")["samples"], strict=True
        ):
            (entry,) = one["maps"]
            (same,) = (each for each in row["maps"] if each["target"] == target)
            assert same["status"] == entry["status"]
            assert same["statistics"] == pytest.approx(entry["statistics"], nan_ok=True)
            name = f"map:{target}@grad-cam@body"
            raw = arrays_of(folder / "all" / row["files"]["raw"])
            np.testing.assert_allclose(
                raw[name], arrays_of(out / one["files"]["raw"])["map:grad-cam@body"], 1e-5
            )
    assert together == len(passes) / len(ERRORS)


def test_names_sheets_and_counts_of_several_targets(several: Path):
    table = table_of(several / "explanations.json")
    assert table["targets"] == list(ERRORS)
    row = table["samples"][1]
    assert [(entry["target"], entry["method"]) for entry in row["maps"]][:4] == [
        ("predicted", "grad-cam"), ("predicted", "input-x-gradient"), ("predicted", "saliency"),
        ("false-positive", "grad-cam"),
    ]  # fmt: skip
    files = [entry["file"] for entry in row["maps"]]
    assert files[3] == "samples/1/false-positive@grad-cam@body.png"
    assert len(set(files)) == 9
    titles = {sheet["title"] for sheet in row["sheets"]}
    assert {"targets@grad-cam@body", "targets@saliency", "false-negative@methods@body"} <= titles
    assert all((several / sheet["file"]).is_file() for sheet in row["sheets"])
    counted = {
        target: sum(each["maps"][i * 3]["status"] == "no_target" for each in table["samples"])
        for i, target in enumerate(ERRORS)
    }
    assert table["no_target"] == counted
    with (several / "summary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    assert {row["target"]: int(row["num_no_target"]) for row in rows} == counted
    for row in rows:
        assert sum(int(row[f"num_{kind}"]) for kind in ("ok", "no_target", "degenerate", "failed")) == 4


def test_evidence_is_the_signed_grid_brought_to_size(several: Path):
    table = table_of(several / "explanations.json")
    row = table["samples"][1]  # 64 x 64: the input grid itself
    raw = load_file(several / row["files"]["raw"])
    by_name = {(entry["target"], entry["method"]): entry for entry in row["maps"]}
    cam = by_name["false-negative", "grad-cam"]
    grid = torch.from_numpy(raw["grid:false-negative@grad-cam@body"])
    whole = upsample(grid[None], (64, 64))[0]
    against, reach = float(-whole[whole < 0].sum() / whole.abs().sum()), float(whole.abs().max())
    assert 0.1 < against < 0.9
    assert cam["evidence"]["opposing"] == pytest.approx(against)
    assert cam["evidence"]["limits"] == pytest.approx([-reach, reach])
    assert cam["evidence"]["file"].endswith("false-negative@grad-cam@body@evidence.png")
    assert by_name["false-negative", "saliency"]["evidence"] is None
    assert "evidence" not in by_name["predicted", "grad-cam"]
    region = raw["region:false-negative"]
    assert region.sum() == 128
    assert set(np.unique(region)) == {0, 1}


def test_a_scale_of_the_set_holds_the_largest_of_all_pictures(several: Path):
    table = table_of(several / "explanations.json")
    for i in range(9):
        entries = [row["maps"][i] for row in table["samples"] if row["maps"][i]["status"] == "ok"]
        assert len({tuple(entry["scale"]["limits"]) for entry in entries}) <= 1
        for entry in entries:
            assert entry["scale"]["limits"][1] == max(other["limits"][1] for other in entries)
    row = table["samples"][0]
    assert table_of(several / "samples/0/explanation.json") == row


@pytest.mark.parametrize("scale", ["image", "fixed:-2,2"])
def test_other_scales(run: Run, folder: Path, scale: str):
    done = seglens.explain_folder(
        run, split_of(folder), out=folder / "out", layers=("body",), samples=(0, 1), scale=scale
    )
    rows = table_of(done.folder / "explanations.json")["samples"]
    for row in rows:
        entry = row["maps"][0]
        expected = entry["limits"] if scale == "image" else [-2, 2]
        assert entry["scale"] == {"limits": expected, "unit": "sum of logits"}
        largest = arrays_of(done.folder / row["files"]["raw"])["map:grad-cam@body"].max()
        assert entry["limits"] == [0, pytest.approx(float(largest))]


def test_scales_are_read():
    assert scaling("fixed:0,2.5") == Scaling("fixed", (0.0, 2.5))
    assert scaling("dataset") == Scaling("dataset")
    with pytest.raises(UnknownNameError, match="Did you mean 'image'"):
        scaling("imag")
    for text in ("fixed", "fixed:1", "fixed:a,b"):
        with pytest.raises(SettingError, match="Write it with two numbers"):
            scaling(text)
    for text in ("fixed:2,1", "fixed:-1,2", "fixed:0,inf"):
        with pytest.raises(SettingError, match="LOW must be below HIGH"):
            scaling(text)
    with pytest.raises(SettingError, match="takes no limits"):
        scaling("image:0,1")
    assert shared_limits([(0.0, 2.0), (-3.0, 3.0)]) == (-3.0, 3.0)
    assert shared_limits([(0.0, 2.0), (0.0, 5.0)]) == (0.0, 5.0)


def test_context_counts_what_lies_outside_only(run: Run, folder: Path):
    done = seglens.explain_folder(
        run, split_of(folder), out=folder / "out", layers=("body",), samples=(1,), where="context",
        methods=("activation",),
    )  # fmt: skip
    table = table_of(done.folder / "explanations.json")
    (row,) = table["samples"]
    (entry,) = row["maps"]
    raw = arrays_of(done.folder / row["files"]["raw"])
    heat, counted, region = (
        raw[name] for name in ("map:activation@body", "counted:activation@body", "region:predicted")
    )
    assert not (counted & region).any()
    kept = heat[counted == 1]
    found = entry["statistics"]
    assert found["max"] == pytest.approx(float(kept.max()))
    assert found["mean"] == pytest.approx(float(kept.mean()), rel=1e-5)
    assert found["mass_context"] == pytest.approx(float(kept.sum() / heat.sum()), rel=1e-5)
    assert found["ratio"] is None
    assert entry["limits"] == [0, pytest.approx(float(kept.max()))]
    assert (entry["nulls"], table["summary"][0]["nulls"], table["where"]) == ({}, {}, "context")
    with Image.open(done.folder / entry["file"]) as opened:
        drawn = np.asarray(opened).astype(int)
    middle = drawn[28:36, 28:36]
    assert middle.max(-1).min() > 60  # hatched, never black
    assert (np.abs(np.diff(middle, axis=-1)) < 40).all()  # and grey


def test_against_and_what_can_be_asked_for_by_one_word(run: Run, folder: Path):
    split = split_of(folder)
    maps = []
    for name, against in (("plain", None), ("against", "background")):
        done = seglens.explain_folder(
            run, split, out=folder / name, layers=("all",), samples=(1,), against=against,
            methods=("hires-cam",),
        )  # fmt: skip
        table = table_of(done.folder / "explanations.json")
        assert (table["against"], table["layers"]) == (against, ["seg_head"])
        maps.append(arrays_of(done.folder / "samples/1/maps.npz")["map:hires-cam@seg_head"])
    plain, asked = maps  # One output says +z and -z: it is one class against the other.
    np.testing.assert_array_equal(plain, asked)
    with pytest.raises(SettingError, match="'disc' can't be asked against itself"):
        seglens.explain_folder(run, split, out=folder / "no", layers=("body",), against="disc")
    with pytest.raises(UnknownNameError, match="where"):
        seglens.explain_folder(run, split, out=folder / "no", layers=("body",), where="contxt")
    with pytest.raises(UnknownNameError, match="Did you mean 'npz'"):
        seglens.explain_folder(run, split, out=folder / "no", layers=("body",), raw="npy")
    assert not list(folder.glob("*no*"))


def test_reports_show_several_targets(several: Path):
    cards = album_of(seglens.report([several], out=several.parent / "report.html"))["cards"]
    assert sum(len(card["maps"]) for card in cards) == 36
    assert "false-negative" in {entry["target"] for card in cards for entry in card["maps"]}
