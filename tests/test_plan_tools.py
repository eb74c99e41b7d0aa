"""Every function that the plans name becomes a tool, whatever dialect its parameters are written in."""

import asyncio
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.codec import JSON
from flowkit.errors import ToolArgumentsError
from flowkit.targets import find_violations, lower
from flowkit.testing import arguments
from flowkit.tools import Tool
from flowkit.tools.toolsets import Toolset
from tests.data_folder import plans
from tests.example_counts import examples

SPECS = {
    "complexfuncbench_spec.json": 40,
    "nestful_v1_executable_spec.json": 39,
    "nestful_v1_glaive_spec.json": 70,
    "nestful_v1_sgd_spec.json": 30,
}
TYPES = {"enum": "string", "date (yyyy-mm-dd)": "string"}


def read_parameter(given_parameter: Mapping[str, Any]) -> dict[str, JSON]:
    """One parameter as JSON Schema: lists of values have three names, types two spellings, some parts are empty."""
    values: Any = None
    for key in ("enum", "allowed_values", "possible_values"):
        values = values or given_parameter.get(key)
    kind = str(given_parameter.get("type", "string")).lower()
    schema: dict[str, JSON] = {"type": TYPES.get(kind, kind)}
    if given_parameter.get("description"):
        schema["description"] = given_parameter["description"]
    if isinstance(values, list) and values:
        schema["enum"] = values
    for key in ("default", "default_value"):
        if given_parameter.get(key) is not None:
            schema["default"] = given_parameter[key]
    if kind == "array":
        schema["items"] = read_parameter(given_parameter.get("items") or {"type": "string"})
    if kind == "object":
        schema |= read_parameters(given_parameter.get("properties", {}))
    if "format" in given_parameter:
        schema["format"] = given_parameter["format"]
    return schema


def read_parameters(parameters: Mapping[str, Any]) -> dict[str, JSON]:
    properties: dict[str, JSON] = {name: read_parameter(parameter) for name, parameter in parameters.items()}
    required: list[JSON] = [name for name, parameter in parameters.items() if parameter.get("required") is True]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def read_tools(path: Path) -> list[Tool[..., Any]]:
    tools: list[Tool[..., Any]] = []
    for spec in json.loads(path.read_text(encoding="utf-8")):
        keys = ("query_parameters", "path_parameters", "parameters", "arguments")
        parameters: dict[str, Any] = {name: item for key in keys for name, item in spec.get(key, {}).items()}
        tools.append(
            Tool.from_schema(spec["name"], spec["description"], read_parameters(parameters), dict, effect="read")
        )
    return tools


@cache
def all_tools() -> tuple[Tool[..., Any], ...]:
    return tuple(made for name in SPECS for made in read_tools(plans() / name))


@pytest.mark.parametrize("name", SPECS)
def test_every_function_of_the_plans_becomes_a_tool(name: str) -> None:
    tools = read_tools(plans() / name)
    assert len(tools) == SPECS[name]
    for made in tools:
        lowered = lower(made.parameters)
        assert lowered.strict, (made.name, lowered.notes)
        assert find_violations(lowered.schema) == ()


@pytest.mark.parametrize("name", SPECS)
def test_names_of_the_plans_travel_and_come_back(name: str) -> None:
    # One file names six functions twice: of those the first is kept.
    unique = {made.name: made for made in reversed(read_tools(plans() / name))}
    tools = Toolset(*unique.values())
    for spec in tools.specs("openai-strict"):
        found = tools.resolve(spec.name)
        assert found is not None
        assert found is unique[found.name]


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_tools_of_the_plans_take_their_arguments_also_from_a_strict_target(data: st.DataObject) -> None:
    made = data.draw(st.sampled_from(all_tools()))
    before = data.draw(arguments(made))
    lowered = lower(made.parameters)
    raised = lowered.raise_arguments(lowered.lower_arguments(before))
    assert raised == before
    properties: Any = made.parameters["properties"]
    defaults = {key: item["default"] for key, item in properties.items() if "default" in item}
    assert asyncio.run(made.run(raised)) == {**defaults, **before}


def test_tools_of_the_plans_refuse_what_they_do_not_name() -> None:
    for made in all_tools():
        with pytest.raises(ToolArgumentsError, match="surely_unknown"):
            made.validate({"surely_unknown": 1})
