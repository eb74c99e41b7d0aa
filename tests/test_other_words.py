"""Answers and errors in other words than OpenAI's: each means what it says, and none is passed over."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.assemble import Turn
from flowkit.codec import JSON
from flowkit.messages import FinishReason
from flowkit.models.wire.chat import read_finish
from flowkit.models.wire.reading import read_usage
from flowkit.models.wire.reasons import NO_REASON, find_reason, find_status
from flowkit.testing.streams import read_turn
from tests.bodies import DONE, call, calls, chat, chunk, event, responses, shown


def read(body: bytes, api: str = "chat") -> Turn:
    return read_turn(body, api=api)


ERRORS: dict[str, JSON] = {
    "an object": {"error": {"message": "out of juice", "code": 503}},
    "a text": {"error": "out of juice"},
    "a list": [{"error": {"code": 429, "message": "out of juice", "status": "RESOURCE_EXHAUSTED"}}],
    "FastAPI": {"detail": "out of juice"},
    "FastAPI, a list": {"detail": [{"loc": ["body", "model"], "msg": "out of juice", "type": "value_error"}]},
    "Cloudflare": {"success": False, "errors": [{"message": "out of juice", "code": 5006}], "result": None},
    "a message and a code": {"message": "out of juice", "code": 500},
    "a message and a word": {"message": "out of juice", "code": "Throttling", "request_id": "r"},
    "AWS": {"Message": "out of juice"},
    "AWS, with a type": {"__type": "ThrottlingException", "message": "out of juice"},
    "a gateway's own": {"message": "out of juice"},
    "vLLM": {"object": "error", "message": "out of juice", "type": "BadRequestError", "code": 400},
    "MiniMax": {"base_resp": {"status_code": 1004, "status_msg": "out of juice"}},
    "OpenRouter": {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "out of juice"}}},
    "an object as message": {"error": {"message": {"detail": {"error": {"message": "out of juice"}}}}},
    "JSON as message": {"error": {"message": '{"error": {"message": "out of juice"}}'}},
    "Spring": {"timestamp": "today", "status": 500, "error": "Internal Server Error", "message": "out of juice"},
}
HALF = {
    "chat": chunk({"content": "Half an"}),
    "responses": responses(("output_text.delta", {"output_index": 0, "delta": "Half an"}), end=None),
}


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_error_inside_an_answer_is_an_error_with_its_reason(error: JSON, api: str) -> None:
    for before in (b"", HALF[api]):
        turn = read(before + event(error) + DONE, api)
        assert "out of juice" in str(turn.error)
        assert turn.text == ("Half an" if before else "")
        assert not turn.complete


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_error_in_place_of_an_answer_is_an_error_with_its_reason(error: JSON, api: str) -> None:
    turn = read(json.dumps(error, indent=1).encode(), api)
    assert "out of juice" in str(turn.error)


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize(
    "line",
    [
        b'error: {"code": 503, "message": "out of juice"}',
        b"error: out of juice",
        b"event: error\ndata: out of juice",
        b"data: Internal error: out of juice",
        b'data: "Error: out of juice"',
    ],
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\n\ndata: [DONE]\n\n"])
def test_error_line_is_an_error_with_its_reason(line: bytes, end: bytes, api: str) -> None:
    for before in (b"", HALF[api]):
        turn = read(before + line + end, api)
        assert "out of juice" in str(turn.error), turn


def test_error_of_a_choice_is_an_error_with_its_reason() -> None:
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": {"message": "out of juice"}}
    assert "out of juice" in str(read(event({"choices": [choice]}) + DONE).error)


def test_reason_that_comes_behind_the_word_error_is_told() -> None:
    turn = read(chunk({"content": "Half"}) + chunk({}, "error") + event({"error": "out of juice"}) + DONE)
    assert "out of juice" in str(turn.error)


@pytest.mark.parametrize("remark", [
    b": STILL WORKING", b"[PING]", b"ping", b"null", b"12", b'"still here"', b"[]", b"[1]", b'{"type": "ping"}',
    b'{"id": "r", "object": "chat.completion.chunk"}', b'{"message": "keep-alive"}', b'{"code": 0, "message": "ok"}',
    b'{"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}', b'{"error": null, "choices": []}',
])  # fmt: skip
def test_remark_is_passed_over(remark: bytes) -> None:
    for place in range(3):
        pieces = [chunk({"content": "Hi"}), chunk({}, "stop"), DONE]
        pieces.insert(place, b"data: " + remark + b"\n\n")
        turn = read(b"".join(pieces))
        assert (turn.text, turn.error, turn.complete) == ("Hi", None, True)


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_end_mark_behind_nothing_is_no_success(api: str) -> None:
    turn = read(DONE, api)
    assert turn.error is not None
    assert turn.error.retryable


def test_broken_chunk_is_an_error() -> None:
    assert "isn't JSON" in str(read(chat(b'data: {"choices": [{"delta"\n\n', finish="stop")).error)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["stop", "end_turn", "STOP", "COMPLETE", "stop_sequence", "FinishReason.STOP", "FINISH_REASON_STOP"], "stop"),
        (["tool_use", "tool_calls", "TOOL_CALL", "function_call", "tool-calls"], "tool_calls"),
        (["max_tokens", "MAX_TOKENS", "length", "max_output_tokens", "model_context_window_exceeded"], "length"),
        (["SAFETY", "content_filter", "refusal", "RECITATION", "guardrail_intervened", "sensitive"], "content_filter"),
        (["error", "MALFORMED_FUNCTION_CALL", "network_error", "insufficient_system_resource", "abort"], "error"),
        (["bored", "OTHER"], "unknown"),
    ],
)
def test_words_of_other_interfaces_mean_what_they_mean_there(words: list[str], meant: FinishReason) -> None:
    assert {word: read_finish(word) for word in words} == dict.fromkeys(words, meant)


@pytest.mark.parametrize("word", ["end_turn", "tool_use", "TOOL_CALL", "STOP", "toolUse", "endTurn"])
def test_good_word_seals_the_calls(word: str) -> None:
    turn = read(chat(calls(call('{"x":1}', id="a", name="f")), finish=word))
    assert (shown(turn), turn.error, turn.complete) == ([("f", {"x": 1}, "sealed")], None, True)


def test_unknown_word_behind_an_open_call_is_an_error_that_names_it() -> None:
    turn = read(chat(calls(call('{"x":1}', id="a", name="f")), finish="bored"))
    assert shown(turn) == [("f", {"x": 1}, "void")]
    assert "'bored'" in str(turn.error)
    assert read(chat({"content": "Hi"}, finish="bored")).error is None


def test_word_error_is_an_error() -> None:
    turn = read(chat({"content": "The total is 4"}, finish="MALFORMED_FUNCTION_CALL"))
    assert turn.error is not None
    assert turn.error.retryable
    assert "'MALFORMED_FUNCTION_CALL'" in str(turn.error)


@given(
    st.sampled_from(("function_call", "custom_tool_call")),
    st.one_of(st.sampled_from(["", "{}", "null", "DELETE FROM notes", '{"x":4', '{"x":4}']), st.text(max_size=10)),
    st.sampled_from(("incomplete", "failed", "cancelled")),
    st.booleans(),
    st.booleans(),
)
def test_for_every_text_a_call_that_was_cut_is_never_sealed_by_its_item(
    kind: str, text: str, status: str, said_done: bool, streamed: bool
) -> None:
    field = "arguments" if kind == "function_call" else "input"
    event_kind = f"{kind}_{field}"
    item = {"type": kind, "id": "i", "call_id": "c", "name": "f"}
    events: list[tuple[str, dict[str, Any]]] = [("output_item.added", {"output_index": 0, "item": {**item, field: ""}})]
    if streamed:
        events.append((f"{event_kind}.delta", {"output_index": 0, "delta": text}))
    # What ends a call's arguments seals an object that isn't empty, before the item says more.
    if said_done and (kind == "custom_tool_call" or not text.startswith("{") or text in ("{}", '{"x":4')):
        events.append((f"{event_kind}.done", {"output_index": 0, field: text}))
    events.append(("output_item.done", {"output_index": 0, "item": {**item, field: text, "status": status}}))
    for end in ("completed", "incomplete"):
        turn = read(responses(*events, end=end), "responses")
        assert [one.state for one in turn.calls] == ["void"]
        assert not turn.complete


def test_call_without_arguments_waits_for_its_item_or_the_end() -> None:
    item = {"type": "function_call", "id": "i", "call_id": "c", "name": "f"}
    began: tuple[str, dict[str, Any]] = ("output_item.added", {"output_index": 0, "item": item})
    ended: tuple[str, dict[str, Any]] = ("function_call_arguments.done", {"output_index": 0, "arguments": ""})
    whole: tuple[str, dict[str, Any]] = (
        "output_item.done",
        {"output_index": 0, "item": {**item, "status": "completed"}},
    )
    cut = read(responses(began, ended, end=None), "responses")
    assert [one.state for one in cut.calls] == ["void"]
    for events, end in (((began, ended, whole), None), ((began, ended), "completed")):
        turn = read(responses(*events, end=end), "responses")
        assert [(one.state, one.arguments) for one in turn.calls] == [("sealed", {})]


def whole_message(message: dict[str, Any], finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


def test_message_in_place_of_a_delta_is_read() -> None:
    function = {"name": "f", "arguments": '{"x":1}'}
    message = {
        "role": "assistant",
        "content": None,
        "reasoning": "hm",
        "tool_calls": [{"id": "a", "function": function}],
    }
    turn = read(whole_message(message, "tool_calls") + DONE)
    assert (shown(turn), turn.thinking) == ([("f", {"x": 1}, "sealed")], "hm")


@pytest.mark.parametrize("texts", [["Hel", "lo"], ["Hel", "Hello"], ["Hello", "Hello"], ["", "Hello"]])
def test_messages_may_hold_more_of_the_text_or_all_of_it(texts: list[str]) -> None:
    body = b"".join(whole_message({"content": text}) for text in texts) + chunk({}, "stop") + DONE
    assert read(body).text == "Hello"


def test_message_behind_deltas_repeats_them() -> None:
    body = chunk({"content": "Hel"}) + chunk({"content": "lo"}) + whole_message({"content": "Hello"}, "stop") + DONE
    assert read(body).text == "Hello"


@pytest.mark.parametrize("field", ["thinking", "reasoning", "reasoning_content"])
def test_thinking_is_read_under_each_of_its_names(field: str) -> None:
    turn = read(chat({field: "I thi"}, {field: "nk"}, {"content": "Hi"}, finish="stop"))
    assert (turn.thinking, turn.text) == ("I think", "Hi")


def test_last_event_counts_for_what_was_not_streamed_before() -> None:
    output = [
        {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Hello"}]},
        {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call", "id": "j", "call_id": "d", "name": "g", "arguments": "", "status": "incomplete"},
    ]
    turn = read(responses(output=output), "responses")
    assert (turn.text, shown(turn)) == ("Hello", [("f", {}, "sealed"), ("g", None, "void")])
    said: tuple[str, dict[str, Any]] = ("output_text.delta", {"output_index": 0, "delta": "Hi"})
    turn = read(responses(said, output=output), "responses")
    assert (turn.text, shown(turn)) == ("Hi", [("f", {}, "sealed"), ("g", None, "void")])
    opened: tuple[str, dict[str, Any]] = ("output_item.added", {"output_index": 1, "item": output[1]})
    assert [name for name, *_ in shown(read(responses(said, opened, output=output), "responses"))] == ["f"]


def test_items_without_any_index_are_told_apart_by_their_ids() -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "One. "}]}
    function = {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": ""}
    turn = read(
        responses(
            ("output_item.done", {"item": {**message, "id": "m0"}}),
            ("output_item.done", {"item": {**message, "id": "m1"}}),
            ("output_item.added", {"item": function}),
            ("function_call_arguments.delta", {"item_id": "i", "delta": '{"x":1}'}),
            ("output_item.done", {"item": {**function, "arguments": '{"x":1}', "status": "completed"}}),
        ),
        "responses",
    )
    assert (turn.text, shown(turn)) == ("One. One. ", [("f", {"x": 1}, "sealed")])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([{"error": {"message": "no"}}], "no"),
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "Field required"}]}, "body.messages.0: Field required"),
        ({"message": "Provider returned error", "metadata": {"raw": "overloaded"}}, "Provider returned error: overloaded"),
        ({"errors": ["no", "never"]}, "no"),
        ({"error": "Bad Request", "message": "prompt is too long"}, "prompt is too long"),
        ({"error": {"message": "Unprocessable Entity", "details": {"reason": "no such field"}}}, "no such field"),
        ("just text", "just text"),
        ({"error": {"message": ""}}, NO_REASON),
        ({}, NO_REASON),
        (None, NO_REASON),
    ],
)  # fmt: skip
def test_reason_is_found_in_any_body(body: JSON, reason: str) -> None:
    assert find_reason(body) == reason


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "errors", "metadata", "raw", "code", "x"]), inner, max_size=3
        )
    ),
)


@given(_JSON)
def test_for_every_body_there_is_a_reason(body: Any) -> None:
    assert isinstance(find_reason(body), str)
    assert find_reason(body)
    status = find_status(body)
    assert status is None or 400 <= status <= 599


def test_body_that_holds_itself_very_deep_is_read_to_a_bound() -> None:
    body: JSON = "no"
    for _ in range(500):
        body = {"error": body}
    assert find_reason(body) == NO_REASON


def test_message_behind_other_kinds_of_deltas_says_what_they_did_not() -> None:
    whole = {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
    turn = read(chunk({"reasoning_content": "hm"}) + whole_message(whole, "stop") + DONE)
    assert (turn.thinking, turn.text) == ("hm", "Hello")


@pytest.mark.parametrize(
    "line",
    [
        b'{"error": {"message": "out of juice"}}',
        b'{"detail":\n "out of juice"}',
        b'[{"error": {"message": "out of juice"}}]',
        b"Error: out of juice",
        b"EXCEPTION: out of juice",
        b"upstream error: out of juice",
        b'event: error\n\ndata: {"message": "out of juice"}',
    ],
)
@pytest.mark.parametrize(
    "end", [b"", b"\n", b"\n\n", b"\n\n" + chunk({}, "stop") + DONE, b"\n" + chunk({}, "stop") + DONE]
)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_error_that_is_no_event_of_the_stream_is_an_error_with_its_reason(line: bytes, end: bytes, api: str) -> None:
    if line.startswith(b"event") and end.startswith(b"\ndata"):
        pytest.skip("two data lines in a row are one event, which no reader can tell apart")
    turn = read(HALF[api] + line + end, api)
    assert "out of juice" in str(turn.error)
    assert not turn.complete


def test_type_error_without_a_word_is_an_error() -> None:
    for end in (b"", b"\n\n", b"\n\n" + chunk({}, "stop") + DONE):
        turn = read(HALF["chat"] + b"event: error" + end)
        assert str(turn.error) == NO_REASON


def test_lines_of_no_field_that_report_nothing_are_passed_over() -> None:
    for line in (b"x-request: 1", b'{"type": "ping"}', b"[]", b"{", b"id: 7", b"retry: 5", b": error", b"\xff"):
        turn = read(HALF["chat"] + line + b"\n\n" + chunk({}, "stop") + DONE)
        assert turn.complete


def test_comment_in_the_wrong_field_may_hold_anything() -> None:
    assert read(event("") + b'data: : {"queue": 3, "error"\n\n' + chunk({"content": "Hi"}, "stop") + DONE).complete


def test_end_that_says_in_its_status_that_it_is_none_is_none() -> None:
    added: tuple[str, dict[str, Any]] = (
        "output_item.added",
        {"output_index": 0, "item": {"type": "function_call", "id": "i", "call_id": "c", "name": "f"}},
    )
    begun: tuple[str, dict[str, Any]] = ("function_call_arguments.delta", {"output_index": 0, "delta": '{"x":'})
    details = {"reason": "max_output_tokens"}
    turn = read(responses(added, begun, status="incomplete", incomplete_details=details), "responses")
    assert (shown(turn), turn.reason) == ([("f", None, "void")], "length")
    turn = read(responses(added, begun, status="failed", error={"message": "out of juice"}), "responses")
    assert str(turn.error) == "out of juice"


def test_text_that_stands_only_in_a_part_or_a_field_of_the_end_is_read() -> None:
    part = {"output_index": 0, "item_id": "m", "part": {"type": "output_text", "text": "Hello"}}
    thought = {"output_index": 1, "item_id": "n", "part": {"type": "reasoning_text", "text": "hm"}}
    turn = read(responses(("content_part.done", thought), ("content_part.done", part)), "responses")
    assert turn.text == "Hello"
    assert read(responses(output=[], output_text="Hello"), "responses").text == "Hello"


def test_item_that_is_done_under_an_id_of_its_own_repeats_what_was_said() -> None:
    said: tuple[str, dict[str, Any]] = ("output_text.delta", {"output_index": 0, "item_id": "a", "delta": "One."})
    done = {"item": {"type": "message", "id": "b", "content": [{"type": "output_text", "text": "One."}]}}
    assert read(responses(said, ("output_item.done", done)), "responses").text == "One."


def test_empty_signature_behind_the_one_of_a_call_takes_nothing_away() -> None:
    signed = call('{"x":1}', id="a", name="f", extra_content={"google": {"thought_signature": "SIGNED"}})
    empty: list[JSON] = [{"google": {"thought_signature": ""}}, {"google": {}}, {}, None]
    for later in empty:
        turn = read(chat(calls(signed), calls(call("", extra_content=later))))
        assert "SIGNED" in repr(turn.calls[0].provider)


@pytest.mark.parametrize(
    ("details", "total", "expected"),
    [
        ({"prompt_tokens_details": {"image_tokens": 300}}, 313, (311, 2)),
        ({"prompt_tokens_details": {"image_tokens": 300, "audio_tokens": 20}}, 333, (331, 2)),
        ({"prompt_tokens_details": {"image_tokens": 300, "audio_tokens": 20}}, 33, (31, 2)),
        ({"completion_tokens_details": {"audio_tokens": 30}}, 43, (11, 32)),
        ({"prompt_tokens_details": {"image_tokens": 7}}, 13, (11, 2)),
        ({"prompt_tokens_details": {"cached_tokens": 7}}, 20, (11, 2)),
    ],
)
def test_what_the_total_counts_beside_the_rest_is_counted(
    details: dict[str, JSON], total: int, expected: tuple[int, int]
) -> None:
    usage: dict[str, JSON] = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": total, **details}
    found = read_usage(usage)
    assert (found.input_tokens, found.output_tokens) == expected
