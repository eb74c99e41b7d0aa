"""What gateways and other vendors make of the Messages API: each body is read right, or is an error with its reason."""

import json
from typing import Any

import pytest

from flowkit.assemble import Turn
from flowkit.errors import StreamError, StreamTruncated
from flowkit.messages import Usage
from flowkit.testing.streams import read_turn
from tests.bodies import DONE, event
from tests.test_anthropic import BEGIN, MESSAGE, STOP, closes, end, opens, piece, states, uses

ONE = [("f", {"a": 1}, "sealed")]
ARGUMENTS = '{"a": 1}'
PING = {"type": "ping"}
TEXT = opens(0, type="text", text="")
THINKING = opens(0, type="thinking", thinking="", signature="")


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", **fields}}


def says(text: str, index: int = 0) -> dict[str, Any]:
    return delta(index, "text", text=text)


def thinks(text: str, index: int = 0) -> dict[str, Any]:
    return delta(index, "thinking", thinking=text)


def signs(signature: str, index: int = 0) -> dict[str, Any]:
    return delta(index, "signature", signature=signature)


def without(name: str, *events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{field: value for field, value in one.items() if field != name} for one in events]


def read(*events: dict[str, Any] | bytes, begin: dict[str, Any] = BEGIN) -> Turn:
    """The turn of these events behind a start, which is the same however the body is cut."""
    body = b"".join(one if isinstance(one, bytes) else event(one) for one in (begin, *events))
    turn, cut = (read_turn(body, api="anthropic", cuts=cuts) for cuts in ((), range(1, len(body))))
    assert (turn.text, turn.calls, turn.provider, turn.usage) == (cut.text, cut.calls, cut.provider, cut.usage)
    assert str(turn.error) == str(cut.error)
    return turn


CALLS: dict[str, list[Any]] = {
    "pings everywhere": [PING, uses(0), PING, piece(0, ARGUMENTS), PING, closes(0), PING, end(), PING, STOP, PING],
    "its pieces begin empty": [uses(0), piece(0, ""), piece(0, ""), piece(0, ARGUMENTS), closes(0), end(), STOP],
    "its input stands in the start": [uses(0) | opens(0, type="tool_use", id="t", name="f", input={"a": 1}), closes(0), end(), STOP],
    "its input stands in the start and in pieces": [opens(0, type="tool_use", id="t", name="f", input={"a": 1}), piece(0, ARGUMENTS), closes(0), end(), STOP],
    "its input is text": [opens(0, type="tool_use", id="t", name="f", input=ARGUMENTS), closes(0), end(), STOP],
    "a piece is an object": [uses(0), delta(0, "input_json", partial_json={"a": 1}), closes(0), end(), STOP],
    "a placeholder stands before": [uses(0), piece(0, "{}"), piece(0, ARGUMENTS), closes(0), end(), STOP],
    "its start comes twice": [uses(0), uses(0), piece(0, ARGUMENTS), closes(0), end(), STOP],
    "its start comes again with the input": [uses(0), opens(0, type="tool_use", id="toolu_f", name="f", input={"a": 1}), closes(0), end(), STOP],
    "its block never stops": [uses(0), piece(0, ARGUMENTS), end(), STOP],
    "another block stops": [uses(0), piece(0, ARGUMENTS), closes(1), end(), STOP],
    "its block stops behind the end": [uses(0), piece(0, ARGUMENTS), end(), closes(0), STOP],
    "its index is high": [uses(7), piece(7, ARGUMENTS), closes(7), end(), STOP],
    "its index is text": [{**uses(1), "index": "1"}, piece(1, ARGUMENTS), closes(1), end(), STOP],
    "no event has an index": [*without("index", uses(0), piece(0, ARGUMENTS), closes(0)), end(), STOP],
    "its pieces name a text before it": [TEXT, says("Hi"), closes(0), uses(1), piece(0, ARGUMENTS), closes(1), end(), STOP],
    "words come beside it": [uses(0), says("Hi"), piece(0, ARGUMENTS), closes(0), end(), STOP],
    "the message never stops": [uses(0), piece(0, ARGUMENTS), closes(0), end()],
    "an end mark is behind it": [uses(0), piece(0, ARGUMENTS), closes(0), end(), STOP, DONE],
    "the reason stands in the stop": [uses(0), piece(0, ARGUMENTS), closes(0), {**STOP, "stop_reason": "tool_use"}],
    "the reason stands beside the delta": [uses(0), piece(0, ARGUMENTS), closes(0), {"type": "message_delta", "stop_reason": "tool_use"}, STOP],
    "the reason is null at first": [uses(0), piece(0, ARGUMENTS), closes(0), end(None), end(), STOP],
    "the reason is of Chat Completions": [uses(0), piece(0, ARGUMENTS), closes(0), end("tool_calls"), STOP],
    "the reason is a stop": [uses(0), piece(0, ARGUMENTS), closes(0), end("end_turn"), STOP],
    "a later reason is another": [uses(0), piece(0, ARGUMENTS), closes(0), end(), end("end_turn"), STOP],
    "a server's own call is before it": [opens(0, type="server_tool_use", id="s", name="web_search", input={}), piece(0, '{"query": "x"}'), closes(0), uses(1), piece(1, ARGUMENTS), closes(1), end(), STOP],
    "a call of an MCP server is before it": [opens(0, type="mcp_tool_use", id="m", name="echo", server_name="s", input={}), piece(0, "{}"), closes(0), opens(1, type="mcp_tool_result", tool_use_id="m", is_error=False, content=[]), closes(1), uses(2), piece(2, ARGUMENTS), closes(2), end(), STOP],
    "what nobody knows is before it": [{"type": "news", "x": 1}, opens(0, type="holo", x=1), delta(0, "holo", y=2), closes(0), uses(1), piece(1, ARGUMENTS), closes(1), end(), STOP],
    "a second start names no other message": [uses(0), {**BEGIN, "message": {**MESSAGE, "id": ""}}, piece(0, ARGUMENTS), closes(0), end(), STOP],
    "another message is behind the end": [uses(0), piece(0, ARGUMENTS), closes(0), end(), STOP, {**BEGIN, "message": {**MESSAGE, "id": "msg_2"}}, uses(0, "g"), end(), STOP],
}  # fmt: skip


@pytest.mark.parametrize("events", CALLS.values(), ids=list(CALLS))
def test_a_call_is_read_once_and_with_its_arguments(events: list[Any]) -> None:
    turn = read(*events)
    assert (states(turn), turn.complete, turn.error) == (ONE, True, None)


VOID: dict[str, list[Any]] = {
    "the tokens ran out": [uses(0), piece(0, '{"a": 1'), closes(0), end("max_tokens"), STOP],
    "the window is full": [uses(0), piece(0, '{"a": 1'), closes(0), end("model_context_window_exceeded"), STOP],
    "the vendor refused": [uses(0), closes(0), end("refusal"), STOP],
    "the server was overloaded": [uses(0), piece(0, '{"a": 1'), {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}],
    "Bedrock throttled": [uses(0), piece(0, '{"a": 1'), event({"message": "Too many", "type": "throttlingException"}, "exception")],
    "the gateway failed": [uses(0), piece(0, '{"a": 1'), b"<html><title>502 Bad Gateway</title></html>\n\n"],
    "the body ends": [uses(0), piece(0, '{"a": 1')],
    "an end mark ends it": [uses(0), piece(0, '{"a": 1'), DONE],
    "nothing says that it was whole": [uses(0), closes(0), STOP],
    "another message begins": [uses(0), piece(0, '{"a": 1'), {**BEGIN, "message": {**MESSAGE, "id": "msg_2"}}],
    "a piece belongs to no call": [uses(0), piece(0, '{"a"'), opens(1, type="text", text=""), piece(1, ": 1}"), end(), STOP],
}  # fmt: skip


@pytest.mark.parametrize("events", VOID.values(), ids=list(VOID))
def test_a_call_that_was_cut_is_void(events: list[Any]) -> None:
    turn = read(*events)
    assert ([state for *_, state in states(turn)], turn.complete) == (["void"], False)
    assert turn.error is not None or turn.reason in ("length", "content_filter")


ERRORS: dict[str, tuple[bytes, str, int | None, bool]] = {
    "overloaded": (event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), "Overloaded", 529, True),
    "by the type alone": (event({"type": "rate_limit_error", "message": "Slow down"}), "rate_limit_error: Slow down", 429, True),
    "of Bedrock": (event({"message": "Too many", "type": "throttlingException"}, "exception"), "Too many", 429, True),
    "of Bedrock, named by its line": (event({"message": "Try later"}, "exception"), "Try later", None, True),
    "that the request caused": (event({"type": "validationException", "message": "Bad"}), "Bad", 400, False),
    "of LiteLLM": (event({"error": {"message": "RateLimitError", "type": None, "code": "429"}}), "RateLimitError", 429, True),
    "in words": (b"event: error\ndata: upstream died\n\n", "upstream died", None, True),
    "from the other interface": (event({"choices": [{"delta": {"content": "Hi"}}]}), "use OpenAIModel", None, False),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "said", "status", "retryable"), ERRORS.values(), ids=list(ERRORS))
def test_an_error_is_told_with_its_reason(fault: bytes, said: str, status: int | None, retryable: bool) -> None:
    turn = read(TEXT, says("Hi"), fault)
    assert turn.text == "Hi"
    assert isinstance(turn.error, StreamError)
    assert said in str(turn.error)
    assert (turn.error.status, turn.error.retryable) == (status, retryable)


WORDS: dict[str, list[Any]] = {
    "in a block of thinking": [THINKING, thinks("Hm"), signs("S"), says("Hi"), closes(0), end("end_turn"), STOP],
    "before the thinking ends": [THINKING, thinks("Hm"), says("Hi"), signs("S"), closes(0), end("end_turn"), STOP],
    "with thinking in a block of text": [TEXT, thinks("Hm"), signs("S"), says("Hi"), closes(0), end("end_turn"), STOP],
    "without any start": [thinks("Hm"), signs("S"), closes(0), says("Hi", 1), closes(1), end("end_turn"), STOP],
    "signed before it was thought": [THINKING, signs("S"), thinks("Hm"), closes(0), opens(1, type="text", text=""), says("Hi", 1), closes(1), end("end_turn"), STOP],
    "signed in the start, and again": [opens(0, type="thinking", thinking="", signature="S"), thinks("Hm"), signs("S"), closes(0), opens(1, type="text", text="Hi"), closes(1), end("end_turn"), STOP],
}  # fmt: skip


@pytest.mark.parametrize("events", WORDS.values(), ids=list(WORDS))
def test_words_and_thinking_are_told_apart_wherever_they_stand(events: list[Any]) -> None:
    turn = read(*events)
    assert (turn.text, turn.thinking, turn.complete, turn.error) == ("Hi", "Hm", True, None)
    blocks = [item.data for item in turn.provider if item.kind == "thinking"]
    assert blocks == [{"type": "thinking", "thinking": "Hm", "signature": "S"}]
    said = [item.data for item in turn.provider if item.kind == "text"]
    assert [block for block in said if block != {"type": "text", "text": ""}] == [{"type": "text", "text": "Hi"}]


def test_a_signature_alone_is_thinking_that_was_left_out() -> None:
    turn = read(signs("S"), closes(0), uses(1), piece(1, ARGUMENTS), closes(1), end(), STOP)
    assert turn.provider[0].data == {"type": "thinking", "thinking": "", "signature": "S"}


TOKENS: dict[str, tuple[dict[str, Any], list[Any], Usage]] = {
    "only in the start": ({"input_tokens": 9, "output_tokens": 1}, [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, STOP], Usage(9, 1)),
    "only in the delta": ({}, [end("end_turn", input_tokens=9, output_tokens=2), STOP], Usage(9, 2)),
    "only in the stop": ({}, [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {**STOP, "usage": {"input_tokens": 9, "output_tokens": 2}}], Usage(9, 2)),
    "in a delta of its own": ({"input_tokens": 0}, [end("end_turn"), {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 9, "output_tokens": 2}}, STOP], Usage(9, 2)),
    "as Chat Completions counts": ({}, [end("end_turn", prompt_tokens=9, completion_tokens=2, prompt_tokens_details={"cached_tokens": 4}), STOP], Usage(9, 2, 4)),
    "writes by their time alone": ({"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 3}}, [end("end_turn", output_tokens=2), STOP], Usage(9, 2, cache_write_tokens=8, cache_write_1h_tokens=3)),
    "no writes at all": ({"input_tokens": 9, "cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_5m_input_tokens": 0}}, [end("end_turn", output_tokens=2), STOP], Usage(9, 2)),
    "several requests": ({"input_tokens": 9}, [end("end_turn", output_tokens=2, iterations=[{"input_tokens": 90, "output_tokens": 8}, {"input_tokens": 9, "output_tokens": 2}]), STOP], Usage(9, 2, billed=Usage(99, 10))),
}  # fmt: skip


@pytest.mark.parametrize(("begun", "events", "expected"), TOKENS.values(), ids=list(TOKENS))
def test_tokens_are_counted_wherever_they_stand(begun: dict[str, Any], events: list[Any], expected: Usage) -> None:
    turn = read(TEXT, says("Hi"), closes(0), *events, begin={**BEGIN, "message": {**MESSAGE, "usage": begun}})
    assert (turn.usage, turn.complete) == (expected, True)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_type_in_the_data_counts_and_the_line_where_there_is_none(line_end: str) -> None:
    events = [BEGIN, TEXT, says("Hi"), closes(0), end("end_turn"), STOP]
    other = [f"event: x{line_end}data: {json.dumps(one)}{line_end}{line_end}" for one in events]
    bare = [
        f"event: {one['type']}{line_end}data: {json.dumps(without('type', one)[0])}{line_end}{line_end}"
        for one in events
    ]
    for lines in (other, bare):
        turn = read_turn("".join(lines).encode(), api="anthropic")
        assert (turn.text, turn.complete, turn.error) == ("Hi", True, None)


def test_an_answer_at_one_go_may_hold_bare_text() -> None:
    whole = {"type": "message", "role": "assistant", "content": "Hi", "stop_reason": "end_turn"}
    turn = read_turn(json.dumps(whole).encode(), api="anthropic")
    assert (turn.text, turn.complete, turn.error) == ("Hi", True, None)


def test_what_the_vendors_own_tools_did_goes_back_whole() -> None:
    citation = {"type": "web_search_result_location", "url": "u", "encrypted_index": "e"}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]}
    turn = read(
        opens(0, type="server_tool_use", id="s", name="web_search", input={}), piece(0, ""), piece(0, '{"query"'),
        piece(0, ':"x"}'), closes(0), opens(1, **result), closes(1), opens(2, type="text", text="", citations=[]),
        delta(2, "citations", citation=citation), says("Hi", 2), closes(2), end("end_turn"), STOP,
    )  # fmt: skip
    assert [item.data for item in turn.provider] == [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        result,
        {"type": "text", "text": "Hi", "citations": [citation]},
    ]


def test_a_body_of_nothing_but_pings_was_cut() -> None:
    turn = read_turn(event(PING) * 3, api="anthropic")
    assert isinstance(turn.error, StreamTruncated)
