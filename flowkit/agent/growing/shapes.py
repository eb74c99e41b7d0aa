"""The parts of a type's JSON that may be shown before they are complete.

A text may be shown while it grows, and a list or an object with its items so far; everything else is shown when it is
complete and valid. The schema that pydantic generates for the type decides which is which. If a type processes a value
as a whole, with a validator, a serializer or an undiscriminated choice between objects, its beginning says nothing
about the result: such a value is shown when it is complete.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_core import SchemaSerializer, SchemaValidator, core_schema

from flowkit.codec import JSON, loads

Check = Callable[[str], JSON]
"""Give the value of a whole JSON text as the answer will have it; raises `ValueError` for one that doesn't fit."""

_THROUGH = ("default", "nullable")
_CHANGES_TEXT = ("strip_whitespace", "to_lower", "to_upper", "pattern")
_NOT_SHOWN = ("serialization_exclude", "serialization_exclude_if", "init_only")
_CHANGES_TEXTS = ("str_strip_whitespace", "str_to_lower", "str_to_upper")


class GrowingShape:
    """What of a value may be shown while it grows: a `text`, the `items` of a list, the `fields` of an object.

    `fields` has by each name in the answer the name that it is shown under. `others` is the shape of the object's other
    values, where it keeps them. In `branches` the value of the field `tag` chooses another shape. `check` reads the whole;
    without one, any JSON is taken as it is. With `drops` a value that doesn't fit is left out, else it ends the growth.
    """

    __slots__ = ("branches", "check", "drops", "fields", "items", "others", "tag", "text")

    def __init__(self, check: Check | None = None) -> None:
        self.check = check
        self.drops = False
        self.text = False
        self.items: GrowingShape | None = None
        self.fields: Mapping[str, tuple[str, GrowingShape]] | None = None
        self.others: GrowingShape | None = None
        self.tag = ""
        self.branches: Mapping[str, GrowingShape] = {}

    @property
    def is_object(self) -> bool:
        """Return whether an object may be shown while it grows."""
        return self.fields is not None or self.others is not None or bool(self.branches)


def make_shape(adapter: TypeAdapter[Any]) -> GrowingShape:
    """Make the shape of a type.

    pydantic doesn't promise the form of its schemas: a value of one that can't be read is shown when it is whole.
    """
    try:
        return _Reader(cast("Mapping[str, Any]", adapter.core_schema)).read_root()
    except (KeyError, TypeError, AttributeError, IndexError):
        return GrowingShape(
            lambda text: cast(JSON, adapter.dump_python(adapter.validate_json(text), mode="json", by_alias=True))
        )


def make_free_shape() -> GrowingShape:
    """Make the shape of a value that may be any JSON."""
    shape = GrowingShape()
    shape.text = True
    shape.items = shape.others = shape
    return shape


def make_schema_shape(schema: Mapping[str, JSON]) -> GrowingShape:
    """Make the shape of JSON that a JSON schema describes, as it is written; for a tool's arguments.

    What isn't of the type that the schema names is left out: it is going to be repaired, or refused.
    """
    return _read_schema(schema, schema, {})


def make_named_shape(shapes: Mapping[str, GrowingShape]) -> GrowingShape:
    """Make the shape of an object with a field for each of these."""
    named = GrowingShape()
    named.fields = {name: (name, shape) for name, shape in shapes.items()}
    return named


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def _read_schema(schema: Mapping[str, JSON], root: Mapping[str, JSON], made: dict[int, GrowingShape]) -> GrowingShape:
    while isinstance(reference := schema.get("$ref"), str):
        target = cast("Mapping[str, Mapping[str, JSON]]", root.get("$defs", {})).get(reference.rpartition("/")[2])
        if target is None:
            break
        schema = target
    if id(schema) in made:
        return made[id(schema)]
    kind = schema.get("type")
    shape = made[id(schema)] = GrowingShape()
    shape.drops = True
    if isinstance(kind, str) and kind in _TYPES:
        expected = _TYPES[kind]

        def check(text: str) -> JSON:
            value = loads(text)
            if not isinstance(value, expected) or (isinstance(value, bool) and kind in ("integer", "number")):
                raise ValueError(text)
            return value

        shape.check = check
    if kind == "string":
        shape.text = not any(name in schema for name in ("enum", "const", "format", "pattern"))
    elif kind == "array" and isinstance(items := schema.get("items"), dict):
        shape.items = _read_schema(items, root, made)
    elif kind == "object":
        fields = schema.get("properties")
        parts = (
            {name: part for name, part in fields.items() if isinstance(part, dict)} if isinstance(fields, dict) else {}
        )
        shape.fields = {name: (name, _read_schema(part, root, made)) for name, part in parts.items()}
        others = schema.get("additionalProperties")
        shape.others = _read_schema(others, root, made) if isinstance(others, dict) else None
    elif isinstance(choices := schema.get("anyOf"), list):
        given = [choice for choice in choices if isinstance(choice, dict) and choice.get("type") != "null"]
        if len(given) == 1 and len(given) < len(choices):
            only = _read_schema(given[0], root, made)
            shape.text, shape.items, shape.fields, shape.others = only.text, only.items, only.fields, only.others
    return shape


class _Reader:
    """Reads one schema; a type that holds itself is the shape that holds itself."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._definitions: dict[str, Mapping[str, Any]] = {}
        self._made: dict[str, GrowingShape] = {}

    def read_root(self) -> GrowingShape:
        root = self._root
        if root["type"] == "definitions":
            self._definitions = {schema["ref"]: schema for schema in root["definitions"]}
            root = root["schema"]
        return self._read(root, {})

    def _read(self, schema: Mapping[str, Any], config: Mapping[str, Any]) -> GrowingShape:
        name: str | None = schema.get("schema_ref")
        if name is not None and name in self._made:
            return self._made[name]
        shape = GrowingShape(self._make_check(schema, config))
        if name is not None:
            self._made[name] = shape
        self._fill(shape, schema, config)
        return shape

    def _make_check(self, schema: Mapping[str, Any], config: Mapping[str, Any]) -> Check:
        made: list[tuple[SchemaValidator, SchemaSerializer]] = []

        def check(text: str) -> JSON:
            if not made:
                whole = core_schema.definitions_schema(
                    cast(core_schema.CoreSchema, schema), cast(Any, list(self._definitions.values()))
                )
                settings = cast(core_schema.CoreConfig, config)
                made.append((SchemaValidator(whole, settings), SchemaSerializer(whole, settings)))
            validator, serializer = made[0]
            return serializer.to_python(validator.validate_json(text), mode="json", by_alias=True)

        return check

    def _fill(self, shape: GrowingShape, schema: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Mark what of the value may be shown, where the schema allows it."""
        kind: str = schema["type"]
        if kind == "definition-ref":
            self._fill(shape, self._definitions[schema["schema_ref"]], config)
        elif kind == "json-or-python" and schema["json_schema"]["type"] == "list":
            # A sequence, which pydantic writes with a serializer of its own that changes nothing.
            self._fill(shape, schema["json_schema"], config)
        elif "serialization" in schema:
            return
        elif kind in _THROUGH:
            self._fill(shape, schema["schema"], config)
        elif kind == "any":
            free = make_free_shape()
            shape.text, shape.items, shape.others = True, free, free
        elif kind == "str":
            changes = any(schema.get(name) for name in _CHANGES_TEXT) or any(map(config.get, _CHANGES_TEXTS))
            shape.text = not changes
        elif kind == "list":
            shape.items = self._read(schema.get("items_schema", {"type": "any"}), config)
        elif kind == "tuple" and schema.get("variadic_item_index") == 0 and len(schema["items_schema"]) == 1:
            shape.items = self._read(schema["items_schema"][0], config)
        elif kind == "dict" and schema.get("keys_schema", {"type": "any"}) in ({"type": "str"}, {"type": "any"}):
            shape.others = self._read(schema.get("values_schema", {"type": "any"}), config)
        elif kind in ("model", "dataclass", "typed-dict"):
            self._fill_object(shape, schema, {**config, **(schema.get("config") or {})})
        elif kind == "union":
            listed = cast("Sequence[Any]", schema["choices"])
            choices: list[Mapping[str, Any]] = [one[0] if isinstance(one, tuple) else one for one in listed]
            self._fill_union(shape, choices, config, schema.get("mode"))
        elif kind == "tagged-union" and isinstance(schema["discriminator"], str):
            self._fill_tagged(shape, schema["discriminator"], schema["choices"], config)

    def _fill_object(self, shape: GrowingShape, schema: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        if schema.get("post_init") or schema.get("custom_init"):
            return
        inner: Mapping[str, Any] = schema if schema["type"] == "typed-dict" else schema["schema"]
        if schema.get("root_model"):
            self._fill(shape, inner, config)
            return
        if inner["type"] not in ("model-fields", "dataclass-args", "typed-dict") or "serialization" in inner:
            return
        fields = cast("Mapping[str, Mapping[str, Any]] | list[Mapping[str, Any]]", inner["fields"])
        listed = {field["name"]: field for field in fields} if isinstance(fields, list) else fields
        known: dict[str, tuple[str, GrowingShape]] = {}
        for name, field in listed.items():
            names = list(_list_names(name, field, config))
            if not names:
                return  # it is read from somewhere within another field
            if any(field.get(name) for name in _NOT_SHOWN) or field.get("init") is False:
                continue
            below = self._read(field["schema"], config)
            for given in names:
                known[given] = field.get("serialization_alias", name), below
        shape.fields = known
        if inner.get("extra_behavior", config.get("extra_fields_behavior")) == "allow" and "extras_schema" not in inner:
            shape.others = make_free_shape()

    def _fill_union(
        self, shape: GrowingShape, choices: Sequence[Mapping[str, Any]], config: Mapping[str, Any], mode: str | None
    ) -> None:
        """Add each choice of a union: the value's first character selects one when only one may begin with it."""
        if mode == "left_to_right":
            return  # a number takes a text that looks like one
        parts = [self._read(choice, config) for choice in choices]
        kinds = [self._find_kinds(choice) for choice in choices]
        alone = [part for part, own in zip(parts, kinds, strict=True) if "text" in own]
        shape.text = len(alone) == 1 and alone[0].text
        alone = [part for part, own in zip(parts, kinds, strict=True) if "list" in own]
        shape.items = alone[0].items if len(alone) == 1 else None
        alone = [part for part, own in zip(parts, kinds, strict=True) if "object" in own]
        if len(alone) == 1:
            shape.fields, shape.others = alone[0].fields, alone[0].others
            shape.tag, shape.branches = alone[0].tag, alone[0].branches

    def _fill_tagged(
        self, shape: GrowingShape, tag: str, choices: Mapping[Any, Mapping[str, Any]], config: Mapping[str, Any]
    ) -> None:
        branches = {value: self._read(choice, config) for value, choice in choices.items()}
        if all(isinstance(value, str) and branch.fields is not None for value, branch in branches.items()):
            shape.tag, shape.branches = tag, branches

    def _find_kinds(self, schema: Mapping[str, Any]) -> frozenset[str]:
        """Find the kinds of JSON that a value may be; all of them if the schema doesn't say."""
        kind: str = schema["type"]
        if kind == "definition-ref":
            return self._find_kinds(self._definitions[schema["schema_ref"]])
        if kind in ("int", "float", "bool", "none"):
            return frozenset()
        if kind in (
            "str",
            "literal",
            "enum",
            "date",
            "datetime",
            "time",
            "timedelta",
            "uuid",
            "url",
            "decimal",
            "bytes",
        ):
            return frozenset({"text"})
        if kind in ("list", "tuple", "set", "frozenset", "generator"):
            return frozenset({"list"})
        if kind in ("dict", "dataclass", "typed-dict") or (kind == "model" and not schema.get("root_model")):
            return frozenset({"object"})
        return frozenset({"text", "list", "object"})


def _list_names(name: str, field: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """List the names that a field's value may come under."""
    alias: Any = field.get("validation_alias")
    if alias is None or config.get("validate_by_name") or config.get("populate_by_name"):
        yield name
    if isinstance(alias, str):
        yield alias
    elif alias is not None:
        paths = cast("list[Any]", alias if alias and isinstance(alias[0], list) else [alias])
        if all(len(path) == 1 for path in paths):
            yield from (path[0] for path in paths)
