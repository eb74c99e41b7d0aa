"""What is left out of a schema's check is right, whatever the rest of it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from flowkit.codec import JSON
from flowkit.tools.schema.plain_parts import leave_out_plain

Odd = st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "object", "text", ""])
Words = st.sampled_from(
    ["type", "description", "title", "format", "default", "items", "properties", "required", "enum"]
)


def parts(below: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    right: dict[str, st.SearchStrategy[JSON]] = {
        "type": st.sampled_from(["string", "object", "array", "text"]),
        "description": st.text(max_size=3),
        "items": below,
        "properties": st.dictionaries(st.sampled_from("ab"), below, max_size=2),
        "required": st.lists(st.sampled_from("ab"), max_size=3),
        "minimum": st.integers(),
    }
    return (
        st.fixed_dictionaries({}, optional=right)
        | st.dictionaries(Words, below, max_size=3)
        | st.lists(below, max_size=2)
    )


Schemas = st.dictionaries(st.sampled_from("abc"), st.recursive(Odd, parts, max_leaves=8), max_size=3)


def is_right(schema: object) -> bool:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        return False
    return True


@given(Schemas)
def test_for_every_schema_what_is_left_of_it_is_wrong_if_and_only_if_it_is(properties: dict[str, JSON]) -> None:
    schema: dict[str, JSON] = {"type": "object", "properties": properties}
    assert is_right(leave_out_plain(schema)) == is_right(schema)


@pytest.mark.parametrize("part", [{"type": "text"}, {"required": "a"}, {"required": ["a", "a"]}, {"items": 1}, "x"])
def test_what_is_wrong_stays(part: JSON) -> None:
    assert not is_right(leave_out_plain({"properties": {"a": part, "b": {"type": "string"}}}))
