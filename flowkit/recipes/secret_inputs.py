"""Inputs of a recipe that become secrets of its steps: found when it is made, for inputs are kept as they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flowkit.graph import INPUTS, Body, Each, Node, get_bodies, item_id
from flowkit.masking import Step
from flowkit.references import Reference, ToolCall, find_references
from flowkit.tools import Tool


@dataclass(frozen=True, slots=True)
class SecretInput:
    """An argument of a step that is secret, or holds a secret, and refers to an input."""

    step: str
    argument: str
    refers_to: str

    def __str__(self) -> str:
        return (
            f"input {self.refers_to!r} becomes the secret {self.argument!r} of step {self.step!r}; hand it on in the"
            " run's data"
        )


def find_secret_inputs(body: Body, tools: Mapping[str, Tool[..., Any]]) -> Iterator[SecretInput]:
    """Find them in a body and in the bodies of its nodes."""
    return _find(body.nodes, {}, tools)


def _find(
    nodes: Sequence[Node], items: Mapping[str, str], tools: Mapping[str, Tool[..., Any]]
) -> Iterator[SecretInput]:
    """Find them; `items` are the inputs of which the items above are a part, by the items' names."""
    for node in nodes:
        tool = tools.get(node.name) if isinstance(node, ToolCall) else None
        if isinstance(node, ToolCall) and tool is not None and tool.secrets:
            for name, value in node.arguments.items():
                for path, reference in _list_references(value, (name,)):
                    named = _find_input(reference, items)
                    if named is not None and tool.secrets.hold_at(path):
                        yield SecretInput(node.id, name, named)
        inner = items
        if isinstance(node, Each):
            sources = [named for part in find_references(node.over) if (named := _find_input(part, items)) is not None]
            inner = {**items, item_id(node.id): sources[0]} if sources else items
        for _, body in get_bodies(node):
            yield from _find(body.nodes, inner, tools)


def _find_input(reference: Reference, items: Mapping[str, str]) -> str | None:
    if reference.call_id == INPUTS:
        return str(reference.path[0]) if reference.path else INPUTS
    return items.get(reference.call_id)


def _list_references(value: object, path: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], Reference]]:
    if isinstance(value, Reference):
        yield path, value
    elif isinstance(value, Mapping):
        for name, part in cast("Mapping[str, object]", value).items():
            yield from _list_references(part, (*path, name))
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(cast("Sequence[object]", value)):
            yield from _list_references(part, (*path, place))
