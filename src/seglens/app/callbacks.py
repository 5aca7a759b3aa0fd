"""The callbacks of the page: each reads widgets, calls `seglens.inspection` and returns new values."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL.Image import Image as Picture

from seglens.data.layout import Split
from seglens.drawing.notebook import address
from seglens.errors import SeglensError
from seglens.explain.integrated import IntegratedGradients
from seglens.inspection import clicks, drawing, explaining, removing, sentences
from seglens.inspection.clicks import ClickedPixel
from seglens.inspection.opened import Opened, open_file, open_sample
from seglens.results.names import worded
from seglens.runs import Run

NONE = "(none)"
"""The class against which nothing is asked."""

Shown = dict[Any, Any]
"""New values by widget; the others stay as they are."""

CLICK = "Click on the picture, or choose what to ask about."


@dataclass(frozen=True)
class Widgets:
    """Everything on the page that is read or written."""

    seen: Any
    message: Any
    sample: Any
    upload: Any
    about: Any
    target: Any
    method: Any
    layer: Any
    class_name: Any
    against: Any
    where: Any
    baseline: Any
    again: Any
    picture: Any
    slice: Any
    row: Any
    column: Any
    map: Any
    evidence: Any
    told: Any
    sheet: Any
    raw: Any
    brush: Any
    imputer: Any
    removed: Any
    changed: Any

    @property
    def question(self) -> list[Any]:
        """The widgets that an explanation is requested by, in the order of `Callbacks.ask`."""
        return [
            self.seen,
            self.target,
            self.method,
            self.layer,
            self.class_name,
            self.against,
            self.where,
            self.baseline,
        ]

    @property
    def answer(self) -> list[Any]:
        """The widgets that a new explanation changes."""
        return [
            self.seen,
            self.message,
            self.target,
            self.class_name,
            self.map,
            self.evidence,
            self.told,
            self.sheet,
            self.raw,
        ]

    @property
    def place(self) -> list[Any]:
        """The sliders that move through a volume."""
        return [self.slice, self.row, self.column]

    @property
    def clicked(self) -> list[Any]:
        """The widgets that a click changes: of a volume its planes go to the voxel that was clicked."""
        return [*self.answer, self.picture, *self.place]

    @property
    def view(self) -> list[Any]:
        """The widgets that another picture changes."""
        return [*self.clicked, self.about, self.brush, self.removed, self.changed]


@dataclass(frozen=True)
class VisitorState:
    """The state of one visitor: the picture, the clicks on it, and the last explanation."""

    opened: Opened
    clicks: tuple[ClickedPixel, ...] = ()
    answer: explaining.ExplainedPicture | None = None


def showing_errors(callback: Callable[..., Shown]) -> Callable[..., Shown]:
    """Show errors that the user can mend above the picture."""

    @wraps(callback)
    def told(self: "Callbacks", *values: Any) -> Shown:
        try:
            return {self.w.message: "", **callback(self, *values)}
        except SeglensError as error:
            return {self.w.message: self._refusal(error)}

    return told


@dataclass(frozen=True)
class Callbacks:
    """The calls of one page."""

    run: Run
    pictures: Split | None
    scratch: Path
    w: Widgets

    @showing_errors
    def choose(self, index: int | None, target: str) -> Shown:
        """Open a sample."""
        if index is None or self.pictures is None:
            return {}
        return self._opened(open_sample(self.run, self.pictures, index), target)

    @showing_errors
    def drop(self, file: str | None, target: str) -> Shown:
        """Open a file."""
        return {} if file is None else self._opened(open_file(self.run, Path(file)), target)

    def click(
        self,
        seen: VisitorState | None,
        target: str,
        method: str,
        layer: str,
        class_name: str,
        against: str,
        where: str,
        baseline: str,
        event: gr.SelectData,
    ) -> Shown:
        """Ask about what is under the click."""
        return self._clicked(
            seen, target, method, layer, class_name, against, where, baseline, tuple(event.index)
        )

    @showing_errors
    def scroll(self, seen: VisitorState | None, slice: int, row: int, column: int) -> Shown:
        """Look at a volume, and at what was explained of it, in the planes through another voxel."""
        return {} if seen is None else self._moved(seen, (column, row, slice))

    @showing_errors
    def ask(self, seen: VisitorState | None, target: str, *rest: str) -> Shown:
        """Ask again, with other settings; without a picture there is nothing to ask yet."""
        return {} if seen is None else self._asked(seen, target, *rest)

    @showing_errors
    def again(self, seen: VisitorState | None, target: str, *rest: str) -> Shown:
        """Ask, or say what is missing."""
        if seen is None:
            return {self.w.message: self._hint("Open a picture first: choose a sample, or drop a file.")}
        return self._asked(seen, target, *rest)

    def fit(self, method: str) -> Shown:
        """Show the settings that a method has."""
        return {
            self.w.layer: gr.update(interactive=explaining.needs_layer(method)),
            self.w.baseline: gr.update(visible=method == IntegratedGradients.name),
        }

    def remove(self, seen: VisitorState | None, imputer: str, class_name: str, event: gr.EventData) -> Shown:
        """Remove the brushed region from the picture, and predict again."""
        return self._removed(seen, imputer, class_name, event.strokes)

    @showing_errors
    def _removed(
        self, seen: VisitorState | None, imputer: str, class_name: str, strokes: Sequence[Mapping[str, Any]]
    ) -> Shown:
        if seen is None:
            return {self.w.message: self._hint("Open a picture first: choose a sample, or drop a file.")}
        region = drawing.brushed(seen.opened, strokes)
        target = removing.target_of(self.run, seen.opened, class_name, seen.answer)
        removal = removing.remove_region(self.run, seen.opened, region, target, imputer=imputer)
        return {
            self.w.removed: drawing.removed_over(self.run, seen.opened, removal),
            self.w.changed: sentences.about_removal(removal),
        }

    @showing_errors
    def _clicked(
        self,
        seen: VisitorState | None,
        target: str,
        method: str,
        layer: str,
        class_name: str,
        against: str,
        where: str,
        baseline: str,
        at: tuple[int | float, int | float],
    ) -> Shown:
        if seen is None:
            return {}
        kind = target if target in clicks.CLICKS else "component"
        place = drawing.native_place(seen.opened, *at)
        if place is None:
            return {self.w.message: self._hint("Click inside one of the three planes.")}
        asked = clicks.class_at(kind, seen.opened, place, self.run.task) or class_name
        # What the click leaves as it was is not sent back: a choice made meanwhile would be lost.
        shown: Shown = self._moved(seen, place)
        shown |= {self.w.target: kind} if kind != target else {}
        shown |= {self.w.class_name: asked} if asked != class_name else {}
        seen = replace(shown[self.w.seen], clicks=(*seen.clicks, place)[-2:])
        try:
            answer = self._asked(seen, kind, method, layer, asked, against, where, baseline)
        except SeglensError as error:  # where a click went is shown all the same
            return shown | {self.w.message: self._refusal(error)}
        return shown | {self.w.seen: seen} | answer

    def _moved(self, seen: VisitorState, place: ClickedPixel) -> Shown:
        """Go to a voxel, if this is a volume, and draw again what is shown of it."""
        opened, answer = seen.opened, seen.answer
        if opened.planes is None:
            return {self.w.seen: seen}
        column, row, slice = place
        opened = replace(opened, planes=replace(opened.planes, centre=(slice, row, column)))
        shown: Shown = {
            self.w.seen: replace(seen, opened=opened),
            self.w.picture: drawing.predicted_over(self.run, opened),
            **dict(zip(self.w.place, (slice, row, column), strict=True)),
        }
        if answer is not None:
            drawn, evidence = self._drawn(opened, answer)
            shown |= {
                self.w.map: drawn,
                self.w.evidence: gr.update(value=evidence, visible=evidence is not None),
            }
        return shown

    def _drawn(self, opened: Opened, answer: explaining.ExplainedPicture) -> tuple[Picture, Picture | None]:
        """Draw the map, and what speaks for and against where that is known."""
        drawn = drawing.answered(self.run, opened, answer)
        both = drawing.scale_of(answer, evidence=True)
        return drawn, None if both is None else drawing.answered(self.run, opened, answer, evidence=True)

    def _opened(self, opened: Opened, target: str) -> Shown:
        """Show another picture, and take the answers about the last one away.

        A kind of target that this picture has stays chosen; a piece or a pixel of the last one doesn't.
        """
        offered = clicks.choices(opened)
        chosen: dict[str, Any] = {} if target in offered else {"value": "component"}
        shown: Shown = {}
        if opened.planes is not None:
            sides = zip(self.w.place, opened.frame.native, opened.planes.centre, strict=True)
            shown = {slider: gr.update(maximum=n - 1, value=at) for slider, n, at in sides}
        return shown | {
            self.w.seen: VisitorState(opened),
            self.w.picture: drawing.predicted_over(self.run, opened),
            self.w.about: sentences.about_picture(self.run, opened),
            self.w.target: gr.update(choices=offered, **chosen),
            self.w.brush: address(drawing.bare(self.run, opened)) if opened.planes is None else "",
            self.w.map: None,
            self.w.evidence: gr.update(value=None, visible=False),
            self.w.told: self._hint(CLICK),
            self.w.sheet: gr.update(value=None, interactive=False),
            self.w.raw: gr.update(value=None, interactive=False),
            self.w.removed: None,
            self.w.changed: "",
        }

    def _asked(
        self,
        seen: VisitorState,
        target: str,
        method: str,
        layer: str,
        class_name: str,
        against: str,
        where: str,
        baseline: str,
    ) -> Shown:
        opened = seen.opened
        text = clicks.text_of(target, opened, self.run.task.class_index(class_name), seen.clicks)
        if text is None:
            more = "Click on the opposite corner of the box." if seen.clicks else CLICK
            return {self.w.message: self._hint(more)}
        other = None if against == NONE else against
        why = explaining.ExplainRequest(text, method, layer, baseline, class_name, other, where)
        answer = explaining.explain_picture(self.run, opened, why)
        drawn, evidence = self._drawn(opened, answer)
        place = Path(tempfile.mkdtemp(dir=self.scratch))
        sheet, raw = drawing.save(self.run, opened, answer, drawn, evidence, place)
        return {
            # A box is asked about once; the next click begins another.
            self.w.seen: VisitorState(opened, () if target == "box" else seen.clicks, answer),
            self.w.map: gr.update(value=drawn, label=f"Why: {text} by {answer.explanation.name}"),
            self.w.evidence: gr.update(value=evidence, visible=evidence is not None),
            self.w.told: sentences.about_answer(answer),
            self.w.sheet: gr.update(value=str(sheet), interactive=True),
            self.w.raw: gr.update(value=str(raw), interactive=True),
        }

    def _refusal(self, error: SeglensError) -> str:
        return f'<div class="seglens-error" role="alert">{self._worded(str(error))}</div>'

    def _hint(self, text: str) -> str:
        return f'<p role="status">{self._worded(text)}</p>'

    def _worded(self, text: str) -> str:
        return escape(worded(text, self.run.spec.dims))
