"""Nodes: a call of a tool, or one of a few controls, which hold other nodes.

An edge is a `Reference` in a node's values, or a name in its `after`. A control holds other nodes in a `Body`. The ids
of a body's nodes start with the control's id and a slash, so a body is copied for each item by changing that prefix.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, assert_never

from flowkit.errors import GraphError
from flowkit.graph.conditions import Condition
from flowkit.option_checks import show
from flowkit.references import Reference, ToolCall, find_references

INPUTS = "inputs"
"""The id under which a recipe's inputs are referred to: `Reference("inputs", ("order_id",))`."""

AT_MOST = 10_000
"""The default limit on the number of items of an `Each`."""


@dataclass(frozen=True, slots=True)
class Step(ToolCall):
    """A tool call with a recipe's own options; None keeps the tool's.

    `after` names nodes that must have finished, with any outcome. References to an `optional` step that fails resolve
    to null.
    """

    timeout_s: float | None = None
    retries: int | None = None
    optional: bool = False
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """Nodes that a control starts, and the value of the body: JSON with references to them or to others.

    `finish` turns the resolved value into the control's result (to validate it, or to build a type's JSON). It raises
    `ToolError` for a value that doesn't fit.
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
    """A body that runs once per item of `over` (a list, or a reference to one); its result is the list of their values.

    In the body, `Reference(item_id(id))` is the item and `Reference(index_id(id))` its index from 0. `key` (a value
    with references to the item) names an item's nodes, so that a resumed run finds them; by default the index does.
    `at_once` bounds the number of items in parallel, `at_most` the total. `on_error`: "fail" fails the control after all
    items have finished, "stop" cancels the others immediately, "skip" leaves the item out, "null" replaces it by null.
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
    """A step that asks a model; `arguments` may hold references, `request` belongs to the layer above."""

    id: str
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    request: object = field(default=None, compare=False)
    name: str = "ask"
    timeout_s: float | None = None
    after: tuple[str, ...] = ()


Control = Each | When | ModelStep | Group | Fallback
Node = ToolCall | Control


def check_node(node: object) -> None:
    """Raise `GraphError` for an object that is no node, such as a tool."""
    if not isinstance(node, Node):
        raise GraphError(f"{show(node)} is no node, expected ToolCall(id, tool's name, arguments)")


def item_id(each_id: str) -> str:
    """Return the id under which an `Each`'s body refers to its item."""
    return f"{each_id}/item"


def index_id(each_id: str) -> str:
    """Return the id under which an `Each`'s body refers to its item's place, from 0."""
    return f"{each_id}/index"


def get_after(node: Node) -> tuple[str, ...]:
    """Return the nodes that must have finished before this one, with any outcome."""
    return () if type(node) is ToolCall else getattr(node, "after", ())


def get_bodies(node: Node) -> tuple[tuple[str, Body], ...]:
    """Return a control's bodies with the words a picture shows for them."""
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
    """List the references that a node waits for before it starts: a control also waits for those in its values."""
    match node:
        case ToolCall() | ModelStep():
            return find_references(node.arguments)
        case Each():
            return [*find_references(node.over), *_find_leading_out(node, [node.key, node.body.value])]
        case When() | Group() | Fallback():
            decides = node.condition.references() if isinstance(node, When) else ()
            return [*decides, *_find_leading_out(node, [body.value for _, body in get_bodies(node)])]
        case _:
            assert_never(node)


def find_all_references(node: Node) -> Iterator[Reference]:
    """Yield the references in a node and its bodies that lead out of them."""
    yield from find_own_references(node)
    for _, body in get_bodies(node):
        for inner in body.nodes:
            yield from (found for found in find_all_references(inner) if not _is_inside(found, node))


def _find_leading_out(node: Node, values: list[object]) -> list[Reference]:
    return [reference for reference in find_references(values) if not _is_inside(reference, node)]


def _is_inside(reference: Reference, node: Node) -> bool:
    return reference.call_id.startswith(node.id + "/")


def describe(node: Node) -> str:
    """Describe a node in a few words: a call's tool, or a control's kind and its condition or items."""
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
