"""Nodes, the edges between them, and the checks that hold before anything runs.

A node is a `ToolCall` or one of a few controls; an edge is a `Reference` in what a node was given, or a name in its
`after`. A graph grows by `add`, and a node may only point to nodes that are in it already, so it can't hold a circle
by references; `sort_nodes` takes nodes in any order (a recipe file) and finds circles, also those through a resource.

A control holds other nodes in a `Body`. The ids of a body's nodes begin with the control's id and a slash, so that a
body can be copied for every item by changing that beginning.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never, cast

from flowkit.errors import CycleError, GraphError
from flowkit.graph.conditions import Condition
from flowkit.references import Reference, ToolCall, find_references, format_pointer, substitute

INPUTS = "inputs"
"""The id under which a recipe's inputs are referred to: `Reference("inputs", ("order_id",))`."""

AT_MOST = 10_000
"""How many items `Each` takes when it isn't told."""


@dataclass(frozen=True, slots=True)
class Step(ToolCall):
    """A tool call with a recipe's own options; None leaves what the tool says.

    `after` names nodes that must have ended, however they did. An `optional` step that fails counts as null for who
    refers to it.
    """

    timeout_s: float | None = None
    retries: int | None = None
    optional: bool = False
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """Nodes that a control starts, and the value that it makes of them: JSON with references to them or to others.

    `finish` turns that value, resolved, into the control's result (to validate it, or to build a type's JSON); it
    raises `ToolError` for what doesn't fit.
    """

    nodes: tuple["Node", ...] = ()
    value: object = None
    finish: Callable[[object], object] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes under one name: a recipe in a recipe; its result is its body's value. It holds no slot."""

    id: str
    body: Body
    name: str = "group"
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Each:
    """Its body once for every item of `over` (a list, or a reference to one); its result is the list of their values.

    In the body, `Reference(item_id(id))` is the item and `Reference(index_id(id))` its place from 0. `key` (a value
    with references to the item) names an item's nodes, so that a resumed run finds them; its place does when None.
    `at_once` bounds the items in work, `at_most` those accepted. `on_error`: "fail" fails the whole when all items
    have ended, "stop" cancels the others at once, "skip" leaves the item out, "null" puts null in its place.
    """

    id: str
    over: object
    body: Body
    at_once: int | None = None
    at_most: int = AT_MOST
    key: object = None
    on_error: Literal["fail", "stop", "skip", "null"] = "fail"
    name: str = "each"
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class When:
    """`then` if the condition holds, else `otherwise`; nodes of the other branch are skipped. Null without a branch."""

    id: str
    condition: Condition
    then: Body
    otherwise: Body | None = None
    name: str = "when"
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fallback:
    """The value of the first of `tries` that doesn't fail; when all fail, null if `optional`, else the last error."""

    id: str
    tries: tuple[Body, ...]
    optional: bool = False
    name: str = "fallback"
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelStep:
    """A step that asks a model; `arguments` may hold references, `request` is what the layer above makes of it."""

    id: str
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    request: object = field(default=None, compare=False)
    name: str = "ask"
    timeout_s: float | None = None
    after: tuple[str, ...] = ()


Control = Each | When | ModelStep | Group | Fallback
Node = ToolCall | Control


def item_id(each_id: str) -> str:
    """The id under which an `Each`'s body refers to its item."""
    return f"{each_id}/item"


def index_id(each_id: str) -> str:
    """The id under which an `Each`'s body refers to its item's place, from 0."""
    return f"{each_id}/index"


def get_after(node: Node) -> tuple[str, ...]:
    """The nodes that must have ended before this one, however they did."""
    return () if type(node) is ToolCall else getattr(node, "after", ())


def get_bodies(node: Node) -> tuple[tuple[str, Body], ...]:
    """A control's bodies with the words a picture shows for them."""
    match node:
        case Group():
            return (("", node.body),)
        case Each():
            return (("for each", node.body),)
        case When():
            then = ("then", node.then)
            return (then,) if node.otherwise is None else (then, ("otherwise", node.otherwise))
        case Fallback():
            return tuple((f"try {number}", body) for number, body in enumerate(node.tries, 1))
        case ModelStep() | ToolCall():
            return ()
        case _:
            assert_never(node)


def find_own_references(node: Node) -> list[Reference]:
    """The references a node needs before it can begin, without those inside its bodies."""
    match node:
        case ToolCall() | ModelStep():
            return find_references(node.arguments)
        case Each():
            return find_references(node.over)
        case When():
            return list(node.condition.references())
        case Group() | Fallback():
            return []
        case _:
            assert_never(node)


def find_all_references(node: Node) -> Iterator[Reference]:
    """Every reference in a node and its bodies that leads out of them."""
    yield from find_own_references(node)
    inside = node.id + "/"
    key = node.key if isinstance(node, Each) else None
    parts: list[object] = [key]
    for _, body in get_bodies(node):
        parts.append(body.value)
        for inner in body.nodes:
            for reference in find_all_references(inner):
                if not reference.call_id.startswith(inside):
                    yield reference
    for reference in find_references(parts):
        if not reference.call_id.startswith(inside):
            yield reference


def rewrite(node: Node, rename: Callable[[str], str], refer: Callable[[Reference], object]) -> Node:
    """A copy under other names: `rename` gives every node's new id, `refer` what stands for every reference."""
    name = rename(node.id)
    if isinstance(node, ToolCall):
        arguments = {key: substitute(value, refer) for key, value in node.arguments.items()}
        if isinstance(node, Step):
            return replace(node, id=name, arguments=arguments, after=tuple(map(rename, node.after)))
        return ToolCall(name, node.name, arguments)
    after = tuple(map(rename, node.after))

    def copy(body: Body) -> Body:
        return rewrite_body(body, rename, refer)

    match node:
        case ModelStep():
            arguments = {key: substitute(value, refer) for key, value in node.arguments.items()}
            return replace(node, id=name, arguments=arguments, after=after)
        case Group():
            return replace(node, id=name, body=copy(node.body), after=after)
        case Each():
            over, key = substitute(node.over, refer), substitute(node.key, refer)
            return replace(node, id=name, over=over, key=key, body=copy(node.body), after=after)
        case When():
            otherwise = None if node.otherwise is None else copy(node.otherwise)
            condition = node.condition.substitute(refer)
            return replace(node, id=name, condition=condition, then=copy(node.then), otherwise=otherwise, after=after)
        case Fallback():
            return replace(node, id=name, tries=tuple(map(copy, node.tries)), after=after)
        case _:
            assert_never(node)


def rewrite_body(body: Body, rename: Callable[[str], str], refer: Callable[[Reference], object]) -> Body:
    """A body with every node rewritten, and its value."""
    nodes = tuple(rewrite(node, rename, refer) for node in body.nodes)
    return replace(body, nodes=nodes, value=substitute(body.value, refer))


def nest(body: Body, prefix: str, inputs: Mapping[str, object] | None = None) -> Body:
    """A recipe's nodes as the body of a `Group` with the id `prefix`: names begin with it, inputs are put in.

    An input may be a value or a reference; a path into an input that is a reference goes on from there.
    """
    given: Mapping[str, object] = {} if inputs is None else inputs

    def refer(reference: Reference) -> object:
        if reference.call_id != INPUTS:
            return Reference(f"{prefix}/{reference.call_id}", reference.path)
        if not reference.path:
            return dict(given)
        value: object = given[str(reference.path[0])]
        for place, key in enumerate(reference.path[1:], 1):
            if isinstance(value, Reference):
                return Reference(value.call_id, (*value.path, *reference.path[place:]))
            if not isinstance(value, (dict, list, tuple)):
                raise GraphError(f"input {reference.path[0]!r} has no {format_pointer(reference.path[1:])}")
            value = cast(Mapping[object, object], value)[key]
        return value

    return rewrite_body(body, lambda name: f"{prefix}/{name}", refer)


class Graph(Mapping[str, Node]):
    """Nodes by id, in the order of their making; every reference leads back to one of them.

    `inputs` are further ids that may be referred to: what is given from outside.

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

        Raises `GraphError` for an id that is taken, and for a reference to the node itself or to what isn't there.
        """
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
        """The nodes that this one waits for."""
        return self._dependencies[node_id]

    def dependents(self, node_id: str) -> tuple[str, ...]:
        """The nodes that wait for this one."""
        return tuple(self._dependents.get(node_id, ()))

    def check_cycles(self, resources: Mapping[str, Sequence[str]] | None = None) -> None:
        """Raise `CycleError` if nodes wait for one another; `resources` names what each node writes, in their order."""
        edges = {name: list(self._dependencies[name]) for name in self._nodes}
        add_resource_edges(edges, resources or {})
        order_names(edges)

    def layers(self) -> list[list[str]]:
        """The nodes by depth: each layer needs only the layers before it."""
        depth: dict[str, int] = {}
        layers: list[list[str]] = []
        for name in self._nodes:
            depth[name] = 1 + max((depth[other] for other in self._dependencies[name]), default=-1)
            if depth[name] == len(layers):
                layers.append([])
            layers[depth[name]].append(name)
        return layers

    def critical_path(self, durations: Mapping[str, float] | None = None) -> list[str]:
        """The chain of nodes that takes longest; every node takes 1 where `durations` doesn't say."""
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

    def explain(self, durations: Mapping[str, float] | None = None) -> str:
        """The graph in words: layers, critical path, what waits for what."""
        lines: list[str] = []
        layers = self.layers()
        widest = max(map(len, layers), default=0)
        lines.append(f"{_count(len(self), 'node')} in {_count(len(layers), 'layer')}, at most {widest} at once")
        for number, layer in enumerate(layers, 1):
            lines.append(f"  {number}. {', '.join(layer)}")
        lines.append(f"critical path: {' -> '.join(self.critical_path(durations)) or '(nothing)'}")
        for name in self._nodes:
            lines.extend(self._explain_node(self._nodes[name], ""))
        return "\n".join(lines)

    def _explain_node(self, node: Node, indent: str) -> Iterator[str]:
        needed = dict.fromkeys([str(r) for r in find_own_references(node) if r.call_id not in self.inputs])
        waits = (
            f" waits for {', '.join([*needed, *get_after(node)])}" if needed or get_after(node) else " starts at once"
        )
        yield f"{indent}{node.id} ({describe(node)}){waits}"
        for word, body in get_bodies(node):
            if word:
                yield f"{indent}  {word}:"
            for inner in body.nodes:
                yield from self._explain_node(inner, indent + "    ")

    def __getitem__(self, node_id: str) -> Node:
        return self._nodes[node_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def describe(node: Node) -> str:
    """A node in a few words: a call's tool, a control's kind and what decides it."""
    match node:
        case When():
            return f"when {node.condition}"
        case Each():
            over = str(node.over) if isinstance(node.over, Reference) else "a list"
            at_once = "" if node.at_once is None else f", {node.at_once} at once"
            return f"for each of {over}{at_once}"
        case Fallback():
            return "the first that doesn't fail"
        case Group() | ModelStep() | ToolCall():
            return node.name
        case _:
            assert_never(node)


def order_names(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """The names so that each comes after those it waits for, else in the order given.

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


def sort_nodes(nodes: Sequence[Node], resources: Mapping[str, Sequence[str]] | None = None) -> list[Node]:
    """Nodes that may refer forward, in an order that a `Graph` takes.

    `resources` names, for each node that writes, what it writes; writes on one resource wait for those before them in
    `nodes`. Raises `CycleError` naming the members of a circle, and `GraphError` for an id that stands twice.
    """
    by_id: dict[str, Node] = {}
    for node in nodes:
        if node.id in by_id:
            raise GraphError(f"{node.id!r} is taken: every node needs an id of its own")
        by_id[node.id] = node
    edges = {
        node.id: [*(reference.call_id for reference in find_all_references(node)), *get_after(node)] for node in nodes
    }
    add_resource_edges(edges, resources or {})
    return [by_id[name] for name in order_names(edges)]


def add_resource_edges(edges: dict[str, list[str]], resources: Mapping[str, Sequence[str]]) -> None:
    """Let each node wait for the one before it, in the order of `edges`, that writes the same resource."""
    last: dict[str, str] = {}
    for name in edges:
        for resource in resources.get(name, ()):
            if resource in last:
                edges[name].append(last[resource])
            last[resource] = name


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
    import difflib

    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"; is {near[0]!r} meant?" if near else ""
    return f"{node_id!r} refers to {name!r}, which isn't there before it{hint}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
