"""What a JSON Schema says about a path: whether a result can have it, and of what type the value there is.

Only what a schema rules out is a problem; where it is silent, anything may be.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import cast

from flowkit.codec import JSON

Path = tuple[str | int, ...]
Shape = Mapping[str, JSON]

_SHOWN = 6
_ANYTHING: tuple[Shape, ...] = ({},)


def find_problem(schema: Shape, path: Path) -> str | None:
    """Why no value of this schema has `path`; None when one may."""
    shapes: Sequence[Shape] = _members(schema, schema)
    for key in path:
        if not shapes:
            return None
        inner = [found for shape in shapes for found in _enter(schema, shape, key)]
        if not inner:
            return _describe(schema, shapes, key)
        shapes = inner
    return None


def types_at(schema: Shape, path: Path) -> frozenset[str]:
    """The JSON types that the value at `path` may have; empty when the schema doesn't tell."""
    shapes: Sequence[Shape] = _members(schema, schema)
    for key in path:
        shapes = [found for shape in shapes for found in _enter(schema, shape, key)]
    types: set[str] = set()
    for shape in shapes:
        found = set(_types(shape))
        if not found:
            return frozenset()
        types |= found
    return frozenset(types)


def may_fit(found: frozenset[str], expected: frozenset[str]) -> bool:
    """Whether a value of one of these JSON types may be taken where those are expected; text may be read as others."""
    numbers = {"integer", "number"}
    return bool(found & expected) or "string" in found or bool(found & numbers and expected & numbers)


def find_unknown_reference(schema: Shape) -> str | None:
    """The first `$ref` in a schema that leads out of it or nowhere, as `key: value`; or what could lead it elsewhere."""
    stack: list[JSON] = [cast(JSON, schema)]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            for word in ("$ref", "$dynamicRef", "$id"):
                held = value.get(word)
                if isinstance(held, str) and (word != "$ref" or (held != "#" and _follow(schema, held) is None)):
                    return f"{word}: {held!r}"
            stack.extend(value.values())
    return None


def _members(root: Shape, shape: Shape, seen: frozenset[str] = frozenset()) -> list[Shape]:
    """The schema with references followed and unions opened; one that leads back to itself adds nothing."""
    reference = shape.get("$ref")
    if isinstance(reference, str):
        if reference in seen:
            return []
        target = _follow(root, reference)
        return [{}] if target is None else _members(root, target, seen | {reference})
    for word in ("anyOf", "oneOf"):
        options = shape.get(word)
        if isinstance(options, list):
            return [found for option in options if isinstance(option, dict) for found in _members(root, option, seen)]
    whole = shape.get("allOf")
    if isinstance(whole, list):
        if len(whole) == 1 and isinstance(whole[0], dict) and "properties" not in shape:
            return _members(root, whole[0], seen)
        return [{}]
    return [shape]


def _follow(root: Shape, reference: str) -> Shape | None:
    value: JSON = cast(JSON, root)
    for key in reference.removeprefix("#").split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value if isinstance(value, dict) and reference.startswith("#") else None


def _enter(root: Shape, shape: Shape, key: str | int) -> Iterator[Shape]:
    types = set(_types(shape))
    if isinstance(key, str) and (not types or "object" in types):
        properties = shape.get("properties")
        if isinstance(properties, dict) and key in properties:
            yield from _open(root, properties[key])
        elif "patternProperties" in shape:
            yield {}
        else:
            # a class's own fields are all it has, whether or not its schema closes the object
            yield from _open(root, shape.get("additionalProperties", "properties" not in shape))
    if isinstance(key, int) and (not types or "array" in types):
        prefix = shape.get("prefixItems")
        if isinstance(prefix, list) and 0 <= key < len(prefix):
            yield from _open(root, prefix[key])
        elif not isinstance(maximum := shape.get("maxItems"), int) or key < maximum:
            yield from _open(root, shape.get("items", True))


def _open(root: Shape, schema: JSON) -> Sequence[Shape]:
    if isinstance(schema, dict):
        return _members(root, schema)
    return _ANYTHING if schema else ()


def _types(shape: Shape) -> tuple[str, ...]:
    kind = shape.get("type")
    if isinstance(kind, list):
        return tuple(str(item) for item in kind)
    if isinstance(kind, str):
        return (kind,)
    values = [shape["const"]] if "const" in shape else shape.get("enum")
    if isinstance(values, list):
        return tuple({_type_of(value) for value in values})
    return ("object",) if "properties" in shape else ()


def _type_of(value: JSON) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "number"
        case list():
            return "array"
        case dict():
            return "object"


def _describe(root: Shape, shapes: Sequence[Shape], key: str | int) -> str:
    known = list(dict.fromkeys(name for shape in shapes for name in cast(dict[str, JSON], shape.get("properties", {}))))
    types = sorted({kind for shape in shapes for kind in _types(shape)} - {"null"})
    if isinstance(key, int) or not known:
        return f"it is of type {' or '.join(types)}, so it has no {key!r}" if types else f"it has no {key!r}"
    close = get_close_matches(key, known, n=1)
    shown = ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
    return f"it has no {key!r}; " + (f"did you mean {close[0]!r}?" if close else f"it has {shown}")
