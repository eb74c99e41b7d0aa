"""The forms in which pydantic takes single types: bytes, literals, enums, and tuples with an unpacked part."""

import base64
import binascii
import enum
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Annotated, Any, TypeVarTuple, Unpack, get_args, get_origin

import typing_extensions
from pydantic import BeforeValidator, GetCoreSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic.functional_validators import PlainValidator
from pydantic_core import PydanticCustomError, PydanticSerializationError, core_schema, to_jsonable_python

from flowkit.codec import dump_sorted

UNPACKS = (Unpack, typing_extensions.Unpack)
"""Two different ones before Python 3.12."""

BASE64_SCHEMA = {"type": "string", "contentEncoding": "base64"}


class Repeating:
    """A tuple in which the item at `repeated` may stand any number of times."""

    def __init__(self, items: Sequence[Any], repeated: int) -> None:
        self._items = items
        self._repeated = repeated

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        items = [handler.generate_schema(item) for item in self._items]
        return core_schema.tuple_schema(items, variadic_item_index=self._repeated)


def is_unpacked(annotation: Any) -> bool:
    """Return whether it is `*tuple[...]`, or `Unpack[...]`, which is the same."""
    return get_origin(annotation) in UNPACKS or getattr(annotation, "__unpacked__", False)


def splice(arguments: Iterable[Any]) -> tuple[list[Any], int | None]:
    """Splice unpacked tuples into a tuple's types; return the types, and the position of the one that repeats.

    >>> splice((int, Unpack[tuple[str, ...]], bool))
    ([<class 'int'>, <class 'str'>, <class 'bool'>], 1)
    """
    items: list[Any] = []
    repeated: int | None = None
    for argument in arguments:
        if not is_unpacked(argument):
            items.append(argument)
            continue
        inner = get_args(argument)[0] if get_origin(argument) in UNPACKS else argument
        # What a variable of several types stands for is open: anything, any number of times.
        parts = (Any, ...) if isinstance(inner, TypeVarTuple) else get_args(inner)
        if get_origin(inner) is not tuple and not isinstance(inner, TypeVarTuple):
            raise TypeError(f"{argument!r} isn't of a tuple")
        if len(parts) == 2 and parts[1] is Ellipsis:
            parts, again = parts[:1], 0
        else:
            spliced, again = splice(parts)
            parts = tuple(spliced)
        if again is not None:
            if repeated is not None:
                raise TypeError("two parts of a tuple that may repeat: nobody can tell where the first one ends")
            repeated = len(items) + again
        items += parts
    return items, repeated


def is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def make_enum_readable(cls: type[enum.Enum]) -> Any:
    """Return the enum, read also by the JSON form of values that aren't JSON themselves, such as tuples and dates."""
    if all(isinstance(member.value, (str, int, float, NoneType)) for member in cls):
        return cls
    try:
        members = {dump_sorted(to_jsonable_python(member.value)): member for member in cls}
    except (PydanticSerializationError, TypeError, ValueError):
        return cls

    def find_member(value: object) -> object:
        try:
            return members.get(dump_sorted(value), value)
        except (TypeError, ValueError):
            return value

    return Annotated[cls, BeforeValidator(find_member)]


def make_literal_exact(annotation: Any, *, is_key: bool = False) -> Any:
    """Return the literal with 1, 1.0 and True kept apart, which Python and pydantic take as equal; enums by value.

    The key of an object is a text in JSON.
    """
    values = get_args(annotation)
    if all(type(value) is str or (value is None and not is_key) for value in values):
        return annotation
    try:
        in_json = [to_jsonable_python(value) for value in values]
    except UnicodeDecodeError:
        raise TypeError("JSON can't hold bytes that aren't text; take bytes") from None
    known = {dump_sorted(form): value for form, value in zip(in_json, values, strict=True)}
    if is_key:
        known = {dump_sorted(next(iter(to_jsonable_python({value: 0})))): value for value in values} | known
    *most, last = map(repr, in_json)
    expected = f"{', '.join(most)} or {last}" if most else last

    def find_value(value: object) -> object:
        if isinstance(value, (enum.Enum, bytes)):
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        try:
            return known[dump_sorted(value)]
        except (KeyError, TypeError, ValueError):
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected}) from None

    return Annotated[annotation, BeforeValidator(find_value)]


def _read_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None


def _read_byte_array(value: object) -> bytearray:
    read = _read_base64(value)
    if not isinstance(read, (bytes, bytearray)):
        raise ValueError("not base64")
    return bytearray(read)


def _write_base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


BASE64 = Annotated[
    bytes,
    BeforeValidator(_read_base64),
    PlainSerializer(_write_base64, return_type=str, when_used="json"),
    WithJsonSchema(BASE64_SCHEMA),
]

BYTE_ARRAY = Annotated[
    bytearray,
    PlainValidator(_read_byte_array),
    PlainSerializer(_write_base64, return_type=str, when_used="json"),
    WithJsonSchema(BASE64_SCHEMA),
]
