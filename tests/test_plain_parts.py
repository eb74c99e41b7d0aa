"""A schema whose plain parts are left out is valid exactly if the whole is."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError

from flowkit.tools.schema.foreign_arguments import leave_out_plain

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 3, -1, 2.5, "", "string", "object", "text", [], ["string"], ["string", "string"], {}, {"type": 7}]
)
KEYWORDS = st.sampled_from(
    [
        "type",
        "title",
        "description",
        "format",
        "minLength",
        "maxItems",
        "minimum",
        "exclusiveMinimum",
        "pattern",
        "enum",
        "required",
        "default",
        "$ref",
        "nullable",
        "writeOnly",
        "const",
        "items",
        "anyOf",
        "properties",
    ]
)
LEAVES = st.dictionaries(KEYWORDS, VALUES, max_size=3) | VALUES


def hold(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(st.sampled_from(["a", "type", "b"]), inner, max_size=3)
    listed = st.lists(inner, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("properties", "$defs", "definitions", "patternProperties"), named),
            **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), listed),
            **dict.fromkeys(("items", "additionalProperties", "not", "contains", "if"), inner),
            "type": VALUES,
            "required": VALUES,
        },
    )


SCHEMAS = st.recursive(LEAVES, hold, max_leaves=8).filter(lambda schema: isinstance(schema, dict))


def is_right(validator: Any, schema: Any) -> bool:
    try:
        validator.check_schema(schema)
    except SchemaError:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.sampled_from([Draft202012Validator, Draft7Validator, Draft4Validator]))
def test_for_every_schema_what_is_left_is_right_exactly_if_the_whole_is(schema: Any, validator: Any) -> None:
    assert is_right(validator, leave_out_plain(schema)) == is_right(validator, schema)


def test_an_error_is_told_at_its_place() -> None:
    schema = {"properties": {"a": {"type": "string"}, "b": {"anyOf": [{"type": "null"}, {"type": "text"}]}}}
    with pytest.raises(SchemaError) as raised:
        Draft202012Validator.check_schema(leave_out_plain(schema))
    assert list(raised.value.absolute_path)[:4] == ["properties", "b", "anyOf", 1]
