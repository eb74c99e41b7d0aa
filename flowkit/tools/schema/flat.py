"""A tool whose one parameter is an object, offered to models without the enclosing parameter.

The function, the key and the checks still see `{parameter: ...}`: arguments are always wrapped, without guessing.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

from pydantic_core import to_jsonable_python

from flowkit.codec import JSON, dumps
from flowkit.errors import DefinitionError, ToolArgumentsError
from flowkit.schema_paths import resolve, subschemas
from flowkit.suggestions import suggest
from flowkit.tools.schema.arguments import Arguments, ArgumentsReader, RefusedArguments, parse_arguments
from flowkit.tools.schema.arguments_schema import Schema
from flowkit.tools.schema.problems import Found, Problem, describe


def flatten_schema(tool: str, schema: Schema, parameter: str) -> Schema:
    """Replace the object around the parameter by the parameter's own schema."""
    held = cast(Mapping[str, Schema], schema["properties"])[parameter]
    reference = held.get("$ref")
    inner = resolve(reference, schema) if isinstance(reference, str) else held
    if inner is None or inner.get("type") != "object" or "properties" not in inner:
        raise DefinitionError.about(tool, f"flatten needs an object with fields, not {inner}")
    if schema.get("required") != [parameter]:
        raise DefinitionError.about(tool, f"flatten needs a parameter without a default, which {parameter!r} has")
    flat: Schema = {"type": "object", **{key: value for key, value in inner.items() if key != "title"}}
    flat.setdefault("additionalProperties", False)
    definitions = subschemas(schema, "$defs")
    if dumps(reference) not in dumps([flat, definitions]):
        # It is told already; only a type that holds itself needs it again.
        definitions.pop(str(reference).rpartition("/")[2], None)
    if definitions:
        flat["$defs"] = cast(JSON, definitions)
    return flat


def open_flat(arguments: Mapping[str, Any], parameter: str) -> dict[str, Any]:
    """Convert the arguments of a Python call to the form that outside callers write."""
    if set(arguments) != {parameter}:
        return dict(arguments)
    value = arguments[parameter]
    return dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else to_jsonable_python(value)


class FlatReader:
    """Reads flat arguments by the reader of the wrapped ones; `names` are the fields that its schema names."""

    def __init__(self, inner: ArgumentsReader, parameter: str, schema: Schema) -> None:
        self.is_plain = False
        self.names = tuple(cast(Schema, schema["properties"]))
        self._is_closed = schema["additionalProperties"] is False
        self._inner = inner
        self._parameter = parameter

    def read(self, given: Mapping[str, object] | str | bytes) -> Arguments:
        repaired: list[str] = []
        tool = self._inner.tool
        flat = parse_arguments(tool, given, repaired) if isinstance(given, (str, bytes)) else dict(given)
        unknown = [name for name in flat if name not in self.names]
        if unknown and self._is_closed:
            raise ToolArgumentsError(
                tool, [f"unexpected argument {name!r}; {suggest(name, self.names)}" for name in unknown]
            )
        try:
            read = self._inner.read({self._parameter: flat})
        except RefusedArguments as error:
            problems = tuple(_unwrap(problem) for problem in error.found)
            lines = describe(problems, flat, self.names, self._inner.secrets)
            raise RefusedArguments(tool, lines, problems) from None
        told = (line.removeprefix(f"{self._parameter}.") for line in read.repaired)
        return read._replace(source=flat, repaired=(*repaired, *told))

    def is_plainly_right(self, given: Mapping[str, object], ignored: Collection[str]) -> bool:
        return False

    def check(self, given: Mapping[str, object], ignored: Collection[str]) -> None:
        try:
            self.read(given)
        except RefusedArguments as error:
            left = tuple(problem for problem in error.found if not problem.path or problem.path[0] not in ignored)
            if left:
                raise RefusedArguments(
                    self._inner.tool, describe(left, given, self.names, self._inner.secrets), left
                ) from None


def _unwrap(problem: Problem) -> Problem:
    return Problem(problem.path[1:], tuple(_unwrap_found(found) for found in problem.found))


def _unwrap_found(found: Found) -> Found:
    return replace(found, path=found.path[1:], place=found.place[1:])
