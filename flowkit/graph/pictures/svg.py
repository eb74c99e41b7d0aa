"""A picture as an SVG document that needs nothing else: no script, no font, no network.

It is light on paper, and follows the reader's choice of light or dark on a screen.
"""

import html
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flowkit.graph.pictures.picture import AFTER, Box, Edge, Picture
from flowkit.graph.pictures.placement import Layout, Point, Size, arrange

CHARACTER = 7.85
"""The width of a character of 13 px: monospace fonts are at most 0.602 em wide, so no label is cut."""

SMALL = 11 / 13
"""The labels of edges, against the text of boxes."""

LINE = 18.0
PADDING = 12.0
STRIPE = 8.0
"""The width of the stripe that shows a box's kind and outcome."""

MARGIN = 16.0

LONGEST = 46
"""The number of characters of a box's description per line."""

WIDEST = 640.0
"""A level that would be wider than this is drawn from left to right, where that is narrower."""

_LIGHT = """
.fk-page{fill:#fff}.fk-tint{fill:#f6f8fa}.fk-box,.fk-frame{stroke:#d0d7de}.fk-title{fill:#1f2328}.fk-dim{fill:#656d76}
.fk-line{stroke:#8c959f}.fk-head{fill:#8c959f}.fk-critical{stroke:#1f2328}.fk-head-critical{fill:#1f2328}
.fk-call>.fk-stripe{fill:#54aeff}.fk-model>.fk-stripe{fill:#a475f9}
.fk-good>.fk-box{fill:#f0fbf3;stroke:#6fcf87}.fk-good>.fk-frame{stroke:#6fcf87}.fk-good>.fk-stripe{fill:#2da44e}
.fk-cached>.fk-box{fill:#eef7ff;stroke:#80ccff}.fk-cached>.fk-stripe{fill:#0969da}
.fk-bad>.fk-box{fill:#fff1ef;stroke:#ff8182}.fk-bad>.fk-frame{stroke:#ff8182}.fk-bad>.fk-stripe{fill:#cf222e}
.fk-stopped>.fk-box{fill:#fff8e0;stroke:#d4a72c}.fk-stopped>.fk-frame{stroke:#d4a72c}.fk-stopped>.fk-stripe{fill:#9a6700}
.fk-left>.fk-box{fill:#f6f8fa}.fk-left>.fk-stripe{fill:#afb8c1}.fk-left>.fk-title{fill:#656d76}
"""

_DARK = """
.fk-page{fill:#0d1117}.fk-tint{fill:#161b22}.fk-box,.fk-frame{stroke:#3d444d}.fk-title{fill:#e6edf3}.fk-dim{fill:#9198a1}
.fk-line{stroke:#768390}.fk-head{fill:#768390}.fk-critical{stroke:#e6edf3}.fk-head-critical{fill:#e6edf3}
.fk-call>.fk-stripe{fill:#388bfd}.fk-model>.fk-stripe{fill:#a371f7}
.fk-good>.fk-box{fill:#0f2418;stroke:#2ea043}.fk-good>.fk-frame{stroke:#2ea043}.fk-good>.fk-stripe{fill:#3fb950}
.fk-cached>.fk-box{fill:#0c2038;stroke:#388bfd}.fk-cached>.fk-stripe{fill:#58a6ff}
.fk-bad>.fk-box{fill:#2b1315;stroke:#da3633}.fk-bad>.fk-frame{stroke:#da3633}.fk-bad>.fk-stripe{fill:#f85149}
.fk-stopped>.fk-box{fill:#272115;stroke:#9e6a03}.fk-stopped>.fk-frame{stroke:#9e6a03}.fk-stopped>.fk-stripe{fill:#d29922}
.fk-left>.fk-box{fill:#161b22}.fk-left>.fk-stripe{fill:#484f58}.fk-left>.fk-title{fill:#9198a1}
"""

_SHAPES = """
.fk-box,.fk-frame{stroke-width:1}.fk-title{font-weight:600}.fk-line{fill:none;stroke-width:1.3}
.fk-critical{stroke-width:2}.fk-after{stroke-dasharray:4 4}.fk-branch>.fk-frame,.fk-left>.fk-box{stroke-dasharray:5 4}
"""

_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


def write_svg(picture: Picture) -> str:
    """Write the whole document."""
    level = _draw_level(picture.boxes, picture.edges, 0)
    width, height = level.width + 2 * MARGIN, level.height + 2 * MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
            f' viewBox="0 0 {width:.0f} {height:.0f}" font-family="{_FONT}" font-size="13" role="img">',
            f"<style>{_SHAPES}{_LIGHT}@media screen and (prefers-color-scheme:dark){{{_DARK}}}</style>",
            f"<defs>{_make_arrow('fk-head')}{_make_arrow('fk-head-critical')}</defs>",
            f'<rect class="fk-page" width="{width:.0f}" height="{height:.0f}" rx="10"/>',
            f'<g transform="translate({MARGIN:.0f},{MARGIN:.0f})">',
            *level.elements,
            "</g>",
            "</svg>",
            "",
        ]
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Elements, with the size they take."""

    elements: list[str]
    width: float
    height: float


def _draw_level(boxes: Sequence[Box], edges: Sequence[Edge], depth: int) -> _Drawn:
    """Draw the boxes of one level and the edges between them."""
    drawn = {box.id: _draw_box(box, edges, depth) for box in boxes}
    own = [edge for edge in edges if edge.first in drawn and edge.second in drawn]
    sizes = {name: (box.width, box.height) for name, box in drawn.items()}
    labels = {(edge.first, edge.second): _measure_label(edge) for edge in own if edge.labels}
    pairs = [(edge.first, edge.second) for edge in own]
    layout, sideways = arrange(sizes, pairs, labels), False
    if layout.width > WIDEST:
        turned = arrange(sizes, pairs, labels, sideways=True)
        if turned.width < layout.width:
            layout, sideways = turned, True
    elements: list[str] = []
    for edge in own:
        elements += _draw_edge(edge, layout, sideways=sideways)
    for edge in own:
        elements += _draw_label(edge, layout, depth)
    for name, box in drawn.items():
        x, y = layout.corners[name]
        elements += [f'<g transform="translate({x:.1f},{y:.1f})">', *box.elements, "</g>"]
    return _Drawn(elements, layout.width, layout.height)


def _draw_box(box: Box, edges: Sequence[Edge], depth: int) -> _Drawn:
    lines = list(_wrap(box))
    head = len(lines) * LINE + PADDING
    width, height = max(map(_measure, lines)) + 2 * PADDING + STRIPE, head
    inside: list[str] = []
    if box.inner:
        level = _draw_level(box.inner, edges, depth + 1)
        width, height = max(width, level.width + 2 * PADDING), head + level.height + PADDING
        left = (width - level.width) / 2
        inside = [f'<g transform="translate({left:.1f},{head:.1f})">', *level.elements, "</g>"]
    is_frame = box.kind in ("control", "branch")
    shape = f"fk-frame {_surface(depth + 1)}" if is_frame else "fk-box fk-page"
    stripe = f'<rect class="fk-stripe" x="7" y="8" width="3" height="{head - 16:.1f}" rx="1.5"/>'
    text_x = PADDING if is_frame else PADDING + STRIPE
    elements = [
        f'<g class="fk-{box.kind}{f" fk-{box.tone}" if box.tone else ""}">',
        f"<title>{html.escape(box.id)}</title>",
        f'<rect class="{shape}" width="{width:.1f}" height="{height:.1f}" rx="8"/>',
        *([] if is_frame else [stripe]),
        *(_draw_text(line, number, text_x) for number, line in enumerate(lines)),
        *inside,
        "</g>",
    ]
    return _Drawn(elements, width, height)


def _surface(depth: int) -> str:
    """Return the background of a level; nested frames alternate."""
    return "fk-tint" if depth % 2 else "fk-page"


def _wrap(box: Box) -> Iterator[str]:
    yield box.title
    for text in box.lines[1:]:
        yield from textwrap.wrap(text, LONGEST, break_on_hyphens=False) or [""]


def _draw_text(text: str, number: int, x: float) -> str:
    kind = "fk-dim" if number else "fk-title"
    y = PADDING / 2 + LINE * (number + 0.72)
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.1f}">{html.escape(text)}</text>'


def _draw_edge(edge: Edge, layout: Layout, *, sideways: bool) -> Iterator[str]:
    points = layout.lines[edge.first, edge.second]
    pieces = [f"M{_say(points[0])}"]
    for number, (first, second) in enumerate(pairwise(points)):
        is_straight = number % 2 == 0 or first[sideways] == second[sideways]
        pieces.append(f"L{_say(second)}" if is_straight else _curve(first, second, sideways=sideways))
    kind = " fk-critical" if edge.is_critical else ""
    kind += " fk-after" if edge.labels == (AFTER,) else ""
    head = "fk-head-critical" if edge.is_critical else "fk-head"
    yield f'<path class="fk-line{kind}" d="{"".join(pieces)}" marker-end="url(#{head})">'
    yield f"<title>{html.escape(f'{edge.second} waits for {edge.first}')}</title></path>"


def _curve(first: Point, second: Point, *, sideways: bool) -> str:
    """Draw a curve that leaves and arrives along the direction of the picture."""
    if sideways:
        middle = (first[0] + second[0]) / 2
        return f"C{_say((middle, first[1]))} {_say((middle, second[1]))} {_say(second)}"
    middle = (first[1] + second[1]) / 2
    return f"C{_say((first[0], middle))} {_say((second[0], middle))} {_say(second)}"


def _draw_label(edge: Edge, layout: Layout, depth: int) -> Iterator[str]:
    if not edge.labels:
        return
    x, y = layout.labels[edge.first, edge.second]
    width, height = _measure_label(edge)
    yield (
        f'<rect class="{_surface(depth)}" x="{x - width / 2:.1f}" y="{y - height / 2:.1f}"'
        f' width="{width:.1f}" height="{height:.1f}"/>'
    )
    for number, text in enumerate(edge.shown):
        middle = y - height / 2 + LINE * SMALL * (number + 0.75)
        yield (
            f'<text class="fk-dim" x="{x:.1f}" y="{middle:.1f}" text-anchor="middle" font-size="11">'
            f"{html.escape(text)}</text>"
        )


def _make_arrow(name: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7.5" refY="4" markerUnits="userSpaceOnUse" markerWidth="9"'
        f' markerHeight="9" orient="auto"><path class="{name}" d="M0,0.5 L8,4 L0,7.5 L2,4 z"/></marker>'
    )


def _measure_label(edge: Edge) -> Size:
    return max(map(_measure, edge.shown)) * SMALL + 8, LINE * SMALL * len(edge.shown)


def _measure(text: str) -> float:
    """Measure the width of a text; East Asian characters take two places."""
    return CHARACTER * sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _say(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"
