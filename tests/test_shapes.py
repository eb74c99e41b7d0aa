"""What a schema says of a path, a reference and a type."""

import pytest

from flowkit.codec import JSON
from flowkit.references import Path
from flowkit.schema_paths import find_mismatch, find_problem, find_subschemas, find_unknown_reference, resolve

ORDER: dict[str, JSON] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "at": {"type": "string", "format": "date-time"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/a%20line"}},
        "sizes": {"type": "object", "additionalProperties": {"type": "number"}},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "maxItems": 2},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "any": {"$ref": "#/$defs/Any"},
        "named": {"$ref": "#line"},
    },
    "$defs": {
        "a line": {"$anchor": "line", "type": "object", "properties": {"name": {"type": "string"}}},
        "Any": True,
    },
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("id",), {"type": "integer"}),
        (("items", 0, "name"), {"type": "string"}),
        (("items", "0", "name"), {"type": "string"}),
        (("named", "name"), {"type": "string"}),
        (("sizes", 38), {"type": "number"}),
        (("pair", 1), {"type": "boolean"}),
        (("any", "thing", 3), {}),
    ],
)
def test_path_leads_to_the_schema_of_what_stands_there(path: Path, found: dict[str, JSON]) -> None:
    assert find_subschemas(ORDER, path) == [found]
    assert find_problem(ORDER, path) is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (("itens",), "it has no 'itens'; did you mean 'items'?"),
        (("items", "name"), "it is a list: expected an index before 'name'"),
        (("pair", 2), "it has no item 2"),
        (("id", "digits"), "it is integer, so it has no 'digits'"),
        (("note", 0), "it is string, so it has no 0"),
    ],
)
def test_path_that_no_value_has_is_told(path: Path, problem: str) -> None:
    assert find_problem(ORDER, path) == problem


@pytest.mark.parametrize(
    ("path", "wanted", "mismatch"),
    [
        (("items",), {"type": "integer"}, "is array, expected integer"),
        (("id",), {"type": "string"}, "is integer, expected string"),
        (("id",), {"anyOf": [{"type": "number"}, {"type": "null"}]}, None),
        (("id",), {"type": "boolean"}, None),
        (("id",), {"type": "string", "format": "date-time"}, None),
        (("note",), {"type": "array"}, None),
        (("any",), {"type": "array"}, None),
        (("id",), {}, None),
    ],
)
def test_type_that_is_never_taken_is_told(path: Path, wanted: JSON, mismatch: str | None) -> None:
    assert find_mismatch(ORDER, path, {"type": "object", "properties": {"value": wanted}}, "value") == mismatch


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#/$defs/Any", {}),
        ("#/properties/pair/prefixItems/0", {"type": "string"}),
        ("#/$defs/Missing", None),
        ("#nowhere", None),
        ("https://example.com/#/$defs/Any", None),
    ],
)
def test_reference_is_followed_inside_the_schema_only(reference: str, found: dict[str, JSON] | None) -> None:
    assert resolve(reference, ORDER) == found


def test_reference_that_leads_out_is_found_wherever_it_stands() -> None:
    assert find_unknown_reference(ORDER) is None
    assert find_unknown_reference({"x-later": [{"$ref": "other.json"}]}) == "$ref: 'other.json'"
    assert find_unknown_reference({"$id": "https://example.com/a"}) == "$id: 'https://example.com/a'"
    assert find_unknown_reference({"$id": "https://example.com/a"}, allow_ids=True) is None
