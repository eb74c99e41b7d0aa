"""Convert schemas to the form that Anthropic enforces: every object closed, no recursion, few keywords.

Constraints that the form lacks go into the description, and are still validated when the answer is read.
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from collections.abc import Iterator, Mapping
from typing import cast

from flowkit.codec import JSON, dumps

_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
)
_MAPS = ("properties", "$defs", "definitions")
_SCHEMAS = ("items", "anyOf", "allOf")
_AS_THEY_ARE = ("type", "enum", "const", "default", "examples", "required", "title", "description", "$ref")
_SILENT = ("additionalProperties", "discriminator", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly")
"""What a server refuses, and the model needs no words for."""
_NO_REGEX = ("(?=", "(?!", "(?<", "(?P", "\\1", "\\b", "\\B", "\\A", "\\Z")
_SAY_A_KIND = ("type", "anyOf", "oneOf", "allOf", "enum", "const", "$ref", "properties")


def close_schema(schema: Mapping[str, JSON]) -> dict[str, JSON] | None:
    """Close the schema as servers require; None where that would refuse values of it, as for a free dictionary."""
    if _is_recursive(schema):
        return None
    try:
        return _close(schema)
    except _Open:
        return None


def is_closed(schema: Mapping[str, JSON]) -> bool:
    """Return True if a schema is closed already, so a tool with it can be strict."""
    return close_schema(schema) == dict(schema)


class _Open(Exception):
    """An object whose fields aren't known, or a value of any kind."""


def _close(schema: Mapping[str, JSON]) -> dict[str, JSON]:
    if not any(name in schema for name in _SAY_A_KIND):
        raise _Open
    closed: dict[str, JSON] = {}
    told: list[str] = []
    for name, value in schema.items():
        if name in _MAPS and isinstance(value, dict):
            closed[name] = {key: _close_value(inner) for key, inner in value.items()}
        elif name in _SCHEMAS:
            closed[name] = _close_value(value)
        elif name == "oneOf":
            closed["anyOf"] = _close_value(value)
        elif name in _AS_THEY_ARE or _is_taken(name, value):
            closed[name] = value
        elif name not in _SILENT:
            told.append(f"{name}: {dumps(value).decode()}")
    if told:
        closed["description"] = f"{closed.get('description') or ''} ({', '.join(told)})".strip()
    if schema.get("type") == "object" or "properties" in schema:
        if "properties" not in schema or schema.get("additionalProperties", False) is not False:
            raise _Open
        closed["additionalProperties"] = False
    return _let_references_stand_alone(closed)


def _is_taken(name: str, value: JSON) -> bool:
    match name:
        case "minItems":
            return value in (0, 1)
        case "format":
            return value in _FORMATS
        case "pattern":
            return isinstance(value, str) and not any(mark in value for mark in _NO_REGEX)
        case _:
            return False


def _let_references_stand_alone(closed: dict[str, JSON]) -> dict[str, JSON]:
    """Move a reference beside other words into an `anyOf`, as the definitions of a schema may stand beside it."""
    if "$ref" not in closed or not closed.keys() - {"$ref", "$defs", "definitions"}:
        return closed
    others: dict[str, JSON] = {name: value for name, value in closed.items() if name != "$ref"}
    return {**others, "anyOf": [{"$ref": closed["$ref"]}]}


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
