"""What ``nnUNetv2_train`` left: plans.json, dataset.json and a checkpoint for each fold.

All of it is looked at before anything is built. What can't be served just as nnU-Net does it is refused by
name: cascades, trainers that build other networks, schemes and readers that are not known here.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nnunetv2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from seglens.data.tables import read_text
from seglens.errors import CheckpointError, DataError, ModelError
from seglens.models.checkpoint import check_weights_file, read_pickle
from seglens.models.weights import State

PLANS, DATASET, CHECKPOINT = "plans.json", "dataset.json", "checkpoint_final.pth"
SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
"""The normalisation schemes of nnU-Net."""
READERS = ("SimpleITKIO", "NibabelIO")
"""The readers that give a volume in the order of its file."""
_WANTED = (
    "configurations",
    "transpose_forward",
    "transpose_backward",
    "image_reader_writer",
    "label_manager",
)
_OF_CONFIGURATION = (
    "patch_size",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "preprocessor_name",
    "resampling_fn_data",
    "resampling_fn_seg",
    "resampling_fn_probabilities",
    "architecture",
)
_KEPT = ("labels", "regions_class_order", "channel_names", "file_ending")
"""What of dataset.json a prediction needs."""


@dataclass(frozen=True)
class Trained:
    """A training of nnU-Net: what its files say, and the weights of each of its folds by its name."""

    options: dict[str, Any]
    weights: dict[str, State]


def read_trained(
    folder: Path, folds: Sequence[str] | None = None, checkpoint: str = CHECKPOINT, *, mirroring: bool = True
) -> Trained:
    """Read a folder ``<trainer>__<plans>__<configuration>`` of nnUNet_results.

    ``folds`` are numbers, or ``all`` for fold_all, or for every fold there is where that isn't there; left
    out it is every numbered fold, as of ``nnUNetv2_predict``.

    Raises:
        CheckpointError: a file is missing, damaged, or would need to run code.
        ModelError: the model can't be served as nnU-Net does; it is said why.
    """
    if (folder / "plans.pkl").is_file() and not (folder / PLANS).is_file():
        raise ModelError(
            f"{folder} is a model of nnU-Net v1 (plans.pkl), whose plans are a pickle that runs code. "
            "Allowed are those of nnU-Net v2: convert the set with nnUNetv2_convert_old_nnUNet_dataset, and "
            "train there."
        )
    if folder.name.startswith("fold_") and (folder.parent / PLANS).is_file():
        raise CheckpointError(
            f"{folder} is one fold. Name the folder around it, and the fold beside: seglens adopt "
            f"{folder.parent} --fold {folder.name.removeprefix('fold_')}."
        )
    plans, dataset = _json(folder / PLANS), _json(folder / DATASET)
    names = _folds(folder, folds, checkpoint)
    read = {name: _checkpoint(folder / f"fold_{name}" / checkpoint) for name in names}
    facts = {name: _facts(folder, name, content) for name, content in read.items()}
    first = facts[names[0]]
    for name, other in facts.items():
        if other != first:
            raise ModelError(
                f"The folds {names[0]} and {name} of {folder} were not trained alike: {first} and {other}. "
                "Name folds of one training with --fold."
            )
    configuration = resolved(plans, first["configuration"], folder)
    _check_plans(plans, configuration, folder)
    _check_trainer(first["trainer"], folder)
    options = {
        "plans": {key: value for key, value in plans.items() if key != "configurations"}
        | {"configurations": {first["configuration"]: configuration}},
        "dataset": {key: dataset[key] for key in _KEPT if key in dataset},
        "configuration": first["configuration"],
        "trainer": first["trainer"],
        "folds": list(names),
        "mirrored": list(first["mirrored"]) if mirroring else [],
    }
    if not isinstance(dataset.get("labels"), dict) or not dataset["labels"]:
        raise CheckpointError(
            f"{folder / DATASET} doesn't list its labels. Restore the file of the training."
        )
    return Trained(options, {name: dict(content["network_weights"]) for name, content in read.items()})


def resolved(plans: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """Return a configuration of plans with all that it inherits.

    Raises:
        ModelError: there is none, or it inherits from itself.
    """
    found: dict[str, Any] = {}
    visited: list[str] = []
    configurations, at = plans.get("configurations", {}), name
    while True:
        if not isinstance(configurations, dict) or at not in configurations or at in visited:
            raise ModelError(
                f"{folder / PLANS} describes no configuration {at!r} (for {name!r}). It has: "
                f"{', '.join(configurations) if isinstance(configurations, dict) else 'none'}. Restore the "
                "plans that the checkpoint was trained with."
            )
        visited.append(at)
        found = {**configurations[at], **found}
        if "inherits_from" not in configurations[at]:
            break
        at = configurations[at]["inherits_from"]
    return {key: value for key, value in found.items() if key != "inherits_from"}


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file)) if file.is_file() else None
    except (ValueError, DataError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}. Restore the file of the training.") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{file.parent} has no {file.name} of names and values. A folder of nnU-Net v2 holds {PLANS}, "
            f"{DATASET} and fold_0/{CHECKPOINT}: nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION."
        )
    return content


def _folds(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> tuple[str, ...]:
    """Return the names of the folds that are meant, each of which has the checkpoint."""
    there = sorted(
        each.name.removeprefix("fold_") for each in folder.glob("fold_*") if (each / checkpoint).is_file()
    )
    numbered = tuple(name for name in there if name != "all")
    wanted = tuple(dict.fromkeys(map(str, folds))) if folds else numbered or tuple(there)
    if wanted == ("all",) and "all" not in there:
        wanted = numbered
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        others = sorted({file.name for file in folder.glob("fold_*/*.pth")} - {checkpoint})
        hint = f" There are {', '.join(others)}: name one with --checkpoint." if others else ""
        raise CheckpointError(
            f"{folder} has no fold_{missing[0] if missing else '0'}/{checkpoint}. Folds that have it: "
            f"{', '.join(there) or 'none'}. Name one with --fold, or finish the training.{hint}"
        )
    if "all" in wanted and len(wanted) > 1:
        raise ModelError(
            f"The folds {', '.join(wanted)} were not trained alike: fold_all saw every case. Name 'all', or "
            "numbers."
        )
    return wanted


def _checkpoint(file: Path) -> Mapping[str, Any]:
    check_weights_file(file)
    content = read_pickle(file)
    if not isinstance(content, Mapping) or not isinstance(content.get("network_weights"), Mapping):
        raise CheckpointError(
            f"{file} has no network_weights, as the checkpoints of nnUNetv2_train have. Name the folder of a "
            "training of nnU-Net, or adopt the file with --model."
        )
    return content


def _facts(folder: Path, fold: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a fold was trained: its trainer, its configuration, and how it is mirrored."""
    given, trainer = content.get("init_args"), content.get("trainer_name")
    configuration = given.get("configuration") if isinstance(given, Mapping) else None
    mirrored = content.get("inference_allowed_mirroring_axes")
    whole = mirrored is None or all(isinstance(axis, int) for axis in mirrored)
    if not isinstance(trainer, str) or not isinstance(configuration, str) or not whole:
        raise CheckpointError(
            f"The checkpoint of fold {fold} in {folder} doesn't say trainer_name, init_args.configuration "
            "and inference_allowed_mirroring_axes in plain values. Take one that nnUNetv2_train wrote."
        )
    return {"trainer": trainer, "configuration": configuration, "mirrored": sorted(mirrored or ())}


def _check_plans(plans: Mapping[str, Any], configuration: Mapping[str, Any], folder: Path) -> None:
    if configuration.get("previous_stage"):
        raise ModelError(
            f"{folder} is the second stage of a cascade: with each picture it needs the masks of "
            f"{configuration['previous_stage']}. Adopt a configuration that stands alone, such as "
            "3d_fullres or 3d_lowres."
        )
    missing = [key for key in _WANTED if key not in plans and key != "label_manager"]
    missing += [key for key in _OF_CONFIGURATION if key not in configuration]
    if missing:
        raise ModelError(
            f"{folder / PLANS} is of a version that is not known here: it doesn't say {', '.join(missing)}. "
            "Allowed are plans of nnU-Net 2.5 and later; nnUNetv2_plan_experiment writes them again, with "
            "the same network where settings are the same."
        )
    known: dict[str, tuple[Any, tuple[str, ...]]] = {
        "label_manager": (plans.get("label_manager", "LabelManager"), ("LabelManager",)),
        "image_reader_writer": (plans["image_reader_writer"], READERS),
        "preprocessor_name": (configuration["preprocessor_name"], ("DefaultPreprocessor",)),
    }
    known |= {
        f"normalization_schemes {n}": (each, SCHEMES)
        for n, each in enumerate(configuration["normalization_schemes"])
    }
    for key, (given, allowed) in known.items():
        if given not in allowed:
            raise ModelError(
                f"{folder / PLANS} has {key} = {given}, which is not known here. Allowed: "
                f"{', '.join(allowed)}. Predict with nnUNetv2_predict, or train with one of these."
            )
    if len(configuration["patch_size"]) not in (2, 3):
        raise ModelError(
            f"{folder / PLANS} has patches of {len(configuration['patch_size'])} axes, not 2 or 3."
        )


def _check_trainer(name: str, folder: Path) -> None:
    """Refuse a trainer that isn't nnU-Net's own, or that builds another network than the plans say."""
    place = Path(nnunetv2.__path__[0]) / "training" / "nnUNetTrainer"
    found = recursive_find_python_class(str(place), name, "nnunetv2.training.nnUNetTrainer")
    if found is None:
        raise ModelError(
            f"{folder} was trained by {name}, which is none of nnU-Net's own trainers: its code may build "
            "another network, and is not run here. Where it builds the network of the plans, save the "
            "checkpoint with trainer_name='nnUNetTrainer'."
        )
    if inspect.getattr_static(found, "build_network_architecture") is not _inherited(found):
        raise ModelError(
            f"{folder} was trained by {name}, which builds another network than the plans say. Allowed are "
            "nnUNetTrainer and those of its variants that leave the network as it is. Build it in Python and "
            "give it to seglens.wrap."
        )


def _inherited(trainer: type) -> object:
    """Return what nnUNetTrainer itself builds networks with, where ``trainer`` is one."""
    own = inspect.getattr_static(nnUNetTrainer, "build_network_architecture")
    return own if issubclass(trainer, nnUNetTrainer) else None
