"""Repair small slips of a model after plain validation has failed, and report them.

No repair is a guess: JSON or Python text for an object or a list; `null` for a parameter with a default; "null",
"None" or an empty text where null is allowed and text isn't; a choice by its name or in another spelling. A text for a
`str` parameter is never changed.
"""

import ast
import copy
import enum
import inspect
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import orjson
from pydantic import BaseModel
from typing_extensions import TypeIs, get_type_hints

from flowkit.references import SCALARS, Reference
from flowkit.tools.schema.problems import Problem, format_path, shorten, value_at


@dataclass(frozen=True, slots=True)
class Repairer:
    """Repairs by the types of the parameters; `defaulted` are those that may be left out."""

    annotations: Mapping[str, Any]
    defaulted: frozenset[str]

    def repair(self, given: Mapping[str, object], problems: Sequence[Problem]) -> tuple[dict[str, object], list[str]]:
        """Repair the arguments where possible; return them and a line for each repair.

        The caller validates them again.
        """
        mended = {name: _copy(value) for name, value in given.items()}
        told: list[str] = []
        for problem in problems:
            if problem.path:
                line = self._repair_one(mended, problem)
                if line is not None:
                    told.append(f"{format_path(problem.path)}: {line}")
        return mended, told

    def _repair_one(self, mended: dict[str, object], problem: Problem) -> str | None:
        *outer, key = problem.path
        kinds = problem.kinds
        types = self._types_at(problem.path)
        has_default = self._has_default(problem.path)
        if any(kind.startswith("string_") or kind in _REFUSALS for kind in kinds):
            # Text may stand here, or a check of the author's own read it: only null can be a slip.
            wanted = ExpectedValue(has_default)
        else:
            choices = tuple(_list_choices(types)) if kinds & _CHOICES else ()
            wanted = ExpectedValue(has_default, type(None) in types, bool(kinds & _CONTAINERS), choices)
        return mend(value_at(mended, outer), key, wanted)

    def _has_default(self, path: Sequence[str | int]) -> bool:
        if len(path) == 1:
            return path[0] in self.defaulted
        return any(_field_has_default(holder, path[-1]) for holder in self._types_at(path[:-1]))

    def _types_at(self, path: Sequence[str | int]) -> list[Any]:
        types: list[Any] = list(_members(self.annotations.get(str(path[0]), Any)))
        for step in path[1:]:
            types = [member for holder in types for inner in _inner(holder, step) for member in _members(inner)]
        return types


_CONTAINERS = frozenset(
    f"{kind}_type"
    for kind in ("list", "dict", "model", "dataclass", "tuple", "set", "frozen_set", "mapping", "iterable")
) | {"model_attributes_type"}


_CHOICES = frozenset({"enum", "literal_error"})
_REFUSALS = frozenset({"value_error", "assertion_error"})


@dataclass(frozen=True, slots=True)
class ExpectedValue:
    """The values that are allowed at a place, as far as repairs need them; `choices` maps names to values."""

    has_default: bool
    takes_null: bool = False
    takes_container: bool = False
    choices: Sequence[tuple[str, object]] = ()


def mend(holder: object, key: str | int, wanted: ExpectedValue) -> str | None:
    """Repair the value of `key` in place; return a description, or None if it is none of the known slips."""
    value = value_at(holder, (key,))
    if not isinstance(holder, (dict, list)):
        return None
    place = cast(dict[object, object], holder)
    if value is None and wanted.has_default and isinstance(holder, dict) and key in place:
        del place[key]
        return "null read as its default"
    if not isinstance(value, str):
        return None
    if wanted.takes_null and value.strip().casefold() in _NOTHING:
        place[key] = None
        return f"{shorten(value)} read as null"
    read = _read_container(value) if wanted.takes_container else None
    if read is not None:
        place[key], told = read
        return told
    choice = find_choice(value, wanted.choices)
    if choice is None:
        return None
    place[key] = choice
    return f"{shorten(value)} read as {shorten(choice)}"


_NOTHING = ("", "null", "none")


def _read_container(text: str) -> tuple[object, str] | None:
    """Read the object or list that a text holds; return it and how it was read."""
    readers: tuple[tuple[Callable[[str], object], str], ...] = ((orjson.loads, "JSON"), (ast.literal_eval, "Python"))
    for read, language in readers:
        try:
            value = read(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, (dict, list)):
            return cast(object, value), f"read from {language} text"
    return None


def find_choice(text: str, choices: Iterable[tuple[str, object]]) -> object:
    """Find the only value that this text can mean, by name or spelling; None if there is none, or more than one."""
    found = [
        choice
        for name, choice in choices
        if isinstance(choice, (str, int, float)) and _plain(text) in (_plain(name), _plain(str(choice)))
    ]
    return found[0] if found and all(choice == found[0] for choice in found) else None


def _plain(text: str) -> str:
    """Normalize spelling: `Dark Blue`, `dark_blue` and `DARK-BLUE` are equal, and so are Unicode forms of one text."""
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", text).strip()).casefold()


def _copy(value: object) -> object:
    """Copy the lists and dicts of a value, of which there may be a million."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        return items[:] if SCALARS.issuperset(map(type, items)) else [_copy(item) for item in items]
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in cast("dict[object, object]", value).items()}
    return value if type(value) in SCALARS or type(value) is Reference else copy.deepcopy(value)


def _list_choices(types: Sequence[Any]) -> Iterator[tuple[str, object]]:
    for kind in types:
        yield from _choices(kind)


def _choices(kind: Any) -> Iterator[tuple[str, object]]:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        for name, member in kind.__members__.items():
            yield name, member.value
    elif get_origin(kind) is Literal:
        for choice in get_args(kind):
            if isinstance(choice, enum.Enum):
                yield choice.name, choice.value
            elif isinstance(choice, (str, int)):
                yield str(choice), choice


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the branches of a union, without Annotated and alias around them."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif hasattr(annotation, "__value__"):
        yield from _members(annotation.__value__)
    elif get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _inner(holder: Any, step: str | int) -> Iterator[Any]:
    """Yield the type of a field, key or item of a type."""
    if _is_model(holder):
        for name, field in holder.model_fields.items():
            if step in (name, field.alias):
                yield field.annotation
    elif inspect.isclass(holder) and hasattr(cast(Any, holder), "__annotations__"):
        hints = _hints(holder)
        if isinstance(step, str) and step in hints:
            yield hints[step]
    else:
        arguments: tuple[Any, ...] = get_args(holder)
        origin = get_origin(holder)
        if origin is tuple and isinstance(step, int) and arguments[-1:] != (...,):
            yield from arguments[step : step + 1]
        else:
            yield from arguments[-1:] if isinstance(step, str) else arguments[:1]


def _is_model(holder: Any) -> TypeIs[type[BaseModel]]:
    return isinstance(holder, type) and issubclass(holder, BaseModel)


def _hints(holder: Any) -> dict[str, Any]:
    try:
        return get_type_hints(holder)
    except NameError:
        return {}


def _field_has_default(holder: Any, step: str | int) -> bool:
    if _is_model(holder):
        return any(step in (name, f.alias) and not f.is_required() for name, f in holder.model_fields.items())
    if is_dataclass(holder):
        return any(
            f.name == step and (f.default is not MISSING or f.default_factory is not MISSING) for f in fields(holder)
        )
    if hasattr(holder, "__attrs_attrs__"):
        # Its mark for "no default" is an attribute of a package that is never imported here.
        return any(f.alias == step and type(f.default).__name__ != "_Nothing" for f in holder.__attrs_attrs__)
    return step in getattr(holder, "_field_defaults", ()) or step in getattr(holder, "__optional_keys__", ())
