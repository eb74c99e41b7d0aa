"""The reader of the Messages API: what its events say, and when a call is sealed."""

from typing import Any

import pytest

from flowkit.assemble import Turn
from flowkit.errors import StreamTruncated
from flowkit.messages import Usage
from flowkit.testing.streams import read_turn
from tests.bodies import event

MESSAGE: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": {}}
BEGIN = {"type": "message_start", "message": MESSAGE}
STOP: dict[str, Any] = {"type": "message_stop"}


def end(reason: str | None = "tool_use", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def opens(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def uses(index: int, name: str = "f", **more: Any) -> dict[str, Any]:
    return opens(index, type="tool_use", id=f"toolu_{name}", name=name, input={}, **more)


def piece(index: int, text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": text}}


def closes(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def read(*events: dict[str, Any]) -> Turn:
    return read_turn(b"".join(map(event, (BEGIN, *events))), api="anthropic")


def states(turn: Turn) -> list[tuple[str, Any, str]]:
    return [(call.name, call.arguments, call.state) for call in turn.calls]


def test_a_call_without_arguments_is_whole_when_another_block_follows() -> None:
    """Only the last block of an answer can have been cut."""
    turn = read(uses(0), closes(0), uses(1, "g"), piece(1, '{"a'), closes(1), end("max_tokens"), STOP)
    assert [(name, state) for name, _, state in states(turn)] == [("f", "sealed"), ("g", "void")]


def test_broken_arguments_that_nothing_cut_are_invalid() -> None:
    assert states(read(uses(0), piece(0, '{"a": tru'), closes(0), end(), STOP)) == [("f", None, "invalid")]


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded", "refusal", "something_new"])
def test_after_another_end_an_empty_call_is_void(reason: str) -> None:
    assert [state for *_, state in states(read(uses(0), closes(0), end(reason), STOP))] == ["void"]


def test_calls_that_come_side_by_side_are_told_apart() -> None:
    turn = read(
        uses(0), uses(1, "g"), piece(1, '{"b"'), piece(0, '{"a"'), piece(1, ": 2}"), piece(0, ": 1}"),
        closes(1), closes(0), end(), STOP,
    )  # fmt: skip
    assert states(turn) == [("f", {"a": 1}, "sealed"), ("g", {"b": 2}, "sealed")]
    assert [delta.data for delta in turn.provider] == [{"id": "toolu_f"}, {"id": "toolu_g"}]


def test_a_gateway_that_counts_every_block_as_the_first_is_read() -> None:
    turn = read(uses(0), piece(0, '{"a": 1}'), closes(0), uses(0, "g"), piece(0, '{"b": 2}'), closes(0), end(), STOP)
    assert states(turn) == [("f", {"a": 1}, "sealed"), ("g", {"b": 2}, "sealed")]


def test_an_answer_whose_blocks_never_stop_is_read() -> None:
    thinking = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}}
    turn = read(opens(0, type="thinking", thinking=""), thinking, uses(1), piece(1, '{"a": 1}'), end(), STOP)
    assert states(turn) == [("f", {"a": 1}, "sealed")]
    assert [delta.kind for delta in turn.provider] == ["thinking", "tool_use"]


def test_a_delta_whose_block_never_began_is_text() -> None:
    delta = {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "Hi"}}
    assert read(delta, end("end_turn"), STOP).text == "Hi"


def test_an_error_in_the_middle_is_told_with_its_number() -> None:
    fault = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    error = read(uses(0), fault, end()).error
    assert error is not None
    assert (error.status, error.retryable, error.request_id) == (529, True, "req_1")
    assert "req_1" in str(error)
    wrong = read({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}).error
    assert wrong is not None
    assert (wrong.status, wrong.retryable) == (400, False)


def test_tokens_are_the_last_word_on_each_and_never_added_up() -> None:
    first = {**BEGIN, "message": {**MESSAGE, "usage": {"input_tokens": 5, "cache_read_input_tokens": 100}}}
    writes = {"ephemeral_1h_input_tokens": 30, "ephemeral_5m_input_tokens": 10}
    last = end("end_turn", output_tokens=7, input_tokens=None, cache_creation_input_tokens=40, cache_creation=writes)
    turn = read_turn(b"".join(map(event, (first, end(None, output_tokens=3), last, STOP))), api="anthropic")
    assert turn.usage == Usage(145, 7, 100, cache_write_tokens=40, cache_write_1h_tokens=30)


def test_halves_of_a_character_meet_also_in_what_goes_back() -> None:
    halves = ("\\ud83d", "\\ude00")
    deltas = [
        b'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "%s"}}\n\n'
        % half.encode()
        for half in halves
    ]
    begun = b"".join(map(event, (BEGIN, opens(0, type="text", text=""))))
    body = begun + b"".join(deltas) + b"".join(map(event, (closes(0), end("end_turn"), STOP)))
    turn = read_turn(body, api="anthropic")
    assert (turn.text, turn.error) == ("😀", None)
    assert turn.provider[0].data == {"type": "text", "text": "😀"}


@pytest.mark.parametrize("end_mark", [event(STOP), b"data: [DONE]\n\n"])
def test_an_empty_call_without_a_reason_to_stop_is_void_whatever_ends_the_body(end_mark: bytes) -> None:
    turn = read_turn(b"".join(map(event, (BEGIN, uses(0), closes(0)))) + end_mark, api="anthropic")
    assert states(turn) == [("f", None, "void")]
    assert isinstance(turn.error, StreamTruncated)


def test_arguments_of_a_call_that_never_began_are_an_error_and_no_call_without_arguments() -> None:
    turn = read(uses(0), closes(0), piece(4, '{"a": 1}'), end(), STOP)
    assert states(turn) == [("f", None, "void")]
    assert turn.error is not None
    assert turn.error.retryable


def test_arguments_reach_a_call_whose_start_has_no_index() -> None:
    begun = {name: value for name, value in uses(0).items() if name != "index"}
    assert states(read(begun, piece(0, '{"a": 1}'), closes(0), end(), STOP)) == [("f", {"a": 1}, "sealed")]


def test_half_of_a_character_in_what_goes_back_is_an_error() -> None:
    block = b'{"type": "content_block_start", "index": 0, "content_block": {"type": "new", "data": "\\ud83d"}}'
    body = event(BEGIN) + b"data: " + block + b"\n\n" + b"".join(map(event, (closes(0), end("end_turn"), STOP)))
    turn = read_turn(body, api="anthropic")
    assert turn.provider == ()
    assert "half of a character" in str(turn.error)
