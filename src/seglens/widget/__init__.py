"""Look at pictures in a notebook: prediction beside map, and buttons for piece, method, layer and opacity.

A click on the prediction asks about the piece under it. `seglens.inspection` does the work, as it does for
the interactive page; here are only its widgets.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image as pil
from PIL.Image import Image as Picture

from seglens.arguments import checked
from seglens.arguments.inputs import Pictures, as_images
from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample
from seglens.errors import SeglensError, SettingError
from seglens.explain.target_names import TARGETS
from seglens.folder.chunks import split_of
from seglens.inspection import drawing, explaining, sentences
from seglens.inspection.clicks import WITHOUT_CLICK, class_at, pieces_on_grid, under_click
from seglens.inspection.first_map import first_map
from seglens.inspection.opened import Opened, open_read, open_sample
from seglens.results.names import worded
from seglens.runs import Run
from seglens.shapes import AnyMasks

if TYPE_CHECKING:
    import ipywidgets

MOST_BUTTONS = 12
"""Pieces that have a button of their own, the largest first."""

NAMED = {"component": "piece", "truth-component": "true piece", "point": "pixel"}
"""What a click asked about, on its button."""


@dataclass
class Shown:
    """The widgets of one run and its pictures; Jupyter draws ``box``.

    Every choice is a widget, and setting its value is the same as choosing it by hand: ``widgets.piece.value
    = "component:2"``. ``opened`` is the picture that is shown, ``answer`` what was explained of it last.
    """

    run: Run
    split: Split
    box: "ipywidgets.VBox"
    picture: "ipywidgets.Dropdown"
    piece: "ipywidgets.ToggleButtons"
    method: "ipywidgets.Dropdown"
    layer: "ipywidgets.Dropdown"
    class_name: "ipywidgets.Dropdown"
    opacity: "ipywidgets.FloatSlider"
    prediction: "ipywidgets.DOMWidget"
    map: "ipywidgets.Image"
    told: "ipywidgets.HTML"
    samples: Sequence[Sample] = ()
    opened: Opened | None = None
    answer: explaining.ExplainedPicture | None = None
    _drawn: Picture | None = field(default=None, repr=False)
    _holding: bool = field(default=False, repr=False)

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        """Give Jupyter the box."""
        return self.box._repr_mimebundle_(**settings)

    def open(self) -> None:
        """Open the chosen picture, and ask about its whole prediction."""
        index = self.picture.value
        self.answer = self._drawn = None
        self.map.value = b""
        try:
            if self.samples:
                sample = self.samples[index]
                self.opened = open_read(self.run, self.split, sample, Path(sample.name))
            else:
                self.opened = open_sample(self.run, self.split, index)
        except SeglensError as error:
            self.opened, self.prediction.value = None, b""
            self._say(error)
            return
        self.offer()

    def offer(self) -> None:
        """Offer what can be asked of this picture and class: all of it, and each piece."""
        if self.opened is None:
            return
        num = int(pieces_on_grid(self.opened, self._class_index).max())
        pieces = [
            (f"{NAMED['component']} {at}", f"component:{at}") for at in range(1, min(num, MOST_BUTTONS) + 1)
        ]
        others = [name for name in WITHOUT_CLICK if name != "predicted"]
        known = [name for name in others if self.opened.has_truth or not TARGETS[name].needs_truth]
        self._offer(
            [
                ("whole prediction", "predicted"),
                *pieces,
                *((name.replace("-", " "), name) for name in known),
            ],
            "predicted",
        )

    def click(self, x: int | float, y: int | float) -> None:
        """Ask about what is drawn at column ``x`` and row ``y`` of the prediction.

        That is the predicted piece there, else the true piece that was missed, else the pixel itself. Of a
        volume the planes go there too.
        """
        if self.opened is None:
            return
        place = drawing.native_place(self.opened, x, y)
        if place is None:
            self.told.value = '<p role="status">Click inside one of the three planes.</p>'
            return
        if self.opened.planes is not None:
            column, row, number = place
            planes = replace(self.opened.planes, centre=(number, row, column))
            self.opened = replace(self.opened, planes=planes)
        with self._held():  # another class would be explained as a whole first
            self.class_name.value = (
                class_at("component", self.opened, place, self.run.task)
                or class_at("truth-component", self.opened, place, self.run.task)
                or self.class_name.value
            )
        target = under_click(self.opened, self._class_index, place)
        kind, _, numbers = target.partition(":")
        known = list(self.piece.options)
        if target not in dict(known).values():
            known.append((worded(f"{NAMED[kind]} {numbers}", self.run.spec.dims), target))
        self._offer(known, target)

    def _offer(self, options: list[tuple[str, str]], chosen: str) -> None:
        """Offer other choices, and explain the ``chosen`` one."""
        with self._held():
            self.piece.options = options
            self.piece.value = chosen
        self.explain()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Explain nothing within, though choices change."""
        before, self._holding = self._holding, True
        try:
            yield
        finally:
            self._holding = before

    def explain(self) -> None:
        """Explain what is chosen, and draw it."""
        if self._holding:
            return
        self.layer.disabled = not explaining.needs_layer(self.method.value)
        if self.opened is None or self.piece.value is None:
            return
        target = self.piece.value
        chosen = int(target.partition(":")[2]) if target.startswith("component:") else 0
        self.prediction.value = _png(
            drawing.numbered(self.run, self.opened, self._class_index, chosen=chosen)
        )
        request = explaining.ExplainRequest(
            target, self.method.value, self.layer.value, class_name=self.class_name.value
        )
        try:
            self.answer = explaining.explain_picture(self.run, self.opened, request)
        except SeglensError as error:
            self.answer, self._drawn, self.map.value = None, None, b""
            self._say(error)
            return
        self._drawn = drawing.answered(self.run, self.opened, self.answer)
        self.told.value = (
            f"{sentences.about_picture(self.run, self.opened)}{sentences.about_answer(self.answer)}"
        )
        self.blend()

    def blend(self) -> None:
        """Draw the map over the picture as strongly as chosen."""
        if self._drawn is None or self.opened is None:
            return
        below = drawing.bare(self.run, self.opened)
        if below.size != self._drawn.size:  # no map: a tile that says why
            below = self._drawn
        self.map.value = _png(pil.blend(below.convert("RGB"), self._drawn.convert("RGB"), self.opacity.value))

    @property
    def _class_index(self) -> int:
        return self.run.task.class_index(self.class_name.value)

    def _say(self, error: SeglensError) -> None:
        self.told.value = f'<p role="alert">{escape(worded(str(error), self.run.spec.dims))}</p>'


@checked
def show(
    run: Run,
    images: Pictures | Split | Sequence[str | Path] | str | Path,
    *,
    masks: AnyMasks | None = None,
    method: str | None = None,
    layer: str | None = None,
) -> Shown:
    """Show pictures in a notebook: what ``run`` predicts, and what in them speaks for it.

    ``images`` are a tensor ``[b c h w]`` in [0, 1], files, a folder, or a `seglens.Split`. ``masks`` are the
    truth of a tensor, where it is known. The map of the chosen piece is made when it is chosen. ``method``
    and ``layer`` are chosen at first; left out, they are those of `first_map`.

    Raises:
        SettingError: ipywidgets or anywidget is not installed, or there is no such picture.
        UnknownNameError: there is no such method or layer.
    """
    widgets, picture = _widgets()
    split, samples = _pictures(run, images, masks)
    layers, classes = explaining.layer_names(run), list(run.task.classes[1:])
    methods = explaining.method_names(known_data=False)
    first = first_map(run, methods, layers)
    method, layer = method or first[0], layer or first[1]
    for name, value, allowed in (("method", method, methods), ("layer", layer, layers)):
        if value not in allowed:
            raise SettingError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}.")
    shown = Shown(
        run,
        split,
        widgets.VBox(),
        widgets.Dropdown(
            options=[(entry.name, index) for index, entry in enumerate(split.entries)],
            description=worded("Picture", run.spec.dims),
        ),
        widgets.ToggleButtons(options=[("whole prediction", "predicted")], description="Ask about"),
        widgets.Dropdown(options=methods, value=method, description="Method"),
        widgets.Dropdown(options=layers, value=layer, description="Layer"),
        widgets.Dropdown(options=classes, description="Class"),
        widgets.FloatSlider(value=1.0, min=0.0, max=1.0, step=0.05, description="Map", readout_format=".0%"),
        picture("The prediction over the picture, its pieces numbered", lambda x, y: shown.click(x, y)),
        widgets.Image(format="png", width=384),
        widgets.HTML(),
        samples,
    )
    choices = [shown.picture, shown.method, shown.layer, shown.opacity]
    if len(classes) > 1:
        choices.insert(1, shown.class_name)
    captions = ("Prediction: click on a piece", "What speaks for it")
    columns = [
        widgets.VBox([widgets.Label(text), image])
        for text, image in zip(captions, (shown.prediction, shown.map), strict=True)
    ]
    wrapped = widgets.Layout(flex_flow="row wrap")
    shown.box.children = (
        widgets.HBox(choices, layout=wrapped),
        shown.piece,
        widgets.HBox(columns, layout=wrapped),
        shown.told,
    )
    for widget, call in (
        (shown.picture, shown.open),
        (shown.class_name, shown.offer),
        (shown.piece, shown.explain),
        (shown.method, shown.explain),
        (shown.layer, shown.explain),
        (shown.opacity, shown.blend),
    ):
        widget.observe(lambda change, call=call: call(), names="value")
    shown.open()
    return shown


def _pictures(run: Run, images: Any, masks: AnyMasks | None) -> tuple[Split, tuple[Sample, ...]]:
    """Return the pictures as a split; those of a tensor as samples, too, because no file holds them."""
    if isinstance(images, str | Path):
        images = [images]
    of_files = isinstance(images, Sequence) and all(isinstance(each, str | Path) for each in images)
    if isinstance(images, Split) or of_files:
        if masks is not None:
            raise SettingError(
                "masks are the truth of a tensor; files and splits bring their own. Leave them out."
            )
        return split_of(run, images), ()
    given = as_images(images, run.spec.channels, run.spec.dims).cpu()
    if masks is not None and len(masks) != len(given):
        raise SettingError(f"There are {len(given)} images and {len(masks)} masks; give one mask for each.")
    samples = tuple(
        Sample(
            f"{worded('picture', run.spec.dims)} {at}",
            image,
            None if masks is None else masks[at].cpu(),
            torch.ones(image.shape[1:], dtype=torch.bool),
        )
        for at, image in enumerate(given)
    )
    entries = tuple(Entry(each.name, Path(each.name), labelled=masks is not None) for each in samples)
    by_name = {each.name: each for each in samples}
    split = Split("images", run.task, entries, lambda entry: by_name[entry.name], run.spec.dims)
    return split, samples


def _png(drawn: Picture) -> bytes:
    written = io.BytesIO()
    drawn.save(written, format="PNG")
    return written.getvalue()


def _widgets() -> tuple[Any, Callable[[str, Callable[[float, float], None]], Any]]:
    """Import ipywidgets and the picture that can be clicked, or say how to install what they need.

    Raises:
        SettingError: it is not installed.
    """
    try:
        import ipywidgets

        from seglens.widget.clickable import clickable_picture
    except ImportError as error:
        raise SettingError(
            f"show() needs ipywidgets and anywidget; {error.name} is not installed. Install them with: "
            "pip install 'seglens[notebook]'."
        ) from error
    return ipywidgets, clickable_picture
