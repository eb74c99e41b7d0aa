"""Types as people write them: what their schema says, what arrives, what their default looks like."""

import asyncio
import enum
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, field, make_dataclass
from datetime import date
from threading import Thread
from typing import Annotated, Any, Final, Literal, NamedTuple, NotRequired, ParamSpec, TypedDict, cast

import pytest
import typing_extensions
from jsonschema import Draft202012Validator
from pydantic import AliasChoices, Base64Bytes, BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from flowkit import DefinitionError, Tool, ToolArgumentsError, tool
from flowkit.testing import check
from tests.hash_seeds import print_under_seeds


class Point(NamedTuple):
    x: int
    label: bytes = b"\x00"


START = Point(1)


@dataclass
class Route:
    start: Point = START
    stops: set[str] = field(default_factory=set[str])


@dataclass
class Parcel:
    grams: int
    is_heavy: bool = field(init=False, default=False)


class Login(BaseModel):
    user: str = "guest"
    password: SecretStr = SecretStr("hunter2")


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Grade(enum.Enum):
    GOOD = "good"
    BEST = (1, 2)


class Marks(enum.Enum):
    UNSET = object()


class Raw(enum.Enum):
    NOT_TEXT = b"\xff"


class Kept(enum.IntFlag):
    READ = 1
    WRITE = 2


class Renamed(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=False)
    total_cents: int


class ReadByAlias(BaseModel):
    total_cents: int = Field(validation_alias="cents")


class Movie(TypedDict):
    title: str
    sequels: NotRequired[list["Movie"]]


class Order(BaseModel):
    total_cents: int = Field(alias="totalCents")


def taking(annotation: Any, default: Any = ...) -> Tool[..., Any]:
    def f(x: Any) -> Any:
        return x

    f.__annotations__ = {"x": annotation, "return": annotation}
    if default is not ...:
        f.__defaults__ = (default,)
    return tool(effect="read")(f)


def give(built: Tool[..., Any], value: object) -> Any:
    return asyncio.run(built.run({"x": value}))


@pytest.mark.parametrize(
    ("annotation", "default", "told"),
    [
        (Point, Point(2), {"x": 2, "label": "AA=="}),
        (list[Point], [Point(2)], [{"x": 2, "label": "AA=="}]),
        (Route, Route(), {"start": {"x": 1, "label": "AA=="}, "stops": []}),
        (Grade, Grade.BEST, [1, 2]),
        (Access, Access.READ | Access.WRITE, 3),
        (frozenset[str], frozenset({"b", "a", "c"}), ["a", "b", "c"]),
        (dict[date, int], {date(2026, 1, 31): 1}, {"2026-01-31": 1}),
        (bytes, b"\xff", "/w=="),
    ],
)
def test_default_is_told_as_the_json_that_means_it(annotation: Any, default: object, told: Any) -> None:
    built = taking(annotation, default)

    schema: Any = built.parameters["properties"]
    assert schema["x"]["default"] == told
    assert give(built, told) == default
    assert Draft202012Validator(built.parameters).is_valid({"x": told})  # pyright: ignore[reportUnknownMemberType]


def test_default_inside_a_type_has_the_shape_that_its_schema_wants() -> None:
    definitions: Any = taking(Route).parameters["$defs"]

    assert definitions["Route"]["properties"]["start"]["default"] == {"x": 1, "label": "AA=="}
    assert definitions["Point"]["properties"]["label"]["default"] == "AA=="


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (Login, Login()),
        (SecretStr, SecretStr("hunter2")),
        (SecretStr | None, SecretStr("hunter2")),
        (SecretStr, "hunter2"),
    ],
)
def test_secret_default_is_told_nowhere(annotation: Any, default: object) -> None:
    built = taking(annotation, default)

    assert "hunter2" not in str(built.parameters)
    assert "***" not in str(built.parameters)
    assert "hunter2" not in str(built.result_schema)


@pytest.mark.slow
def test_default_of_a_set_is_the_same_in_every_process() -> None:
    code = "from flowkit import tool\ndef f(x: set[str] = {'a', 'b', 'c', 'd'}): ...\nprint(tool(f).parameters)"

    told = print_under_seeds(code)

    assert len(told) == 1


def test_field_that_is_no_argument_is_told_of_results_alone() -> None:
    built = taking(Parcel)

    definitions: Any = built.parameters["$defs"]
    result: Any = built.result_schema
    assert set(definitions["Parcel"]["properties"]) == {"grams"}
    assert set(result["properties"]) == {"grams", "is_heavy"}
    check(built, examples=20)


def test_read_only_keys_are_taken_without_a_warning() -> None:
    class Seat(typing_extensions.TypedDict):
        row: typing_extensions.ReadOnly[int]
        side: typing_extensions.NotRequired[typing_extensions.ReadOnly[str]]

    made = taking(Seat)
    assert made.validate({"x": {"row": 1}}).values == {"x": {"row": 1}}
    with pytest.raises(ToolArgumentsError, match=r"'x\.row' is missing"):
        made.validate({"x": {"side": "left"}})


def test_flags_are_told_as_a_sum() -> None:
    built = taking(Access)

    definitions: Any = built.parameters["$defs"]
    assert definitions["Access"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 3,
        "description": "The sum of some of: 1 READ, 2 WRITE",
    }
    assert give(built, 3) == Access.READ | Access.WRITE
    check(built, examples=20)


@pytest.mark.parametrize(("value", "member"), [(1, 1), (1.0, 1), ("good", Grade.GOOD), ([1, 2], Grade.BEST)])
def test_literal_enum_member_is_read_by_its_value(value: object, member: object) -> None:
    built = taking(Literal[1, Grade.GOOD, Grade.BEST])

    assert give(built, value) == member
    others: list[object] = [True, "best", {}]
    for wrong in others:
        with pytest.raises(ToolArgumentsError, match=r"expected 1, 'good' or \[1, 2\]"):
            give(built, wrong)
    check(built, examples=20)


@pytest.mark.parametrize("annotation", [Iterable[int], Collection[int]])
def test_items_are_checked_before_the_function_is_called(annotation: Any) -> None:
    built = taking(annotation)

    assert give(built, [1, 2]) == [1, 2]
    with pytest.raises(ToolArgumentsError, match=r"'x\[1\]' is 'two', expected an integer"):
        give(built, [1, "two"])
    check(built, examples=20)


def test_base64_of_pydantic_is_taken() -> None:
    assert give(taking(Base64Bytes), "aGk=") == b"hi"


@pytest.mark.parametrize("annotation", [Point, Route, list[Route], Parcel, Order])
def test_result_schema_and_dump_agree(annotation: Any) -> None:
    built = taking(annotation)
    result: Any = {Point: Point(1), Route: Route(), Order: Order(totalCents=5), Parcel: Parcel(5)}.get(
        annotation, [Route()]
    )

    dumped = built.dump(result)

    assert built.result_schema
    errors = list(Draft202012Validator(cast(Any, built.result_schema)).iter_errors(dumped))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
    assert errors == []


@pytest.mark.parametrize(
    ("annotation", "result"),
    [
        (bytes, b"hi\xff"),
        (dict[str, bytes], {"a": b"hi"}),
        (Point, Point(1, b"hi")),
        (Route, Route(Point(2, b"hi"), {"a"})),
        (Movie, {"title": "Heat", "sequels": [{"title": "Heat 2"}]}),
        (Grade, Grade.BEST),
        (Access, Access.READ | Access.WRITE),
        (Kept, Kept(5)),
        (Renamed, Renamed(total_cents=5)),
        (ReadByAlias, ReadByAlias.model_validate({"cents": 5})),
        (dict[Annotated[str, Field(pattern="^a")], int], {"ab": 1}),
    ],
)
def test_result_that_was_kept_as_json_comes_back_as_its_type(annotation: Any, result: object) -> None:
    def f() -> Any:
        return result

    f.__annotations__["return"] = annotation
    made = tool(f)
    dumped = made.dump(result)
    assert made.load(dumped) == result
    assert made.result_schema
    assert Draft202012Validator(made.result_schema).is_valid(dumped)  # pyright: ignore[reportUnknownMemberType]


def test_result_with_aliases_fills_a_need_of_its_type() -> None:
    built = taking(Order)

    dumped = built.dump(Order(totalCents=5))

    assert dumped == {"totalCents": 5}
    assert give(built, dumped) == Order(totalCents=5)


def test_type_whose_package_is_missing_is_told_with_its_parameter() -> None:
    class Needy:
        @classmethod
        def __get_pydantic_core_schema__(cls, *_: object) -> Any:
            raise ImportError("email-validator is not installed")

    with pytest.raises(DefinitionError, match=r"parameter 'x': .*email-validator is not installed"):
        taking(Needy)


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (
            Thread,
            "threading.Thread can't be an argument: <class 'threading.Thread'> has no JSON form; take plain types",
        ),
        (list[Thread], r"list\[threading.Thread\] can't be an argument: <class 'threading.Thread'> has no JSON form"),
        (Callable[[int], int], "can't be an argument: CallableSchema has no JSON form"),
        (Generator[int, None, None], "can't be an argument: JSON can't hold a generator; take Iterable or list"),
        (Raw, "test_annotations.Raw can't be an argument: a value of Raw has no JSON form"),
        (Literal[b"\xff"], "can't be an argument: JSON can't hold bytes that aren't text; take bytes"),
        (type[int], r"type\[int\] can't be an argument: a subclass of int has no JSON form"),
        (Marks, "test_annotations.Marks can't be an argument: a value of Marks has no JSON form"),
        (dict[tuple[int, int], str], "can't be an argument: a key that is a tuple has no JSON form"),
    ],
)
def test_type_without_a_json_form_is_told_with_its_parameter(annotation: Any, problem: str) -> None:
    with pytest.raises(DefinitionError, match=f"^tool 'f': parameter 'x': .*{problem}") as caught:
        taking(annotation)
    assert caught.value.parameter == "x"


WORDS = sorted(
    {key for kind in vars(core_schema).values() if typing_extensions.is_typeddict(kind) for key in kind.__annotations__}
)
"""The keys of pydantic's own schemas."""


@pytest.mark.parametrize("annotation", [Thread, type[int], Marks])
@pytest.mark.parametrize("name", WORDS)
def test_parameter_named_like_a_key_of_a_schema_is_checked_like_any_other(name: str, annotation: Any) -> None:
    module: dict[str, Any] = {"annotation": annotation}
    exec(f"def f({name}: annotation): ...", module)
    with pytest.raises(DefinitionError, match=f"^tool 'f': parameter '{name}': .*has no JSON form"):
        tool(module["f"])

    made = make_dataclass("Made", [(name, annotation)])
    with pytest.raises(DefinitionError, match=r"^tool 'f': parameter 'x': .*has no JSON form"):
        taking(made)


def test_class_named_by_another_out_of_its_sight_is_told() -> None:
    module: dict[str, Any] = {"tool": tool, "dataclass": dataclass}
    code = """
from __future__ import annotations
def make():
    @dataclass
    class Inner: ...
    @dataclass
    class Outer:
        inner: Inner
    @tool
    def f(x: Outer): ...
"""
    exec(code, module)

    with pytest.raises(DefinitionError, match=r"parameter 'x': .*name 'Inner' is not defined; a class that stands in"):
        module["make"]()


def test_model_itself_is_a_tool_that_makes_one() -> None:
    built = tool(Login)

    schema: Any = built.parameters["properties"]
    assert schema["user"] == {"type": "string", "default": "guest"}
    assert built.result_schema
    assert asyncio.run(built.run({"user": "ann"})) == Login(user="ann")


def test_first_of_several_aliases_is_the_name_outside() -> None:
    built = taking(Annotated[int, Field(validation_alias=AliasChoices("from", "start"))])

    assert asyncio.run(built.run({"start": 1})) == 1
    with pytest.raises(ToolArgumentsError, match=r"unexpected argument 'x'; .*from"):
        built.validate({"x": 1})


def test_annotated_flag_keeps_its_own_words() -> None:
    built = taking(Annotated[Access, Field(description="What it may do")])

    schema: Any = built.parameters["properties"]
    assert schema["x"]["description"] == "What it may do"


def test_names_outside_a_pattern_are_refused_by_the_schema_too() -> None:
    built = taking(dict[Annotated[str, Field(pattern="^a")], int])

    assert built.parameters["properties"]["x"] == {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "propertyNames": {"pattern": "^a"},
    }
    check(built, examples=20)


def test_result_that_is_read_once_is_told_as_the_list_that_is_kept() -> None:
    def double(numbers: list[int]) -> Iterator[int]:
        return map(int, numbers * 2)

    made = tool(double)
    assert made.result_schema == {"type": "array", "items": {"type": "integer"}}
    assert made.load(made.dump(asyncio.run(made.run({"numbers": [1]})))) == [1, 1]


@pytest.mark.parametrize("text", ["Final[int]", "Final[Annotated[int, 'count']]", "'Final[int]'"])
def test_qualifier_that_is_text_is_stripped(text: str) -> None:
    module: dict[str, Any] = {"Final": Final, "Annotated": Annotated}
    exec(f"from __future__ import annotations\ndef f(x: {text}, y: Final = 3): return x + y", module)

    assert asyncio.run(tool(module["f"]).run({"x": 1})) == 4


def test_wrapper_without_the_names_of_its_function_is_told() -> None:
    P = ParamSpec("P")

    def wrap(function: Callable[P, int]) -> Callable[P, int]:
        def inner(*args: P.args, **kwargs: P.kwargs) -> int:
            return function(*args, **kwargs)

        return inner

    @wrap
    def f(x: int) -> int:
        return x

    with pytest.raises(DefinitionError, match=r"'args' is that of a wrapper; write @functools.wraps\(function\) above"):
        tool(f)
