"""The references that a model writes: read at the seal, once, on the arguments as they were parsed.

A reference is the whole value of a top-level argument, an object with `from_call` and, perhaps, `path` (RFC 6901),
and no other key. `{"literal": …}` stands for a value that only looks like one. The labels are implied: the name of the
call's tool as the model sees it, then `name_2`, `name_3` for later calls of it in the same turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flowkit.codec import JSON
from flowkit.errors import GraphError, ToolArgumentsError
from flowkit.references import Path, Reference, format_pointer, parse_pointer
from flowkit.targets.definitions import resolve
from flowkit.tools import Tool


@dataclass(frozen=True, slots=True)
class Labelled:
    """An earlier call of the turn, as a reference can name it; `tool` is None when nobody knows its tool."""

    node: str
    tool: Tool[..., Any] | None


def link(
    tool: Tool[..., Any], label: str, arguments: Mapping[str, JSON], earlier: Mapping[str, Labelled]
) -> dict[str, Reference]:
    """The arguments that are references, by name; `label` is the call's own.

    Raises `ToolArgumentsError` for an unknown label, a call that refers to itself or to a later one, a pointer that
    isn't one, and a path that the schema of that call's result doesn't have.
    """
    references: dict[str, Reference] = {}
    problems: list[str] = []
    for name, value in arguments.items():
        if not isinstance(value, dict) or "from_call" not in value or not value.keys() <= {"from_call", "path"}:
            continue
        source, pointer = value["from_call"], value.get("path", "")
        found = earlier.get(source) if isinstance(source, str) else None
        if found is None:
            what = "this call itself" if source == label else f"no earlier call {source!r}"
            problems.append(f"{name!r} refers to {what}; there is {', '.join(map(repr, earlier)) or 'none'}")
            continue
        try:
            path = parse_pointer(pointer if isinstance(pointer, str) else str(pointer))
        except GraphError as error:
            problems.append(f"{name!r}: {error}")
            continue
        problem = None if found.tool is None else check_path(found.tool.result_schema, path)
        if problem is not None:
            problems.append(f"{name!r}: the result of {source!r} {problem}")
        references[name] = Reference(found.node, path)
    if problems:
        raise ToolArgumentsError(tool.name, problems)
    return references


def unwrap_literal(value: JSON) -> JSON:
    """The value that `{"literal": …}` stands for; any other value as it is."""
    return value["literal"] if isinstance(value, dict) and value.keys() == {"literal"} else value


def check_path(schema: Mapping[str, Any] | None, path: Path) -> str | None:
    """Why no value of this schema has the path; None when one may have it.

    >>> check_path({"properties": {"city": {"type": "string"}}, "additionalProperties": False}, ("town",))
    "has no 'town' at ''; there is 'city'"
    """
    if schema is None:
        return None
    return _check(schema, schema, path, 0)


def _check(schema: Mapping[str, Any], root: Mapping[str, Any], path: Path, depth: int) -> str | None:
    if depth == len(path):
        return None
    target = schema.get("$ref")
    if isinstance(target, str):
        found = resolve(target, root)
        return None if found is None else _check(found, root, path, depth)
    branches = cast(Sequence[Mapping[str, Any]], schema.get("anyOf") or schema.get("oneOf") or ())
    if branches:
        problems = [_check(branch, root, path, depth) for branch in branches if branch.get("type") != "null"]
        return None if not problems or None in problems else problems[0]
    key, where = path[depth], format_pointer(path[:depth])
    match schema.get("type"):
        case "array":
            if not str(key).lstrip("-").isdigit():
                return f"has a list at {where!r}: expected an index before {key!r}, such as {where}/0"
            items = schema.get("items")
            return _check(cast(Mapping[str, Any], items), root, path, depth + 1) if isinstance(items, dict) else None
        case "string" | "integer" | "number" | "boolean" | "null" as kind:
            return f"is a {kind} at {where!r}, so it has no {key!r}"
        case _:
            properties = cast(Mapping[str, Mapping[str, Any]], schema.get("properties", {}))
            if str(key) in properties:
                return _check(properties[str(key)], root, path, depth + 1)
            extra = schema.get("additionalProperties", not properties)
            if isinstance(extra, dict):
                return _check(cast(Mapping[str, Any], extra), root, path, depth + 1)
            return None if extra else f"has no {key!r} at {where!r}; there is {', '.join(map(repr, properties))}"
