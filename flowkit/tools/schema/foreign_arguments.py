"""Arguments checked by a JSON Schema, for tools that have no signature."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, cast

from flowkit.codec import JSON
from flowkit.errors import DefinitionError
from flowkit.masking import SecretPlaces
from flowkit.schema_paths import find_unknown_reference, types_of
from flowkit.suggestions import suggest
from flowkit.tools.schema.arguments import Arguments, RefusedArguments, parse_arguments
from flowkit.tools.schema.arguments_schema import Schema
from flowkit.tools.schema.foreign_checks import find_endless, make_validator, read_scalar
from flowkit.tools.schema.problems import MAX_LINE, Problem, format_path, shorten, value_at
from flowkit.tools.schema.repair import ExpectedValue, mend


class SchemaReader:
    """Reads arguments by a schema: validates, repairs when that failed, fills in the defaults of the schema."""

    def __init__(self, tool: str, schema: Schema, secrets: SecretPlaces) -> None:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for

        # A schema says by `$schema` in which draft it is written; that of draft-07 has tuples as lists, for one.
        validator: Any = validator_for(schema, default=Draft202012Validator)

        self.tool = tool
        self.schema = schema
        self.secrets = secrets
        self.properties = cast(dict[str, Schema], schema.get("properties", {}))
        self.names = tuple(self.properties)
        self.is_plain = False
        try:
            validator.check_schema(leave_out_plain(schema))
        except SchemaError as error:
            where = format_path(list(error.absolute_path)) or "the schema"
            raise DefinitionError.about(tool, f"{where}: {error.message}") from error
        unknown = find_unknown_reference(schema, allow_ids=True)
        if unknown is not None:
            raise DefinitionError.about(tool, f"the schema's {unknown} points nowhere in it")
        endless = find_endless(schema)
        if endless is not None:
            raise DefinitionError.about(tool, f"the schema refers to itself without end at {endless}")
        self._validator: Any = make_validator(validator, schema)
        self._plain_fields = _find_plain_fields(schema)
        required = schema.get("required")
        self._required = frozenset(cast(list[str], required) if isinstance(required, list) else ())
        self._is_closed = schema.get("additionalProperties") is False

    def renamed(self, tool: str) -> "SchemaReader":
        """Copy for this tool under another name."""
        reader = copy(self)
        reader.tool = tool
        return reader

    def read(self, given: Mapping[str, object] | str | bytes) -> Arguments:
        repaired: list[str] = []
        arguments = parse_arguments(self.tool, given, repaired) if isinstance(given, (str, bytes)) else dict(given)
        errors = [] if self.is_plainly_right(arguments, ()) else self._find_errors(arguments)
        if errors:
            mended, told = _mend(arguments, errors)
            if not told or self._find_errors(mended):
                raise RefusedArguments(self.tool, self._describe(errors, arguments), _problems(errors))
            arguments, repaired = mended, [*repaired, *told]
        values = dict(arguments)
        for name, schema in self.properties.items():
            if name not in values and "default" in schema:
                values[name] = deepcopy(schema["default"])
        return Arguments(values, arguments, tuple(repaired), self.secrets)

    def is_plainly_right(self, given: Mapping[str, object], ignored: Collection[str]) -> bool:
        """Return whether the types alone show that the schema holds: jsonschema takes fifty times as long to say so."""
        fields = self._plain_fields
        if fields is None or ignored or not self._required <= given.keys():
            return False
        for name, value in given.items():
            if name not in fields:
                if self._is_closed:
                    return False
            elif (types := fields[name]) is not None and type(value) not in types:
                return False
        return True

    def check(self, given: Mapping[str, object], ignored: Collection[str]) -> None:
        errors = self._find_errors(given, ignored)
        if not errors:
            return
        mended, told = _mend(given, errors)
        if not told or self._find_errors(mended, ignored):
            raise RefusedArguments(self.tool, self._describe(errors, given), _problems(errors))

    def _find_errors(self, given: Mapping[str, object], ignored: Collection[str] = frozenset()) -> "list[_Error]":
        errors = _read_errors(self._validator.iter_errors(given))
        return [error for error in errors if not _is_about(error, ignored)] if ignored else list(errors)

    def _describe(self, errors: "Sequence[_Error]", given: Mapping[str, object]) -> tuple[str, ...]:
        lines: dict[object, str] = {}
        for error in errors:
            for key, line in _describe(error, given, self.names, self.secrets):
                lines.setdefault(key, line[:MAX_LINE])
        return tuple(lines.values())


_SAYS_NOTHING = frozenset(("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"))
"""The keywords that allow any value."""
_OF_PLAIN_OBJECTS = frozenset(("type", "properties", "required", "additionalProperties", "$schema", "$defs"))
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def _find_plain_fields(schema: Schema) -> dict[str, frozenset[type] | None] | None:
    """Find the Python types that each field takes, None for any; None for a schema that asks for more than types."""
    properties = schema.get("properties", {})
    if (
        schema.keys() - _OF_PLAIN_OBJECTS - _SAYS_NOTHING
        or not isinstance(schema.get("additionalProperties", True), bool)
        or not isinstance(properties, dict)
    ):
        return None
    fields: dict[str, frozenset[type] | None] = {}
    for name, held in properties.items():
        if held is not True and (not isinstance(held, dict) or held.keys() - {"type"} - _SAYS_NOTHING):
            return None
        kinds = types_of(held) if isinstance(held, dict) else ()
        if not _PYTHON_TYPES.keys() >= set(kinds):
            return None  # an old draft has types of its own
        fields[name] = frozenset(kind for said in kinds for kind in _PYTHON_TYPES[said]) if kinds else None
    return fields


@dataclass(frozen=True, slots=True)
class _Error:
    """jsonschema's error as plain values; `schema` is the part that was broken, by its keyword."""

    path: tuple[str | int, ...]
    keyword: str
    message: str
    schema: Schema
    missing: frozenset[str] = frozenset()
    unexpected: tuple[str, ...] = ()


def _read_errors(found: Iterable[Any]) -> Iterator[_Error]:
    for error in found:
        instance: Any = error.instance
        schema: Any = error.schema
        keyword = str(error.validator)
        missing: tuple[str, ...] = ()
        unexpected: tuple[str, ...] = ()
        wanted: Any = error.validator_value
        if keyword == "required" and isinstance(wanted, list):
            # One error for each name, which only its message tells.
            names = [name for name in cast(list[str], wanted) if name not in instance]
            missing = tuple(name for name in names if error.message.startswith(repr(name)))
        elif keyword in ("additionalProperties", "unevaluatedProperties"):
            patterns: Iterable[str] = schema.get("patternProperties", ())
            others: list[str] = [name for name in instance if name not in schema.get("properties", {})]
            unexpected = tuple(name for name in others if not any(re.search(pattern, name) for pattern in patterns))
        yield _Error(
            tuple(error.absolute_path),
            keyword,
            error.message,
            cast(Schema, schema) if isinstance(schema, dict) else {},
            frozenset(missing),
            unexpected,
        )


def _describe(
    error: _Error, given: Mapping[str, object], names: tuple[str, ...], secrets: SecretPlaces
) -> Iterator[tuple[object, str]]:
    where = format_path(error.path)
    if error.missing:
        for name in sorted(error.missing):
            yield (*error.path, name), f"{format_path((*error.path, name))!r} is missing"
    elif error.unexpected:
        for name in error.unexpected:
            hint = "; " + suggest(name, names) if not error.path else ""
            yield (*error.path, name), f"unexpected argument {format_path((*error.path, name))!r}{hint}"
    else:
        value = value_at(given, error.path)
        said = error.message.removeprefix(f"{value!r} ")
        # The message may repeat whatever lies below the path.
        is_secret = bool(secrets) and secrets.mask_at(value, error.path) != value
        text = f"breaks {error.keyword!r}" if is_secret else f"is {shorten(value)}: {said}"
        yield error.path[:1], f"{where or 'the arguments'!r} {text}"


def _problems(errors: Sequence[_Error]) -> tuple[Problem, ...]:
    return tuple(Problem(error.path, ()) for error in errors)


def _is_about(error: _Error, names: Collection[str]) -> bool:
    """Return whether an error is about these arguments and no others."""
    return error.path[0] in names if error.path else bool(error.missing) and error.missing.issubset(names)


def _mend(given: Mapping[str, object], errors: Sequence[_Error]) -> tuple[dict[str, object], list[str]]:
    """Repair the arguments where possible; return them and a line for each repair."""
    mended = deepcopy(dict(given))
    told = [_repair(mended, error) for error in errors]
    return mended, [line for line in told if line is not None]


def _repair(mended: dict[str, object], error: _Error) -> str | None:
    """Repair one value as for a signature, by the schema that it broke."""
    if not error.path:
        return None
    *outer, key = error.path
    kinds = set(types_of(error.schema))
    if error.keyword == "type" and (line := read_scalar(value_at(mended, outer), key, kinds)) is not None:
        return f"{format_path(error.path)}: {line}"
    is_choice = error.keyword == "enum"
    wanted = ExpectedValue(
        has_default="default" in error.schema,
        takes_null=("null" in kinds or error.schema.get("nullable") is True) and "string" not in kinds,
        takes_container=bool(kinds & {"object", "array"}) and (is_choice or "string" not in kinds),
        choices=[(str(choice), choice) for choice in cast(list[JSON], error.schema["enum"])] if is_choice else (),
    )
    line = mend(value_at(mended, outer), key, wanted)
    return None if line is None else f"{format_path(error.path)}: {line}"


_TYPES = frozenset(("string", "number", "integer", "boolean", "null", "array", "object"))
_NAMED = ("properties", "$defs", "definitions")
"""Whose members may have any name."""
_SINGLE = ("items", "additionalProperties", "contains", "not")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")


_RIGHT: Any = object()
"""What is left of something right."""


def leave_out_plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the schema without the parts that are obviously valid; the copy is valid exactly if the schema is.

    To check a schema by the schema of schemas takes half a millisecond for each property, and most properties are a
    type and a description.

    >>> leave_out_plain({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "text"}}})
    {'properties': {'b': {'type': 'text'}}}
    """
    return {name: rest for name, value in schema.items() if (rest := _thin(name, value)) is not _RIGHT}


def _thin(name: str, value: Any) -> Any:
    """Return what is left of a keyword's value."""
    check = _CHECKS.get(name)
    if check is not None:
        return _RIGHT if check(value) else value
    if name in _NAMED and isinstance(value, dict):
        members = {key: _thin_schema(part) for key, part in cast("dict[str, Any]", value).items()}
        left = {key: part for key, part in members.items() if part is not _RIGHT}
        return left or _RIGHT
    if name in _SINGLE and isinstance(value, dict):
        return _thin_schema(value)
    if name in _LISTED and isinstance(value, list) and value:
        parts: list[Any] = [_thin_schema(part) for part in cast("list[Any]", value)]
        if all(part is _RIGHT for part in parts):
            return _RIGHT
        # At their places: an error names the place.
        thin: list[Any] = [{} if part is _RIGHT else part for part in parts]
        return thin
    return cast(Any, value)


def _thin_schema(schema: Any) -> Any:
    if isinstance(schema, dict):
        return leave_out_plain(cast("dict[str, Any]", schema)) or _RIGHT
    return schema  # a bare `true` is no schema in the old drafts


def _is_type(value: Any) -> bool:
    return isinstance(value, str) and value in _TYPES


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "title": _is_text,
    "description": _is_text,
    "format": _is_text,
    "minLength": _is_count,
    "maxLength": _is_count,
    "minItems": _is_count,
    "maxItems": _is_count,
    "minimum": _is_number,
    "maximum": _is_number,
}
