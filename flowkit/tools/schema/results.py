"""A tool's result as JSON, and the schema of it."""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import date, time
from enum import Enum
from inspect import isawaitable, iscoroutine
from os import PathLike, fspath
from typing import Any, cast, get_args, get_origin

import orjson
from pydantic import BaseModel, PydanticInvalidForJsonSchema, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, SchemaError, to_jsonable_python

from flowkit.codec import JSON, dumps, refuse_not_finite
from flowkit.errors import ToolResultError
from flowkit.masking import SecretPlaces
from flowkit.tools.schema.annotations import Adapter
from flowkit.tools.schema.arguments_schema import Schema, generate
from flowkit.tools.schema.problems import describe, group
from flowkit.tools.schema.signatures import MISSING

_PLAIN = frozenset({int, bool, str, float, type(None), bytes})
_ITSELF = (int, bool, str, type(None))


class ResultType:
    """A return annotation; its adapter and schema are made when they are first asked for."""

    def __init__(self, annotation: Any, *, schema: Mapping[str, JSON] | None = None) -> None:
        """Take a schema that is given in place of the annotation's."""
        self.annotation = annotation
        self.own_json: type | None = next((kind for kind in _ITSELF if annotation is kind), None)
        """The annotated type if its values are their own JSON, except for a text that isn't ASCII."""
        self._adapter: TypeAdapter[Any] | None = None
        self._schema: Schema | None = None if schema is None else dict(schema)
        self._is_read = schema is not None

    @property
    def adapter(self) -> TypeAdapter[Any] | None:
        """None for a result that pydantic knows nothing of."""
        self._read()
        return self._adapter

    @property
    def schema(self) -> Schema | None:
        """The schema of the JSON that `dump` returns; None if the annotation doesn't determine it."""
        self._read()
        return self._schema

    def dump(self, tool: str, result: Any) -> JSON:
        """Convert the result to JSON.

        Raises `ToolResultError` naming a type that can't be converted, or the place that doesn't fit the
        annotation; otherwise the error would appear only when the result is read later, perhaps from the cache.
        """
        # A whole number or plain text is its own JSON, and what most tools return.
        if type(result) is self.own_json and (self.own_json is not str or result.isascii()):
            return result
        try:
            result = keep(result)
            value = self._dump(tool, result)
            text = dumps(value)
            if (
                type(result) not in _PLAIN
                and not _has_text_keys(result)
                and (lost := _find_lost_key(result)) is not None
            ):
                raise ValueError(f"its keys {lost[0]!r} and {lost[1]!r} are one in JSON")
            # pydantic writes NaN as null, and None in any place: so only a result that holds a null needs the look.
            if b"null" in text and self.adapter is not None:
                refuse_not_finite(self.adapter.dump_python(result, warnings=False))
                self._refuse_null(tool, self.adapter, value, text)
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            if isawaitable(result):
                raise ToolResultError(_say_not_awaited(tool, result)) from None
            raise ToolResultError(
                f"tool {tool!r}: its result, of type {type(result).__name__}, can't be JSON: {error}"
            ) from error
        return value

    def load(self, value: JSON) -> Any:
        """Load the result that `dump` wrote, as its annotated type; the JSON itself when there is no annotation.

        Raises pydantic's `ValidationError` for another one, such as a result that an earlier version of the tool stored.
        """
        if self.adapter is None:
            return value
        return _read_written(self.adapter, dumps(value))

    def _dump(self, tool: str, result: object) -> JSON:
        if self.adapter is not None:
            try:
                return self.adapter.dump_python(result, mode="json", by_alias=True, warnings="error")
            except (PydanticSerializationError, UnicodeDecodeError):
                # Not an instance of the annotation: taken for what it is, if that says the same.
                pass
        value: JSON = to_jsonable_python(result, bytes_mode="base64", inf_nan_mode="constants", fallback=_to_plain)
        if self.adapter is not None:
            try:
                _read_written(self.adapter, dumps(value))
            except ValidationError as misfit:
                raise _refuse(tool, misfit, value) from misfit
        return value

    def _refuse_null(self, tool: str, adapter: TypeAdapter[Any], value: JSON, text: bytes) -> None:
        """Raise `ToolResultError` for a None where the annotation has none.

        Nothing else is looked at: a result may be written in another form than it is read, by a serializer of its own.
        """
        try:
            _read_written(adapter, text)
        except ValidationError as misfit:
            if any(error["input"] is None and error["type"] != "extra_forbidden" for error in misfit.errors()):
                raise _refuse(tool, misfit, value) from misfit

    def _read(self) -> None:
        if self._is_read:
            return
        # Said last: results are dumped in threads, and one that comes meanwhile must not find half of it.
        self._read_annotation()
        self._is_read = True

    def _read_annotation(self) -> None:
        if self.annotation is MISSING or self.annotation is Any:
            return
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(Adapter().adapt(_as_kept(self.annotation)))
            self._schema = generate(adapter, "serialization")
            self._adapter = adapter
        except (
            PydanticUserError,
            SchemaError,
            PydanticInvalidForJsonSchema,
            TypeError,
            NameError,
            ImportError,
            RecursionError,
        ):
            # An honest function may return what only its caller in Python understands; a call of it fails at the dump.
            return


def _read_written(adapter: TypeAdapter[Any], text: bytes) -> Any:
    """Read a result from the JSON that was written of it: a field may be read by an alias that it isn't written by."""
    try:
        return adapter.validate_json(text)
    except ValidationError as misfit:
        try:
            return adapter.validate_json(text, by_alias=True, by_name=True)
        except ValidationError:
            raise misfit from None


def _refuse(tool: str, misfit: ValidationError, value: JSON) -> ToolResultError:
    return ToolResultError(
        f"tool {tool!r}: its result isn't of its return type: {describe_misfit(misfit, value)}; mend the function or its "
        "annotation"
    )


def describe_misfit(misfit: ValidationError, value: JSON) -> str:
    """Describe the first place of a result that isn't of its type, such as `'result.items[0]' is 'a', expected …`."""
    errors = [{**error, "loc": ("result", *error["loc"])} for error in misfit.errors(include_url=False)]
    given = {"result": value}
    return describe(group(cast(list[ErrorDetails], errors), given), given, (), SecretPlaces())[0]


def keep(result: Any) -> Any:
    """Return a value that can be read more than once: a list for a generator, `map` or `zip`."""
    if not isinstance(result, Iterator) or hasattr(cast(object, result), "read"):
        return cast(Any, result)  # a file is an iterator too, and no result
    return list(cast(Iterator[Any], result))


def _as_kept(annotation: Any) -> Any:
    """Return the type of what `keep` returns for a result of this type."""
    items = get_args(annotation)[:1]
    return list[items] if items and get_origin(annotation) in (Iterator, Generator) else annotation


def _say_not_awaited(tool: str, result: object) -> str:
    if iscoroutine(result):
        result.close()  # else Python warns of it, in some other place
    return f"tool {tool!r}: it returned something to await: write it as `async def`, or annotate it `-> Awaitable[...]`"


def _to_plain(value: Any) -> object:
    """Convert the numbers and arrays of numpy and its kin by `tolist`, and what only acts as a mapping, list or path."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(cast("PathLike[str]", value))
    if isinstance(value, Mapping):
        return dict(cast(Mapping[object, object], value))
    if isinstance(value, Collection):
        return list(cast(Collection[object], value))
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} is unknown")


def _has_text_keys(result: object) -> bool:
    """Return whether all keys are certainly texts, by a quick look; the rest gets a closer one."""
    try:
        orjson.dumps(result)
    except TypeError:
        return False
    return True


def _find_lost_key(value: object) -> tuple[object, object] | None:
    """Find two keys of one mapping that are the same in JSON, such as `1` and `"1"`."""
    if isinstance(value, Mapping):
        seen: dict[object, object] = {}
        for key, item in cast(Mapping[object, object], value).items():
            written = _write_key(key)
            if written in seen:
                return seen[written], key
            seen[written] = key
            if (lost := _find_lost_key(item)) is not None:
                return lost
    elif isinstance(value, (list, tuple, set, frozenset)):
        return next(filter(None, map(_find_lost_key, cast(Iterable[object], value))), None)
    elif isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        return (
            next(filter(None, map(_find_lost_key, vars(value).values())), None) if hasattr(value, "__dict__") else None
        )
    return None


def _write_key(key: object) -> str:
    """Write a key in its JSON form."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, Enum):
        return _write_key(key.value)
    return key.isoformat() if isinstance(key, date | time) else str(key)


_RECORDS = {
    ("pandas", "DataFrame"): 'table.to_dict("records")',
    ("polars", "DataFrame"): "table.to_dicts()",
    ("polars", "LazyFrame"): "table.collect().to_dicts()",
    ("pyarrow", "Table"): "table.to_pylist()",
    ("pyarrow", "RecordBatch"): "table.to_pylist()",
}


def find_table(annotation: Any) -> str | None:
    """Find a table in this annotation and return what to use instead; None when there is none."""
    for part in get_args(annotation):
        found = find_table(part)
        if found is not None:
            return found
    package = str(getattr(annotation, "__module__", "")).partition(".")[0]
    name = str(getattr(annotation, "__name__", ""))
    records = _RECORDS.get((package, name))
    if records is None:
        return None
    return (
        f"its result is a {package}.{name}, which isn't JSON: return {records} as list[dict[str, Any]], "
        "or write a file and return its path"
    )
