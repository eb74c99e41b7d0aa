"""A growing graph: nodes by id, each of which refers only to nodes that were added before it.

So it can't contain a cycle, and the checks made when a node is added stay valid.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowkit.errors import CycleError, GraphError, NoSuchNode
from flowkit.graph.nodes import (
    INPUTS,
    Each,
    Node,
    check_node,
    find_all_references,
    find_own_references,
    get_after,
    get_bodies,
    index_id,
    item_id,
)
from flowkit.graph.pictures.timeline import AnyEvent, Timeline, fold
from flowkit.notebook import Bundle, show_picture
from flowkit.references import find_references
from flowkit.suggestions import suggest


class Graph(Mapping[str, Node]):
    """Nodes by id, in the order in which they were added; every reference points to an earlier one.

    `inputs` are further ids that may be referred to: values from outside.

    >>> from flowkit.references import Reference, ToolCall
    >>> graph = Graph([ToolCall("a", "get"), ToolCall("b", "put", {"value": Reference("a")})])
    >>> graph.dependencies("b"), graph.dependents("a")
    (('a',), ('b',))
    """

    def __init__(self, nodes: Iterable[Node] = (), *, inputs: Collection[str] = (INPUTS,)) -> None:
        self.inputs = frozenset(inputs)
        self._nodes: dict[str, Node] = {}
        self._dependencies: dict[str, tuple[str, ...]] = {}
        self._dependents: dict[str, list[str]] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """Put a node at the end.

        Raises `GraphError` for an id that is taken, and for a reference to the node itself or to a missing one.
        """
        check_node(node)
        if not node.id or node.id in self._nodes or node.id in self.inputs:
            raise GraphError(f"{node.id!r} is taken: every node needs an id of its own" if node.id else "an empty id")
        needed = dict.fromkeys([*(r.call_id for r in find_all_references(node)), *get_after(node)])
        for name in needed:
            if name == node.id:
                raise GraphError(f"{node.id!r} refers to itself")
            if name not in self._nodes and name not in self.inputs:
                raise GraphError(_describe_unknown(node.id, name, self._nodes))
        if get_bodies(node):
            _check_bodies(node, {*self._nodes, *self.inputs, node.id})
        self._nodes[node.id] = node
        self._dependencies[node.id] = tuple(name for name in needed if name not in self.inputs)
        for name in self._dependencies[node.id]:
            self._dependents.setdefault(name, []).append(node.id)

    def dependencies(self, node_id: str) -> tuple[str, ...]:
        """Return the nodes that this one waits for; raises `NoSuchNode`."""
        return self._dependencies[self[node_id].id]

    def dependents(self, node_id: str) -> tuple[str, ...]:
        """Return the nodes that wait for this one; raises `NoSuchNode`."""
        return tuple(self._dependents.get(self[node_id].id, ()))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        """Show the graph as a picture in a notebook."""
        return show_picture(self.explain(), self.to_svg())

    def layers(self) -> list[list[str]]:
        """Return the nodes by depth: each layer needs only the layers before it."""
        depth: dict[str, int] = {}
        layers: list[list[str]] = []
        for name in self._nodes:
            depth[name] = 1 + max((depth[other] for other in self._dependencies[name]), default=-1)
            if depth[name] == len(layers):
                layers.append([])
            layers[depth[name]].append(name)
        return layers

    def critical_path(self, durations: Mapping[str, float] | None = None) -> list[str]:
        """Return the chain of nodes that takes longest; a node takes 1 where `durations` has no entry."""
        lengths: dict[str, float] = {}
        before: dict[str, str | None] = {}
        for name in self._nodes:
            before[name] = max(self._dependencies[name], key=lengths.__getitem__, default=None)
            last = before[name]
            lengths[name] = (0.0 if last is None else lengths[last]) + (durations or {}).get(name, 1.0)
        path: list[str] = []
        name = max(lengths, key=lengths.__getitem__, default=None)
        while name is not None:
            path.append(name)
            name = before[name]
        return path[::-1]

    # Pictures are imported on first use: a run needs none of them.

    def explain(self, events: Iterable[AnyEvent] | None = None) -> str:
        """Explain the graph in words: layers, critical path, dependencies.

        With a run's events also each node's outcome.
        """
        from flowkit.graph.pictures.explaining import write_explanation

        return write_explanation(self, self.layers(), self.critical_path(), self.inputs, _fold(events))

    def to_mermaid(self, events: Iterable[AnyEvent] | None = None) -> str:
        """Draw a Mermaid flowchart.

        With a run's events it shows each node's outcome and time, and the critical path.
        """
        from flowkit.graph.pictures.picture import make_picture
        from flowkit.graph.pictures.picture_languages import write_mermaid

        return write_mermaid(make_picture(self.values(), _fold(events)))

    def to_dot(self, events: Iterable[AnyEvent] | None = None) -> str:
        """Draw a Graphviz digraph; with a run's events as in `to_mermaid`."""
        from flowkit.graph.pictures.picture import make_picture
        from flowkit.graph.pictures.picture_languages import write_dot

        return write_dot(make_picture(self.values(), _fold(events)))

    def to_svg(self, events: Iterable[AnyEvent] | None = None) -> str:
        """Draw a self-contained SVG document; with a run's events as in `to_mermaid`."""
        from flowkit.graph.pictures.picture import make_picture
        from flowkit.graph.pictures.svg import write_svg

        return write_svg(make_picture(self.values(), _fold(events)))

    def to_networkx(self, events: Iterable[AnyEvent] | None = None) -> Any:
        """Make a `networkx.DiGraph` of the nodes, those in bodies included.

        A node has `name`, `kind` and `parent` (the control that holds it, or None); an edge has `paths`, the places
        in the first one's result that the second takes, and none for a bare "after". With a run's events a node also
        has `states`, one for each time that it ran or was left out, and `duration_s`, the sum of those times.
        """
        from flowkit.graph.pictures.networkx_graph import make_networkx

        return make_networkx(self.values(), _fold(events))

    def __getitem__(self, node_id: str) -> Node:
        node = self._nodes.get(node_id)
        if node is None:
            raise NoSuchNode(node_id, f"there is no node {node_id!r}; {suggest(node_id, self._nodes)}")
        return node

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def _fold(events: Iterable[AnyEvent] | None) -> Timeline | None:
    return None if events is None else fold(events)


def _check_bodies(node: Node, known: set[str]) -> None:
    for _, body in get_bodies(node):
        inside = {*known}
        if isinstance(node, Each):
            inside |= {item_id(node.id), index_id(node.id)}
        for inner in body.nodes:
            if not inner.id.startswith(node.id + "/"):
                raise GraphError(f"{inner.id!r} stands in the body of {node.id!r}, so its id has to begin with it")
            if inner.id in inside:
                raise GraphError(f"{inner.id!r} is taken: every node needs an id of its own")
            for name in [*(reference.call_id for reference in find_own_references(inner)), *get_after(inner)]:
                if name == inner.id or name not in inside:
                    raise GraphError(_describe_unknown(inner.id, name, inside))
            _check_bodies(inner, {*inside, inner.id})
            inside.add(inner.id)
        for reference in find_references([body.value, node.key if isinstance(node, Each) else None]):
            if reference.call_id not in inside:
                raise GraphError(_describe_unknown(node.id, reference.call_id, inside))


def _describe_unknown(node_id: str, name: str, known: Collection[str]) -> str:
    return f"{node_id!r} refers to {name!r}, which isn't there before it; {suggest(name, known)}"


def order_names(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Order the names so that each comes after those it waits for, otherwise as given.

    `edges` maps each name to its dependencies; names that aren't keys are ignored. Raises `CycleError` with the members
    of one cycle.
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

    Raises `CycleError` with the members of a cycle, and `GraphError` for a duplicate id.
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
