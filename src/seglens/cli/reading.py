"""The options of every command that takes ``--data``: how other data are read, and what their classes are."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import seglens
from seglens.cli import options as o
from seglens.cli.given import flag_of, was_given
from seglens.errors import SettingError

if TYPE_CHECKING:
    from seglens.data.layout import DataSettings, Split

ClassMap = Annotated[
    list[str] | None,
    typer.Option(
        "--class-map",
        metavar="DATA=MODEL...",
        help="Which class of DATA is which of the model's, where they are not called the same.",
        show_default=False,
    ),
]

_options = typer.Typer(add_completion=False)


@_options.command()
def _options_of_other_data(
    layout: o.Layout = None,
    train_dir: o.TrainDir = None,
    valid_dir: o.ValidDir = None,
    test_dir: o.TestDir = None,
    classes: o.Classes = None,
    merge: o.Merge = False,
    border: o.Border = "foreground",
    ignore: o.Ignore = None,
    masks: o.MaskKind = None,
    palette: o.PaletteFile = None,
    class_map: ClassMap = None,
) -> None:
    pass


READING = typer.main.get_command(_options).params
"""How a set is read; what is not given is as the run's own data were read."""

_GIVEN = "seglens.reading"
"""Where a context keeps what was given of them."""


class OnData(o.Verb):
    """A command with ``--data`` and all options that say how those are read, which stand after it.

    Its function takes the context, and gets the data from `other_data`, `open_split` and `class_map`.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        place = [parameter.name for parameter in self.params].index("data") + 1
        self.params[place:place] = READING

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what was given of the options is kept in the context."""
        values = {option.name: ctx.params.pop(option.name) for option in READING}
        ctx.meta[_GIVEN] = {name: value for name, value in values.items() if was_given(ctx, name)}
        if ctx.params.get("data") is None and ctx.meta[_GIVEN]:
            flag = flag_of(next(iter(ctx.meta[_GIVEN])))
            raise SettingError(
                f"{flag} says how --data are read, and there are none. Name some, or leave it out."
            )
        return super().invoke(ctx)


def other_data(context: typer.Context, data: Path | None) -> "DataSettings | None":
    """Return the settings that were given of other data; None where there are none.

    Raises:
        DataError: the palette can't be read.
        SettingError: a value is not allowed.
    """
    given = {name: value for name, value in context.meta[_GIVEN].items() if name != "class_map"}
    if given.get("palette") is not None:
        from seglens.data.palette import read_palette

        given["palette"] = read_palette(given["palette"])
    return None if data is None else o.checked_settings(path=data, **given)


def class_map(context: typer.Context) -> Mapping[str, str]:
    """Return which class of the data is which of the model, as given.

    Raises:
        SettingError: one is not written ``DATA=MODEL``, or a class of the data is given twice.
    """
    found: dict[str, str] = {}
    for text in context.meta[_GIVEN].get("class_map") or ():
        theirs, _, ours = text.partition("=")
        if not theirs or not ours:
            raise SettingError(
                f"--class-map {text} can't be read. Write a class of the data, = and one of the model, such "
                "as --class-map kitty=cat."
            )
        if found.setdefault(theirs, ours) != ours:
            raise SettingError(f"--class-map gives {theirs!r} two meanings, {found[theirs]!r} and {ours!r}.")
    return found


def open_split(context: typer.Context, run: "seglens.Run", name: str | None, data: Path | None) -> "Split":
    """Open a split of the run's own data or of ``data``, read as the options say."""
    return seglens.open_split(run, name, data=other_data(context, data), class_map=class_map(context))
