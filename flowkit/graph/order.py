"""An order in which each node comes after those it waits for; nodes that wait in a circle have none."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flowkit.errors import CycleError, GraphError
from flowkit.graph.nodes import Node, find_all_references, get_after


def order_names(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Order the names so that each comes after those it waits for, otherwise as given.

    `edges` gives for every name what it waits for; names that aren't keys are ignored. Raises `CycleError` that names
    the members of one circle.
    """
    ordered: list[str] = []
    done: set[str] = set()
    for root in edges:
        # Depth first by hand: a chain may be deeper than Python's stack.
        path: dict[str, Iterator[str]] = {root: iter(edges[root])} if root not in done else {}
        while path:
            name, waits_for = next(reversed(path.items()))
            for other in waits_for:
                if other in path:
                    members = list(path)
                    # Each member of the path waits for the next; a circle reads in that order.
                    raise CycleError(members[members.index(other) :])
                if other in edges and other not in done:
                    path[other] = iter(edges[other])
                    break
            else:
                del path[name]
                done.add(name)
                ordered.append(name)
    return ordered


def sort_nodes(nodes: Sequence[Node]) -> list[Node]:
    """Sort nodes that may refer forward into an order that a `Graph` takes.

    Raises `CycleError` naming the members of a circle, and `GraphError` for an id that stands twice.
    """
    by_id: dict[str, Node] = {}
    for node in nodes:
        if node.id in by_id:
            raise GraphError(f"{node.id!r} is taken: every node needs an id of its own")
        by_id[node.id] = node
    edges = {
        node.id: [*(reference.call_id for reference in find_all_references(node)), *get_after(node)] for node in nodes
    }
    return [by_id[name] for name in order_names(edges)]
