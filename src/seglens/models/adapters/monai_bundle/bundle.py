"""The folder of a MONAI bundle: its configuration as plain data, checked, and its weights.

::

    configs/inference.json (or .yaml), configs/metadata.json, models/model.pt (or model.ts)

What of it counts is kept in ``ModelSpec.options``: network, preprocessing, inferer and postprocessing.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seglens.errors import CheckpointError, ModelError
from seglens.models.adapters.monai_bundle import parts
from seglens.models.adapters.monai_bundle.config import TARGET, Config, read_config
from seglens.models.checkpoint import check_weights_file, read_checkpoint
from seglens.models.segmenter import Head
from seglens.models.weights import State

WEIGHTS = ("model.pt", "model.pth", "model.safetensors", "model.ts")
"""What the files of weights may be called, the likeliest first."""
_WITHOUT_BACKGROUND = "lambda x: x[1:]"
"""A function after ``to_onehot`` that leaves the first class out of what is saved: the mask is the same."""


@dataclass(frozen=True)
class Bundle:
    """What a bundle's files say: ``options`` of the network and its cases, and what its channels are called.

    ``names`` are None where the metadata don't say; ``shape`` is the size of one input, where they do.
    """

    options: dict[str, Any]
    names: tuple[str, ...] | None
    shape: tuple[int, ...] | None


def read_bundle(folder: Path) -> Bundle:
    """Read the configuration of a bundle.

    Raises:
        CheckpointError: a file is missing or can't be read.
        ModelError: something in it is not known here, or would run code.
    """
    config = read_config(folder / "configs")
    missing = [name for name in ("preprocessing", "inferer") if name not in config]
    if missing or not {"network_def", "network"} & set(config.content):
        raise ModelError(
            f"{config.file} has no {missing[0] if missing else 'network_def'}. A bundle that segments "
            "describes network_def, preprocessing, inferer and postprocessing there."
        )
    name, arguments = parts.network_of(config.value("network_def" if "network_def" in config else "network"))
    before = _steps(config, "preprocessing", parts.PREPARING)
    after = _steps(config, "postprocessing", parts.FINISHING) if "postprocessing" in config else []
    inferer = config.value("inferer")
    if str(inferer.get(TARGET) if isinstance(inferer, dict) else "").endswith("SliceInferer"):
        raise ModelError(
            f"{config.file} runs a network of pictures over the slices of volumes (SliceInferer), which is "
            "not known here. Write the slices as pictures ('seglens data slices') and build the network in "
            "Python: seglens.wrap(network, ...)."
        )
    options = {
        "network": {TARGET: name, **arguments},
        "preprocessing": before,
        "inferer": parts.checked(inferer, "inferer", parts.INFERERS),
        "postprocessing": after,
    }
    _check_steps(options, config)
    names, shape = _metadata(config)
    return Bundle(options, names, shape)


def read_weights(folder: Path, name: str | None) -> tuple[Path, dict[str, State]]:
    """Return the file of weights of a bundle, and the state dicts in it.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    wanted = WEIGHTS if name is None else (name,)
    file = next((each for one in wanted if (each := folder / "models" / one).is_file()), None)
    if file is None:
        there = sorted(each.name for each in (folder / "models").glob("*") if each.is_file())
        raise CheckpointError(
            f"{folder / 'models'} has no {' or '.join(wanted)}. It holds {', '.join(there) or 'nothing'}: "
            "name another with --checkpoint."
        )
    if file.suffix != ".ts":
        return file, dict(read_checkpoint(file))
    check_weights_file(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, on its own archives
            content = io.BytesIO(file.read_bytes())
            state = torch.jit.load(content, map_location="cpu").state_dict()
    except RuntimeError as error:
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{file} can't be read as TorchScript: {first}. Export it again.") from error
    return file, {"": state}


def kind_of_answer(after: Sequence[Mapping[str, Any]], outputs: int) -> tuple[Head, float]:
    """Return the head that postprocessing makes of so many outputs, and the threshold of its labels.

    Raises:
        ModelError: it says neither, or two things that contradict one another.
    """
    activation, decision = _only(after, "Activationsd"), _only(after, "AsDiscreted")
    soft, sigmoid = bool(activation.get("softmax")), bool(activation.get("sigmoid"))
    largest, threshold = bool(decision.get("argmax")), decision.get("threshold")
    if (soft or largest) and not (sigmoid or threshold is not None) and outputs > 1:
        return "softmax", 0.5
    if sigmoid and not (soft or largest):
        return ("sigmoid" if outputs == 1 else "multilabel"), 0.5 if threshold is None else float(threshold)
    raise ModelError(
        f"The bundle's postprocessing doesn't say what its {outputs} outputs are: received "
        f"Activationsd {_given(activation)}, AsDiscreted {_given(decision)}. Allowed are softmax or argmax "
        "of several outputs, and sigmoid with a threshold or none."
    )


def _steps(config: Config, name: str, known: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Return the transforms of a ``Compose``, checked; those without effect are not looked at."""
    whole = config.raw(f"@{name}")
    listed = isinstance(whole, dict) and str(whole.get(TARGET)).rpartition(".")[2] == "Compose"
    transforms = config.raw(whole.get("transforms")) if listed else None
    if not isinstance(transforms, list):
        raise ModelError(
            f"{config.file}: {name} is no Compose of transforms, received {str(whole)[:60]!r}. Allowed is "
            f'{{"{TARGET}": "Compose", "transforms": [...]}}.'
        )
    if wrong := [key for key in whole if key not in (TARGET, "transforms", "_desc_")]:
        raise ModelError(
            f"{config.file}: {name} gives Compose {wrong[0]} = {whole[wrong[0]]!r}. Leave it out."
        )
    found: list[dict[str, Any]] = []
    for n, each in enumerate(transforms):
        part, place = config.raw(each), f"{name}::transforms::{n}"
        target = str(part.get(TARGET)).rpartition(".")[2] if isinstance(part, dict) else ""
        off = isinstance(part, dict) and str(part.get("_disabled_")).lower() == "true"
        if off or target in parts.WITHOUT_EFFECT or _leaves_out_background(part, found):
            continue
        if target == "Invertd":
            if str(part.get("transform")).strip() != "@preprocessing":
                raise ModelError(
                    f"{config.file}: {place} undoes {str(part.get('transform'))[:60]!r}; allowed is what was "
                    'done before: write "transform": "@preprocessing".'
                )
            part = {key: value for key, value in part.items() if key != "transform"}
        found.append(parts.checked(config.plain(part, place), place, known))
    return found


def _leaves_out_background(part: Any, before: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a transform only leaves the background out of a one-hot mask, which says the same without."""
    if not isinstance(part, Mapping) or str(part.get(TARGET)) not in ("Lambdad", "monai.transforms.Lambdad"):
        return False
    same = "".join(str(part.get("func")).removeprefix("$").split()) == "".join(_WITHOUT_BACKGROUND.split())
    return same and bool(before) and bool(before[-1].get("to_onehot"))


def _check_steps(options: Mapping[str, Any], config: Config) -> None:
    """Refuse transforms of several keys, and masks that don't come back to the file."""
    before, after = options["preprocessing"], options["postprocessing"]
    if not before or before[0][TARGET] != "LoadImaged":
        raise ModelError(f"{config.file}: preprocessing doesn't begin with LoadImaged, which reads the file.")
    image = _key(before[0]["keys"])
    for steps, wanted in ((before, image), (after, "pred")):
        for step in steps:
            if _key(step["keys"]) != wanted:
                raise ModelError(
                    f"{config.file}: {step[TARGET]} is for {_key(step['keys'])}; allowed is {wanted!r} "
                    "alone, because a run has nothing but the picture. Leave the other keys out."
                )
    inverse = _only(after, "Invertd")
    if inverse and _key(inverse.get("orig_keys", image)) != image:
        raise ModelError(f"{config.file}: Invertd undoes what was done to another key than {image!r}.")
    moving = [step[TARGET] for step in before if step[TARGET] in parts.MOVING]
    if moving and not inverse:
        raise ModelError(
            f"{config.file}: preprocessing moves voxels ({', '.join(moving)}), and postprocessing has no "
            "Invertd, so that masks would lie on another grid than their pictures. Add Invertd with "
            '"transform": "@preprocessing".'
        )


def _metadata(config: Config) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
    """Return the names of the channels, and the size of one input, where the metadata say them."""
    described = config.content["_meta_"].get("network_data_format")
    outputs = _first(described, "outputs").get("channel_def")
    shape = _first(described, "inputs").get("spatial_shape")
    names: tuple[str, ...] | None = None
    if isinstance(outputs, Mapping) and outputs:
        by_number = {str(key): str(value) for key, value in outputs.items()}
        wanted = [str(number) for number in range(len(by_number))]
        if sorted(by_number) != sorted(wanted):
            raise ModelError(
                f"metadata.json names the channels {', '.join(by_number)}; wanted is each from 0 on. Correct "
                "channel_def, or name classes: --classes."
            )
        names = tuple(by_number[number] for number in wanted)
    sides = shape if isinstance(shape, list) else []
    return names, tuple(sides) if all(type(each) is int and each > 0 for each in sides) else None


def _first(described: Any, what: str) -> Mapping[str, Any]:
    """Return the first of the network's inputs or outputs in the metadata."""
    every = described.get(what) if isinstance(described, Mapping) else None
    first = next(iter(every.values()), None) if isinstance(every, Mapping) else None
    return first if isinstance(first, Mapping) else {}


def _only(steps: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    found = [step for step in steps if step[TARGET] == name]
    if len(found) > 1:
        raise ModelError(f"The bundle's postprocessing has {name} {len(found)} times; allowed is once.")
    return found[0] if found else {}


def _given(step: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in step.items() if key not in (TARGET, "keys")}
    return ", ".join(f"{key}={value}" for key, value in shown.items()) or "nothing"


def _key(keys: Any) -> str:
    """Return the only key of a transform; all of them, where there are several."""
    listed = keys if isinstance(keys, list) else [keys]
    return ", ".join(map(str, listed))
