"""References offered to a model, and results outlined so that it can write them."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from flowkit.codec import JSON
from flowkit.targets import Target, find_violations, lower
from flowkit.targets.offers import describe_result, offer_references, outline_result
from flowkit.testing.strategies import instances
from flowkit.tools import tool
from flowkit.tools.schema.results import ResultType
from tests.example_counts import examples
from tests.signatures import Generated, functions

REFERENCE: dict[str, JSON] = {"from_call": "get_order", "path": "/address/city"}
TARGETS: list[Target] = ["openai", "openai-strict"]


class Item(BaseModel):
    id: str
    price: float


class Order(BaseModel):
    status: str
    items: list[Item] = []
    buyer: "Buyer | None" = None


class Buyer(BaseModel):
    name: str
    orders: list[Order] = []


def outline(annotation: Any) -> str:
    return outline_result(ResultType(annotation).schema or {})


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, ""),
        (list[str], ""),
        (Item, "{id, price}"),
        (list[Item], "[{id, price}]"),
        (Item | None, "{id, price}"),
        (Order, "{status, items: [{id, price}], buyer: {name, orders}}"),
        (dict[str, Item], ""),
    ],
)
def test_result_is_outlined_by_its_fields(annotation: Any, expected: str) -> None:
    assert outline(annotation) == expected


def test_outline_of_many_fields_is_cut() -> None:
    wide: dict[str, JSON] = {"type": "object", "properties": {f"f{number}": {} for number in range(100)}}
    assert outline_result(wide).endswith(", f29, …}")


def test_outline_stands_after_the_description() -> None:
    schema = ResultType(Item).schema
    assert describe_result("Get it.", schema) == "Get it.\n\nGives {id, price}."
    assert describe_result("", schema) == "Gives {id, price}."
    assert describe_result("Get it.", None) == "Get it."


def test_description_stays_where_the_model_reads_it() -> None:
    lowered = lower(
        {"type": "object", "properties": {"x": {"type": "string", "description": "A word."}}, "required": ["x"]}
    )
    offered: Any = offer_references(lowered).schema
    assert offered["properties"]["x"]["description"] == "A word."
    assert offered["properties"]["x"]["anyOf"] == [{"type": "string"}, {"$ref": "#/$defs/Reference"}]


def test_definition_of_the_same_name_keeps_its_place() -> None:
    class Reference(BaseModel):
        page: int

    def cite(reference: Reference) -> None: ...

    offered: Any = offer_references(lower(tool(cite).parameters))
    validator: Any = Draft202012Validator(offered.schema)
    validator.validate({"reference": {"page": 1}})
    validator.validate({"reference": REFERENCE})


def test_schema_that_would_become_too_large_stays_with_a_note() -> None:
    nested: dict[str, JSON] = {"type": "integer"}
    names: list[JSON] = [str(number) for number in range(5000)]
    wide: dict[str, JSON] = {"type": "object", "properties": {str(name): nested for name in names}, "required": names}
    lowered = lower(wide)
    offered = offer_references(lowered)
    assert lowered.strict
    assert offered.schema == lowered.schema
    assert [note.kind for note in offered.notes] == ["references"]


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(made=functions(), data=st.data())
def test_offer_takes_a_reference_beside_every_value_that_was_taken(
    target: Target, made: Generated, data: st.DataObject
) -> None:
    lowered = lower(tool(name="f")(made.function).parameters, target)
    offered = offer_references(lowered)
    written: Any = data.draw(instances(lowered.schema))
    assume(written)
    name = data.draw(st.sampled_from(sorted(written)))
    validator: Any = Draft202012Validator(dict(offered.schema))
    validator.validate(written)
    validator.validate({**written, name: REFERENCE})
    if lowered.strict:
        assert find_violations(offered.schema) == ()
        assert offered.raise_arguments({**written, name: REFERENCE})[name] == REFERENCE


def test_outline_that_would_be_long_shows_fewer_levels() -> None:
    wide: dict[str, JSON] = {"type": "object", "properties": {f"long_field_{number}": {} for number in range(30)}}
    schema: dict[str, JSON] = {"type": "object", "properties": {"first": wide, "second": wide}}
    assert outline_result(schema) == "{first, second}"
