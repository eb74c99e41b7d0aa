"""Definitions of an MCP server's tools that can't be used, though they can be read."""

from collections.abc import Mapping
from typing import Any, cast

from flowkit.codec import dumps

SCHEMA_BYTES_AT_MOST = 50_000


def find_refusal(definition: Any) -> str | None:
    """Find why a tool, as `mcp_types.Tool`, is left out; None for one that can be used."""
    if not definition.name.strip():
        return "its name is empty"
    execution = definition.execution
    if execution is not None and getattr(execution, "task_support", None) == "required":
        return "it needs a task, which flowkit doesn't start"
    size = len(dumps(definition.input_schema))
    if size > SCHEMA_BYTES_AT_MOST:
        return f"its schema has {size:,} bytes, at most {SCHEMA_BYTES_AT_MOST:,}"
    remote = _find_remote_reference(definition.input_schema)
    return None if remote is None else f"its schema refers to {remote!r}, which isn't fetched"


def _find_remote_reference(schema: object) -> str | None:
    """Find a `$ref` that leads out of the schema."""
    if isinstance(schema, Mapping):
        for name, value in cast(Mapping[str, object], schema).items():
            if name == "$ref" and isinstance(value, str) and not value.startswith("#"):
                return value
            found = _find_remote_reference(value)
            if found is not None:
                return found
    elif isinstance(schema, list):
        for item in cast(list[object], schema):
            found = _find_remote_reference(item)
            if found is not None:
                return found
    return None
