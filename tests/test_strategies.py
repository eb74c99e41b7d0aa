"""Strategies and checks for users' own tools."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from jsonschema import Draft202012Validator
from pydantic import AfterValidator, BaseModel, Field

from flowkit.codec import JSON
from flowkit.testing import arguments, check
from flowkit.testing.strategies import any_json, instances
from flowkit.tools import Tool, tool
from tests.example_counts import examples

SCHEMAS: Mapping[str, Any] = {
    "any": {},
    "enum of mixed types": {"enum": [1, "a", None, True]},
    "const": {"const": {"a": [1]}},
    "types": {"type": ["integer", "string", "null"]},
    "integers between": {"type": "integer", "minimum": -3, "exclusiveMaximum": 8, "multipleOf": 3},
    "integers below": {"type": "integer", "exclusiveMaximum": -9007199254740999},
    "numbers between": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    "numbers by step": {"type": "number", "multipleOf": 0.25, "minimum": 1, "maximum": 2},
    "text of a length": {"type": "string", "minLength": 3, "maxLength": 5},
    "text of a pattern": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 4},
    "text with ends": {"type": "string", "pattern": r"^[$a-b\]]\$$", "maxLength": 2},
    "text that looks ahead": {"type": "string", "pattern": "^(?!0)[0-9]+"},
    "list": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
    "set": {"type": "array", "items": {"type": ["boolean", "integer"]}, "uniqueItems": True},
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}], "minItems": 2, "maxItems": 2},
    "tuple and rest": {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "string"}},
    "tuple of changing length": {
        "type": "array",
        "prefixItems": [{"type": "null"}, {"type": "integer"}],
        "minItems": 1,
        "items": False,
    },
    "list that contains": {"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 5}},
    "dict": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2},
    "dict by names": {
        "type": "object",
        "additionalProperties": {"type": "null"},
        "propertyNames": {"enum": ["a", "b"]},
    },
    "dict by pattern": {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}},
    "object": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": {"type": "boolean"},
    },
    "object without a type": {"properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    "required without a schema": {"type": "object", "properties": {}, "required": ["x"]},
    "one of": {"oneOf": [{"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 0}, {"maximum": 5}]},
    "either of two fields": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "not": {"type": "integer", "not": {"const": 0}},
    "if": {"type": "integer", "if": {"minimum": 0}, "then": {"multipleOf": 2}},
    "tree": {
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                    "parent": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                },
                "required": ["value", "parent"],
            }
        },
        "$ref": "#/$defs/Node",
    },
    "itself": {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False},
}
SLOW = settings(max_examples=examples(25), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_instance_fits_the_schema(name: str) -> None:
    validator: Any = Draft202012Validator(SCHEMAS[name])

    @SLOW
    @given(instances(SCHEMAS[name]))
    def try_instance(value: JSON) -> None:
        validator.validate(value)

    try_instance()


@given(any_json())
@settings(max_examples=examples(25))
def test_json_values_are_json(value: JSON) -> None:
    assert isinstance(value, (dict, list, str, int, float, bool, type(None)))


class Tree(BaseModel):
    value: int
    children: "list[Tree]" = []


class Pair(NamedTuple):
    left: int
    right: str = "x"


@tool(effect="read")
def plant(
    tree: Tree,
    pairs: dict[int, tuple[int, str]] | None = None,
    pair: Pair | None = None,
    *,
    kind: Literal["a", 1] = "a",
) -> str:
    """Plant a tree."""
    return tree.model_dump_json()


REACHED: list[Callable[[dict[str, Any]], bool]] = [
    lambda value: str(value).count("children") > 2,
    lambda value: value.get("kind") == 1,
    lambda value: "pairs" not in value,
]


def test_arguments_reach_every_branch_of_a_recursive_tool() -> None:
    drawn = arguments(plant)
    for condition in REACHED:
        # To make the example small afterwards would take a hundred times as long.
        find(drawn, condition, settings=settings(phases=[Phase.generate]))


def test_check_passes_a_sound_tool() -> None:
    check(plant, examples=50)


def test_check_takes_a_plain_function() -> None:
    def add(first: int, second: float = 0.5) -> float:
        return first + second

    check(add, examples=20)


def test_check_takes_a_default_that_is_made_anew() -> None:
    class Note(BaseModel):
        id: UUID = Field(default_factory=uuid4)
        text: str

    def keep(note: Note) -> None: ...

    check(keep, examples=20)


def test_check_never_calls_the_tool() -> None:
    def boom(word: str) -> str:
        raise AssertionError(word)

    check(boom, examples=5)


def test_check_takes_a_tool_of_a_schema() -> None:
    check(Tool.from_schema("t", "T.", SCHEMAS["object"], dict), examples=20)


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


def halve(number: Annotated[int, AfterValidator(_even)]) -> int:
    """Halve it."""
    return number // 2


def test_check_finds_a_schema_that_allows_too_much() -> None:
    with pytest.raises(
        AssertionError, match=r"the schema allows what the tool refuses: .*must be even; _even checks it too, so say"
    ):
        check(halve)


def test_check_is_told_what_own_validators_refuse() -> None:
    check(halve, allowed=lambda given_arguments: int(str(given_arguments["number"])) % 2 == 0)
    with pytest.raises(AssertionError, match="the tool takes what `allowed` says that it refuses"):
        check(halve, allowed=lambda _: False)


def test_check_takes_a_tool_without_parameters() -> None:
    check(_nothing, examples=1)


def _nothing() -> None:
    """Does nothing."""
