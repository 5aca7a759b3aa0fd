"""Results in a notebook: small cards of HTML without script, which need no other file.

Every text is escaped here, once. Colours are the notebook's own, so that a card reads in light and in dark.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from PIL.Image import Image as Picture

from seglens.errors import SettingError

if TYPE_CHECKING:
    import pandas

STYLE = """
.seglens-card {font: 13px/1.45 system-ui, sans-serif; max-width: 60em; margin: .3em 0; padding: .6em .9em;
  border: 1px solid color-mix(in srgb, currentColor 30%, transparent); border-radius: 6px; overflow-x: auto}
.seglens-card > b {font-size: 1.1em}
.seglens-card p {margin: .3em 0}
.seglens-card table.seglens-table {border-collapse: collapse; margin: .5em 0; font-size: 1em; border: 0;
  font-variant-numeric: tabular-nums}
.seglens-card .seglens-table tr, .seglens-card .seglens-table tr:nth-child(even) {background: none}
.seglens-card .seglens-table :is(th, td) {text-align: right; padding: .15em .7em; border: 0; color: inherit;
  border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent)}
.seglens-card .seglens-table :is(th[scope=row], th:first-child) {text-align: left}
.seglens-card .seglens-table th[scope=row] {font-weight: 400; white-space: nowrap}
.seglens-card figure {display: inline-block; margin: .3em .6em .3em 0; vertical-align: top; font-size: .9em}
.seglens-card figure img {display: block; border-radius: 3px; image-rendering: auto}
.seglens-card figcaption {max-width: 12em; overflow-wrap: anywhere}
"""
"""Says how the parts of a card look, and touches nothing outside of cards."""


def data_frame(rows: Sequence[Mapping[str, object]]) -> "pandas.DataFrame":
    """Return rows as a table of pandas, which is imported here alone.

    Raises:
        SettingError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise SettingError(
            "to_pandas() needs pandas, which is not installed: pip install pandas, or use to_json()."
        ) from error
    return pandas.DataFrame([dict(row) for row in rows])


def card(title: str, *parts: str) -> str:
    """Return a card: a title, which is escaped, over ``parts``, which are HTML already."""
    return f'<div class="seglens-card"><style>{STYLE}</style><b>{escape(title)}</b>{"".join(parts)}</div>'


def paragraph(text: str) -> str:
    """Return ``text`` as a paragraph."""
    return f"<p>{escape(text)}</p>"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, hints: Sequence[str] = (), most: int = 100
) -> str:
    """Return a table whose first column names its rows; cells are escaped.

    ``hints``, one a row, are shown when a row is pointed at. Beyond ``most`` rows it says how many are left.
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    told = [*hints, *[""] * (len(rows) - len(hints))]
    body = "".join(
        f"<tr{_hint(hint)}>"
        + f'<th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row, hint in zip(rows[:most], told, strict=False)
    )
    left = paragraph(f"... and {len(rows) - most} more rows.") if len(rows) > most else ""
    return f'<table class="seglens-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{left}'


def figure(drawn: Picture, caption: str, *, width: int = 144) -> str:
    """Return a picture ``width`` pixels wide with a caption, which is also what a screen reader says."""
    height = max(1, round(drawn.height * width / drawn.width))
    text = escape(caption)
    return (
        f'<figure><img src="{address(drawn)}" width="{width}" height="{height}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def address(drawn: Picture) -> str:
    """Return a picture as an address that holds the picture itself."""
    written = io.BytesIO()
    drawn.save(written, format="PNG")
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def _hint(text: str) -> str:
    return f' title="{escape(text)}"' if text else ""
