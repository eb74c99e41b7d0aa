"""Show values in a notebook: a picture or HTML by MIME type, and always plain text as well.

Jupyter calls `_repr_mimebundle_` of a cell's last value. All texts of tools and models are escaped.
"""

from collections.abc import Iterable
from html import escape

Bundle = dict[str, str]
"""Texts by MIME type."""

_SHOWN = 400
"""How many characters of one value are shown."""
# Notebooks align cells to the right, and a long line would leave the page.
_CELL = "text-align: left; vertical-align: top"
_LINES = "white-space: pre-wrap; overflow-wrap: anywhere; margin: 0"


def show_picture(text: str, svg: str) -> Bundle:
    """Show a picture, and the text where none can be drawn."""
    return {"text/plain": text, "image/svg+xml": svg}


def show_table(title: str, rows: Iterable[tuple[str, object]]) -> Bundle:
    """Show a title above rows of a name and a value; rows without a value are left out.

    >>> show_table("order", [("state", "<shipped>"), ("note", None)])["text/plain"]
    'order\\n  state: <shipped>'
    """
    said = [(name, _shorten(str(value))) for name, value in rows if value not in (None, "", ())]
    cells = "".join(
        f'<tr><th style="{_CELL}">{escape(name)}</th><td style="{_CELL}"><pre style="{_LINES}">{escape(value)}</pre></td></tr>'
        for name, value in said
    )
    text = "\n".join([title, *(f"  {name}: {value}" for name, value in said)])
    return {"text/plain": text, "text/html": f"<strong>{escape(title)}</strong><table>{cells}</table>"}


def show_text(title: str, text: str) -> Bundle:
    """Show a title above lines of letters of one width, such as a chart."""
    return {"text/plain": f"{title}\n{text}", "text/html": f"<strong>{escape(title)}</strong><pre>{escape(text)}</pre>"}


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
