"""Walk over a faithful schema once, writing the strict one and its conversion in parallel.

The walk knows four outcomes for a piece of schema: it stays, it takes another shape with a way back (`lowered`), it
is dropped and told in the description instead (`dropped`; validation still holds it), or it can't be had at all:
`NotStrict`, and the whole tool travels unlowered.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from flowkit.codec import JSON
from flowkit.schema_paths import Schema, alternatives, types_of
from flowkit.targets.conversions import (
    SAME,
    Branch,
    Choice,
    Conversion,
    Fields,
    Items,
    Named,
    Pairs,
    Positions,
)
from flowkit.targets.definitions import AlternativeShape, Definitions, NotStrict
from flowkit.targets.strict import (
    ANNOTATIONS,
    FORMATS,
    KEYWORDS,
    TEXTS,
    array_of,
    closed_object,
    guess_types,
    is_supported_pattern,
    nullable,
    only_type,
    tell,
    tell_examples,
    unique,
)

NoteKind = Literal["lowered", "dropped", "refused", "default", "references"]


@dataclass(frozen=True, slots=True)
class Note:
    """A difference at `path` (a JSON pointer into the faithful schema) and its reason.

    `lowered`: another shape, converted back automatically. `dropped`: a rule that the target can't enforce.
    `refused`: why the tool isn't strict. `default`: a default that the model can no longer choose. `references`:
    why no reference is offered.
    """

    kind: NoteKind
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Lowered:
    """A schema for one target, with the conversion back; `notes` list the differences from the faithful schema."""

    schema: Schema
    strict: bool
    notes: tuple[Note, ...] = ()
    conversion: Conversion = SAME

    def raise_arguments(self, arguments: Mapping[str, JSON]) -> dict[str, JSON]:
        """Convert the model's arguments to the faithful schema; they are not yet validated."""
        if self.conversion is SAME and isinstance(arguments, dict):
            return arguments  # not copied: each call would hold its arguments twice
        raised = self.conversion.raised(dict(arguments))
        return raised if isinstance(raised, dict) else dict(arguments)

    def lower_arguments(self, arguments: Mapping[str, JSON]) -> dict[str, JSON]:
        """Convert valid arguments to the form that this target's model would have written."""
        lowered = self.conversion.lowered(dict(arguments))
        return lowered if isinstance(lowered, dict) else dict(arguments)


Result = tuple[dict[str, JSON], Conversion]

_ANY = "a value of any type can't be described"
_MAX_TOLD_DEFAULT = 200
"""Characters of a default that are shown to the model; a longer one is only said to exist."""


class Lowering:
    """The state of one walk: the definitions lowered so far, their conversions, the notes."""

    def __init__(self, schema: Schema) -> None:
        self.notes: list[Note] = []
        self.root = schema
        self.faithful = Definitions(schema)
        self.written: dict[str, JSON] = {}
        self.document: dict[str, JSON] = {"$defs": self.written}
        self.conversions: dict[str, Conversion] = {}
        self.choices: list[tuple[str, Choice]] = []

    def run(self) -> Result:
        """Lower the whole schema; raises `NotStrict`."""
        root = {key: value for key, value in self.root.items() if key not in ("$defs", "definitions")}
        if "$ref" in root or "allOf" in root:
            root = self.faithful.merge(root, "")
        if types_of(root) not in (("object",), ()) or ("type" not in root and "properties" not in root and root):
            raise NotStrict("", "the arguments aren't an object")
        lowered, conversion = self._object({"properties": {}, **root}, "")
        for path, choice in self.choices:
            if not choice.is_reversible():
                raise NotStrict(path, "two alternatives would look alike once lowered")
        return {**lowered, **(self.document if self.written else {})}, conversion

    def _note(self, kind: NoteKind, path: str, text: str) -> None:
        note = Note(kind, path, text)
        if note not in self.notes:
            self.notes.append(note)

    def _lower(self, schema: JSON, path: str) -> Result:
        """Lower references and combinations first, then by type."""
        if not isinstance(schema, dict):
            raise NotStrict(path, _ANY)
        if "$ref" in schema:
            return self._reference(schema, path)
        if "allOf" in schema:
            return self._lower(self.faithful.merge(schema, path), path)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema and not schema.keys() & {"properties", "items"}:
                return self._union(schema, keyword, path)
        values = schema.get("enum", [schema.get("const")])
        if not isinstance(values, list) or any(isinstance(value, (dict, list)) for value in values):
            raise NotStrict(path, "an enum of lists or objects")
        types = types_of(schema) or guess_types(schema)
        match types:
            case ():
                raise NotStrict(path, _ANY)
            case ("object",):
                return self._object(schema, path)
            case ("array",):
                return self._array(schema, path)
            case _ if {"object", "array"}.intersection(types):
                branches = cast(list[JSON], [only_type(schema, kind) for kind in types])
                annotations = {key: value for key, value in schema.items() if key in ANNOTATIONS}
                return self._union({**annotations, "anyOf": branches}, "anyOf", path)
            case _:
                return self._scalar(schema, types, path), SAME

    def _reference(self, schema: Schema, path: str) -> Result:
        reference = str(schema["$ref"])
        if schema.keys() - ANNOTATIONS - {"$ref"}:
            return self._lower(self.faithful.merge(schema, path), path)
        lowered: dict[str, JSON] = {"$ref": f"#/$defs/{self._define(reference, path)}"}
        described = self._describe(schema, path, {"$ref"})
        # "$ref cannot have keywords", but anyOf can: https://github.com/camel-ai/camel/issues/3001
        written: dict[str, JSON] = {**described, "anyOf": [lowered]} if described else lowered
        return written, Named(self.faithful.find(reference, path)[0], self.conversions)

    def _define(self, reference: str, path: str) -> str:
        """Lower the target of `reference`, once; return its name under `$defs`."""
        name, schema = self.faithful.find(reference, path)
        if name not in self.conversions:
            self.conversions[name] = SAME
            self.written[name], self.conversions[name] = self._lower(schema, reference.removeprefix("#"))
        return name

    def _union(self, schema: Schema, keyword: str, path: str) -> Result:
        # A type that stands beside the alternatives holds for each.
        kind = {key: schema[key] for key in ("type",) if key in schema}
        branches = [branch if "$ref" in branch else {**kind, **branch} for branch in alternatives(schema, keyword)]
        results = [self._lower(dict(branch), f"{path}/{keyword}/{index}") for index, branch in enumerate(branches)]
        if not results:
            raise NotStrict(path, _ANY)
        if keyword == "oneOf":
            self._note("lowered", path, "oneOf became anyOf")
        described = self._describe(schema, path, {keyword})
        after = [AlternativeShape(lowered, self.document) for lowered, _ in results]
        before = [AlternativeShape(branch, self.root) for branch in branches]
        choice = Choice(tuple(map(Branch, after, before, (way for _, way in results))))
        self.choices.append((path, choice))
        written = unique(lowered for lowered, _ in results)
        if len(written) > 1 or ("$ref" in written[0] and described):
            return {**described, "anyOf": list[JSON](written)}, choice
        return {**written[0], **described}, choice

    def _scalar(self, schema: Schema, types: tuple[str, ...], path: str) -> dict[str, JSON]:
        keep = {"type", "enum", "const"}.union(*(KEYWORDS[kind] for kind in types if kind in KEYWORDS))
        if schema.get("format") not in FORMATS:
            keep.discard("format")
        pattern = schema.get("pattern")
        if not isinstance(pattern, str) or not is_supported_pattern(pattern):
            keep.discard("pattern")
        described = self._describe(schema, path, keep)
        kept = {key: value for key, value in schema.items() if key in keep and key != "type"}
        return {"type": types[0] if len(types) == 1 else list(types), **described, **kept}

    def _array(self, schema: Schema, path: str) -> Result:
        if "prefixItems" in schema:
            return self._tuple(schema, path)
        if schema.get("maxItems") == 0 and "items" not in schema:
            schema = {**schema, "items": {"type": "null"}}
        described = self._describe(schema, path, {"items", "minItems", "maxItems"})
        items, conversion = self._lower(schema.get("items"), f"{path}/items")
        return array_of(items, schema, described), Items(conversion)

    def _tuple(self, schema: Schema, path: str) -> Result:
        prefix = alternatives(schema, "prefixItems")
        results = [self._lower(dict(item), f"{path}/prefixItems/{index}") for index, item in enumerate(prefix)]
        rest = schema.get("items")
        fixed = rest is False or schema.get("maxItems") == len(prefix)
        described = self._describe(schema, path, {"prefixItems", "items", "minItems", "maxItems"})
        if fixed and schema.get("minItems") == len(prefix):
            self._note("lowered", path, "a tuple became an object, a field for each position")
            positions = Positions(tuple(conversion for _, conversion in results))
            return closed_object(
                {positions.key(index): item for index, (item, _) in enumerate(results)}, described
            ), positions
        if not fixed:
            results.append(self._lower(rest, f"{path}/items"))
        if any(conversion is not SAME for _, conversion in results):
            raise NotStrict(path, "a tuple of changing length with items that have to be lowered")
        self._note("lowered", path, "a tuple became a list; positions are checked afterwards")
        items = unique(item for item, _ in results)
        item: JSON = items[0] if len(items) == 1 else {"anyOf": list[JSON](items)}
        return array_of(item, schema, described), SAME

    def _object(self, schema: Schema, path: str) -> Result:
        patterns = schema.get("patternProperties")
        others = schema.get("additionalProperties")
        if isinstance(patterns, dict) and patterns:
            if len(patterns) > 1 or others not in (None, False):
                raise NotStrict(path, "fields by several patterns")
            pattern, others = next(iter(patterns.items()))
            schema = {**schema, "propertyNames": {"pattern": pattern}}
        if others is True or others == {} or ("properties" not in schema and not isinstance(others, dict)):
            raise NotStrict(path, "a dict with values of any type")
        handled = {"properties", "required", "additionalProperties", "patternProperties", "propertyNames"}
        if not isinstance(others, dict):
            described = self._describe(schema, path, handled - {"propertyNames"})
            properties, fields = self._fields(schema, path)
            return closed_object(properties, described), fields
        pairs, value = self._pairs(schema, others, path)
        if not schema.get("properties"):
            self._note("lowered", path, "a dict became a list of pairs")
            described = self._describe(schema, path, handled | {"minProperties", "maxProperties"})
            return {**pairs, **described}, Pairs(value)
        described = self._describe(schema, path, handled)
        properties, fields = self._fields(schema, path)
        extra = "additional"
        while extra in properties:
            extra += "_"
        self._note("lowered", path, f"fields with free names travel as pairs in {extra!r}")
        properties[extra] = {**pairs, "description": "Further fields, by name."}
        return closed_object(properties, described), Fields(
            fields.fields, fields.optional, fields.defaults, extra=extra, extra_value=value
        )

    def _pairs(self, schema: Schema, others: Schema, path: str) -> Result:
        names = schema.get("propertyNames")
        key = self._scalar(
            {**(names if isinstance(names, dict) else {}), "type": "string"}, ("string",), f"{path}/propertyNames"
        )
        value, conversion = self._lower(dict(others), f"{path}/additionalProperties")
        bounds = {"minItems": schema.get("minProperties"), "maxItems": schema.get("maxProperties")}
        pairs = array_of(closed_object({"key": key, "value": value}, {}), bounds, {})
        return {key: value for key, value in pairs.items() if value is not None}, conversion

    def _fields(self, schema: Schema, path: str) -> tuple[dict[str, JSON], Fields]:
        properties = schema.get("properties")
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise NotStrict(path, "properties or required of the wrong form")
        if set(map(str, required)) - properties.keys():
            raise NotStrict(path, "a required field that has no schema")
        written: dict[str, JSON] = {}
        conversions: dict[str, Conversion] = {}
        optional: set[str] = set()
        defaults: dict[str, JSON] = {}
        for name, item in properties.items():
            here = f"{path}/properties/{name}"
            if name in required:
                written[name], conversions[name] = self._lower(item, here)
                continue
            if not isinstance(item, dict):
                raise NotStrict(here, _ANY)
            if not self.faithful.accepts_null(item):
                optional.add(name)
                written[name], conversions[name] = self._optional(item, here)
                continue
            written[name], conversions[name] = self._lower(item, here)
            # Where the schema doesn't say what leaving it out means, null is the nearest that can be written.
            default = item.get("default")
            defaults[name] = default if default is None or AlternativeShape(item, self.root).fits(default) else None
            if item.get("default", self) is not None:
                self._note("default", here, "null is a value here, so the model can't ask for the default")
        return written, Fields(conversions, frozenset(optional), defaults)

    def _optional(self, item: Schema, path: str) -> Result:
        """Lower an optional field; null now means that it is omitted."""
        told = "null if there is none"
        if "default" in item:
            default = json.dumps(item["default"], ensure_ascii=False)
            told = "null for the default" + (f", {default}" if len(default) <= _MAX_TOLD_DEFAULT else "")
        bare = {key: value for key, value in item.items() if key not in ("description", "examples", "default")}
        lowered, conversion = self._lower(bare, path)
        own = lowered.pop("description", None)
        texts = [text for text in (item.get("description"), own) if isinstance(text, str)]
        texts.extend(tell_examples(item))
        self._note("lowered", path, "may be left out, so null stands for that")
        return {**tell("".join(texts[:1]), [*texts[1:], told]), **nullable(lowered)}, conversion

    def _describe(self, schema: Schema, path: str, keep: Iterable[str]) -> dict[str, JSON]:
        """Return the description, with a word for each keyword that can't travel."""
        kept = ANNOTATIONS.union(keep) | {"type"}
        texts: list[str] = []
        for key, value in schema.items():
            if key in kept or value is False:
                continue
            text = TEXTS.get(key)
            self._note("dropped", path, f"{key} {json.dumps(value)}" if text else key)
            if text:
                texts.append(text.format(value))
        texts.extend(tell_examples(schema))
        description = schema.get("description")
        return tell(description if isinstance(description, str) else "", texts)
