"""Runs: a model with its task and, where there is one, its folder.

A run folder is the unit that every command takes::

    run.json             a Record of kind "train" or "adopt": model, task, data, settings
    model.safetensors    the weights
    checkpoints/         last.ckpt, best.ckpt (to resume), epoch-003.safetensors (with --keep-every)
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from torch import nn

from seglens.arguments import checked
from seglens.arguments.inputs import Pictures, as_images
from seglens.axes import size_of, spelled
from seglens.data.layout import OUT_OF_FOLD
from seglens.data.sample import (
    Task,
    is_background,
    labels_of,
    refuse_background_behind,
    task_of,
    with_background,
)
from seglens.drawing.notebook import card, table
from seglens.errors import DataError, ModelError, SeglensWarning, SettingError
from seglens.files.output import new_folder
from seglens.files.overwrite import check_output
from seglens.models import adapters
from seglens.models.adapters import HUGGING_FACE, Call
from seglens.models.dimensions import candidates
from seglens.models.folding import folded
from seglens.models.outputs import Outputs, Selector, check_outputs, find_output
from seglens.models.own_normalisation import check_both, refuse_inside, refuse_own
from seglens.models.segmenter import WRAPPED, Head, ModelSpec, Normalise, Segmenter
from seglens.models.slope import warn_of_gradients
from seglens.models.trial import VOLUME, answers, first_taken, inputs_inside, refuse_unsteady
from seglens.models.weights import check_present, fit, load_weights
from seglens.models.zoo import normalisation
from seglens.predict import Prediction, infer
from seglens.predict.original import Inference, in_windows
from seglens.predict.tiles import OVERLAP, over
from seglens.results import record as records
from seglens.runs.saving import save_run as save_run
from seglens.runs.weights_file import KEPT_SHA256 as KEPT_SHA256
from seglens.runs.weights_file import WEIGHTS as WEIGHTS
from seglens.runs.weights_file import check_unchanged, weights_file
from seglens.runtime.device import choose_device, choose_precision
from seglens.shapes import Images


@dataclass(frozen=True)
class Run:
    """A ``Segmenter`` with its ``Task``; ``folder`` is None for a wrapped module.

    ``sha256`` is the hash of the file that the weights come from, None where there is none.
    """

    segmenter: Segmenter
    task: Task
    folder: Path | None = None
    sha256: str | None = None

    @property
    def spec(self) -> ModelSpec:
        """The spec of the model."""
        return self.segmenter.spec

    def predict(
        self,
        images: Pictures,
        *,
        window: int | Sequence[int] | None = None,
        overlap: float = OVERLAP,
        floor: float = 0.0,
        precision: str = "32",
        tta: bool = False,
    ) -> Prediction:
        """Return logits, probabilities and masks of ``images``, raw ones in [0, 1].

        With a ``window``, the length of its sides or one for each axis, those of any size are predicted in
        windows that overlap by this share, and their probabilities are blended; ``floor`` is the least weight
        of a pixel, see `seglens.predict.tiles.Windows`. ``precision`` and ``tta`` are as in
        `seglens.predict.infer`.

        Raises:
            SettingError: they are no raw pictures with the model's channels, see `seglens.arguments.inputs`;
                or there can be no such windows.
        """
        given = as_images(images, self.spec.channels, self.spec.dims)
        if window is None:
            return infer(self.segmenter, given, precision=precision, tta=tta)
        windows = over(size_of(given), self.spec, window, overlap, floor)
        return in_windows(self.segmenter, given, windows, precision=precision, tta=tta)

    def show(self, images: Any, **choices: Any) -> Any:
        """Show in a notebook what the model predicts and why, with buttons: `seglens.show` of this run."""
        # The widget stands on rooms above this one, which are loaded when somebody looks.
        return import_module("seglens.widget").show(self, images, **choices)

    def opened(self, images: Images) -> tuple["Run", Images]:
        """Return the run without its intensity window, and ``images`` with the window opened up.

        The two say the same as before, and black is 0 and white is 1 for the model: what adds noise, blur or
        a baseline to a picture works on the range that the model sees. Without a window nothing changes.
        """
        if self.spec.window == (0.0, 1.0):
            return self, images
        spec = self.spec.model_copy(update={"window": (0.0, 1.0)})
        bare = Segmenter(self.segmenter.module, spec, self.segmenter.select, self.segmenter.call)
        bare.origin = self.segmenter.origin
        return replace(self, segmenter=bare), self.segmenter.open_window(images)

    def save(self, folder: str | Path, *, force: bool = False) -> "Run":
        """Write a run folder that every command takes, and return the run of it.

        Raises:
            ModelError: the network can't be built again from its spec, as no wrapped module can.
            OutputExistsError: ``folder`` exists and ``force`` is not given.
        """
        if self.spec.architecture == WRAPPED:
            raise ModelError(
                f"The network is a wrapped {type(self.segmenter.module).__name__}, whose code is not stored, "
                "so that a folder of it could not be opened again. Allowed are networks of "
                "segmentation-models-pytorch and torchvision (save the state dict, then seglens.adopt with "
                "model=...) and of Hugging Face (wrap with processor=...). Else keep the lines that wrap it."
            )
        check_output(Path(folder), "adopt", force=force)
        return rebuilt(self, Path(folder), None, time.monotonic(), force=force)

    def _repr_html_(self) -> str:
        """Show in a notebook what the model is made of, what it tells apart, and where it is."""
        spec = self.spec
        encoder = f" with {spec.encoder}" if spec.encoder else ""
        weights = sum(parameter.numel() for parameter in self.segmenter.parameters())
        rows = [
            ("model", f"{spec.architecture}{encoder}"),
            ("classes", ", ".join(self.task.classes)),
            ("input", spelled((spec.channels, *spec.sides))),
            ("head", spec.head),
            ("weights", f"{weights:,}"),
            ("device", str(self.segmenter.device)),
            ("folder", str(self.folder) if self.folder is not None else "none"),
        ]
        return card("Run", table(("", ""), rows))


def fold_folder(folder: Path, fold: int) -> Path:
    """Return the run folder of one fold in that of all."""
    return folder / OUT_OF_FOLD / str(fold)


def prepared(run: Run, how: Inference) -> Run:
    """Return ``run`` as it predicts fastest in this way; in float32, or by a tool, it is left as it is.

    Raises:
        SettingError: there is no such precision.
    """
    if choose_precision(how.precision, run.segmenter.device) == "32" or run.segmenter.tool is not None:
        return run
    return replace(run, segmenter=folded(run.segmenter))


@checked
def load(folder: str | Path, *, epoch: int | None = None, device: str = "auto") -> Run:
    """Open a run folder: the final weights, or those that ``--keep-every`` kept of ``epoch``.

    Thresholds and temperature are those that were found for the final weights.

    Raises:
        DataError: ``folder`` is no run folder, or one of another kind.
        CheckpointError: it holds no such weights, they are not those that its record names, or don't fit.
    """
    folder = Path(folder)
    record, of_model, of_task = records.read_run_record(folder)
    file = weights_file(folder, record, epoch)
    try:
        spec, task = ModelSpec.model_validate(of_model.stored()), Task.model_validate(of_task.stored())
    except SettingError as error:
        raise DataError(f"{folder / records.FILE_NAME} describes no model: {error}") from error
    sha256 = check_unchanged(file, record, epoch)
    segmenter = Segmenter.from_spec(spec)
    load_weights(segmenter.module, file)
    return Run(segmenter.eval().to(choose_device(device)), task, folder, sha256)


@checked
def wrap(
    module: nn.Module,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalise: Normalise = "dataset",
    window: tuple[float, float] = (0.0, 1.0),
    channels: int = 3,
    dims: Literal[2, 3] | None = None,
    image_size: int | Sequence[int] | None = None,
    head: Head | None = None,
    divisor: int = 1,
    spacing: Sequence[float] = (),
    outputs_are: Outputs | None = None,
    output: str | int | Selector | None = None,
    call: Call | None = None,
    processor: Any = None,
) -> Run:
    """Make a run of any module that segments images; the module itself is left as found.

    A network for volumes (3 ``dims``) is told from its layers and by trying it; ``dims`` says so where that
    leaves a doubt. ``spacing`` says how many millimetres a voxel of its inputs has along each axis, where
    they differ: see `ModelSpec`. What works for volumes so far: ``docs/volumes.md``.

    It is tried on noise images of ``image_size`` (one length for all sides or one for each axis; 256, of
    volumes 64, where it is left out), and must give one answer to one picture. A ``head`` left out is told by
    the outputs: one channel is a sigmoid, several are a softmax. ``mean`` and ``std`` left out are
    ImageNet's, with a warning; ``normalise`` and ``window`` are as in `ModelSpec`. ``outputs_are`` left out
    means logits, and outputs that look like probabilities are then refused. ``output`` says which of several
    outputs is the answer: a key or an index (``"out"``, ``-1``, ``"heads.0"``), or a function that takes what
    the module returned and gives the logits; left out it must be clear, see `seglens.models.outputs`, and the
    spec says which it was. ``call`` says how the network is called where ``module(images)`` is not
    enough: a function of the module and the normalised images, ``lambda net, x: net(x, task=0)``.

    Of a model of Hugging Face's transformers ``processor``, its image processor, says mean, std, size and the
    order of colours, and the model's ``id2label`` the classes; what is given here comes before that. Such a
    run can be saved, see `Run.save`.

    A ``multilabel`` head has an output for each label and none for the background, which is put in front of
    ``classes`` where it isn't named.

    Raises:
        ModelError: it is no module, can't take such an image, or its outputs don't suit ``classes``; or of
            mean and std only one is given, or none where the module normalises pictures itself.
        SettingError: the arguments contradict one another.
    """
    check_present(module)
    default_mean, default_std = normalisation(None, None, channels)
    described = dict[str, Any]()
    if processor is not None:
        if call is not None or output is not None:
            raise SettingError(
                "The processor says how the model is called and which output is its answer: received call or "
                "output, too. Leave them out, or leave the processor out and give classes, mean and std."
            )
        found, call = adapters.library(HUGGING_FACE).describe(module, processor, image_size)
        classes = found.classes if classes is None else classes
        channels, head = found.channels, head or found.head
        default_mean, default_std = found.mean, found.std
        image_size, outputs_are = found.image_size, outputs_are or "logits"
        dims, described = 2, {"architecture": HUGGING_FACE, "options": found.options}
    if classes is None:
        raise SettingError(
            "classes is left out: allowed are the names of the classes, the background first, such as "
            "classes=('background', 'cell'). Only a processor of Hugging Face makes them known."
        )
    if processor is None and mean is None and std is None and normalise == "dataset":
        refuse_own(module, channels)
    size = image_size if image_size is None or isinstance(image_size, int) else tuple(image_size)
    axes = dims or len(spacing) or (len(size) if isinstance(size, tuple) else 0)
    possible = (axes,) if axes else candidates(module)
    spec = ModelSpec(
        architecture=described.get("architecture", WRAPPED),
        options=described.get("options", {}),
        channels=channels,
        classes=max(2, len(classes)),
        dims=possible[0],
        spacing=tuple(spacing),
        head=head or "softmax",
        image_size=size if isinstance(size, tuple) else size or 256,
        mean=tuple(mean or default_mean),
        std=tuple(std or default_std),
        normalise=normalise,
        window=window,
        divisor=divisor,
        outputs_are=outputs_are or "logits",
        output=None if callable(output) else output,
    )
    if processor is None:
        check_both(mean, std, (default_mean, default_std))
    select = output if callable(output) else None
    specs = [
        spec.model_copy(
            update={"dims": number, "image_size": spec.image_size if size or number == 2 else VOLUME}
        )
        for number in possible
    ]
    trial, first = first_taken(Segmenter(module, spec, select, call), specs)
    spec = trial.spec
    allowed = {spec.outputs} if head or len(classes) > 2 else {1, 2}
    if head == "multilabel":
        allowed = {len(labels_of(classes))}
    raw = answers(trial, first, allowed)
    if processor is None and normalise == "dataset":
        given = None if mean is None and std is None else (spec.mean, spec.std)
        refuse_inside(module, inputs_inside(trial), given)
    if head == "multilabel":
        classes = with_background(classes, raw.shape[1])
        spec = ModelSpec(**{**spec.model_dump(exclude={"thresholds"}), "classes": len(classes)})
    refuse_background_behind(classes, raw.shape[1])
    task = task_of(classes, multilabel=head == "multilabel", what="The classes")
    if head is None and raw.shape[1] == 1:
        spec = spec.model_copy(update={"head": "sigmoid"})
    if select is None:
        spec = spec.model_copy(
            update={"output": find_output(first, allowed, 1, spec.output, spec.dims).place or None}
        )
    segmenter = Segmenter(module, spec, select, call)
    check_outputs(raw, outputs_are, exclusive=spec.head == "softmax")
    refuse_unsteady(trial, raw[:1], allowed)
    warn_of_gradients(segmenter)
    if head is None and spec.head == "softmax" and not is_background(task.classes[0]):
        raise ModelError(
            f"The network has an output channel for each of {', '.join(task.classes)}, and the first is not "
            "called a background. The outputs don't show whether a pixel has one class or several. Say "
            "which: head='softmax' (one class; the first stands for the background) or head='multilabel' (a "
            "sigmoid for each, and none for the background)."
        )
    if processor is None and mean is None and std is None and normalise == "dataset":
        warnings.warn(
            f"mean and std are left out. Pictures are normalised with {spec.mean} and {spec.std}, of "
            "ImageNet. Give those that the network was trained with.",
            SeglensWarning,
            stacklevel=3,
        )
    return Run(segmenter, task)


def rebuilt(run: Run, out: Path, file: Path | None, began: float, *, force: bool) -> Run:
    """Write a run folder ``out`` of ``run``, built again from its spec, and return that."""
    segmenter = Segmenter.from_spec(run.spec)
    fit(segmenter.module, {name: each.cpu() for name, each in run.segmenter.module.state_dict().items()})
    segmenter.origin = run.segmenter.origin
    settings = {
        "file": file and file.name,
        "file_sha256": file
        and records.sha256([file] if file.is_file() else sorted(file.glob("*.safetensors"))),
        "weights_key": None,
    }
    first = run.task.classes[0]
    assumed = {} if is_background(first) else {"background": first}
    results: dict[str, Any] = {"read_from_tensors": {}, "assumed": assumed}
    with new_folder(out, command="adopt", force=force) as folder:
        record = records.finish(records.start("adopt", settings=settings, results=results), began)
        record = save_run(folder, segmenter.eval(), run.task, record)
    return Run(segmenter, run.task, out, record.model_sha256)
