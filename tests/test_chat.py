"""Chat Completions, bytes to deltas: every field as servers really send it."""

from typing import Any

import pytest

from flowkit.errors import StreamError, StreamTruncated
from flowkit.messages import Usage
from flowkit.models.base import ErrorDelta, ProviderDelta, TextDelta, ThinkingDelta
from flowkit.models.wire.chat import ChatReader
from flowkit.testing.streams import read_turn
from tests.bodies import DONE, call, calls, chat, chunk, event, read_chat, read_deltas, shown

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def errors(body: bytes) -> list[StreamError]:
    reader = ChatReader()
    found = [*reader.feed(body), *reader.end()]
    return [delta.error for delta in found if isinstance(delta, ErrorDelta) and isinstance(delta.error, StreamError)]


# choices and usage


def test_usage_comes_in_a_chunk_without_choices_case_c01() -> None:
    turn = read_chat({"content": "Hi"}, chunk({}, "stop"), event({"choices": [], "usage": USAGE}), finish=None)
    assert (turn.text, turn.usage) == ("Hi", Usage(9, 4, 3, 2))


def test_first_chunk_may_have_no_choices_case_c02() -> None:
    first = event({"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []})
    assert read_chat(first, {"content": "Hi"}).text == "Hi"


def test_choice_may_have_no_delta_case_c03() -> None:
    without = event({"object": "", "choices": [{"index": 0, "content_filter_results": {}, "finish_reason": None}]})
    null = event({"choices": [{"index": 0, "delta": None, "finish_reason": None}]})
    assert read_chat(without, {"content": "Hi"}, null).text == "Hi"


@pytest.mark.parametrize("more", [{"choices": None}, {}, {"choices": {}}, {"choices": [None, 1]}])
def test_choices_may_be_null_or_missing_case_c04(more: dict[str, Any]) -> None:
    turn = read_chat(event({"object": "chat.completion.chunk", **more}), {"content": "Hi"}, finish="stop")
    assert (turn.text, turn.complete) == ("Hi", True)


def test_the_last_usage_counts_wherever_it_stands_case_c05() -> None:
    turn = read_chat(
        chunk({"content": "H"}, usage={"prompt_tokens": 9, "completion_tokens": 1}),
        chunk({"content": "i"}, usage=USAGE),
        chunk({}, "stop", usage=None),
        finish=None,
    )
    assert turn.usage == Usage(9, 4, 3, 2)


def test_usage_may_stand_in_x_groq_case_c05() -> None:
    assert read_chat(chunk({}, "stop", x_groq={"id": "r", "usage": USAGE}), finish=None).usage == Usage(9, 4, 3, 2)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 4}, Usage(5, 0, 4)),
        ({"prompt_tokens": 5, "cached_tokens": 4, "prompt_tokens_details": None}, Usage(5, 0, 4)),
        ({"prompt_tokens": 5, "reasoning_tokens": 4}, Usage(5, 0, 0, 4)),
        ({"prompt_tokens": 5, "cost": 0.25}, Usage(5, cost_usd=0.25)),
        ({"prompt_tokens": 5, "cost": {"total_cost": 0.25}}, Usage(5, cost_usd=0.25)),
        ({"prompt_tokens": None}, Usage()),
        (
            # xAI counts thinking beside the output.
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(5, 5, 0, 3),
        ),
    ],
)
def test_usage_is_read_in_the_words_of_each_server(usage: dict[str, Any], expected: Usage) -> None:
    assert read_chat(event({"choices": [], "usage": usage})).usage == expected


def test_only_the_first_choice_counts_case_n01() -> None:
    def choice(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})

    turn = read_chat(
        choice(1, {"content": "B", "reasoning": "b", "refusal": "b"}),
        choice(0, {"content": "A"}),
        choice(1, calls(call("{}", id="b", name="g"))),
        choice(1, {}, "length"),
        choice(0, {}, "stop"),
        finish=None,
    )
    assert (turn.text, turn.thinking, turn.refusal, turn.calls) == ("A", "", "", ())
    assert (turn.finish_reason, turn.complete) == ("stop", True)


# text, thinking, refusal


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_stands_in_either_field_case_r01_r02(field: str) -> None:
    turn = read_chat({field: "Th"}, {field: "ink"}, {"content": "Hi", field: None}, finish="stop")
    assert (turn.thinking, turn.text, turn.thinking_field) == ("Think", "Hi", field)


def test_thinking_that_is_said_twice_counts_once_case_r02() -> None:
    turn = read_chat({"reasoning_content": "Think", "reasoning": "Think"}, finish="stop")
    assert turn.thinking == "Think"


def test_empty_field_leaves_the_word_to_the_other_case_r02() -> None:
    assert read_chat({"reasoning_content": "", "reasoning": "Think"}, finish="stop").thinking == "Think"


def test_details_are_kept_and_merged_but_not_counted_twice_case_r03() -> None:
    def piece(**fields: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "index": 0, **fields}

    turn = read_chat(
        {"reasoning": "Th", "reasoning_details": [piece(text="Th", format="x", signature=None)]},
        {"reasoning": "ink", "reasoning_details": [piece(text="ink")]},
        {"reasoning_details": [piece(signature="S")]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "E", "index": 0}]},
        {"content": "Hi", "reasoning_details": []},
        finish="stop",
    )
    assert turn.thinking == "Think"
    assert turn.provider == (
        ProviderDelta(
            "reasoning_details",
            [
                {"type": "reasoning.text", "index": 0, "format": "x", "signature": "S", "text": "Think"},
                {"type": "reasoning.encrypted", "data": "E", "index": 0},
            ],
        ),
    )


def test_details_without_index_are_appended_case_r03() -> None:
    turn = read_chat(
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "Th"}, None, 1]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "ink"}]},
        finish="stop",
    )
    assert turn.thinking == "Think"
    assert turn.thinking_field is None
    assert turn.provider[0].data == [
        {"type": "reasoning.summary", "summary": "Th"},
        {"type": "reasoning.text", "text": "ink"},
    ]


def test_content_may_be_a_list_of_parts_case_r04() -> None:
    turn = read_chat(
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Th"}, "x"]}]},
        {"content": [{"type": "thinking", "thinking": "ink"}, {"type": "reference", "reference_ids": [1]}, None]},
        {"content": [{"type": "text", "text": "H"}]},
        {"content": "i"},
        finish="stop",
    )
    assert (turn.thinking, turn.text, turn.thinking_field) == ("Think", "Hi", None)


def test_field_of_thinking_is_kept_for_the_next_request_case_r06() -> None:
    assert read_chat({"reasoning_content": "Th"}, calls(call("{}", id="a", name="f"))).thinking_field == (
        "reasoning_content"
    )
    assert read_chat({"content": "Hi"}).thinking_field is None


@pytest.mark.parametrize("marker", ["<|tool_calls_section_begin|>", "<tool_call>", "[TOOL_CALLS]", "<function=f>"])
def test_calls_that_leaked_into_the_text_are_reported_case_r07(marker: str) -> None:
    for field in ("content", "reasoning"):
        turn = read_chat({field: f"{marker} functions.f"}, finish="stop")
        assert turn.calls == ()
        assert turn.leaked is not None
        assert marker.startswith(turn.leaked)
    assert read_chat({"content": "Hi"}, finish="stop").leaked is None
    assert read_chat({"content": marker}, calls(call("{}", id="a", name="f"))).leaked is None


def test_text_may_stand_around_calls_case_r08() -> None:
    turn = read_chat({"content": "Let me "}, calls(call('{"x":1}', id="a", name="f")), {"content": "look."})
    assert turn.text == "Let me look."
    assert shown(turn) == [("f", {"x": 1}, "sealed")]


def test_refusal_has_its_own_text_case_r09() -> None:
    turn = read_chat({"content": None, "refusal": "I "}, {"refusal": "can't"}, finish="stop")
    assert (turn.text, turn.refusal, turn.complete) == ("", "I can't", True)


def test_extra_content_of_a_message_goes_back() -> None:
    turn = read_chat({"content": "Hi", "extra_content": {"google": {"thought_signature": "S"}}}, finish="stop")
    assert turn.provider == (ProviderDelta("extra_content", {"google": {"thought_signature": "S"}}),)


# errors in the middle


@pytest.mark.parametrize(
    ("broken", "message", "status"),
    [
        (event({"error": {"code": 502, "message": "gone"}, "choices": []}), "gone", 502),
        (event({"error": {"message": "call failed", "code": "tool_use_failed"}}, "error"), "call failed", None),
        (event({"object": "error", "message": "oom", "code": 500}), "oom", 500),
        (event({"error": "boom"}), "boom", None),
        (event({"message": "busy", "code": "503"}, "error"), "busy", 503),
    ],
    ids=["X01", "X02", "X03", "X04", "only the event's type tells"],
)
def test_error_in_the_middle_keeps_what_was_said_case_x01_to_x04(
    broken: bytes, message: str, status: int | None
) -> None:
    turn = read_chat({"content": "Hel"}, calls(call('{"x":1}', id="a", name="f")), broken, finish=None, done=False)
    assert isinstance(turn.error, StreamError)
    assert (str(turn.error), turn.error.status) == (message, status)
    assert (turn.text, turn.complete, turn.reason) == ("Hel", False, "error")
    assert shown(turn) == [("f", {"x": 1}, "void")]


def test_error_with_a_choice_that_ends_in_error_case_x01() -> None:
    turn = read_chat(chunk({"content": "Hel"}, "error", error={"code": 502, "message": "gone"}), finish=None)
    assert (turn.text, turn.finish_reason, str(turn.error), turn.complete) == ("Hel", "error", "gone", False)


def test_body_of_an_error_is_kept_case_x02() -> None:
    error = {"message": "m", "code": "tool_use_failed", "failed_generation": "<f>"}
    (found,) = errors(event({"error": error}, "error"))
    assert (found.body, found.retryable) == (error, True)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"message": "m", "code": 429}, True),
        ({"message": "m", "code": 500}, True),
        ({"message": "m", "type": "overloaded_error"}, True),
        ({"message": "m", "code": 400}, False),
        ({"message": "m", "type": "invalid_request_error"}, False),
    ],
)
def test_error_says_whether_asking_again_may_help(error: dict[str, Any], retryable: bool) -> None:
    assert [found.retryable for found in errors(event({"error": error}))] == [retryable]


def test_null_error_is_none() -> None:
    assert errors(chat(chunk({"content": "Hi"}, error=None))) == []


# the bytes


def test_comments_between_events_are_skipped_case_s01() -> None:
    assert read_chat(b": OPENROUTER PROCESSING\n\n", {"content": "Hi"}, b": x\n\n").text == "Hi"


def test_events_may_end_with_crlf_and_cr_case_s02() -> None:
    body = chat({"content": "Hi"}, finish="stop")
    for end in (b"\r\n", b"\r"):
        assert read_turn(body.replace(b"\n", end), api="chat").text == "Hi"


def test_byte_order_mark_does_not_cost_the_first_event_case_s03() -> None:
    assert read_turn(b"\xef\xbb\xbf" + chat({"content": "Hi"}, finish="stop"), api="chat").text == "Hi"


def test_characters_may_be_cut_anywhere_case_s04() -> None:
    body = chat({"content": "Grüße 🎉 東京"}, calls(call('{"x":"東京🎉"}', id="a", name="f")))
    turn = read_turn(body, api="chat", cuts=range(len(body)))
    assert turn.text == "Grüße 🎉 東京"
    assert shown(turn) == [("f", {"x": "東京🎉"}, "sealed")]


def test_invalid_bytes_in_a_text_are_replaced_as_the_standard_says_case_s05() -> None:
    body = chat({"content": "Hi?"}, finish="stop").replace(b"?", b"\xff")
    turn = read_turn(body, api="chat")
    assert (turn.text, turn.complete) == ("Hi\ufffd", True)


@pytest.mark.parametrize(
    "delta", [calls(call('{"x":"?"}', id="a", name="f")), {"extra_content": {"google": {"thought_signature": "?"}}}]
)
def test_invalid_bytes_in_what_must_be_exact_are_an_error_case_s05(delta: dict[str, Any]) -> None:
    turn = read_turn(chat(delta).replace(b"?", b"\xff"), api="chat")
    assert isinstance(turn.error, StreamError)
    assert "invalid UTF-8" in str(turn.error)
    assert (turn.calls, turn.provider) == ((), ())


def test_invalid_bytes_outside_of_texts_are_an_error_case_s05() -> None:
    (error,) = errors(b"data: {\xff}\n\n")
    assert "isn't JSON" in str(error)


def test_empty_data_and_pings_are_skipped_case_s06() -> None:
    turn = read_chat(b"data: \n\n", b"data\n\n", event({"type": "ping"}, "ping"), {"content": "Hi"}, finish="stop")
    assert (turn.text, turn.complete) == ("Hi", True)


@pytest.mark.parametrize("data", [b"null", b"1", b'"ping"', b"[]"])
def test_json_that_is_no_object_is_skipped(data: bytes) -> None:
    assert read_chat(b"data: " + data + b"\n\n", {"content": "Hi"}, finish="stop").complete


@pytest.mark.parametrize("data", [b"{", b'{"choices": [}', b"{'a': 1}", b"[" * 100_000])
def test_bad_json_is_an_error_case_s06(data: bytes) -> None:
    turn = read_chat({"content": "a"}, b"data: " + data + b"\n\n", {"content": "b"}, finish="stop")
    assert isinstance(turn.error, StreamError)
    assert "isn't JSON" in str(turn.error)
    assert (turn.error.retryable, turn.complete, turn.text) == (True, False, "ab")


def test_nan_and_raw_control_characters_are_read() -> None:
    body = b'data: {"choices":[{"delta":{"content":"a\tb"},"logprobs":NaN}]}\n\n'
    assert read_turn(body + chat(finish="stop"), api="chat").text == "a\tb"


def test_object_may_be_missing_case_s07() -> None:
    body = chat({"content": "Hi"}, finish="stop").replace(b'"object": "chat.completion.chunk", ', b"")
    assert b"object" not in body
    assert read_turn(body, api="chat").text == "Hi"


def test_id_of_the_chunk_may_change_case_s08() -> None:
    turn = read_chat(chunk({"content": "H"}, id="1"), chunk({"content": "i"}, id="2"), finish="stop")
    assert turn.text == "Hi"


def test_nothing_counts_behind_done() -> None:
    body = chat({"content": "Hi"}, finish="stop") + chunk({"content": "!"}) + b"data: {\n\n"
    assert read_turn(body, api="chat").text == "Hi"
    assert read_turn(body, api="chat").error is None
    assert read_turn(body.replace(b"[DONE]", b" [DONE] "), api="chat").text == "Hi"


# bodies that are none


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><body>Bad Gateway", "<html><body>Bad Gateway"),
        (b'{"error": {"message": "no such model", "code": 404}}', "no such model"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"x" * 5_000, "x" * 200),
    ],
)
def test_body_that_is_no_event_stream_says_what_it_is(body: bytes, said: str) -> None:
    for cuts in ((), range(1, min(len(body), 50))):
        turn = read_turn(body, api="chat", cuts=cuts)
        assert isinstance(turn.error, StreamError)
        assert "not an event stream" in str(turn.error)
        assert said in str(turn.error)
        assert len(str(turn.error)) < 250


def test_status_of_a_plain_error_is_read() -> None:
    (error,) = errors(b'{"error": {"message": "no such model", "code": 404}}')
    assert (error.status, error.retryable) == (404, False)


@pytest.mark.parametrize("body", [b"", b"da", b": hi\n\n", b"data: {", b"event: x\ndata: "])
def test_body_that_breaks_off_is_truncated(body: bytes) -> None:
    assert isinstance(read_turn(body, api="chat").error, StreamTruncated)


# characters cut in two


def test_halves_of_a_character_are_put_together() -> None:
    body = chat(
        {"content": "a\\ud83c"},
        {"reasoning": "b\\ud83c"},
        calls(call('{"x":"\\ud83c', id="a", name="f")),
        {"content": "\\udf89c"},
        {"reasoning": "\\udf89"},
        calls(call('\\udf89"}')),
    ).replace(b"\\\\u", b"\\u")
    assert b'"a\\ud83c"' in body
    turn = read_turn(body, api="chat")
    assert (turn.text, turn.thinking) == ("a🎉c", "b🎉")
    assert shown(turn) == [("f", {"x": "🎉"}, "sealed")]


def test_half_that_stays_alone_is_replaced_in_a_text() -> None:
    body = chat({"content": "a\\ud83c"}, {"content": "b\\udf89c\\ud83c"}, finish="stop").replace(b"\\\\u", b"\\u")
    assert read_turn(body, api="chat").text == "a\ufffdb\ufffdc\ufffd"
    assert read_turn(body.removesuffix(DONE), api="chat").text == "a\ufffdb\ufffdc\ufffd"


def test_half_that_stays_alone_is_an_error_in_a_call() -> None:
    body = chat(calls(call('{"x":"\\ud83c', id="a", name="f")), calls(call('"}'))).replace(b"\\\\u", b"\\u")
    turn = read_turn(body, api="chat")
    assert "half of a character" in str(turn.error)
    assert [made.state for made in turn.calls] == ["void"]


def test_deltas_come_in_the_order_of_their_fields() -> None:
    body = chunk({"content": "c", "reasoning": "r"}, "stop")
    assert read_deltas(ChatReader(), body)[:2] == [ThinkingDelta("r", "reasoning"), TextDelta("c")]
