"""Types that Python's typing can say and pydantic can't take as they are: schema, values, and the way out and back."""

import asyncio
import dataclasses
import enum
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial, wraps
from ipaddress import IPv4Address
from types import GenericAlias
from typing import (
    Annotated,
    Any,
    AnyStr,
    ClassVar,
    Final,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    NewType,
    NotRequired,
    ParamSpec,
    Required,
    Self,
    TypedDict,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
)
from uuid import UUID

import attrs
import pytest
import typing_extensions as te
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Discriminator, Field, SecretStr, Tag

from flowkit import DefinitionError, Needs, Tool, ToolArgumentsError, tool
from flowkit.errors import ToolResultError
from flowkit.targets import find_violations

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
P = ParamSpec("P")
R = TypeVar("R")
Bounded = TypeVar("Bounded", bound=bytes)
Given = te.TypeVar("Given", default=bytes)


class Shade(enum.Enum):
    DARK = "dark"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    label: bytes = b""


class PairOf(NamedTuple, Generic[T]):
    first: T
    size: int = 1


class Holder(te.TypedDict, Generic[T]):
    held: T


class Closed(te.TypedDict, closed=True):
    a: int


class Counts(te.TypedDict, extra_items=te.ReadOnly[bytes]):
    name: str


class Old(TypedDict, total=False):
    a: Required[int]
    b: bytes


class Options(te.TypedDict):
    size: int
    colour: te.NotRequired[te.ReadOnly[str]]


@dataclasses.dataclass
class Tree:
    name: Final[bytes]
    first: Self | None = None


@attrs.define
class Parcel:
    grams: int
    _code: bytes = b"\x01"
    stops: list[str] = attrs.Factory(list[str])
    is_heavy: bool = attrs.field(init=False, default=False)


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


def find_kind(value: Any) -> Any:
    return cast(Any, value).get("kind") if isinstance(value, dict) else value.kind


Blob = NewType("Blob", bytes)
Spot = NewType("Spot", Point)
Bytes = te.TypeAliasType("Bytes", bytes)
ListOf = te.TypeAliasType("ListOf", list[T], type_params=(T,))
Tangle = te.TypeAliasType("Tangle", "list[Tangle] | int")  # pyright: ignore[reportInvalidTypeForm]  # before Python 3.12

TYPES: list[tuple[Any, Any, Any]] = [
    (tuple[int, *tuple[str, ...]], [1, "a", "b"], (1, "a", "b")),
    (tuple[int, *tuple[str, ...]], [1], (1,)),
    (tuple[*tuple[str, ...], int], ["a", 1], ("a", 1)),
    (tuple[int, *tuple[bytes, ...], bool], [1, "YQ==", True], (1, b"a", True)),
    (tuple[*tuple[int, str], bool], [1, "a", True], (1, "a", True)),
    (tuple[int, Unpack[tuple[Shade]]], [1, "dark"], (1, Shade.DARK)),  # noqa: UP044  # the older spelling
    (tuple[int, te.Unpack[tuple[str, ...]]], [1, "a"], (1, "a")),  # noqa: UP044  # as above
    (tuple[int, *Ts], [1, "a", None], (1, "a", None)),  # pyright: ignore[reportGeneralTypeIssues]  # a variable that nobody fills
    (bytearray, "YWI=", bytearray(b"ab")),
    (dict[str, list[bytearray]], {"a": ["YWI="]}, {"a": [bytearray(b"ab")]}),
    (LiteralString, "a", "a"),
    (list[LiteralString | None], ["a", None], ["a", None]),
    (Final[int], 1, 1),
    (te.ReadOnly[int], 1, 1),
    (AnyStr, "a", "a"),
    (Bounded, "YQ==", b"a"),
    (Given, "YQ==", b"a"),
    (Blob, "YQ==", b"a"),
    (Spot, {"x": 1}, Point(1)),
    (dict[Blob, Spot], {"YQ==": {"x": 1}}, {b"a": Point(1)}),
    (Bytes, "YQ==", b"a"),
    (Bytes | None, "YQ==", b"a"),
    (ListOf[bytes], ["YQ=="], [b"a"]),
    (Tangle, [1, [2, []]], [1, [2, []]]),
    (PairOf[bytes], {"first": "YQ=="}, PairOf(b"a")),
    (Holder[bytes], {"held": "YQ=="}, {"held": b"a"}),
    (Holder[Holder[Point]], {"held": {"held": {"x": 1}}}, {"held": {"held": Point(1)}}),
    (Closed, {"a": 1}, {"a": 1}),
    (Counts, {"name": "a", "b": "YQ=="}, {"name": "a", "b": b"a"}),
    (Old, {"a": 1, "b": "YQ=="}, {"a": 1, "b": b"a"}),
    (Tree, {"name": "YQ==", "first": {"name": "Yg=="}}, Tree(b"a", Tree(b"b"))),
    (Parcel, {"grams": 5, "code": "YQ=="}, Parcel(5, b"a")),
    (list[Parcel], [{"grams": 5}], [Parcel(5)]),
    (Literal[b"ab", Shade.DARK], "ab", b"ab"),
    (dict[Literal[1, "a"], int], {"1": 2, "a": 3}, {1: 2, "a": 3}),
    (dict[Literal[True, Shade.DARK], int], {"true": 3, "dark": 1}, {True: 3, Shade.DARK: 1}),
    (Right, 3, Right.READ | Right.WRITE),
    (dict[timedelta, IPv4Address], {"PT90S": "1.2.3.4"}, {timedelta(seconds=90): IPv4Address("1.2.3.4")}),
    (dict[UUID | date, Decimal], {"2026-01-02": "1.50"}, {date(2026, 1, 2): Decimal("1.50")}),
    (Annotated[Annotated[int, Field(ge=1)], "how many", Field(le=5)], 5, 5),
    (
        Annotated[Annotated[Cat, Tag("cat")] | Annotated[Dog, Tag("dog")], Discriminator(find_kind)],
        {"kind": "dog"},
        Dog(),
    ),
    (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
]


TWICE: Any = GenericAlias(tuple, (*cast(Any, tuple[int, ...]), *cast(Any, tuple[str, ...])))
"""What no type checker lets pass."""


def one(annotation: Any) -> Tool[..., Any]:
    """A tool that returns its one argument as it came."""

    def f(x: Any) -> Any:
        return x

    f.__annotations__ = {"x": annotation, "return": annotation}
    return tool(effect="read")(f)


def is_valid(schema: Mapping[str, Any], value: object) -> bool:
    return bool(cast(Any, Draft202012Validator(schema)).is_valid(value))


@pytest.mark.parametrize(("annotation", "given", "value"), TYPES)
def test_type_is_told_taken_and_returned_as_it_was_written(annotation: Any, given: Any, value: Any) -> None:
    built = one(annotation)
    Draft202012Validator.check_schema(built.parameters)
    assert is_valid(built.parameters, {"x": given})

    taken = built.validate({"x": given}).values["x"]
    assert (taken, type(taken)) == (value, type(value))

    told = built.dump(taken)
    back = built.load(told)
    assert (back, type(back)) == (value, type(value))
    if built.result_schema is not None:
        assert is_valid(built.result_schema, told)
    definition = built.for_target()["function"]
    assert not definition.get("strict") or not list(find_violations(definition["parameters"]))


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (tuple[int, *tuple[str, ...]], []),
        (tuple[int, *tuple[str, ...]], [1, 2]),
        (tuple[*tuple[str, ...], int], []),
        (tuple[int, *tuple[bytes, ...], bool], [1]),
        (Closed, {"a": 1, "b": 2}),
        (Counts, {"name": "a", "b": 1}),
        (dict[Literal[1, 2], int], {"3": 1}),
        (Parcel, {"grams": 5, "is_heavy": True}),
    ],
)
def test_what_the_schema_refuses_is_refused(annotation: Any, given: Any) -> None:
    built = one(annotation)
    assert not is_valid(built.parameters, {"x": given})
    with pytest.raises(ToolArgumentsError):
        built.validate({"x": given})


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (ClassVar[int], "ClassVar belongs to the fields of a class"),
        (NotRequired[int], "NotRequired belongs to the fields of a TypedDict; give the parameter a default"),
        (Self, "Self is known in a class's own fields alone"),
        (re.Pattern[bytes], "JSON can't hold a pattern of bytes"),
        (TWICE, "two parts of a tuple that may repeat"),
        (dict[None, int], "a key that is a none"),
        (memoryview, "has no JSON form"),
        (te.Never, "has no JSON form"),
    ],
)
def test_type_that_json_cannot_say_is_refused_with_its_parameter(annotation: Any, problem: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(problem)) as refused:
        one(annotation)
    assert "parameter 'x'" in str(refused.value)


def run(function: Callable[..., Any], **arguments: Any) -> Any:
    return asyncio.run(tool(effect="read")(function).run(arguments))


def test_unpacked_stars_are_lists_of_their_length() -> None:
    def pair(*args: *tuple[int, Shade]) -> str:
        return repr(args)

    def many(first: int, *args: *tuple[int, *tuple[Shade, ...]]) -> str:
        return repr((first, args))

    def some(*args: *tuple[bytes, ...]) -> str:
        return repr(args)

    def anything(*args: *Ts) -> str:  # pyright: ignore[reportInvalidTypeVarUse]  # as people write it
        return repr(args)

    assert run(pair, args=[1, "dark"]) == repr((1, Shade.DARK))
    assert run(many, first=0, args=[1, "dark"]) == repr((0, (1, Shade.DARK)))
    assert run(some) == "()"
    assert run(some, args=["YQ=="]) == repr((b"a",))
    assert run(anything, args=[1, None]) == repr((1, None))
    assert tool(pair)(1, Shade.DARK) == repr((1, Shade.DARK))
    for missing in (pair, many):
        with pytest.raises(ToolArgumentsError, match="'args' is missing"):
            tool(missing).validate({"first": 0} if missing is many else {})


def test_unpacked_keywords_may_be_left_out_or_read_only() -> None:
    def paint(**options: Unpack[Options]) -> str:
        return repr(options)

    assert run(paint, size=1) == "{'size': 1}"
    assert run(paint, size=1, colour="red") == "{'size': 1, 'colour': 'red'}"


def passed_on(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    @wraps(function)
    async def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        return await function(*args, **kwargs)

    return inner


def test_wrapped_and_partial_functions_keep_their_types() -> None:
    @passed_on
    async def add(first: int, /, second: Blob, *, third: int = 3) -> bytes:
        return second * (first + third)

    assert run(add, first=1, second="YQ==") == b"aaaa"
    assert run(partial(add, 1, third=0), second="YQ==") == b"a"


def test_names_of_a_running_function_are_found_through_a_helper() -> None:
    def register(function: Callable[..., Any]) -> Tool[..., Any]:
        return tool(effect="read")(function)

    def make() -> Tool[..., Any]:
        class Local(BaseModel):
            value: int

        class Service:
            def read(self, local: "Local") -> "Local":
                return local

        return register(Service().read)

    assert make().parameters["properties"]["local"] == {"$ref": "#/$defs/Local"}


def test_coroutine_that_nobody_awaits_is_told() -> None:
    async def later() -> int:
        return 1

    def start() -> Any:
        return later()

    built = tool(start)
    with pytest.raises(ToolResultError, match="write it as `async def`"):
        built.dump(start())


class Item(BaseModel):
    price: float
    key: SecretStr = SecretStr("")


class Order(BaseModel):
    items: list[Item]


@pytest.mark.parametrize(
    ("annotation", "result", "problem"),
    cast(
        list[tuple[Any, Any, str | None]],
        [
            (int, "a", "'result' is 'a', expected an integer"),
            (str, 5, "'result' is 5, expected text"),
            (str, None, "'result' is None, expected text"),
            (None, 1, "'result' is 1, expected null"),
            (Order, {"items": [{"price": "much"}]}, "'result.items[0].price' is 'much', expected a number"),
            (list[Item], [{}], "'result[0].price' is missing"),
            (list[int], [1, None], "'result[1]' is None, expected an integer"),
            (Parcel, Parcel(cast(Any, None)), "'result.grams' is None, expected an integer"),
            (list[int | None], [1, None], None),
            (dict[str, int], {"a": 1, "b": []}, "'result.b' is [], expected an integer"),
            (int | Shade, [], "'result' is []"),
            (Point, [1], None),
            (int, 2.0, None),
            (Order, {"items": [{"price": 1}]}, None),
            (float, 3, None),
        ],
    ),
)
def test_result_of_another_type_is_told_when_it_is_dumped(annotation: Any, result: object, problem: str | None) -> None:
    built = one(annotation)
    if problem is None:
        built.load(built.dump(result))
        return
    with pytest.raises(ToolResultError) as told:
        built.dump(result)
    assert "tool 'f': its result isn't of its return type" in str(told.value)
    assert problem in str(told.value)


def test_need_that_never_fits_is_refused_at_decoration() -> None:
    @tool(effect="read")
    def count(name: str) -> int:
        return len(name)

    @tool(effect="read")
    def untold(name: str):  # pyright: ignore[reportUnknownParameterType]  # nobody says what it returns
        return name

    with pytest.raises(
        DefinitionError, match="parameter 'order' needs 'count', whose result is integer, expected object"
    ):

        @tool(effect="read")
        def ship(order: Order = Needs(count)) -> None: ...  # pyright: ignore[reportArgumentType]  # that is the point

    @tool(effect="read")
    def fits(size: float = Needs(count), other: Any = Needs(untold)) -> None: ...

    assert {need.parameter for need in fits.needs} == {"size", "other"}


def test_null_for_a_field_of_an_attrs_class_is_its_default() -> None:
    taken = one(Parcel).validate({"x": {"grams": 5, "code": None, "stops": None}}).values["x"]
    assert taken == Parcel(5)
    with pytest.raises(ToolArgumentsError, match=r"'x\.grams' is None"):
        one(Parcel).validate({"x": {"grams": None}})


@attrs.define
class Login:
    name: str
    password: SecretStr


def test_attrs_class_is_a_record_to_keys_and_secrets() -> None:
    @tool(ttl=60, scope="all")
    def log_in(login: Login) -> Parcel:
        return Parcel(1)

    first = log_in.validate({"login": {"name": "a", "password": "hush"}})
    assert "hush" not in repr(log_in.secrets.mask({"login": {"name": "a", "password": "hush"}}))
    assert log_in.key(first, "s") == log_in.key(log_in.validate({"login": Login("a", SecretStr("hush"))}), "s")
    assert log_in.key(first, "s") != log_in.key(log_in.validate({"login": {"name": "b", "password": "hush"}}), "s")
