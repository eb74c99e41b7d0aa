"""For every conversation between vendors, each of them takes the request: order, results, ids, signatures, blanks."""

import json
import re
from dataclasses import replace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.history import mend
from flowkit.media import Audio, File, Image
from flowkit.messages import (
    AssistantMessage,
    Message,
    ProviderData,
    RequestedCall,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from flowkit.models.base import ModelRequest
from flowkit.models.wire.anthropic_request import build_anthropic_body
from flowkit.models.wire.chat_request import build_chat_body
from flowkit.models.wire.responses_request import build_responses_body
from flowkit.models.wire.settings import Settings
from tests.anthropic_server import check
from tests.example_counts import examples

CLAUDE = Settings(model="claude-sonnet-5", base_url="https://api.anthropic.com/v1", api="anthropic")
CHAT = Settings(model="gpt-4.1")
RESPONSES = Settings(model="gpt-5", api="responses")
GEMINI = Settings(model="gemini-3-pro", base_url="https://generativelanguage.googleapis.com/v1beta/openai")
SIGNED_ID = f"call_1__thought__{'Ab3' * 60}"
"""As a gateway makes it that keeps Gemini's signature there."""

Item = dict[str, Any]


def sign(thinking: str, body: Item) -> str:
    return f"signed {thinking}"


def check_chat(body: Item) -> None:
    """Assert what OpenAI's Chat Completions answers 400 to."""
    open_ids: list[str] = []
    for message in cast(list[Item], body["messages"]):
        if message["role"] == "tool":
            open_ids.remove(message["tool_call_id"])
            assert isinstance(message["content"], str)
            continue
        assert not open_ids, "a call without its result right behind it"
        if message["role"] == "assistant":
            calls = cast(list[Item], message.get("tool_calls", []))
            assert calls or ("tool_calls" not in message and message["content"] is not None)
            open_ids = [call["id"] for call in calls]
            assert len(set(open_ids)) == len(open_ids)
            for call in calls:
                assert len(call["id"]) <= 40
                assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call["function"]["name"])
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert not open_ids


def check_responses(body: Item) -> None:
    """Assert what OpenAI's Responses API answers 400 to."""
    open_ids: list[str] = []
    items = cast(list[Item], body["input"])
    for item, behind in zip(items, [*items[1:], {}], strict=True):
        match item.get("type"):
            case "function_call":
                assert item["call_id"] not in open_ids
                assert len(item["call_id"]) <= 64
                open_ids.append(item["call_id"])
            case "function_call_output":
                open_ids.remove(item["call_id"])
            case "reasoning":
                assert behind.get("type") in ("reasoning", "function_call") or behind.get("role") == "assistant"
            case _:
                assert item["content"] if item["role"] == "assistant" else not open_ids
    assert not open_ids


texts = st.sampled_from(["", " ", "Hm.", "Well \n", "Let me look."])
ids = st.sampled_from(["toolu_1", "toolu_2", "call:3", "한국", "call_1", SIGNED_ID])
names = st.sampled_from(["get", "put"])
IMAGES = (
    Image("data:image/png;base64,iVBORw0KGgo="),
    Image("data:image/jpg;base64,/9j/"),
    Image("https://x.example/y"),
)
media = st.sampled_from(
    [
        *IMAGES,
        Audio("data:audio/wav;base64,AAAA"),
        File(name="a.pdf", data_url="data:application/pdf;base64,AAAA"),
        File(name="a.txt", data_url="data:text/plain;base64,QUJD"),
    ]
)
results = st.lists(media, max_size=2).map(tuple)
arguments = st.sampled_from(["{}", '{"id": "a"}', "{", "[]", "", '{"a": NaN}'])


@st.composite
def answers(draw: st.DrawFn) -> AssistantMessage:
    """An answer of one of the vendors: whole, cut, refused, or changed since; some of its calls may be gone."""
    source = draw(st.sampled_from([CLAUDE.source, CHAT.source, RESPONSES.source, GEMINI.source]))
    marks: list[ProviderData] = []
    calls: list[RequestedCall] = []
    said = ""
    for id in draw(st.lists(ids, unique=True, max_size=3)):
        text = draw(texts)
        thinks = draw(st.booleans())
        said += text
        if source == CLAUDE.source:
            signed = {"type": "thinking", "thinking": "Hm", "signature": draw(st.sampled_from(["", "signed Hm"]))}
            marks += [ProviderData(source, "thinking", cast(Any, signed))] if thinks else []
            marks.append(ProviderData(source, "text", {"type": "text", "text": text}))
            marks.append(ProviderData(source, "tool_use", {"id": id}))
        elif source == RESPONSES.source:
            reasoning: Any = {"type": "reasoning", "id": "rs_1", "encrypted_content": "E", "summary": []}
            marks += [ProviderData(source, "reasoning", reasoning)] if thinks else []
            marks.append(ProviderData(source, "message", {"text": text}))
            marks.append(ProviderData(source, "function_call", {"call_id": id}))
        if draw(st.booleans()):
            calls.append(RequestedCall(id, draw(names), draw(arguments)))
    text = draw(st.sampled_from([said, "changed", ""]))
    return AssistantMessage(text, tuple(calls), draw(texts), draw(st.sampled_from(["", "No."])), tuple(marks))


messages = st.one_of(
    st.builds(UserMessage, texts),
    st.builds(UserMessage, st.lists(st.sampled_from(IMAGES), min_size=1, max_size=2).map(tuple)),
    st.builds(SystemMessage, texts),
    answers(),
    answers(),
    st.builds(ToolMessage, ids, names, texts, st.booleans(), results),
)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(messages, max_size=8), st.booleans(), st.booleans())
def test_for_every_conversation_each_vendor_takes_the_request(
    said: list[Message], keeps_instructions: bool, alternates: bool
) -> None:
    request = ModelRequest((*mend(said, keeps_instructions=keeps_instructions), UserMessage("Go on.")))
    check_chat(build_chat_body(request, replace(CHAT, alternate_roles=alternates)))
    check_responses(build_responses_body(request, replace(RESPONSES, alternate_roles=alternates)))
    check(build_anthropic_body(request, CLAUDE), {"x-api-key": "k", "anthropic-version": "2023-06-01"}, sign)


def test_a_long_id_is_shortened_for_openai_alone_and_alike_in_call_and_result() -> None:
    """A gateway finds its signature in the id that it made."""
    call, result = RequestedCall(SIGNED_ID, "get", "{}"), ToolMessage(SIGNED_ID, "get", "1")
    request = ModelRequest((UserMessage("Hi"), AssistantMessage(calls=(call,)), result))
    for base_url, is_same in (("https://api.openai.com/v1", False), ("https://gateway.example/v1", True)):
        chat: Any = build_chat_body(request, replace(CHAT, base_url=base_url))["messages"]
        items: Any = build_responses_body(request, replace(RESPONSES, base_url=base_url))["input"]
        sent = (chat[1]["tool_calls"][0]["id"], items[1]["call_id"])
        assert (chat[2]["tool_call_id"], items[2]["call_id"]) == sent
        assert [id == SIGNED_ID for id in sent] == [is_same, is_same]


def test_a_type_of_image_that_has_two_names_goes_by_the_vendors() -> None:
    said = UserMessage((Image("data:image/jpg;base64,/9j/"),))
    body: Any = build_anthropic_body(ModelRequest((said,)), CLAUDE)
    assert body["messages"][0]["content"][0]["source"]["media_type"] == "image/jpeg"
