"""The command ``seglens weak``: from image-level labels to a model and the comparison table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import seglens
from seglens.cli import options as o
from seglens.cli.data_options import own_data
from seglens.cli.printing import formatted_number, record_of
from seglens.cli.terminal import need_path, print_result, print_table, say
from seglens.errors import DataError, SettingError

if TYPE_CHECKING:
    from seglens.weak.settings import PseudoSettings

QuestionOption = Annotated[
    str,
    typer.Option(
        metavar="imagenet:CLASSES|labels",
        help="Which classifier finds the object. imagenet:CLASSES is an ImageNet classifier with the classes "
        "of the object: imagenet:pets, or numbers such as imagenet:151-268. labels trains one on --labels.",
    ),
]
LabelsOption = Annotated[
    str,
    typer.Option(
        metavar="all|folders|masks|FILE",
        help="Which pictures show the object. all; folders: those in object/, not those in none/; masks: "
        "those whose mask is not empty (this uses masks); or a CSV file with the columns image,label.",
    ),
]


def weak_command(
    context: typer.Context,
    data: o.DataFolder = None,
    run: o.NewRun = None,
    question: QuestionOption = "imagenet:pets",
    labels: LabelsOption = "all",
    classifier: Annotated[
        str, typer.Option(help="The classifier: an encoder of timm.")
    ] = "tf_efficientnet_lite0",
    classifier_weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of the classifier: imagenet or a file.",
            show_default="the encoder's, if it is the same; else imagenet",
        ),
    ] = None,
    stages: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON file with settings of the stages, written as in run.json."),
    ] = None,
    pseudo: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pseudo-masks that another run has made of the same data."),
    ] = None,
    pseudo_seed: Annotated[
        int | None,
        typer.Option(help="Seed of the pseudo-masks.", show_default="that of --seed"),
    ] = None,
    student: o.Model = "deeplabv3",
    encoder: o.Encoder = None,
    encoder_weights: Annotated[
        str | None,
        typer.Option(help="Weights of the student: imagenet, none or a file.", show_default="none"),
    ] = None,
    width: o.Width = None,
    image_size: o.ImageSize = 256,
    epochs: Annotated[int, typer.Option(help="Epochs of every student.")] = 10,
    batch_size: o.BatchSize = 8,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate of AdamW.")] = 1e-3,
    augment: Annotated[bool, typer.Option("--aug/--no-aug", help="Vary the pictures at random.")] = True,
    rounds: Annotated[int, typer.Option(help="Rounds of self-training at most.")] = 2,
    stop_at: Annotated[
        float, typer.Option(help="Stop when two students in a row agree this well (mIoU of their masks).")
    ] = 0.95,
    refine: Annotated[
        str,
        typer.Option(
            help="How a student's masks are refined for the next one: none, superpixels, mean-field, pamr "
            "or guided."
        ),
    ] = "none",
    samples: o.Samples = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Read the masks at the end to compare with them.")
    ] = True,
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Add rows whose threshold was chosen with masks. They are marked."),
    ] = False,
    supervised: Annotated[
        bool, typer.Option("--supervised", help="Add the same student, trained with masks. It is marked.")
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, 32 or bf16.")] = "auto",
    device: o.Device = "auto",
    seed: o.Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    force: o.Force = False,
) -> None:
    """Learn to segment from image-level labels, without masks."""
    from seglens.weak.classifier import ClassifierSettings
    from seglens.weak.self_training import TeacherSettings

    data = need_path(data, "DATA", "Which folder of pictures?")
    run = need_path(run, "--run", "Which run folder to make?", default=f"runs/{data.name}-weak")
    kind, positive = _question(question)
    same = encoder == classifier and encoder_weights != "none"
    weights = classifier_weights or (encoder_weights if same else None) or "imagenet"
    asked: dict[str, Any] = {"encoder": classifier, "weights": weights}
    if positive:
        asked["positive"] = positive
    recipe = seglens.TrainSettings(
        model=student,
        encoder=encoder,
        encoder_weights=encoder_weights,
        width=width,
        image_size=image_size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augment=augment,
        precision=precision,
        device=device,
        seed=seed,
        loggers=("none",),
    )
    settings = seglens.WeakSettings(
        labels=labels,
        question=kind,
        classifier=ClassifierSettings(encoder=classifier, weights=weights),
        pseudo=_stages(stages, asked),
        pseudo_folder=pseudo,
        pseudo_seed=pseudo_seed,
        student=recipe,
        rounds=rounds,
        stop_at=stop_at,
        teacher=TeacherSettings(refine=refine),
        samples=tuple(samples) if samples else None,
        evaluate=evaluate,
        oracle=oracle,
        supervised=supervised,
    )
    pictures = own_data(context, data)
    seglens.weak(pictures, settings, run, resume=resume, force=force)
    found = record_of(run).results
    print_result({"run": str(run), **found}, lambda: _show(run, found))


def _show(run: Path, found: Mapping[str, Any]) -> None:
    """Print the comparison, and what was read of masks."""
    columns = ("row", "pictures", "mIoU", "object IoU", "per picture", "no border", "uses masks")
    rows = [
        (
            row["name"],
            f"{row['pictures']} {row['split']}",
            formatted_number(row["miou"]),
            formatted_number(row["fg_iou"]),
            formatted_number(row["fg_iou_per_image"]["mean"]),
            formatted_number(row["fg_iou_no_border"]),
            "yes" if row["uses_masks"] else "",
        )
        for row in found["rows"]
    ]
    if rows:
        print_table(columns, rows)
    else:
        say("No mask was read, so there is no comparison.")
    uses = [str(use["purpose"]) for use in found["mask_uses"]]
    others = "; ".join(purpose for purpose in uses if not purpose.startswith("final")) or "never"
    say(
        f"{run}: {found['student']} after {found['rounds']} rounds. Masks were read {len(uses)} times; other "
        f"than for the final evaluation: {others}. "
        f"Try: seglens judge {run}"
    )


def _question(text: str) -> tuple[Literal["imagenet", "labels"], tuple[str, ...]]:
    """Return who is asked, and the classes that mean "yes"."""
    kind, _, positive = text.partition(":")
    if text == "labels":
        return "labels", ()
    if kind != "imagenet" or not positive:
        raise SettingError(
            f"--question {text} is not known. Allowed are 'labels', and 'imagenet:CLASSES', such as "
            "imagenet:pets or imagenet:151-268,281-285."
        )
    return "imagenet", tuple(part.strip() for part in positive.split(",") if part.strip())


def _stages(file: Path | None, asked: Mapping[str, Any]) -> "PseudoSettings":
    """Return the settings of the stages in ``file``; what it lacks of the question is that of the flags."""
    from seglens.weak.settings import from_plain

    if file is None:
        return from_plain({"question": asked})
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"--stages {file} can't be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise DataError(
            f"--stages {file} holds {type(values).__name__}. It must hold a JSON object with settings."
        )
    question = values.get("question", {})
    if not isinstance(question, dict):
        raise DataError(
            f"--stages {file}: question is {question!r:.40}. It must be a JSON object with settings."
        )
    try:
        return from_plain({**values, "question": {**asked, **question}})
    except SettingError as error:
        raise SettingError(f"--stages {file}: {error}") from error
