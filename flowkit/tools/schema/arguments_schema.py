"""Parameters as one type: a TypedDict behind a pydantic TypeAdapter, and its JSON Schema (draft 2020-12).

A TypedDict takes every parameter name (`self`, `schema`, `_a`, `model_config`), and pydantic fills its defaults. The
schema is faithful: what it accepts the function gets, and what pydantic refuses it refuses, up to formats and
validators of the user's own. Titles that pydantic makes up are left out: they cost tokens and say nothing.
"""

import enum
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, NoReturn, cast, get_args

from pydantic import Field, PydanticInvalidForJsonSchema, PydanticUserError, Secret, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import (
    PydanticSerializationError,
    SchemaError,
    SchemaSerializer,
    SchemaValidator,
    core_schema,
    to_jsonable_python,
)

from flowkit.codec import JSON, dump_sorted, dumps
from flowkit.errors import DefinitionError
from flowkit.tools.keys import canonicalize
from flowkit.tools.schema.annotations import Adapter, new_typed_dict
from flowkit.tools.schema.signatures import OMIT, Factory, Parameter

Schema = dict[str, JSON]

_BUILD_ERRORS = (
    PydanticUserError,
    PydanticSchemaGenerationError,
    SchemaError,
    TypeError,
    NameError,
    ImportError,
    RecursionError,
)
_ALIAS = "an alias that refers to itself is written `type Tree = …`, or with TypeAliasType of typing_extensions"


class SchemaGenerator(GenerateJsonSchema):
    """pydantic's generator without made-up titles, and exact where pydantic is vague."""

    ignored_warning_kinds = {"skipped-choice"}  # noqa: RUF012  # pydantic's own attribute
    _definitions: list[core_schema.CoreSchema] = []  # noqa: RUF012  # replaced, never filled

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def definitions_schema(self, schema: core_schema.DefinitionsSchema) -> JsonSchemaValue:
        self._definitions = schema["definitions"]
        return super().definitions_schema(schema)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = self.generate_inner(schema["schema"])
        if "default" in schema and not _is_secret(generated):
            generated |= self._tell_default(schema["schema"], schema["default"])
        return generated

    def _tell_default(self, schema: core_schema.CoreSchema, default: Any) -> JsonSchemaValue:
        """Return the default as JSON; nothing if it has no JSON form: the parameter is then only optional."""
        if type(default) in _OBVIOUS:
            return {"default": default}
        whole = core_schema.definitions_schema(schema, self._definitions)
        try:
            dumped = SchemaSerializer(whole).to_python(default, mode="json", by_alias=True, warnings="error")
            if isinstance(default, (set, frozenset)):
                dumped.sort(key=dump_sorted)  # not another schema in every process
            back = SchemaValidator(whole).validate_json(dumps(dumped))
            return {"default": dumped} if canonicalize(back) == canonicalize(default) else {}
        except (PydanticSerializationError, ValueError, TypeError):
            # Not a value of its own type, such as a mark for "not given".
            return {}

    def field_is_present(self, field: Any) -> bool:
        return super().field_is_present(field) and (self.mode == "serialization" or field.get("init", True))

    def json_or_python_schema(self, schema: core_schema.JsonOrPythonSchema) -> JsonSchemaValue:
        generated = super().json_or_python_schema(schema)
        written: Any = schema.get("serialization", {}).get("function")
        if getattr(written, "__name__", "") == "_serialize_secret" and written.__module__ == Secret.__module__:
            # Of a `Secret[...]` pydantic tells the inner type alone.
            return {**generated, "format": "password", "writeOnly": True}
        return generated

    def is_subclass_schema(self, schema: core_schema.IsSubclassSchema) -> JsonSchemaValue:
        raise PydanticInvalidForJsonSchema(f"a subclass of {schema['cls'].__name__}")

    def model_field_schema(self, schema: core_schema.ModelField) -> JsonSchemaValue:
        self._check_alias(schema.get("validation_alias"))
        return super().model_field_schema(schema)

    def dataclass_field_schema(self, schema: core_schema.DataclassField) -> JsonSchemaValue:
        self._check_alias(schema.get("validation_alias"))
        return super().dataclass_field_schema(schema)

    def typed_dict_field_schema(self, schema: core_schema.TypedDictField) -> JsonSchemaValue:
        self._check_alias(schema.get("validation_alias"))
        return super().typed_dict_field_schema(schema)

    def _check_alias(self, alias: object) -> None:
        """Refuse a path: its schema would name the first step, with the type of what lies at the last."""
        if not isinstance(alias, list) or self.mode != "validation":
            return
        steps = cast(list[Any], alias)
        paths = cast(list[list[Any]], steps if steps and isinstance(steps[0], list) else [steps])
        if all(len(path) > 1 for path in paths):
            told = ".".join(map(str, paths[0]))
            raise PydanticInvalidForJsonSchema(f"a field whose alias is the path {told!r}")

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        cls: type[enum.Enum] = schema["cls"]
        if not issubclass(cls, enum.Flag):
            try:
                return super().enum_schema(schema)
            except (PydanticSerializationError, UnicodeDecodeError):
                raise PydanticInvalidForJsonSchema(f"a value of {cls.__name__}") from None
        everything = 0
        for member in cls.__members__.values():
            everything |= member.value
        told = ", ".join(f"{member.value} {name}" for name, member in cls.__members__.items())
        generated = {"type": "integer", "minimum": 0, "description": f"The sum of some of: {told}"}
        # An IntFlag keeps bits that have no name.
        keeps_others = self.mode == "serialization" and issubclass(cls, enum.IntFlag)
        return generated if keeps_others else {**generated, "maximum": everything}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        generated = super().literal_schema(schema)
        if "type" not in generated and "enum" in generated:
            generated["type"] = sorted({_JSON_TYPES[type(value)] for value in generated["enum"]})
        return generated

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        generated = super().decimal_schema(schema)
        for branch in generated.get("anyOf", [generated]):
            if branch.get("type") == "string":
                branch.setdefault("pattern", _DECIMAL)
        return generated

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        """Say also of a tuple with a repeated part in its middle how long it is and what may stand there."""
        generated = super().tuple_schema(schema)
        repeated = schema.get("variadic_item_index")
        if repeated is not None and repeated + 1 < len(schema["items_schema"]):
            rest = [self.generate_inner(item) for item in schema["items_schema"][repeated:]]
            generated |= {"items": self.get_union_of_schemas(rest), "minItems": len(schema["items_schema"]) - 1}
        return generated

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        generated = super().dict_schema(schema)
        for pattern, values in generated.pop("patternProperties", {}).items():
            # Said of the names, since other names would be free.
            generated |= {"additionalProperties": values, "propertyNames": {"pattern": pattern}}
        names = self._key_names(schema.get("keys_schema", {"type": "str"}))
        return generated if names is None else {**generated, "propertyNames": names}

    def _key_names(self, schema: Any) -> JsonSchemaValue | None:
        """Return a pattern for the names in JSON when the keys aren't text."""
        match schema["type"]:
            case "int":
                return {"pattern": r"^-?(0|[1-9][0-9]*)$"}
            case "float" | "decimal":
                return {"pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"}
            case "bool":
                return {"enum": ["true", "false"]}
            case "enum" if not all(isinstance(member.value, str) for member in schema["members"]):
                return {"enum": [str(member.value) for member in schema["members"]]}
            case "literal" if not all(isinstance(value, str) for value in schema["expected"]):
                return {"enum": list(to_jsonable_python(dict.fromkeys(schema["expected"])))}
            case "function-before" | "function-after" | "function-wrap":
                return self._key_names(schema["schema"])
            case "none" | "tuple" | "list" | "set" | "frozenset" | "dict" | "model" | "dataclass" | "typed-dict":
                raise PydanticInvalidForJsonSchema(f"a key that is a {schema['type']}")
            case _:
                return None


def _is_secret(schema: JsonSchemaValue) -> bool:
    return any("writeOnly" in branch for branch in (schema, *schema.get("anyOf", ())))


_OBVIOUS = (str, int, bool, type(None))
_DECIMAL = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_JSON_TYPES: dict[type, str] = {
    str: "string",
    int: "integer",
    bool: "boolean",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}


def build_adapter(tool: str, parameters: Sequence[Parameter]) -> TypeAdapter[dict[str, Any]]:
    """Build the type of all parameters together; raises `DefinitionError` naming one that can't be a type."""
    try:
        adapter = _build(_make_typed_dict(parameters))
    except _BUILD_ERRORS as error:
        _blame(tool, parameters, error, _build)
    if _may_have_no_schema(adapter.core_schema):
        build_parameters_schema(tool, adapter, parameters, {})
    return adapter


def _build(typed_dict: Any) -> TypeAdapter[dict[str, Any]]:
    adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(typed_dict)
    if not adapter.pydantic_complete:
        # A class in it names one that pydantic can't see; now it says which.
        adapter.rebuild(force=True, raise_errors=True)
    return adapter


def _may_have_no_schema(core: Any) -> bool:
    """Return whether something in pydantic's own schema could have no JSON form; most tools need no further check."""
    left: list[Any] = [core]
    while left:
        held = left.pop()
        if not isinstance(held, dict):
            left += [item for item in held if isinstance(item, _HOLDERS)]
            continue
        held = cast(dict[str, Any], held)
        kind = held.get("type")
        if (isinstance(kind, str) and kind in _DOUBTFUL) or (
            kind == "dict" and held.get("keys_schema", _TEXT).get("type") != "str"
        ):
            return True
        if kind == "enum" and not all(isinstance(member.value, _PLAIN_VALUES) for member in held["members"]):
            return True
        for key, item in held.items():
            if key in _BY_NAME and isinstance(item, dict):
                # A field may be named like one of the schema's own keys.
                left += [named for named in cast(dict[str, Any], item).values() if isinstance(named, _HOLDERS)]
            elif isinstance(item, _HOLDERS) and key not in _NOT_SCHEMAS:
                left.append(item)
    return False


_DOUBTFUL = frozenset({"callable", "is-instance", "is-subclass", "function-plain", "custom-error", "generator"})
_NOT_SCHEMAS = frozenset({"metadata", "default", "serialization", "config", "cls", "expected", "members"})
_BY_NAME = frozenset({"fields", "choices"})
_HOLDERS = (dict, list, tuple)
_TEXT = {"type": "str"}
_PLAIN_VALUES = (str, int, float, NoneType)


def _field_type(parameter: Parameter, adapter: Adapter) -> Any:
    annotation = adapter.adapt(parameter.annotation)
    match parameter.default:
        case Factory(make=make):
            return Annotated[annotation, Field(default_factory=make)]
        case default if parameter.is_required or default is OMIT:
            return annotation
        case default:
            return Annotated[annotation, Field(default=_exact(default, parameter.annotation))]


def _exact(default: Any, annotation: Any) -> Any:
    """Convert the default to its exact type: with `x: float = 1` the function gets 1.0, passed or not."""
    members = (annotation, *get_args(annotation))
    return float(default) if type(default) is int and float in members and int not in members else default


def _make_typed_dict(parameters: Sequence[Parameter]) -> Any:
    adapter = Adapter()
    fields = {parameter.name: _field_type(parameter, adapter) for parameter in parameters if parameter.kind != "extra"}
    extra = next((parameter.annotation for parameter in parameters if parameter.kind == "extra"), None)
    made = new_typed_dict("Arguments", **({} if extra is None else {"extra_items": adapter.adapt(extra)}))
    # Set by hand, since the functional form would wrap each field in Required or NotRequired first: slower by a third.
    made.__annotations__ = fields
    required = frozenset(parameter.name for parameter in parameters if parameter.is_required)
    made.__required_keys__, made.__optional_keys__ = required, frozenset(fields) - required
    made.__pydantic_config__ = {"arbitrary_types_allowed": False} if extra is not None else {"extra": "forbid"}
    return made


def _blame(tool: str, parameters: Sequence[Parameter], error: Exception, build: Callable[[Any], object]) -> NoReturn:
    """Re-raise the error with the name of the parameter that causes it."""
    for parameter in parameters:
        try:
            build(_make_typed_dict((parameter,)))
        except _BUILD_ERRORS as cause:
            kind = inspect.formatannotation(parameter.annotation)
            problem = f"parameter {parameter.name!r}: {kind} can't be an argument: {_explain(cause)}"
            raise DefinitionError.about(tool, problem, parameter.name) from cause
    raise DefinitionError.about(tool, _explain(error)) from error


def _explain(error: Exception) -> str:
    """Explain why a type can't be used, and what to write instead."""
    # pydantic goes on with advice that is for models.
    text = str(error).splitlines()[0].partition(". Set `")[0] if str(error) else type(error).__name__
    if isinstance(error, PydanticSchemaGenerationError | PydanticInvalidForJsonSchema):
        text = re.sub(r"^(Unable to generate .* for|Cannot generate .* for) (core_schema\.)?", "", text)
        return (
            f"{text} has no JSON form; take plain types, a dataclass or a model, and what isn't data from the Context"
        )
    if isinstance(error, RecursionError):
        return f"it has no end; {_ALIAS}"
    if isinstance(error, NameError):
        moved = "a class that stands in a function can't be named in another class's text, so move it out"
        return f"{text}; {moved}; {_ALIAS}"
    return text


def build_parameters_schema(
    tool: str,
    adapter: TypeAdapter[dict[str, Any]],
    parameters: Sequence[Parameter],
    descriptions: Mapping[str, str],
) -> Schema:
    """Build the schema of an arguments object, with the docstring's texts where the annotation has none."""
    try:
        schema = generate(adapter, "validation")
    except PydanticInvalidForJsonSchema as error:
        _blame(tool, parameters, error, lambda kind: generate(TypeAdapter(kind), "validation"))
    properties = cast(dict[str, Schema], schema.setdefault("properties", {}))
    for parameter in parameters:
        if parameter.name not in descriptions:
            continue
        holder, key = (schema, "additionalProperties") if parameter.kind == "extra" else (properties, parameter.wire)
        told = holder.get(key)
        if told is True:
            told = holder[key] = {}
        if isinstance(told, dict):
            told.setdefault("description", descriptions[parameter.name])
    ordered: Schema = {"type": "object", "properties": cast(JSON, properties)}
    return ordered | {key: value for key, value in schema.items() if key not in ("type", "properties")}


def generate(adapter: TypeAdapter[Any], mode: JsonSchemaMode) -> Schema:
    """Generate an adapter's schema in flowkit's form."""
    schema = cast(Schema, adapter.json_schema(mode=mode, schema_generator=SchemaGenerator))
    schema.pop("title", None)
    definitions = schema.get("$defs")
    if isinstance(definitions, dict):
        for name, definition in definitions.items():
            # A title that only repeats the class name; one that the user wrote stays.
            if isinstance(definition, dict) and name.endswith(str(definition.get("title", "\0"))):
                del definition["title"]
    return schema
