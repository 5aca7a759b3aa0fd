"""The widgets of the page, each connected to its callback."""

from pathlib import Path
from typing import Any

import gradio as gr

from seglens.app.callbacks import NONE, Callbacks, Widgets
from seglens.data.images import IMAGE_SUFFIXES
from seglens.data.layout import Split
from seglens.data.volumes import SUFFIXES
from seglens.explain.baselines import BASELINES
from seglens.explain.explanation import WHERE
from seglens.impute import IMPUTERS
from seglens.inspection import clicks, explaining
from seglens.inspection.first_map import first_map
from seglens.results.names import worded
from seglens.runs import Run

OPENING = ("PNG, JPEG, TIFF", IMAGE_SUFFIXES), ("NIfTI, MetaImage, NRRD", (*SUFFIXES, ".gz"))
"""What can be dropped, in words and as endings: pictures, and volumes."""

INTRODUCTION = """# Seglens: {name}

Open a {what}, then **click on it**: the map shows what speaks for the piece, or the pixel, under the click.
{then} Nothing leaves this machine."""

THEN = (
    "Brush something out to see whether the model needs it.",
    "It is drawn in three planes; a click or the sliders move through them.",
)

BRUSHING = (
    "Draw over what the model may be using, then remove it. The target stays that of the last question."
)


def lay_out(run: Run, pictures: Split | None, scratch: Path) -> gr.Blocks:
    """Return the page; ``scratch`` is where files for download are written."""
    name = run.folder.name if run.folder is not None else "a wrapped model"
    with gr.Blocks(
        title=f"Seglens: {name}", analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True
    ) as blocks:
        widgets = _widgets(run, pictures, name)
        callbacks = Callbacks(run, pictures, scratch, widgets)
        _connect(widgets, callbacks)
        if pictures is not None and len(pictures):
            blocks.load(callbacks.choose, [widgets.sample, widgets.target], widgets.view, **_opening(widgets))
    return blocks


def _widgets(run: Run, pictures: Split | None, name: str) -> Widgets:
    found: dict[str, Any] = {"seen": gr.State(None)}
    what = ("picture", "volume")[run.spec.dims - 2]
    gr.Markdown(
        worded(INTRODUCTION, run.spec.dims).format(name=name, what=what, then=THEN[run.spec.dims - 2])
    )
    with gr.Row(elem_id="halves"):
        with gr.Column(scale=2, min_width=280):
            found |= _source(run, pictures) | _question(run, pictures is not None)
        with gr.Column(scale=6, min_width=280):
            # Beside the pictures, where whoever clicks is looking.
            found["message"] = gr.HTML("", elem_id="message")
            with gr.Tab("Click on it", elem_id="clicking"), gr.Row():
                with gr.Column(min_width=280):
                    found["picture"] = _image("picture", "Prediction (click on it)")
                    found |= {name: _slider(name, run.spec.dims == 3) for name in ("slice", "row", "column")}
                    found["about"] = gr.HTML(elem_id="about", elem_classes="seglens-said")
                with gr.Column(min_width=280):
                    found |= _answer()
            with gr.Tab("Brush it out", visible=run.spec.dims == 2, elem_id="brushing"):
                gr.Markdown(BRUSHING)
                with gr.Row():
                    with gr.Column(min_width=280):
                        found |= _brush()
                    with gr.Column(min_width=280):
                        found["removed"] = _image("removed", "Prediction without it")
                        found["changed"] = gr.HTML(elem_id="changed", elem_classes="seglens-said")
    return Widgets(**found)


def _slider(name: str, visible: bool) -> Any:
    """A slider that moves one of the planes of a volume."""
    return gr.Slider(0, 1, 0, step=1, precision=0, label=name.capitalize(), visible=visible, elem_id=name)


def _source(run: Run, pictures: Split | None) -> dict[str, Any]:
    names = [] if pictures is None else [entry.name for entry in pictures.entries]
    label = "Sample" if pictures is None else f"Sample of {pictures.name!r}"
    what, endings = OPENING[run.spec.dims - 2]
    drop = f"{'Or drop' if names else 'Drop'} a {'picture' if run.spec.dims == 2 else 'volume'}: {what}"
    return {
        "sample": gr.Dropdown(
            [(text, index) for index, text in enumerate(names)],
            value=0 if names else None,
            label=label,
            visible=bool(names),
            elem_id="sample",
        ),
        "upload": gr.File(
            label=drop,
            file_types=list(endings),
            height=140,
            elem_id="upload",
        ),
    }


def _question(run: Run, known_data: bool) -> dict[str, Any]:
    layers, classes = explaining.layer_names(run), list(run.task.classes)
    methods = explaining.method_names(known_data)
    method, layer = first_map(run, methods, layers)
    found: dict[str, Any] = {
        "target": gr.Dropdown(
            clicks.choices(None),
            value="component",
            label="Ask about",
            info="Click for component, truth-component, point, box (two clicks); or write point:120,84",
            allow_custom_value=True,
            elem_id="target",
        )
    }
    with gr.Row():
        found["method"] = gr.Dropdown(
            methods,
            value=method,
            label="Method",
            min_width=170,
            elem_id="method",
        )
        found["layer"] = gr.Dropdown(layers, value=layer, label="Layer", min_width=170, elem_id="layer")
    found["baseline"] = gr.Radio(
        list(BASELINES), value="zero", label="Baseline", visible=False, elem_id="baseline"
    )
    found["where"] = gr.Radio(
        list(WHERE),
        value="region",
        label="What counts",
        info="context: what lies outside of the target",
        elem_id="where",
    )
    several = len(classes) > 2
    asked = classes[1:] if run.task.multilabel else classes  # nothing speaks for having no label
    with gr.Row(visible=several):
        found["class_name"] = gr.Dropdown(
            asked, value=classes[1], label="Class", min_width=170, elem_id="class"
        )
        found["against"] = gr.Dropdown(
            [NONE, *asked], value=NONE, label="Against", min_width=170, elem_id="against"
        )
    return {**found, "again": gr.Button("Explain", variant="primary", elem_id="again")}


def _answer() -> dict[str, Any]:
    found: dict[str, Any] = {
        "map": _image("map", "Why"),
        "told": gr.HTML(elem_id="told", elem_classes="seglens-said"),
        "evidence": _image("evidence", "For (red) and against (blue)", visible=False),
    }
    with gr.Row():
        found["sheet"] = gr.DownloadButton("Sheet (PNG)", interactive=False, min_width=130, elem_id="sheet")
        found["raw"] = gr.DownloadButton("Raw map (npz)", interactive=False, min_width=130, elem_id="raw")
    return found


def _brush() -> dict[str, Any]:
    return {
        "brush": gr.HTML(
            html_template=_beside("brush.html"),
            css_template=_beside("brush.css"),
            js_on_load=_beside("brush.js"),
            elem_id="brush",
        ),
        "imputer": gr.Radio(
            list(IMPUTERS),
            value="noisy-linear",
            label="Fill with",
            info="noisy-linear: from the pixels around, as the judges do",
            elem_id="imputer",
        ),
    }


def _image(name: str, label: str, visible: bool = True) -> Any:
    return gr.Image(
        label=label,
        interactive=False,
        format="png",
        type="pil",
        buttons=["fullscreen"],
        visible=visible,
        elem_id=name,
    )


def _opening(w: Widgets) -> dict[str, Any]:
    """How a callback is run that opens a picture: one at a time, as all that ask the model."""
    return {
        "concurrency_id": "model",
        "concurrency_limit": 1,
        "api_visibility": "private",
        "show_progress_on": [w.picture],
    }


def _connect(w: Widgets, callbacks: Callbacks) -> None:
    """Connect the widgets; the model answers one question at a time."""
    opening = _opening(w)
    model = {**opening, "show_progress_on": [w.map]}
    w.sample.input(callbacks.choose, [w.sample, w.target], w.view, **opening)
    w.upload.upload(callbacks.drop, [w.upload, w.target], w.view, **opening)
    w.picture.select(callbacks.click, w.question, w.clicked, **model)
    for slider in w.place:
        slider.release(
            callbacks.scroll,
            [w.seen, *w.place],
            [w.seen, w.message, w.picture, *w.place, w.map, w.evidence],
            **opening,
        )
    w.again.click(callbacks.again, w.question, w.answer, **model)
    for widget in (w.target, w.layer, w.class_name, w.against, w.where, w.baseline):
        widget.input(callbacks.ask, w.question, w.answer, **model)
    w.method.input(callbacks.fit, [w.method], [w.layer, w.baseline], api_visibility="private").then(
        callbacks.ask, w.question, w.answer, **model
    )
    w.brush.submit(
        callbacks.remove,
        [w.seen, w.imputer, w.class_name],
        [w.message, w.removed, w.changed],
        **{**model, "show_progress_on": [w.removed]},
    )


def _beside(name: str) -> str:
    """The text of a file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
