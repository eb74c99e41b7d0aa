"""Pictures of a graph as text: Mermaid, DOT and SVG, without a server or a network; networkx for one's own analysis.

A picture is made of boxes, which may hold boxes (the bodies of controls), and of edges between boxes of one level: an
edge into a body ends at the box that holds it. After a run, its `timeline` adds states, times and what came from the
cache.
"""

import html
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flowkit.graph.core import Graph
from flowkit.graph.layout import Layout, arrange
from flowkit.graph.nodes import Each, Node, describe, find_own_references, get_after, get_bodies
from flowkit.graph.timeline import CallSpan, Timeline
from flowkit.references import find_references, format_pointer

FONT_SIZE = 13
CHARACTER = 7.9
"""The width of a character; monospace fonts are at most 0.602 em wide, so no label is cut."""
LINE = 18.0
PADDING = 12.0

COLORS = {
    "finished": "#d9f2dc",
    "cache": "#d8e8fb",
    "failed": "#f9d6d5",
    "in_doubt": "#f9d6d5",
    "denied": "#f9d6d5",
    "cancelled": "#fbe9cf",
    "skipped": "#ececec",
    "void": "#ececec",
}


@dataclass(frozen=True, slots=True)
class _Box:
    """A node, or a branch of a control (`kind` "branch"); `inner` are the boxes it holds."""

    id: str
    lines: tuple[str, ...]
    kind: str
    inner: "tuple[_Box, ...]" = ()
    state: str = ""


@dataclass(frozen=True, slots=True)
class _Edge:
    first: str
    second: str
    label: str = ""


def to_networkx(graph: Graph, timeline: Timeline | None = None) -> Any:
    """A `networkx.DiGraph` of the nodes, bodies' nodes included; with `timeline` they have `state` and `duration_s`."""
    import networkx

    drawn = cast(Any, networkx).DiGraph()
    spans = {} if timeline is None else timeline.calls
    for node in _walk(graph.values()):
        drawn.add_node(node.id, name=node.name, kind=type(node).__name__)
        if node.id in spans:
            drawn.nodes[node.id].update(state=spans[node.id].state, duration_s=spans[node.id].duration_s)
    for node in _walk(graph.values()):
        for name in dict.fromkeys([*(r.call_id for r in find_own_references(node)), *get_after(node)]):
            if name in drawn:
                drawn.add_edge(name, node.id)
    return drawn


def to_mermaid(graph: Graph, timeline: Timeline | None = None) -> str:
    """A Mermaid flowchart."""
    boxes, edges = _make_picture(graph, timeline)
    numbers = {box.id: f"n{number}" for number, box in enumerate(_flatten(boxes))}
    lines = ["flowchart TD"]

    def write(box: _Box, indent: str) -> None:
        label = "<br/>".join(_escape_mermaid(line) for line in box.lines)
        if box.inner:
            lines.append(f'{indent}subgraph {numbers[box.id]}["{label}"]')
            for inner in box.inner:
                write(inner, indent + "  ")
            lines.append(f"{indent}end")
        else:
            opened, closed = ("{{", "}}") if box.kind == "control" else ("[", "]")
            lines.append(f'{indent}{numbers[box.id]}{opened}"{label}"{closed}')
        if box.state in COLORS:
            lines.append(f"{indent}style {numbers[box.id]} fill:{COLORS[box.state]}")

    for box in boxes:
        write(box, "  ")
    for edge in edges:
        label = f'|"{_escape_mermaid(edge.label)}"|' if edge.label else ""
        lines.append(f"  {numbers[edge.first]} -->{label} {numbers[edge.second]}")
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph, timeline: Timeline | None = None) -> str:
    """A Graphviz digraph; an edge to a control ends at its frame."""
    boxes, edges = _make_picture(graph, timeline)
    lines = ["digraph flowkit {", "  compound=true;", '  node [shape=box, style="rounded,filled", fillcolor=white];']
    first_leaf: dict[str, str] = {}

    def write(box: _Box, indent: str) -> str:
        label = _escape_dot("\n".join(box.lines))
        fill = f", fillcolor={_escape_dot(COLORS[box.state])}" if box.state in COLORS else ""
        if not box.inner:
            lines.append(f"{indent}{_escape_dot(box.id)} [label={label}{fill}];")
            first_leaf[box.id] = box.id
        else:
            lines.append(f"{indent}subgraph {_escape_dot('cluster ' + box.id)} {{")
            lines.append(f"{indent}  label={label};")
            leaves = [write(inner, indent + "  ") for inner in box.inner]
            first_leaf[box.id] = leaves[0]
            lines.append(f"{indent}}}")
        return first_leaf[box.id]

    for box in boxes:
        write(box, "  ")
    for edge in edges:
        ends = {"ltail": edge.first, "lhead": edge.second}
        inside = [f"{word}={_escape_dot('cluster ' + name)}" for word, name in ends.items() if first_leaf[name] != name]
        options = [*inside, *([f"label={_escape_dot(edge.label)}"] if edge.label else [])]
        tail = f" [{', '.join(options)}]" if options else ""
        lines.append(f"  {_escape_dot(first_leaf[edge.first])} -> {_escape_dot(first_leaf[edge.second])}{tail};")
    return "\n".join([*lines, "}"]) + "\n"


def to_svg(graph: Graph, timeline: Timeline | None = None) -> str:
    """An SVG document that needs nothing else."""
    boxes, edges = _make_picture(graph, timeline)
    body, width, height = _draw_level(boxes, edges)
    wide, high = width + 2 * PADDING, height + 2 * PADDING
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high:.0f}"'
            f' viewBox="0 0 {wide:.0f} {high:.0f}" font-family="monospace" font-size="{FONT_SIZE}">',
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"'
            ' orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
            f'<rect width="{wide:.0f}" height="{high:.0f}" fill="white"/>',
            f'<g transform="translate({PADDING:.0f},{PADDING:.0f})">',
            *body,
            "</g>",
            "</svg>",
            "",
        ]
    )


# From nodes to boxes


def _make_picture(graph: Graph, timeline: Timeline | None) -> tuple[list[_Box], list[_Edge]]:
    spans: Mapping[str, CallSpan] = {} if timeline is None else timeline.calls
    boxes = [_make_box(node, spans) for node in graph.values()]
    home: dict[str, tuple[str, ...]] = {}
    for box in boxes:
        _find_homes(box, (), home)
    edges: dict[tuple[str, str], list[str]] = {}
    for node in _walk(graph.values()):
        for name, label in _find_labelled(node):
            pair = _lift(home, name, node.id)
            if pair is not None:
                labels = edges.setdefault(pair, [])
                if label and label not in labels:
                    labels.append(label)
    return boxes, [_Edge(first, second, ", ".join(labels)) for (first, second), labels in edges.items()]


def _make_box(node: Node, spans: Mapping[str, CallSpan]) -> _Box:
    what = describe(node)
    lines = [node.id] if what == node.id else [node.id, what]
    span = spans.get(node.id)
    state = ""
    if span is not None:
        state = "cache" if span.source == "cache" and span.state == "finished" else span.state
        lines.append(span.describe())
    bodies = get_bodies(node)
    if not bodies:
        return _Box(node.id, tuple(lines), "call", (), state)
    inner: list[_Box] = []
    for word, body in bodies:
        made = tuple(_make_box(child, spans) for child in body.nodes)
        if len(bodies) == 1:
            inner += made
        else:
            # A branch without steps still says what it gives.
            inner.append(_Box(f"{node.id}/{word}/", (word,) if made else (f"{word}: a value",), "branch", made))
    return _Box(node.id, tuple(lines), "control", tuple(inner), state)


def _find_homes(box: _Box, above: tuple[str, ...], home: dict[str, tuple[str, ...]]) -> None:
    home[box.id] = (*above, box.id)
    for inner in box.inner:
        _find_homes(inner, home[box.id], home)


def _lift(home: Mapping[str, tuple[str, ...]], first: str, second: str) -> tuple[str, str] | None:
    """The two boxes of one level that hold these nodes; None where one holds the other, or isn't in the picture."""
    if first not in home or second not in home:
        return None
    for left, right in zip(home[first], home[second], strict=False):
        if left != right:
            return left, right
    return None


def _find_labelled(node: Node) -> Iterator[tuple[str, str]]:
    """What a node waits for, with the path it takes."""
    values: list[Any] = []
    for _, body in get_bodies(node):
        values.append(body.value)
    if isinstance(node, Each):
        values.append(node.key)
    for reference in (*find_own_references(node), *find_references(values)):
        yield reference.call_id, format_pointer(reference.path)
    for name in get_after(node):
        yield name, "after"


def _walk(nodes: Any) -> Iterator[Node]:
    for node in nodes:
        yield node
        for _, body in get_bodies(node):
            yield from _walk(body.nodes)


def _flatten(boxes: Sequence[_Box]) -> Iterator[_Box]:
    for box in boxes:
        yield box
        yield from _flatten(box.inner)


# From boxes to SVG


def _draw_level(boxes: Sequence[_Box], edges: Sequence[_Edge]) -> tuple[list[str], float, float]:
    """The boxes of one level and the edges between them, with the size they take."""
    drawn: dict[str, tuple[list[str], float, float]] = {box.id: _draw_box(box, edges) for box in boxes}
    own = [edge for edge in edges if edge.first in drawn and edge.second in drawn]
    sizes = {name: (width, height) for name, (_, width, height) in drawn.items()}
    layout = arrange(sizes, [(edge.first, edge.second) for edge in own])
    lines: list[str] = []
    for name, (body, _, _) in drawn.items():
        x, y = layout.corners[name]
        lines += [f'<g transform="translate({x:.1f},{y:.1f})">', *body, "</g>"]
    for edge in own:
        lines += _draw_edge(edge, layout)
    return lines, layout.width, layout.height


def _draw_box(box: _Box, edges: Sequence[_Edge]) -> tuple[list[str], float, float]:
    text_width = max(map(_measure, box.lines)) + 2 * PADDING
    head = len(box.lines) * LINE + PADDING
    body: list[str] = []
    width, height = text_width, head
    if box.inner:
        body, inner_width, inner_height = _draw_level(box.inner, edges)
        width = max(text_width, inner_width + 2 * PADDING)
        height = head + inner_height + PADDING
        left = (width - inner_width) / 2
        body = [f'<g transform="translate({left:.1f},{head:.1f})">', *body, "</g>"]
    fill = COLORS.get(box.state, "#f7f7fb" if box.inner else "white")
    dash = ' stroke-dasharray="5 4"' if box.kind == "branch" else ""
    lines = [
        f'<rect width="{width:.1f}" height="{height:.1f}" rx="6" fill="{fill}" stroke="#555"{dash}/>',
        *(_draw_text(line, number) for number, line in enumerate(box.lines)),
        *body,
    ]
    return lines, width, height


def _draw_text(text: str, number: int) -> str:
    style = 'font-weight="bold"' if number == 0 else 'fill="#333"'
    y = PADDING / 2 + LINE * (number + 0.75)
    return f'<text x="{PADDING:.0f}" y="{y:.1f}" {style}>{html.escape(text)}</text>'


def _draw_edge(edge: _Edge, layout: Layout) -> list[str]:
    points = layout.lines[edge.first, edge.second]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline points="{path}" fill="none" stroke="#555" marker-end="url(#arrow)"'
    # The path of a reference is in the tooltip: beside the line it would run into other lines.
    return [f"{line}><title>{html.escape(edge.label)}</title></polyline>" if edge.label else f"{line}/>"]


def _measure(text: str) -> float:
    """The width of a text; East Asian characters take two places."""
    return CHARACTER * sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _escape_mermaid(text: str) -> str:
    # Mermaid reads entities inside quotes, with a hash and no ampersand.
    return "".join(f"#{ord(character)};" if character in '"#&<>|[]{}`\\' else character for character in text)


def _escape_dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
