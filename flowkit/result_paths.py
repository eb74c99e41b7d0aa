"""Where a path leads in a result whose schema is known: told when a call is sealed, before anything has run."""

from collections.abc import Iterator, Mapping
from typing import cast

from flowkit.codec import JSON
from flowkit.errors import ResolutionError
from flowkit.references import Path, format_pointer

Schema = Mapping[str, JSON]

_UNIONS = ("anyOf", "oneOf")
_DEPTH = 32
"""How far `$ref` is followed to another `$ref`."""


def find_subschemas(schema: Schema, path: Path, name: str = "result") -> list[Schema]:
    """The schemas that the value at `path` may have; an empty schema where nothing is known.

    Raises `ResolutionError` when no result of this schema has such a path.

    >>> find_subschemas({"type": "object", "properties": {"city": {"type": "string"}}}, ("city",))
    [{'type': 'string'}]
    """
    found = list(_alternatives(dict(schema), schema))
    for depth, key in enumerate(path):
        after = [inner for option in found for inner in _step(option, key, schema)]
        if not after:
            where = f"{name!r}" + (f" at {format_pointer(path[:depth])}" if depth else "")
            raise ResolutionError(f"{where} {_describe(found, key)}")
        found = after
    return found


def _step(schema: Schema, key: str | int, root: Schema) -> Iterator[Schema]:
    """What stands under a key or an index in values of this schema; nothing when there can be no such thing."""
    if not schema or not _is_typed(schema):
        yield {}
        return
    properties = schema.get("properties")
    if _allows(schema, "object"):
        if isinstance(properties, dict) and str(key) in properties:
            yield from _alternatives(properties[str(key)], root)
        elif "patternProperties" in schema or schema.get("additionalProperties", True) is not False:
            # A model's schema doesn't say so, but it has no fields besides those named.
            extra = schema.get("additionalProperties")
            if isinstance(extra, dict):
                yield from _alternatives(extra, root)
            elif extra is True or not isinstance(properties, dict) or "patternProperties" in schema:
                yield {}
    if _allows(schema, "array") and (isinstance(key, int) or key.isdigit()):
        items, first = schema.get("items"), schema.get("prefixItems")
        index = int(key)
        if isinstance(first, list) and 0 <= index < len(first):
            yield from _alternatives(first[index], root)
        elif isinstance(items, dict):
            yield from _alternatives(items, root)
        elif items is not False and not isinstance(first, list):
            yield {}


def _alternatives(schema: JSON, root: Schema) -> Iterator[Schema]:
    """The members of a union, with references to definitions followed."""
    stack: list[tuple[JSON, int]] = [(schema, 0)]
    while stack:
        option, depth = stack.pop(0)
        if not isinstance(option, dict):
            yield {}
            continue
        target = option.get("$ref")
        if isinstance(target, str) and depth < _DEPTH:
            stack.insert(0, (_find_definition(target, root), depth + 1))
            continue
        union = next((option[word] for word in _UNIONS if word in option), None)
        if isinstance(union, list):
            stack[:0] = [(member, depth) for member in union]
        else:
            yield option


def _find_definition(target: str, root: Schema) -> JSON:
    found: JSON = cast(JSON, root)
    for key in target.removeprefix("#").strip("/").split("/"):
        if not isinstance(found, dict) or key not in found:
            return {}
        found = found[key]
    return found


def _is_typed(schema: Schema) -> bool:
    return any(word in schema for word in ("type", "properties", "items", "prefixItems", "enum", "const"))


def _allows(schema: Schema, kind: str) -> bool:
    declared = schema.get("type")
    if declared is None:
        return ("properties" in schema) if kind == "object" else ("items" in schema or "prefixItems" in schema)
    return declared == kind or (isinstance(declared, list) and kind in declared)


def _describe(options: list[Schema], key: str | int) -> str:
    names = [name for option in options for name in cast(dict[str, JSON], option.get("properties") or {})]
    if names:
        return f"has no {key!r}; there is {', '.join(map(repr, names))}"
    if any(_allows(option, "array") for option in options):
        return f"is a list: expected an index before {key!r}"
    kinds = " or ".join(sorted({str(option.get("type", "value")) for option in options}))
    return f"is {kinds}, so it has no {key!r}"


_HOLDERS = frozenset({"object", "array"})


def find_mismatch(given: list[Schema], wanted: JSON, root: Schema) -> str | None:
    """Why no value of the schemas `given` fits `wanted`, a part of the schema `root`; None when one may.

    Only what can't be converted counts: an object for a number, a number for a list. Whether a text is a number, or
    holds a list as JSON, is told when the value is there.
    """
    have = {kind for option in given for kind in _kinds(option)}
    want = {kind for option in _alternatives(wanted, root) for kind in _kinds(option)}
    if not have or not want or "any" in have or "any" in want or "string" in have:
        return None
    fits = bool(have & want) or bool((have - _HOLDERS - {"null"}) and (want - _HOLDERS - {"null"}))
    return (
        None if fits else f"is {' or '.join(sorted(have))}, expected {' or '.join(sorted(want - {'null'}) or ['null'])}"
    )


def _kinds(schema: Schema) -> set[str]:
    declared = schema.get("type")
    if isinstance(declared, str):
        return {declared}
    if isinstance(declared, list):
        return {str(kind) for kind in declared}
    return {"any"}
