"""Small pieces of schema: how strict ones are put together, and what the keywords of faithful ones mean."""

import json
from collections.abc import Iterable, Mapping, Sequence

from flowkit.codec import JSON
from flowkit.schema_paths import Schema, types_of_value, values_of
from flowkit.targets.strict import KEYWORDS

SILENT = frozenset({"title", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly", "discriminator"})
ANNOTATIONS = SILENT | {"description", "default", "examples"}
TEXTS: Mapping[str, str] = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minProperties": "at least {} entries",
    "maxProperties": "at most {} entries",
    "pattern": "matches the regular expression {}",
    "format": "format: {}",
    "contentEncoding": "encoding: {}",
    "contentMediaType": "content: {}",
    "uniqueItems": "no item twice",
}
WORDS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType"}),
    "number": KEYWORDS["number"],
    "integer": KEYWORDS["integer"],
    "array": frozenset(
        {"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains"}
    ),
    "object": frozenset(
        {"properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties"}
        | {"maxProperties", "dependentRequired", "dependentSchemas"}
    ),
    "boolean": frozenset(),
    "null": frozenset(),
}
"""The keywords that mean something for one type only."""


def array_of(items: JSON, bounds: Schema, described: dict[str, JSON]) -> dict[str, JSON]:
    """Make a list of `items` with the `minItems` and `maxItems` of `bounds`."""
    kept = {key: bounds[key] for key in ("minItems", "maxItems") if bounds.get(key) is not None}
    return {"type": "array", **described, "items": items, **kept}


def closed_object(properties: dict[str, JSON], described: dict[str, JSON]) -> dict[str, JSON]:
    """Make an object as strict mode requires: every field required, no others."""
    return {
        "type": "object",
        **described,
        "properties": properties,
        "required": list[JSON](properties),
        "additionalProperties": False,
    }


def nullable(lowered: dict[str, JSON]) -> dict[str, JSON]:
    """Return the same schema with null allowed."""
    null: JSON = {"type": "null"}
    branches = lowered.get("anyOf")
    if isinstance(branches, list):
        return {**lowered, "anyOf": [*branches, null]}
    kind = lowered.get("type")
    if not lowered.keys() & {"$ref", "enum", "const", "items", "properties"}:
        return {**lowered, "type": [*(kind if isinstance(kind, list) else [kind]), "null"]}
    return {"anyOf": [lowered, null]}


def tell(description: str, texts: Sequence[str]) -> dict[str, JSON]:
    """Append remarks to a description; return nothing at all when both are empty."""
    remarks = "; ".join(texts)
    if description and remarks:
        return {"description": f"{description} ({remarks})"}
    return {"description": description or remarks} if description or remarks else {}


def tell_examples(schema: Schema) -> list[str]:
    """Return a remark with the schema's examples, if any."""
    examples = schema.get("examples")
    if not isinstance(examples, list) or not examples:
        return []
    return [f"for example {', '.join(json.dumps(example, ensure_ascii=False) for example in examples)}"]


def unique(schemas: Iterable[dict[str, JSON]]) -> list[dict[str, JSON]]:
    """Return the schemas in their order, equal ones once."""
    kept: list[dict[str, JSON]] = []
    for schema in schemas:
        if schema not in kept:
            kept.append(schema)
    return kept


def guess_types(schema: Schema) -> tuple[str, ...]:
    """Guess the types of a schema from its other keywords."""
    values = values_of(schema)
    if values is not None:
        kinds = [min(types_of_value(value)) for value in values]  # "integer" before "number"
        return tuple(dict.fromkeys(kinds))
    return tuple(kind for kind, words in WORDS.items() if words & schema.keys())[:1]


def only_type(schema: Schema, kind: str) -> dict[str, JSON]:
    """Reduce a schema that has several types to one."""
    others = frozenset[str]().union(*(words for other, words in WORDS.items() if other != kind)) - WORDS[kind]
    return {**{key: value for key, value in schema.items() if key not in others | ANNOTATIONS}, "type": kind}
