"""What holds for every signature: the schema, the values, the way out and back, the keys."""

import asyncio
import json
import random
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowkit import Tool, tool
from flowkit.codec import JSON
from flowkit.testing import arguments
from flowkit.tools.schema.results import ResultType
from tests.example_counts import examples
from tests.signatures import Generated, Kind, functions, is_of, kinds, spell

SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


def one_parameter(kind: Kind) -> Tool[..., Any]:
    def f(x: Any) -> None: ...

    f.__annotations__["x"] = kind.annotation
    return tool(f)


@settings(max_examples=examples(60), suppress_health_check=SLOW)
@given(functions(), st.data())
def test_every_instance_of_the_schema_reaches_the_function_in_its_types(made: Generated, data: st.DataObject) -> None:
    built = tool(name="f")(made.function)
    Draft202012Validator.check_schema(built.parameters)
    given_arguments = data.draw(arguments(built))

    asyncio.run(built.run(given_arguments))

    received = made.received[-1]
    for name, kind in made.kinds.items():
        if name in received:
            assert is_of(received[name], kind.annotation), (name, received[name], kind.annotation)


@settings(max_examples=examples(150), suppress_health_check=SLOW)
@given(kinds(), st.data())
def test_every_value_dumped_is_valid_under_the_schema_and_comes_back(kind: Kind, data: st.DataObject) -> None:
    value = data.draw(kind.values)
    built = one_parameter(kind)

    dumped = ResultType(kind.annotation).dump("f", value)

    problem = next(Draft202012Validator(built.parameters).iter_errors({"x": dumped}), None)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
    assert problem is None, problem
    assert is_of(built.validate({"x": dumped}).values["x"], kind.annotation)


@settings(max_examples=examples(50), suppress_health_check=SLOW)
@given(kinds())
def test_every_type_with_a_canonical_form_may_have_a_ttl(kind: Kind) -> None:
    def f(x: Any) -> None: ...

    f.__annotations__["x"] = kind.annotation
    assert tool(ttl=5)(f).ttl_s == 5


@settings(max_examples=examples(150), suppress_health_check=SLOW)
@given(kinds(), st.data())
def test_keys_are_equal_exactly_when_values_are(kind: Kind, data: st.DataObject) -> None:
    first, second = data.draw(kind.values), data.draw(kind.values)
    built = one_parameter(kind)
    keys: list[str | None] = []
    values: list[Any] = []
    for value in (first, second):
        read = built.validate({"x": value})
        keys.append(built.key(read, "scope"))
        values.append(read.values["x"])

    assert None not in keys
    assert (keys[0] == keys[1]) == (spell(values[0]) == spell(values[1]))


@settings(max_examples=examples(60), suppress_health_check=SLOW)
@given(functions(), st.data())
def test_key_does_not_depend_on_spelling_order_or_written_defaults(made: Generated, data: st.DataObject) -> None:
    built = tool(name="f")(made.function)
    given_arguments = data.draw(arguments(built))
    key = built.key(built.validate(given_arguments), "scope")
    assume(key is not None)

    shuffled = list(given_arguments.items())
    random.Random(0).shuffle(shuffled)
    spelled = json.dumps(dict(shuffled), indent=1, ensure_ascii=True)
    properties: Any = built.parameters["properties"]
    written: dict[str, JSON] = {
        name: schema["default"] for name, schema in properties.items() if "default" in schema
    } | given_arguments

    assert built.key(built.validate(spelled), "scope") == key
    assert built.key(built.validate(written), "scope") == key
