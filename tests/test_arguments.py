"""Arguments from a model: what is repaired, what is refused, and in which words."""

import datetime
import enum
import json
import typing
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)

from flowkit import Agent, Reference, ScriptedModel, Tool, ToolArgumentsError, tool
from flowkit.masking import MASK
from flowkit.testing import call
from flowkit.tools.schema.arguments import is_plain


class Colour(enum.Enum):
    RED = "#f00"
    GREEN = "#0f0"


class Item(BaseModel):
    name: str
    count: int = 1
    colour: Colour = Colour.RED


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


@dataclass
class Box:
    items: list[Item] = field(default_factory=list[Item])
    note: str = ""


@dataclass
class Plain:
    size: int


class Point(NamedTuple):
    x: int
    y: int = 0


def taking(annotation: Any) -> Tool[..., Any]:
    def f(x: Any) -> None: ...

    f.__annotations__["x"] = annotation
    return tool(f)


def problems(made: Tool[..., Any], arguments: dict[str, Any] | str) -> tuple[str, ...]:
    with pytest.raises(ToolArgumentsError) as caught:
        made.validate(arguments)
    return caught.value.problems


def refuse_silently(value: int) -> int:
    if value < 0:
        raise ValueError
    return value


class Refused(int):
    """A type with a name of its own: parallel test processes must name their tests alike."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(Annotated[int, AfterValidator(refuse_silently)])


@tool
def buy(item: Item, box: Box | None = None, colour: Colour = Colour.RED, size: Literal["S", "M"] = "S") -> None: ...


@pytest.mark.parametrize(
    ("given_arguments", "values", "repaired"),
    [
        ({"item": '{"name": "a"}'}, {"item": Item(name="a")}, "item: read from JSON text"),
        ({"item": {"name": "a", "count": None}}, {"item": Item(name="a")}, "item.count: null read as its default"),
        ({"item": {"name": "a", "colour": "GREEN"}}, {"item": Item(name="a", colour=Colour.GREEN)}, "item.colour: 'GREEN' read as '#0f0'"),
        ({"item": {"name": "a"}, "colour": "green"}, {"colour": Colour.GREEN}, "colour: 'green' read as '#0f0'"),
        ({"item": {"name": "a"}, "colour": "#0F0"}, {"colour": Colour.GREEN}, "colour: '#0F0' read as '#0f0'"),
        ({"item": {"name": "a"}, "size": "m"}, {"size": "M"}, "size: 'm' read as 'M'"),
        ({"item": {"name": "a"}, "colour": None}, {"colour": Colour.RED}, "colour: null read as its default"),
        ({"item": {"name": "a"}, "box": {"items": '[{"name": "b"}]'}}, {"box": Box([Item(name="b")])}, "box.items: read from JSON text"),
        ({"item": {"name": "a"}, "box": {"note": None}}, {"box": Box()}, "box.note: null read as its default"),
    ],
)  # fmt: skip
def test_small_slips_are_repaired_and_told(
    given_arguments: dict[str, Any], values: dict[str, Any], repaired: str
) -> None:
    read = buy.validate(given_arguments)

    assert {name: read.values[name] for name in values} == values
    assert read.repaired == (repaired,)
    assert buy.validate(read.given).values == read.values
    assert buy.validate(read.given).repaired == ()


class Shade(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@pytest.mark.parametrize(
    ("annotation", "given_value", "value", "repaired"),
    [
        (list[str], "['a', 'b']", ["a", "b"], "x: read from Python text"),
        (dict[str, bool | None], "{'a': True, 'b': None}", {"a": True, "b": None}, "x: read from Python text"),
        (int | None, "null", None, "x: 'null' read as null"),
        (datetime.date | None, "None", None, "x: 'None' read as null"),
        (list[str] | None, "", None, "x: '' read as null"),
        (Literal["a", "b"] | None, " ", None, "x: ' ' read as null"),
        (Literal[1, 2], "2", 2, "x: '2' read as 2"),
        (Shade, "Dark Blue", Shade.DARK_BLUE, "x: 'Dark Blue' read as 'dark-blue'"),
    ],
)
def test_text_where_none_belongs_is_read_for_what_it_can_only_mean(
    annotation: Any, given_value: str, value: object, repaired: str
) -> None:
    read = taking(annotation).validate({"x": given_value})

    assert read.values["x"] == value
    assert read.repaired == (repaired,)


def refuse_blank(value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise ValueError("must not be blank")
    return value


@pytest.mark.parametrize(
    ("annotation", "given_value"),
    [
        (int, ""),
        (int, "null"),
        (Annotated[str | None, Field(min_length=1)], ""),
        (Annotated[str | None, AfterValidator(refuse_blank)], ""),
        (list[str], "a, b"),
        (list[str], "__import__('os').sep"),
        (Literal["dark blue", "dark-blue"], "DARK_BLUE"),
    ],
)
def test_text_that_may_mean_something_else_is_refused(annotation: Any, given_value: str) -> None:
    assert problems(taking(annotation), {"x": given_value})


def test_repair_leaves_what_was_given_alone() -> None:
    arguments = {"item": {"name": "a", "count": None}}
    buy.validate(arguments)
    assert arguments == {"item": {"name": "a", "count": None}}


def test_nothing_is_repaired_when_something_else_is_wrong() -> None:
    assert problems(buy, {"item": '{"name": "a"}', "size": "XL"})[0].startswith("'item'")


def test_arguments_in_a_json_string_are_decoded_once() -> None:
    text = json.dumps({"item": {"name": "a"}})
    read = buy.validate(json.dumps(text))
    assert read.values["item"] == Item(name="a")
    assert read.repaired == ("the arguments: read from JSON text inside a JSON string",)
    assert problems(buy, json.dumps(json.dumps(text)))


@given(st.text(), st.sampled_from(["", "[1]", "{}", "null", '"x"', "1"]))
def test_text_parameter_is_never_touched(text: str, json_text: str) -> None:
    @tool
    def say(words: str, more: str | None = None, some: str | int = "") -> None: ...

    for value in (text.encode("utf-8", "replace").decode(), json_text):
        read = say.validate({"words": value, "more": value, "some": value})
        assert read.values == {"words": value, "more": value, "some": value}
        assert read.repaired == ()


def test_text_that_a_validator_refused_is_not_decoded() -> None:
    def refuse(value: object) -> object:
        raise ValueError("no")

    @tool
    def say(words: Annotated[str, AfterValidator(refuse)]) -> None: ...

    assert problems(say, {"words": "[1]"}) == ("'words' is '[1]', no",)


def test_ambiguous_case_is_not_repaired() -> None:
    @tool
    def pick(size: Literal["ab", "AB", "c"]) -> None: ...

    assert problems(pick, {"size": "Ab"})
    assert pick.validate({"size": "C"}).values == {"size": "c"}


@pytest.mark.parametrize(
    ("annotation", "value", "problem"),
    [
        (int, "x", "'x' is 'x', expected an integer"),
        (int, 1.5, "'x' is 1.5, expected an integer"),
        (bool, "maybe", "'x' is 'maybe', expected true or false"),
        (str, 5, "'x' is 5, expected text"),
        (list[int], 5, "'x' is 5, expected a list such as [5]"),
        (list[str] | None, "a", "'x' is 'a', expected a list such as ['a']"),
        (list[str], {"0": "a"}, "'x' is {'0': 'a'}, expected a list"),
        (dict[str, int], 5, "'x' is 5, expected an object"),
        (dict[Literal["a"], int], {"b": 1}, "'x' has 'b' as a key, expected 'a'"),
        (dict[datetime.date, int], {"soon": 1}, "'x' has 'soon' as a key, expected a date such as 2026-01-31"),
        (Item, 5, "'x' is 5, expected an object"),
        (Item, {}, "'x.name' is missing"),
        (Plain, {"size": 1, "colour": 2}, "unexpected argument 'x.colour'"),
        (Point, [1, 2, 3], "unexpected argument 'x.2'"),
        (datetime.date, "soon", "'x' is 'soon', expected a date such as 2026-01-31"),
        (Annotated[int, Field(le=50)], 200, "'x' is 200, expected at most 50"),
        (Annotated[int, Field(ge=1)], 0, "'x' is 0, expected at least 1"),
        (Annotated[str, Field(min_length=2)], "a", "'x' is 'a', expected at least 2 characters"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "'x' is [1, 2], expected at most 1 items"),
        (Literal["a", "b"], "c", "'x' is 'c', expected 'a' or 'b'"),
        (list[int], [1, "b", "c"], "'x[1]' is 'b', expected an integer (and 1 more)"),
        (int | list[int], "a", "'x' is 'a', expected an integer or a list"),
        (int | None, "a", "'x' is 'a', expected an integer"),
        (Circle | Square, {"kind": "circle"}, "'x' is {'kind': 'circle'}, which is none of Circle, Square; for Circle: 'radius' is missing"),
        (Annotated[Circle | Square, Field(discriminator="kind")], {"kind": "circle"}, "'x.radius' is missing"),
        (Annotated[Circle | Square, Field(discriminator="kind")], {"kind": "oval"}, "'x.kind' is 'oval', expected one of 'circle', 'square'"),
        (Annotated[Circle | Square, Field(discriminator="kind")], {"side": 1}, "'x.kind' is missing"),
        (Circle | Square, {"kind": "square", "side": "long"}, "'x' is {'kind': 'square', 'side': 'long'}, which is none of Circle, Square; for Square: 'side' is 'long', expected a number"),
        (Circle | Item, {"name": 5}, "'x' is {'name': 5}, which is none of Circle, Item; for Item: 'name' is 5, expected text"),
        (bytes, "*", "'x' is '*', not base64"),
        (AwareDatetime, "2026-01-31T12:00:00", "'x' is '2026-01-31T12:00:00', expected a date and time with its zone, such as 2026-01-31T12:00:00Z"),
        (IPv4Address, "x", "'x' is 'x', expected a valid IPv4 address"),
        (Refused, -1, "'x' is -1, which its own check refuses"),
    ],
    ids=str,
)  # fmt: skip
def test_problem_says_what_is_there_and_what_was_expected(annotation: Any, value: object, problem: str) -> None:
    assert problems(taking(annotation), {"x": value}) == (problem,)


def test_each_wrong_argument_has_one_line() -> None:
    assert problems(buy, {"item": {"count": "x", "colour": 1}, "size": 3, "sise": 1}) == (
        "'item.name' is missing (and 2 more)",
        "'size' is 3, expected 'S' or 'M'",
        "unexpected argument 'sise'; did you mean 'size'?",
    )


def test_long_values_are_cut() -> None:
    (line,) = problems(buy, {"item": {"name": "a", "count": "x" * 10_000}})
    assert len(line) < 120


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "the arguments aren't JSON: unexpected end of data: line 1 column 2 (char 1)"),
        ("[1]", "the arguments are [1], expected an object"),
        ("3", "the arguments are 3, expected an object"),
    ],
)
def test_text_that_is_no_object_is_refused(text: str, problem: str) -> None:
    assert problems(buy, text) == (problem,)


def test_mistake_in_a_validator_is_told_in_the_log_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def stumble(value: int) -> int:
        raise KeyError("hunter2")

    @tool(effect="read")
    def look(number: Annotated[int, AfterValidator(stumble)]) -> None: ...

    result = Agent(ScriptedModel([[call("look", number=1)], "Sorry."]), tools=[look]).run_sync("Look.")

    assert result.output == "Sorry."
    (outcome,) = result.calls
    assert outcome.error == "tool 'look': a check of its own failed: KeyError"
    assert "a validator of tool look failed" in caplog.text
    assert "hunter2" in caplog.text
    for read in (look.validate, look.check):
        with pytest.raises(ToolArgumentsError, match="failed: KeyError"):
            read({"number": 1})


def test_secret_values_are_never_told() -> None:
    @tool(secret=("pin", "shape", "form", "codes"))
    def unlock(
        pin: int,
        word: SecretStr,
        other: str = "",
        shape: Annotated[Circle | Square, Field(discriminator="kind")] | None = None,
        form: Circle | Square | list[str] | None = None,
        codes: dict[int, int] | None = None,
    ) -> None: ...

    assert problems(unlock, {"pin": "hunter2", "word": 5, "shape": {"kind": "hunter2"}}) == (
        "'pin' is a secret, expected an integer",
        "'word' is a secret, expected text",
        "'shape.kind' is a secret, expected one of 'circle', 'square'",
    )
    for form in ({"kind": "square", "side": "hunter2"}, "hunter2"):
        assert "hunter2" not in str(problems(unlock, {"pin": 1, "word": "w", "form": form}))
    assert "hunter2" not in str(problems(unlock, {"pin": 1, "word": "w", "codes": {"hunter2": 1}}))
    read = unlock.validate({"pin": 1234, "word": "hunter2", "other": "o"})
    assert read.shown == {"pin": MASK, "word": MASK, "other": "o", "shape": MASK, "form": MASK, "codes": MASK}
    assert unlock.secrets == {"pin", "word", "shape", "form", "codes"}


def test_dict_and_text_are_read_alike_in_strict_models() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        day: datetime.date
        colour: Colour
        pair: tuple[int, int]

    @tool
    def f(x: Strict) -> None: ...

    arguments = {"x": {"day": "2026-01-02", "colour": "#f00", "pair": [1, 2]}}
    expected = Strict(day=datetime.date(2026, 1, 2), colour=Colour.RED, pair=(1, 2))
    assert f.validate(arguments).values == f.validate(json.dumps(arguments)).values == {"x": expected}


def test_python_values_are_taken_as_they_are() -> None:
    @tool
    def f(day: datetime.date, item: Item, wait: float) -> None: ...

    day, item = datetime.date(2026, 1, 2), Item(name="a")
    assert f.validate({"day": day, "item": item, "wait": float("inf")}).values == {
        "day": day,
        "item": item,
        "wait": float("inf"),
    }


def test_alias_is_what_a_caller_writes() -> None:
    @tool(secret=("from_",), resource="place:{from_}")
    def travel(from_: Annotated[str, Field(alias="from")], to: str = "Busan") -> str:
        """Travel.

        Args:
            from_: Where it begins.
        """
        return from_ + to

    assert travel.parameters["properties"] == {
        "from": {"type": "string", "description": "Where it begins."},
        "to": {"type": "string", "default": "Busan"},
    }
    call = travel.call(from_="Seoul")
    read = travel.validate(call.arguments)
    assert call.arguments == {"from": "Seoul"}
    assert travel.invoke(read) == "SeoulBusan"
    assert read.shown == {"from_": MASK, "to": "Busan"}
    assert travel.resources(read) == ("place:*",), "what is secret is in no name of a resource"
    assert problems(travel, {"form": "x"}) == ("'from' is missing", "unexpected argument 'form'; did you mean 'from'?")
    assert problems(travel, {"from": 5}) == ("'from' is a secret, expected text",)
    travel.check({"from": Reference("c")})


ORIGIN = Point(0)


class Key(typing.TypedDict):
    name: str


@dataclass
class Sealed:
    """A box that is closed."""

    key: Key
    content: bytes
    point: Point = ORIGIN
    inner: list["Sealed"] = field(default_factory=list["Sealed"])


def test_dataclass_holds_what_pydantic_alone_would_not_take() -> None:
    @tool
    def seal(box: Sealed) -> Sealed:
        return box

    inner = {"key": {"name": "b"}, "content": "AA==", "point": {"x": 1}}
    read = seal.validate({"box": {"key": {"name": "a"}, "content": "/w==", "inner": [inner]}})
    expected = Sealed({"name": "a"}, b"\xff", inner=[Sealed({"name": "b"}, b"\x00", Point(1))])
    assert read.values == {"box": expected}
    dumped = seal.dump(seal.invoke(read))
    assert seal.validate({"box": dumped}).values == {"box": expected}
    assert seal.validate({"box": expected}).values == {"box": expected}
    assert "A box that is closed." in str(seal.parameters)


def test_check_passes_over_arguments_that_hold_references() -> None:
    buy.check({"item": Reference("c")})
    buy.check({"item": {"name": Reference("c", ("name",))}, "size": "M"})
    buy.check({"item": Reference("c"), "size": "m", "colour": None})
    with pytest.raises(ToolArgumentsError, match="size"):
        buy.check({"item": Reference("c"), "size": "XL"})
    with pytest.raises(ToolArgumentsError, match="'item' is missing"):
        buy.check({"size": Reference("c")})
    with pytest.raises(ToolArgumentsError, match="unexpected argument 'itm'"):
        buy.check({"item": {"name": "a"}, "itm": Reference("c")})


PLAIN_TYPES = st.recursive(
    st.sampled_from([int, float, bool, str, None]),
    lambda inner: st.one_of(
        inner.map(lambda item: list[item]),
        inner.map(lambda item: dict[str, item]),
        inner.map(lambda item: typing.Optional[item]),  # noqa: UP045  # `None | None` is no type
    ),
    max_leaves=3,
)
JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
        st.sampled_from(["1", "1.0", "true", "no", "0", "1e3", "nan", "-0", " 1 ", "1_000", "", 1.0, -0.0, 1e300]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


@given(PLAIN_TYPES, JSON_VALUES)
def test_what_a_plain_type_takes_from_python_it_takes_alike_from_json(annotation: Any, value: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    assert is_plain(adapter.core_schema)
    try:
        read = adapter.validate_python(value)
    except ValidationError:
        return
    assert repr(read) == repr(adapter.validate_json(json.dumps(value)))


def test_plain_arguments_are_copies() -> None:
    @tool
    def take(rows: dict[str, list[int]]) -> None: ...

    rows = {"a": [1]}
    read = take.validate({"rows": rows}).values["rows"]
    read["a"].append(2)
    assert rows == {"a": [1]}


def test_type_that_reads_json_otherwise_isnt_plain() -> None:
    kinds: tuple[Any, ...] = (datetime.date, bytes, set[int], tuple[int, ...], Any, dict[str, Any], int | str, Colour)
    for annotation in kinds:
        assert not is_plain(TypeAdapter[Any](annotation).core_schema)


@dataclass
class Parcel:
    weight: int
    note: str = ""


@pytest.mark.parametrize(
    ("annotation", "given_value", "value"),
    [
        (tuple[int, Colour], [1, "red"], (1, Colour.RED)),
        (tuple[Colour, ...], ["red", "green"], (Colour.RED, Colour.GREEN)),
        (Parcel, {"weight": 1, "note": None}, Parcel(1)),
    ],
)
def test_slips_inside_tuples_and_dataclasses_are_repaired(annotation: Any, given_value: Any, value: Any) -> None:
    assert taking(annotation).validate({"x": given_value}).values == {"x": value}


def test_check_refuses_what_is_wrong_besides_what_it_would_repair() -> None:
    with pytest.raises(ToolArgumentsError, match="'box'"):
        buy.check({"item": Reference("c"), "size": "m", "box": 5})


def test_value_without_json_is_shown_shortened() -> None:
    @tool
    def f(x: Any) -> None: ...

    assert f.validate({"x": {1: object}}).shown == {"x": {"1": "<class 'object'>"}}
