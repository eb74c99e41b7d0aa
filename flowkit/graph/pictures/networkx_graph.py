"""A graph for one's own analysis with networkx."""

from collections.abc import Iterable
from typing import Any, cast

from flowkit.graph.nodes import Node, find_own_references, get_after, get_bodies
from flowkit.graph.pictures.picture import find_spans, walk
from flowkit.graph.pictures.timeline import Timeline
from flowkit.references import format_pointer


def make_networkx(nodes: Iterable[Node], timeline: Timeline | None = None) -> Any:
    """Make the result of `Graph.to_networkx`."""
    import networkx

    nodes = list(nodes)
    made = cast(Any, networkx).DiGraph()
    holders = {inner.id: node.id for node in walk(nodes) for _, body in get_bodies(node) for inner in body.nodes}
    for node in walk(nodes):
        made.add_node(node.id, name=node.name, kind=type(node).__name__, parent=holders.get(node.id))
    for node in walk(nodes):
        for reference in find_own_references(node):
            if reference.call_id in made:
                _add_edge(made, reference.call_id, node.id).append(format_pointer(reference.path))
        for name in get_after(node):
            _add_edge(made, name, node.id)
    if timeline is not None:
        for node_id, calls in find_spans(nodes, timeline).items():
            made.nodes[node_id]["states"] = [call.state for call in calls]
            made.nodes[node_id]["duration_s"] = sum(call.duration_s for call in calls)
    return made


def _add_edge(made: Any, first: str, second: str) -> list[str]:
    """Return the paths of this edge, which is made if it isn't there."""
    if not made.has_edge(first, second):
        made.add_edge(first, second, paths=[])
    return made.edges[first, second]["paths"]
