"""A run's network as one file that other programs run, its normalisation and thresholds inside.

What is written is read back and run beside the run itself: a file that says something else is not kept.
"""

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seglens.arguments import checked
from seglens.axes import spelled
from seglens.data.sample import Task
from seglens.errors import CheckpointError, ModelError, SettingError, unknown_name
from seglens.files.output import output_file
from seglens.files.overwrite import check_file
from seglens.models.adapters import network_files
from seglens.models.checkpoint import read_metadata
from seglens.models.segmenter import WRAPPED, ModelSpec, Segmenter
from seglens.models.weights import load_weights, save_weights
from seglens.predict import infer
from seglens.runs import Run
from seglens.shapes import AnyMasks, Images, Probabilities

NUM_TRIED = 3
"""Pictures of noise on which a file is compared with its run: a batch of two, and one alone."""

TOLERANCE = 1e-4
"""How far a probability may be off: programs add in another order."""

DESCRIBED = "seglens"
"""The key in the metadata of a safetensors file of what describes its model."""

Answer = tuple[Probabilities, AnyMasks]


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how near it comes to the run on pictures of noise.

    ``inputs`` and ``outputs`` say what it takes and gives. ``largest_difference`` is that of probabilities;
    ``num_other`` are the pixels of a mask that came out otherwise, of ``num_pixels``.
    """

    file: Path
    format: str
    inputs: str
    outputs: str
    largest_difference: float
    num_other: int
    num_pixels: int


class WholeModel(nn.Module):
    """From pictures in [0, 1], not normalised, to the probability of every class and the mask."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Images) -> tuple[Float[Tensor, "b classes *size"], Int[Tensor, "b *any"]]:
        """Return probabilities, the background first, and class indices (of labels that overlap 0 and 1)."""
        logits = self.segmenter(images)
        return self.segmenter.probabilities(logits), self.segmenter.mask(logits).long()


@checked
def export(run: Run, out: str | Path, *, format: str | None = None, force: bool = False) -> Exported:
    """Write the network of ``run`` to the file ``out``, and see that the file gives what the run gives.

    ``format`` is one of `FORMATS`, by default what the name of ``out`` ends in. Programs take pictures
    ``Float[b c *spec.sides]`` in [0, 1], any number at a time, and give
    ``probabilities Float[b classes *size]`` and ``mask Int[b *size]``. A ``safetensors`` file holds the
    weights alone; its metadata say in JSON what `ModelSpec` and `Task` do: architecture, mean, std, window,
    thresholds and the names of the classes.

    Raises:
        UnknownNameError: there is no such format.
        ModelError: the network can't be written so, or the file gives other answers; nothing is kept then.
        OutputExistsError: ``out`` exists and ``force`` is not given.
    """
    out = Path(out)
    endings = {each.suffix: name for name, each in FORMATS.items()}
    name = format or endings.get(out.suffix.lower())
    if name not in FORMATS:
        raise unknown_name("format", name or out.name, FORMATS)
    check_file(out, force=force, runs=[run.folder] if run.folder else [])
    segmenter = copy.deepcopy(run.segmenter).cpu().float().eval()
    model, spec = WholeModel(segmenter), segmenter.spec
    size = (spec.channels, *spec.sides)
    images = torch.rand(NUM_TRIED, *size, generator=torch.Generator().manual_seed(0))
    chosen = FORMATS[name]
    with output_file(out, force=force) as temporary:
        try:
            chosen.write(model, images[:2], run.task, temporary)
        except Exception as error:  # What the exporters raise at what they can't express is of many kinds.
            if isinstance(error, OSError | MemoryError):
                raise
            cause: BaseException = error  # the exporter's own error is about its steps
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = str(cause).strip().partition("\n")[0].rstrip(".")
            others = ", ".join(other for other in FORMATS if other != name)
            raise ModelError(
                f"The network can't be written as {name}: {reason or type(cause).__name__}. Other formats "
                f"are {others}."
            ) from error
        found = chosen.read(temporary, images)
        expected = infer(segmenter, images)
        far = float((found[0] - expected.probabilities).abs().max())
        other = int((found[1].long() != expected.mask.long()).sum())
        if not far <= TOLERANCE:
            raise ModelError(
                f"The {name} file gives other answers than the run: a probability is off by {far:.3g}, "
                f"allowed is {TOLERANCE:g}. Nothing was kept. Other formats are "
                f"{', '.join(each for each in FORMATS if each != name)}."
            )
    gives = f"probabilities (batch, {spelled((spec.classes, *size[1:]))}), mask (batch, {spelled(size[1:])})"
    return Exported(
        out, name, f"pictures in [0, 1] (batch, {spelled(size)})", gives, far, other, expected.mask.numel()
    )


@dataclass(frozen=True)
class ModelFormat:
    """How a model is written to a file with this suffix, and what the file answers to pictures."""

    suffix: str
    write: Callable[[WholeModel, Images, Task, Path], None]
    read: Callable[[Path, Images], Answer]


def _write_onnx(model: WholeModel, images: Images, task: Task, file: Path) -> None:
    try:
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401  (reads it back)
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelError(
            f"ONNX needs {error.name}, which is not installed. Install the extra: pip install "
            "'seglens[export]'."
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own parts
        torch.onnx.export(
            model,
            (images,),
            str(file),
            input_names=["images"],
            output_names=["probabilities", "mask"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _write_torchscript(model: WholeModel, images: Images, task: Task, file: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of what a trace keeps as it is: sizes, which are fixed here
        torch.jit.save(torch.jit.trace(model, images, check_trace=False), str(file))


def _run_file(kind: str, file: Path, images: Images) -> Answer:
    run = network_files.KINDS[kind](file.read_bytes(), torch.device("cpu"))
    with torch.no_grad():
        parts = [run(images[:2]), run(images[2:])]
    answers = [tuple(part.values()) if isinstance(part, Mapping) else part for part in parts]
    probabilities, mask = (torch.cat(each) for each in zip(*answers, strict=True))
    return probabilities, mask


def _write_safetensors(model: WholeModel, images: Images, task: Task, file: Path) -> None:
    if model.segmenter.spec.architecture == WRAPPED:
        raise ModelError("the weights of a wrapped module are of no use without its code")
    spec = model.segmenter.spec.model_dump(mode="json")
    described = {DESCRIBED: json.dumps({"model": spec, "task": task.model_dump(mode="json")})}
    save_weights(model.segmenter.module, file, described)


def read_exported(file: Path) -> Run | None:
    """Return the model of a safetensors file with all that its metadata say; None of files of others.

    Raises:
        CheckpointError: the file is damaged, or its tensors don't fit its metadata.
    """
    if file.suffix.lower() != ".safetensors" or not file.is_file():
        return None
    described = read_metadata(file).get(DESCRIBED)
    if described is None:
        return None
    try:
        content = json.loads(described)
        spec, task = ModelSpec.model_validate(content["model"]), Task.model_validate(content["task"])
    except (ValueError, KeyError, TypeError, SettingError) as error:
        raise CheckpointError(
            f"{file} has metadata of Seglens that describe no model: {error}. Export the run again."
        ) from error
    segmenter = Segmenter.from_spec(spec)
    load_weights(segmenter.module, file)
    return Run(segmenter.eval(), task)


def _run_safetensors(file: Path, images: Images) -> Answer:
    run = read_exported(file)
    assert run is not None
    found = infer(run.segmenter, images)
    return found.probabilities, found.mask


FORMATS: dict[str, ModelFormat] = {
    "onnx": ModelFormat(".onnx", _write_onnx, partial(_run_file, "ONNX")),
    "torchscript": ModelFormat(".pt", _write_torchscript, partial(_run_file, "TorchScript")),
    "safetensors": ModelFormat(".safetensors", _write_safetensors, _run_safetensors),
}
"""Formats of an exported model. To add one: two functions, one line."""
