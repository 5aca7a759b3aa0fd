"""The command ``seglens app``: the interactive page of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import seglens
from seglens.cli import data_options
from seglens.cli import options as o
from seglens.cli.terminal import need_run, print_result, say, warn
from seglens.errors import DataError, SettingError

if TYPE_CHECKING:
    from seglens.data.layout import Split


def app_command(
    context: typer.Context,
    run: o.RunFolder = None,
    data: o.Data = None,
    split: o.SplitOrTest = None,
    epoch: o.Epoch = None,
    device: o.Device = "auto",
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen. 0.0.0.0 lets other machines in that have the token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="[default: the first free one from 7860 on]")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve the interactive page: click on a picture and see why. Ctrl-C ends it."""
    model = seglens.load(need_run(run), epoch=epoch, device=device)
    served = seglens.app(model, _pictures(context, model, data, split), host=host, port=port, show=show)
    print_result(
        {"address": served.address}, lambda: say(f"The page is at {served.address} (Ctrl-C ends it)")
    )
    served.wait()


def _pictures(
    context: typer.Context, model: "seglens.Run", data: Path | None, name: str | None
) -> "Split | None":
    """The pictures to choose from; None, and a warning, where none are known and none were asked for."""
    try:
        found = data_options.open_other_split(context, model, name, data)
    except (DataError, SettingError) as error:
        if data is not None or name is not None:
            raise
        warn(f"{error} Pictures can be dropped on the page.")
        return None
    return found if len(found) else None
