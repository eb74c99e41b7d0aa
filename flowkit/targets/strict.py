"""The rules of OpenAI's structured outputs, as published, and the violations in a schema.

Source: https://platform.openai.com/docs/guides/structured-outputs, section "Supported schemas" (read in 2026); what
it leaves open follows the answers of the server that users quote: `$ref` stands alone ("$ref cannot have keywords",
camel-ai/camel#3001), every schema says its type, patterns can't look around.

Small pieces of schema: how strict ones are put together, and what the keywords of faithful ones mean.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from flowkit.codec import JSON, dumps
from flowkit.schema_paths import TYPES, Schema, alternatives, subschemas, types_of, types_of_value, values_of

FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
KEYWORDS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"pattern", "format"}),
    "number": frozenset({"multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"}),
    "integer": frozenset({"multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
EVERYWHERE = frozenset({"type", "description", "enum", "const"})

MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_TEXT = 120_000
"""Characters of property names, definition names, enum and const values together."""
MAX_ENUM_VALUES = 1_000
LARGE_ENUM_VALUES, MAX_LARGE_ENUM_TEXT = 250, 15_000
"""An enum of text with more values than the first may hold as many characters as the second says."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that the target would refuse; `path` is a JSON pointer into the schema."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path or '/'}: {self.text}"


@dataclass(slots=True)
class _Totals:
    properties: int = 0
    text: int = 0
    enum_values: int = 0
    violations: list[Violation] = field(default_factory=list[Violation])


def find_violations(schema: Schema) -> tuple[Violation, ...]:
    """Find everything in `schema` that strict mode refuses; empty for an accepted schema."""
    totals = _Totals()
    definitions = subschemas(schema, "$defs")
    root = {key: value for key, value in schema.items() if key != "$defs"}
    if root.get("type") != "object":
        totals.violations.append(Violation("", "the root must be an object"))
    for name in definitions:
        totals.text += len(name)
    _check(root, "", totals, definitions)
    for name, definition in definitions.items():
        _check(definition, f"/$defs/{name}", totals, definitions)
    depth = _measure_depth(root, definitions, {})
    totals.violations.extend(_check_totals(totals, depth))
    return tuple(dict.fromkeys(totals.violations))


def is_supported_pattern(pattern: str) -> bool:
    """Return whether the target's regular expressions support the pattern: they have no lookaround or backreference."""
    return not any(mark in pattern for mark in ("(?=", "(?!", "(?<", "(?P", "\\1", "\\Z", "\\A"))


def _check(schema: Schema, path: str, totals: _Totals, definitions: Mapping[str, Schema]) -> None:
    def refuse(text: str, key: str | None = None) -> None:
        totals.violations.append(Violation(path if key is None else f"{path}/{key}", text))

    reference = schema.get("$ref")
    if isinstance(reference, str):
        if len(schema) > 1:
            refuse(f"$ref must stand alone, here with {sorted(schema.keys() - {'$ref'})}")
        name = reference.removeprefix("#/$defs/")
        if reference == name or name not in definitions:
            refuse(f"{reference!r} points to no definition of this schema", "$ref")
        return
    if "anyOf" in schema:
        for key in schema.keys() - {"anyOf", "description"}:
            refuse("not permitted beside anyOf", key)
        for index, branch in enumerate(alternatives(schema, "anyOf")):
            _check(branch, f"{path}/anyOf/{index}", totals, definitions)
        return
    types = types_of(schema)
    if not types or not TYPES.issuperset(types):
        refuse("a schema must say its type")
    allowed = EVERYWHERE.union(*(KEYWORDS.get(kind, frozenset()) for kind in types))
    for key in schema.keys() - allowed:
        refuse(f"{key!r} is not permitted", key)
    for text in _check_values(schema, totals):
        refuse(text)
    if "object" in types:
        _check_object(schema, path, totals, definitions)
    if "array" in types:
        items = schema.get("items")
        if not isinstance(items, dict):
            refuse("an array must say its items")
        else:
            _check(items, f"{path}/items", totals, definitions)


def _check_object(schema: Schema, path: str, totals: _Totals, definitions: Mapping[str, Schema]) -> None:
    properties = subschemas(schema, "properties")
    totals.properties += len(properties)
    totals.text += sum(map(len, properties))
    if schema.get("additionalProperties") is not False:
        totals.violations.append(Violation(path, "additionalProperties must be false"))
    if sorted(cast(Sequence[str], schema.get("required", ()))) != sorted(properties):
        totals.violations.append(Violation(path, "required must name every property"))
    for name, item in properties.items():
        _check(item, f"{path}/properties/{name}", totals, definitions)


def _check_values(schema: Schema, totals: _Totals) -> Iterator[str]:
    kind = schema.get("format")
    if kind is not None and kind not in FORMATS:
        yield f"format {kind!r} is not supported"
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not is_supported_pattern(pattern):
        yield f"pattern {pattern!r} looks around"
    values = values_of(schema)
    if values is not None:
        size = sum(len(value) if isinstance(value, str) else len(dumps(value)) for value in values)
        totals.text += size
        totals.enum_values += len(values) if "enum" in schema else 0
        if len(values) > LARGE_ENUM_VALUES and size > MAX_LARGE_ENUM_TEXT:
            yield f"an enum of {len(values)} values holds {size} characters, at most {MAX_LARGE_ENUM_TEXT}"


def _measure_depth(schema: Schema, definitions: Mapping[str, Schema], known: dict[str, int]) -> int:
    """Measure the nesting depth of objects and lists; recursive references count once."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions:
        if name not in known:
            known[name] = 0
            known[name] = _measure_depth(definitions[name], definitions, known)
        return known[name]
    items = schema.get("items")
    inner = [*alternatives(schema, "anyOf"), *subschemas(schema, "properties").values()]
    if isinstance(items, dict):
        inner.append(items)
    own = 1 if {"object", "array"}.intersection(types_of(schema)) else 0
    return own + max((_measure_depth(item, definitions, known) for item in inner), default=0)


def _check_totals(totals: _Totals, depth: int) -> Iterator[Violation]:
    for what, count, limit in (
        ("properties", totals.properties, MAX_PROPERTIES),
        ("levels of nesting", depth, MAX_DEPTH),
        ("characters of names and values", totals.text, MAX_TEXT),
        ("enum values", totals.enum_values, MAX_ENUM_VALUES),
    ):
        if count > limit:
            yield Violation("", f"{count} {what}, at most {limit}")


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
