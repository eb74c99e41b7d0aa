"""Copies of nodes under other names: a body for every item of an `each`, a recipe in a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import assert_never, cast

from flowkit.codec import JSON
from flowkit.errors import GraphError
from flowkit.graph.nodes import INPUTS, Body, Each, Fallback, Group, ModelStep, Node, Step, When
from flowkit.references import SCALARS, Reference, ToolCall, format_pointer, substitute


def rewrite(node: Node, rename: Callable[[str], str], refer: Callable[[Reference], object]) -> Node:
    """Copy a node under other names: `rename` maps node ids, `refer` maps references."""
    name = rename(node.id)
    if type(node) is ToolCall or isinstance(node, ToolCall):
        arguments = {
            key: refer(value) if type(value) is Reference else substitute(value, refer)
            for key, value in node.arguments.items()
        }
        if type(node) is not ToolCall and isinstance(node, Step):
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
    """Copy a body with its nodes and value rewritten."""
    nodes = tuple([rewrite(node, rename, refer) for node in body.nodes])
    # Not by `replace`, which looks at the class each time: a body is copied for every item of an `each`.
    return Body(nodes, substitute(body.value, refer), body.finish)


class _CallParts:
    """A call with plain values and whole references, split into the parts that its copies share and the others.

    `rewrite` would examine each argument again for every copy.
    """

    __slots__ = ("arguments", "name", "references", "tail")

    def __init__(self, call: ToolCall, old: str) -> None:
        cut = len(old)
        self.tail = call.id[cut:]
        self.name = call.name
        self.arguments = dict(call.arguments)
        self.references = [
            (key, value.call_id[cut:], value.path)
            for key, value in call.arguments.items()
            if type(value) is Reference and value.call_id.startswith(old)
        ]

    @classmethod
    def cut(cls, node: Node, old: str) -> "_CallParts | None":
        """Cut a node; None for any other kind."""
        if type(node) is not ToolCall or not node.id.startswith(old):
            return None
        kinds = {type(value) for value in node.arguments.values()}
        return cls(node, old) if kinds <= SCALARS | {Reference} else None


class BodyCopies:
    """Copies of one body, one for each item of an `each`: in each copy another prefix replaces `old` in the ids.

    Shared parts are made once. Only nodes are copied: a body's value is computed by looking up its references.
    """

    def __init__(self, body: Body, old: str) -> None:
        self._old = old
        self._cut = len(old)
        self._new = ""
        self._originals: list[Node | _CallParts] = [_CallParts.cut(node, old) or node for node in body.nodes]

    def copy_nodes(self, new: str) -> tuple[Node, ...]:
        """Copy the nodes, with ids that begin with `new`."""
        self._new = new
        copies: list[Node] = []
        for node in self._originals:
            if isinstance(node, _CallParts):
                arguments = node.arguments.copy()
                for key, tail, path in node.references:
                    arguments[key] = Reference(new + tail, path)
                copies.append(ToolCall(new + node.tail, node.name, arguments))
            else:
                copies.append(rewrite(node, self._rename, self._refer))
        return tuple(copies)

    def look_up(self, look: Callable[[Reference], JSON], new: str, reference: Reference) -> JSON:
        """Look up a reference of the body in the copy with the prefix `new`."""
        self._new = new
        return look(self._refer(reference))

    def _rename(self, name: str) -> str:
        return self._new + name[self._cut :] if name.startswith(self._old) else name

    def _refer(self, reference: Reference) -> Reference:
        name = reference.call_id
        return Reference(self._new + name[self._cut :], reference.path) if name.startswith(self._old) else reference


def nest(body: Body, prefix: str, inputs: Mapping[str, object] | None = None) -> Body:
    """Make a `Group` body with the id `prefix` from a recipe's nodes: names begin with it, inputs are put in.

    An input may be a value or a reference; a path into a referenced input extends that reference.
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
