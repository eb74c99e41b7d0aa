"""The references that a model writes: read at the seal, once, on the arguments as they were parsed.

A reference is the whole value of a top-level argument, an object with `from_call` and, perhaps, `path` (RFC 6901),
and no other key. `{"literal": …}` stands for a value that only looks like one. The labels are implied: the name of the
call's tool as the model sees it, then `name_2`, `name_3` for later calls of it in the same turn.
"""

from collections.abc import Mapping
from typing import TypeGuard

from flowkit.codec import JSON
from flowkit.errors import GraphError, ToolArgumentsError
from flowkit.references import Reference, parse_pointer


def link(tool: str, label: str, arguments: Mapping[str, JSON], earlier: Mapping[str, str]) -> dict[str, Reference]:
    """Return the arguments that are references, by name; `label` is the call's own, `earlier` maps labels to calls.

    Raises `ToolArgumentsError` for an unknown label, a call that refers to itself or to a later one, and a pointer
    that isn't one. Whether the result can have such a path is checked where the graph takes the call.
    """
    references: dict[str, Reference] = {}
    problems: list[str] = []
    for name, value in arguments.items():
        if not _is_reference(value):
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
        references[name] = Reference(found, path)
    if problems:
        raise ToolArgumentsError(tool, problems)
    return references


def unwrap_literal(value: JSON) -> JSON:
    """Return the value that `{"literal": …}` stands for; any other value as it is."""
    return value["literal"] if _is_literal(value) else value


def wrap_literal(value: JSON) -> JSON:
    """Wrap the value if needed, so that `unwrap_literal` returns it and `link` takes it for no reference.

    >>> wrap_literal(5), wrap_literal({"from_call": "get_order"})
    (5, {'literal': {'from_call': 'get_order'}})
    """
    return {"literal": value} if _is_reference(value) or _is_literal(value) else value


def _is_reference(value: JSON) -> TypeGuard[dict[str, JSON]]:
    return isinstance(value, dict) and "from_call" in value and value.keys() <= {"from_call", "path"}


def _is_literal(value: JSON) -> TypeGuard[dict[str, JSON]]:
    return isinstance(value, dict) and value.keys() == {"literal"}
