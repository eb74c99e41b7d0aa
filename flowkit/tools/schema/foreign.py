"""Tools that come with a JSON Schema and no signature: their arguments are checked by that."""

import inspect
from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, MethodType
from typing import Annotated, Any, cast

from pydantic import AfterValidator, WithJsonSchema

from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import DefinitionError, ToolArgumentsError
from flowkit.masking import NO_SECRETS, SecretPlaces
from flowkit.tools.functions import read_return
from flowkit.tools.needs import Need
from flowkit.tools.schema.arguments import Arguments
from flowkit.tools.schema.arguments_schema import Schema
from flowkit.tools.schema.docstrings import Documentation
from flowkit.tools.schema.foreign_arguments import SchemaReader
from flowkit.tools.schema.problems import shorten
from flowkit.tools.schema.results import ResultType
from flowkit.tools.schema.signatures import MISSING, OMIT, Parameter, read_signature


@dataclass(frozen=True, slots=True)
class WireDefinition:
    """A tool as it is sent in a request."""

    name: str
    description: str
    parameters: Schema
    strict: bool | None


def read_definition(definition: Mapping[str, JSON]) -> WireDefinition:
    """Read a definition of Chat Completions (nested) or of the Responses API (flat)."""
    body = definition.get("function", definition)
    if not isinstance(body, Mapping) or not isinstance(body.get("name"), str):
        raise DefinitionError(f"not the definition of a function: {shorten(dict(definition))}")
    parameters, strict = body.get("parameters"), body.get("strict")
    return WireDefinition(
        str(body["name"]),
        str(body.get("description") or ""),
        parameters if isinstance(parameters, dict) else {"type": "object", "properties": {}},
        strict if isinstance(strict, bool) else None,
    )


class SchemaCallee:
    """A handler with a schema; it gets all arguments as one dict."""

    needs: tuple[Need[Any], ...] = ()
    own_checks: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def __init__(
        self,
        name: str,
        handler: Callable[..., Any],
        schema: Mapping[str, JSON],
        secrets: frozenset[str],
        result_schema: Mapping[str, JSON] | None = None,
    ) -> None:
        self.name = name
        self.function = handler
        self.schema = _read_object_schema(name, schema)
        self.documentation = Documentation()
        self.parameter_descriptions: Mapping[str, str] = {}
        self.secrets = SecretPlaces(secrets, lambda: self.schema)
        self._reader = SchemaReader(name, self.schema, self.secrets)
        required = cast(list[str], self.schema.get("required", []))
        self.visible = tuple(
            Parameter(
                property_name,
                _foreign_type(name, property_name, property_schema, self.schema.get("$schema")),
                MISSING if property_name in required else property_schema.get("default", OMIT),
                "keyword",
            )
            for property_name, property_schema in self._reader.properties.items()
        )
        self.own_names = frozenset(self._reader.names)
        self._context, returns = _read_handler(name, handler)
        self.takes_context = self._context is not None
        self.is_async, returns = read_return(handler, returns)
        self.takes_values = False
        self.results = ResultType(returns, schema=result_schema)

    def reader(self, given: frozenset[str]) -> SchemaReader:
        return self._reader

    def invoke(self, arguments: Arguments, context: Context[Any] | None) -> Any:
        more = {} if self._context is None else {self._context: context}
        return self.function(arguments.values, **more)

    def bind(self, receiver: object) -> "SchemaCallee":
        bound = copy(self)
        bound.function = MethodType(self.function, receiver)
        return bound

    def renamed(self, name: str) -> "SchemaCallee":
        renamed = copy(self)
        renamed.name, renamed._reader = name, self._reader.renamed(name)
        return renamed

    def name_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if args:
            raise TypeError(f"{self.name}() has a schema and no signature: give its arguments by name")
        return kwargs

    def fill_direct_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs


def _read_object_schema(tool: str, schema: Mapping[str, JSON]) -> Schema:
    if not isinstance(schema, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # read from someone's JSON
        raise DefinitionError.about(tool, f"its schema is {schema!r}, expected a JSON Schema of an object")
    read = deepcopy(dict(schema))
    kind = read.setdefault("type", "object")
    if kind != "object":
        raise DefinitionError.about(tool, f"its schema is of type {kind!r}, expected 'object'")
    properties = read.setdefault("properties", {})
    if isinstance(properties, dict):
        # `true` is the schema of anything, `false` that of nothing (JSON Schema core, 4.3.2).
        for name, held in properties.items():
            if isinstance(held, bool):
                properties[name] = {} if held else {"not": {}}
    if not isinstance(properties, dict) or not all(isinstance(held, dict) for held in properties.values()):
        raise DefinitionError.about(tool, "its schema's properties aren't an object of schemas")
    return read


def _foreign_type(tool: str, name: str, schema: Schema, draft: JSON) -> Any:
    """Make the type of one property, for a tool with a signature that needs this one."""

    @cache
    def make_reader() -> SchemaReader:
        whole: Schema = {"type": "object", "properties": {name: schema}}
        return SchemaReader(tool, whole if draft is None else {"$schema": draft, **whole}, NO_SECRETS)

    def check(value: object) -> object:
        try:
            return make_reader().read({name: value}).values[name]
        except ToolArgumentsError as error:
            raise ValueError("; ".join(error.problems)) from None

    return Annotated[Any, AfterValidator(check), WithJsonSchema(cast(dict[str, Any], schema))]


def _read_handler(tool: str, handler: object) -> tuple[str | None, Any]:
    if not callable(handler):
        raise DefinitionError.about(
            tool, f"its handler is {handler!r}, expected a function of the arguments, as a dict"
        )
    try:
        signature = read_signature(handler, skip_first=False, name=tool)
    except DefinitionError:
        # A builtin has no signature to read; it can take its dict all the same.
        return None, MISSING
    try:
        named = {} if signature.context is None else {signature.context: None}
        inspect.signature(handler).bind({}, **named)
    except TypeError as error:
        problem = f"its handler can't be called with the arguments, as one dict: {error}"
        raise DefinitionError.about(tool, problem) from None
    return signature.context, signature.returns
