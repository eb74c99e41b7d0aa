"""Requests in the words of the Responses API."""

from flowkit.codec import JSON
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
from flowkit.models.wire.responses_request import build_responses_body
from flowkit.models.wire.settings import Settings

GPT = Settings(model="gpt-5", api="responses", thinking="low", max_tokens=900)
SOURCE = GPT.source


def items_of(*messages: Message, settings: Settings = GPT) -> list[JSON]:
    items = build_responses_body(ModelRequest(messages), settings)["input"]
    assert isinstance(items, list)
    return items


def call(id: str) -> RequestedCall:
    return RequestedCall(id, "f", '{"x": 1}')


def call_item(id: str) -> JSON:
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": '{"x": 1}'}


def reasoning(id: str) -> dict[str, JSON]:
    return {"type": "reasoning", "id": id, "summary": [], "encrypted_content": f"secret of {id}"}


def mark(kind: str, **data: JSON) -> ProviderData:
    return ProviderData(SOURCE, kind, data)


def test_a_conversation_becomes_items() -> None:
    body = build_responses_body(
        ModelRequest(
            (
                SystemMessage("Be brief."),
                UserMessage("Hi"),
                AssistantMessage("Look.", (call("call_1"),)),
                ToolMessage("call_1", "f", "2"),
            ),
            tools=(ToolSpec("f", "F.", {"type": "object", "properties": {"x": {"type": "integer"}}}),),
            tool_choice=NamedTool("f"),
        ),
        GPT,
    )
    assert body == {
        "model": "gpt-5",
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Look."},
            call_item("call_1"),
            {"type": "function_call_output", "call_id": "call_1", "output": "2"},
        ],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "tools": [
            {
                "type": "function",
                "name": "f",
                "description": "F.",
                "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
                "strict": False,
            }
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "max_output_tokens": 900,
        "reasoning": {"effort": "low", "summary": "auto"},
    }


def test_a_model_that_does_not_think_is_not_asked_for_its_thinking() -> None:
    body = build_responses_body(ModelRequest((UserMessage("Hi"),)), Settings(model="gpt-4.1", api="responses"))
    assert "include" not in body
    assert "reasoning" not in body


def test_a_limit_is_never_smaller_than_the_least_that_is_taken() -> None:
    body = build_responses_body(ModelRequest((UserMessage("Hi"),), max_tokens=3), GPT)
    assert body["max_output_tokens"] == 16


def test_the_form_of_the_output_stands_in_text() -> None:
    schema: dict[str, JSON] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    body = build_responses_body(ModelRequest((UserMessage("Hi"),), output_schema=schema), GPT)
    assert body["text"] == {"format": {"type": "json_schema", "name": "output", "schema": schema, "strict": False}}


def test_images_and_files_are_parts() -> None:
    parts = (Text("Compare."), Image("https://example.com/a.png"), File("a.pdf", "data:,"), File("b.pdf", file_id="f1"))
    assert items_of(UserMessage(parts)) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Compare."},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:,"},
                {"type": "input_file", "file_id": "f1"},
            ],
        }
    ]


def test_each_reasoning_item_stands_before_the_call_it_led_to() -> None:
    """Case P14."""
    message = AssistantMessage(
        calls=(call("a"), call("b")),
        provider=(
            mark("reasoning", **reasoning("rs_1")),
            mark("function_call", id="fc_1", call_id="a"),
            mark("reasoning", **reasoning("rs_2")),
            mark("function_call", id="fc_2", call_id="b"),
        ),
    )
    assert items_of(message) == [reasoning("rs_1"), call_item("a"), reasoning("rs_2"), call_item("b")]


def test_reasoning_of_another_source_stays_here() -> None:
    message = AssistantMessage("Hi", provider=(ProviderData("elsewhere", "reasoning", reasoning("rs_1")),))
    assert items_of(message) == [{"role": "assistant", "content": "Hi"}]


def test_a_void_call_goes_with_its_reasoning() -> None:
    message = AssistantMessage(
        calls=(call("a"),),
        provider=(
            mark("reasoning", **reasoning("rs_1")),
            mark("function_call", id="fc_1", call_id="a"),
            mark("reasoning", **reasoning("rs_2")),
            mark("function_call", id="fc_2", call_id="void"),
        ),
    )
    assert items_of(message) == [reasoning("rs_1"), call_item("a")]


def test_reasoning_that_led_to_nothing_is_left_out() -> None:
    message = AssistantMessage("Hi", provider=(mark("message", text="Hi"), mark("reasoning", **reasoning("rs_1"))))
    assert items_of(message) == [{"role": "assistant", "content": "Hi"}]


def test_a_call_whose_id_was_taken_is_found_by_its_place() -> None:
    message = AssistantMessage(
        calls=(call("call00001"),),
        provider=(mark("reasoning", **reasoning("rs_1")), mark("function_call", id="fc_1", call_id="call_0")),
    )
    assert items_of(message) == [reasoning("rs_1"), call_item("call00001")]


def test_without_marks_reasoning_comes_first() -> None:
    message = AssistantMessage("Hi", (call("a"),), provider=(mark("reasoning", **reasoning("rs_1")),))
    assert items_of(message) == [reasoning("rs_1"), {"role": "assistant", "content": "Hi"}, call_item("a")]


def test_several_messages_keep_their_phase() -> None:
    """Case P13."""
    message = AssistantMessage(
        "I look. It is sent.",
        provider=(
            mark("reasoning", **reasoning("rs_1")),
            mark("message", id="m1", phase="commentary", text="I look. "),
            mark("message", id="m2", phase="final_answer", text="It is sent."),
        ),
    )
    assert items_of(message) == [
        reasoning("rs_1"),
        {"role": "assistant", "content": "I look. ", "phase": "commentary"},
        {"role": "assistant", "content": "It is sent.", "phase": "final_answer"},
    ]


def test_a_text_that_was_changed_since_stands_for_what_came() -> None:
    message = AssistantMessage(
        "[trimmed]", provider=(mark("reasoning", **reasoning("rs_1")), mark("message", text="My card is 4111…"))
    )
    assert items_of(message) == [reasoning("rs_1"), {"role": "assistant", "content": "[trimmed]"}]


def test_broken_arguments_go_back_as_an_empty_object() -> None:
    [item] = items_of(AssistantMessage(calls=(RequestedCall("a", "f", '{"x":'),)))
    assert item == {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
