"""Requests in the words of Chat Completions."""

import re
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.codec import JSON, dumps, loads
from flowkit.messages import (
    AssistantMessage,
    File,
    Image,
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
from flowkit.models.wire.chat_request import build_chat_body, mistral_id
from flowkit.models.wire.request_fields import is_strict, safe_arguments
from flowkit.models.wire.settings import Settings

ORDER = ToolSpec("get_order", "An order.", {"type": "object", "properties": {"id": {"type": "string"}}})
CALL = RequestedCall("call_1", "get_order", '{"id": "7"}')
LOCAL = Settings(model="llama-3.3", base_url="http://127.0.0.1:8080/v1")


def body_of(*messages: Message, settings: Settings = LOCAL, **request: object) -> dict[str, JSON]:
    return build_chat_body(ModelRequest(messages, **request), settings)  # pyright: ignore[reportArgumentType]


def message_of(message: Message, settings: Settings = LOCAL) -> dict[str, JSON]:
    messages = body_of(message, settings=settings)["messages"]
    assert isinstance(messages, list)
    first = messages[0]
    assert isinstance(first, dict)
    return first


def settings_of(model: str, base_url: str = "https://gateway.example/v1", **more: object) -> Settings:
    return Settings(model=model, base_url=base_url, **more)  # pyright: ignore[reportArgumentType]


def test_a_conversation_becomes_messages() -> None:
    body = body_of(
        SystemMessage("Be brief."),
        UserMessage("Where is it?"),
        AssistantMessage("Let me look.", (CALL,)),
        ToolMessage("call_1", "get_order", '{"status":"sent"}'),
    )
    assert body == {
        "model": "llama-3.3",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where is it?"},
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "get_order", "arguments": '{"id": "7"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": '{"status":"sent"}'},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_tools_stand_nested_as_this_interface_wants_them() -> None:
    """The flat form belongs to the Responses API; Chat Completions answers 400 to it."""
    body = body_of(UserMessage("hi"), tools=(ORDER,))
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "get_order", "description": "An order.", "parameters": dict(ORDER.parameters)},
        }
    ]


def test_specs_arrive_under_the_names_they_were_given() -> None:
    spec = ToolSpec("calendar_read", "", {"type": "object", "properties": {}}, strict=True)
    body = body_of(UserMessage("hi"), tools=(spec,), tool_choice=NamedTool("calendar_read"))
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "calendar_read",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
                "strict": True,
            },
        }
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "calendar_read"}}


@pytest.mark.parametrize("choice", ["none", "required"])
def test_tool_choice_is_sent_only_with_tools(choice: str) -> None:
    assert body_of(UserMessage("hi"), tools=(ORDER,), tool_choice=choice)["tool_choice"] == choice
    assert "tool_choice" not in body_of(UserMessage("hi"), tool_choice=choice)


def test_a_tool_without_parameters_has_an_empty_object() -> None:
    tools = body_of(UserMessage("hi"), tools=(ToolSpec("now", "Now."),))["tools"]
    assert tools == [
        {
            "type": "function",
            "function": {
                "name": "now",
                "description": "Now.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


def test_images_and_files_are_parts() -> None:
    message = UserMessage(
        (
            Text("Compare."),
            Image("https://example.com/a.png"),
            Image("data:image/png;base64,AA==", "low"),
            File("a.pdf", data_url="data:application/pdf;base64,AA=="),
            File("b.pdf", file_id="file-1"),
        )
    )
    assert message_of(message)["content"] == [
        {"type": "text", "text": "Compare."},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]


def test_a_message_of_calls_alone_has_null_content() -> None:
    assert message_of(AssistantMessage(calls=(CALL,)))["content"] is None


def test_a_refusal_goes_back_as_what_was_said() -> None:
    assert message_of(AssistantMessage(refusal="I won't.")) == {"role": "assistant", "content": "I won't."}


def test_output_schema_is_strict_only_where_it_can_be() -> None:
    closed: JSON = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    body = body_of(UserMessage("hi"), output_schema=closed, output_name="answer")
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": closed, "strict": True},
    }
    assert is_strict(closed)
    assert not is_strict({**closed, "required": []})
    assert not is_strict({**closed, "properties": {"a": {"type": "object", "properties": {}}}})
    assert not is_strict({"anyOf": [closed, {"type": "object"}]})


def test_the_smaller_limit_of_tokens_counts_under_the_name_the_server_knows() -> None:
    assert (
        body_of(UserMessage("hi"), settings=settings_of("llama", max_tokens=500), max_tokens=100)["max_tokens"] == 100
    )
    assert body_of(UserMessage("hi"), settings=settings_of("llama", max_tokens=50), max_tokens=100)["max_tokens"] == 50
    assert body_of(UserMessage("hi"), settings=settings_of("o4-mini", max_tokens=9))["max_completion_tokens"] == 9
    assert body_of(UserMessage("hi"), settings=settings_of("gpt-oss-20b", max_tokens=9))["max_tokens"] == 9
    official = settings_of("gpt-4.1", "https://api.openai.com/v1", max_tokens=9)
    assert body_of(UserMessage("hi"), settings=official)["max_completion_tokens"] == 9


def test_extra_body_stands_over_what_is_worked_out() -> None:
    settings = settings_of("m", temperature=0.5, extra_body={"temperature": 0.1, "seed": 7})
    body = body_of(UserMessage("hi"), settings=settings)
    assert (body["temperature"], body["seed"]) == (0.1, 7)


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        (LOCAL, True),
        (settings_of("m", include_usage=False), False),
        (settings_of("mistral-large", "https://api.mistral.ai/v1"), False),
    ],
)
def test_usage_is_asked_for_unless_the_server_refuses_the_question(settings: Settings, asks: bool) -> None:
    assert ("stream_options" in body_of(UserMessage("hi"), settings=settings)) is asks


@pytest.mark.parametrize("broken", ["", "{", '{"a":', "[1]", '"text"', "null", "NaN"])
def test_broken_arguments_go_back_as_an_empty_object(broken: str) -> None:
    assert safe_arguments(broken) == "{}"


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(), max_size=4))
def test_whole_arguments_go_back_byte_for_byte(value: dict[str, JSON]) -> None:
    import json

    text = json.dumps(value, indent=1)
    assert safe_arguments(text) == text


@given(st.text())
def test_for_every_text_what_goes_back_is_an_object(text: str) -> None:
    assert isinstance(loads(safe_arguments(text)), dict)


def test_thinking_goes_back_under_its_name_to_its_source_only() -> None:
    """Case R06: DeepSeek and Kimi answer 400 to calls without it."""
    kimi, other = settings_of("kimi-k2-thinking"), settings_of("kimi-k2-thinking", "https://other.example/v1")
    message = AssistantMessage(
        calls=(CALL,), thinking="hm", provider=(ProviderData(kimi.source, "reasoning_content", "hm"),)
    )
    assert message_of(message, kimi)["reasoning_content"] == "hm"
    assert "reasoning_content" not in message_of(message, other)


def test_reasoning_details_go_back_whole() -> None:
    settings = settings_of("anthropic/claude-sonnet-4.5", "https://openrouter.ai/api/v1")
    details: JSON = [{"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0}]
    provider = (
        ProviderData(settings.source, "reasoning", "hm"),
        ProviderData(settings.source, "reasoning_details", details),
    )
    data = message_of(AssistantMessage("Hi", provider=provider), settings)
    assert (data["reasoning"], data["reasoning_details"]) == ("hm", details)


def test_provider_data_never_replaces_what_was_said() -> None:
    """Mistral's thinking comes inside `content`, which is the answer's own field."""
    settings = settings_of("magistral-medium")
    provider = (
        ProviderData(settings.source, "content", "thinking"),
        ProviderData(settings.source, "reasoning_details", "thinking"),
    )
    assert message_of(AssistantMessage("Hi", provider=provider), settings) == {"role": "assistant", "content": "Hi"}


def test_a_thinking_deepseek_gets_the_field_for_every_message() -> None:
    """Also for those of another model, from which a fallback or a router took over."""
    settings = settings_of("deepseek-v4", "https://api.deepseek.com")
    assert message_of(AssistantMessage(calls=(CALL,)), settings)["reasoning_content"] == ""
    silent = settings_of("deepseek-v4", "https://api.deepseek.com", thinking=False)
    assert "reasoning_content" not in message_of(AssistantMessage(calls=(CALL,)), silent)
    behind = settings_of("deepseek/deepseek-v4", "https://openrouter.ai/api/v1")
    told = AssistantMessage(calls=(CALL,), provider=(ProviderData(behind.source, "reasoning", "hm"),))
    assert message_of(told, behind)["reasoning_content"] == "hm"


def test_thought_signatures_go_back_with_their_call() -> None:
    """Case T32: without it Gemini 3 answers 400."""
    settings = settings_of("gemini-3-pro", "https://generativelanguage.googleapis.com/v1beta/openai")
    signed: JSON = {"google": {"thought_signature": "abc"}}
    own = RequestedCall("call_1", "f", "{}", ProviderData(settings.source, "extra_content", signed))
    [call] = tool_calls(AssistantMessage(calls=(own,)), settings)
    assert call["extra_content"] == signed
    [call] = tool_calls(AssistantMessage(calls=(own,)), settings_of("gpt-4.1"))
    assert "extra_content" not in call


def test_calls_of_another_model_get_a_signature_that_gemini_3_takes() -> None:
    first, second = tool_calls(AssistantMessage(calls=(CALL, CALL)), settings_of("google/gemini-3-flash"))
    assert first["extra_content"] == {"google": {"thought_signature": "skip_thought_signature_validator"}}
    assert "extra_content" not in second
    [call] = tool_calls(AssistantMessage(calls=(CALL,)), settings_of("google/gemini-2.5-flash"))
    assert "extra_content" not in call


@given(st.text(min_size=1))
def test_every_id_becomes_one_that_mistral_takes(call_id: str) -> None:
    """Case T14: nine letters or digits, or the server answers 422."""
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", mistral_id(call_id))
    assert mistral_id(mistral_id(call_id)) == mistral_id(call_id)


@given(st.sets(st.text(min_size=1), max_size=50))
def test_mistral_ids_differ_where_ids_differ(ids: set[str]) -> None:
    assert len({mistral_id(call_id) for call_id in ids}) == len(ids)


def test_a_call_and_its_result_share_the_id_that_mistral_reads() -> None:
    body = body_of(
        AssistantMessage(calls=(CALL,)), ToolMessage("call_1", "get_order", "{}"), settings=settings_of("mistral-large")
    )
    messages = body["messages"]
    assert isinstance(messages, list)
    call, result = messages
    assert isinstance(call, dict)
    assert isinstance(result, dict)
    assert isinstance(made := call["tool_calls"], list)
    assert isinstance(made[0], dict)
    assert made[0]["id"] == result["tool_call_id"] == mistral_id("call_1")


def tool_calls(message: AssistantMessage, settings: Settings) -> list[dict[str, JSON]]:
    calls = message_of(message, settings)["tool_calls"]
    assert isinstance(calls, list)
    return [call for call in calls if isinstance(call, dict)]


SCHEMA: dict[str, JSON] = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def test_a_server_without_schemas_is_told_in_the_instructions() -> None:
    settings = settings_of("deepseek-v4", json_schema=False)
    body = body_of(SystemMessage("Be brief."), UserMessage("hi"), settings=settings, output_schema=SCHEMA)
    assert body["response_format"] == {"type": "json_object"}
    instructions, question = cast(list[dict[str, str]], body["messages"])
    assert instructions["content"].startswith("Be brief.\n\nAnswer only with a JSON object")
    assert instructions["content"].endswith(dumps(SCHEMA).decode())
    assert question["content"] == "hi"


def test_the_schema_is_the_instructions_where_there_are_none() -> None:
    settings = settings_of("deepseek-v4", json_schema=False)
    body = body_of(UserMessage("hi"), settings=settings, output_schema=SCHEMA)
    assert [message["role"] for message in cast(list[dict[str, str]], body["messages"])] == ["system", "user"]


def test_none_takes_a_field_out() -> None:
    settings = settings_of("m", max_tokens=9, extra_body={"max_tokens": None, "max_completion_tokens": 9})
    body = body_of(UserMessage("hi"), settings=settings)
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 9


def test_gemini_is_told_the_name_of_the_tool_that_answers() -> None:
    result = ToolMessage("call_1", "get_order", "sent")
    assert message_of(result, settings_of("gemini-3-flash"))["name"] == "get_order"
    assert "name" not in message_of(result)
