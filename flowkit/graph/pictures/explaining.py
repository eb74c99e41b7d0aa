"""A graph in words: layers, dependencies and the critical path; after a run also the outcome of each node."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from flowkit.graph.nodes import Node, describe, find_own_references, get_after, get_bodies
from flowkit.graph.pictures.critical_path import find_critical_path
from flowkit.graph.pictures.picture import find_spans, say_outcome
from flowkit.graph.pictures.timeline import Timeline, format_seconds

SMALLEST = 0.01
"""The part of a run that a piece of its critical path has to take to be named."""


def write_explanation(
    nodes: Mapping[str, Node],
    layers: Sequence[Sequence[str]],
    longest: Sequence[str],
    inputs: Collection[str],
    timeline: Timeline | None = None,
) -> str:
    """Write the text of `Graph.explain`; `longest` is its longest chain, `inputs` are ids without a node."""
    widest = max(map(len, layers), default=0)
    lines = [f"{_count(len(nodes), 'node')} in {_count(len(layers), 'layer')}, at most {widest} at once"]
    lines += [f"  {number}. {', '.join(layer)}" for number, layer in enumerate(layers, 1)]
    path = longest if timeline is None else _say_path(timeline)
    lines.append(f"critical path: {' -> '.join(path) or '(nothing)'}")
    outcomes: dict[str, str] = {}
    if timeline is not None:
        outcomes = {name: say_outcome(calls) for name, calls in find_spans(nodes.values(), timeline).items()}
    for node in nodes.values():
        lines += _explain_node(node, "", inputs, outcomes)
    return "\n".join(lines)


def _say_path(timeline: Timeline) -> list[str]:
    return [
        f"{link.label} ({format_seconds(link.duration_s)})"
        for link in find_critical_path(timeline)
        if link.duration_s >= SMALLEST * timeline.wall_s
    ]


def _explain_node(node: Node, indent: str, inputs: Collection[str], outcomes: Mapping[str, str]) -> Iterator[str]:
    what = describe(node)
    name = node.id if what == node.id.rpartition("/")[2] else f"{node.id} ({what})"
    needed = [*dict.fromkeys(str(found) for found in find_own_references(node) if found.call_id not in inputs)]
    needed += get_after(node)
    waits = f"waits for {', '.join(needed)}" if needed else "starts at once"
    yield f"{indent}{name} {waits}{f': {outcomes[node.id]}' if node.id in outcomes else ''}"
    for word, body in get_bodies(node):
        if word:
            yield f"{indent}  {word}:{'' if body.nodes else ' a value'}"
        for inner in body.nodes:
            yield from _explain_node(inner, indent + "    ", inputs, outcomes)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
