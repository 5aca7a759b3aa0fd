"""The options of every command that takes ``--data``: how the data are read, and their classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

import seglens
from seglens.cli import options as o
from seglens.cli.command import check_options
from seglens.cli.given_flags import READING, flag_of, was_given
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

GROUPS = ("groups", "group_from")
"""Options that mean something of a run's own data, too."""

_options = typer.Typer(add_completion=False)


@_options.command("every")
def _options_of_every_set(
    layout: o.LayoutOption = None,
    train_dir: o.TrainDir = None,
    valid_dir: o.ValidDir = None,
    test_dir: o.TestDir = None,
    classes: o.Classes = None,
    merge: o.Merge = True,
    border: o.Border = "foreground",
    ignore: o.Ignore = None,
    masks: o.MaskKind = None,
    palette: o.PaletteFile = None,
    groups: o.GroupsFile = None,
    group_from: o.GroupFrom = None,
) -> None:
    pass


@_options.command("own")
def _options_of_a_set_to_train_on(
    multilabel: o.Multilabel = False, channels: o.Channels = 3, split_seed: o.SplitSeed = 0
) -> None:
    pass


@_options.command("other")
def _options_of_other_data(merge: o.Merge = False, class_map: ClassMap = None) -> None:
    pass


@_options.command("audited")
def _options_of_an_audit(groups: o.GroupsOrDivision = None) -> None:
    pass


def params_of(name: str) -> dict[str, Any]:
    """The options of a function above, made by Typer as it makes all others."""
    return {option.name: option for option in typer.main.get_group(_options).commands[name].params}


class _Reading(o.Command):
    """A command with options that say how a set is read; what was given of them is kept in the context."""

    reading: ClassVar[dict[str, Any]]

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        values = {name: ctx.params.pop(name) for name in self.reading}
        check_options(values)
        ctx.meta[READING] = {name: value for name, value in values.items() if was_given(ctx, name)}
        return super().invoke(ctx)


class OnSet(_Reading):
    """A command with the argument DATA; its function takes the context, and the set from `own_data`."""

    reading: ClassVar[dict[str, Any]] = params_of("every") | params_of("own")

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.extend(self.reading.values())


class OnData(_Reading):
    """A command with ``--data`` and all options that say how those are read, which stand after it.

    Its function takes the context, and gets the data from `other_data`, `open_other_split` and `class_map`.
    """

    reading: ClassVar[dict[str, Any]] = params_of("every") | params_of("other")

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        place = [parameter.name for parameter in self.params].index("data") + 1
        self.params[place:place] = self.reading.values()

    def invoke(self, ctx: Any) -> Any:
        """Run the command; without ``--data`` no option may be given but those of groups, see `GROUPS`."""
        given = [name for name in self.reading if name not in GROUPS and was_given(ctx, name)]
        if ctx.params.get("data") is None and given:
            raise SettingError(
                f"{flag_of(given[0])} says how --data are read, and there are none. Name some, or leave it "
                "out."
            )
        return super().invoke(ctx)


def own_data(context: typer.Context, data: Path) -> "DataSettings":
    """Return the settings of the set DATA, as they were given.

    Raises:
        DataError: the palette can't be read.
        SettingError: a value is not allowed.
    """
    return _settings(data, context.meta[READING])


def with_channels(context: typer.Context, settings: "DataSettings", channels: int) -> "DataSettings":
    """Return the settings of a set as a network of so many channels reads it, unless they were given."""
    if "channels" in context.meta[READING]:
        return settings
    return _settings(settings.path, context.meta[READING] | {"channels": channels})


def other_data(context: typer.Context, data: Path | None) -> "DataSettings | None":
    """Return the settings that were given of other data; None where there are none.

    Raises:
        DataError: the palette can't be read.
        SettingError: a value is not allowed.
    """
    given = {name: value for name, value in context.meta[READING].items() if name != "class_map"}
    return None if data is None else _settings(data, given)


def _settings(path: Path, given: Mapping[str, Any]) -> "DataSettings":
    """Return the settings of a set; what is not given is the settings' own default."""
    from pydantic import ValidationError

    from seglens.arguments.validated import fault
    from seglens.data.palette import read_palette

    # Only what was given: a run's own data are told from others by that nothing else is said of them.
    known = {name: value for name, value in given.items() if name != "palette"}
    if given.get("palette") is not None:
        known["palette"] = read_palette(given["palette"])
    try:
        return seglens.DataSettings(path=path, **known)
    except SettingError as error:
        if isinstance(error.__cause__, ValidationError):
            raise SettingError(f"{fault(error.__cause__, called=flag_of)}.") from error
        raise


def class_map(context: typer.Context) -> Mapping[str, str]:
    """Return which class of the data is which of the model, as given.

    Raises:
        SettingError: one is not written ``DATA=MODEL``, or a class of the data is given twice.
    """
    found: dict[str, str] = {}
    for text in context.meta[READING].get("class_map") or ():
        theirs, _, ours = text.partition("=")
        if not theirs or not ours:
            raise SettingError(
                f"--class-map {text} can't be read. Write a class of the data, = and one of the model, such "
                "as --class-map kitty=cat."
            )
        if found.setdefault(theirs, ours) != ours:
            raise SettingError(f"--class-map gives {theirs!r} two meanings, {found[theirs]!r} and {ours!r}.")
    return found


def open_other_split(
    context: typer.Context, run: "seglens.Run", name: str | None, data: Path | None
) -> "Split":
    """Open a split of the run's own data or of ``data``, read as the options say."""
    own = {each: context.meta[READING].get(each) for each in GROUPS} if data is None else {}
    return seglens.open_split(run, name, data=other_data(context, data), class_map=class_map(context), **own)
