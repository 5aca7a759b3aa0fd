"""Models of Hugging Face's transformers that segment: all that is known of them comes from their own files.

Mean, std, sizes and the order of colours are the image processor's, the classes the ``id2label`` of the
configuration. The configuration is kept in ``ModelSpec.options``, so that a run needs the folder no more.

Models that answer with queries (Mask2Former, MaskFormer, EoMT) have a class and a mask for each.
Their logits here are ``log sum_q p_q(class) sigmoid(mask_q)``, over the classes but that of no object: the
score that ``post_process_semantic_segmentation`` of transformers takes the largest of. A softmax of it is the
share of a class in the sum of all scores.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers.utils import logging

from seglens.errors import CheckpointError, ModelError, SeglensWarning

DENSE = (
    "BeitForSemanticSegmentation",
    "DPTForSemanticSegmentation",
    "Data2VecVisionForSemanticSegmentation",
    "MobileNetV2ForSemanticSegmentation",
    "MobileViTForSemanticSegmentation",
    "MobileViTV2ForSemanticSegmentation",
    "SegformerForSemanticSegmentation",
    "UperNetForSemanticSegmentation",
)
"""Those that return logits for each class."""
QUERIES = (
    "EomtForUniversalSegmentation",
    "Mask2FormerForUniversalSegmentation",
    "MaskFormerForInstanceSegmentation",
)
"""Those that return a class and a mask for each of some queries."""
MASKS = {"Mask2FormerForUniversalSegmentation": (384, 384)}
"""The size that masks of queries are brought to before they are added, in the library itself."""
PROMPTED = {
    "OneFormerForUniversalSegmentation": "the words of its task",
    "CLIPSegForImageSegmentation": "a text that says what to segment",
    "SamModel": "points or a box",
    "Sam2Model": "points or a box",
    "SamHQModel": "points or a box",
}
"""Those that segment what they are asked for, with what they need beside the picture."""
COMPUTED = ("relative_position_index", "position_ids", "num_batches_tracked")
"""How names of tensors end that follow from the configuration: older files hold them, newer ones don't."""
_MOVING = ("do_resize", "do_center_crop", "do_pad", "do_split_image", "do_thumbnail", "do_align_long_axis")
"""What a processor does that moves pixels."""
_TRIAL = 64
_SAME = 1e-4
"""How far apart numbers of a picture may be, as a share of the largest."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Described:
    """What a model and its image processor say: the arguments of `seglens.wrap` that follow from them."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    image_size: int | Sequence[int] | None
    head: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Semantic:
    """Calls a model of transformers and returns its logits ``[b, k, rows, columns]``.

    ``masks`` is the size that masks of queries are brought to before they are added; with ``flip`` the model
    takes blue before green before red.
    """

    queries: bool
    masks: tuple[int, int] | None
    flip: bool

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the logits; those of queries at the size of ``images``."""
        images = images.flip(1) if self.flip else images
        made = network(pixel_values=images)
        if not self.queries:
            logits: Tensor = made.logits
            return logits
        masks = made.masks_queries_logits
        if self.masks is not None:
            masks = interpolate(masks, self.masks, mode="bilinear", align_corners=False)
        classes = made.class_queries_logits.softmax(-1)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())
        scores = interpolate(scores, images.shape[-2:], mode="bilinear", align_corners=False)
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()


def build(options: Mapping[str, Any]) -> tuple[nn.Module, Semantic]:
    """Return the model that ``options`` of `Described` describe, with random weights, and how it is called.

    Raises:
        ModelError: this version of transformers can't build it.
    """
    name = _known(options["class"])
    try:
        kind = getattr(transformers, name)
        network: nn.Module = kind(kind.config_class.from_dict(dict(options["config"]))).eval()
    except (AttributeError, ImportError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"transformers {transformers.__version__} can't build {name}: {error}. Its configuration is of "
            f"version {options['config'].get('transformers_version')}: install that one."
        ) from error
    return network, _caller(options)


def describe(
    model: nn.Module, processor: Any, image_size: int | Sequence[int] | None = None
) -> tuple[Described, Semantic]:
    """Return what ``model`` and its ``processor`` say, and how the model is called.

    An ``image_size`` that is given stands in for that of the processor.

    Raises:
        ModelError: the model is none that is known here, or the processor does what can't be done here.
    """
    name, config = _known(type(model).__name__), getattr(model, "config", None)
    if type(model).__module__.partition(".")[0] != "transformers":
        raise ModelError(
            f"The model is a {name} of {type(model).__module__}, not of transformers: what its code changes "
            "is not known. Wrap it without processor, and with call, mean, std and classes."
        )
    images = getattr(processor, "image_processor", processor)
    if config is None or not isinstance(images, transformers.BaseImageProcessor):
        raise ModelError(
            f"The processor is {type(processor).__name__}; an image processor of transformers is wanted, "
            "which says mean, std and size: AutoImageProcessor.from_pretrained(...)."
        )
    content = {
        key: value
        for key, value in json.loads(config.to_json_string(use_diff=False)).items()
        if key not in ("_name_or_path", "auto_map")
    }
    names = _classes(config.id2label)
    one = len(names) == 1
    if one and name in QUERIES:
        raise ModelError(
            f"The model {name} has one class, {names[0]}, and none to stand against it: every pixel is of "
            "it. Allowed are two classes and more in id2label."
        )
    mean, std = _normalisation(images, int(getattr(config, "num_channels", 3)))
    _refuse_other_numbers(images, mean, std)
    _warn_of_crop(images)
    size = image_size or _size(images)
    options = {
        "class": name,
        "config": content,
        "masks": list(_masks(name, images) or ()),
        "flip": _flips(images),
        "reduce_labels": bool(getattr(images, "do_reduce_labels", False)),
    }
    found = Described(
        classes=("background", *names) if one else names,
        mean=mean,
        std=std,
        channels=len(mean),
        image_size=size,
        head="sigmoid" if one else "softmax",
        options=options,
    )
    return found, _caller(options)


def open_folder(folder: Path) -> tuple[nn.Module, Any]:
    """Return the model and the image processor in a folder that ``save_pretrained`` of transformers wrote.

    No code that the folder names is run, and nothing is fetched.

    Raises:
        CheckpointError: a file is missing, can't be read, or the weights don't fit.
        ModelError: the model is none that is known here.
    """
    content = _json(folder / "config.json")
    if "auto_map" in content:
        raise ModelError(
            f"{folder / 'config.json'} names code of its own (auto_map), which is never run here. Build the "
            "model in Python where you trust it, and give it to seglens.wrap."
        )
    architectures = content.get("architectures")
    if not architectures:
        raise CheckpointError(
            f"{folder / 'config.json'} doesn't say which model it is (architectures), as save_pretrained of "
            "a model writes. Save the model again, not its configuration alone."
        )
    name = _known(str(architectures[0]))
    if isinstance(content.get("backbone"), str) and not content.get("backbone_config"):
        raise ModelError(
            f"{folder / 'config.json'} names its backbone ({content['backbone']}) and doesn't describe it: "
            "transformers would ask the hub, and nothing is fetched here. Open it in Python and save it "
            "again with a backbone_config: model.save_pretrained(FOLDER)."
        )
    for wanted in ((PROCESSOR,), WEIGHTS):
        if not any((folder / each).is_file() for each in wanted):
            raise CheckpointError(
                f"{folder} has no {' or '.join(wanted)}. A folder of Hugging Face needs config.json, "
                f"{PROCESSOR} and {WEIGHTS[0]}: save both, model.save_pretrained(FOLDER, "
                "safe_serialization=True) and processor.save_pretrained(FOLDER)."
            )
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **local)
        with _without_bars():
            model, loaded = getattr(transformers, name).from_pretrained(
                folder,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                **local,
            )
    except Exception as error:  # The library raises errors of many kinds on what it can't read.
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"transformers can't read {folder}: {first}") from error
    _check_loaded(folder, loaded)
    return model.eval(), processor


@contextmanager
def _without_bars() -> Iterator[None]:
    """Let the block read weights without the bar and the table that transformers prints of them."""
    told, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(told)
        if shown:
            logging.enable_progress_bar()


def _check_loaded(folder: Path, loaded: Mapping[str, Any]) -> None:
    """Refuse a folder whose tensors are not all those of its model."""
    wrong = {
        what: [str(each) for each in loaded.get(key, ()) if not str(each).endswith(COMPUTED)]
        for key, what in {
            "missing_keys": "missing in the file",
            "unexpected_keys": "unknown to the model",
            "mismatched_keys": "of another shape",
        }.items()
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(names)} {what} ({names[0]}, ...)" for what, names in wrong.items() if names)
        raise CheckpointError(
            f"The weights in {folder} don't fit its config.json: {found}. Allowed is what save_pretrained of "
            "one model wrote: save it again."
        )


def _known(name: str) -> str:
    """Return the class called ``name``, which must be one that is known here."""
    if name in PROMPTED:
        raise ModelError(
            f"{name} segments what it is asked for: it needs {PROMPTED[name]} with each picture. A run "
            "has none. Fix it: seglens.wrap(model, call=lambda net, x: ...), with a call that passes it on "
            "and returns logits, and with classes, mean and std."
        )
    if name not in (*DENSE, *QUERIES):
        raise ModelError(
            f"{name} is no model of transformers that is known here. Allowed: "
            f"{', '.join((*DENSE, *QUERIES))}. "
            "Any other: seglens.wrap(model, classes=..., mean=..., std=...) without processor."
        )
    return name


def _caller(options: Mapping[str, Any]) -> Semantic:
    return Semantic(
        queries=options["class"] in QUERIES,
        masks=tuple(options["masks"]) or None,
        flip=options["flip"],
    )


def _classes(named: Mapping[Any, str]) -> tuple[str, ...]:
    """Return the names of the classes in their order, where none is left out."""
    found = {int(key): str(name) for key, name in named.items()}
    if sorted(found) != list(range(len(found))):
        raise ModelError(
            f"id2label names the classes {sorted(found)}; wanted is each from 0 on. Correct config.json."
        )
    return tuple(found[i] for i in range(len(found)))


def _normalisation(images: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of pictures in [0, 1] that do what the processor does to those of 0 to 255."""
    if getattr(images, "rescale_offset", False) or getattr(images, "offset", False):
        raise ModelError(
            f"{type(images).__name__} shifts pictures where it rescales them (rescale_offset), which is not "
            "known here. Wrap the model without processor, with mean and std."
        )
    scale = 255.0 * (images.rescale_factor if images.do_rescale else 1.0)
    normalised = getattr(images, "do_normalize", None)
    mean, std = (images.image_mean, images.image_std) if normalised else (0.0, 1.0)
    if mean is None or std is None:
        raise ModelError(
            f"{type(images).__name__} normalises (do_normalize), and its image_mean is {mean}, its image_std "
            f"{std}. Allowed is a number for each channel, or one for all. Correct it in {PROCESSOR}."
        )
    listed = [[each] if isinstance(each, int | float) else list(each) for each in (mean, std)]
    both = [each * channels if len(each) == 1 else each for each in listed]
    return tuple(float(each) / scale for each in both[0]), tuple(float(each) / scale for each in both[1])


def _refuse_other_numbers(images: Any, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise where a processor makes other numbers of a picture than ``mean``, ``std`` and `_flips` say.

    It is asked, without what moves pixels: a processor may do what no setting tells, and a version of the
    library may read settings otherwise.
    """
    shades = np.random.default_rng(0).integers(0, 256, (_TRIAL, _TRIAL, len(mean)), dtype=np.uint8)
    still = {name: False for name in _MOVING if getattr(images, name, None) is not None}
    try:
        made = torch.as_tensor(np.asarray(images([shades], return_tensors="np", **still)["pixel_values"]))
    except Exception as error:  # The library raises errors of many kinds.
        raise ModelError(
            f"{type(images).__name__} fails on a picture of {_TRIAL} x {_TRIAL} pixels with {len(mean)} "
            f"channels: {str(error).strip().partition(chr(10))[0]}. Wrap the model without processor."
        ) from error
    picture = torch.from_numpy(shades).permute(2, 0, 1) / 255
    expected = (picture - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    expected = expected.flip(0) if _flips(images) else expected
    apart = float((made[0] - expected).abs().max()) if made.shape == (1, *expected.shape) else float("nan")
    if not apart <= _SAME * float(expected.abs().max()):
        raise ModelError(
            f"{type(images).__name__} makes other numbers of a picture than its rescale_factor, image_mean, "
            f"image_std and order of colours say (up to {apart:.3g} apart, shape {tuple(made.shape)}). What "
            "else it does is not known here. Wrap the model without processor, with mean and std."
        )


def _warn_of_crop(images: Any) -> None:
    """Warn where the processor takes the middle of a picture, of which here the network sees all."""
    crops = getattr(images, "do_center_crop", None)
    if not crops and not getattr(images, "crop_pct", None):
        return
    shortest = min(_sides(images, images.size)) if images.do_resize and crops else None
    crop = _sides(images, images.crop_size if crops else images.size)
    scaled = f"scales the shortest side to {shortest} and " if shortest else ""
    warnings.warn(
        f"{type(images).__name__} {scaled}takes the middle {crop[0]} x {crop[1]} of a picture. Here the "
        f"whole picture is scaled into {crop[0]} x {crop[1]}: nothing is cut off, and things are smaller "
        "than the model's own tool shows them. Its masks and these differ.",
        SeglensWarning,
        stacklevel=2,
    )


def _flips(images: Any) -> bool:
    """Whether red and blue change places; a file may say so to a processor that knows nothing of it."""
    name = "do_flip_channel_order"
    known = hasattr(type(images), name) or name in signature(type(images).__init__).parameters
    return known and bool(getattr(images, name, False))


def _size(images: Any) -> tuple[int, int] | None:
    """Return rows and columns that the processor makes of a square picture; None where it leaves it."""
    if getattr(images, "do_center_crop", None):
        return _sides(images, images.crop_size)
    return _sides(images, images.size) if images.do_resize else None


def _sides(images: Any, size: Any) -> tuple[int, int]:
    sides = {key: value for key, value in dict(size).items() if value is not None}
    if "shortest_edge" in sides:
        return (int(sides["shortest_edge"]),) * 2
    if set(sides) != {"height", "width"}:
        raise ModelError(
            f"{type(images).__name__} makes pictures of {sides}; known here are height and width. Say which "
            "size: image_size=... in Python, --image-size on the command line."
        )
    return int(sides["height"]), int(sides["width"])


def _masks(name: str, images: Any) -> tuple[int, int] | None:
    if name == "EomtForUniversalSegmentation":
        return _sides(images, images.size)
    return MASKS.get(name)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} can't be read: {error}.") from error
    return content if isinstance(content, dict) else {}
