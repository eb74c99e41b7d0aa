"""Read a JSON Schema (draft 2020-12): the targets of its references, the types it admits, the schema at a path.

Only a value that the schema rules out is a problem; everything else is allowed. Nothing is ever fetched.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast
from urllib.parse import unquote

from flowkit.codec import JSON
from flowkit.errors import ResolutionError
from flowkit.references import Path, format_pointer
from flowkit.suggestions import suggest

Schema = Mapping[str, JSON]

TYPES = frozenset({"string", "number", "boolean", "integer", "object", "array", "null"})
_NUMERIC = frozenset({"integer", "number", "boolean"})
"""Validation reads each of these as the others where their values agree: 1.0 as 1, true as 1."""
_ANYTHING: tuple[Schema, ...] = ({},)


def find_subschemas(schema: Schema, path: Path, name: str = "result") -> list[Schema]:
    """Find the possible schemas of the value at `path`, with references resolved; an empty schema if it is unknown.

    Raises `ResolutionError` when no value of this schema has such a path; `name` is the owner of the value.

    >>> find_subschemas({"type": "object", "properties": {"city": {"type": "string"}}}, ("city",))
    [{'type': 'string'}]
    """
    found, depth = _walk(schema, path)
    if depth < len(path):
        where = f" at {format_pointer(path[:depth])}" if depth else ""
        raise ResolutionError(f"{name!r}{where} {_describe(schema, found, path[depth])}")
    return found


def find_problem(schema: Schema, path: Path) -> str | None:
    """Explain why no value of this schema has `path`, naming the part before the failing step; None when one may."""
    found, depth = _walk(schema, path)
    return f"it {_describe(schema, found, path[depth])}" if depth < len(path) else None


def find_mismatch(given: Schema, path: Path, parameters: Schema, parameter: str) -> str | None:
    """Explain why the value at `path` in `given` never fits this parameter; None when it may.

    A text that may be a number, or a list as JSON, is only checked once it has a value.
    """
    have, want = _types_at(given, path), _types_at(parameters, (parameter,))
    if have & want or "string" in have or (have & _NUMERIC and want & _NUMERIC):
        return None
    return f"is {_list_types(have)}, expected {_list_types(want)}"


def find_unknown_reference(schema: Schema, *, allow_ids: bool = False) -> str | None:
    """Find the first reference in a schema that points outside or nowhere, as `key: value`.

    An `$id` is also returned, unless `allow_ids`: it would change the targets of the others.
    """
    for part in _list_parts(schema):
        for word in ("$ref", "$dynamicRef"):
            held = part.get(word)
            if isinstance(held, str) and resolve(held, schema) is None:
                return f"{word}: {held!r}"
        if isinstance(part.get("$id"), str) and not allow_ids:
            return f"$id: {part['$id']!r}"
    return None


def resolve(reference: str, root: Schema) -> dict[str, JSON] | None:
    """Resolve a local reference to its schema, without the definitions it may carry; None where there is none."""
    fragment = unquote(reference[1:])
    if not reference.startswith("#"):
        return None
    if fragment and not fragment.startswith("/"):
        anchored = (part for part in _list_parts(root) if fragment in (part.get("$anchor"), part.get("$dynamicAnchor")))
        return next(map(dict, anchored), None)
    found: JSON = cast(JSON, root)
    for token in fragment.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    if isinstance(found, bool):
        return {} if found else {"not": {}}
    if not isinstance(found, Mapping):
        return None
    return {key: value for key, value in found.items() if key not in ("$defs", "definitions")}


def types_within(schema: JSON, root: Schema, trail: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the JSON types of the values that `schema` may admit; all of them if it doesn't restrict them."""
    if not isinstance(schema, dict):
        return frozenset() if schema is False else TYPES
    types = TYPES
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = resolve(reference, root)
        inside = reference in trail or target is None
        types &= frozenset[str]() if inside else types_within(target, root, trail | {reference})
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            branches = (types_within(dict(branch), root, trail) for branch in alternatives(schema, keyword))
            types &= frozenset[str]().union(*branches)
    for part in alternatives(schema, "allOf"):
        types &= types_within(dict(part), root, trail)
    if "type" in schema:
        types &= {kind for said in types_of(schema) for kind in (said, *(("integer",) if said == "number" else ()))}
    values = values_of(schema)
    if values is not None:
        types &= frozenset[str]().union(*map(types_of_value, values))
    return types


def types_of(schema: Schema) -> tuple[str, ...]:
    """Return the value of `type`, always as several."""
    value = schema.get("type")
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def values_of(schema: Schema) -> list[JSON] | None:
    """Return the values that `enum` or `const` allows; None when they aren't listed one by one."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return values if isinstance(values, list) else None


def types_of_value(value: JSON) -> frozenset[str]:
    """Return the JSON Schema types that a value has: 1 and 1.0 are integers and numbers."""
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"integer", "number"}) if value.is_integer() else frozenset({"number"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
        case dict():
            return frozenset({"object"})


def subschemas(schema: Schema, keyword: str) -> dict[str, Schema]:
    """Return the named schemas under `properties`, `$defs` and the like; empty where there are none."""
    value = schema.get(keyword)
    if not isinstance(value, dict):
        return {}
    return {name: item for name, item in value.items() if isinstance(item, dict)}


def alternatives(schema: Schema, keyword: str) -> list[Schema]:
    """Return the schemas in a list: `anyOf`, `oneOf`, `allOf`, `prefixItems`."""
    value = schema.get(keyword)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _walk(root: Schema, path: Path) -> tuple[list[Schema], int]:
    """Return the schemas at the longest part of `path` that a value may have, and how many steps that is."""
    found = _members(root, root)
    for depth, key in enumerate(path):
        inner = [option for schema in found for option in _enter(root, schema, key)]
        if not inner:
            return found, depth
        found = list(_ANYTHING) if {} in inner else inner
    return found, len(path)


def _members(root: Schema, schema: Schema, seen: frozenset[str] = frozenset()) -> list[Schema]:
    """Follow references and open unions; a schema that leads back to itself adds nothing."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in seen:
            return []
        target = resolve(reference, root)
        return [{}] if target is None else _members(root, target, seen | {reference})
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return [found for option in alternatives(schema, word) for found in _members(root, option, seen)]
    if isinstance(schema.get("allOf"), list):
        parts = alternatives(schema, "allOf")
        return _members(root, parts[0], seen) if len(parts) == 1 and "properties" not in schema else [{}]
    return [schema]


def _enter(root: Schema, schema: Schema, key: str | int) -> Iterator[Schema]:
    """Yield the schemas under a key or an index in values of this schema; nothing when there can be no such thing."""
    types = types_within(dict(schema), root)
    name = str(key)
    if "object" in types:
        properties = schema.get("properties")
        if isinstance(properties, dict) and name in properties:
            yield from _open(root, properties[name])
        elif "patternProperties" in schema:
            yield {}
        else:
            # a class's own fields are all it has, whether or not its schema closes the object
            yield from _open(root, schema.get("additionalProperties", "properties" not in schema))
    if "array" in types and (isinstance(key, int) or key.isdecimal()):
        prefix, index = schema.get("prefixItems"), int(key)
        if isinstance(prefix, list) and 0 <= index < len(prefix):
            yield from _open(root, prefix[index])
        elif not isinstance(maximum := schema.get("maxItems"), int) or index < maximum:
            yield from _open(root, schema.get("items", True))


def _open(root: Schema, schema: JSON) -> Sequence[Schema]:
    if isinstance(schema, dict):
        return _members(root, schema)
    return _ANYTHING if schema else ()


def _types_at(root: Schema, path: Path) -> frozenset[str]:
    """Return the types of the value at `path`; all of them if the schema doesn't restrict them."""
    found, depth = _walk(root, path)
    # A value with a format may be accepted in other forms: a date and a duration also as numbers.
    if depth < len(path) or any("format" in schema for schema in found):
        return TYPES
    return frozenset[str]().union(*(types_within(dict(schema), root) for schema in found)) or TYPES


def _describe(root: Schema, found: Sequence[Schema], key: str | int) -> str:
    """Explain why none of these schemas has `key`, as the end of a sentence."""
    names = list(dict.fromkeys(name for schema in found for name in subschemas(schema, "properties")))
    if names:
        return f"has no {key!r}; {suggest(key, names)}"
    types = frozenset[str]().union(*(types_within(dict(schema), root) for schema in found))
    if types == TYPES:
        return f"has no {key!r}"
    if "array" in types:
        return f"is a list: expected an index before {key!r}" if isinstance(key, str) else f"has no item {key}"
    return f"is {_list_types(types)}, so it has no {key!r}"


def _list_types(types: frozenset[str]) -> str:
    implied = {"null", "integer"} if "number" in types else {"null"}
    return " or ".join(sorted(types - implied) or ["null"])


def _list_parts(schema: Schema) -> Iterator[Schema]:
    """Yield the objects in a schema, itself included; unknown keywords may hold schemas too, so none is left out."""
    stack: list[JSON] = [cast(JSON, schema)]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, Mapping):
            yield value
            stack.extend(value.values())
