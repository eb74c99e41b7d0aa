"""What holds for every lowered schema: the target's rules, and the same values after the way there and back."""

from typing import Any

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowkit.codec import JSON
from flowkit.errors import ToolArgumentsError
from flowkit.targets import Lowered, find_violations, lower
from flowkit.targets.strict import FORMATS
from flowkit.testing import arguments
from flowkit.testing.strategies import instances
from flowkit.tools import Tool, tool
from flowkit.tools.schema.arguments import Arguments
from tests.example_counts import examples
from tests.signatures import Generated, functions

SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)

_described = {"description": {"type": "string"}}
_number = {
    key: {"type": "number"} for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
}
_values = {"enum": {"type": "array", "minItems": 1}, "const": {}}


def _node(kinds: list[str], **keywords: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"enum": kinds}, **_described, **_values, **keywords},
        "required": ["type"],
        "additionalProperties": False,
    }


_schema = {"$ref": "#/$defs/schema"}
_object = {
    "properties": {"type": "object", "additionalProperties": _schema},
    "required": {"type": "array", "items": {"type": "string"}},
    "additionalProperties": {"const": False},
}
_root = _node(["object"], **_object, **{"$defs": _object["properties"]})
_text = _node(["string"], pattern={"type": "string"}, format={"enum": sorted(FORMATS)})
_mixed = _node([], **_text["properties"], **_number)
_mixed["properties"]["type"] = {"type": "array", "items": {"enum": ["string", "integer", "number", "boolean", "null"]}}
RULES = {
    **_root,
    "required": ["type", "properties", "required", "additionalProperties"],
    "$defs": {
        "schema": {
            "anyOf": [
                {"type": "object", "properties": {"$ref": {"type": "string"}}, "minProperties": 1, "additionalProperties": False},
                {
                    "type": "object",
                    "properties": {"anyOf": {"type": "array", "items": _schema, "minItems": 1}, **_described},
                    "required": ["anyOf"],
                    "additionalProperties": False,
                },
                {**_node(["object"], **_object), "required": ["type", "properties", "required", "additionalProperties"]},
                {
                    **_node(["array"], items=_schema, minItems={"type": "integer"}, maxItems={"type": "integer"}),
                    "required": ["type", "items"],
                },
                _text,
                _node(["number", "integer"], **_number),
                _node(["boolean", "null"]),
                _mixed,
            ]
        }
    },
}  # fmt: skip
"""OpenAI's published rules once more, as a schema of schemas: nothing of flowkit's own code judges here."""
rules: Any = Draft202012Validator(RULES)


def assert_obeys(schema: Any) -> None:
    rules.validate(schema)
    assert find_violations(schema) == ()
    stack: list[Any] = [schema]
    while stack:
        node = stack.pop()
        assert set(node.get("required", [])) == set(node.get("properties", {}))
        stack.extend(node.get("anyOf", []))
        stack.extend(node[key] for key in ("items",) if key in node)
        stack.extend([*node.get("properties", {}).values(), *node.get("$defs", {}).values()])


def is_exact(lowered: Lowered) -> bool:
    """Whether no default got out of the model's reach on the way."""
    return all(note.kind != "default" for note in lowered.notes)


def assert_same(made: Tool[..., Any], first: Arguments, second: Arguments) -> None:
    assert made.key(first, "scope") == made.key(second, "scope"), (first.values, second.values)


@settings(max_examples=examples(150), suppress_health_check=SLOW)
@given(functions(), st.data())
def test_lowering_and_coming_back_changes_no_accepted_value(made: Generated, data: st.DataObject) -> None:
    built = tool(name="f")(made.function)
    lowered = lower(built.parameters)
    assume(lowered.strict)
    assert_obeys(lowered.schema)
    before = data.draw(arguments(built))

    written = lowered.lower_arguments(before)
    raised = lowered.raise_arguments(written)

    Draft202012Validator(dict(lowered.schema)).validate(written)  # type: ignore[arg-type]
    assert Draft202012Validator(dict(built.parameters)).is_valid(raised)  # type: ignore[arg-type]
    if is_exact(lowered):
        assert_same(built, built.validate(before), built.validate(raised))


@settings(max_examples=examples(150), suppress_health_check=SLOW)
@given(functions(), st.data())
def test_what_a_strict_target_lets_a_model_write_is_taken(made: Generated, data: st.DataObject) -> None:
    built = tool(name="f")(made.function)
    lowered = lower(built.parameters)
    assume(lowered.strict)
    written: Any = data.draw(instances(lowered.schema))

    raised = lowered.raise_arguments(written)

    if not _takes(built, raised):
        # What can't be said to the target, such as which item stands where, is left to validation: a model may get it wrong.
        event("refused for a rule that was only described")
        is_noted = any(note.kind == "dropped" or "checked afterwards" in note.text for note in lowered.notes)
        assert _has_pairs(written) or is_noted, (written, raised)


def _takes(made: Tool[..., Any], given_arguments: dict[str, JSON]) -> bool:
    try:
        made.validate(given_arguments)
    except ToolArgumentsError:
        return False
    return True


def _has_pairs(value: JSON) -> bool:
    """Whether keys are written as values, so that the model can write one twice, or two that are equal as numbers."""
    if isinstance(value, list):
        keys = [item.get("key") for item in value if isinstance(item, dict) and item.keys() == {"key", "value"}]
        return len(keys) > 1 or any(map(_has_pairs, value))
    return isinstance(value, dict) and any(map(_has_pairs, value.values()))


# Schemas from elsewhere, whoever wrote them.

_leaves: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"type": "integer", "minimum": 0},
        {"type": "string", "minLength": 1, "maxLength": 8},
        {"type": "string", "format": "date"},
        {"type": ["string", "null"]},
        {"type": "null"},
        {"enum": ["a", 1, None]},
        {"const": True},
        {"$ref": "#/$defs/A"},
        {"$ref": "#/$defs/B", "description": "a b"},
        {"$ref": "#/$defs/T"},
    ]
)


def _object_schema(properties: dict[str, Any], required: set[str], others: Any) -> dict[str, Any]:
    kept = [name for name in properties if name in required]
    return {"type": "object", "properties": properties, "required": kept, "additionalProperties": others}


def _grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    # Not None: a field whose default is null may come back written out, which means the same.
    default: st.SearchStrategy[Any] = st.sampled_from([1, "a", True])
    combining: st.SearchStrategy[Any] = st.sampled_from(["anyOf", "oneOf"])
    fields: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
        st.sampled_from(["a", "b", "key", "value", "type", "item_1"]), inner, max_size=3
    )
    return st.one_of(
        st.builds(_object_schema, fields, st.sets(st.sampled_from(["a", "b", "key", "value"])), st.just(False) | inner),
        inner.map(lambda item: {"type": "object", "additionalProperties": item, "maxProperties": 3}),
        inner.map(lambda item: {"type": "array", "items": item, "maxItems": 3}),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda items: {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        ),
        st.tuples(combining, st.lists(inner, min_size=1, max_size=3)).map(lambda pair: {pair[0]: pair[1]}),
        st.tuples(inner, default).map(lambda pair: {**pair[0], "default": pair[1]}),
        inner.map(lambda item: {"allOf": [item], "title": "T"}),
    )


_schemas = st.recursive(_leaves, _grow, max_leaves=8)


@st.composite
def roots(draw: st.DrawFn) -> dict[str, Any]:
    properties = draw(st.dictionaries(st.sampled_from(["a", "b", "x"]), _schemas, min_size=1, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    tree: Any = {"type": "object", "properties": {"next": {"$ref": "#/$defs/T"}, "v": draw(_leaves)}}
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        "$defs": {
            "A": {"type": "object", "additionalProperties": {"type": "integer"}},
            "B": {"type": "array", "prefixItems": [{"type": "integer"}, {"$ref": "#/$defs/A"}], "minItems": 2, "maxItems": 2},
            "T": {**tree, "additionalProperties": False},
        },
    }  # fmt: skip


@settings(max_examples=examples(300), suppress_health_check=SLOW)
@given(roots(), st.data())
def test_any_schema_is_lowered_without_loss_or_stays_as_it_is(schema: dict[str, Any], data: st.DataObject) -> None:
    lowered = lower(schema)
    if not lowered.strict:
        assert lowered.schema == schema
        assert lowered.notes[-1].kind == "refused"
        event("not strict")
        return
    assert_obeys(lowered.schema)
    before: Any = data.draw(instances(schema))
    written: Any = lowered.lower_arguments(before)
    Draft202012Validator(dict(lowered.schema)).validate(written)  # type: ignore[arg-type]
    if is_exact(lowered):
        assert lowered.raise_arguments(written) == before
