"""Schemas of tools that a server would refuse are sent in a form that it takes, and arguments come back as they were."""

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Agent, AnthropicModel, tool
from flowkit.codec import JSON
from flowkit.messages import ToolSpec, UserMessage
from flowkit.models.base import ModelRequest
from flowkit.models.wire.anthropic_request import build_anthropic_body
from flowkit.models.wire.chat_request import build_chat_body
from flowkit.models.wire.responses_request import build_responses_body
from flowkit.models.wire.settings import Settings
from flowkit.models.wire.tool_schemas import OwnNames, find_aliases, make_key, object_schema, rename_arguments
from flowkit.tools.schema.aliases import make_alias
from tests.anthropic_server import AnthropicServer, says, uses

Body = Mapping[str, Any]
READ: dict[str, tuple[Callable[[ModelRequest, Settings], Body], Callable[[Body], Any]]] = {
    "chat": (build_chat_body, lambda body: body["tools"][0]["function"]["parameters"]),
    "responses": (build_responses_body, lambda body: body["tools"][0]["parameters"]),
    "anthropic": (build_anthropic_body, lambda body: body["tools"][0]["input_schema"]),
}
TEXT: JSON = {"type": "string"}


@pytest.mark.parametrize("api", READ)
def test_alternatives_at_the_root_are_told_in_words(api: Any) -> None:
    schema: JSON = {
        "type": "object",
        "description": "Find it.",
        "properties": {"id": TEXT, "name": TEXT},
        "anyOf": [{"required": ["id"]}, {"required": ["name"]}],
    }
    build, read = READ[api]
    request = ModelRequest(messages=(UserMessage("Hi"),), tools=(ToolSpec("find", "Find.", schema),))
    sent = read(build(request, Settings(model="any", api=api)))
    assert sent == {
        "type": "object",
        "description": 'Find it. (anyOf: [{"required":["id"]},{"required":["name"]}])',
        "properties": {"id": TEXT, "name": TEXT},
    }


@pytest.mark.parametrize(
    ("schema", "properties", "required"),
    [
        (
            {
                "oneOf": [
                    {"properties": {"by": {"const": "id"}, "id": TEXT}, "required": ["by", "id"]},
                    {"properties": {"by": {"const": "name"}, "name": TEXT}, "required": ["by", "name"]},
                ]
            },
            {"by": {"anyOf": [{"const": "id"}, {"const": "name"}]}, "id": TEXT, "name": TEXT},
            ["by"],
        ),
        (
            {
                "properties": {"a": TEXT},
                "required": ["a"],
                "allOf": [{"$ref": "#/$defs/More"}, {"properties": {"a": {"minLength": 1}}}],
                "$defs": {"More": {"properties": {"b": TEXT}, "required": ["b"]}},
            },
            {"a": TEXT, "b": TEXT},
            ["a", "b"],
        ),
        ({"properties": {"a": TEXT}, "not": {"required": ["a"]}}, {"a": TEXT}, None),
        ({"anyOf": True}, {}, None),
    ],
)
def test_alternatives_at_the_root_become_one_object(schema: Any, properties: Any, required: Any) -> None:
    sent = object_schema(schema)
    assert not sent.keys() & {"anyOf", "oneOf", "allOf", "not"}
    assert (sent["type"], sent["properties"], sent.get("required")) == ("object", properties, required)


def test_parameters_in_hangul_travel_as_aliases_and_come_back() -> None:
    @tool
    def 날씨(도시: str, 단위: str = "c") -> str:
        """날씨를 알려 준다."""
        return f"{도시}: 맑음, {단위}"

    alias = make_key("도시")
    with AnthropicServer([[uses(make_alias(날씨.name), **{alias: "서울"})], [says("맑아요.")]]) as server:
        agent = Agent(AnthropicModel("claude-sonnet-5", base_url=server.base_url, api_key="k"), tools=[날씨])
        result = agent.run_sync("서울 날씨?")
    assert [call.value for call in result.calls] == ["서울: 맑음, c"]
    assert not server.refused
    sent = server.bodies[0]["tools"][0]["input_schema"]
    assert sent["properties"][alias] == {"type": "string", "description": "도시"}
    assert sent["required"] == [alias]
    assert server.bodies[1]["messages"][1]["content"][0]["input"] == {alias: "서울"}


def test_a_described_parameter_and_a_reference_keep_their_words() -> None:
    schema: JSON = {
        "properties": {"$top": {"type": "integer", "description": "How many."}, "filter[at]": {"$ref": "#/$defs/At"}},
        "$defs": {"At": TEXT},
    }
    request = ModelRequest(messages=(UserMessage("Hi"),), tools=(ToolSpec("list", "List.", schema),))
    sent = READ["anthropic"][1](build_anthropic_body(request, Settings(model="claude-sonnet-5", api="anthropic")))
    assert sent["properties"] == {
        make_key("$top"): {"type": "integer", "description": "$top: How many."},
        make_key("filter[at]"): {"anyOf": [{"$ref": "#/$defs/At"}], "description": "filter[at]"},
    }
    assert find_aliases(request.tools) == {"list": {make_key(name): name for name in ("$top", "filter[at]")}}


_KEYS = st.sampled_from(["city", "도시", "$top", 'a"b', "back\\slash", "", "x" * 70])
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('ab"\\{}[],:도🎉'), max_size=6) | _KEYS.map(make_key),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS.map(make_key), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4), st.lists(st.integers(0, 500)), st.booleans())
def test_for_every_value_and_cut_arguments_come_back_as_they_were(
    arguments: dict[str, Any], places: list[int], ascii_only: bool
) -> None:
    text = json.dumps(rename_arguments(arguments), ensure_ascii=ascii_only)
    names = OwnNames({make_key(name): name for name in arguments})
    marks = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    told = "".join(names.feed(text[start:end]) for start, end in pairwise(marks))
    assert json.loads(told) == arguments
    assert list(json.loads(told)) == list(arguments)
