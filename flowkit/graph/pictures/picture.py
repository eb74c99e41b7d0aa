"""The content of every picture of a graph: boxes, which may hold boxes, and edges between boxes of one level.

The bodies of controls are boxes in a box, and an edge into a body ends at the outermost box that doesn't hold its
beginning. After a run, its `timeline` adds states and times; a node that ran for many items shows them together.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from flowkit.graph.nodes import Each, ModelStep, Node, describe, find_own_references, get_after, get_bodies
from flowkit.graph.pictures.critical_path import find_critical_path
from flowkit.graph.pictures.timeline import CallSpan, Timeline, format_seconds
from flowkit.references import format_pointer

AFTER = "after"
"""The label of an edge that carries no value."""

PATHS_SHOWN = 3
"""How many paths of references one edge shows."""

TONES = {
    "failed": "bad",
    "in_doubt": "bad",
    "denied": "bad",
    "cancelled": "stopped",
    "finished": "good",
    "cache": "cached",
    "void": "left",
    "skipped": "left",
}
"""How a state looks; of several states of one node, the first one here."""

MARKS = {"good": "✓", "cached": "⚡", "bad": "✗", "stopped": "–", "left": "–"}
"""What stands before the words."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node, or a branch of a control; `inner` are the boxes it holds.

    `outcome` is its state after a run. `tone` selects its colour: `good`, `cached`, `bad`, `stopped`, `left` (out), or
    empty before a run and while it runs.
    """

    id: str
    title: str
    kind: Literal["call", "model", "control", "branch"]
    details: tuple[str, ...] = ()
    inner: "tuple[Box, ...]" = ()
    tone: str = ""
    outcome: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """All its text."""
        return (self.title, *self.details, *((self.outcome,) if self.outcome else ()))


@dataclass(frozen=True, slots=True)
class Edge:
    """`second` waits for `first`; `labels` are the paths of the values that it takes."""

    first: str
    second: str
    labels: tuple[str, ...] = ()
    is_critical: bool = False

    @property
    def shown(self) -> tuple[str, ...]:
        """The labels that fit."""
        if len(self.labels) <= PATHS_SHOWN:
            return self.labels
        return (*self.labels[: PATHS_SHOWN - 1], f"and {len(self.labels) - PATHS_SHOWN + 1} more")


@dataclass(frozen=True, slots=True)
class Picture:
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]

    def all_boxes(self) -> Iterator[Box]:
        """Yield the boxes, each before those it holds."""
        return _flatten(self.boxes)


def make_picture(nodes: Iterable[Node], timeline: Timeline | None = None) -> Picture:
    """Make the boxes and edges of these nodes."""
    nodes = list(nodes)
    spans = None if timeline is None else find_spans(nodes, timeline)
    path = [] if timeline is None or spans is None else _find_path(timeline, spans)
    boxes = tuple(_make_box(node, node.id, spans) for node in nodes)
    home: dict[str, tuple[str, ...]] = {}
    for box in boxes:
        _find_homes(box, (), home)
    labels: dict[tuple[str, str], list[str]] = {}
    for node in walk(nodes):
        for name, label in _find_labelled(node):
            pair = _lift(home, name, node.id)
            if pair is not None:
                found = labels.setdefault(pair, [])
                if label and label not in found:
                    found.append(label)
    critical = {_lift(home, first, second) for first, second in pairwise(path)}
    edges = (Edge(*pair, tuple(found), pair in critical) for pair, found in labels.items())
    return Picture(boxes, tuple(edges))


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield the nodes, each followed by those in its bodies."""
    for node in nodes:
        yield node
        for _, body in get_bodies(node):
            yield from walk(body.nodes)


def find_spans(nodes: Iterable[Node], timeline: Timeline) -> dict[str, list[CallSpan]]:
    """Find the spans of each node: one call, or one for each item in an `each`."""
    found: dict[str, list[CallSpan]] = {}

    def search(nodes: Iterable[Node], eaches: tuple[str, ...]) -> None:
        for node in nodes:
            found[node.id] = _find_items(node.id, eaches, timeline) if eaches else _find_one(node.id, timeline)
            for _, body in get_bodies(node):
                search(body.nodes, (*eaches, node.id) if isinstance(node, Each) else eaches)

    search(nodes, ())
    return found


def _find_one(node_id: str, timeline: Timeline) -> list[CallSpan]:
    return [timeline.calls[node_id]] if node_id in timeline.calls else []


def _find_items(node_id: str, eaches: Sequence[str], timeline: Timeline) -> list[CallSpan]:
    # The key of an item, which has no slash, follows the id of each enclosing `each`.
    pattern = ""
    begin = 0
    for each in eaches:
        pattern += re.escape(node_id[begin : len(each)]) + "/[^/]*"
        begin = len(each)
    found = re.compile(pattern + re.escape(node_id[begin:]))
    return [call for name, call in timeline.calls.items() if found.fullmatch(name)]


def _find_path(timeline: Timeline, spans: Mapping[str, Sequence[CallSpan]]) -> list[str]:
    """Find the nodes of the critical path, in its order."""
    nodes = {call.id: node_id for node_id, calls in spans.items() for call in calls}
    return [nodes[link.call] for link in find_critical_path(timeline) if link.call in nodes]


def _make_box(node: Node, title: str, spans: Mapping[str, Sequence[CallSpan]] | None) -> Box:
    what = describe(node)
    tone, outcome = ("", "") if spans is None else (find_tone(spans[node.id]), say_outcome(spans[node.id]))
    kind = "control" if get_bodies(node) else "model" if isinstance(node, ModelStep) else "call"
    return Box(node.id, title, kind, () if what == title else (what,), tuple(_make_inner(node, spans)), tone, outcome)


def _make_inner(node: Node, spans: Mapping[str, Sequence[CallSpan]] | None) -> Iterator[Box]:
    """Make the boxes of a body's nodes, within a box of their own where the control has several bodies."""
    bodies = get_bodies(node)
    for word, body in bodies:
        made = tuple(_make_box(child, child.id.rpartition("/")[2], spans) for child in body.nodes)
        if len(bodies) == 1:
            yield from made
        else:
            # A branch without steps still shows its value.
            yield Box(f"{node.id}/{word}/", word if made else f"{word}: a value", "branch", inner=made)


def say_outcome(calls: Sequence[CallSpan]) -> str:
    """Describe the outcomes of these calls of one node in a few words."""
    tone = find_tone(calls)
    mark = MARKS.get(tone, "…")
    if not calls:
        return f"{mark} not reached"
    if len(calls) == 1:
        return f"{mark} {calls[0].describe()}"
    duration_s = sum(call.duration_s for call in calls)
    words = [f"{len(calls)} times", *([f"{format_seconds(duration_s)} in all"] if duration_s else [])]
    states = [_get_state(call) for call in calls]
    for state in dict.fromkeys(states):
        if state != "finished":
            words.append(f"{states.count(state)} {'from cache' if state == 'cache' else state}")
    return f"{mark} {', '.join(words)}"


def find_tone(calls: Sequence[CallSpan]) -> str:
    """Find the colour for the outcomes of these calls together."""
    states = {_get_state(call) for call in calls}
    return next((tone for state, tone in TONES.items() if state in states), "") if states else "left"


def _get_state(call: CallSpan) -> str:
    return "cache" if call.source == "cache" and call.state == "finished" else call.state


def _find_labelled(node: Node) -> Iterator[tuple[str, str]]:
    """Find a node's dependencies, with the path that each reference uses."""
    for reference in find_own_references(node):
        yield reference.call_id, format_pointer(reference.path)
    for name in get_after(node):
        yield name, AFTER


def _find_homes(box: Box, above: tuple[str, ...], home: dict[str, tuple[str, ...]]) -> None:
    home[box.id] = (*above, box.id)
    for inner in box.inner:
        _find_homes(inner, home[box.id], home)


def _lift(home: Mapping[str, tuple[str, ...]], first: str, second: str) -> tuple[str, str] | None:
    """Return the two boxes of one level that hold these nodes; None if one holds the other, or isn't in the picture."""
    if first not in home or second not in home:
        return None
    for left, right in zip(home[first], home[second], strict=False):
        if left != right:
            return left, right
    return None


def _flatten(boxes: Sequence[Box]) -> Iterator[Box]:
    for box in boxes:
        yield box
        yield from _flatten(box.inner)
