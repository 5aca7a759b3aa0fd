"""Options of an architecture: checked by name and type, read from a config.json, and found in the tensors.

Some options change what a network computes and leave no trace in its tensors (``SILENT``): where nobody says
what they were, they are assumed to be the architecture's defaults, and that is said.
"""

import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from seglens.arguments.validated import fault
from seglens.errors import CheckpointError, ModelError, SettingError, unknown_name
from seglens.models import zoo
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.models.weights import misfits

SILENT = (
    "encoder_output_stride",
    "encoder_output_indices",
    "decoder_interpolation",
    "decoder_atrous_rates",
    "upsampling",
)
"""Options of segmentation-models-pytorch that decide what is computed, and that no tensor shows."""
LOGITS = (None, "identity", "sigmoid", "softmax", "softmax2d", "logsoftmax")
"""Activations that a network's logits can be read without: they are left off."""
LEFT_OFF = ("activation", "aux_params")
CONFIG = "config.json"
ADAPTER = "adapter_config.json"
PRETRAINED = ("model.safetensors", "pytorch_model.bin")
"""What ``save_pretrained`` calls the weights."""
_OF_CONFIG = {"encoder_name": "encoder", "in_channels": "channels", "classes": "outputs"}
_TRIES = 4


@dataclass(frozen=True)
class Described:
    """What a ``config.json`` says of the network: None where it is silent."""

    model: str | None = None
    encoder: str | None = None
    channels: int | None = None
    outputs: int | None = None
    options: Mapping[str, Any] | None = None


def open_pretrained(path: Path) -> tuple[Path, Described]:
    """Return the file of weights at ``path``, a file or a folder, and what ``config.json`` beside it says.

    Of files only those that ``save_pretrained`` writes belong to the ``config.json`` beside them.

    Raises:
        CheckpointError: the folder holds no such files, or the ``config.json`` is of another library.
    """
    folder = path if path.is_dir() else path.parent
    config = folder / CONFIG
    if path.is_dir():
        if (path / "run.json").is_file():
            raise CheckpointError(f"{path} is a run folder already: use it as it is.")
        weights = next((path / name for name in PRETRAINED if (path / name).is_file()), None)
        if weights is None or not config.is_file():
            raise CheckpointError(
                f"{path} is a folder, and not one that is known. Allowed are those with {CONFIG} and "
                f"{' or '.join(PRETRAINED)} (save_pretrained of segmentation-models-pytorch, or of Hugging "
                "Face), with plans.json (nnU-Net), or with configs/inference.json (a MONAI bundle). Else "
                "name the file of weights."
            )
    elif path.name not in PRETRAINED or not config.is_file():
        return path, Described()
    else:
        weights = path
    try:
        content = json.loads(config.read_bytes())
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{config} can't be read: {error}. Correct it, or move the weights away from it."
        ) from error
    name = content.pop("_model_class", None) if isinstance(content, dict) else None
    model = next((ours for ours, entry in zoo.MODELS.items() if entry.elsewhere == name and name), None)
    if model is None:
        if path is weights:
            return path, Described()
        raise CheckpointError(
            f"{config} describes no network of segmentation-models-pytorch (_model_class: {name!r}). "
            f"Allowed: {', '.join(entry.elsewhere for entry in zoo.MODELS.values() if entry.elsewhere)}."
        )
    content.pop("encoder_weights", None)
    fields = {ours: content.pop(theirs, None) for theirs, ours in _OF_CONFIG.items()}
    return weights, Described(model=model, **fields, options=checked_options(model, content))


def refuse_adapter(path: Path) -> None:
    """Raise where a folder holds an adapter of peft (LoRA), alone or beside a model that lacks it.

    Raises:
        CheckpointError: it does.
    """
    if (path / ADAPTER).is_file():
        raise CheckpointError(
            f"{path} holds an adapter ({ADAPTER}, as peft writes for LoRA): the difference to a model, and "
            "no model. Add it to the model that it was trained for (model.merge_and_unload() of peft). Save "
            "that with save_pretrained into a folder of its own, and adopt it."
        )


def is_transformers(path: Path) -> bool:
    """Whether ``path`` is a folder whose ``config.json`` is one of Hugging Face's transformers."""
    try:
        content = json.loads((path / CONFIG).read_bytes())
    except (ValueError, OSError):
        return False
    return isinstance(content, dict) and bool({"architectures", "model_type", "auto_map"} & content.keys())


def is_nnunet(path: Path) -> bool:
    """Whether ``path`` is a folder that ``nnUNetv2_train`` wrote, one of its folds, or one of nnU-Net v1."""
    names = (path / "plans.json", path.parent / "plans.json", path / "plans.pkl")
    return path.is_dir() and any(each.is_file() for each in names)


def refuse_given(file: Path, what: str, given: Mapping[str, Any]) -> None:
    """Raise where anything is given that the files of a model say themselves.

    Raises:
        SettingError: something is.
    """
    if names := [name for name, value in given.items() if value is not None]:
        raise SettingError(
            f"{file} is of {what}, which says all of the model itself: received {', '.join(names)}. "
            "Leave them out."
        )


def agreed(what: str, given: Any, described: Any) -> Any:
    """Return what is given, or else described.

    Raises:
        SettingError: both are there and differ.
    """
    if None not in (given, described) and given != described:
        raise SettingError(
            f"The {what} is given as {given!r}, and {CONFIG} beside the weights says {described!r}. Leave it "
            "out, or move the weights away from that file."
        )
    return described if given is None else given


def checked_options(model: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return ``options`` of the architecture ``model`` as values of the types that it takes.

    Texts are read: numbers, ``true``, ``false``, ``none``, and values between commas. An activation is
    checked and left off, because logits are wanted.

    Raises:
        UnknownNameError: the architecture has no such option.
        SettingError: a value is of another type, or the activation gives no logits.
    """
    allowed, found = _parameters(model), {}
    for name, value in options.items():
        if name not in allowed:
            raise unknown_name(f"option of {model}", name, [key for key in allowed if key not in LEFT_OFF])
        value = _read(value) if isinstance(value, str) else value
        if name == "activation" and value not in LOGITS:
            raise SettingError(
                f"The activation {value!r} gives no logits and no probabilities. Allowed: "
                f"{', '.join(map(str, LOGITS))} (left off: the network's answer is taken before it)."
            )
        if name in LEFT_OFF:
            continue
        try:
            kind = _listed(allowed[name])
            known = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
        except ValidationError as error:
            raise SettingError(f"The option {name} of {model} can't be {value!r}: {fault(error)}.") from error
        found[name] = list(known) if isinstance(known, tuple) else known
    return found


def assumed(spec: ModelSpec) -> dict[str, object]:
    """Return the options that nobody gave and that no tensor shows, with the values they are taken for."""
    parameters = _signature(spec.architecture)
    return {
        name: parameters[name].default for name in SILENT if name in parameters and name not in spec.options
    }


def read_from(state: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, object]:
    """Return the options under which ``state`` fits the network of ``spec``, as far as its tensors show them.

    Those are depth, channels, attention, normalisation and the like. Guessed from names and shapes, and taken
    only where then every tensor fits; empty where it fits already, or where nothing makes it fit.
    """
    if zoo.MODELS[spec.architecture].constructor is None:
        return {}
    best, found = _distance(state, spec), dict[str, Any]()
    for _ in range(_TRIES):
        if not best:
            return found
        trials = [found | guess for guess in _guesses(state, spec, found)]
        ranked = sorted(((_distance(state, _with(spec, each)), i) for i, each in enumerate(trials)))
        if not ranked or ranked[0][0] >= best:
            return {}
        best, found = ranked[0][0], trials[ranked[0][1]]
    return found if not best else {}


def _guesses(
    state: Mapping[str, Tensor], spec: ModelSpec, found: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    allowed = _parameters(spec.architecture)
    given = {**spec.options, **found}
    read_depth = False
    for name in ("decoder.blocks.{}.conv1.0.weight", "decoder.blocks.x_0_{}.conv1.0.weight"):
        widths = [len(state[name.format(i)]) for i in range(9) if name.format(i) in state]
        read_depth |= bool(widths)
        if widths and "decoder_channels" in allowed and given.get("decoder_channels") != widths:
            yield {"encoder_depth": len(widths), "decoder_channels": widths}
    norms = any(name.startswith("decoder.") and name.endswith("running_var") for name in state)
    flags: dict[str, list[Any]] = {
        "decoder_attention_type": ["scse"] if any(".attention1." in name for name in state) else [],
        "decoder_use_norm": [] if norms else [False, "layernorm"],
        "decoder_merge_policy": ["cat"],
        "decoder_aspp_separable": [True, False],
        "encoder_depth": [] if read_depth else [3, 4, 5],
    }
    for name, values in flags.items():
        yield from ({name: value} for value in values if name in allowed and given.get(name) != value)
    # A width of the network, changed where the file's tensors differ from it.
    wanted = _shapes(_with(spec, found))
    pairs = {
        (mine, theirs)
        for name, tensor in state.items()
        if name in wanted and len(wanted[name].shape) == len(tensor.shape)
        for mine, theirs in zip(wanted[name].shape, tensor.shape, strict=True)
        if mine != theirs
    }
    signature = _signature(spec.architecture)
    for name in allowed:
        default = given.get(name, signature[name].default if name in signature else None)
        if type(default) is int and "channels" in name:
            yield from ({name: theirs} for mine, theirs in sorted(pairs) if mine == default)


def _distance(state: Mapping[str, Tensor], spec: ModelSpec) -> int:
    try:
        wanted = _shapes(spec)
    except (ModelError, SettingError):
        return 10**9
    return sum(len(names) for names in misfits(state, wanted).values())


def _with(spec: ModelSpec, options: Mapping[str, Any]) -> ModelSpec:
    return spec.model_copy(update={"options": {**spec.options, **options}})


def _shapes(spec: ModelSpec) -> dict[str, Tensor]:
    """Return the tensors of a network without their memory, where it can be built so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What is guessed may be odd; what is right is built again.
        try:
            with torch.device("meta"):
                return Segmenter.from_spec(spec).module.state_dict()
        except (ModelError, NotImplementedError, RuntimeError):
            return Segmenter.from_spec(spec).module.state_dict()


def _parameters(model: str) -> dict[str, Any]:
    """Return the types of the options of an architecture by name; ours to set are left out."""
    plain = [
        each
        for each in _signature(model).values()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    kinds = {each.name: each.annotation for each in plain if each.name not in zoo.OURS}
    return kinds | {name: type(value) for name, value in zoo.MODELS[model].fixed.items()}


def _signature(model: str) -> Mapping[str, inspect.Parameter]:
    constructor = zoo.architecture(model).constructor
    return {} if constructor is None else inspect.signature(constructor()).parameters


def _listed(kind: Any) -> Any:
    """Return ``kind`` with a list in place of any other sequence: that is what a record can hold."""
    inner = get_args(kind)
    return list[inner] if get_origin(kind) is not None and _is_sequence(get_origin(kind)) else kind  # type: ignore[valid-type]


def _is_sequence(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Iterable) and not issubclass(kind, str | Mapping)


def _read(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    if "," in text and not text.startswith(("[", "{")):
        return [_read(part.strip()) for part in text.split(",")]
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text
