"""Inputs of a recipe that become secrets of its steps: found when it is made, for inputs are kept as they are.

Steps that take a value which may be missing: found when a recipe is made, since they could only fail in its run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jsonschema import Draft202012Validator

from flowkit.graph import INPUTS, Body, Each, Fallback, Node, When, get_bodies, item_id
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
    """Find missing values in a body and in the bodies of its nodes."""
    return _find_secrets(body.nodes, {}, tools)


def _find_secrets(
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
            yield from _find_secrets(body.nodes, inner, tools)


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


OPTIONAL = "when it fails"
LEFT_OUT = "when its condition doesn't hold"


@dataclass(frozen=True, slots=True)
class MissingValue:
    """An argument of a step that takes no null, and refers to what may be null."""

    step: str
    argument: str
    refers_to: str
    when: str

    def __str__(self) -> str:
        cure = "give 'otherwise'" if self.when == LEFT_OUT else "give a fallback"
        return (
            f"{self.refers_to!r} is null {self.when}, and {self.argument!r} of step {self.step!r} takes no null; "
            f"{cure}, or put the step under a condition on it"
        )


def find_missing_values(body: Body, tools: Mapping[str, Tool[..., Any]]) -> Iterator[MissingValue]:
    """Find missing values in a body and in the bodies of its nodes.

    A step under a condition on the value may rely on that condition.
    """
    return _find_missing(body.nodes, {}, frozenset(), tools)


def _find_missing(
    nodes: tuple[Node, ...],
    above: Mapping[str, str],
    guarded: frozenset[str],
    tools: Mapping[str, Tool[..., Any]],
) -> Iterator[MissingValue]:
    may_miss = {**above, **{node.id: when for node in nodes if (when := _may_be_null(node)) is not None}}
    for node in nodes:
        if isinstance(node, ToolCall) and node.name in tools:
            for name, value in node.arguments.items():
                if isinstance(value, Reference) and not value.path and value.call_id not in guarded:
                    when = may_miss.get(value.call_id)
                    if when is not None and not _takes_null(tools[node.name], name):
                        yield MissingValue(node.id, name, value.call_id, when)
        looked_at = guarded
        if isinstance(node, When):
            looked_at = guarded | {reference.call_id for reference in find_references(_values_of(node.condition))}
        for _, body in get_bodies(node):
            yield from _find_missing(body.nodes, may_miss, looked_at, tools)


def _may_be_null(node: Node) -> str | None:
    if isinstance(node, When):
        return LEFT_OUT if node.otherwise is None else None
    is_optional = node.optional if isinstance(node, Fallback) else getattr(node, "optional", False)
    return OPTIONAL if is_optional else None


def _takes_null(tool: Tool[..., Any], name: str) -> bool:
    schema = tool.parameters
    held = cast(Mapping[str, Any], schema.get("properties", {})).get(name)
    if held is None:
        return True  # an unknown name is refused elsewhere
    whole = {**held, "$defs": schema["$defs"]} if "$defs" in schema else held
    return bool(cast(Any, Draft202012Validator(cast(Any, whole))).is_valid(None))


def _values_of(condition: object) -> list[object]:
    """List all values that a condition compares, nested conditions included."""
    values: list[object] = []
    for name in cast(tuple[str, ...], getattr(type(condition), "__slots__", ())):
        value: object = getattr(condition, name)
        values += [value] if isinstance(value, Reference) or not hasattr(value, "__slots__") else _values_of(value)
    return values
