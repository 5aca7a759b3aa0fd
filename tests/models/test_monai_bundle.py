"""MONAI bundles: masks against MONAI's own run of the same files, maps against hand-made hooks, refusals."""

import json
from pathlib import Path
from typing import Any

import nibabel as nibabel_untyped
import numpy as np
import pytest
import torch
from PIL import Image
from tests.models.monai_bundles import (
    ARGMAX,
    LOADED,
    SOFTMAX,
    VOLUMES,
    inverted,
    network,
    predicted_by_monai,
    write_bundle,
    write_picture,
)
from tests.models.nnunet_models import write_case, write_set
from typer.testing import CliRunner

import seglens
from seglens.cli import app
from seglens.errors import CheckpointError, DataError, ModelError, SettingError
from seglens.explain import explain
from seglens.folder import predict_files
from seglens.models.layers import find_role
from seglens.runs.data import open_split, with_tool

pytestmark = pytest.mark.foreign

nibabel: Any = nibabel_untyped

WINDOWS = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "sw_batch_size": 2}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}


def scaled(name: str, **given: Any) -> dict[str, Any]:
    return {"_target_": name, "keys": "image", **given}


KINDS: dict[str, dict[str, Any]] = {
    "as of the model zoo": {},
    "YAML, decided before it goes back": {
        "kind": "yaml",
        "after": (SOFTMAX, ARGMAX, inverted(nearest=True)),
        "inferer": {**WINDOWS, "mode": "gaussian", "overlap": "$1 / 4", "padding_mode": "replicate"},
    },
    "cut, padded, z-scores": {
        "before": (
            *LOADED,
            scaled("Orientationd", axcodes="PLI"),
            scaled("CropForegroundd", source_key="image", margin=1),
            scaled("NormalizeIntensityd", nonzero=True, channel_wise=True),
            scaled("DivisiblePadd", k=4),
        ),
        "inferer": {"_target_": "SimpleInferer"},
        "after": (inverted(), SOFTMAX, ARGMAX),
    },
    "resized, two channels, one sigmoid": {
        "net": network(3, 2, 1),
        "before": (
            {**LOADED[0], "ensure_channel_first": True, "reader": "NibabelReader"},
            scaled("Resized", spatial_size=[20, 16, 28], mode="trilinear"),
            scaled("ScaleIntensityRangePercentilesd", lower=1, upper=99, b_min=-1, b_max=1, clip=True),
            scaled("CastToTyped", dtype="$torch.float32"),
        ),
        "after": (SIGMOID, inverted(), {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.55}),
        "names": ("background", "core"),
    },
    "deep supervision, windows longer than the volume": {
        "net": {
            "_target_": "monai.networks.nets.DynUNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "kernel_size": [3, 3, 3, 3],
            "strides": [1, 2, 2, 2],
            "upsample_kernel_size": [2, 2, 2],
            "filters": [4, 6, 8, 10],
            "deep_supervision": True,
            "deep_supr_num": 2,
        },
        "before": (*LOADED, scaled("ScaleIntensityd"), scaled("EnsureTyped")),
        "inferer": {**WINDOWS, "roi_size": [16, 16, 24]},
        "after": (SOFTMAX, ARGMAX),
        "nest": "model",
    },
    "SegResNetDS": {
        "net": {
            "_target_": "SegResNetDS",
            "init_filters": 8,
            "blocks_down": [1, 1],
            "in_channels": 1,
            "out_channels": 3,
            "norm": "instance",
            "dsdepth": 2,
        },
    },
}


def opened(tmp_path: Path, **kind: Any) -> tuple[seglens.Run, Any]:
    """Return the run of a random bundle and its prepared case."""
    run = seglens.adopt(write_bundle(tmp_path / "bundle", **kind), out=tmp_path / "run")
    return run, with_tool(run, open_split(run, "test", data=write_set(tmp_path / "set")))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_volumes_are_those_of_monai(tmp_path: Path, kind: str) -> None:
    channels = KINDS[kind].get("net", {}).get("in_channels", 1)
    bundle = write_bundle(tmp_path / "bundle", **KINDS[kind])
    files = [Path(file) for file in write_case(tmp_path / "imagesTs", channels=channels)]
    own = predicted_by_monai(bundle, files)[0]
    seglens.adopt(bundle, out=tmp_path / "run")
    run = seglens.load(tmp_path / "run")  # from its own files alone
    data = write_set(tmp_path / "set", channels=channels)
    two: dict[str, Any] = {"class_map": {"edge": "core"}} if run.spec.head == "sigmoid" else {}
    predict_files(run, open_split(run, "test", data=data, **two), out=tmp_path / "out")
    found = np.asarray(nibabel.load(tmp_path / "out" / "masks" / "case.nii.gz").dataobj)
    assert len(np.unique(own)) > 1  # else nothing is compared
    assert np.array_equal(found, own)


def test_labels_of_volumes_that_overlap_are_those_of_monai(tmp_path: Path) -> None:
    decided = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    bundle = write_bundle(
        tmp_path / "bundle", after=(SIGMOID, inverted(), decided), names=("whole", "core", "rim")
    )
    files = [Path(file) for file in write_case(tmp_path / "imagesTs")]
    own = predicted_by_monai(bundle, files) > 0.5
    seglens.adopt(bundle, out=tmp_path / "run")
    run = seglens.load(tmp_path / "run")
    assert run.task.classes == ("background", "whole", "core", "rim")
    predict_files(run, files, out=tmp_path / "out")
    name = files[0].name
    for label, expected in zip(run.task.classes[1:], own, strict=True):
        found = np.asarray(nibabel.load(tmp_path / "out" / "masks" / label / name).dataobj) > 0
        assert np.array_equal(found, expected)
    assert own.any()
    assert not own.all()
    assert (own.sum(0) > 1).any()  # they do overlap


PICTURES: dict[str, dict[str, Any]] = {
    "stretched, one-hot, saved without the background": {
        "before": (
            *LOADED,
            scaled("Resized", spatial_size=[48, 32], mode="bilinear"),
            scaled("ScaleIntensityd"),
        ),
        "inferer": {"_target_": "SimpleInferer"},
        "after": (
            inverted(),
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True, "to_onehot": 3},
            {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x : x[1:]"},
        ),
    },
    "in windows, as it is": {
        "before": (*LOADED, scaled("NormalizeIntensityd", subtrahend=127.5, divisor=64.0)),
        "after": (SOFTMAX, ARGMAX),
    },
    "labels that overlap": {
        "before": (*LOADED, scaled("ScaleIntensityd"), scaled("Flipd", spatial_axis=0)),
        "after": (SIGMOID, inverted(), {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.45}),
        "names": ("man", "shirt", "hat"),
    },
}


@pytest.mark.parametrize("kind", PICTURES)
def test_masks_of_pictures_are_those_of_monai(tmp_path: Path, kind: str) -> None:
    bundle = write_bundle(tmp_path / "bundle", dims=2, net=network(2, 3), **PICTURES[kind])
    file = write_picture(tmp_path / "pictures")
    own = predicted_by_monai(bundle, [file])  # columns first, as MONAI reads pictures
    seglens.adopt(bundle, out=tmp_path / "run")
    run = seglens.load(tmp_path / "run")
    predict_files(run, [file], out=tmp_path / "out")
    if run.task.multilabel:
        found = np.stack(
            [
                np.asarray(Image.open(tmp_path / "out" / "masks" / label / "picture.png")) > 0
                for label in run.task.classes[1:]
            ]
        )
        expected = own.transpose(0, 2, 1) > 0.5
    else:
        found = np.asarray(Image.open(tmp_path / "out" / "masks" / "picture.png"))
        one_hot = len(own) == 2  # without its background
        expected = (own * [[[1]], [[2]]]).sum(0).T if one_hot else own[0].T
    assert len(np.unique(expected)) > 1
    assert np.array_equal(found, expected)


def test_a_network_with_several_answers_needs_one_named(tmp_path: Path) -> None:
    net = {
        "_target_": "BasicUNetPlusPlus",
        "spatial_dims": 2,
        "in_channels": 3,
        "out_channels": 3,
        "features": [4, 4, 4, 4, 4, 4],
        "deep_supervision": True,
    }
    kind = {**PICTURES["in windows, as it is"], "inferer": {**WINDOWS, "roi_size": 32}}
    bundle = write_bundle(tmp_path / "bundle", dims=2, net=net, **kind)
    file = write_picture(tmp_path / "pictures")
    with pytest.raises(ModelError, match=r"output="):
        seglens.adopt(bundle, out=tmp_path / "run")
    run = seglens.adopt(bundle, output=-1, out=tmp_path / "run")
    own = predicted_by_monai(bundle, [file], choice=-1)
    predict_files(run, [file], out=tmp_path / "out")
    found = np.asarray(Image.open(tmp_path / "out" / "masks" / "picture.png"))
    assert np.array_equal(found, own[0].T)


def test_weights_in_torchscript_come_into_the_network(tmp_path: Path) -> None:
    net = {**network(2, 3), "num_res_units": 0, "norm": "batch"}
    bundle = write_bundle(tmp_path / "b", dims=2, net=net, script=True, **PICTURES["in windows, as it is"])
    file = write_picture(tmp_path / "pictures")
    run = seglens.adopt(bundle, out=tmp_path / "run")
    assert find_role(run.segmenter, "decoder_last")
    predict_files(run, [file], out=tmp_path / "out")
    found = np.asarray(Image.open(tmp_path / "out" / "masks" / "picture.png"))
    assert np.array_equal(found, predicted_by_monai(bundle, [file])[0].T)


@pytest.mark.parametrize(
    "kind", ["as of the model zoo", "cut, padded, z-scores", "resized, two channels, one sigmoid"]
)
def test_maps_come_back_as_monai_brings_predictions_back(tmp_path: Path, kind: str) -> None:
    # Where both shrink nothing and interpolate linearly; at the border MONAI repeats what a frame leaves out.
    channels = KINDS[kind].get("net", {}).get("in_channels", 1)
    run = seglens.adopt(write_bundle(tmp_path / "bundle", **KINDS[kind]), out=tmp_path / "run")
    data = write_set(tmp_path / "set", channels=channels)
    two: dict[str, Any] = {"class_map": {"edge": "core"}} if channels > 1 else {}
    sample: Any = with_tool(run, open_split(run, "test", data=data, **two))[0]
    prepared: Any = sample.prepared
    tool: Any = run.segmenter.tool
    heat = torch.rand(1, *prepared.frame.scaled)
    (step,) = [each for each in tool.options["postprocessing"] if each["_target_"] == "Invertd"]
    theirs = tool._after([step], heat, prepared, nearest=False)[0]
    theirs = torch.from_numpy(sample.grid.to_zyx(theirs.numpy()).copy())
    ours = prepared.frame.maps_to_native(prepared.frame.padded(heat))[0]
    shown = (ours != 0) & (theirs != 0)  # MONAI has nothing where it had cut off, and then padded
    assert shown.float().mean() > 0.5
    if kind.startswith("resized"):  # MONAI smooths nothing there, too, but takes another corner
        assert (ours - theirs)[2:-2, 2:-2, 2:-2].abs().mean() < 0.03
    else:
        torch.testing.assert_close(ours[shown], theirs[shown], atol=2e-3, rtol=0)


def test_truth_lies_on_what_it_marks(tmp_path: Path) -> None:
    _, split = opened(tmp_path)
    sample = split[0]
    frame = sample.prepared.frame
    marked = torch.zeros(sample.image.shape[1:], dtype=torch.long)
    marked[5, 9, 8] = 1
    here = [round(at) for at in frame.to_grid(8, 9, 5)[::-1]]
    there = (frame.mask_to_grid(marked) > 0).nonzero().double().mean(0)
    assert (there - torch.tensor(here)).abs().max() <= 1
    assert frame.mask_to_native(frame.mask_to_grid(marked))[5, 9, 8] == 1


def test_grad_cam_is_that_of_hand_made_hooks(tmp_path: Path) -> None:
    run, split = opened(
        tmp_path,
        before=(*LOADED, scaled("ScaleIntensityd"), scaled("DivisiblePadd", k=4)),
        inferer={"_target_": "SimpleInferer"},
    )
    images = split[0].prepared.on(split[0].prepared.frame)[None]
    assert torch.equal(images[0], split[0].prepared.array)  # scaled to [0, 1] by the bundle itself
    pixels = torch.zeros(1, *images.shape[2:], dtype=torch.bool)
    pixels[0, 4:9, 8:20, 3:9] = True
    target = seglens.targets.whole_class(pixels, class_index=2)
    found = explain(run, images, target, methods=("grad-cam",), layers=("decoder_last",))
    module = run.segmenter.module
    kept: dict[str, torch.Tensor] = {}
    layer = module.get_submodule(find_role(run.segmenter, "decoder_last"))
    hook = layer.register_forward_hook(lambda _, __, output: kept.update(a=output))
    logits = module(images)
    hook.remove()
    (gradient,) = torch.autograd.grad((logits[:, 2] * pixels).sum(), kept["a"])
    expected = torch.einsum("bc,bcshw->bshw", gradient.mean((2, 3, 4)), kept["a"]).relu().detach()
    grid = found["grad-cam", "decoder_last"].grid
    assert expected.max() > 0
    assert grid is not None
    torch.testing.assert_close(grid.relu() / grid.max(), expected / expected.max(), atol=1e-4, rtol=1e-3)


def test_a_bundle_goes_through_the_commands(tmp_path: Path) -> None:
    bundle, data = write_bundle(tmp_path / "bundle"), write_set(tmp_path / "set")
    run = tmp_path / "run"
    made = CliRunner().invoke(app, ["adopt", str(bundle), "--run", str(run)])
    assert made.exit_code == 0, made.output
    assert "background, edge, core" in " ".join(made.output.split())
    for command in (
        ["evaluate", str(run), "--data", str(data), "--split", "test"],
        ["explain", str(run), "--data", str(data), "--split", "test", "--target", "class", "--class", "core"],
    ):
        done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / command[0])])
        assert done.exit_code == 0, done.output
    heat = next((tmp_path / "explain" / "samples" / "case").glob("grad-cam@*.nii.gz"))
    assert nibabel.load(heat).shape == (19, 26, 13)


def test_nothing_of_a_configuration_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    evil = f"$__import__('pathlib').Path({str(witness)!r}).write_text('run')"
    places: dict[str, dict[str, Any]] = {
        "imports": {"more": {"imports": [evil], "initialize": [evil], "run": [evil]}},
        "network": {"net": {**network(3), "dropout": evil}},
        "target": {"net": {"_target_": "os.system", "command": f"touch {witness}"}},
        "builtins": {"net": {"_target_": "builtins.exec", "source": f"open({str(witness)!r}, 'w')"}},
        "transform": {"before": (*LOADED, {"_target_": "Lambdad", "keys": "image", "func": evil})},
        "reader": {"before": ({**LOADED[0], "reader": "tests.evil.Reader"}, LOADED[1])},
        "attribute": {"net": {**network(3), "strides": "$().__class__.__base__.__subclasses__()"}},
        "reference": {"net": {**network(3), "strides": "$@evil"}, "more": {"evil": evil}},
        "inferer": {"inferer": {**WINDOWS, "overlap": evil}},
    }
    for name, change in places.items():
        bundle = write_bundle(tmp_path / name, weights=name == "imports", **change)
        if name == "imports":  # what no mask needs isn't looked at
            seglens.adopt(bundle, out=tmp_path / f"run-{name}")
        else:
            with pytest.raises(
                ModelError, match=r"is not known here|does more than work with|reads files with"
            ):
                seglens.adopt(bundle, out=tmp_path / f"run-{name}")
        assert not witness.exists()


def test_a_record_that_was_changed_runs_nothing_either(tmp_path: Path) -> None:
    seglens.adopt(write_bundle(tmp_path / "bundle"), out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["model"]["options"]["network"] = {"_target_": "os.system", "command": "true"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="is not known here"):
        seglens.load(tmp_path / "run")
    record["model"]["options"]["network"] = network(3) | {"strides": [2, 2]}
    record["model"]["options"]["preprocessing"][0]["reader"] = "NumpyReader"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="reads files with"):
        assert seglens.load(tmp_path / "run").segmenter.tool


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a random transform": (
        {"before": (*VOLUMES, scaled("RandFlipd", prob=0.5))},
        "RandFlipd, which is not known",
    ),
    "a function": (
        {"after": (SOFTMAX, {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: -x"})},
        r"lambda",
    ),
    "another postprocessing": (
        {
            "after": (
                SOFTMAX,
                inverted(),
                ARGMAX,
                {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"},
            )
        },
        "KeepLargestConnectedComponentd, which is not known",
    ),
    "an argument": (
        {"before": (*LOADED, scaled("ScaleIntensityd", factor=0.1))},
        "the argument factor = 0.1",
    ),
    "another key": (
        {"before": (*VOLUMES, {"_target_": "EnsureTyped", "keys": ["image", "label"]})},
        "image, label",
    ),
    "no way back": ({"after": (SOFTMAX, ARGMAX)}, "has no Invertd"),
    "the way back of something else": (
        {"after": (SOFTMAX, {**inverted(), "transform": "@other"}, ARGMAX)},
        "undoes '@other'",
    ),
    "slices": ({"inferer": {"_target_": "SliceInferer", "roi_size": [16, 16]}}, "seglens data slices"),
    "no range": ({"before": (*LOADED, scaled("EnsureTyped")), "after": (SOFTMAX, ARGMAX)}, "to which range"),
    "no decision": ({"after": (inverted(),)}, "doesn't say what its 3 outputs are"),
    "another network": ({"net": {"_target_": "monai.networks.nets.CellSamWrapper"}}, "CellSamWrapper"),
    "wrong arguments": ({"net": {**network(3), "width": 3}}, "can't make the bundle's UNet"),
    "a circle": (
        {"net": {**network(3), "strides": "@a"}, "more": {"a": "@b", "b": "$@a + 1"}},
        "refers to itself",
    ),
    "a place that isn't there": ({"net": {**network(3), "strides": "@nowhere::0"}}, "there is no nowhere"),
    "another file": ({"net": {**network(3), "strides": "%other.json::strides"}}, "another file"),
    "debugging": ({"net": {**network(3), "_mode_": "debug"}}, "_mode_ = 'debug'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, case: str) -> None:
    change, words = REFUSED[case]
    bundle = write_bundle(tmp_path / "bundle", weights=case in ("no range", "no decision"), **change)
    if not (bundle / "models" / "model.pt").is_file():
        torch.save({"weight": torch.zeros(1)}, bundle / "models" / "model.pt")
    with pytest.raises((ModelError, CheckpointError), match=words):
        seglens.adopt(bundle, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    with pytest.raises(SettingError, match="says all of the model itself: received mean"):
        seglens.adopt(bundle, mean=(0.5,), out=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"has no best.pt. It holds model.pt"):
        seglens.adopt(bundle, checkpoint="best.pt", out=tmp_path / "run")
    with pytest.raises(SettingError, match="3 outputs of a softmax, and 4 classes"):
        seglens.adopt(bundle, classes=("background", "core", "edge", "rim"), out=tmp_path / "run")
    (bundle / "configs" / "inference.yaml").write_text("a: 1")
    with pytest.raises(CheckpointError, match=r"inference.json, inference.yaml"):
        seglens.adopt(bundle, out=tmp_path / "run")
    (bundle / "configs" / "inference.yaml").unlink()
    (bundle / "configs" / "metadata.json").unlink()
    with pytest.raises(SettingError, match="doesn't name its channels"):
        seglens.adopt(bundle, out=tmp_path / "run")
    run = seglens.adopt(bundle, classes=("background", "a", "b"), out=tmp_path / "run")
    assert run.task.classes == ("background", "a", "b")
    (bundle / "configs" / "inference.json").write_text('{"network_def": ')
    with pytest.raises(CheckpointError, match="can't be read"):
        seglens.adopt(bundle, out=tmp_path / "other")


def test_cases_that_dont_suit_the_bundle_are_named(tmp_path: Path) -> None:
    run, split = opened(tmp_path)
    files = [Path(file) for file in write_case(tmp_path / "two", channels=2)]
    tool = run.segmenter.tool
    assert tool is not None
    with pytest.raises(DataError, match=r"becomes \(2, .*takes 1 channels and 3 axes"):
        tool.prepare(files, split[0].grid)
    files[0].write_bytes(b"nothing")
    with pytest.raises(DataError, match="MONAI can't prepare"):
        tool.prepare(files[:1], split[0].grid)
    picture = write_picture(tmp_path / "pictures")
    kind = {"dims": 2, "net": network(2, 3), **PICTURES["in windows, as it is"]}
    other = seglens.adopt(write_bundle(tmp_path / "b2", **kind), out=tmp_path / "run2")
    turned = Image.open(picture)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    with pytest.raises(DataError, match="EXIF orientation 6"):
        predict_files(other, [tmp_path / "turned.jpg"], out=tmp_path / "out")
