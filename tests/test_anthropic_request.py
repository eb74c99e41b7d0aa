"""Requests in the words of the Messages API: what the vendor refuses is never sent."""

from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.messages import (
    AssistantMessage,
    Content,
    File,
    Message,
    ProviderData,
    RequestedCall,
    SystemMessage,
    Text,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from flowkit.models.base import ModelRequest, NamedTool
from flowkit.models.wire.anthropic_request import build_anthropic_body
from flowkit.models.wire.settings import Settings
from tests.anthropic_server import check

SETTINGS = Settings(model="claude-sonnet-5", base_url="https://api.anthropic.com/v1", api="anthropic")
HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
TOOL = ToolSpec("get", "Get it.", {"properties": {"id": {"type": "string"}}})
HI = UserMessage("Hi")
CALL = RequestedCall("toolu_1", "get", '{"id": "a"}')
MARK = {"type": "ephemeral"}


def build(*messages: Message, settings: Settings = SETTINGS, **fields: Any) -> dict[str, Any]:
    body = build_anthropic_body(ModelRequest(messages, **fields), settings)
    check(body, HEADERS, sign)
    return cast(dict[str, Any], body)


def sign(thinking: str, body: dict[str, Any]) -> str:
    return f"signed {thinking}"


def mine(kind: str, data: Any, source: str = SETTINGS.source) -> ProviderData:
    return ProviderData(source, kind, data)


def thought(text: str, signature: str | None = None, source: str = SETTINGS.source) -> ProviderData:
    signed = f"signed {text}" if signature is None else signature
    return mine("thinking", {"type": "thinking", "thinking": text, "signature": signed}, source)


def test_instructions_stand_beside_the_conversation_and_a_limit_is_sent() -> None:
    body = build(SystemMessage("Be brief."), HI)
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert body["max_tokens"] == 64_000
    assert build(HI, max_tokens=500)["max_tokens"] == 500


def test_a_tool_has_a_schema_of_an_object_and_is_strict_only_when_closed() -> None:
    open_one = ToolSpec("get", "Get it.", {"properties": {"id": {"type": "string"}}}, strict=True)
    closed = ToolSpec(
        "put", "Put it.", {"type": "object", "properties": {}, "additionalProperties": False}, strict=True
    )
    first, second = build(HI, tools=(open_one, closed))["tools"]
    assert first == {"name": "get", "description": "Get it.", "input_schema": {"type": "object", **open_one.parameters}}
    assert second["strict"] is True


@pytest.mark.parametrize(
    ("choice", "settings", "expected"),
    [
        ("auto", SETTINGS, None),
        ("none", SETTINGS, {"type": "none"}),
        ("required", SETTINGS, {"type": "any"}),
        (NamedTool("get"), SETTINGS, {"type": "tool", "name": "get"}),
        ("auto", replace(SETTINGS, parallel_calls=False), {"type": "auto", "disable_parallel_tool_use": True}),
    ],
)
def test_a_choice_of_tools(choice: Any, settings: Settings, expected: Any) -> None:
    body = build(HI, tools=(TOOL,), tool_choice=choice, settings=settings)
    assert body.get("tool_choice") == expected


def test_all_results_of_a_turn_stand_in_one_message_behind_their_calls_and_before_any_text() -> None:
    calls = (CALL, RequestedCall("toolu_2", "get", "{}"), RequestedCall("toolu_3", "get", "no JSON"))
    results = (ToolMessage("toolu_2", "get", "two"), ToolMessage("toolu_1", "get", "", is_error=True))
    body = build(HI, AssistantMessage(calls=calls), *results, UserMessage("And?"))
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [block["input"] for block in body["messages"][1]["content"]] == [{"id": "a"}, {}, {}]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "two"},
        {"type": "tool_result", "tool_use_id": "toolu_3", "content": "no result", "is_error": True},
        {"type": "text", "text": "And?"},
    ]


def test_blank_texts_are_left_out_and_neighbours_are_joined() -> None:
    body = build(HI, AssistantMessage(" \n"), UserMessage("  "), UserMessage("Ho"))
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "Ho"}]}
    ]


def test_the_first_word_is_the_users_and_the_last_ends_without_blanks() -> None:
    old = replace(SETTINGS, model="claude-sonnet-4-5")
    body = build(AssistantMessage("Welcome."), HI, AssistantMessage("I "), settings=old)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "assistant"]
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "I"}]
    with pytest.raises(ConfigurationError, match="ends with the assistant's words"):
        build(HI, AssistantMessage("I "))


def test_an_id_in_other_letters_is_rewritten_in_call_and_result_alike() -> None:
    odd = RequestedCall("functions.get:0", "get", "{}")
    other = RequestedCall("functions_get_0", "get", "{}")
    said = AssistantMessage(calls=(odd, other))
    results = (ToolMessage(odd.id, "get", "1"), ToolMessage(other.id, "get", "2"))
    blocks = build(HI, said, *results)["messages"]
    used = [block["id"] for block in blocks[1]["content"]]
    assert used == [block["tool_use_id"] for block in blocks[2]["content"]]
    assert len(set(used)) == 2


def test_thinking_goes_back_in_its_order_and_only_with_its_signature() -> None:
    marks = (
        thought("One"),
        mine("redacted_thinking", {"type": "redacted_thinking", "data": "ENC"}),
        mine("text", {"type": "text", "text": "Let me look."}),
        thought("unsigned", ""),
        mine("tool_use", {"id": "toolu_1"}),
        thought("", None),
        thought("other's", None, "anthropic https://api.anthropic.com/v1 claude-opus-5-5"),
    )
    said = AssistantMessage("Let me look.", (CALL,), "One", provider=marks)
    blocks = build(HI, said, ToolMessage("toolu_1", "get", "1"))["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "redacted_thinking", "text", "tool_use"]


def test_a_call_keeps_who_called_it_and_its_container_goes_on() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
    code = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "code_execution", "input": {"code": "1"}}
    marks = (
        mine("server_tool_use", code),
        mine("tool_use", {"id": "toolu_1", "caller": caller}),
        mine("container", {"id": "container_1", "expires_at": "2030"}),
    )
    said = AssistantMessage("", (CALL,), provider=marks)
    body = build(HI, said, ToolMessage("toolu_1", "get", "1"))
    assert body["container"] == "container_1"
    assert body["messages"][1]["content"] == [
        code,
        {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {"id": "a"}, "caller": caller},
    ]
    assert "container" not in build(HI, said, ToolMessage("toolu_1", "get", "1"), UserMessage("Thanks"))


def test_a_server_tool_without_its_result_stays_behind() -> None:
    search: dict[str, Any] = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found: dict[str, Any] = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    cited = {"type": "text", "text": "Sun.", "citations": [{"type": "web_search_result_location"}]}
    marks = (mine("server_tool_use", search), mine("web_search_tool_result", found), mine("text", cited))
    whole = build(HI, AssistantMessage("Sun.", provider=marks), HI)["messages"][1]["content"]
    assert whole == [search, found, cited]
    cut = build(HI, AssistantMessage("Sun.", provider=(marks[0], marks[2])), HI)["messages"][1]["content"]
    assert cut == [cited]


def test_a_text_that_was_changed_stands_for_all_that_came() -> None:
    marks = (mine("text", {"type": "text", "text": "My key "}), mine("text", {"type": "text", "text": "is sk-1."}))
    blocks = build(HI, AssistantMessage("My key is hidden.", provider=marks), HI)["messages"][1]["content"]
    assert blocks == [{"type": "text", "text": "My key is hidden."}]


def test_an_answer_is_held_to_a_closed_schema_or_told_of_it() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    body = build(HI, output_schema=schema, settings=replace(SETTINGS, thinking="low"))
    form = body["output_config"]["format"]
    assert body["output_config"]["effort"] == "low"
    assert form["schema"]["additionalProperties"] is False
    assert form["schema"]["properties"]["n"] == {"type": "integer", "description": "(minimum: 1)"}
    free = {"type": "object", "properties": {"any": {"type": "object"}}}
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    recursive = {"type": "object", "properties": {"root": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    for told in (free, recursive):
        body = build(HI, output_schema=told)
        assert "output_config" not in body
        assert "JSON Schema" in body["system"][0]["text"]


def hold(value: JSON, **schema: JSON) -> Any:
    """The schema that a server gets for an object with this one field; None where it gets none."""
    fields: JSON = {"field": value}
    body = build(HI, output_schema={"type": "object", "properties": fields, **schema})
    return body["output_config"]["format"]["schema"]["properties"]["field"] if "output_config" in body else None


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "path"}, {"type": "string", "description": '(format: "path")'}),
        ({"type": "string", "format": "password", "writeOnly": True}, {"type": "string", "description": '(format: "password")'}),
        ({"type": "string", "pattern": "^[a-z]+$"}, {"type": "string", "pattern": "^[a-z]+$"}),
        ({"type": "string", "pattern": "^(?=a)"}, {"type": "string", "description": '(pattern: "^(?=a)")'}),
        ({"type": "array", "prefixItems": [{"type": "integer"}]}, {"type": "array", "description": '(prefixItems: [{"type":"integer"}])'}),
        ({"description": "Two.", "type": "array", "items": {"type": "integer"}, "minItems": 2}, {"description": "Two. (minItems: 2)", "type": "array", "items": {"type": "integer"}}),
        ({}, None),
        ({"title": "Anything"}, None),
        ({"type": "array", "items": {}}, None),
    ],
)  # fmt: skip
def test_what_a_server_refuses_in_a_schema_is_told_in_words(value: JSON, sent: Any) -> None:
    assert hold(value) == sent


def test_types_told_apart_by_a_field_are_held_to() -> None:
    kinds: JSON = {"Cat": {"type": "object", "properties": {}}, "Dog": {"type": "object", "properties": {}}}
    refs: list[JSON] = [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]
    told_by: JSON = {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}}
    assert hold({"oneOf": refs, "discriminator": told_by}, **{"$defs": kinds}) == {"anyOf": refs}


def test_a_reference_stands_alone() -> None:
    kinds: JSON = {"Cat": {"type": "object", "properties": {}}}
    cat: dict[str, JSON] = {"$ref": "#/$defs/Cat"}
    assert hold(cat, **{"$defs": kinds}) == cat
    described = hold({**cat, "description": "The older one."}, **{"$defs": kinds})
    assert described == {"description": "The older one.", "anyOf": [cat]}


def test_thinking_fits_the_request() -> None:
    settings = replace(SETTINGS, model="claude-sonnet-4-5", thinking=5000)
    assert build(HI, settings=settings)["thinking"] == {"type": "enabled", "budget_tokens": 5000}
    assert build(HI, settings=settings, max_tokens=3000)["thinking"]["budget_tokens"] == 2999
    assert build(HI, settings=settings, max_tokens=900)["thinking"] == {"type": "disabled"}
    shown = replace(SETTINGS, thinking=True, thinking_display="summarized")
    assert build(HI, settings=shown)["thinking"] == {"type": "adaptive", "display": "summarized"}


def test_a_field_of_extra_body_stands_over_all_and_none_takes_one_out() -> None:
    settings = replace(SETTINGS, extra_body={"metadata": {"user_id": "1"}, "max_tokens": 5, "system": None})
    body = build(SystemMessage("Be brief."), HI, settings=settings)
    assert (body["metadata"], body["max_tokens"]) == ({"user_id": "1"}, 5)
    assert "system" not in body


def test_a_file_of_another_kind_is_named() -> None:
    film = File("a.mp4", data_url="data:video/mp4;base64,AAAA")
    with pytest.raises(ConfigurationError, match=r"a\.mp4.*video/mp4"):
        build(UserMessage((film,)))


# Prompt-cache breakpoints.


def cached(*messages: Message, **fields: Any) -> dict[str, Any]:
    return build(*messages, settings=replace(SETTINGS, cache="5m"), **fields)


def marks_of(body: dict[str, Any]) -> list[tuple[int, int]]:
    return [
        (number, position)
        for number, message in enumerate(body["messages"])
        for position, block in enumerate(message["content"])
        if "cache_control" in block
    ]


def test_the_instructions_and_the_last_block_are_marked() -> None:
    body = cached(SystemMessage("Be brief."), HI, tools=(TOOL,))
    assert body["system"][-1]["cache_control"] == MARK
    assert "cache_control" not in body["tools"][-1]
    assert marks_of(body) == [(0, 0)]
    assert cached(HI, tools=(TOOL,))["tools"][-1]["cache_control"] == MARK
    hour = build(SystemMessage("Be brief."), HI, settings=replace(SETTINGS, cache="1h"))
    assert hour["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert "cache_control" not in str(build(SystemMessage("Be brief."), HI))


def test_a_long_turn_gets_marks_within_reach_of_each_other() -> None:
    calls = tuple(RequestedCall(f"toolu_{number}", "get", "{}") for number in range(20))
    results = [ToolMessage(call.id, "get", "1") for call in calls]
    body = cached(SystemMessage("Be brief."), HI, AssistantMessage(calls=calls), *results)
    assert marks_of(body) == [(1, 9), (2, 4), (2, 19)]
    # The next turn adds little, so one mark is enough.
    more = RequestedCall("toolu_x", "get", "{}")
    body = cached(
        HI, AssistantMessage(calls=calls), *results, AssistantMessage(calls=(more,)), ToolMessage("toolu_x", "get", "1")
    )
    assert marks_of(body) == [(4, 0)]


def test_marks_of_the_user_count() -> None:
    tools = tuple({"type": "x", "name": f"t{number}", "cache_control": MARK} for number in range(3))
    body = build(SystemMessage("Be brief."), HI, settings=replace(SETTINGS, cache="5m", server_tools=tools))
    assert body["system"][0]["cache_control"] == MARK
    assert marks_of(body) == []


# For every conversation.

texts = st.sampled_from(["", " ", "Hm.", "Well \n", "Let me look."])
ids = st.sampled_from(["toolu_1", "toolu_2", "call:3", "한국", "x" * 80])
names = st.sampled_from(["get", "put"])
sources = st.sampled_from([SETTINGS.source, "chat https://api.openai.com/v1 gpt-4.1"])


@st.composite
def answers(draw: st.DrawFn) -> AssistantMessage:
    """An answer of this model or another, whole, cut or changed since."""
    source = draw(sources)
    calls: list[RequestedCall] = []
    marks: list[ProviderData] = []
    said = ""
    for id in draw(st.lists(ids, unique=True, max_size=3)):
        if draw(st.booleans()):
            marks.append(thought(text := draw(texts), draw(st.sampled_from([f"signed {text}", ""])), source))
        if draw(st.booleans()):
            said += (text := draw(texts))
            marks.append(mine("text", {"type": "text", "text": text}, source))
        if draw(st.booleans()):
            search: dict[str, Any] = {"type": "server_tool_use", "id": f"srv_{id}", "name": "web_search", "input": {}}
            marks.append(mine("server_tool_use", search, source))
        if draw(st.booleans()):
            calls.append(RequestedCall(id, draw(names), draw(st.sampled_from(["{}", '{"id": "a"}', "{", "[]", ""]))))
        marks.append(mine("tool_use", {"id": id}, source))
    return AssistantMessage(draw(st.sampled_from([said, "changed"])), tuple(calls), provider=tuple(marks))


messages = st.one_of(
    st.builds(UserMessage, texts),
    st.builds(SystemMessage, texts),
    answers(),
    st.builds(ToolMessage, ids, names, texts, st.booleans()),
)


@given(
    st.lists(messages, max_size=8),
    st.sampled_from(["claude-sonnet-4-5", "claude-opus-4-6", "claude-sonnet-5"]),
    st.sampled_from([None, True]),
    st.sampled_from([None, "5m", "1h"]),
)
def test_for_every_conversation_the_body_is_one_that_the_vendor_takes(
    said: list[Message], model: str, thinking: bool | None, cache: Any
) -> None:
    settings = replace(SETTINGS, model=model, thinking=thinking, cache=cache)
    mine_now = [
        replace(message, provider=tuple(_moved(item, settings) for item in message.provider))
        if isinstance(message, AssistantMessage)
        else message
        for message in _number_calls(said)
    ]
    build(*mine_now, UserMessage("Go on."), settings=settings, tools=(TOOL,))


def _number_calls(said: list[Message]) -> list[Message]:
    """Give each answer ids of its own, as the assembler and `mend` do; results are those of the answer before them."""
    numbered: list[Message] = []
    number = 0
    for message in said:
        if isinstance(message, AssistantMessage):
            number += 1
            calls = tuple(replace(call, id=f"{call.id}{number}") for call in message.calls)
            marks = tuple(
                replace(item, data={"id": f"{cast(Any, item.data)['id']}{number}"}) if item.kind == "tool_use" else item
                for item in message.provider
            )
            message = replace(message, calls=calls, provider=marks)
        elif isinstance(message, ToolMessage):
            message = replace(message, call_id=f"{message.call_id}{number}")
        numbered.append(message)
    return numbered


def _moved(item: ProviderData, settings: Settings) -> ProviderData:
    return replace(item, source=settings.source) if item.source == SETTINGS.source else item


@pytest.mark.parametrize("blank", ["", " \n", (), (Text("  "),)])
@pytest.mark.parametrize("before", [(), (UserMessage("Hi"), AssistantMessage("Hello"))])
@pytest.mark.parametrize("model", ["claude-sonnet-5", "claude-haiku-4-5"])
def test_a_blank_message_is_refused_before_the_request(
    blank: str | tuple[Content, ...], before: tuple[Message, ...], model: str
) -> None:
    request = ModelRequest((*before, UserMessage(blank)))
    with pytest.raises(ConfigurationError, match="the user's message is blank"):
        build_anthropic_body(request, Settings(model=model, api="anthropic"))


def test_blank_stop_sequences_are_left_out() -> None:
    settings = replace(SETTINGS, extra_body={"stop_sequences": ["", " \n", "END"]})
    body = build(UserMessage("x"), settings=settings)
    assert body["stop_sequences"] == ["END"]
