"""Generated signatures for property tests: types nested three deep, every kind of parameter, defaults."""

import datetime
import enum
import inspect
import pathlib
import typing
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from types import NoneType
from typing import Any, Literal, NamedTuple, Optional, Union, get_args, get_origin

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel

from flowkit.tools.schema.type_forms import is_unpacked


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    city: str
    floor: int = 0


class Person(BaseModel):
    name: str
    home: Address | None = None
    friends: list["Person"] = []


@dataclass(frozen=True)
class Span:
    start: datetime.date
    days: int = 1


class Point(NamedTuple):
    x: int
    label: str = ""


class Movie(typing.TypedDict):
    title: str
    year: typing.NotRequired[int]


@attrs.frozen
class Box:
    size: int
    marks: tuple[Point, ...] = ()


UserId = typing.NewType("UserId", int)


@dataclass(frozen=True)
class Kind:
    """An annotation, and a strategy of its values."""

    annotation: Any
    values: SearchStrategy[Any]


_integers = st.integers(-(2**60), 2**60)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_addresses = st.builds(Address, city=_texts, floor=_integers)
_people = st.builds(Person, name=_texts, home=st.none() | _addresses, friends=st.just([]))

HASHABLE = [
    Kind(int, _integers),
    Kind(str, _texts),
    Kind(bool, st.booleans()),
    Kind(datetime.date, st.dates()),
    Kind(uuid.UUID, st.uuids()),
    Kind(Colour, st.sampled_from(Colour)),
    Kind(Literal["a", "b"], st.sampled_from(["a", "b"])),
    Kind(bytes, st.binary(max_size=8)),
]
LEAVES = [
    *HASHABLE,
    Kind(float, _floats),
    Kind(Level, st.sampled_from(Level)),
    Kind(Literal[1, "x", None, True], st.sampled_from([1, "x", None, True])),
    Kind(datetime.datetime, st.datetimes(timezones=st.just(datetime.UTC) | st.none())),
    Kind(datetime.timedelta, st.timedeltas(datetime.timedelta(0), datetime.timedelta(days=999))),
    Kind(Decimal, st.decimals(-(10**9), 10**9, allow_nan=False, places=3)),
    Kind(pathlib.Path, st.sampled_from([pathlib.Path("a"), pathlib.Path("/b/c")])),
    Kind(Address, _addresses),
    Kind(Person, _people),
    Kind(Span, st.builds(Span, start=st.dates(), days=_integers)),
    Kind(Point, st.builds(Point, x=_integers, label=_texts)),
    Kind(bytearray, st.binary(max_size=8).map(bytearray)),
    Kind(UserId, _integers),
    Kind(Box, st.builds(Box, size=_integers, marks=st.just((Point(1),)))),
    Kind(
        Movie,
        st.fixed_dictionaries({"title": _texts}, optional={"year": _integers}),
    ),
]
KEYS = [Kind(str, _texts), Kind(int, _integers), Kind(datetime.date, st.dates()), Kind(Colour, st.sampled_from(Colour))]


def _wrap(inner: SearchStrategy[Kind]) -> SearchStrategy[Kind]:
    return st.one_of(
        inner.map(lambda kind: Kind(list[kind.annotation], st.lists(kind.values, max_size=3))),
        inner.map(lambda kind: Kind(Optional[kind.annotation], st.none() | kind.values)),  # noqa: UP045
        inner.map(lambda kind: Kind(tuple[kind.annotation, ...], st.lists(kind.values, max_size=3).map(tuple))),
        st.tuples(inner, inner).map(
            lambda pair: Kind(tuple[pair[0].annotation, pair[1].annotation], st.tuples(pair[0].values, pair[1].values))
        ),
        st.tuples(inner, inner).map(
            lambda pair: Kind(
                tuple[pair[0].annotation, *tuple[pair[1].annotation, ...]],
                st.tuples(pair[0].values, st.lists(pair[1].values, max_size=2)).map(lambda got: (got[0], *got[1])),
            )
        ),
        st.tuples(st.sampled_from(KEYS), inner).map(
            lambda pair: Kind(
                dict[pair[0].annotation, pair[1].annotation],
                st.dictionaries(pair[0].values, pair[1].values, max_size=3),
            )
        ),
        st.sampled_from(HASHABLE).map(lambda kind: Kind(set[kind.annotation], st.sets(kind.values, max_size=3))),
        st.tuples(inner, inner).map(
            lambda pair: Kind(Union[pair[0].annotation, pair[1].annotation], pair[0].values | pair[1].values)  # noqa: UP007
        ),
    )


def kinds() -> SearchStrategy[Kind]:
    """Types up to three deep."""
    leaves = st.sampled_from(LEAVES)
    two = leaves | _wrap(leaves)
    return two | _wrap(two)


@dataclass(frozen=True)
class Generated:
    """A function of a generated signature; `received` gets the arguments of each call, by name."""

    function: Callable[..., Any]
    kinds: dict[str, Kind]
    received: list[dict[str, Any]]


NAMES = ["a", "title", "type", "self", "cls", "schema", "json", "_b", "args", "kwargs", "default", "model_config"]
ORDER = [
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
]


@st.composite
def functions(draw: st.DrawFn) -> Generated:
    """Functions with up to four parameters of any kind but `**`, some with defaults."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    places = sorted(draw(st.lists(st.sampled_from(range(4)), min_size=len(names), max_size=len(names))))
    parameters: list[inspect.Parameter] = []
    chosen: dict[str, Kind] = {}
    defaulted = star = False
    for name, index in zip(names, places, strict=True):
        place = ORDER[1 if index == 2 and star else index]
        if star and place is not ORDER[3]:
            place = ORDER[3]
        kind = draw(kinds())
        chosen[name] = kind
        default: Any = inspect.Parameter.empty
        if place is ORDER[2]:
            star = True
            chosen[name] = Kind(tuple[kind.annotation, ...], st.lists(kind.values, max_size=2).map(tuple))
        elif (defaulted and place is not ORDER[3]) or draw(st.booleans()):
            default = draw(kind.values)
            defaulted = defaulted or place is not ORDER[3]
        parameters.append(inspect.Parameter(name, place, default=default, annotation=kind.annotation))
    signature = inspect.Signature(parameters)
    received: list[dict[str, Any]] = []

    def function(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        received.append(dict(bound.arguments))

    made: Any = function
    made.__signature__ = signature
    made.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return Generated(function, chosen, received)


def is_of(value: Any, annotation: Any) -> bool:
    """Whether a value is of a generated type, exactly: True is no int, a dict is no model."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union:
        return any(is_of(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is dict:
        return type(value) is dict and all(
            is_of(key, arguments[0]) and is_of(held, arguments[1])
            for key, held in typing.cast(dict[Any, Any], value).items()
        )
    if origin is tuple:
        if type(value) is not tuple:
            return False
        items = typing.cast(tuple[Any, ...], value)
        if is_unpacked(arguments[-1]):
            rest = get_args(arguments[-1])[0]
            return is_of(items[0], arguments[0]) and all(is_of(item, rest) for item in items[1:])
        if arguments[-1] is ...:
            return all(is_of(item, arguments[0]) for item in items)
        return len(items) == len(arguments) and all(map(is_of, items, arguments))
    if origin in (list, set):
        return type(value) is origin and all(is_of(item, arguments[0]) for item in typing.cast(list[Any], value))
    if annotation is Movie:
        return type(value) is dict and is_of(typing.cast(dict[str, Any], value).get("title"), str)
    if annotation is UserId:
        return type(value) is int
    if annotation is pathlib.Path:
        return isinstance(value, pathlib.Path)
    return type(value) is (NoneType if annotation is None else annotation)


def spell(value: Any) -> str:
    """A text that differs for different values, written without flowkit: types by name, sets and dicts sorted."""
    if isinstance(value, dict):
        held = typing.cast(dict[Any, Any], value)
        return "dict{" + ",".join(sorted(f"{spell(key)}:{spell(item)}" for key, item in held.items())) + "}"
    if isinstance(value, set):
        return "set{" + ",".join(sorted(map(spell, typing.cast(set[Any], value)))) + "}"
    if isinstance(value, (list, tuple)):
        items = ",".join(map(spell, typing.cast(list[Any], value)))
        return f"{type(typing.cast(Any, value)).__name__}[{items}]"
    return f"{type(value).__name__}({value!r})"
