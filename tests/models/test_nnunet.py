"""Models of nnU-Net: masks against nnU-Net's own predictor, maps against hand-made hooks, and refusals."""

import json
from pathlib import Path
from typing import Any

import nibabel as nibabel_untyped
import numpy as np
import pytest
import torch
from tests.models.nnunet_models import predicted_by_nnunet, write_case, write_model, write_set
from typer.testing import CliRunner

import seglens
from seglens.cli import app
from seglens.errors import CheckpointError, ModelError, SettingError
from seglens.explain import explain
from seglens.explain.tiled import explain_large
from seglens.folder import explain_folder, predict_files
from seglens.folder.large import windows_for
from seglens.models.ensemble import Ensemble
from seglens.models.layers import find_role
from seglens.predict.tiles import cut_of
from seglens.runs.data import open_split, with_tool

pytestmark = pytest.mark.foreign

nibabel: Any = nibabel_untyped
pytest.importorskip("nnunetv2", reason="needs the extra nnunet (make test-foreign has it)")

KINDS: dict[str, dict[str, Any]] = {
    "3-D, in several windows": {},
    "3-D, in one window": {"patch": (32, 32, 32), "transposed": (0, 1, 2)},
    "2-D": {"dims": 2, "patch": (16, 16)},
    "CT and MR of which the empty part doesn't count": {
        "schemes": ("CTNormalization", "ZScoreNormalization"),
        "masked": (False, True),
    },
    "2-D, mirrored, two folds": {"dims": 2, "patch": (16, 32), "mirrored": (0, 1), "folds": (0, 1)},
    "3-D, mirrored": {"mirrored": (0, 2), "transposed": (2, 0, 1)},
    "three folds": {"folds": (0, 1, 3)},
    "regions": {"regions": True},
    "regions, written in another order": {
        "regions": True,
        "order": (2, 1),
        "folds": (0, 1),
        "mirrored": (1,),
    },
    "regions, 2-D": {"regions": True, "dims": 2, "patch": (16, 16)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_nnunet(tmp_path: Path, kind: str) -> None:
    model = write_model(tmp_path / "results", **KINDS[kind])
    folds = KINDS[kind].get("folds", (0,))
    files = write_case(tmp_path / "imagesTs", channels=len(KINDS[kind].get("schemes", ("z",))))
    own = predicted_by_nnunet(model, files, tmp_path / "own", folds)
    run = seglens.adopt(model, fold=folds, out=tmp_path / "run")
    regions = KINDS[kind].get("regions", False)
    assert run.spec.head == ("multilabel" if regions else "softmax")
    run = seglens.load(tmp_path / "run")  # from its own files alone
    data = write_set(tmp_path / "set", channels=len(files), regions=regions)
    split = open_split(run, "test", data=data)
    predict_files(run, split, out=tmp_path / "out")
    found = np.asarray(nibabel.load(tmp_path / "out" / "masks" / "case.nii.gz").dataobj)
    assert len(np.unique(own)) > 1  # else nothing is compared
    assert np.array_equal(found, own)


def opened(tmp_path: Path, **kind: Any) -> tuple[seglens.Run, Any]:
    """Return the run of a random model and its prepared case."""
    model = write_model(tmp_path / "results", **kind)
    run = seglens.adopt(model, fold="all", out=tmp_path / "run")
    split = with_tool(run, open_split(run, "test", data=write_set(tmp_path / "set")))
    return run, split


@pytest.mark.parametrize("kind", [{"dims": 2, "patch": (32, 32)}, {"patch": (32, 32, 32)}])
def test_decoder_last_is_before_the_logits(tmp_path: Path, kind: dict[str, Any]) -> None:
    run, _ = opened(tmp_path, **kind)
    assert find_role(run.segmenter, "decoder_last") == "decoder.stages.1"
    assert find_role(run.segmenter, "encoder_last") == "encoder.stages.2"
    assert find_role(run.segmenter, "seg_head") == "decoder.seg_layers.1"


def test_grad_cam_is_that_of_hand_made_hooks(tmp_path: Path) -> None:
    # The network of pictures itself, slice by slice: its gradients are summed over the slices of the volume.
    run, split = opened(tmp_path, dims=2, patch=(32, 32))
    images = split[0].prepared.on(split[0].prepared.frame)[None]
    pixels = torch.zeros(1, *images.shape[2:], dtype=torch.bool)
    pixels[0, 4:9, 8:20, 10:22] = True
    target = seglens.targets.whole_class(pixels, class_index=2)
    found = explain(run, images, target, methods=("grad-cam",), layers=("decoder_last",))
    tool: Any = run.segmenter.tool
    flat = tool.network
    flat.load_state_dict(
        {k: v[:, :, 0] if v.ndim == 5 else v for k, v in run.segmenter.module.state_dict().items()}
    )
    kept: dict[str, torch.Tensor] = {}
    hook = flat.decoder.stages[1].register_forward_hook(lambda _, __, output: kept.update(a=output))
    logits = flat(((images[0] - 0.25) / 0.0625).transpose(0, 1))
    hook.remove()
    score = (logits[:, 2] * pixels[0]).sum()
    (gradient,) = torch.autograd.grad(score, kept["a"])
    weights = gradient.mean((0, 2, 3))
    expected = torch.einsum("c,schw->shw", weights, kept["a"]).relu()
    map_ = found["grad-cam", "decoder_last"].map[0]
    assert expected.max() > 0
    torch.testing.assert_close(map_ / map_.max(), expected.detach() / expected.max(), atol=1e-4, rtol=1e-3)


def test_maps_of_an_ensemble_are_the_means_of_its_members(tmp_path: Path) -> None:
    run, split = opened(tmp_path, patch=(32, 32, 32), folds=(0, 1), mirrored=(1,), transposed=(0, 1, 2))
    ensemble = run.segmenter.module
    assert isinstance(ensemble, Ensemble)
    images = split[0].prepared.on(split[0].prepared.frame)[None]
    pixels = torch.zeros(1, *images.shape[2:], dtype=torch.bool)
    pixels[0, 4:20, 6:20, 10:22] = True
    target = seglens.targets.whole_class(pixels, class_index=1)
    made = explain(run, images, target, methods=("saliency", "grad-cam"), layers=("encoder_mid",))
    x = ((images - 0.25) / 0.0625).requires_grad_()
    total = sum(net(x) + net(x.flip(3)).flip(3) for net in ensemble.networks) / 4
    torch.testing.assert_close(ensemble(x), total)
    keys: tuple[Any, ...] = ("saliency", ("grad-cam", "encoder_mid"))
    maps = []
    for network in ensemble.networks:
        for axes in ((), (-2,)):
            segmenter = type(run.segmenter)(network, run.spec)
            one = type(run)(segmenter, run.task)
            turned = seglens.targets.whole_class(pixels.flip(axes), class_index=1)
            entry = explain(
                one, images.flip(axes), turned, methods=("saliency", "grad-cam"), layers=("encoder_mid",)
            )
            maps.append([entry[key].map.flip(axes) for key in keys])
    for n, key in enumerate(keys):
        each = torch.stack([map_[n] for map_ in maps])
        torch.testing.assert_close(made[key].map, each.mean(0))
        folds = torch.stack([each[:2].mean(0), each[2:].mean(0)])
        apart = (folds.var(0, correction=0).sum() / folds.square().mean(0).sum()).sqrt()
        assert made[key].diagnostics["disagreement"].item() == pytest.approx(apart.item(), rel=1e-4)
        deviation = made[key].folds
        assert deviation is not None
        torch.testing.assert_close(deviation, (folds[0] - folds[1]).abs() / 2)


def test_gradients_over_windows_are_those_of_the_mean_of_all_members(tmp_path: Path) -> None:
    run, split = opened(tmp_path, folds=(0, 1), mirrored=(0, 2))
    prepared = split[0].prepared
    assert not prepared.fits
    image = prepared.on(prepared.frame)
    ensemble: Any = run.segmenter.module
    windows = windows_for(split[0], run.spec, "auto")
    assert windows is not None
    pixels = torch.zeros(1, *windows.scaled, dtype=torch.bool)
    pixels[0, 3:9, 5:15, 6:14] = True
    target = seglens.targets.whole_class(pixels, class_index=1)
    made = explain_large(run, cut_of(image), windows, target, methods=("input-x-gradient",))[
        "input-x-gradient"
    ]
    x, score = image.clone().requires_grad_(), torch.zeros(())
    for place in windows.places:
        part = windows.part(place)
        seen = (x[(slice(None), *part)][None] - 0.25) / 0.0625
        share = windows.weights(place) * pixels[0][part]
        for network in ensemble.networks:
            for axes in ((), (2,), (4,), (2, 4)):
                score = score + (network(seen.flip(axes)).flip(axes)[0, 1] * share).sum() / 8
    (gradient,) = torch.autograd.grad(score, x)
    expected = (gradient * x)[0].detach() / pixels.sum()
    torch.testing.assert_close(
        made.at(windows.scaled), expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-3
    )
    assert made.diagnostics["folds"] == 2
    # Once more for each fold alone: of two numbers the standard deviation is half their difference.
    alone = []
    for network in ensemble.networks:
        one = type(run)(type(run.segmenter)(Ensemble([network], (0, 2)), run.spec), run.task)
        entry = explain_large(one, cut_of(image), windows, target, methods=("input-x-gradient",))
        alone.append(entry["input-x-gradient"].at(windows.scaled))
        assert entry["input-x-gradient"].folds_at(windows.scaled) is None
    deviation = made.folds_at(windows.scaled)
    assert deviation is not None
    half = (alone[0] - alone[1]).abs() / 2
    torch.testing.assert_close(deviation, half, atol=1e-5 * half.max().item(), rtol=1e-3)


def test_how_far_folds_are_apart_is_written_drawn_and_reported(tmp_path: Path) -> None:
    run, split = opened(tmp_path, patch=(32, 32, 32), folds=(0, 1), transposed=(0, 1, 2))
    out = explain_folder(
        run,
        split,
        methods=("grad-cam", "saliency"),
        layers="encoder_mid",
        scale="dataset",
        where="context",
        montage="axial",
    ).folder
    (row,) = json.loads((out / "explanations.json").read_text())["samples"]
    for entry, name in zip(row["maps"], ("grad-cam@encoder_mid@folds", "saliency@folds"), strict=True):
        assert (out / entry["folds"]["file"]).is_file()
        heat = np.asarray(nibabel.load(out / "samples" / "case" / f"{name}.nii.gz").dataobj)
        mean = np.asarray(nibabel.load(out / f"samples/case/{name.removesuffix('@folds')}.nii.gz").dataobj)
        # The share that is not common, from the files: over the network's own voxels it is the diagnostic.
        share = np.sqrt((heat**2).sum() / (heat**2 + mean**2).sum())
        assert share == pytest.approx(entry["diagnostics"]["disagreement"], abs=0.1)
        assert f"map:{name}" in np.load(out / row["files"]["slices"])
        raw = np.load(out / row["files"]["raw"])
        assert np.array_equal(raw[f"counted:{name}"], raw[f"counted:{name.removesuffix('@folds')}"])
        assert any(sheet["title"] == f"montage@{name}" for sheet in row["sheets"])
    assert run.folder is not None
    page = seglens.report([run.folder]).read_text()
    assert "encoder_mid@folds" in page


def test_maps_and_masks_come_back_to_the_grid_of_the_file(tmp_path: Path) -> None:
    run, split = opened(tmp_path, transposed=(2, 0, 1), mirrored=(1,))
    explain_folder(run, split, out=tmp_path / "out", target=("false-negative",), class_name="core")
    (row,) = json.loads((tmp_path / "out" / "explanations.json").read_text())["samples"]
    assert [entry["status"] for entry in row["maps"]] == ["ok", "ok"]
    files = write_case(tmp_path / "imagesTs")
    own = predicted_by_nnunet(
        tmp_path / "results" / "nnUNetTrainer__nnUNetPlans__3d_fullres", files, tmp_path / "own"
    )
    pred = nibabel.load(tmp_path / "out" / "samples" / "case" / "pred.nii.gz")
    assert np.array_equal(np.asarray(pred.dataobj), own)
    # A place of the file is the same place on the grid: the empty border, which nnU-Net cuts off, has no map.
    heat = nibabel.load(tmp_path / "out" / "samples" / "case" / "grad-cam@decoder_last.nii.gz")
    values = np.asarray(heat.dataobj)
    assert values.shape == (19, 26, 13)
    assert not values[:3].any()
    assert not values[:, -2:].any()
    assert values[3:].any()


def test_a_point_of_the_file_is_where_the_frame_says(tmp_path: Path) -> None:
    _, split = opened(tmp_path, transposed=(2, 0, 1))
    sample = split[0]
    frame = sample.prepared.frame
    marked = torch.zeros(sample.image.shape[1:], dtype=torch.long)
    marked[5, 9, 8] = 1  # slice, row, column
    here = [round(at) for at in frame.to_grid(8, 9, 5)[::-1]]
    there = (frame.mask_to_grid(marked) > 0).nonzero().double().mean(0)
    assert (there - torch.tensor(here)).abs().max() <= 1
    assert frame.mask_to_native(frame.mask_to_grid(marked))[5, 9, 8] == 1


def broken(model: Path, change: Any) -> None:
    """Change what a model's plans say."""
    plans = json.loads((model / "plans.json").read_text())
    change(plans, plans["configurations"]["3d_fullres"])
    (model / "plans.json").write_text(json.dumps(plans))


REFUSED: dict[str, tuple[Any, str]] = {
    "cascade": (lambda p, c: c.update(previous_stage="3d_lowres"), "second stage of a cascade.*3d_fullres"),
    "scheme": (
        lambda p, c: c.update(normalization_schemes=["MyScheme"]),
        "MyScheme, which is not known.*ZScore",
    ),
    "reader": (
        lambda p, c: p.update(image_reader_writer="NaturalImage2DIO"),
        "NaturalImage2DIO, which is not",
    ),
    "preprocessor": (lambda p, c: c.update(preprocessor_name="Mine"), "preprocessor_name = Mine"),
    "version": (lambda p, c: p.pop("transpose_forward"), "version that is not known.*transpose_forward"),
    "network": (lambda p, c: c["architecture"].update(network_class_name="os.system"), "network os.system"),
    "part": (
        lambda p, c: c["architecture"]["arch_kwargs"].update(nonlin="os.system"),
        "nonlin from os.system",
    ),
    "configuration": (
        lambda p, c: p.update(configurations={"other": c}),
        "no configuration '3d_fullres'.*other",
    ),
    "size": (lambda p, c: c["architecture"]["arch_kwargs"].update(features_per_stage=[4, 6, 9]), "don't fit"),
    "trainer": (None, "trained by MyTrainer, which is none of nnU-Net's own"),
    "network of a trainer": (None, "trained by nnUNetTrainerBN, which builds another network"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cant_be_served_is_refused_by_name(tmp_path: Path, what: str) -> None:
    change, message = REFUSED[what]
    trainers = {"trainer": "MyTrainer", "network of a trainer": "nnUNetTrainerBN"}
    model = write_model(tmp_path / "results", trainer=trainers.get(what, "nnUNetTrainer"))
    if change is not None:
        broken(model, change)
    with pytest.raises((CheckpointError, ModelError), match=message):
        seglens.adopt(model, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_regions_without_their_order_are_refused_by_name(tmp_path: Path) -> None:
    model = write_model(tmp_path / "results", regions=True, order=None)
    with pytest.raises(ModelError, match=r"2 regions \(whole, core\), and regions_class_order is None"):
        seglens.adopt(model, out=tmp_path / "run")


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    model = write_model(tmp_path / "results", folds=(0, 2))
    with pytest.raises(CheckpointError, match=r"no fold_1/checkpoint_final.pth. Folds that have it: 0, 2"):
        seglens.adopt(model, fold=1, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"is one fold\. Name the folder around it.*--fold 0"):
        seglens.adopt(model / "fold_0", out=tmp_path / "run")
    (model / "fold_0" / "checkpoint_final.pth").rename(model / "fold_0" / "checkpoint_best.pth")
    with pytest.raises(CheckpointError, match=r"no fold_0.*checkpoint_best\.pth: name one with --checkpoint"):
        seglens.adopt(model, fold=0, out=tmp_path / "run")
    seglens.adopt(model, fold=0, checkpoint="checkpoint_best.pth", out=tmp_path / "run")
    (model / "fold_2" / "checkpoint_final.pth").write_bytes(b"PK nonsense")
    with pytest.raises(CheckpointError, match=r"fold_2.*can't be read"):
        seglens.adopt(model, out=tmp_path / "other")
    (model / "dataset.json").unlink()
    with pytest.raises(CheckpointError, match=r"no dataset\.json"):
        seglens.adopt(model, fold=0, checkpoint="checkpoint_best.pth", out=tmp_path / "other")


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("ran",))


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    model = write_model(tmp_path / "results")
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "logging": Evil()}, file)
    with pytest.raises(CheckpointError, match="would run code"):
        seglens.adopt(model, out=tmp_path / "run")


def test_settings_of_others_are_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "results")
    with pytest.raises(SettingError, match=r"says all of the model itself: received mean"):
        seglens.adopt(model, mean=(0.5,), out=tmp_path / "run")
    torch.save({}, tmp_path / "best_model.pth")
    with pytest.raises(SettingError, match=r"is no folder of nnU-Net.*fold"):
        seglens.adopt(tmp_path / "best_model.pth", fold=0, out=tmp_path / "run")


def test_the_command_line_adopts_evaluates_and_explains(tmp_path: Path) -> None:
    model = write_model(tmp_path / "results", dims=2, patch=(32, 32), folds=(0, 1))
    data, run = str(write_set(tmp_path / "set")), str(tmp_path / "run")
    for words in (
        ["adopt", str(model), "--fold", "0", "1", "--run", run],
        ["evaluate", run, "--data", data, "--split", "test"],
        ["explain", run, "--data", data, "--split", "test", "--target", "false-negative", "--class", "core"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    scores = json.loads((tmp_path / "run" / "evaluate" / "test" / "scores.json").read_text())
    files = write_case(tmp_path / "imagesTs")
    own = predicted_by_nnunet(model, files, tmp_path / "own", (0, 1))
    truth = np.asarray(nibabel.load(Path(data) / "labelsTs" / "case.nii.gz").dataobj)
    both = ((own == 2) & (truth == 2)).sum() * 2 / ((own == 2).sum() + (truth == 2).sum())
    assert scores["pooled"]["per_class"]["core"]["dice"] == pytest.approx(both)
