"""The options that commands share. `Command` is the class of every command, see `seglens.cli.command`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import seglens
from seglens.cli import names
from seglens.cli.command import Command
from seglens.cli.names import LAYERS, among
from seglens.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from seglens.explain.methods import Method

__all__ = ["LAYERS", "Command"]

EXPLAIN_NAMES = f"""Methods: {", ".join(names.CAMS)}; {", ".join(names.GRADIENTS)};
{", ".join(names.PERTURBATIONS)}; all.

Layers, by role: {", ".join(names.ROLES)}; all; or a module path of 'seglens layers'.

Targets: predicted, truth, false-positive (why did it invent this), false-negative (why did it miss this),
class, component:N, truth-component:N, missed:N and invented:N (objects without a match, the largest is 1;
missed:all asks about each), boundary, box:X0,Y0,X1,Y1, point:X,Y (pixels of the picture).
"""
"""The methods, layers and targets, shown below the help of ``explain``."""

RunFolder = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="A run folder.", show_default=False, autocompletion=names.runs),
]
DataFolder = Annotated[
    Path | None, typer.Argument(metavar="DATA", help="A folder of pictures and masks.", show_default=False)
]
NewRun = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="The run folder to make.", show_default=False)
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA", help="Pictures and masks, if not those of the training.", show_default=False
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        help=f"How DATA is laid out: {', '.join(names.LAYOUTS)}. Recognised if left out.",
        show_default=False,
        autocompletion=among(names.LAYOUTS),
    ),
]
TrainDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder in DATA of the train split.", show_default=False)
]
ValidDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder in DATA of the valid split.", show_default=False)
]
TestDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder in DATA of the test split.", show_default=False)
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME...",
        help="coco: categories to keep, by name or id. pairs: what the mask's values 0, 1, 2 ... are called.",
        show_default=False,
    ),
]
Merge = Annotated[
    bool, typer.Option("--merge/--no-merge", help="coco: make one foreground of all categories.")
]
Multilabel = Annotated[bool, typer.Option("--multilabel", help="coco, pairs: classes may overlap.")]
Border = Annotated[
    str,
    typer.Option(
        help="oxford-pet: border as foreground, background, ignore or class.",
        autocompletion=among(names.BORDERS),
    ),
]
Ignore = Annotated[
    int | None,
    typer.Option(help="pairs: value in the masks that counts for nothing, such as 255.", show_default=False),
]
MaskKind = Annotated[
    str | None,
    typer.Option(
        "--masks",
        help="pairs: what values above 0 are: foreground, classes or instances.",
        show_default="foreground, where there is one",
        autocompletion=among(("foreground", "classes", "instances")),
    ),
]
PaletteFile = Annotated[
    Path | None,
    typer.Option(
        "--palette",
        metavar="FILE",
        help="pairs: colours of the masks: lines 'name r g b', labelmap.txt or JSON.",
        show_default=False,
    ),
]
GroupsFile = Annotated[
    Path | None,
    typer.Option(
        "--groups",
        metavar="FILE",
        help="Table of pictures that belong together: columns image, group.",
        show_default=False,
    ),
]
GroupsOrDivision = Annotated[
    Path | None,
    typer.Option(
        "--groups",
        metavar="FILE",
        help="Table of pictures that belong together: columns image, group. With --audit also what divides "
        "it: folder, or FILE.csv:COLUMN.",
        show_default=False,
    ),
]
GroupFrom = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help=r"Pictures belong together by what (...) finds in their file names: '^(patient\d+)_'.",
        show_default=False,
    ),
]
Channels = Annotated[int, typer.Option(help="Colour channels of the pictures.")]
SplitSeed = Annotated[int, typer.Option(help="Seed of the splits, where DATA has none.")]
SplitName = Annotated[
    str, typer.Option("--split", help="train, valid, test or all.", autocompletion=among(names.SPLITS))
]
SplitOrTest = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="train, valid, test or all.",
        show_default="test; all of DATA without splits",
        autocompletion=among(names.SPLITS),
    ),
]
Epoch = Annotated[
    int | None, typer.Option(help="Take the weights that --keep-every kept.", show_default=False)
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", autocompletion=among(names.DEVICES))
]
Devices = Annotated[int, typer.Option(help="Devices that share the work, on each node.")]
NumNodes = Annotated[int, typer.Option(help="Nodes that share the work.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
BatchSize = Annotated[int, typer.Option(help="Pictures at a time.")]
PredictPrecision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="auto, 32, or bf16: faster where the hardware has it.",
        autocompletion=among(names.PRECISIONS),
    ),
]
Tta = Annotated[bool, typer.Option("--tta", help="Average over mirror images: 4 times the work.")]
Tiles = Annotated[
    str,
    typer.Option(
        help="auto, always or never: windows for large pictures.", autocompletion=among(names.TILES)
    ),
]
Sizes = Annotated[
    list[float] | None,
    typer.Option(
        metavar="NUMBER...",
        help="Bounds of objects' sizes, in pixels, of volumes in cubic mm. [default: terciles]",
        show_default=False,
    ),
]
SplitTouching = Annotated[
    bool, typer.Option("--split-touching", help="Cut predicted objects that touch apart (watershed).")
]
Model = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(names.MODELS[:-1])} or {names.MODELS[-1]}.", autocompletion=among(names.MODELS)
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="An encoder of segmentation-models-pytorch or timm.",
        show_default=False,
        autocompletion=among(names.ENCODERS),
    ),
]
Width = Annotated[int | None, typer.Option(help="unet: channels of the first level.", show_default=False)]
Mean = Annotated[
    list[float] | None, typer.Option(metavar="NUMBER...", help="Channel means.", show_default=False)
]
Std = Annotated[
    list[float] | None, typer.Option(metavar="NUMBER...", help="Channel deviations.", show_default=False)
]
WindowOption = Annotated[
    str,
    typer.Option(
        metavar="RANGE",
        help="Intensities that are mapped to [0, 1]: auto (what the train split uses), full, or LOW,HIGH.",
        autocompletion=among(("auto", "full")),
    ),
]
NormaliseOption = Annotated[
    Literal["dataset", "image"],
    typer.Option(help="By mean and std of the data, or of each picture itself (z-score)."),
]
Samples = Annotated[
    list[int] | None, typer.Option(metavar="NUMBER...", help="Which pictures, from 0.", show_default=False)
]
NumImages = Annotated[
    int | None, typer.Option(help="How many, spread evenly over the split.", show_default=False)
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME...",
        help="grad-cam, hires-cam, integrated-gradients ...; 'seglens explain --help' names them, and all is "
        "every one. [default: grad-cam]",
        show_default=False,
        autocompletion=among((*names.METHODS, "all")),
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME...",
        help="Roles or module paths, see 'seglens layers'; explain: all is every role. "
        "[default: encoder_last decoder_last]",
        show_default=False,
        autocompletion=among((*names.ROLES, "all")),
    ),
]
TargetText = Annotated[
    str,
    typer.Option(
        "--target",
        help="predicted, truth, component:N, point:X,Y, false-positive ...",
        autocompletion=among(names.TARGETS),
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME...",
        help="predicted, truth, false-negative, component:N ... [default: predicted]",
        show_default=False,
        autocompletion=among(names.TARGETS),
    ),
]
Against = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Another class: why --class and not this one.", show_default=False),
]
Where = Annotated[
    str,
    typer.Option(
        help="region, or context: report only what lies outside of the target.",
        autocompletion=among(("region", "context")),
    ),
]
MethodSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="METHOD.SETTING=VALUE...",
        help="Settings of methods, as integrated-gradients.steps=64.",
        show_default=False,
    ),
]
ScaleText = Annotated[
    str,
    typer.Option(
        "--scale",
        help="Limits of colours: image, dataset or fixed:LOW,HIGH.",
        autocompletion=among(("image", "dataset", "fixed:")),
    ),
]
Raw = Annotated[
    str, typer.Option(help="Format of the raw maps: npz or safetensors.", autocompletion=among(names.RAW))
]
Exports = Annotated[
    list[str] | None,
    typer.Option(
        "--export",
        metavar="FORMAT...",
        help="Objects for other programs: coco (FiftyOne, CVAT), geojson (QuPath), tiff (napari, Fiji).",
        autocompletion=among(names.EXPORTS),
        show_default=False,
    ),
]
Montage = Annotated[
    str | None,
    typer.Option(
        "--montage",
        metavar="PLANE",
        help="Volumes: slices side by side, axial, coronal or sagittal.",
        autocompletion=among(("axial", "coronal", "sagittal")),
        show_default=False,
    ),
]
Overlays = Annotated[
    list[str] | None,
    typer.Option(
        "--overlays",
        metavar="KIND...",
        help="More ways to lay maps over pictures: heat, contour, masked.",
        autocompletion=among(("heat", "contour", "masked")),
        show_default=False,
    ),
]
ResumeMaps = Annotated[bool, typer.Option("--resume", help="Go on where it was interrupted.")]
ClassName = Annotated[
    str | None,
    typer.Option("--class", metavar="NAME", help="The class that is asked about.", show_default=False),
]
Baseline = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME...",
        help="Integrated Gradients: zero, random, blur, mean. [default: zero]",
        show_default=False,
        autocompletion=among(names.BASELINES),
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(help="Integrated Gradients: steps of the path. [default: 32]", show_default=False),
]
ImageSize = Annotated[int, typer.Option(help="Side of the square that pictures are fitted into.")]
_SIDES = (
    "What pictures are fitted into: one number for all sides, or rows and columns (of volumes slices, rows, "
    "columns)."
)
Sides = Annotated[list[int], typer.Option("--image-size", metavar="NUMBER...", help=_SIDES)]
USUAL_SIZE = [256]


def methods(
    names: Sequence[str] | None,
    baselines: Sequence[str] | None,
    steps: int | None,
    settings: Sequence[str] | None = None,
) -> "list[Method]":
    """Return methods with their settings; each baseline makes one more of Integrated Gradients.

    ``settings`` are of any method, each written ``METHOD.SETTING=VALUE``, see `seglens.cli.settings`.

    Raises:
        SettingError: a setting is given for a method that is not asked for, or can't be read.
        UnknownNameError: there is no such baseline, method or setting.
    """
    asked = list(names or ("grad-cam",))
    if "all" in asked:
        from seglens.explain.methods import METHODS

        asked = list(METHODS)
    changed: dict[str, Any] = {}
    if settings:
        from seglens.cli.settings import changed_methods

        changed = changed_methods(settings, asked)
    named = "integrated-gradients" in asked
    if not named and (baselines or steps is not None):
        given = "--baseline" if baselines else "--steps"
        raise SettingError(
            f"{given} is a setting of integrated-gradients, which is not among {', '.join(asked)}. "
            "Add it to --methods or leave the setting out."
        )
    if not (baselines or steps is not None):
        return [changed.get(name, name) for name in asked]
    from dataclasses import replace

    from seglens.explain.baselines import BASELINES

    for name in baselines or ():
        if name not in BASELINES:
            raise unknown_name("baseline", name, BASELINES)
    path: dict[str, Any] = {} if steps is None else {"steps": steps, "max_steps": max(steps, 256)}
    first = changed.get("integrated-gradients", seglens.IntegratedGradients())
    paths = [replace(first, baseline=name, **path) for name in baselines or (first.baseline,)]
    return [
        method
        for name in asked
        for method in (paths if name == "integrated-gradients" else [changed.get(name, name)])
    ]


def parse_size(given: Sequence[int]) -> int | tuple[int, ...]:
    """Return one length for all sides, or one for each."""
    return given[0] if len(given) == 1 else tuple(given)


def parse_numbers(given: Sequence[float] | None) -> tuple[float, ...] | None:
    """Return the values of a list option as a tuple; None where it was left out."""
    return tuple(given) if given else None
