"""Parts of a schema that are right at a glance, so that the check of the whole needn't look at them.

To check a schema by the schema of schemas takes half a millisecond for each property, and most properties are a type
and a description.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

_TYPES = frozenset(("string", "number", "integer", "boolean", "null", "array", "object"))
_NAMED = ("properties", "$defs", "definitions")
"""Whose members may have any name."""
_SINGLE = ("items", "additionalProperties", "contains", "not")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")


_RIGHT: Any = object()
"""What is left of something right."""


def leave_out_plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the schema without what is right at a glance; the copy is right exactly if the schema is.

    >>> leave_out_plain({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "text"}}})
    {'properties': {'b': {'type': 'text'}}}
    """
    return {name: rest for name, value in schema.items() if (rest := _thin(name, value)) is not _RIGHT}


def _thin(name: str, value: Any) -> Any:
    """Return what is left of a keyword's value."""
    check = _CHECKS.get(name)
    if check is not None:
        return _RIGHT if check(value) else value
    if name in _NAMED and isinstance(value, dict):
        members = {key: _thin_schema(part) for key, part in cast("dict[str, Any]", value).items()}
        left = {key: part for key, part in members.items() if part is not _RIGHT}
        return left or _RIGHT
    if name in _SINGLE and isinstance(value, dict):
        return _thin_schema(value)
    if name in _LISTED and isinstance(value, list) and value:
        parts: list[Any] = [_thin_schema(part) for part in cast("list[Any]", value)]
        if all(part is _RIGHT for part in parts):
            return _RIGHT
        # At their places: an error names the place.
        thin: list[Any] = [{} if part is _RIGHT else part for part in parts]
        return thin
    return cast(Any, value)


def _thin_schema(schema: Any) -> Any:
    if isinstance(schema, dict):
        return leave_out_plain(cast("dict[str, Any]", schema)) or _RIGHT
    return schema  # a bare `true` is no schema in the old drafts


def _is_type(value: Any) -> bool:
    return isinstance(value, str) and value in _TYPES


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "title": _is_text,
    "description": _is_text,
    "format": _is_text,
    "minLength": _is_count,
    "maxLength": _is_count,
    "minItems": _is_count,
    "maxItems": _is_count,
    "minimum": _is_number,
    "maximum": _is_number,
}
