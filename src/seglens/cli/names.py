"""Names for help and completion, kept here because both must answer before anything heavy is loaded.

The registries say what is allowed; a test holds these lists to them. Those that grow are read from the source
of their registry, because to import it takes seconds.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from seglens.results import names


def keys_of(module: str, registry: str) -> tuple[str, ...]:
    """Return the keys of a dictionary that a file of the package writes out, without running the file.

    ``module`` is the file's path below the package, ``registry`` the name of the dictionary in it.
    """
    source = (Path(__file__).parents[1] / module).read_text(encoding="utf-8")
    for line in ast.parse(source).body:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == registry:
            assert isinstance(line.value, ast.Dict)
            return tuple(ast.literal_eval(key) for key in line.value.keys if key is not None)
    raise LookupError(f"{module} has no dictionary {registry}")


MODELS = keys_of("models/zoo.py", "MODELS")
ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "efficientnet-b0",
    "efficientnet-b3",
    "efficientnet-b5",
    "mobilenet_v2",
    "timm-efficientnet-b0",
    "tf_efficientnet_lite0",
    "densenet121",
    "vgg16_bn",
    "mit_b0",
)
"""Some of the hundreds that segmentation-models-pytorch and timm have."""
CAMS = keys_of("explain/cams.py", "CAMS")
GRADIENTS = (
    "saliency",
    "input-x-gradient",
    "smoothgrad",
    "integrated-gradients",
    "expected-gradients",
    "lrp",
)
PERTURBATIONS = (
    "score-cam",
    "ablation-cam",
    "occlusion",
    "superpixel-occlusion",
    "rise",
    "shapley",
    "extremal-mask",
    "fused-hires-cam",
)
METHODS = (*CAMS, *GRADIENTS, *PERTURBATIONS)
ROLES = names.ROLES
LAYERS = ("encoder_last", "decoder_last")
"""The layers that are explained where none is named."""
TARGETS = (
    "predicted",
    "truth",
    "false-positive",
    "false-negative",
    "class",
    "component",
    "truth-component",
    "missed",
    "invented",
    "boundary",
    "box",
    "point",
)
BASELINES = ("zero", "random", "blur", "mean")
SCORES = names.CARD_SCORES
REGIONS = ("border", "corners", "marks", "clipped")
LOSSES = ("bce+dice", "bce", "ce+dice", "ce", "dice", "focal", "tversky", "lovasz")
LOGGERS = ("tensorboard", "csv", "wandb", "mlflow", "none")
LAYOUTS = ("nnunet", "msd", "volumes", "oxford-pet", "coco", "labelme", "pairs", "nuclei")
BORDERS = ("foreground", "background", "ignore", "class")
PUBLIC_SETS = ("oxford-pet", "hippocampus", "dsb2018")
PLANES = ("sagittal", "coronal", "axial")
SPLITS = ("train", "valid", "test", "all")
TILES = ("auto", "always", "never")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "32", "bf16")
RAW = ("npz", "safetensors")
EXPORTS = keys_of("exports/__init__.py", "FORMATS")

ELSEWHERE = {
    "--lr": "--learning-rate",
    "--bs": "--batch-size",
    "--batch": "--batch-size",
    "--num-epochs": "--epochs",
    "--n-epochs": "--epochs",
    "--max-epochs": "--epochs",
    "--gpu": "--device",
    "--gpu-id": "--device",
    "--gpus": "--devices",
    "--backbone": "--encoder",
    "--arch": "--model",
    "--architecture": "--model",
    "--img-size": "--image-size",
    "--input-size": "--image-size",
    "--size": "--image-size",
    "--augment": "--aug",
    "--augmentation": "--aug",
    "--pretrained": "--encoder-weights",
    "--weights": "--encoder-weights",
    "--target-layer": "--layers",
    "--target-layers": "--layers",
    "--cam": "--methods",
    "--cam-method": "--methods",
    "--output": "--out",
    "--output-dir": "--out",
    "--save-dir": "--out",
    "--results-dir": "--out",
    "--overwrite": "--force",
    "--dataset": "--data",
    "--data-dir": "--data",
    "--chunk": "--batch-size",
    "--flips": "--tta",
    "--indices": "--samples",
    "--sample-ids": "--samples",
    "--n-steps": "--steps",
    "--num-steps": "--steps",
    "--num-workers": "--workers",
    "--verbose": "--debug",
    "--silent": "--quiet",
}
"""The names of flags in other tools, and ours: a hint where a flag is unknown."""


RENAMED = {"--num-samples": "--num-images"}
"""Flags by names that they had before, and by those of today: both work, the old ones with a warning."""


def among(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a completion that offers ``names``."""

    def complete(incomplete: str) -> list[str]:
        done, comma, last = incomplete.rpartition(",")
        return [f"{done}{comma}{name}" for name in names if name.startswith(last)]

    return complete


def runs(incomplete: str) -> list[str]:
    """Return the run folders up to two levels below the folder that is being typed, as they are typed."""
    start = incomplete.rpartition("/")[0]
    folder = Path(start or ("/" if incomplete.startswith("/") else "."))
    files = [file for pattern in ("*/run.json", "*/*/run.json") for file in folder.glob(pattern)]
    return sorted(str(file.parent) for file in files if str(file.parent).startswith(incomplete))


def misspelt_flag(error: Exception) -> str:
    """Return a hint for an unknown flag: its name here, or the commands that have it; or an empty text."""
    flag, context = getattr(error, "option_name", ""), getattr(error, "ctx", None)
    if not flag or context is None or not hasattr(error, "possibilities"):
        return ""
    flag = flag.partition("=")[0]
    ours = ELSEWHERE.get(flag.replace("_", "-").lower())
    if ours in _flags(context.command, context):
        return f"No such option: {flag}. Here it is called {ours}."
    near = sorted(name for name in error.possibilities or () if name.startswith("--"))
    spelled = flag.replace("_", "-").lower()
    same = [name for name in near if name in (spelled, f"{spelled}s", spelled.removesuffix("s"))]
    having = [
        name for name, command in _commands(context.find_root().command) if flag in _flags(command, context)
    ]
    if having and not same:
        return f"No such option: {flag}. It is one of {', '.join(having)}."
    return f"No such option: {flag}. Did you mean {' or '.join(same or near)}?" if near else ""


def _flags(command: Any, context: Any) -> list[str]:
    found = command.get_params(context)
    return [flag for option in found for flag in (*option.opts, *option.secondary_opts)]


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command
