"""The text that explains to a model how to pass one call's result to another: where a reference is allowed, and what it
can name.

A reference is the whole value of a top-level argument, `{"from_call": "get_order", "path": "/address/city"}`. The
schema offers it as an alternative to the argument's own type, and the tools' descriptions list the fields of their
results.
"""

from collections.abc import Mapping
from dataclasses import replace

from flowkit.codec import JSON
from flowkit.schema_paths import Schema, alternatives, resolve, subschemas, types_of
from flowkit.targets.lowering import Lowered, Note
from flowkit.targets.strict import find_violations

NAME = "Reference"
REFERENCE: Mapping[str, JSON] = {
    "type": "object",
    "description": (
        "The result of an earlier call in this turn. from_call: its tool's name, or name_2, name_3 for the later calls "
        "of that tool. path: a JSON pointer into the result, such as /items/0/id; empty for all of it."
    ),
    "properties": {"from_call": {"type": "string"}, "path": {"type": "string"}},
    "required": ["from_call", "path"],
    "additionalProperties": False,
}
MAX_DEPTH = 3
"""Levels of a result that its outline shows."""
MAX_CHARS = 600
"""Of an outline; a longer one is tried again with a level less."""
MAX_FIELDS = 30
"""Fields of one object that its outline shows."""


def offer_references(lowered: Lowered) -> Lowered:
    """Offer a reference for each argument in the schema; unchanged where a strict target can't express it."""
    properties = subschemas(lowered.schema, "properties")
    if not properties:
        return lowered
    definitions = subschemas(lowered.schema, "$defs")
    name = NAME
    while name in definitions:
        name += "_"
    offer: JSON = {"$ref": f"#/$defs/{name}"}
    offered: dict[str, JSON] = {}
    for key, item in properties.items():
        told: dict[str, JSON] = {word: item[word] for word in ("description", "default", "title") if word in item}
        branches = item.get("anyOf")
        if isinstance(branches, list) and item.keys() <= {"anyOf", *told}:
            offered[key] = {**told, "anyOf": [*branches, offer]}
        else:
            offered[key] = {**told, "anyOf": [{word: item[word] for word in item if word not in told}, offer]}
    known = {key: dict(item) for key, item in definitions.items()}
    schema: dict[str, JSON] = {**lowered.schema, "properties": offered, "$defs": {**known, name: dict(REFERENCE)}}
    if lowered.strict:
        violations = find_violations(schema)
        if violations:
            texts = "; ".join(map(str, violations))
            return replace(lowered, notes=(*lowered.notes, Note("references", "", f"no references: {texts}")))
    return replace(lowered, schema=schema)


def describe_result(description: str, schema: Schema | None) -> str:
    """Append an outline of the result to the description, so that a model can write a path into an unseen result."""
    outline = "" if schema is None else outline_result(schema)
    return f"{description}\n\nGives {outline}.".lstrip() if outline else description


def outline_result(schema: Schema) -> str:
    """Outline the fields of a result in short; empty for one that has none.

    >>> outline_result({"type": "array", "items": {"type": "object", "properties": {"id": {}, "price": {}}}})
    '[{id, price}]'
    """
    outlines = (_outline(schema, schema, depth, frozenset()) for depth in range(MAX_DEPTH, 0, -1))
    return next((outline for outline in outlines if len(outline) <= MAX_CHARS), "")


def _outline(schema: Schema, root: Schema, depth: int, trail: frozenset[str]) -> str:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = None if reference in trail else resolve(reference, root)
        return "" if target is None else _outline(target, root, depth, trail | {reference})
    branches = [branch for keyword in ("anyOf", "oneOf") for branch in alternatives(schema, keyword)]
    told = [text for branch in branches if (text := _outline(branch, root, depth, trail))]
    if told:
        return " or ".join(dict.fromkeys(told))
    properties = subschemas(schema, "properties")
    if properties and depth > 0:
        inner = ((name, _outline(item, root, depth - 1, trail)) for name, item in list(properties.items())[:MAX_FIELDS])
        more = ", …" if len(properties) > MAX_FIELDS else ""
        return "{" + ", ".join(f"{name}: {text}" if text else name for name, text in inner) + more + "}"
    items = schema.get("items")
    if "array" in types_of(schema) and isinstance(items, dict):
        inside = _outline(items, root, depth, trail)
        return f"[{inside}]" if inside else ""
    return ""
