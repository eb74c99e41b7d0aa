"""What a request doesn't say can't become an argument."""

import json
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from flowkit.models.offline.grounding import ground

SHIPPING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order_id": {"anyOf": [{"type": "string", "pattern": r"^ORD-\d{4}$"}, {"type": "null"}]},
        "city": {"enum": ["Seoul", "Busan"]},
        "weight_kg": {"type": "number"},
        "express": {"type": "boolean"},
        "note": {"type": "string"},
    },
    "required": ["weight_kg"],
}


def allowed(schema: dict[str, Any], request: str) -> dict[str, Any]:
    return cast(dict[str, Any], ground(schema, request).schema["properties"])


def test_each_kind_of_argument_keeps_what_the_request_holds() -> None:
    assert allowed(SHIPPING, "Send ord-1002 with 2.5 kg to busan, express") == {
        "order_id": {"enum": ["ORD-1002"]},
        "city": {"enum": ["Busan"]},
        "weight_kg": {"enum": [2.5]},
        "express": {"const": True},
    }


def test_what_is_required_and_not_said_is_missing() -> None:
    grounded = ground(SHIPPING, "Send it to Seoul")
    assert grounded.missing == ("weight_kg",)
    assert allowed(SHIPPING, "Send it to Seoul") == {"city": {"enum": ["Seoul"]}}


def test_a_required_text_is_a_span_of_the_request_without_amounts_and_codes() -> None:
    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    spans = allowed(schema, "Find me a green tea under 20000 won for ORD-1002")["query"]["enum"]
    assert "green tea" in spans
    assert not [span for span in spans if "won" in span or "ORD" in span]


def test_the_likeliest_spans_come_first() -> None:
    city = {"type": "string", "description": "A city."}
    schema: dict[str, Any] = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    grounded = ground(schema, "Send tea to Busan", rank=lambda _, spans: sorted(spans, key=lambda s: s != "Busan"))
    assert cast(Any, grounded.schema)["properties"]["city"]["enum"][0] == "Busan"


def test_a_number_of_a_date_or_a_code_is_no_number() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
    assert ground(schema, "On 2026-12-01T09:30 for ORD-1002").missing == ("count",)


def test_the_number_with_the_arguments_unit_is_meant() -> None:
    schema = {"type": "object", "properties": {"weight_kg": {"type": "number"}}, "required": ["weight_kg"]}
    assert allowed(schema, "3 boxes of 2.5 kg") == {"weight_kg": {"enum": [2.5]}}


def test_an_optional_number_needs_its_unit_or_a_limits_word() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"days": {"type": "integer"}, "max_price": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
    }
    assert allowed(schema, "The next 5 days") == {"days": {"enum": [5]}}
    assert allowed(schema, "Tea under 20000") == {"max_price": {"enum": [20000]}}
    assert allowed(schema, "Tea for 4") == {}


def test_a_number_out_of_range_is_not_meant() -> None:
    weight = {"type": "integer", "exclusiveMinimum": 0, "maximum": 30}
    schema = {"type": "object", "properties": {"weight": weight}, "required": ["weight"]}
    assert allowed(schema, "0 or 31 or 30") == {"weight": {"enum": [30]}}


def test_what_takes_a_question_takes_the_whole_request() -> None:
    query = {"type": "string", "description": "A question or a sentence."}
    schema = {"type": "object", "properties": {"query": query}, "required": ["query"]}
    assert allowed(schema, "Why is it slow?") == {"query": {"enum": ["Why is it slow"]}}


def test_references_and_lists_are_followed() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"days": {"type": "array", "items": {"$ref": "#/$defs/Day"}}},
        "$defs": {"Day": {"enum": ["Monday", "Friday"]}},
    }
    assert allowed(schema, "on monday and friday")["days"]["items"] == {"enum": ["Monday", "Friday"]}


@given(st.text(max_size=80))
def test_for_every_request_each_choice_stands_in_it(request: str) -> None:
    for name, argument in allowed(SHIPPING, request).items():
        for value in argument.get("enum", ()):
            if isinstance(value, str):
                assert value.casefold() in request.casefold(), (name, value)


@given(st.text(max_size=200))
def test_for_every_request_the_schema_is_json(request: str) -> None:
    json.dumps(ground(SHIPPING, request).schema)
