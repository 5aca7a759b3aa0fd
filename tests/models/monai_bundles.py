"""Small MONAI bundles with random weights, in the files of one, and MONAI's own run of them."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image


def network(dims: int, channels: int = 1, outputs: int = 3) -> dict[str, Any]:
    """Return a small U-Net."""
    return {
        "_target_": "UNet",
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": outputs,
        "channels": [4, 8, 12],
        "strides": "$[2] * @depth",
        "num_res_units": 1,
        "norm": "batch",
    }


LOADED = (
    {"_target_": "LoadImaged", "keys": "@image_key"},
    {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
)
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}


def inverted(nearest: bool = False) -> dict[str, Any]:
    """Return what brings a prediction back to its file."""
    return {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "@image_key",
        "meta_key_postfix": "meta_dict",
        "nearest_interp": nearest,
        "to_tensor": True,
    }


VOLUMES = (
    *LOADED,
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim", "mode": "bilinear"},
    {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": 40,
        "a_max": "$@a_max - 1",
        "b_min": 0.0,
        "b_max": 1.0,
        "clip": True,
    },
    {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
)


def write_bundle(
    folder: Path,
    *,
    dims: int = 3,
    net: dict[str, Any] | None = None,
    before: Sequence[dict[str, Any]] | None = None,
    inferer: dict[str, Any] | None = None,
    after: Sequence[dict[str, Any]] = (SOFTMAX, inverted(), ARGMAX),
    names: Sequence[str] | None = ("background", "edge", "core"),
    kind: str = "json",
    more: dict[str, Any] | None = None,
    script: bool = False,
    nest: str | None = None,
    weights: bool = True,
) -> Path:
    """Write a bundle with the weights that MONAI's own reading of it draws."""
    windows = {
        "_target_": "SlidingWindowInferer",
        "roi_size": [16] * dims,
        "sw_batch_size": 2,
        "overlap": 0.25,
    }
    config = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "depth": 2,
        "pixdim": [1.5, 1.5, 2.0],
        "a_max": 701,
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$list(sorted(glob.glob('imagesTs/*.nii.gz')))",
        "network_def": net or network(dims),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": list(before or VOLUMES)},
        "inferer": inferer or windows,
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                *after,
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'"},
            ],
        },
        "run": ["$@evaluator.run()"],
        **(more or {}),
    }
    described = None if names is None else {str(n): name for n, name in enumerate(names)}
    meta = {"network_data_format": {"outputs": {"pred": {"channel_def": described}}}}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    text = json.dumps(config) if kind == "json" else yaml.safe_dump(config, sort_keys=False)
    (folder / "configs" / f"inference.{kind}").write_text(text)
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta))
    if not weights:
        return folder
    module = parsed(folder).get_parsed_content("network_def")
    torch.manual_seed(5)
    state = {
        name: torch.randn_like(each) * 0.3 + (0.5 if name.endswith("running_var") else 0)
        if each.is_floating_point()
        else each
        for name, each in module.state_dict().items()
    }
    state = {name: each.abs() + 0.3 if name.endswith("running_var") else each for name, each in state.items()}
    module.load_state_dict(state)
    if script:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(module.eval()), folder / "models" / "model.ts")
    else:
        torch.save({nest: state} if nest else state, folder / "models" / "model.pt")
    return folder


def parsed(folder: Path) -> Any:
    """Return MONAI's own reading of a bundle."""
    from monai.bundle.config_parser import ConfigParser

    parser = ConfigParser()
    (file,) = (folder / "configs").glob("inference.*")
    parser.read_config(str(file))
    parser.read_meta(str(folder / "configs" / "metadata.json"))
    return parser


def predicted_by_monai(folder: Path, files: Sequence[Path], choice: int | None = None) -> np.ndarray:
    """Return the mask of a case by MONAI's own run of a bundle, in the order of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = parsed(folder)
        names = [str(file) for file in files]
        before = parser.get_parsed_content("preprocessing")
        data = before({"image": names[0] if len(names) == 1 else names})
        module = parser.get_parsed_content("network_def")
        scripted = folder / "models" / "model.ts"
        if scripted.is_file():
            state = torch.jit.load(scripted).state_dict()
        else:
            state = torch.load(folder / "models" / "model.pt", weights_only=True)
            state = state.get("model", state)
        module.load_state_dict(state)
        module.eval()
        called = module if choice is None else lambda x: module(x)[choice]
        with torch.no_grad():
            data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], called)[0]
        after = parser.get_parsed_content("postprocessing")
        for step in after.transforms:
            if type(step).__name__ != "SaveImaged":
                data = step(data)
    return np.asarray(data["pred"])


def write_picture(folder: Path, size: tuple[int, int] = (44, 60)) -> Path:
    """Write a colour picture with a disc."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[: size[0], : size[1]]
    disc = (rows - 20) ** 2 + (columns - 33) ** 2 < 150
    folder.mkdir(parents=True, exist_ok=True)
    values = np.clip(rng.normal(90 + 80 * disc[..., None], 30, (*size, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(values).save(folder / "picture.png")
    return folder / "picture.png"
