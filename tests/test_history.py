"""A conversation stays valid for the next request, whatever broke off."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage

from flowkit.codec import JSON
from flowkit.history import NOT_DECIDED, call_ids, mend, read_history, rename_calls, unanswered, wire_name
from flowkit.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    RequestedCall,
    SystemMessage,
    Text,
    ToolMessage,
    UserMessage,
)

ids = st.sampled_from(["a", "b", "a_2", "c"])
calls = st.lists(ids, max_size=3).map(lambda names: tuple(RequestedCall(i, "tool", "{}") for i in names))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(UserMessage, st.text(max_size=3)),
    st.builds(SystemMessage, st.text(max_size=3)),
    st.builds(AssistantMessage, text=st.text(max_size=3), calls=calls),
    st.builds(ToolMessage, ids, st.just("tool"), st.text(max_size=3)),
)


@given(st.lists(messages, max_size=8))
def test_every_call_has_exactly_one_result_right_behind_it_in_order(history: list[Message]) -> None:
    mended = list(mend(history))
    made = [call.id for message in mended if isinstance(message, AssistantMessage) for call in message.calls]
    assert len(set(made)) == len(made)
    assert all(made)
    while mended:
        message = mended.pop(0)
        assert not isinstance(message, (ToolMessage, SystemMessage))
        if isinstance(message, AssistantMessage):
            assert not message.is_empty
            for call in message.calls:
                result = mended.pop(0)
                assert isinstance(result, ToolMessage)
                assert result.call_id == call.id


@given(st.lists(messages, max_size=8))
def test_mending_twice_changes_nothing_more(history: list[Message]) -> None:
    assert mend(mend(history)) == mend(history)


def test_results_that_came_are_kept_and_the_missing_one_says_that_nobody_decided() -> None:
    asked = AssistantMessage(calls=(RequestedCall("a", "read", "{}"), RequestedCall("b", "write", "{}")))
    history = (UserMessage("go"), asked, ToolMessage("a", "read", "1"), UserMessage("something else"))
    assert mend(history)[2:4] == (
        ToolMessage("a", "read", "1"),
        ToolMessage("b", "write", NOT_DECIDED, is_error=True),
    )


def test_calls_with_one_id_are_told_apart_and_keep_their_own_results() -> None:
    def turn(*results: str) -> list[Message]:
        calls = tuple(RequestedCall("call_0", "get", "{}") for _ in results)
        return [AssistantMessage(calls=calls), *(ToolMessage("call_0", "get", text) for text in results)]

    mended = mend([UserMessage("Hi"), *turn("one", "two"), *turn("three")])
    calls = [call.id for message in mended if isinstance(message, AssistantMessage) for call in message.calls]
    results = [(message.call_id, message.text) for message in mended if isinstance(message, ToolMessage)]
    assert calls == ["call_0", "call_0_2", "call_0_3"]
    assert results == list(zip(calls, ["one", "two", "three"], strict=True))
    assert mend(mended) == mended
    longer = mend([UserMessage("Hi"), *turn("one", "two"), *turn("three"), *turn("four")])
    assert longer[: len(mended)] == mended  # what a server has kept of the request stays


def test_a_call_without_an_id_gets_one() -> None:
    mended = mend([AssistantMessage(calls=(RequestedCall("", "get", "{}"),)), ToolMessage("", "get", "one")])
    assert mended == (AssistantMessage(calls=(RequestedCall("call", "get", "{}"),)), ToolMessage("call", "get", "one"))


def test_unanswered_calls_are_those_of_the_last_turn() -> None:
    asked = AssistantMessage(calls=(RequestedCall("a", "read", "{}"), RequestedCall("b", "write", "{}")))
    assert [call.id for call in unanswered((asked, ToolMessage("a", "read", "1")))] == ["b"]
    assert unanswered((asked, UserMessage("no"))) == ()
    assert unanswered(()) == ()


def test_plain_objects_are_read_as_messages() -> None:
    history = read_history(
        [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "a", "content": "1"},
        ]
    )
    assert history == (
        UserMessage("hi"),
        AssistantMessage(calls=(RequestedCall("a", "f", "{}"),)),
        ToolMessage("a", "", "1"),
    )
    assert call_ids(history) == {"a"}


@given(st.lists(messages, max_size=6))
def test_messages_survive_their_json(history: list[Message]) -> None:
    assert read_history([message.to_json() for message in history]) == tuple(history)


def test_names_travel_as_aliases_and_made_up_names_are_cleaned() -> None:
    history = (AssistantMessage(calls=(RequestedCall("a", "calendar.read", "{}"),)), ToolMessage("a", "x y", "?"))
    renamed = rename_calls(history, {"calendar.read": "calendar_read"})
    assert renamed[0] == AssistantMessage(calls=(RequestedCall("a", "calendar_read", "{}"),))
    assert renamed[1] == ToolMessage("a", "x_y", "?")
    assert wire_name("", {}) == "unknown"


def test_the_form_of_chat_completions_is_read_with_its_calls_results_and_parts() -> None:
    said = read_history(
        [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "Let me "}, {"type": "text", "text": "see."}],
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "seen"}]},
        ]
    )
    assert mend(said) == (
        UserMessage((Text("hi"),)),
        AssistantMessage("Let me see.", (RequestedCall("c1", "look", "{}"),)),
        ToolMessage("c1", "look", "seen"),
    )


def test_images_files_and_arguments_that_are_objects_are_read_as_chat_completions_has_them() -> None:
    parts: list[JSON] = [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        {"type": "file", "file": {"file_id": "f1"}},
    ]
    called: JSON = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"name": "tea"}}}]
    history = read_history([{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": called}])
    assert history == (
        UserMessage(
            (
                Image("https://example.org/a.png", "low"),
                File("a.pdf", data_url="data:application/pdf;base64,AA=="),
                File("", file_id="f1"),
            )
        ),
        AssistantMessage(calls=(RequestedCall("c1", "look", '{"name":"tea"}'),)),
    )


def test_a_message_of_the_openai_package_is_read() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    message = ChatCompletionMessage.model_validate({"role": "assistant", "content": None, "tool_calls": [called]})
    assert read_history([message]) == (AssistantMessage(calls=(RequestedCall("c1", "look", "{}"),)),)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("hi", r"history\[1\] is 'hi'"),
        ({"content": "hi"}, r"history\[1\]: a message's role is None"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, r"history\[1\]: .* 'input_audio'"),
    ],
)
def test_what_is_no_message_is_refused_with_its_place(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_history([{"role": "user", "content": "hi"}, wrong])
