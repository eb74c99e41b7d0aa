"""Signatures and inputs that went wrong in other frameworks; the numbers are those of the collection of cases.

Cases about strict targets stand in `test_targets.py`, those about streams in `test_assemble.py`.
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import functools
import ipaddress
import pathlib
import re
import typing
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar, Union

import pytest
import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from flowkit import CONTEXT, Context, DefinitionError, Tool, ToolArgumentsError, tool
from flowkit.codec import JSON
from flowkit.testing import check

T = TypeVar("T")


def run(made: Tool[..., Any], arguments: Mapping[str, object] | str = "") -> Any:
    return asyncio.run(made.run(arguments))


def properties(made: Tool[..., Any]) -> dict[str, dict[str, JSON]]:
    found = made.parameters["properties"]
    assert isinstance(found, dict)
    return typing.cast(dict[str, dict[str, JSON]], found)


def problems(made: Tool[..., Any], arguments: Mapping[str, object] | str) -> tuple[str, ...]:
    with pytest.raises(ToolArgumentsError) as caught:
        made.validate(arguments)
    return caught.value.problems


class Status(enum.Enum):
    COMPLETED = "completed"
    OPEN = "open"


class Address(BaseModel):
    city: str = Field(description="Where it is.")
    zip_code: str = ""


class Order(BaseModel):
    id: str
    address: Address = Field(description="Where to send it.")


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    radius: float


class Square(BaseModel):
    kind: Literal["square"] = "square"
    side: float


class Node(BaseModel):
    name: str
    children: list[Node] = []


Shape = Annotated[Circle | Square, Field(discriminator="kind")]


def test_case_1_positional_only_parameters_are_passed_by_position() -> None:
    @tool
    def f(a: int, /, b: int) -> list[int]:
        return [a, b]

    assert list(properties(f)) == ["a", "b"]
    assert run(f, {"a": 1, "b": 2}) == [1, 2]


def test_case_2_parameters_called_args_and_kwargs_are_ordinary() -> None:
    @tool
    def f(args: str, kwargs: int) -> list[object]:
        return [args, kwargs]

    assert properties(f) == {"args": {"type": "string"}, "kwargs": {"type": "integer"}}
    assert run(f, {"args": "x", "kwargs": 2}) == ["x", 2]


def test_case_3_collected_keywords_are_typed_extras() -> None:
    @tool
    def f(a: int, **kwargs: str) -> dict[str, object]:
        return {"a": a, **kwargs}

    assert f.parameters["additionalProperties"] == {"type": "string"}
    assert run(f, {"a": 1, "colour": "red"}) == {"a": 1, "colour": "red"}
    assert problems(f, {"a": 1, "colour": 5})


def test_case_3_collected_positions_are_a_list() -> None:
    @tool
    def f(a: int, *rest: int, last: bool = False) -> list[object]:
        return [a, rest, last]

    assert properties(f)["rest"]["items"] == {"type": "integer"}
    assert run(f, {"a": 1, "rest": [2, 3], "last": True}) == [1, (2, 3), True]
    assert run(f, {"a": 1}) == [1, (), False]


def test_case_3_unpacked_typed_dict_is_flat() -> None:
    class More(typing_extensions.TypedDict, total=False):
        colour: typing_extensions.Required[str]
        size: int

    @tool
    def f(**more: typing_extensions.Unpack[More]) -> dict[str, object]:
        return {**more}

    assert f.parameters["required"] == ["colour"]
    assert run(f, {"colour": "red"}) == {"colour": "red"}


def test_case_4_enum_keeps_its_values_and_its_default() -> None:
    @tool
    def f(status: Status = Status.COMPLETED) -> object:
        return status

    assert properties(f)["status"]["default"] == "completed"
    assert "completed" in str(f.parameters["$defs"])
    assert run(f, {"status": "open"}) is Status.OPEN
    assert run(f) is Status.COMPLETED


class Corner(enum.Enum):
    TOP = (0, 1)
    DAY = datetime.date(2026, 1, 2)


def test_case_4_enum_of_values_that_are_not_json_is_read_by_their_json_form() -> None:
    @tool
    def f(corners: list[Corner], corner: Corner = Corner.TOP) -> list[object]:
        return [*corners, corner]

    assert run(f, {"corners": [[0, 1], "2026-01-02"]}) == [Corner.TOP, Corner.DAY, Corner.TOP]
    assert properties(f)["corner"]["default"] == [0, 1]


def test_case_5_described_nested_model_still_resolves() -> None:
    @tool
    def f(order: Annotated[Order, Field(description="What was bought.")]) -> str:
        return order.address.city

    assert properties(f)["order"] == {"$ref": "#/$defs/Order", "description": "What was bought."}
    assert set(f.parameters["$defs"]) == {"Address", "Order"}
    assert run(f, {"order": {"id": "1", "address": {"city": "Busan"}}}) == "Busan"


def test_case_6_context_is_hidden_and_given_with_string_annotations() -> None:
    @tool
    def f(a: int, ctx: Context[str], b: int = 2) -> list[object]:
        return [a, b, ctx.data]

    assert list(properties(f)) == ["a", "b"]
    assert asyncio.run(f.run({"a": 1}, context=Context("shop"))) == [1, 2, "shop"]


def test_case_7_any_annotation_may_be_text() -> None:
    @tool
    def f(
        a: Optional[Order],  # noqa: UP045
        b: Literal["x", "y"],
        c: Annotated[int, Field(ge=1)],
    ) -> list[object]:
        return [a, b, c]

    order = {"id": "1", "address": {"city": "Busan"}}
    assert run(f, {"a": order, "b": "x", "c": 1}) == [Order(id="1", address=Address(city="Busan")), "x", 1]


def test_case_8_name_that_is_unknown_is_told_with_its_parameter() -> None:
    def f(a: int, b: Missing) -> None:  # type: ignore[name-defined] # noqa: F821 # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]
        ...

    with pytest.raises(DefinitionError, match=r"parameter 'b'.*Missing") as caught:
        tool(f)  # pyright: ignore[reportUnknownArgumentType]
    assert caught.value.parameter == "b"


def test_case_12_none_is_delivered_and_nullable_without_default_is_required() -> None:
    @tool
    def f(x: Annotated[Optional[str], "d"] = None) -> object:  # noqa: UP045
        return x

    @tool
    def g(x: Annotated[int | None, Field()]) -> object:
        return x

    assert run(f) is None
    assert properties(f)["x"]["description"] == "d"
    assert g.parameters["required"] == ["x"]
    assert run(g, {"x": None}) is None


def test_case_13_both_spellings_of_optional_are_one_schema() -> None:
    @tool
    def f(x: str | None = None) -> None: ...

    @tool
    def g(x: Optional[str] = None) -> None: ...  # noqa: UP045

    assert f.parameters == g.parameters


def test_case_14_required_parameter_behind_a_default_stays_required() -> None:
    @tool
    def f(x: list[str] | None = None, *, q: str) -> None: ...

    assert f.parameters["required"] == ["q"]


def test_case_15_every_branch_of_a_union_is_typed() -> None:
    @tool
    def f(x: Optional[Union[str, Literal[""]]]) -> None: ...  # noqa: UP007, UP045

    branches = properties(f)["x"]["anyOf"]
    assert isinstance(branches, list)
    assert all(isinstance(branch, dict) and "type" in branch for branch in branches)


def test_case_16_union_of_containers_keeps_their_items() -> None:
    @tool
    def f(x: list[int] | dict[str, float]) -> object:
        return x

    assert properties(f)["x"]["anyOf"] == [
        {"type": "array", "items": {"type": "integer"}},
        {"type": "object", "additionalProperties": {"type": "number"}},
    ]
    assert run(f, {"x": {"a": 1}}) == {"a": 1.0}


def test_case_17_literal_and_union_results_are_accepted() -> None:
    @tool
    def f(x: Literal["a", "b"]) -> Union[str, bool]:  # noqa: UP007
        return x

    assert properties(f)["x"]["enum"] == ["a", "b"]
    assert f.result_schema == {"anyOf": [{"type": "string"}, {"type": "boolean"}]}


def test_case_18_result_schemas_of_unions_hold_their_definitions() -> None:
    @dataclass
    class Hit:
        order: Order

    @tool
    def f() -> Hit | str:
        return Hit(Order(id="1", address=Address(city="Busan")))

    @tool
    def g() -> dict[str, Any] | list[int] | str:
        return [1]

    schema = f.result_schema
    assert schema is not None
    assert set(typing.cast(dict[str, JSON], schema["$defs"])) == {"Hit", "Order", "Address"}
    assert f.dump(f()) == {"order": {"id": "1", "address": {"city": "Busan", "zip_code": ""}}}
    assert g.dump(g()) == [1]


def test_case_19_description_and_constraint_are_both_kept() -> None:
    @tool
    def f(x: Annotated[str, Field(description="A name.", min_length=1)]) -> None: ...

    assert properties(f)["x"] == {"type": "string", "description": "A name.", "minLength": 1}


def test_case_20_default_factory_makes_a_fresh_value_for_each_call() -> None:
    @tool
    def f(x: Annotated[list[int], Field(default_factory=list)]) -> list[int]:
        x.append(1)
        return x

    @tool
    def g(x: list[int] = Field(default_factory=list[int])) -> list[int]:  # noqa: B008
        x.append(1)
        return x

    for made in (f, g):
        assert "required" not in made.parameters
        assert run(made) == run(made) == [1]
    assert g() == g() == [1]


def test_case_20_mutable_default_is_not_shared_between_calls() -> None:
    @tool
    def f(x: list[int] = []) -> list[int]:  # noqa: B006
        x.append(1)
        return x

    assert run(f) == run(f) == [1]


def test_case_21_partial_has_its_own_defaults_and_the_functions_words() -> None:
    def f(a: int, b: int, c: int) -> list[int]:
        """Three numbers."""
        return [a, b, c]

    made = tool(functools.partial(f, 1, b=2))

    assert made.name == "f"
    assert made.description == "Three numbers."
    assert properties(made) == {"b": {"type": "integer", "default": 2}, "c": {"type": "integer"}}
    assert run(made, {"c": 3}) == [1, 2, 3]


def test_case_22_single_model_is_flat_when_asked() -> None:
    @tool(flatten=True)
    def f(order: Order) -> str:
        return order.id

    @tool
    def nested(order: Order) -> str:
        return order.id

    arguments = {"id": "1", "address": {"city": "Busan"}}
    assert list(properties(f)) == ["id", "address"]
    assert run(f, arguments) == "1"
    assert f.validate(arguments).values == {"order": Order(id="1", address=Address(city="Busan"))}
    assert f.key(f.validate(arguments), "") is not None
    assert run(nested, {"order": arguments}) == "1"


def test_case_22_flat_schema_says_what_is_taken_and_nothing_twice() -> None:
    class Query(BaseModel):
        words: str

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        words: str

    class Branch(BaseModel):
        words: str
        inner: list[Branch] = []

    def closed(query: Query) -> None: ...
    def opened(query: Open) -> Open:
        return query

    def recursive(query: Branch) -> None: ...
    def defaulted(query: Query = Query(words="all")) -> None: ...  # noqa: B008

    assert tool(flatten=True)(closed).parameters == {
        "type": "object",
        "properties": {"words": {"type": "string"}},
        "required": ["words"],
        "additionalProperties": False,
    }
    assert run(tool(flatten=True)(opened), {"words": "a", "more": 1}) == Open(words="a", more=1)  # pyright: ignore[reportCallIssue]
    assert "Branch" in tool(flatten=True)(recursive).parameters["$defs"]
    for made in (closed, opened, recursive):
        check(tool(flatten=True)(made), examples=20)
    with pytest.raises(DefinitionError, match="flatten needs a parameter without a default, which 'query' has"):
        tool(flatten=True)(defaulted)


def test_case_22_field_called_like_the_parameter_is_not_unwrapped() -> None:
    class Query(BaseModel):
        query: str

    @tool(flatten=True)
    def f(query: Query) -> str:
        return query.query

    assert run(f, {"query": "x"}) == "x"
    assert problems(f, {"query": {"query": "x"}})


def test_case_23_models_arrive_as_instances_in_containers() -> None:
    @tool
    def f(a: Order, b: list[Order], c: dict[str, Order]) -> object:
        return {type(item) for item in (a, *b, *c.values())}

    order = {"id": "1", "address": {"city": "Busan"}}
    assert run(f, {"a": order, "b": [order], "c": {"x": order}}) == {Order}


def test_case_24_json_text_is_decoded_where_an_object_or_list_belongs() -> None:
    @tool
    def f(a: Address, b: list[int], c: str) -> list[object]:
        return [a, b, c]

    arguments = f.validate({"a": '{"city": "Busan"}', "b": "[1, 2]", "c": '{"city": 1}'})

    assert arguments.values == {"a": Address(city="Busan"), "b": [1, 2], "c": '{"city": 1}'}
    assert arguments.repaired == ("a: read from JSON text", "b: read from JSON text")


def test_case_24_text_for_a_text_parameter_is_never_decoded() -> None:
    @tool
    def f(a: Annotated[str, Field(max_length=3)] | list[int]) -> None: ...

    assert problems(f, {"a": "[1, 2, 3]"})
    assert f.validate({"a": "[1]"}).values == {"a": "[1]"}


def test_case_25_null_for_a_nullable_parameter_is_none() -> None:
    @tool
    def f(x: int | None = 3) -> object:
        return x

    assert run(f, {"x": None}) is None
    assert run(f) == 3


def test_case_28_tool_without_parameters_takes_nothing() -> None:
    @tool
    def f() -> int:
        return 1

    assert f.parameters == {"type": "object", "properties": {}, "additionalProperties": False}
    for nothing in ("", "  ", "null", "{}"):
        assert run(f, nothing) == 1
    assert f.validate("").repaired == ("the arguments: nothing read as {}",)
    assert f.validate("{}").repaired == ()


def test_case_29_context_is_hidden_in_methods_and_refused_where_it_cannot_be() -> None:
    class Shop:
        name = "shop"

        @tool
        def find(self, ctx: Context[int], word: str) -> list[object]:
            return [self.name, ctx.data, word]

    found = Shop().find
    assert list(properties(found)) == ["word"]
    assert asyncio.run(found.run({"word": "x"}, context=Context(1))) == ["shop", 1, "x"]

    def inside(items: list[Context[int]]) -> None: ...
    def twice(a: Context[int], b: Context[int]) -> None: ...
    def starred(*contexts: Context[int]) -> None: ...
    def mistyped(a: int = CONTEXT) -> None: ...

    for function in (inside, twice, starred, mistyped):
        with pytest.raises(DefinitionError, match=r"parameter '(items|b|contexts|a)'"):
            tool(function)


def test_case_30_docstring_without_blank_line_describes_each_parameter() -> None:
    @tool
    def f(a: int, b: str = "", *rest: int, **more: str) -> None:
        """Find things.
        Args:
            a: The a: with a colon.
            b (str, optional): More
                than one line.
            *rest: Stars.
        """

    assert f.description == "Find things."
    assert properties(f)["a"]["description"] == "The a: with a colon."
    assert properties(f)["b"]["description"] == "More than one line."
    assert properties(f)["rest"]["description"] == "Stars."


def test_case_31_recursive_model_keeps_its_reference() -> None:
    @tool
    def f(node: Node) -> str:
        return node.children[0].name

    assert properties(f)["node"] == {"$ref": "#/$defs/Node"}
    assert run(f, {"node": {"name": "a", "children": [{"name": "b"}]}}) == "b"


Tree = typing_extensions.TypeAliasType("Tree", "dict[str, Tree] | int")


def test_case_31_recursive_alias_keeps_its_reference() -> None:
    @tool
    def f(tree: Tree) -> object:
        return tree

    assert "$ref" in str(properties(f)["tree"])
    assert run(f, {"tree": {"a": {"b": 1}}}) == {"a": {"b": 1}}


def test_case_32_large_union_is_one_short_line() -> None:
    models: list[Any] = [
        type(f"M{number}", (BaseModel,), {"__annotations__": {f"x{number}": int}}) for number in range(9)
    ]

    def f(x: Any) -> None: ...

    f.__annotations__["x"] = Union[tuple(models)]  # noqa: UP007
    lines = problems(tool(f), {"x": {"y": 1}})

    assert len(lines) == 1
    assert len(lines[0]) <= 240


def test_case_33_literal_of_many_types_keeps_them_apart() -> None:
    @tool
    def f(x: Literal[1, "a", None, True]) -> object:
        return x

    schema = properties(f)["x"]
    assert schema["enum"] == [1, "a", None, True]
    assert schema["type"] == ["boolean", "integer", "null", "string"]
    for value in (1, "a", None, True):
        assert run(f, {"x": value}) is value

    @tool
    def g(x: Literal[1]) -> object:
        return x

    assert problems(g, {"x": True})


def test_case_34_parameters_called_like_keywords_stay() -> None:
    @tool
    def f(title: str, type: int, default: bool, properties: list[int], required: str = "x") -> list[object]:
        return [title, type, default, properties, required]

    assert list(properties(f)) == ["title", "type", "default", "properties", "required"]
    assert run(f, {"title": "t", "type": 1, "default": True, "properties": [1]}) == ["t", 1, True, [1], "x"]


class Movie(typing.TypedDict):
    name: typing.Required[str]
    year: typing.NotRequired[int]
    sequel: typing.NotRequired[Movie]


class Cast(typing.TypedDict, total=False):
    movie: typing.Required[Movie]
    names: list[str]


def test_case_35_standard_typed_dict_keeps_what_is_required() -> None:
    @tool
    def f(movie: Movie, cast: list[Cast]) -> object:
        return [movie, cast]

    definitions = f.parameters["$defs"]
    assert definitions["Movie"]["required"] == ["name"]
    assert definitions["Cast"]["required"] == ["movie"]
    movie = {"name": "a", "sequel": {"name": "b"}}
    assert run(f, {"movie": movie, "cast": [{"movie": {"name": "c"}}]}) == [movie, [{"movie": {"name": "c"}}]]
    assert problems(f, {"movie": {}, "cast": []}) == ("'movie.name' is missing",)


def test_case_36_class_of_the_enclosing_function_is_found() -> None:
    class Local(BaseModel):
        x: int

    @tool
    def f(a: Local, b: list[Local]) -> object:
        return [a, b]

    assert run(f, {"a": {"x": 1}, "b": [{"x": 2}]}) == [Local(x=1), [Local(x=2)]]


class Point(NamedTuple):
    x: int
    y: int = 0


class Line(NamedTuple):
    start: Point
    next: Line | None = None


def test_case_37_named_tuple_is_an_object_and_takes_a_list() -> None:
    @tool
    def f(point: Point, line: Line | None = None) -> list[object]:
        return [point, line]

    definitions = f.parameters["$defs"]
    assert definitions["Point"]["properties"] == {"x": {"type": "integer"}, "y": {"type": "integer", "default": 0}}
    assert definitions["Point"]["required"] == ["x"]
    assert run(f, {"point": {"x": 1}}) == [Point(1, 0), None]
    assert run(f, {"point": [1, 2]}) == [Point(1, 2), None]
    assert run(f, {"point": [1], "line": {"start": [1, 2], "next": {"start": [3]}}}) == [
        Point(1),
        Line(Point(1, 2), Line(Point(3))),
    ]
    assert isinstance(f.validate({"point": [1, 2]}).values["point"], Point)
    assert problems(f, {"point": [1, 2, 3]})


def test_case_37_named_tuple_result_is_an_object() -> None:
    @tool
    def f() -> list[Point]:
        return [Point(1, 2)]

    assert f.dump(f()) == [{"x": 1, "y": 2}]


def test_case_38_tuple_is_checked_for_its_length_and_types() -> None:
    @tool
    def f(pair: tuple[int, str]) -> object:
        return pair

    assert run(f, {"pair": [1, "a"]}) == (1, "a")
    assert problems(f, {"pair": [1]})
    assert problems(f, {"pair": [1, "a", 2]})


def test_case_39_any_parameter_name_is_taken() -> None:
    @tool
    def f(
        _a: int, schema: int, json: int, copy: int, self: int, cls: int, model_config: int, __dunder__: int = 0
    ) -> int:
        return _a + schema + json + copy + self + cls + model_config + __dunder__

    names = ["_a", "schema", "json", "copy", "self", "cls", "model_config", "__dunder__"]
    assert list(properties(f)) == names
    assert run(f, dict.fromkeys(names, 1)) == 8


def test_case_40_annotated_with_an_empty_field_or_a_text() -> None:
    @tool
    def f(a: Annotated[int, Field()], b: Annotated[int, "How many."]) -> int:
        return a + b

    assert properties(f) == {"a": {"type": "integer"}, "b": {"type": "integer", "description": "How many."}}


def test_case_41_null_for_a_default_is_the_default() -> None:
    @tool
    def f(a: int = 3) -> int:
        return a

    arguments = f.validate({"a": None})
    assert arguments.values == {"a": 3}
    assert arguments.repaired == ("a: null read as its default",)


def test_case_42_unexpected_argument_is_named_with_the_nearest() -> None:
    @tool
    def f(limit: int, offset: int = 0) -> None: ...

    assert problems(f, {"limit": 1, "ofset": 2}) == ("unexpected argument 'ofset'; did you mean 'offset'?",)


def test_case_43_field_as_default_is_its_default() -> None:
    @tool
    def f(a: int = Field(default=4, ge=1)) -> int:
        return a

    assert properties(f) == {"a": {"type": "integer", "default": 4, "minimum": 1}}
    assert run(f) == 4
    assert f() == 4


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        (set[int], [1, 2], {1, 2}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (deque[int], [1, 2], deque([1, 2])),
        (Sequence[int], [1, 2], [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (bytes, "AP8=", b"\x00\xff"),
        (re.Pattern[str], "a+", re.compile("a+")),
        (SecretStr, "x", SecretStr("x")),
        (pathlib.Path, "a/b", pathlib.Path("a/b")),
        (uuid.UUID, "00000000-0000-0000-0000-000000000001", uuid.UUID(int=1)),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (datetime.timedelta, "PT1H", datetime.timedelta(hours=1)),
        (datetime.date, "2026-01-02", datetime.date(2026, 1, 2)),
        (datetime.datetime, "2026-01-02T03:04:05", datetime.datetime(2026, 1, 2, 3, 4, 5)),
        (ipaddress.IPv4Address, "10.0.0.1", ipaddress.IPv4Address("10.0.0.1")),
        (NewType("UserId", int), 3, 3),
    ],
    ids=str,
)
def test_case_44_value_arrives_in_its_type(annotation: Any, given: object, value: object) -> None:
    received: list[object] = []

    def f(x: Any) -> None:
        received.append(x)

    f.__annotations__["x"] = annotation
    made = tool(f)
    run(made, {"x": given})

    assert received == [value]
    assert type(received[0]) is type(value)
    assert "type" in properties(made)["x"] or "anyOf" in properties(made)["x"]


def test_case_45_keys_that_are_not_text_are_converted() -> None:
    @tool
    def f(x: dict[int, str], y: dict[datetime.date, int] | None = None) -> object:
        return [x, y]

    assert run(f, {"x": {"1": "a"}, "y": {"2026-01-02": 1}}) == [{1: "a"}, {datetime.date(2026, 1, 2): 1}]
    assert "propertyNames" in properties(f)["x"]
    assert problems(f, {"x": {"a": "b"}})


class Box(BaseModel, Generic[T]):
    item: T


def test_case_46_every_kind_of_callable_works() -> None:
    class Finder:
        """Finds by word."""

        def __call__(self, word: str) -> str:
            return f"found {word}"

        def bound(self, word: str) -> str:
            return f"bound {word}"

        @tool
        @classmethod
        def of_class(cls, word: str) -> str:
            return f"{cls.__name__} {word}"

        @tool
        @staticmethod
        def static(word: str) -> str:
            return f"static {word}"

        @staticmethod
        @tool
        def outer_static(word: str) -> str:
            return f"static {word}"

    def logged(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            return f"logged {function(*args, **kwargs)}"

        return wrapper

    @tool
    @logged
    def wrapped(word: str) -> str:
        return word

    def shout(word: str) -> str:
        return f"{word}!"

    expected: dict[Tool[..., Any], str] = {
        tool(Finder()): "found x",
        tool(Finder().bound): "bound x",
        Finder.of_class: "Finder x",
        Finder().of_class: "Finder x",
        Finder.static: "static x",
        Finder.outer_static: "static x",
        wrapped: "logged x",
        tool(name="shout")(lambda word: shout(word)): "x!",  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    }
    for made, result in expected.items():
        assert list(properties(made)) == ["word"]
        assert run(made, {"word": "x"}) == result
    assert tool(Finder()).name == "finder"
    with pytest.raises(DefinitionError, match="lambda"):
        tool(lambda: None)


def test_case_46_generic_models_are_filled_in() -> None:
    @tool
    def f(box: Box[int]) -> object:
        return box.item

    assert run(f, {"box": {"item": 1}}) == 1
    assert problems(f, {"box": {"item": "x"}})


def test_case_47_async_functions_work_by_every_path() -> None:
    async def f(word: str) -> str:
        return word

    class Finder:
        async def __call__(self, word: str) -> str:
            return word

        @tool
        async def method(self, word: str) -> str:
            return word

    for made in (tool(f), tool(Finder()), Finder().method, tool(functools.partial(f))):
        assert made.is_async
        assert run(made, {"word": "x"}) == "x"
    assert asyncio.run(tool(f)("x")) == "x"
