"""Small models of nnU-Net with random weights, in the files of nnUNetv2_train, and cases for them."""

import contextlib
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nibabel_untyped
import numpy as np
import torch

nibabel: Any = nibabel_untyped

TURNED = np.array([[0, -1.5, 0, 3.0], [0, 0, 2.5, -7.0], [1.2, 0, 0, 11.0], [0, 0, 0, 1.0]])
"""Axes of a file that run to the head, to the left and to the front: none is where an array has it."""
LABELS = {"background": 0, "edge": 1, "core": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def configuration(
    dims: int, schemes: Sequence[str], masked: Sequence[bool], patch: Sequence[int]
) -> dict[str, Any]:
    """Return a configuration of plans: three stages of 4, 6 and 8 channels."""
    strides = [[1] * dims, [2] * dims, [1, *[2] * (dims - 1)] if dims == 3 else [2] * dims]
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "plans",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [20.0] * dims,
        "spacing": [2.0, 1.5, 1.5][-dims:],
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": list(masked),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 6, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": [[3] * dims] * 3,
                "strides": strides,
                "n_conv_per_stage": [1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }


def write_model(
    folder: Path,
    *,
    dims: int = 3,
    schemes: Sequence[str] = ("ZScoreNormalization",),
    masked: Sequence[bool] = (False,),
    patch: Sequence[int] = (8, 16, 16),
    folds: Sequence[int | str] = (0,),
    mirrored: tuple[int, ...] | None = None,
    transposed: Sequence[int] = (1, 0, 2),
    regions: bool = False,
    order: Sequence[int] | None = (1, 2),
    trainer: str = "nnUNetTrainer",
) -> Path:
    """Write plans.json, dataset.json and a checkpoint for each fold; return the folder."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    name = "2d" if dims == 2 else "3d_fullres"
    place = folder / f"{trainer}__nnUNetPlans__{name}"
    one = configuration(dims, schemes, masked, tuple(patch)[-dims:])
    plans = {
        "dataset_name": "Dataset001_Small",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.5, 1.5],
        "original_median_shape_after_transp": [20, 20, 20],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transposed),
        "transpose_backward": [list(transposed).index(axis) for axis in range(3)],
        "configurations": {name: one},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(n): {
                "max": 900.0,
                "mean": 200.0,
                "median": 180.0,
                "min": -100.0,
                "percentile_00_5": -80.0,
                "percentile_99_5": 700.0,
                "std": 150.0,
            }
            for n in range(len(schemes))
        },
    }
    dataset: dict[str, Any] = {
        "channel_names": {str(n): f"MR{n}" for n in range(len(schemes))},
        "labels": REGIONS if regions else LABELS,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if regions and order is not None:
        dataset["regions_class_order"] = list(order)
    place.mkdir(parents=True)
    (place / "plans.json").write_text(json.dumps(plans))
    (place / "dataset.json").write_text(json.dumps(dataset))
    architecture = one["architecture"]
    for number, fold in enumerate(folds):
        torch.manual_seed(number)
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            len(schemes),
            2 if regions else 3,
            deep_supervision=True,
        )
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        content = {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "dice_per_class_or_region": [np.zeros(2)]},
            "_best_ema": np.float32(0.4),
            "current_epoch": 1,
            "init_args": {"configuration": name, "fold": fold, "device": torch.device("cpu")},
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": mirrored,
        }
        (place / f"fold_{fold}").mkdir()
        torch.save(content, place / f"fold_{fold}" / "checkpoint_final.pth")
    return place


def write_case(
    folder: Path, name: str = "case", channels: int = 1, *, shape=(19, 26, 13), affine=TURNED
) -> list[str]:
    """Write a case with an empty border, which nnU-Net cuts off; return its files."""
    folder.mkdir(parents=True, exist_ok=True)
    chance, files = np.random.default_rng(len(name)), []
    for channel in range(channels):
        values = chance.normal(300, 120, shape).astype(np.float32)
        values += 200 * np.sin(np.indices(shape).sum(0) / 4)
        values[:3], values[:, -2:] = 0, 0
        files.append(str(folder / f"{name}_{channel:04d}.nii.gz"))
        nibabel.save(nibabel.Nifti1Image(values, affine), files[-1])
    return files


def write_set(
    folder: Path, name: str = "case", channels: int = 1, *, regions: bool = False, **of_case: Any
) -> Path:
    """Write a set of nnU-Net's layout with a case in train and another one, called ``name``, in test."""
    for split, case in (("Tr", f"{name}_learned"), ("Ts", name)):
        files = write_case(folder / f"images{split}", case, channels, **of_case)
        (folder / f"labels{split}").mkdir()
        picture = nibabel.load(files[0])
        truth = np.zeros(picture.shape, dtype=np.uint8)
        truth[5:12, 6:16, 3:9] = 1
        truth[7:10, 8:12, 4:7] = 2
        nibabel.save(nibabel.Nifti1Image(truth, picture.affine), folder / f"labels{split}" / f"{case}.nii.gz")
    channel_names = {str(n): f"MR{n}" for n in range(channels)}
    described: dict[str, Any] = {"channel_names": channel_names, "labels": LABELS, "file_ending": ".nii.gz"}
    if regions:
        described |= {"labels": REGIONS, "regions_class_order": [1, 2]}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def predicted_by_nnunet(
    model: Path, files: Sequence[str], out: Path, folds: Sequence[int | str] = (0,), *, mirroring: bool = True
) -> np.ndarray:
    """Return the mask that nnU-Net's own predictor writes, in the order of the file."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    out.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        predictor = nnUNetPredictor(
            use_mirroring=mirroring,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(str(model), tuple(folds))
        predictor.predict_from_files_sequential([list(files)], [str(out / "own")])
    return np.asarray(nibabel.load(out / "own.nii.gz").dataobj)
