"""Schemas that Anthropic holds an answer to: every object closed, no recursion, few bounds.

What can't be said there is told in the description instead, and still validated by whoever reads the answer.
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from collections.abc import Iterator, Mapping
from typing import cast

from flowkit.codec import JSON, dumps

_BOUNDS = frozenset(
    (
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    )
)
"""Keywords that are refused; `minItems` is taken up to 1."""

_MAPS = ("properties", "$defs", "definitions")


def close_schema(schema: Mapping[str, JSON]) -> dict[str, JSON] | None:
    """Close the schema as servers require; None where that would refuse values of it, as for a free dictionary."""
    if _is_recursive(schema):
        return None
    try:
        return _close(schema)
    except _Open:
        return None


def is_closed(schema: Mapping[str, JSON]) -> bool:
    """Return whether a schema is closed already, so that a tool with it may be strict."""
    return close_schema(schema) == dict(schema)


class _Open(Exception):
    """An object whose fields aren't known."""


def _close(schema: Mapping[str, JSON]) -> dict[str, JSON]:
    closed: dict[str, JSON] = {}
    told: list[str] = []
    for name, value in schema.items():
        if name in _BOUNDS or (name == "minItems" and value not in (0, 1)):
            told.append(f"{name}: {dumps(value).decode()}")
        elif name in _MAPS and isinstance(value, dict):
            closed[name] = {key: _close_value(inner) for key, inner in value.items()}
        elif name in ("enum", "const", "default", "examples", "required"):
            closed[name] = value
        else:
            closed[name] = _close_value(value)
    if told:
        closed["description"] = f"{closed.get('description') or ''} ({', '.join(told)})".strip()
    if schema.get("type") == "object" or "properties" in schema:
        if "properties" not in schema or schema.get("additionalProperties", False) is not False:
            raise _Open
        closed["additionalProperties"] = False
    return closed


def _close_value(value: JSON) -> JSON:
    if isinstance(value, dict):
        return _close(value)
    return [_close_value(item) for item in value] if isinstance(value, list) else value


def _is_recursive(schema: Mapping[str, JSON]) -> bool:
    definitions = {
        f"#/{place}/{name}": inner
        for place in ("$defs", "definitions")
        if isinstance(found := schema.get(place), dict)
        for name, inner in found.items()
    }
    leads_to = {name: set(_references(inner)) for name, inner in definitions.items()}
    if "#" in _references(cast(JSON, dict(schema))):
        return True
    reached = {name: set(names) for name, names in leads_to.items()}
    for _ in reached:
        for names in reached.values():
            for name in tuple(names):
                names |= leads_to.get(name, set())
    return any(name in names for name, names in reached.items())


def _references(value: JSON) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
