"""A picture of a notebook that tells where it was clicked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

SCRIPT = Path(__file__).with_name("clickable.js")


def clickable_picture(alt: str, on_click: Callable[[float, float], None]) -> Any:
    """Return a widget that shows the PNG that is its ``value``, described by ``alt``.

    Nothing is shown where it is empty. ``on_click`` is called with column and row of each click, in pixels of
    the PNG.
    """

    class ClickablePicture(anywidget.AnyWidget):
        """The widget; its base has no types that a type checker could read."""

        _esm = SCRIPT
        value = traitlets.Bytes(b"").tag(sync=True)
        alt = traitlets.Unicode("").tag(sync=True)

    def read(widget: Any, content: dict[str, float], buffers: Any) -> None:
        del widget, buffers
        on_click(content["x"], content["y"])

    picture = ClickablePicture(alt=alt)
    picture.on_msg(read)
    return picture
