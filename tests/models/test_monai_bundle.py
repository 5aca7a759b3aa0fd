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
from seglens.folder import explain_folder, predict_files
from seglens.models.adapters.monai_bundle.config import Config
from seglens.models.layers import find_role
from seglens.runs.data import open_split, with_tool

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
    two = {"class_map": ("edge=core",)} if run.spec.head == "sigmoid" else {}
    predict_files(run, open_split(run, "test", data=data, **two), out=tmp_path / "out")
    found = np.asarray(nibabel.load(tmp_path / "out" / "masks" / "case.nii.gz").dataobj)
    assert len(np.unique(own)) > 1  # else nothing is compared
    assert np.array_equal(found, own)
