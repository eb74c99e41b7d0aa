"""Schemas lowered for a strict target, and the way back, case by case."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from re import Pattern
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypedDict

from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.targets import Lowered, find_violations, lower, parse_target, to_wire
from flowkit.testing import check
from flowkit.tools import Tool, tool
from tests.example_counts import examples


def lowered_tool(function: Any) -> Lowered:
    """A function's schema for a strict target, which must have taken it."""
    made = tool(function)
    lowered = lower(made.parameters)
    assert lowered.strict, lowered.notes
    assert find_violations(lowered.schema) == ()
    return lowered


def properties(lowered: Lowered) -> dict[str, Any]:
    return lowered.schema["properties"]  # type: ignore[return-value]


def wrap(schema: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    """Arguments with the one parameter `x`; definitions of the schema move to the root."""
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    return {
        "type": "object",
        "properties": {"x": inner},
        "required": ["x"] if required else [],
        "$defs": schema.get("$defs", {}),
    }


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: dict[str, int] = {}


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Node(BaseModel):
    value: int
    children: "list[Node]" = []


# The cases that concern strict targets, by their number.


def test_free_keyword_arguments_travel_as_pairs_case_3() -> None:
    def save(name: str, **fields: int) -> None: ...

    lowered = lowered_tool(save)
    written: dict[str, JSON] = {"name": "a", "additional": [{"key": "size", "value": 3}]}
    assert lowered.schema["required"] == ["name", "additional"]
    assert lowered.raise_arguments(written) == {"name": "a", "size": 3}
    assert lowered.lower_arguments({"name": "a", "size": 3}) == written


def test_free_keyword_argument_cannot_replace_a_named_one_case_3() -> None:
    def save(name: str, **fields: int) -> None: ...

    made = tool(save)
    raised = lower(made.parameters).raise_arguments({"name": "a", "additional": [{"key": "name", "value": 3}]})
    assert raised["name"] == "a"


def test_free_keyword_arguments_of_any_type_are_not_strict_case_3() -> None:
    def save(name: str, **fields: Any) -> None: ...

    assert not lower(tool(save).parameters).strict


def test_every_branch_of_a_union_is_closed_case_9() -> None:
    def adopt(pet: Cat | Node) -> None: ...

    lowered = lowered_tool(adopt)
    definitions: Any = lowered.schema["$defs"]
    assert definitions["Cat"]["additionalProperties"] is False
    assert definitions["Node"]["additionalProperties"] is False


def test_discriminated_union_becomes_any_of_case_10() -> None:
    def adopt(pet: Pet, others: list[Pet]) -> None: ...

    lowered = lowered_tool(adopt)
    assert properties(lowered)["pet"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert "oneOf" not in str(lowered.schema)
    assert "discriminator" not in str(lowered.schema)
    written: dict[str, JSON] = {
        "pet": {"kind": "dog", "tricks": [{"key": "sit", "value": 1}]},
        "others": [{"kind": "cat", "lives": None}],
    }
    assert lowered.raise_arguments(written) == {
        "pet": {"kind": "dog", "tricks": {"sit": 1}},
        "others": [{"kind": "cat"}],
    }


def test_null_means_the_default_case_11() -> None:
    def greet(name: str = "you") -> str:
        return name

    lowered = lowered_tool(greet)
    assert properties(lowered)["name"] == {"description": 'null for the default, "you"', "type": ["string", "null"]}
    assert lowered.schema["required"] == ["name"]
    assert lowered.raise_arguments({"name": None}) == {}
    assert asyncio.run(tool(greet).run(lowered.raise_arguments({"name": None}))) == "you"


def test_null_of_a_nullable_parameter_is_none_and_the_lint_says_so_case_11() -> None:
    def greet(name: str | None = "you") -> str | None:
        return name

    made = tool(effect="read")(greet)
    lowered = lower(made.parameters)
    assert lowered.raise_arguments({"name": None}) == {"name": None}
    assert [note.kind for note in lowered.notes] == ["default"]
    assert any(finding.code == "default-out-of-reach" for finding in made.lint())


def test_no_type_stands_beside_any_of_case_11() -> None:
    def take(x: int | list[str] = 3) -> None: ...

    assert properties(lowered_tool(take))["x"].keys() == {"description", "anyOf"}


def test_nullable_parameters_keep_their_none_case_12() -> None:
    def take(first: Annotated[int | None, Field()], second: Annotated[str | None, "text"] = None) -> None: ...

    lowered = lowered_tool(take)
    assert lowered.schema["required"] == ["first", "second"]
    assert lowered.raise_arguments({"first": None, "second": None}) == {"first": None, "second": None}
    assert lowered.notes == ()


@pytest.mark.parametrize("annotation", [dict, dict[str, Any], list[Any], Any, list[dict[str, Any]]])
def test_values_of_any_type_fall_back_to_a_schema_that_is_not_strict_case_26(annotation: Any) -> None:
    def take(x: Any) -> None: ...

    take.__annotations__["x"] = annotation
    made = tool(take)
    lowered = lower(made.parameters)
    assert not lowered.strict
    assert lowered.schema == made.parameters
    assert lowered.notes[-1].kind == "refused"
    assert lowered.notes[-1].path.startswith("/properties/x")


@pytest.mark.parametrize("strict", [None, True, False])
def test_strict_flag_reaches_both_wire_shapes_case_27(strict: bool | None) -> None:
    def look(word: str) -> None:
        """Look."""

    made = tool(strict=strict)(look)
    chat: Any = made.for_target("openai-strict")
    flat: Any = made.for_target("openai-responses-strict")
    expected = strict is not False
    assert chat.keys() == {"type", "function"}
    assert chat["function"].get("strict", False) is expected
    assert flat["strict"] is expected
    assert (flat["type"], flat["name"], flat["description"]) == ("function", "look", "Look.")
    assert flat["parameters"] == chat["function"]["parameters"]


def test_plain_targets_are_told_in_their_own_shapes_case_27() -> None:
    def look(word: str) -> None:
        """Look."""

    made = tool(look)
    chat: Any = made.for_target("openai")
    flat: Any = made.for_target("openai-responses")
    assert "strict" not in chat["function"]
    # Left out, the Responses API makes a schema strict by itself.
    assert flat["strict"] is False
    assert chat["function"]["parameters"] == flat["parameters"] == made.parameters


def test_tool_without_parameters_has_an_empty_closed_object_case_28() -> None:
    def ping() -> None: ...

    def ping_context(context: Context[None] = CONTEXT) -> None: ...

    empty: dict[str, JSON] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert lowered_tool(ping).schema == empty
    assert lowered_tool(ping_context).schema == empty
    assert lower({}).schema == lower({"type": "object"}).schema == empty


def test_parameters_named_like_keywords_stay_case_34() -> None:
    def take(
        title: str, type: str, default: int = 1, description: str = "", properties: str = "", required: str = ""
    ) -> None: ...

    assert list(properties(lowered_tool(take))) == ["title", "type", "default", "description", "properties", "required"]


class Place(NamedTuple):
    street: str
    floor: int = 0


def test_named_tuple_travels_as_an_object_case_37() -> None:
    def find(place: Place) -> str:
        return f"{place.street} {place.floor}"

    lowered = lowered_tool(find)
    raised = lowered.raise_arguments({"place": {"street": "Main", "floor": None}})
    assert asyncio.run(tool(find).run(raised)) == "Main 0"


def test_tuple_travels_as_an_object_with_a_field_for_each_position_case_38() -> None:
    def plot(point: tuple[int, str]) -> str:
        return point[1] * point[0]

    lowered = lowered_tool(plot)
    assert "prefixItems" not in str(lowered.schema)
    assert list(properties(lowered)["point"]["properties"]) == ["item_1", "item_2"]
    raised = lowered.raise_arguments({"point": {"item_1": 2, "item_2": "a"}})
    assert asyncio.run(tool(plot).run(raised)) == "aa"


def typed_values(
    words: set[str],
    frozen: frozenset[int],
    queue: deque[int],
    row: Sequence[int],
    data: bytes,
    pattern: Pattern[str],
    secret: SecretStr,
    path: Path,
    key: UUID,
    price: Decimal,
    day: date,
    moment: datetime,
    wait: timedelta,
) -> None:
    """Take values of many types."""


def test_typed_values_are_strict_safe_case_44() -> None:
    lowered = lowered_tool(typed_values)
    formats = {name: item["format"] for name, item in properties(lowered).items() if "format" in item}
    assert formats == {"key": "uuid", "day": "date", "moment": "date-time", "wait": "duration"}
    assert "no item twice" in properties(lowered)["words"]["description"]


def test_dict_with_number_keys_travels_as_pairs_case_45() -> None:
    def name_floors(names: dict[int, str]) -> dict[int, str]:
        return names

    lowered = lowered_tool(name_floors)
    raised = lowered.raise_arguments({"names": [{"key": "3", "value": "roof"}]})
    assert asyncio.run(tool(name_floors).run(raised)) == {3: "roof"}


# Shapes beside the cases.


class Options(TypedDict, total=False):
    color: str
    size: int | None


@dataclass
class Basket:
    node: Node
    best: Annotated[Node, Field(description="the best one")]


Table = dict[str, "Table | int"]


@pytest.mark.parametrize(
    "annotation",
    [
        Node,
        Basket,
        Options,
        Pet,
        Place | None,
        dict[str, dict[str, Node]],
        list[tuple[int, dict[str, int]]],
        tuple[int, ...],
        tuple[()],
        tuple[int, int],
        dict[Literal["a", "b"], int],
        dict[str, int] | int,
        dict[str, int] | dict[str, str],
        tuple[int, str] | tuple[str, int, int] | str,
        Literal[1, "a", None, True],
        Annotated[str, Field(pattern="^[a-c]+$", max_length=5)],
        Annotated[list[int], Field(min_length=1, max_length=3)],
    ],
    ids=str,
)
@pytest.mark.parametrize("has_default", [False, True])
def test_arguments_come_back_from_a_strict_target(annotation: Any, has_default: bool) -> None:
    def take(x: Any) -> None: ...

    take.__annotations__["x"] = annotation
    if has_default:
        take.__defaults__ = (None,)
        take.__annotations__["x"] = annotation | None
    made = tool(take)
    assert lower(made.parameters).strict
    check(made, examples=examples(40))


def test_recursive_schema_keeps_its_reference() -> None:
    def plant(tree: Node) -> None: ...

    lowered = lowered_tool(plant)
    assert properties(lowered)["tree"] == {"$ref": "#/$defs/Node"}
    raised = lowered.raise_arguments({"tree": {"value": 1, "children": [{"value": 2, "children": None}]}})
    assert raised == {"tree": {"value": 1, "children": [{"value": 2}]}}


def test_reference_with_a_description_stands_in_any_of() -> None:
    lowered = lower(wrap({"$ref": "#/$defs/A", "description": "the a", "$defs": {"A": {"type": "integer"}}}))
    assert lowered.strict
    assert properties(lowered)["x"] == {"description": "the a", "anyOf": [{"$ref": "#/$defs/A"}]}


def test_many_classes_that_hold_one_another_are_lowered_at_once() -> None:
    names = [f"C{number}" for number in range(9)]
    fields: JSON = {name: {"$ref": f"#/$defs/{name}", "description": name} for name in names}
    node: JSON = {"type": "object", "properties": fields, "required": list[JSON](names)}
    lowered = lower({"type": "object", "properties": fields, "required": [], "$defs": dict.fromkeys(names, node)})
    assert lowered.strict
    assert len(str(lowered.schema)) < 20_000


def test_reference_to_the_root_becomes_a_definition() -> None:
    schema: dict[str, JSON] = {"type": "object", "properties": {"next": {"$ref": "#"}, "value": {"type": "integer"}}}
    lowered = lower(schema)
    assert lowered.strict
    written: dict[str, JSON] = {"value": None, "next": {"value": 1, "next": None}}
    Draft202012Validator(dict(lowered.schema)).validate(written)  # type: ignore[arg-type]
    assert lowered.raise_arguments(written) == {"next": {"value": 1}}


def test_definitions_of_older_drafts_are_found() -> None:
    schema: dict[str, JSON] = {
        "type": "object",
        "properties": {"x": {"$ref": "#/definitions/A B~1C"}},
        "required": ["x"],
        "definitions": {"A B/C": {"type": "integer"}},
    }
    assert properties(lower(schema))["x"] == {"$ref": "#/$defs/A_B_C"}


def test_all_of_is_merged() -> None:
    part = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    other = {"properties": {"b": {"type": "string"}}, "required": ["b"]}
    lowered = lower(wrap({"allOf": [{"$ref": "#/$defs/P"}, other], "$defs": {"P": part}}))
    assert properties(lowered)["x"]["required"] == ["a", "b"]


LOSSY: list[tuple[dict[str, Any], str]] = [
    ({"allOf": [{"type": "integer", "minimum": 1}, {"minimum": 2}]}, "differ in 'minimum'"),
    ({"$ref": "https://example.com/schema"}, "points to no schema in here"),
    ({"$ref": "#/$defs/None"}, "points to no schema in here"),
    ({"enum": [[1], {}]}, "enum of lists or objects"),
    ({"type": "object", "properties": {}, "required": ["a"]}, "a required field that has no schema"),
    ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, "any type"),
    ({"type": "object", "properties": {"a": True}}, "any type"),
    ({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": True}, "any type"),
    ({"type": "array"}, "any type"),
    ({"anyOf": []}, "any type"),
    ({"type": "object", "patternProperties": {"^a": {"type": "null"}, "^b": {"type": "null"}}}, "several patterns"),
    (
        {
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": "null"}},
                {"type": "array", "items": {"type": "null"}},
            ]
        },
        "look alike",
    ),
    (
        {
            "type": "array",
            "prefixItems": [{"type": "object", "additionalProperties": {"type": "null"}}],
            "items": {"type": "null"},
        },
        "tuple of changing",
    ),
]


@pytest.mark.parametrize(("schema", "reason"), LOSSY, ids=[reason for _, reason in LOSSY])
def test_what_would_lose_values_stays_as_it_is(schema: dict[str, Any], reason: str) -> None:
    given = wrap(schema)
    lowered = lower(given)
    assert not lowered.strict
    assert lowered.schema == given
    assert reason in lowered.notes[-1].text


def test_arguments_that_are_no_object_are_not_strict() -> None:
    assert lower({"type": "array", "items": {"type": "integer"}}).notes[-1].text == "the arguments aren't an object"


def test_root_that_is_a_reference_is_written_out() -> None:
    node: JSON = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert properties(lower({"$ref": "#/$defs/N", "$defs": {"N": node}})) == {"a": {"type": "integer"}}


class Pair(BaseModel):
    key: str
    value: int


def test_dict_and_list_of_what_looks_like_its_pairs_are_not_mixed_up() -> None:
    def take(x: dict[str, int] | list[Pair]) -> None: ...

    lowered = lower(tool(take).parameters)
    assert not lowered.strict
    assert lowered.raise_arguments({"x": [{"key": "a", "value": 1}]}) == {"x": [{"key": "a", "value": 1}]}


def test_type_beside_alternatives_holds_for_each() -> None:
    branches: list[Any] = [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {}}]
    lowered = lower(wrap({"type": "object", "oneOf": branches}))
    assert lowered.strict
    assert [branch["type"] for branch in properties(lowered)["x"]["anyOf"]] == ["object", "object"]


def test_dropped_rules_are_told_to_the_model() -> None:
    schema = {
        "type": "string",
        "description": "A word.",
        "minLength": 2,
        "maxLength": 5,
        "format": "uri",
        "examples": ["a"],
    }
    lowered = lower(wrap(schema))
    told = 'A word. (at least 2 characters; at most 5 characters; format: uri; for example "a")'
    assert properties(lowered)["x"] == {"type": "string", "description": told}
    assert [note.kind for note in lowered.notes] == ["dropped"] * 3


def test_long_default_is_not_written_out() -> None:
    lowered = lower(wrap({"type": "string", "default": "x" * 1000}, required=False))
    assert properties(lowered)["x"]["description"] == "null for the default"


def test_several_types_with_a_list_among_them_become_alternatives() -> None:
    lowered = lower(wrap({"type": ["string", "array"], "items": {"type": "integer"}, "maxLength": 3}))
    assert properties(lowered)["x"]["anyOf"] == [
        {"type": "string", "description": "at most 3 characters"},
        {"type": "array", "items": {"type": "integer"}},
    ]


def test_pairs_with_a_key_twice_are_left_for_validation_to_refuse() -> None:
    lowered = lower(wrap({"type": "object", "additionalProperties": {"type": "integer"}}))
    pairs: list[JSON] = [{"key": "a", "value": 1}, {"key": "a", "value": 2}]
    assert lowered.raise_arguments({"x": pairs}) == {"x": pairs}


@pytest.mark.parametrize(
    "value", [None, 3, "a", [], {}, [1], {"a": 1}, [{"key": 1, "value": 2}], {"from_call": "a", "path": ""}]
)
def test_values_of_another_shape_pass_through(value: JSON) -> None:
    def take(
        pairs: dict[str, int], point: tuple[int, str], place: Place, many: list[Place], either: dict[str, int] | int
    ) -> None: ...

    lowered = lowered_tool(take)
    written: dict[str, JSON] = dict.fromkeys(("pairs", "point", "place", "many", "either"), value)
    raised = lowered.raise_arguments(written)
    assert {name for name in raised if raised[name] != value} <= ({"pairs", "either"} if value == [] else set())


def test_unknown_target_is_named() -> None:
    with pytest.raises(ValueError, match=r"the target is 'anthropic', expected one of openai, openai-strict"):
        parse_target("anthropic")


def test_wire_definition_of_a_foreign_schema_is_read_back() -> None:
    schema: dict[str, JSON] = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    wire = to_wire("t", "T.", lower(schema, "openai"), "openai")
    assert Tool.from_openai(wire, dict).parameters == schema


# OpenAI's rules, one by one: what breaks a rule is found.


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"oneOf": [{"type": "null"}]}, "say its type"),
        ({"type": "string", "default": "a"}, "'default' is not permitted"),
        ({"type": "string", "minLength": 1}, "'minLength' is not permitted"),
        ({"type": "string", "format": "uri"}, "format 'uri' is not supported"),
        ({"type": "string", "pattern": "(?=a)"}, "looks around"),
        ({"type": "string", "title": "T"}, "'title' is not permitted"),
        ({"type": "integer", "items": {"type": "null"}}, "'items' is not permitted"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "'uniqueItems' is not permitted"),
        ({"type": "array", "prefixItems": []}, "'prefixItems' is not permitted"),
        ({"type": "array"}, "must say its items"),
        ({"type": "object", "properties": {}}, "additionalProperties must be false"),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "required": [], "additionalProperties": False},
            "required must name every property",
        ),
        ({"anyOf": [{"type": "null"}], "type": "null"}, "not permitted beside anyOf"),
        ({"$ref": "#/$defs/A", "description": "d", "$defs": {"A": {"type": "null"}}}, "$ref must stand alone"),
        ({"$ref": "#/$defs/B"}, "points to no definition"),
        ({}, "say its type"),
        ({"enum": [1]}, "say its type"),
        ({"type": "integer", "enum": list(range(1001))}, "1001 enum values, at most 1000"),
        ({"type": "string", "enum": ["x" * 60 + str(n) for n in range(251)]}, "an enum of 251 values holds"),
    ],
)  # fmt: skip
def test_broken_rule_is_found(schema: dict[str, Any], text: str) -> None:
    root = {**wrap(schema), "additionalProperties": False}
    assert text in "; ".join(map(str, find_violations(root)))


def _nest(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}
    return schema


@pytest.mark.parametrize(("levels", "is_taken"), [(10, True), (11, False)])
def test_depth_is_bounded(levels: int, is_taken: bool) -> None:
    assert lower(_nest(levels)).strict is is_taken


@pytest.mark.parametrize(("count", "is_taken"), [(5000, True), (5001, False)])
def test_number_of_properties_is_bounded(count: int, is_taken: bool) -> None:
    names = [str(number) for number in range(count)]
    schema: dict[str, JSON] = {"type": "object", "properties": {name: {"type": "null"} for name in names}}
    assert lower({**schema, "required": list[JSON](names)}).strict is is_taken


@pytest.mark.parametrize(("size", "is_taken"), [(119_999, True), (120_000, False)])
def test_text_of_names_and_values_is_bounded(size: int, is_taken: bool) -> None:
    assert lower(wrap({"const": "v" * size})).strict is is_taken


def test_schema_beyond_a_limit_says_which() -> None:
    assert "levels of nesting, at most 10" in lower(_nest(11)).notes[-1].text
