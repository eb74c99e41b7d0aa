"""The Responses API, bytes to deltas and turns; P are the cases of the streams that servers send."""

from typing import Any

import pytest

from flowkit.assemble import Assembler, SealedCall, Turn
from flowkit.errors import StreamError, StreamTruncated
from flowkit.messages import Usage
from flowkit.models.base import CallDone, ProviderDelta
from flowkit.models.wire.responses import ResponsesReader
from flowkit.testing.streams import read_turn
from tests.bodies import event, read_deltas, responses, shown

Event = tuple[str, dict[str, Any]]


def added(index: int, **item: Any) -> Event:
    return "output_item.added", {"output_index": index, "item": item}


def ended(index: int, **item: Any) -> Event:
    return "output_item.done", {"output_index": index, "item": item}


def call_added(index: int, id: str = "a", name: str = "f") -> Event:
    return added(index, type="function_call", id=f"fc_{id}", call_id=id, name=name, arguments="")


def call_ended(index: int, arguments: str, id: str = "a", name: str = "f") -> Event:
    return ended(index, type="function_call", id=f"fc_{id}", call_id=id, name=name, arguments=arguments)


def arguments(index: int, delta: str, **fields: Any) -> Event:
    return "function_call_arguments.delta", {"output_index": index, "delta": delta, **fields}


def arguments_done(index: int, text: str, **fields: Any) -> Event:
    return "function_call_arguments.done", {"output_index": index, "arguments": text, **fields}


def said(index: int, delta: str, **fields: Any) -> Event:
    return "output_text.delta", {"output_index": index, "content_index": 0, "delta": delta, **fields}


def read(*events: Event, end: str | None = "completed", **response: Any) -> Turn:
    return read_turn(responses(*events, end=end, **response), api="responses")


X = ("f", {"x": 1}, "sealed")


def test_call_is_sealed_at_the_first_done_case_p01() -> None:
    reader, assembler = ResponsesReader(), Assembler()
    events = [
        call_added(0), arguments(0, '{"x"'), arguments(0, ":1}"), arguments_done(0, '{"x":1}'), call_ended(0, '{"x":1}')
    ]  # fmt: skip
    sealed_at = [
        place
        for place, one in enumerate(events)
        for delta in reader.feed(responses(one, end=None))
        for part in assembler.feed(delta)
        if isinstance(part, SealedCall)
    ]
    assert sealed_at == [3]
    assert shown(assembler.turn) == [X]


def test_item_done_seals_where_arguments_done_is_missing_case_p01() -> None:
    turn = read(call_added(0), arguments(0, '{"x":1}'), call_ended(0, '{"x":1}'), end=None)
    assert shown(turn) == [X]
    assert isinstance(turn.error, StreamTruncated)


def test_arguments_may_come_only_when_done_case_p02() -> None:
    assert shown(read(call_added(0), arguments_done(0, '{"x":1}'))) == [X]
    assert shown(read(call_added(0), call_ended(0, '{"x":1}'))) == [X]


def test_what_is_done_counts_more_than_the_deltas_when_it_is_an_object() -> None:
    assert shown(read(call_added(0), arguments(0, '{"x":2}'), arguments_done(0, '{"x":1}'))) == [X]
    assert shown(read(call_added(0), arguments(0, '{"x":1}'), arguments_done(0, ""))) == [X]
    assert shown(read(call_added(0), arguments(0, '{"x":1}'), arguments_done(0, "{"))) == [X]


def test_item_done_may_be_missing_and_the_snapshot_wrong_case_p03() -> None:
    body = responses(
        call_added(0),
        arguments(0, '{"x":1}'),
        arguments_done(0, '{"x":1}'),
        output=[{"type": "function_call", "name": "wrong"}],
    )
    assert shown(read_turn(body, api="responses")) == [X]


def test_both_dones_may_be_missing_case_p03() -> None:
    assert shown(read(call_added(0), arguments(0, '{"x":1}'))) == [X]


def test_name_may_be_empty_when_done_and_the_snapshot_empty_case_p04() -> None:
    assert shown(read(call_added(0), arguments(0, '{"x":1}'), call_ended(0, '{"x":1}', name=""))) == [X]


def test_call_that_was_never_added_is_known_by_its_item() -> None:
    assert shown(read(call_ended(0, '{"x":1}'))) == [X]


def test_ids_may_differ_in_every_event_case_p05() -> None:
    turn = read(
        ("created", {"response": {"id": "r1"}}),
        call_added(0, "a"),
        arguments(0, '{"x":', item_id="i1"),
        arguments(0, "1}", item_id="i2"),
        arguments_done(0, '{"x":1}', item_id="i3"),
        ended(0, type="function_call", id="i4", call_id="other", name="f", arguments='{"x":1}'),
    )
    assert shown(turn) == [X]
    assert turn.calls[0].id == "a"


def test_text_needs_no_part_before_it_case_p06() -> None:
    assert read(said(0, "H"), said(0, "i")).text == "Hi"


@pytest.mark.parametrize("first", [("queued", {"response": {}}), said(0, "")])
def test_any_event_may_come_first_case_p07(first: Event) -> None:
    assert read(first, said(0, "Hi")).text == "Hi"


@pytest.mark.parametrize(
    ("reason", "meant"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("else", "unknown"), (None, "unknown")],
)
def test_incomplete_answer_voids_what_is_open_case_p08(reason: str | None, meant: str) -> None:
    turn = read(
        call_added(0),
        arguments_done(0, '{"x":1}'),
        call_added(1, "b", "g"),
        arguments(1, '{"y":2}'),
        end="incomplete",
        incomplete_details={"reason": reason},
        usage={"input_tokens": 3, "output_tokens": 2},
    )
    assert shown(turn) == [X, ("g", {"y": 2}, "void")]
    assert (turn.finish_reason, turn.reason, turn.complete) == ("incomplete", meant, False)
    assert (turn.usage, turn.error) == (Usage(3, 2), None)


def text_done(index: int, text: str, part: int = 0, **fields: Any) -> Event:
    return "output_text.done", {"output_index": index, "content_index": part, "text": text, **fields}


def part_done(index: int, text: str, part: int = 0) -> Event:
    return "content_part.done", {
        "output_index": index, "content_index": part, "part": {"type": "output_text", "text": text}
    }  # fmt: skip


def message(*texts: str, id: str = "m") -> dict[str, Any]:
    return {"type": "message", "id": id, "content": [{"type": "output_text", "text": text} for text in texts]}


ENDS = {
    "text": [text_done(0, "Hello")],
    "part": [part_done(0, "Hello")],
    "item": [ended(0, **message("Hello"))],
    "all": [text_done(0, "Hello"), part_done(0, "Hello"), ended(0, **message("Hello"))],
    "last": [],
}


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("before", [[said(0, "Hel")], [said(0, "H"), said(0, "el")], [said(0, "Hello")], []])
@pytest.mark.parametrize("call", [[], [call_added(1), arguments_done(1, '{"x":1}'), call_ended(1, '{"x":1}')]])
def test_text_that_the_deltas_left_out_is_told_once(ends: str, before: list[Event], call: list[Event]) -> None:
    for output in ([message("Hello")], []):
        if ends == "last" and not output:
            continue
        turn = read(*before, *ENDS[ends], *call, output=output)
        assert (turn.text, shown(turn)) == ("Hello", [X] if call else [])


def test_a_rest_is_found_without_places_and_with_ids_that_change() -> None:
    def strip(event: Event, id: str) -> Event:
        return event[0], {"item_id": id, **{k: v for k, v in event[1].items() if k not in ("output_index", "item_id")}}

    events = [said(0, "H"), said(0, "el"), text_done(0, "Hello"), part_done(0, "Hello"), ended(0, **message("Hello"))]
    for ids in ("aaaaa", "abcde"):
        turn = read(*(strip(event, id) for event, id in zip(events, ids, strict=True)), output=[message("Hello")])
        assert turn.text == "Hello"


def test_a_later_part_and_a_later_message_that_no_delta_told_follow() -> None:
    assert read(said(0, "One"), ended(0, **message("One", " two"))).text == "One two"
    output = [message("One", id="m1"), message(" two", id="m2")]
    assert read(said(0, "One"), output=output).text == "One two"


def test_a_rest_that_has_no_place_any_more_is_left_out() -> None:
    turn = read(said(0, "On"), said(1, "two"), text_done(0, "One"), text_done(1, "two"))
    assert turn.text == "Ontwo"
    assert read(said(0, "Hlo"), text_done(0, "Hello"), output=[message("Hello")]).text == "Hlo"


def test_a_text_that_lost_a_piece_is_said_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    read(said(0, "Hel"), said(0, " world"), text_done(0, "Hello world"), ended(0, **message("Hello world")))
    assert caplog.messages == ["an answer lost some of its text on the way: a part of 11 characters arrived as 9"]


@pytest.mark.parametrize(
    "events",
    [
        (said(0, "Hi "), text_done(0, "Hi")),
        (said(0, "One"), said(1, "two"), text_done(0, "One"), text_done(1, "two")),
        (said(0, "O"), said(1, "t"), said(0, "ne"), said(1, "wo"), text_done(0, "One"), text_done(1, "two")),
    ],
)
def test_a_text_that_came_whole_says_nothing_in_the_log(
    events: tuple[Event, ...], caplog: pytest.LogCaptureFixture
) -> None:
    read(*events)
    assert not caplog.messages


def test_a_place_of_thinking_may_be_any_json() -> None:
    place: dict[str, Any] = {"output_index": [0], "summary_index": {}}
    delta: Event = ("reasoning_summary_text.delta", {**place, "delta": "Hm"})
    done: Event = ("reasoning_summary_text.done", {**place, "text": "Hmm"})
    turn = read(delta, done, said(1, "Hi"))
    assert turn.thinking == "Hmm"


def test_a_recording_that_was_shortened_says_what_its_deltas_say() -> None:
    events = [said(0, "Hel", sequence_number=0), text_done(0, "Hello", sequence_number=40)]
    assert read(*events, end=None).text == "Hel"
    events = [said(0, "Hel", sequence_number=0), text_done(0, "Hello", sequence_number=1)]
    assert read(*events, end=None).text == "Hello"


def test_the_rest_of_a_refusal_and_of_thinking_is_told_once() -> None:
    place = {"output_index": 0, "content_index": 0}
    refused = read(
        ("refusal.delta", {**place, "delta": "No"}),
        ("refusal.done", {**place, "refusal": "No way"}),
        ended(0, type="message", content=[{"type": "refusal", "refusal": "No way"}]),
    )
    assert refused.refusal == "No way"
    thought = {"output_index": 0, "summary_index": 0}
    turn = read(
        ("reasoning_summary_text.delta", {**thought, "delta": "Hm"}),
        ("reasoning_summary_text.done", {**thought, "text": "Hmm, so"}),
        ended(0, type="reasoning", id="r", summary=[{"type": "summary_text", "text": "Hmm, so"}]),
        said(1, "Hi"),
    )
    assert (turn.thinking, turn.text) == ("Hmm, so", "Hi")


def test_failed_answer_says_why_case_p09() -> None:
    turn = read(said(0, "Hel"), call_added(1), end="failed", error={"code": "server_error", "message": "sorry"})
    assert isinstance(turn.error, StreamError)
    assert (str(turn.error), turn.error.retryable, turn.text) == ("sorry", True, "Hel")
    assert (turn.finish_reason, turn.reason, turn.complete) == ("failed", "error", False)
    assert [made.state for made in turn.calls] == ["void"]


@pytest.mark.parametrize(
    "error",
    [
        event({"type": "error", "error": {"code": "insufficient_quota", "message": "no money"}}),
        event({"type": "error", "code": "insufficient_quota", "message": "no money"}),
        event({"error": {"message": "no money"}}),
        event({"message": "no money"}, "error"),
    ],
)
def test_error_event_is_an_error_case_p09(error: bytes) -> None:
    turn = read_turn(error, api="responses")
    assert isinstance(turn.error, StreamError)
    assert (str(turn.error), turn.complete) == ("no money", False)


def test_cancelled_answer_is_an_error() -> None:
    assert "cancelled" in str(read(said(0, "Hel"), end="cancelled").error)


def test_input_of_a_custom_call_is_free_text_case_p10() -> None:
    turn = read(
        added(0, type="custom_tool_call", id="ct", call_id="a", name="write_sql", input=""),
        ("custom_tool_call_input.delta", {"output_index": 0, "delta": "SELECT "}),
        ("custom_tool_call_input.delta", {"output_index": 0, "delta": "1"}),
        ("custom_tool_call_input.done", {"output_index": 0, "input": "SELECT 1"}),
        ended(0, type="custom_tool_call", id="ct", call_id="a", name="write_sql", input="SELECT 1"),
    )
    (made,) = turn.calls
    assert (made.name, made.arguments, made.raw, made.state, made.custom) == (
        "write_sql", None, "SELECT 1", "sealed", True,
    )  # fmt: skip


def test_hosted_items_are_passed_over_case_p11() -> None:
    turn = read(
        added(0, type="web_search_call", id="ws", call_id="x1"),
        ("web_search_call.searching", {"output_index": 0}),
        ("mcp_call_arguments.delta", {"output_index": 1, "delta": '{"q"'}),
        ("mcp_call_arguments.done", {"output_index": 1, "arguments": '{"q":1}'}),
        ("code_interpreter_call_code.delta", {"output_index": 2, "delta": "import"}),
        ended(0, type="web_search_call", id="ws", call_id="x2", status="completed"),
        call_added(7),
        arguments_done(7, '{"x":1}'),
    )
    assert shown(turn) == [X]
    assert (turn.calls[0].index, turn.provider) == (0, ())


def test_type_may_stand_in_the_data_or_on_the_event_case_p12() -> None:
    body = event({"output_index": 0, "delta": "Hi"}, "response.output_text.delta") + event(
        {"response": {}}, "response.completed"
    )
    assert read_turn(body, api="responses").text == "Hi"


def test_several_messages_are_joined_and_their_phases_kept_case_p13() -> None:
    turn = read(
        said(0, "Got it"),
        ended(0, type="message", id="m0", phase="commentary", content=[{"type": "output_text", "text": "Got it"}]),
        said(1, "Here"),
        ended(1, type="message", id="m1", phase="final_answer", content=[{"type": "output_text", "text": "Here"}]),
    )
    assert turn.text == "Got itHere"
    assert turn.provider == (
        ProviderDelta("message", {"id": "m0", "phase": "commentary", "text": "Got it"}),
        ProviderDelta("message", {"id": "m1", "phase": "final_answer", "text": "Here"}),
    )


def test_text_that_comes_only_when_done_is_read_once() -> None:
    done = ("output_text.done", {"output_index": 0, "content_index": 0, "text": "Hi"})
    item = ended(0, type="message", content=[{"type": "output_text", "text": "Hi"}])
    assert read(done, item).text == "Hi"
    assert read(item).text == "Hi"
    assert read(said(0, "Hi"), done, item).text == "Hi"


def test_refusal_has_its_own_text() -> None:
    refused = ended(0, type="message", content=[{"type": "refusal", "refusal": "No"}])
    turn = read(("refusal.delta", {"output_index": 0, "delta": "No"}), refused)
    assert (turn.text, turn.refusal) == ("", "No")
    assert read(refused).refusal == "No"
    assert read(("refusal.done", {"output_index": 0, "refusal": "No"}), refused).refusal == "No"


def test_items_that_go_back_are_kept_in_order_case_p14() -> None:
    first: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "E1"}
    second: dict[str, Any] = {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "b"}]}
    compaction: dict[str, Any] = {"type": "compaction", "id": "c", "encrypted_content": "E2"}
    turn = read(
        ended(0, **first),
        call_added(1),
        call_ended(1, '{"x":1}'),
        ended(2, **second),
        ended(3, **compaction),
        call_added(4, "b"),
        call_ended(4, '{"x":1}', "b"),
    )
    assert turn.provider == (
        ProviderDelta("reasoning", first),
        ProviderDelta("function_call", {"id": "fc_a", "call_id": "a"}),
        ProviderDelta("reasoning", second),
        ProviderDelta("compaction", compaction),
        ProviderDelta("function_call", {"id": "fc_b", "call_id": "b"}),
    )


def test_parts_of_thinking_are_joined_by_an_empty_line() -> None:
    def thought(index: int, part: int, delta: str, kind: str = "reasoning_summary_text") -> Event:
        place = "summary_index" if "summary" in kind else "content_index"
        return f"{kind}.delta", {"output_index": index, place: part, "delta": delta}

    turn = read(thought(0, 0, "a"), thought(0, 0, "b"), thought(0, 1, "c"), thought(1, 0, "d"), said(2, "Hi"))
    assert (turn.thinking, turn.text) == ("ab\n\nc\n\nd", "Hi")
    assert read(thought(0, 0, "a", "reasoning_text"), thought(0, 0, "b", "reasoning_text")).thinking == "ab"


def test_usage_is_read() -> None:
    usage = {
        "input_tokens": 9,
        "output_tokens": 4,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    assert read(said(0, "Hi"), usage=usage).usage == Usage(9, 4, 3, 2)


def test_body_that_just_ends_is_truncated() -> None:
    turn = read(said(0, "Hel"), call_added(1), arguments(1, '{"x":1}'), end=None)
    assert isinstance(turn.error, StreamTruncated)
    assert shown(turn) == [("f", {"x": 1}, "void")]


def test_arguments_may_be_an_object_when_done() -> None:
    (done,) = read_deltas(ResponsesReader(), responses(("function_call_arguments.done", {
        "output_index": 0, "arguments": {"x": 1}, "name": "f",
    }), end=None))  # fmt: skip
    assert done == CallDone(0, '{"x":1}', "f")


@pytest.mark.parametrize(
    "fields",
    [{}, {"output_index": None}, {"output_index": "0"}, {"item": None}, {"item": []}, {"delta": None}, {"delta": 1}],
)
@pytest.mark.parametrize(
    "kind",
    [
        "output_text.delta", "function_call_arguments.delta", "function_call_arguments.done", "output_item.added",
        "output_item.done", "reasoning_summary_text.delta", "custom_tool_call_input.done", "refusal.done", "new.kind",
    ],
)  # fmt: skip
def test_events_that_lack_their_fields_do_no_harm(kind: str, fields: dict[str, Any]) -> None:
    turn = read((kind, fields), said(0, "Hi"), call_added(1), arguments_done(1, '{"x":1}'))
    assert (turn.text, turn.complete) == ("Hi", True)
    assert X in shown(turn)


def test_an_item_that_is_done_twice_goes_back_once() -> None:
    reasoning = ended(0, type="reasoning", id="rs_1", encrypted_content="E")
    message = ended(1, type="message", id="msg_1", content=[{"type": "output_text", "text": "Hi"}])
    turn = read(reasoning, reasoning, message, message)
    assert [item.kind for item in turn.provider] == ["reasoning", "message"]
    assert turn.text == "Hi"


def test_an_item_that_was_told_is_not_told_again_by_the_snapshot() -> None:
    item = {"type": "reasoning", "id": "rs_1", "encrypted_content": "E"}
    turn = read(ended(3, **item), output=[item])
    assert len(turn.provider) == 1


@pytest.mark.parametrize("pieces", [["On", "e."], []])
def test_text_is_said_once_where_no_event_has_an_index_and_each_another_id(pieces: list[str]) -> None:
    part = {"type": "output_text", "text": "One."}
    turn = read(
        ("output_item.added", {"item": {"type": "message", "id": "a"}}),
        *(("output_text.delta", {"item_id": f"b{n}", "delta": piece}) for n, piece in enumerate(pieces)),
        ("output_text.done", {"item_id": "c", "text": "One."}),
        ("content_part.done", {"item_id": "d", "part": part}),
        ("output_item.done", {"item": {"type": "message", "id": "e", "content": [part]}}),
    )
    assert turn.text == "One."


@pytest.mark.parametrize("text", ["Two.", "One."])
def test_items_without_an_index_that_follow_each_other_both_speak(text: str) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "One."}]}
    turn = read(
        ("output_text.delta", {"item_id": "a", "delta": "One."}),
        ("output_item.done", {"item": {**message, "id": "a"}}),
        ("output_text.done", {"item_id": "b", "text": text}),
    )
    assert turn.text == f"One.{text}"


def test_item_without_an_index_that_says_something_else_at_its_end_is_read() -> None:
    assert (
        read(
            ("output_text.delta", {"item_id": "a", "delta": "One."}),
            ("output_text.done", {"item_id": "b", "text": "Two."}),
        ).text
        == "One.Two."
    )


def test_text_whose_events_name_no_item_is_said_once() -> None:
    turn = read(
        ("output_text.delta", {"delta": "H"}),
        ("output_text.delta", {"delta": "i"}),
        ("output_text.done", {"text": "Hi"}),
        ("output_item.done", {"item": {"type": "message", "content": [{"text": "Hi"}]}}),
    )
    assert turn.text == "Hi"


@pytest.mark.parametrize("status", [{}, [], {"a": 1}, 3])
def test_a_status_that_is_no_word_does_no_harm(status: Any) -> None:
    assert read(call_added(0), ended(0, type="function_call", arguments='{"x":1}', status=status)).calls


def test_all_parts_of_a_message_are_read_where_none_of_them_came_in_pieces() -> None:
    parts = [{"type": "output_text", "text": "One. "}, {"type": "output_text", "text": "Two."}]
    assert read(added(0, type="message"), ended(0, type="message", content=parts)).text == "One. Two."


def test_a_part_without_deltas_is_read_beside_one_that_had_them() -> None:
    turn = read(
        added(0, type="message"),
        ("output_text.delta", {"output_index": 0, "content_index": 0, "delta": "One. "}),
        ("output_text.done", {"output_index": 0, "content_index": 0, "text": "One. "}),
        ("output_text.done", {"output_index": 0, "content_index": 1, "text": "Two."}),
        ("content_part.done", {"output_index": 0, "content_index": 1, "part": {"type": "output_text", "text": "Two."}}),
    )
    assert turn.text == "One. Two."


def test_a_text_whose_end_names_another_place_than_its_deltas_is_said_once() -> None:
    turn = read(
        added(0, type="message"),
        ("output_text.delta", {"output_index": 0, "content_index": 0, "delta": "One."}),
        ("output_text.done", {"output_index": 0, "content_index": 1, "text": "One."}),
    )
    assert turn.text == "One."
