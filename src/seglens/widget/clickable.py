"""A picture of a notebook that tells where it was clicked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets


class ClickablePicture(anywidget.AnyWidget):
    """Shows the PNG ``value``, described by ``alt``; nothing where it is empty."""

    _esm = Path(__file__).with_name("clickable.js")
    value = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)

    def on_click(self, call: Callable[[float, float], None]) -> None:
        """Call ``call`` with column and row of each click, in pixels of the PNG."""

        def read(widget: Any, content: dict[str, float], buffers: Any) -> None:
            del widget, buffers
            call(content["x"], content["y"])

        self.on_msg(read)
