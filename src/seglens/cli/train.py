"""The commands that make a run folder: ``seglens train`` and ``seglens adopt``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import seglens
from seglens.cli import names, printing
from seglens.cli import options as o
from seglens.cli.data_options import own_data
from seglens.cli.given_flags import refuse_others, was_given
from seglens.cli.terminal import need_path, speak_of


def train_command(
    context: typer.Context,
    data: o.DataFolder = None,
    run: o.NewRun = None,
    model: o.Model = "unet",
    encoder: o.Encoder = None,
    encoder_weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet, none or a file.",
            show_default="none",
            autocompletion=names.among(("imagenet", "none")),
        ),
    ] = None,
    width: o.Width = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto", help="Image size, batch size, epochs, loss and window by the data, with reasons."
        ),
    ] = False,
    image_size: o.Sides = o.USUAL_SIZE,
    patch_scale: Annotated[
        float | None,
        typer.Option(
            help="Learn from patches of --image-size, cut from pictures at this scale: pixels a pixel of the "
            "file, of volumes voxels a mm.",
            show_default="pictures are fitted whole",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Times through the train split.")] = 20,
    batch_size: Annotated[
        int, typer.Option(help="Pictures of a step.", show_default="8, fewer where an epoch has few steps")
    ] = 8,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, at its highest.")] = 1e-3,
    encoder_rate: Annotated[float, typer.Option(help="Multiplies the encoder's learning rate.")] = 1.0,
    freeze_encoder: Annotated[int, typer.Option(metavar="EPOCHS", help="Train the encoder later.")] = 0,
    folds: Annotated[
        int | None,
        typer.Option(help="Train a network for each of so many parts of the pictures: one run of all."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Find the temperature of probabilities on the valid split.")
    ] = False,
    schedule: Annotated[
        Literal["cosine", "one-cycle", "constant"], typer.Option(help="Of the learning rate.")
    ] = "cosine",
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-4,
    clip: Annotated[float, typer.Option(help="Largest norm of a gradient.")] = 1.0,
    ema: Annotated[
        float | None,
        typer.Option(help="Decay of the weights' average, 0 for none.", show_default="by the steps"),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(names.LOSSES)}.",
            show_default="..+dice",
            autocompletion=names.among(names.LOSSES),
        ),
    ] = None,
    class_weights: Annotated[
        list[float] | None, typer.Option(metavar="NUMBER...", help="One a class, the background first.")
    ] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="Class weights by how rare they are.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Of the probability.", show_default="best on the valid split")
    ] = None,
    augment: Annotated[bool, typer.Option("--aug", help="Vary the pictures at random.")] = False,
    vertical_flips: Annotated[
        bool, typer.Option("--vertical-flips", help="With --aug: upside down too, where nothing has an up.")
    ] = False,
    rotation: Annotated[
        float, typer.Option(metavar="DEGREES", help="With --aug: turned by at most; 0 where masks are boxes.")
    ] = 20.0,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better Dice.")
    ] = None,
    keep_every: Annotated[int | None, typer.Option(help="Keep the weights of every K-th epoch.")] = None,
    mean: o.Mean = None,
    std: o.Std = None,
    window: o.WindowOption = "auto",
    normalise: o.NormaliseOption = "dataset",
    precision: o.PredictPrecision = "auto",
    device: o.Device = "auto",
    devices: Annotated[int, typer.Option(help="Devices of a node that share every batch.")] = 1,
    num_nodes: Annotated[int, typer.Option(help="Nodes that take part.")] = 1,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network.")] = False,
    halve_batch: Annotated[
        bool, typer.Option("--halve-batch", help="Compute steps in parts where memory is short.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that augment.")] = None,
    loggers: Annotated[
        list[str] | None,
        typer.Option(
            "--logger",
            metavar="NAME...",
            help="tensorboard, csv, wandb, mlflow, none. [default: tensorboard]",
            autocompletion=names.among(names.LOGGERS),
        ),
    ] = None,
    seed: o.Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where it stopped; without DATA, with its own settings.")
    ] = False,
    repeat: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Take all settings of this run; only DATA and --device may differ.",
            autocompletion=names.runs,
        ),
    ] = None,
    force: o.Force = False,
) -> None:
    """Train a model on DATA into a run folder."""
    if repeat is not None:
        refuse_others(
            context, ("repeat", "data", "run", "device", "force"), "--repeat takes all else from RUN"
        )
        run = need_path(run, "--run", "Which run folder to make?", default=f"{repeat}-again")
        from seglens.train import repeat as train_again

        train_again(repeat, run, data=data, device=None if device == "auto" else device, force=force)
        return printing.print_training(run)
    if resume and data is None:
        refuse_others(
            context, ("resume", "run", "device"), "--resume without DATA takes all else from the run"
        )
        run = need_path(run, "--run", "Which run folder to go on with?")
        from seglens.train import go_on

        go_on(run, device=None if device == "auto" else device)
        return printing.print_training(run)
    data = need_path(data, "DATA", "Which folder of pictures and masks?")
    from seglens.models.zoo import architecture

    run = need_path(run, "--run", "Which run folder to make?", default=f"runs/{data.name}-{model}")
    given: dict[str, Any] = {
        "model": model,
        "auto": auto,
        "encoder": encoder,
        "encoder_weights": encoder_weights,
        "width": width,
        "image_size": o.parse_size(image_size),
        "patch_scale": patch_scale,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "encoder_rate": encoder_rate,
        "freeze_encoder": freeze_encoder,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "clip": clip,
        "ema": ema,
        "loss": loss,
        "class_weights": o.parse_numbers(class_weights),
        "balanced": balanced,
        "threshold": threshold,
        "calibrate": calibrate,
        "augment": augment,
        "vertical_flips": vertical_flips,
        "rotation": rotation,
        "patience": patience,
        "keep_every": keep_every,
        "mean": o.parse_numbers(mean),
        "std": o.parse_numbers(std),
        "window": window,
        "normalise": normalise,
        "precision": precision,
        "device": device,
        "devices": devices,
        "num_nodes": num_nodes,
        "compile": compile,
        "halve_batch": halve_batch,
        "workers": workers,
        "loggers": tuple(loggers) if loggers else None,
        "seed": seed,
    }
    # What was left out is the data's or the model's to say.
    given = {name: value for name, value in given.items() if was_given(context, name)}
    settings = seglens.TrainSettings(**given)
    speak_of(architecture(settings.model).dims)
    pictures = own_data(context, data)
    if folds is not None:
        given = {**pictures.model_dump(exclude_unset=True), "folds": folds}
        pictures = seglens.DataSettings.model_validate(given)
    seglens.train(pictures, settings, run, resume=resume, force=force)
    printing.print_training(run)


def adopt_command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .pth, .pt, .ckpt, .safetensors or .onnx file, a folder of Hugging Face, smp, nnU-Net v2 "
            "or MONAI, or hf://OWNER/NAME.",
        ),
    ],
    run: o.NewRun = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(names.MODELS[:-1])} or {names.MODELS[-1]}.",
            show_default="unet, or of config.json",
            autocompletion=names.among(names.MODELS),
        ),
    ] = None,
    encoder: o.Encoder = None,
    width: o.Width = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME...",
            help="Class names, the background first.",
            show_default="background foreground, or of id2label",
        ),
    ] = None,
    head: Annotated[
        Literal["sigmoid", "softmax", "multilabel"] | None,
        typer.Option(
            help="multilabel: a sigmoid for each class, which may overlap.", show_default="by the outputs"
        ),
    ] = None,
    mean: o.Mean = None,
    std: o.Std = None,
    normalise: o.NormaliseOption = "dataset",
    image_size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER...",
            help="Of an input: one number for all sides, or one for each.",
            show_default="256, or of preprocessor_config.json",
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Of the images.", show_default="3, or of config.json")
    ] = None,
    changed: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE...",
            help="Other arguments of the architecture, by its library's names.",
        ),
    ] = None,
    outputs_are: Annotated[
        Literal["logits", "probabilities"] | None,
        typer.Option(help="What an ONNX or TorchScript network returns.", show_default="logits"),
    ] = None,
    weights_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Which of several weights in FILE, such as model_ema.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Which of several outputs: a key or an index, such as -1."),
    ] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N...",
            help="Folds of nnU-Net, several as one model; all is fold_all, or every fold.",
            show_default="every fold",
        ),
    ] = None,
    mirroring: Annotated[
        bool | None,
        typer.Option(
            "--mirroring/--no-mirroring",
            help="Of nnU-Net: mirror volumes, and average.",
            show_default="as it was trained",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of nnU-Net: the file in each fold; of a MONAI bundle: that in models.",
            show_default="checkpoint_final.pth, model.pt",
        ),
    ] = None,
    force: o.Force = False,
) -> None:
    """Make a run folder of somebody else's checkpoint."""
    from seglens.cli.settings import pairs

    run = need_path(run, "--run", "Which run folder to make?", default=f"runs/{file.stem}")
    adopted = seglens.adopt(
        file,
        model=model,
        encoder=encoder,
        width=width,
        classes=classes,
        mean=mean,
        std=std,
        normalise=normalise,
        image_size=o.parse_size(image_size) if image_size else None,
        channels=channels,
        head=head,
        options=pairs("--set", changed or ()),
        outputs_are=outputs_are,
        output=output,
        weights_key=weights_key,
        fold=fold,
        mirroring=mirroring,
        checkpoint=checkpoint,
        out=run,
        force=force,
    )
    found = {"run": str(run), "model": adopted.spec.model_dump(), "classes": list(adopted.task.classes)}
    printing.print_adopted(run, found)
