"""A MONAI bundle as a run.

::

    seglens adopt BUNDLE --run runs/theirs

Classes are those of ``metadata.json`` (``channel_def``) where none are named.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from seglens.data.sample import task_of, with_background
from seglens.errors import ModelError, SettingError
from seglens.files.output import new_folder
from seglens.models import adapters
from seglens.models.adapters import MONAI_BUNDLE
from seglens.models.outputs import Choice, check_finite, find_output
from seglens.models.segmenter import Head, ModelSpec, Segmenter
from seglens.models.trial import first_taken
from seglens.models.weights import choose_state, fit
from seglens.results import record as records
from seglens.runs import Run
from seglens.runs.saving import save_run

USUAL = {2: 256, 3: 64}
"""Pixels along each side of a picture (or volume) to look at layers with, where the bundle says none."""


def is_bundle(folder: Path) -> bool:
    """Whether a folder is that of a MONAI bundle."""
    return any((folder / "configs" / f"inference.{end}").is_file() for end in ("json", "yaml", "yml"))


def adopt_bundle(
    folder: Path,
    classes: Sequence[str] | None,
    output: Choice,
    checkpoint: str | None,
    weights_key: str | None,
    out: Path,
    began: float,
    *,
    force: bool,
) -> Run:
    """Make a run folder ``out`` of a MONAI bundle.

    ``checkpoint`` is the name of the file in ``models``, ``output`` says which of several outputs (deep
    supervision) is the answer.

    Raises:
        CheckpointError: a file is missing, damaged, or would need to run code, or doesn't fit.
        ModelError: the bundle asks for what is not known here, or MONAI is not installed.
    """
    library = adapters.library(MONAI_BUNDLE)
    bundle = library.read_bundle(folder)
    file, dicts = library.read_weights(folder, checkpoint)
    network, _ = library.build(bundle.options)
    key, state = choose_state(network, dicts, weights_key, file)
    fit(network, state)
    dims, channels = _axes(bundle.options["network"], network)
    spec = ModelSpec(
        architecture=MONAI_BUNDLE,
        channels=channels,
        dims=dims,
        head="softmax",
        output=output,
        image_size=_size(bundle, dims),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    segmenter, names, head, threshold = _tried(network, spec, bundle, classes, library)
    low, high = library.ends_of(bundle.options["preprocessing"], dims)
    multilabel = head == "multilabel"
    task = task_of(
        with_background(names, len(names)) if multilabel else names,
        multilabel=multilabel,
        what="The channels in metadata.json" if classes is None else "The classes",
    )
    outputs = {"sigmoid": 1, "softmax": len(names), "multilabel": len(names)}[head]
    known = {"dims": dims, "channels": channels, "head": head, "threshold": threshold, "outputs": outputs}
    tried = segmenter.spec
    spec = ModelSpec(
        **tried.model_dump(exclude={"thresholds", "head", "classes", "mean", "std", "threshold", "options"}),
        classes=len(task.classes),
        head=head,
        threshold=threshold,
        thresholds=(threshold,) * outputs if multilabel else (),
        mean=((0.0 - low) / (high - low),) * channels,
        std=(1 / (high - low),) * channels,
        options={**bundle.options, **known, "output": tried.output},
    )
    segmenter = Segmenter(network, spec).eval()
    check_finite(segmenter.try_out(spec.image_size))
    segmenter.origin = folder.name
    assert segmenter.tool is not None  # an error of its parts comes now, not with the first picture
    settings = {
        "file": f"{folder.name}/models/{file.name}",
        "file_sha256": records.sha256([file]),
        "weights_key": key or None,
    }
    results: dict[str, Any] = {"read_from_tensors": {}, "assumed": {}}
    with new_folder(out, command="adopt", force=force) as made:
        record = records.finish(records.start("adopt", settings=settings, results=results), began)
        record = save_run(made, segmenter, task, record)
    return Run(segmenter, task, out, record.model_sha256)


def _axes(given: dict[str, Any], network: nn.Module) -> tuple[int, int]:
    """Return the axes and channels of the pictures that a network takes, by its first convolution."""
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Conv3d)), None)
    if first is None:
        raise ModelError(f"The bundle's network {given} has no convolution of pictures or volumes.")
    return len(first.kernel_size), int(given.get("in_channels", first.in_channels))


def _size(bundle: Any, dims: int) -> int:
    """Return the side of a square (or cube) to look at layers with."""
    roi = bundle.options["inferer"].get("roi_size")
    sides = roi if isinstance(roi, list) else [roi]
    known = [side for side in sides if isinstance(side, int) and side > 0] or list(bundle.shape or ())
    return max(known) if known else USUAL[dims]


def _tried(
    network: nn.Module, spec: ModelSpec, bundle: Any, classes: Sequence[str] | None, library: Any
) -> tuple[Segmenter, tuple[str, ...], Head, float]:
    """Return the network with the output that answers, the classes, the head and its threshold.

    A network that takes no cube of the longest side of a window gets the window itself, or a smaller cube.
    """
    names = tuple(classes) if classes is not None else bundle.names
    if names is None:
        raise SettingError(
            "The bundle's metadata.json doesn't name its channels (network_data_format, outputs, "
            "channel_def). Name the classes, the background first: --classes background liver."
        )
    roi = bundle.options["inferer"].get("roi_size")
    sides = sorted({side for side in roi if side and side > 0}) if isinstance(roi, list) else []
    whole = len(sides) > 1 and len(roi) == spec.dims and all(side and side > 0 for side in roi)
    window = [tuple(roi)] if whole else []
    sizes = dict.fromkeys((spec.image_size, *window, *sides))
    specs = (spec.model_copy(update={"image_size": size}) for size in sizes)
    segmenter, returned = first_taken(Segmenter(network, spec), specs)
    found = find_output(returned, {len(names), max(1, len(names) - 1)}, 1, spec.output, spec.dims)
    number = found.tensor.shape[1]
    head, threshold = library.kind_of_answer(bundle.options["postprocessing"], number)
    if head == "sigmoid" and len(names) == 1:
        names = ("background", *names)
    if head == "softmax" and number != len(names):
        raise SettingError(
            f"The bundle's network has {number} outputs of a softmax, and {len(names)} classes are named "
            f"({', '.join(names)}). Name one for each: --classes."
        )
    labels = names[1:] if head == "multilabel" and len(names) > number else names
    final = segmenter.spec.model_copy(update={"output": found.place or None})
    return Segmenter(network, final), labels, head, threshold
