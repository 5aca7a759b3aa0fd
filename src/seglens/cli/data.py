"""The commands ``seglens data get``, ``check`` and ``show``: a set, and a look at it before training."""

from pathlib import Path
from typing import Annotated

import typer

import seglens
from seglens.cli import names, printing
from seglens.cli import options as o
from seglens.cli.data_options import OnSet, own_data, with_channels
from seglens.cli.given_flags import refuse
from seglens.cli.terminal import ask, need_path, speak_of
from seglens.errors import SettingError

app: typer.Typer = typer.Typer(
    help="Get a public set; look at a set before training on it.", rich_markup_mode=None
)


@app.command(cls=o.Command)
def get(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="oxford-pet, dsb2018 or hippocampus.",
            show_default=False,
            autocompletion=names.among(names.PUBLIC_SETS),
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="The folder to make.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URL",
            help="A mirror: the folder with the archives. Their hashes hold.",
            show_default=False,
        ),
    ] = None,
    stall_seconds: Annotated[float, typer.Option(help="Seconds without a byte that are too long.")] = 60.0,
    force: o.Force = False,
) -> None:
    """Download a public set from its official address. Called again, it goes on where it broke off."""
    name = name or ask("NAME", "Which set, oxford-pet, dsb2018 or hippocampus?")
    folder = need_path(folder, "DIR", "Into which folder?", default=name)
    from seglens.data.download import Patience

    patience = Patience(stall_seconds=stall_seconds)
    made = seglens.get_data(name, folder, source=source, force=force, patience=patience)
    printing.print_public_set(made)


@app.command(cls=o.Command)
def slices(
    volumes: Annotated[
        Path | None,
        typer.Argument(metavar="VOLUMES", help="The set of volumes, as nnU-Net has it.", show_default=False),
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="The folder to make.", show_default=False)
    ] = None,
    plane: Annotated[
        str, typer.Option(help="axial, coronal or sagittal.", autocompletion=names.among(names.PLANES))
    ] = "axial",
    empty: Annotated[
        str, typer.Option(help="keep or drop training slices on which nothing is marked.")
    ] = "keep",
    window: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="What becomes black and white; by default -1024,3071 of a CT, and the percentiles .5 and "
            "99.5 of each volume else.",
            show_default=False,
        ),
    ] = None,
    seed: o.Seed = 0,
    force: o.Force = False,
) -> None:
    """Write volumes as slices for 2-D networks. No volume is in two splits; slices.csv lists them."""
    volumes = need_path(volumes, "VOLUMES", "Which folder of volumes?")
    folder = need_path(folder, "DIR", "Into which folder?", default=f"{volumes.name}-{plane}")
    made = seglens.slice_volumes(
        volumes, folder, plane=plane, empty=empty, window=window, seed=seed, force=force
    )
    printing.print_slices(made)


@app.command("check", cls=OnSet)
def check_command(
    context: typer.Context,
    data: o.DataFolder = None,
) -> None:
    """List what is wrong with a set. Exit code 1 where it can't be used as it is."""
    data = need_path(data, "DATA", "Which folder of pictures and masks?")
    settings = own_data(context, data)
    found = seglens.check_data(settings)
    speak_of(found.dims)
    printing.print_findings(found.to_json())
    if found.num_errors:
        raise typer.Exit(1)


@app.command(cls=OnSet)
def show(
    context: typer.Context,
    data: o.DataFolder = None,
    split: o.SplitName = "train",
    num_images: Annotated[int, typer.Option(help="How many pictures.")] = 4,
    image_size: o.Sides = o.USUAL_SIZE,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Draw them as this run sees them: its input size, channels and window.",
            show_default=False,
        ),
    ] = None,
    seed: o.Seed = 0,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture to write.")] = Path("data.png"),
    force: o.Force = False,
) -> None:
    """Draw samples as the model will see them. Each comes with some of its augmented variants."""
    data = need_path(data, "DATA", "Which folder of pictures and masks?")
    settings, spec = own_data(context, data), None
    if run is not None:
        refuse(context, ("image_size",), "--run says how large its inputs are")
        model = seglens.load(run, device="cpu")
        if model.segmenter.tool is not None:
            raise SettingError(
                f"{run} prepares its pictures by the own tool of {model.spec.architecture}, which is not "
                "drawn here. Leave --run out; 'seglens explain' shows pictures as that tool brings them."
            )
        spec = model.spec
        settings = with_channels(context, settings, spec.channels)
    file = seglens.show_data(
        settings,
        out,
        split=split,
        num_images=num_images,
        image_size=o.parse_size(image_size),
        spec=spec,
        seed=seed,
        force=force,
    )
    speak_of(2)  # what was drawn is a picture
    printing.print_file("picture", file)
