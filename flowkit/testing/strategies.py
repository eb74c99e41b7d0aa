"""Hypothesis strategies for a model's arguments: every JSON value that the tool's schema allows.

`arguments(tool)` also works for recursive schemas: below `MAX_DEPTH` references only required parts are drawn.
Keywords without a strategy of their own (`not`, `if`, `contains`, …) are applied by filtering.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta, timezone
from typing import Any, Protocol, cast

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from flowkit.codec import JSON
from flowkit.schema_paths import Schema, resolve

Values = SearchStrategy[JSON]

MAX_DEPTH = 3
"""References within references before only what must be there is drawn."""
MAX_SIZE = 4
"""Items or free fields drawn where a schema sets no limit of its own."""
MAX_INTEGER = 2**53
"""Where a schema has no bound: beyond it, JSON's numbers lose digits in other languages (RFC 8259, section 6)."""


class HasParameters(Protocol):
    """A tool, as far as its arguments are concerned."""

    @property
    def parameters(self) -> Mapping[str, Any]: ...


def arguments(tool: HasParameters) -> SearchStrategy[dict[str, JSON]]:
    """Generate arguments that the tool's schema allows, as a dict of JSON values."""
    return cast(SearchStrategy[dict[str, JSON]], instances(tool.parameters))


def instances(schema: Mapping[str, Any]) -> Values:
    """Generate values of any JSON Schema (draft 2020-12) with local references."""
    return _Drawer(schema).draw(dict(schema), 0)


class _Drawer:
    """Makes strategies for the parts of one schema; each reference once for each depth."""

    def __init__(self, root: Schema) -> None:
        from jsonschema import Draft202012Validator

        self._root = root
        self._validator: Any = Draft202012Validator(dict(root))
        self._references: dict[tuple[str, int], Values] = {}

    def draw(self, schema: JSON, depth: int) -> Values:
        if not isinstance(schema, dict):
            return st.nothing() if schema is False else any_json()
        drawn = self._draw(schema, depth)
        if schema.keys() & _FILTERED or (schema.keys() & _COMBINING and schema.keys() - _COMBINING - _ANNOTATIONS):
            # A part is checked where it stands, so that few draws are thrown away.
            return drawn.filter(cast(Callable[[JSON], bool], self._validator.evolve(schema=schema).is_valid))
        return drawn

    def _draw(self, schema: Schema, depth: int) -> Values:
        if "enum" in schema:
            return st.sampled_from(cast(list[JSON], schema["enum"]))
        if "const" in schema:
            return st.just(schema["const"])
        if "type" in schema or "properties" in schema:
            kinds = schema.get("type", "object")
            return st.one_of(*(self._of_type(kind, schema, depth) for kind in _listed(kinds)))
        if "$ref" in schema:
            return self._reference(str(schema["$ref"]), depth)
        for keyword in ("anyOf", "oneOf", "allOf"):
            if keyword in schema:
                branches = _listed(schema[keyword])
                if keyword == "allOf":
                    branches = [_merge(branches, self._root)]
                elif depth >= MAX_DEPTH:
                    branches = [branch for branch in branches if "$ref" not in json.dumps(branch)] or branches
                return st.one_of(*(self.draw(branch, depth) for branch in branches))
        return any_json()

    def _reference(self, reference: str, depth: int) -> Values:
        key = (reference, min(depth + 1, MAX_DEPTH))
        if key not in self._references:
            target = _follow(reference, self._root)
            self._references[key] = st.deferred(lambda: self.draw(target, key[1]))
        return self._references[key]

    def _of_type(self, kind: JSON, schema: Schema, depth: int) -> Values:
        match kind:
            case "null":
                return st.none()
            case "boolean":
                return st.booleans()
            case "integer":
                return _integers(schema)
            case "number":
                return _numbers(schema)
            case "string":
                return _texts(schema)
            case "array":
                return self._array(schema, depth)
            case "object":
                return self._object(schema, depth)
            case _:
                raise ValueError(f"a schema has the type {kind!r}")

    def _array(self, schema: Schema, depth: int) -> Values:
        prefix = [self.draw(item, depth) for item in _listed(schema.get("prefixItems", []))]
        items = schema.get("items", True)
        fewest = int(cast(int, schema.get("minItems", 0)))
        most = int(cast(int, schema.get("maxItems", max(fewest, len(prefix)) + MAX_SIZE)))
        if depth >= MAX_DEPTH:
            most = fewest
        first = [st.tuples(*prefix[:count]) for count in range(min(fewest, len(prefix)), min(most, len(prefix)) + 1)]
        rest_fewest, rest_most = max(0, fewest - len(prefix)), max(0, most - len(prefix))
        rest: SearchStrategy[list[JSON]] = st.just([])
        if rest_most and items is not False:
            unique = _canonical if schema.get("uniqueItems") else None
            rest = st.lists(self.draw(items, depth), min_size=rest_fewest, max_size=rest_most, unique_by=unique)
        if not prefix:
            return cast(Values, rest)
        whole = st.tuples(first[-1], rest).map(lambda parts: [*parts[0], *parts[1]])
        shorter = (part.map(list) for part in first[:-1])
        return cast(Values, st.one_of(whole, *shorter))

    def _object(self, schema: Schema, depth: int) -> Values:
        properties = cast(dict[str, JSON], schema.get("properties", {}))
        required = [str(name) for name in _listed(schema.get("required", []))]
        fields = {name: self.draw(item, depth) for name, item in properties.items()}
        must = {name: fields.get(name, any_json()) for name in required}
        may = {name: drawn for name, drawn in fields.items() if name not in required} if depth < MAX_DEPTH else {}
        known: SearchStrategy[dict[str, JSON]] = st.fixed_dictionaries(must, optional=may)
        free = self._free_fields(schema, depth)
        return known if free is None else st.tuples(free, known).map(lambda parts: {**parts[0], **parts[1]})

    def _free_fields(self, schema: Schema, depth: int) -> SearchStrategy[dict[str, JSON]] | None:
        """Generate fields that aren't named one by one; None where a schema has none, or doesn't say that it has."""
        named = cast(dict[str, JSON], schema.get("properties", {}))
        fewest = max(0, int(cast(int, schema.get("minProperties", 0))) - len(named))
        most = int(cast(int, schema.get("maxProperties", fewest + MAX_SIZE)))
        if depth >= MAX_DEPTH:
            most = fewest
        patterns = cast(dict[str, JSON], schema.get("patternProperties", {}))
        others = schema.get("additionalProperties", "properties" not in schema and not patterns)
        kinds = [(_matches(pattern), self.draw(item, depth)) for pattern, item in patterns.items()]
        if others is not False:
            names = self.draw({"type": "string", **cast(Schema, schema.get("propertyNames", {}))}, depth)
            kinds.append((cast(SearchStrategy[str], names), self.draw(others, depth)))
        if not kinds:
            return None
        names, values = kinds[0] if len(kinds) == 1 else kinds[-1]
        return st.dictionaries(names.filter(lambda name: name not in named), values, min_size=fewest, max_size=most)


_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "discriminator", "$defs", "definitions"})
_COMBINING = frozenset({"$ref", "anyOf", "oneOf", "allOf"})
_FILTERED = frozenset(
    {
        "oneOf",
        "not",
        "if",
        "contains",
        "dependentRequired",
        "dependentSchemas",
        "unevaluatedProperties",
        "patternProperties",
    }
    | {"unevaluatedItems", "minProperties", "maxProperties"}
)


def any_json() -> Values:
    """Generate any JSON value, a small one."""
    scalars = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | _FLOATS | _TEXT
    inner = st.recursive(
        scalars, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(_TEXT, inside, max_size=3), max_leaves=5
    )
    return cast(Values, inner)


_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def _integers(schema: Schema) -> Values:
    low, high = _bound(schema, "minimum", "exclusiveMinimum"), _bound(schema, "maximum", "exclusiveMaximum")
    least = None if low is None else _ceiling(low[0], low[1])
    most = None if high is None else -_ceiling(-high[0], high[1])
    least = min(-MAX_INTEGER, MAX_INTEGER if most is None else most) if least is None else least
    most = max(MAX_INTEGER, least) if most is None else most
    step = schema.get("multipleOf", 1)
    if isinstance(step, int) and step > 1:
        return st.integers(-(-least // step), most // step).map(lambda count: count * step)
    return st.integers(least, most)


def _numbers(schema: Schema) -> Values:
    low, high = _bound(schema, "minimum", "exclusiveMinimum"), _bound(schema, "maximum", "exclusiveMaximum")
    step = schema.get("multipleOf")
    if isinstance(step, (int, float)):
        least, most = low[0] if low else -1e6, high[0] if high else 1e6
        counts = st.integers(int(least // step), int(most // step))
        return counts.map(lambda count: count * step).filter(lambda value: least <= value <= most)
    drawn = st.floats(
        min_value=low[0] if low else None,
        max_value=high[0] if high else None,
        exclude_min=low is not None and low[1],
        exclude_max=high is not None and high[1],
        allow_nan=False,
        allow_infinity=False,
    )
    whole = _ceiling(low[0], low[1]) if low else 0
    return drawn | st.just(whole).filter(lambda value: high is None or value < high[0])


def _texts(schema: Schema) -> Values:
    fewest = int(cast(int, schema.get("minLength", 0)))
    most = int(cast(int, schema.get("maxLength", fewest + 20)))

    def fits(text: str) -> bool:
        return fewest <= len(text) <= most

    pattern = schema.get("pattern")
    encoding = schema.get("contentEncoding")
    known = FORMATS.get(str(schema.get("format")))
    if isinstance(pattern, str):
        drawn = _matches(pattern)
        bounded = "minLength" in schema or "maxLength" in schema
        return cast(Values, drawn.filter(fits) if bounded else drawn)
    if known is not None:
        return cast(Values, known.filter(fits) if "maxLength" in schema else known)
    if encoding in ("base64", "base64url"):
        encode = base64.b64encode if encoding == "base64" else base64.urlsafe_b64encode
        return cast(Values, st.binary(max_size=15).map(lambda data: encode(data).decode()))
    return cast(Values, st.text(st.characters(codec="utf-8"), min_size=fewest, max_size=most))


def _matches(pattern: str) -> SearchStrategy[str]:
    """Generate texts that hold a match of an ECMA-262 expression, as JSON Schema means it: `$` is the very end."""
    ends = re.sub(r"(\\.|\[(?:\\.|[^\]\\])*\])|\$", lambda found: found[1] or r"\Z", pattern)
    return st.from_regex(re.compile(ends, re.ASCII)).filter(_is_utf8)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _bound(schema: Schema, inclusive: str, exclusive: str) -> tuple[float, bool] | None:
    """Return the limit that applies, and whether it is itself excluded."""
    said = [(cast(float, schema[key]), key == exclusive) for key in (inclusive, exclusive) if key in schema]
    if not said:
        return None
    return max(said) if inclusive == "minimum" else min(said, key=lambda bound: (bound[0], not bound[1]))


def _ceiling(value: float, is_excluded: bool) -> int:
    whole = -int(-value // 1)
    return whole + 1 if is_excluded and whole == value else whole


def _listed(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else [value]


def _canonical(value: JSON) -> str:
    return json.dumps(value, sort_keys=True)


def _follow(reference: str, root: Schema) -> dict[str, JSON]:
    target = resolve(reference, root)
    if target is None:
        raise ValueError(f"the schema's reference {reference!r} points nowhere in it")
    return target


def _merge(branches: list[JSON], root: Schema) -> JSON:
    """Merge the keywords of all branches into one schema; the filter of the whole handles their differences."""
    merged: dict[str, JSON] = {}
    for branch in branches:
        if not isinstance(branch, dict):
            continue
        whole = _follow(str(branch["$ref"]), root) if "$ref" in branch else branch
        for key, value in whole.items():
            known = merged.get(key)
            if isinstance(known, dict) and isinstance(value, dict):
                merged[key] = {**known, **value}
            elif isinstance(known, list) and isinstance(value, list):
                merged[key] = [*known, *(item for item in value if item not in known)]
            else:
                merged[key] = value
    return merged


def _duration(seconds: int) -> str:
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    days, rest = divmod(seconds, 86_400)
    return f"{sign}P{days}DT{rest}S"


_ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))

FORMATS: Mapping[str, SearchStrategy[str]] = {
    "date": st.dates().map(lambda value: value.isoformat()),
    "time": st.times(timezones=_ZONES).map(lambda value: value.isoformat()),
    "date-time": st.datetimes(timezones=_ZONES).map(lambda value: value.isoformat()),
    "duration": st.integers(-(10**9), 10**9).map(_duration),
    "uuid": st.uuids().map(str),
    "uuid1": st.uuids(version=1).map(str),
    "uuid3": st.uuids(version=3).map(str),
    "uuid4": st.uuids(version=4).map(str),
    "uuid5": st.uuids(version=5).map(str),
    "email": st.from_regex(r"[a-z][a-z0-9]{0,8}@[a-z]{1,8}\.(com|org)", fullmatch=True),
    "hostname": st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){0,2}", fullmatch=True),
    "uri": st.from_regex(r"https?://[a-z]{1,8}\.(com|org)/[a-z0-9/]{0,8}", fullmatch=True),
    "ipv4": st.ip_addresses(v=4).map(str),
    "ipv6": st.ip_addresses(v=6).map(str),
    "ipv4network": st.ip_addresses(v=4).map(lambda address: f"{address}/32"),
    "ipv6network": st.ip_addresses(v=6).map(lambda address: f"{address}/128"),
    "regex": st.sampled_from(["", "a+", "[0-9]{2,}", "(x|y)?", r"\d\w"]),
    "path": st.from_regex(r"[a-z0-9_./ -]{1,20}", fullmatch=True),
    "json-pointer": st.from_regex(r"(/[a-z0-9]{1,5}){0,3}", fullmatch=True),
    "base64": st.binary(max_size=15).map(lambda data: base64.b64encode(data).decode()),
    "base64url": st.binary(max_size=15).map(lambda data: base64.urlsafe_b64encode(data).decode()),
    "byte": st.binary(max_size=15).map(lambda data: base64.b64encode(data).decode()),
}
