"""The command ``seglens verify``: do the identities that maps rest on hold on this model?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import seglens
from seglens.cli import data_options
from seglens.cli import options as o
from seglens.cli.given_flags import refuse
from seglens.cli.terminal import need_run, print_result, print_table, say, warn
from seglens.errors import DataError, SettingError, UnknownNameError
from seglens.results.names import count

if TYPE_CHECKING:
    from seglens.data.layout import Split
    from seglens.shapes import Images

SPLITS = ("test", "valid", "train", "all")
"""The splits to take pictures from: the first that the data have."""


def verify_command(
    context: typer.Context,
    run: o.RunFolder = None,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Pictures to check maps of.")
    ] = None,
    data: o.Data = None,
    split: o.SplitOrTest = None,
    num_images: Annotated[int, typer.Option(help="How many, spread evenly over the split.")] = 2,
    layers: o.Layers = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Compile a copy of the model too: a minute or more.")
    ] = False,
    epoch: o.Epoch = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
) -> None:
    """Check the identities that maps rest on, on this model. Exit code 1 where one fails."""
    if images:
        refuse(context, ("data", "split", "num_images"), "the pictures are named themselves")
    model = seglens.load(need_run(run), epoch=epoch, device=device)
    if images:
        pictures: "Images | None" = _from_files(model, images)
    else:
        pictures = _from_split(context, model, split, data, num_images)
    done = seglens.verify(model, pictures, layers=tuple(layers or o.LAYERS), seed=seed, compiled=compiled)
    print_result(done.to_json(), lambda: _show(done))
    if not done.passed:
        raise typer.Exit(1)


def _from_split(
    context: typer.Context, model: "seglens.Run", name: str | None, data: Path | None, num: int
) -> "Images | None":
    """Read ``num`` pictures; None, and a warning, where the run knows none and none were asked for."""
    from seglens.folder.chunks import choose
    from seglens.runs.data import with_tool

    try:
        split = _some_split(context, model, name, data)
    except (DataError, SettingError) as error:
        if data is not None or name is not None:
            raise
        warn(f"{error} Noise is taken instead.")
        return None
    return _placed(model, with_tool(model, choose(split, None, num)))


def _from_files(model: "seglens.Run", files: list[Path]) -> "Images":
    """Read pictures, or volumes for a model that takes such."""
    from seglens.folder.chunks import split_of

    if model.spec.dims == 2:
        return seglens.read_images(files, size=model.spec.image_size, channels=model.spec.channels)
    return _placed(model, split_of(model, files))


def _placed(model: "seglens.Run", split: "Split") -> "Images":
    """Return all pictures of a split on the input grid."""
    import torch

    from seglens.predict.original import on_one_input

    placed, _ = on_one_input([split[index] for index in range(len(split))], model.spec)
    return torch.stack([sample.image for sample in placed])


def _some_split(context: typer.Context, model: "seglens.Run", name: str | None, data: Path | None) -> "Split":
    """Open the split that is named; else the usual one, or what there is, and then say which that is."""
    try:
        return data_options.open_other_split(context, model, name, data)
    except UnknownNameError:
        if name is not None:
            raise
        for other in SPLITS:
            try:
                split = data_options.open_other_split(context, model, other, data)
            except UnknownNameError:
                continue
            warn(f"There is no split {SPLITS[0]!r}: pictures are those of {split.name!r}.")
            return split
        raise


def _show(done: "seglens.Verification") -> None:
    rows = [
        (
            check.name,
            check.outcome,
            "-" if check.value is None else f"{check.value:.1e}",
            f"{check.limit:.0e}",
            check.note,
            check.about,
        )
        for check in done.checks
    ]
    print_table(("check", "result", "value", "at most", "", "what it says"), rows)
    num = {kind: sum(check.outcome == kind for check in done.checks) for kind in ("pass", "fail")}
    rest = len(done.checks) - sum(num.values())
    for check in done.checks:
        if check.option and check.outcome == "fail":
            say(f"{check.name}: leave {check.option} off with this model, as it is by default.")
    say(
        f"{num['pass']} passed, {num['fail']} failed, {rest} not applicable; on "
        f"{count(done.num_images, 'picture')}, layers {', '.join(done.layers)}. {done.note}".rstrip()
    )
