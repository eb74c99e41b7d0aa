"""A body of JSON where events should come: the answer at one go, or an event a line."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit import Agent, AnthropicModel, OpenAIModel, tool
from flowkit.errors import StreamError, StreamTruncated
from flowkit.messages import Usage
from flowkit.models.base import ErrorDelta, TextDelta
from flowkit.testing.streams import read_turn
from tests.bodies import DONE, anthropic, chat, event, responses, shown
from tests.example_counts import examples
from tests.server import Reply, ScriptedServer
from tests.test_strange_streams import READERS, STRANGE, replace_value
from tests.test_strange_streams import read as read_strange

FUNCTION = {"name": "f", "arguments": '{"x": 1}'}
WHOLE: dict[str, dict[str, Any]] = {
    "chat": {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi 🎉",
                    "reasoning_content": "hm",
                    "tool_calls": [{"id": "a", "type": "function", "function": FUNCTION}],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    },
    "responses": {
        "object": "response",
        "status": "completed",
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Hi 🎉"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "a", "status": "completed", **FUNCTION},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 4},
    },
    "anthropic": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "S"},
            {"type": "text", "text": "Hi 🎉"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    },
}
SPELLINGS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "on one line": lambda whole: json.dumps(whole).encode(),
    "indented": lambda whole: json.dumps(whole, indent=2, ensure_ascii=False).encode(),
    "with a byte-order mark": lambda whole: b"\xef\xbb\xbf\r\n" + json.dumps(whole).encode(),
    "in an event": event,
    "in an event with an end mark": lambda whole: event(whole) + DONE,
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=list(SPELLINGS))
@pytest.mark.parametrize("api", list(WHOLE))
def test_an_answer_at_one_go_is_read_however_it_is_cut(api: str, spell: Any) -> None:
    body = spell(WHOLE[api])
    for cuts in ((), range(1, len(body))):
        turn = read_turn(body, api=api, cuts=cuts)
        assert (turn.text, turn.thinking, shown(turn)) == ("Hi 🎉", "hm", [("f", {"x": 1}, "sealed")])
        assert turn.usage is not None
        assert (turn.usage.input_tokens, turn.usage.output_tokens) == (3, 4)
        assert (turn.complete, turn.error) == (True, None)


@pytest.mark.parametrize("api", list(WHOLE))
def test_an_answer_at_one_go_that_breaks_off_anywhere_runs_nothing_and_may_be_asked_for_again(api: str) -> None:
    body = json.dumps(WHOLE[api]).encode()
    for end in range(1, len(body)):
        turn = read_turn(body[:end], api=api)
        assert (shown(turn), turn.complete) == ([], False)
        assert isinstance(turn.error, StreamError)
        assert turn.error.retryable, end


@pytest.mark.parametrize("api", list(WHOLE))
def test_the_last_call_of_an_answer_that_was_cut_short_is_void(api: str) -> None:
    whole = json.loads(json.dumps(WHOLE[api]))
    if api == "chat":
        whole["choices"][0]["finish_reason"] = "length"
    elif api == "responses":
        whole |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        whole["output"][-1]["status"] = "incomplete"
    else:
        whole["stop_reason"] = "max_tokens"
    turn = read_turn(json.dumps(whole).encode(), api=api)
    assert ([state for *_, state in shown(turn)], turn.reason) == (["void"], "length")


EVENTS = {
    "chat": chat({"content": "Hi"}, finish="stop"),
    "responses": responses(("output_text.delta", {"output_index": 0, "delta": "Hi"})),
    "anthropic": anthropic({"type": "text_delta", "text": "Hi"}),
}


@pytest.mark.parametrize("api", list(EVENTS))
def test_events_a_line_each_or_in_one_list_are_read(api: str) -> None:
    lines = [line.removeprefix(b"data: ") for line in EVENTS[api].split(b"\n\n") if line]
    items = b",".join(line for line in lines if line != b"[DONE]")
    for body in (b"\n".join(lines), b"\r\n".join([*lines, b""]), b"[" + items + b"]"):
        turn = read_turn(body, api=api, cuts=range(1, len(body)))
        assert (turn.text, turn.complete, turn.error) == ("Hi", True, None)


@pytest.mark.parametrize("api", list(EVENTS))
def test_an_event_a_line_is_read_as_it_arrives(api: str) -> None:
    lines = [line.removeprefix(b"data: ") + b"\n" for line in EVENTS[api].split(b"\n\n") if line]
    reader = READERS[api]()
    first = next(number for number, line in enumerate(lines) if b'"Hi"' in line)
    before = [delta for line in lines[:first] for delta in reader.feed(line)]
    assert TextDelta("Hi") not in before
    assert TextDelta("Hi") in reader.feed(lines[first])
    rest = [delta for line in lines[first + 1 :] for delta in reader.feed(line)]
    assert not any(isinstance(delta, TextDelta | ErrorDelta) for delta in [*rest, *reader.end()])


@pytest.mark.parametrize("api", list(EVENTS))
def test_lines_that_break_off_keep_their_words_and_say_so(api: str) -> None:
    lines = [line.removeprefix(b"data: ") for line in EVENTS[api].split(b"\n\n") if line]
    first = next(number for number, line in enumerate(lines) if b'"Hi"' in line)
    turn = read_turn(b"\n".join(lines[: first + 1]) + b'\n{"type": "cont', api=api)
    assert (turn.text, turn.complete) == ("Hi", False)
    assert isinstance(turn.error, StreamTruncated)


def test_an_error_between_lines_is_told() -> None:
    lines = [b'{"choices": [{"delta": {"content": "Hi"}}]}', b'{"error": {"message": "Slow down", "code": 429}}', b""]
    turn = read_turn(b"\n".join(lines), api="chat")
    assert (turn.text, str(turn.error)) == ("Hi", "Slow down")
    assert turn.error is not None
    assert (turn.error.status, turn.error.retryable) == (429, True)


@pytest.mark.parametrize("body", [{"error": {"message": "Slow down"}}, {"ok": "hello"}, {"type": "error", "error": {}}])
@pytest.mark.parametrize("api", list(EVENTS))
def test_a_line_that_is_no_answer_is_shown(api: str, body: Any) -> None:
    for spelled in (json.dumps(body).encode(), json.dumps(body).encode() + b"\n"):
        turn = read_turn(spelled, api=api)
        assert "not an event stream" in str(turn.error)


def test_the_lines_of_ollama_are_read() -> None:
    function = {"name": "f", "arguments": {"x": 1}}
    lines: list[dict[str, Any]] = [
        {"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False},
        {"message": {"role": "assistant", "content": "Hi"}, "done": False},
        {"message": {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}, "done": False},
        {"message": {"content": ""}, "done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 7},
    ]
    body = b"".join(json.dumps({"model": "q", **line}).encode() + b"\n" for line in lines)
    for cuts in ((), range(1, len(body))):
        turn = read_turn(body, api="chat", cuts=cuts)
        assert (turn.text, turn.thinking, shown(turn)) == ("Hi", "hm", [("f", {"x": 1}, "sealed")])
        assert (turn.usage, turn.complete, turn.error) == (Usage(5, 7), True, None)


@pytest.mark.parametrize("api", list(WHOLE))
@settings(max_examples=examples(200), deadline=None)
@given(data=st.data())
def test_any_value_in_any_field_of_an_answer_at_one_go_is_read(api: str, data: st.DataObject) -> None:
    _, count = replace_value(WHOLE[api], -1, None)
    place, value = data.draw(st.integers(0, count - 1)), data.draw(st.sampled_from(STRANGE))
    read_strange(api, json.dumps(replace_value(WHOLE[api], place, value)[0]).encode())


def test_bytes_that_are_no_utf_8_are_no_arguments() -> None:
    body = json.dumps(WHOLE["chat"]).encode().replace(b'\\"x\\": 1', b'\\"x\\": \\"\xff\\"')
    turn = read_turn(body, api="chat")
    assert (shown(turn), turn.error is not None) == ([], True)


@pytest.mark.parametrize("api", list(WHOLE))
def test_an_agent_works_with_a_server_that_knows_no_streams(api: str) -> None:
    @tool
    async def f(x: int) -> int:
        """Count."""
        return x + 1

    text = {
        "chat": {"choices": [{"message": {"content": "2"}, "finish_reason": "stop"}]},
        "responses": {"object": "response", "status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": "2"}]}]},
        "anthropic": {"type": "message", "content": [{"type": "text", "text": "2"}], "stop_reason": "end_turn"},
    }  # fmt: skip
    replies = [
        Reply((json.dumps(body).encode(),), headers={"content-type": "application/json"})
        for body in (WHOLE[api], text[api])
    ]
    with ScriptedServer(replies) as server:
        if api == "anthropic":
            model = AnthropicModel("claude-test", base_url=server.base_url, api_key="any")
        else:
            api_name = "chat" if api == "chat" else "responses"
            model = OpenAIModel("any", base_url=server.base_url, api_key="any", api=api_name)
        answer = asyncio.run(Agent(model, tools=[f]).run("Count"))
        assert (answer.output, len(server.requests)) == ("2", 2)
