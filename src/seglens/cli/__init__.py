"""The program ``seglens``: each command calls one function of the package and shows the result.

There is no logic here, and no heavy import outside of commands: ``import seglens`` loads nothing but itself,
and a name of it loads what it needs when a command first uses it.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

import seglens
from seglens.arguments.byte_sizes import parse_bytes
from seglens.cli import (
    compare,
    data,
    data_options,
    judge,
    names,
    page,
    printing,
    terminal,
    train,
    verify,
    weak,
)
from seglens.cli import options as o
from seglens.cli.command import CommandGroup
from seglens.cli.given_flags import refuse
from seglens.cli.terminal import keep_apart, need_path, need_run, say
from seglens.errors import SettingError
from seglens.runtime.signals import Terminated, ended_by_signals, open_streams

HELP = """Train segmentation models, show what they look at, and measure whether to believe it.

A run folder is what every later command takes. Nothing is overwritten without --force. On any command,
--debug shows the trace of an error; --json prints the result for a program, --quiet nothing but warnings and
errors. Lists are written --samples 0 3 7, or with commas, or by repeating the flag.

Exit codes: 0 done; 1 failed, or some pictures could not be done and are listed; 2 a wrong argument, or input
that can't be used; 130 stopped by Ctrl-C; 143 ended by SIGTERM.
"""

app: typer.Typer = typer.Typer(
    cls=CommandGroup, name="seglens", help=HELP, no_args_is_help=False, rich_markup_mode=None
)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line of this process, or answer a shell that completes one."""
    open_streams()
    os.environ.pop("MPLBACKEND", None)  # figures are files here; a name that matplotlib doesn't know ends it
    if "_SEGLENS_COMPLETE" in os.environ:
        app(prog_name="seglens")
    sys.exit(command(sys.argv[1:]))


def command(words: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are one line on standard error."""
    debug = "--debug" in words
    root = typer.main.get_command(app)
    arguments = [word for word in words if word != "--debug"] or ["--help"]
    try:
        with (
            ended_by_signals(),
            terminal.clean_warnings(),
            root.make_context("seglens", arguments) as context,
        ):
            root.invoke(context)
            sys.stdout.flush()
    except typer.Exit as ended:
        return ended.exit_code
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return terminal.explain_error(error, debug=debug)
    return 0


def _show_version(asked: bool) -> bool:
    if asked:
        say(f"seglens {seglens.__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("demo", cls=o.Command)
def demo_command(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write.")] = Path("demo"),
    seed: o.Seed = 0,
    force: o.Force = False,
) -> None:
    """Tell a cheating model from an honest one. The pictures are built in; it needs no network."""
    printing.print_file("report", seglens.demo(out, seed=seed, force=force))


app.command("train", cls=data_options.OnSet)(train.train_command)
app.command("adopt", cls=o.Command)(train.adopt_command)
app.command("verify", cls=data_options.OnData)(verify.verify_command)
app.command("weak", cls=data_options.OnSet)(weak.weak_command)


@app.command("evaluate", cls=data_options.OnData)
def evaluate_command(
    context: typer.Context,
    run: o.RunFolder = None,
    data: o.Data = None,
    split: o.SplitOrTest = None,
    save_images: Annotated[
        bool, typer.Option("--save-images", help="Save pictures, masks, overlays.")
    ] = False,
    batch_size: o.BatchSize = 8,
    precision: o.PredictPrecision = "auto",
    tta: o.Tta = False,
    tiles: o.Tiles = "auto",
    sizes: o.Sizes = None,
    split_touching: o.SplitTouching = False,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty", help="Do mirror images and folds disagree where errors are? 4 times the work."
        ),
    ] = False,
    export: o.Exports = None,
    epoch: o.Epoch = None,
    device: o.Device = "auto",
    devices: o.Devices = 1,
    num_nodes: o.NumNodes = 1,
    out: o.Out = None,
    force: o.Force = False,
) -> None:
    """Score a run: overlap, outlines, objects, calibration. All of it pooled over pixels and per image."""
    keep_apart(out, run=run, data=data)
    with seglens.spread(devices=devices, num_nodes=num_nodes, device=device) as share:
        run = need_run(run)
        model = seglens.load(run, epoch=epoch, device=share.device)
        pictures = data_options.open_other_split(context, model, split, data)
        found = seglens.evaluate(
            model,
            pictures,
            out=out,
            save_images=save_images,
            force=force,
            batch_size=batch_size,
            precision=precision,
            tta=tta,
            tiles=tiles,
            sizes=sizes or None,
            split_touching=split_touching,
            uncertainty=uncertainty,
            export=export or (),
            share=share,
        )
    from seglens.evaluate import folder_of

    printing.print_evaluation(found, out or folder_of(run, found.split))
    terminal.list_failed([(row.name, row.error) for row in found.failed], len(found.images))


@app.command(cls=o.Command)
def predict(
    run: o.RunFolder = None,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE...", help="Pictures of any size.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write.")] = Path("predictions"),
    precision: o.PredictPrecision = "auto",
    tta: o.Tta = False,
    tiles: o.Tiles = "auto",
    objects: Annotated[
        bool, typer.Option("--objects", help="Number objects: instances/ and objects.csv.")
    ] = False,
    split_touching: o.SplitTouching = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Maps of where mirror images and folds disagree.")
    ] = False,
    export: o.Exports = None,
    epoch: o.Epoch = None,
    device: o.Device = "auto",
    force: o.Force = False,
) -> None:
    """Write masks and overlays of pictures of any size."""
    keep_apart(out, run=run, files=images or [])
    model = seglens.load(need_run(run), epoch=epoch, device=device)
    files = images or [need_path(None, "IMAGE", "Which picture?")]
    done = seglens.predict_files(
        model,
        files,
        out=out,
        force=force,
        precision=precision,
        tta=tta,
        tiles=tiles,
        objects=objects,
        split_touching=split_touching,
        uncertainty=uncertainty,
        export=export or (),
    )
    printing.print_batch("predicted", done, {})


@app.command("export", cls=o.Command)
def export_command(
    run: o.RunFolder = None,
    format: Annotated[
        Literal["onnx", "torchscript", "safetensors"],
        typer.Option(help="What other programs read; safetensors are the weights alone."),
    ] = "onnx",
    epoch: o.Epoch = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write.", show_default="RUN.onnx, .pt, ...")
    ] = None,
    force: o.Force = False,
) -> None:
    """Write the network as one file for other programs."""
    folder = need_run(run)
    model = seglens.load(folder, epoch=epoch, device="cpu")
    endings = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}
    file = out or Path(f"{folder.resolve().name}{endings[format]}")
    printing.print_exported(seglens.export(model, file, format=format, force=force))


@app.command("push", cls=o.Command)
def push_command(
    run: o.RunFolder = None,
    repository: Annotated[
        str | None, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub.", show_default=False)
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="For everybody; private otherwise.")] = False,
) -> None:
    """Share weights, record and model card on Hugging Face's hub."""
    folder = need_run(run)
    if repository is None:
        raise SettingError("REPO is missing. Name the repository: seglens push RUN OWNER/NAME.")
    printing.print_pushed(seglens.push(folder, repository, private=not public))


@app.command("layers", cls=o.Command)
def layers_command(run: o.RunFolder = None) -> None:
    """List what can be explained: layers, roles, shapes, strides."""
    model = seglens.load(need_run(run), device="cpu")
    printing.print_layers([asdict(layer) for layer in seglens.layers(model)])


@app.command("explain", cls=data_options.OnData, epilog=o.EXPLAIN_NAMES)
def explain_command(
    context: typer.Context,
    run: o.RunFolder = None,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Pictures to explain.")
    ] = None,
    data: o.Data = None,
    split: o.SplitOrTest = None,
    samples: o.Samples = None,
    num_images: o.NumImages = None,
    methods: o.Methods = None,
    layers: o.Layers = None,
    targets: o.Targets = None,
    class_name: o.ClassName = None,
    against: o.Against = None,
    where: o.Where = "region",
    baseline: o.Baseline = None,
    steps: o.StepsOption = None,
    settings: o.MethodSettings = None,
    scale: o.ScaleText = "image",
    raw: o.Raw = "npz",
    montage: o.Montage = None,
    overlays: o.Overlays = None,
    tiles: o.Tiles = "auto",
    epoch: o.Epoch = None,
    device: o.Device = "auto",
    devices: o.Devices = 1,
    num_nodes: o.NumNodes = 1,
    seed: o.Seed = 0,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            parser=parse_bytes,
            help="What the model may take at work on top of its weights, such as 4GB or 512MiB.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take, from a few pictures; write nothing.")
    ] = False,
    out: o.Out = None,
    resume: o.ResumeMaps = False,
    force: o.Force = False,
) -> None:
    """Show what a model looks at: maps, and statistics with nulls."""
    if images:
        refuse(context, ("data", "split", *data_options.GROUPS), "the pictures are named themselves")
    if dry_run:
        refuse(context, ("out", "resume", "force"), "--dry-run writes nothing")
    if resume:
        refuse(context, ("force",), "--resume goes on with what is there, --force starts again")
    keep_apart(out, run=run, data=data, files=images or [])
    with seglens.spread(devices=devices, num_nodes=num_nodes, device=device) as share:
        model = seglens.load(need_run(run), epoch=epoch, device=share.device)
        if images:
            pictures: "seglens.Split | list[Path]" = images
        else:
            pictures = data_options.open_other_split(context, model, split, data)
            if terminal.interactive() and (split, samples, num_images) == (None, None, None):
                files, samples = terminal.ask_pictures(pictures.name, len(pictures))
                pictures = files or pictures
        if dry_run:
            if share.first:
                planned = seglens.plan_folder(
                    model,
                    pictures,
                    methods=o.methods(methods, baseline, steps, settings),
                    layers=layers or list(names.LAYERS),
                    target=targets or "predicted",
                    class_name=class_name,
                    against=against,
                    where=where,
                    scale=scale,
                    raw=raw,
                    tiles=tiles,
                    samples=samples or None,
                    num_images=num_images,
                    seed=seed,
                    memory=memory,
                )
                printing.print_plan(planned.rows())
            return
        done = seglens.explain_folder(
            model,
            pictures,
            out=out,
            methods=o.methods(methods, baseline, steps, settings),
            layers=layers or list(names.LAYERS),
            target=targets or "predicted",
            class_name=class_name,
            against=against,
            where=where,
            scale=scale,
            raw=raw,
            montage=montage,
            overlays=overlays or (),
            tiles=tiles,
            samples=samples or None,
            num_images=num_images,
            seed=seed,
            memory=memory,
            force=force,
            resume=resume,
            share=share,
        )
    printing.print_explained(done)


app.command("judge", cls=judge.OnAudited)(judge.judge_command)


app.command("app", cls=data_options.OnData)(page.app_command)


@app.command("report", cls=o.Command)
def report_command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN...", help="One run, or several.", autocompletion=names.runs),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="[default: RUN/report.html]")] = None,
    shortcut: Annotated[Path | None, typer.Option(metavar="FILE", help="A shortcut.json to include.")] = None,
    force: o.Force = False,
) -> None:
    """Write one HTML file that opens without network or server."""
    file = seglens.report(runs or [need_run(None)], out=out, shortcut=shortcut, force=force)
    printing.print_file("report", file)


app.command("compare", cls=data_options.OnData)(compare.compare_command)
