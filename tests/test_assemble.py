"""Which call a fragment belongs to, and when a call is sealed; T and F are the cases of the streams that servers send."""

import json
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.assemble import (
    Assembler,
    CallFragment,
    CallOpened,
    CallReady,
    CallVoided,
    Part,
    SealedCall,
    Turn,
)
from flowkit.assemble.calls import MAX_CALLS
from flowkit.codec import JSON
from flowkit.errors import ModelError, StreamError, StreamTruncated
from flowkit.models.base import (
    CallDelta,
    CallDone,
    Delta,
    EndDelta,
    ErrorDelta,
    FinishDelta,
    ProviderDelta,
    TextDelta,
)
from tests.bodies import call, calls, chunk, event, read_chat, shown
from tests.example_counts import examples


def assemble(*deltas: Delta, known: tuple[str, ...] = (), taken: tuple[str, ...] = ()) -> tuple[list[Part], Turn]:
    """The parts and the turn of these deltas; the body ends behind them."""
    assembler = Assembler(known, taken=taken)
    parts = [part for delta in deltas for part in assembler.feed(delta)]
    parts += assembler.end()
    return parts, assembler.turn


X = ("f", {"x": 1}, "sealed")
Y = ("g", {"y": 2}, "sealed")


# which call: index, id, name


def test_index_that_is_used_again_for_another_call_case_t01() -> None:
    turn = read_chat(
        calls(call('{"x":1}', id="a", name="f")),
        calls(call('{"y":2}', id="b", name="g")),
        calls(call('{"y":3}', id="c", name="g")),
        calls(call('{"y":3}', id="d", name="g")),
    )
    assert shown(turn) == [X, Y, ("g", {"y": 3}, "sealed"), ("g", {"y": 3}, "sealed")]
    assert [made.id for made in turn.calls] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("index", [..., None], ids=["T02 missing", "T03 null"])
def test_index_may_be_missing_or_null_case_t02_t03(index: Any) -> None:
    whole = read_chat(
        calls(call('{"x":1}', index=index, id="a", name="f")), calls(call('{"y":2}', index=index, id="b", name="g"))
    )
    assert shown(whole) == [X, Y]
    pieces = read_chat(
        calls(call("", index=index, id="a", name="f")),
        calls(call('{"x":', index=index)),
        calls(call("1}", index=index)),
        calls(call(index=index, id="b", name="g")),
        calls(call('{"y":', index=index, id="b")),
        calls(call("2}", index=index, id="b", name="g")),
    )
    assert shown(pieces) == [X, Y]


def test_without_index_and_id_a_name_begins_a_call_case_t02() -> None:
    turn = read_chat(
        calls(call('{"x":', index=..., name="f")),
        calls(call("1}", index=..., name="f")),
        calls(call('{"y":2}', index=..., name="g")),
    )
    assert shown(turn) == [X, Y]


def test_without_index_another_name_under_a_used_id_begins_a_call() -> None:
    turn = read_chat(
        calls(call('{"x":1}', index=..., id="a", name="f")), calls(call('{"y":2}', index=..., id="a", name="g"))
    )
    assert shown(turn) == [X, Y]


@pytest.mark.parametrize(("first", "second"), [(1, 2), (7, 3)])
def test_index_may_begin_anywhere_and_order_is_arrival_case_t04(first: int, second: int) -> None:
    turn = read_chat(
        calls(call("", index=first, id="a", name="f")),
        calls(call("", index=second, id="b", name="g")),
        calls(call('{"x":1}', index=first)),
        calls(call('{"y":2}', index=second)),
    )
    assert shown(turn) == [X, Y]


def test_one_delta_may_hold_two_fragments_of_a_call_case_t05() -> None:
    turn = read_chat(calls(call(id="a", name="f"), call('{"x":')), calls(call("1"), call("}")))
    assert shown(turn) == [X]


def test_fragments_of_two_calls_may_alternate_case_t06() -> None:
    turn = read_chat(
        calls(call('{"x"', id="a", name="f")),
        calls(call('{"y"', index=1, id="b", name="g")),
        calls(call(":1")),
        calls(call(":2", index=1)),
        calls(call("}")),
        calls(call("}", index=1)),
    )
    assert shown(turn) == [X, Y]


def test_whole_calls_may_come_in_one_delta_case_t07() -> None:
    turn = read_chat(calls(call('{"x":1}', id="a", name="f"), call('{"y":2}', index=1, id="b", name="g")))
    assert shown(turn) == [X, Y]


@pytest.mark.parametrize("nothing", ["", None], ids=["T08 empty", "T09 null"])
def test_empty_and_null_fields_are_absent_case_t08_t09(nothing: str | None) -> None:
    turn = read_chat(
        calls(call(None, id="a", name="f")),
        calls(call('{"x":', id=nothing, name=nothing, type=nothing)),
        calls(call("1}", id=nothing, name=nothing, type=nothing)),
        calls({"index": 0, "id": nothing, "type": nothing, "function": {"name": nothing, "arguments": nothing}}),
        calls({"index": 0, "function": None}),
    )
    assert shown(turn) == [X]
    assert turn.calls[0].id == "a"


def test_id_and_name_may_be_repeated_case_t10() -> None:
    turn = read_chat(
        calls(call("", id="a", name="f")), calls(call('{"x":', id="a", name="f")), calls(call("1}", id="a", name="f"))
    )
    assert shown(turn) == [X]


@pytest.mark.parametrize("index", [0, ...])
def test_the_first_id_counts_where_each_delta_has_another_case_t11(index: Any) -> None:
    turn = read_chat(
        calls(call("", index=index, id="a", name="f")),
        calls(call('{"x":', index=index, id="zz1")),
        calls(call("1}", index=index, id="zz2")),
    )
    assert shown(turn) == [X]
    assert turn.calls[0].id == "a"


def test_new_id_with_the_same_name_goes_on_while_arguments_are_open_case_t11() -> None:
    turn = read_chat(
        calls(call("", id="a", name="f")), calls(call('{"x":', id="z1", name="f")), calls(call("1}", id="z2", name="f"))
    )
    assert shown(turn) == [X]


def test_id_may_come_late_or_never_case_t12() -> None:
    late = read_chat(calls(call("", name="f")), calls(call('{"x":', id="a")), calls(call("1}")))
    assert (shown(late), late.calls[0].id) == ([X], "a")
    never = read_chat(calls(call("", name="f")), calls(call('{"x":1}')), calls(call('{"y":2}', index=1, name="g")))
    assert shown(never) == [X, Y]
    assert [made.wire_id for made in never.calls] == [None, None]
    assert len({made.id for made in never.calls}) == 2


def test_name_may_come_behind_the_arguments_case_t12() -> None:
    parts, turn = assemble(CallDelta(0, "a", arguments='{"x":1}'), CallDelta(0, name="f"), FinishDelta("stop"))
    assert shown(turn) == [X]
    assert parts[:3] == [CallOpened(0, "f"), CallFragment(0, '{"x":1}'), CallReady(0, "f", {"x": 1})]


def test_shared_and_used_ids_are_made_unique_case_t13() -> None:
    deltas = [CallDelta(0, "a", "f", "{}"), CallDelta(1, "a", "g", "{}"), CallDelta(2, "old", "g", '{"y":2}')]
    _, turn = assemble(*deltas, FinishDelta("stop"), taken=("old", "call00002"))
    assert [made.id for made in turn.calls] == ["a", "call00003", "call00004"]
    assert [made.wire_id for made in turn.calls] == ["a", "a", "old"]


def test_the_text_null_is_no_id_and_made_up_ids_suit_mistral_case_t14() -> None:
    turn = read_chat(calls(call('{"x":1}', id="null", name="f")))
    assert shown(turn) == [X]
    assert turn.calls[0].id.isalnum()
    assert len(turn.calls[0].id) == 9


@pytest.mark.parametrize("id", ["functions.get_weather:0", "toolu_01", "0", "8a9b7c6d5"])
def test_ids_are_echoed_as_they_are_case_t15(id: str) -> None:
    assert read_chat(calls(call("{}", id=id, name="f"))).calls[0].id == id


def test_names_are_cleaned_by_what_is_known_case_t16() -> None:
    parts, turn = assemble(CallDelta(0, "a", "functions.f", '{"x":1}'), FinishDelta("stop"), known=("f", "g"))
    assert shown(turn) == [X]
    assert CallOpened(0, "f") in parts
    _, unknown = assemble(CallDelta(0, "a", "functions.f", '{"x":1}'), FinishDelta("stop"))
    assert unknown.calls[0].name == "functions.f"


def test_wrapper_of_parallel_calls_is_opened_case_t16() -> None:
    uses = [
        {"recipient_name": "functions.f", "parameters": {"x": 1}},
        {"recipient_name": "functions.g", "parameters": {"y": 2}},
    ]
    text = json.dumps({"tool_uses": uses})
    deltas = [CallDelta(0, "w", "multi_tool_use.parallel", text[:9]), CallDelta(0, arguments=text[9:])]
    parts, turn = assemble(*deltas, FinishDelta("stop"), known=("f", "g"))
    assert shown(turn) == [X, Y]
    assert turn.calls[0].id == "w"
    assert [type(part) for part in parts] == [CallOpened, CallFragment, SealedCall] * 2
    _, wire = assemble(*deltas, FinishDelta("stop"))
    assert [made.name for made in wire.calls] == ["multi_tool_use.parallel"]


def test_wrapper_that_is_cut_off_is_void() -> None:
    parts, turn = assemble(CallDelta(0, "w", "parallel", '{"tool_uses":['), FinishDelta("length"), known=("f",))
    assert [made.state for made in turn.calls] == ["void"]
    assert parts == []


def test_broken_wrapper_is_a_call_like_any_other() -> None:
    parts, turn = assemble(CallDelta(0, "w", "parallel", '{"x":1}'), FinishDelta("stop"), known=("f",))
    assert shown(turn) == [("parallel", {"x": 1}, "sealed")]
    assert [type(part) for part in parts] == [CallOpened, CallFragment, SealedCall]


@pytest.mark.parametrize("pieces", [("get_", "weather"), ("get_", "get_weather"), ("get_weather", "get_weather")])
def test_name_may_come_in_pieces_before_the_arguments_case_t18(pieces: tuple[str, ...]) -> None:
    turn = read_chat(
        calls(call(id="a", name=pieces[0])),
        calls(call('{"x":', name=pieces[1])),
        calls(call("1}", name="other")),
    )
    assert shown(turn) == [("get_weather", {"x": 1}, "sealed")]


# what the arguments mean


@pytest.mark.parametrize("arguments", ["", None, {}, "{}"])
def test_call_without_arguments_gets_an_empty_object_case_t19(arguments: Any) -> None:
    turn = read_chat(calls(call(arguments, id="a", name="f")))
    assert shown(turn) == [("f", {}, "sealed")]
    assert turn.calls[0].raw == "{}"


def test_arguments_may_be_an_object_case_t20() -> None:
    assert shown(read_chat(calls(call({"x": 1}, id="a", name="f")))) == [X]


def test_placeholder_is_no_signal_case_t21() -> None:
    parts, turn = assemble(
        CallDelta(0, "a", "f", "{}"), CallDelta(0, arguments='{"x":'), CallDelta(0, arguments="1}"), FinishDelta("stop")
    )
    assert shown(turn) == [X]
    assert not any(isinstance(part, CallReady) for part in parts)


def test_cumulative_arguments_case_t22() -> None:
    pieces = ['{"x":', '{"x":1', '{"x":1}']
    parts, turn = assemble(*(CallDelta(0, "a", "f", piece) for piece in pieces), FinishDelta("stop"))
    assert shown(turn) == [X]
    assert not any(isinstance(part, CallReady) for part in parts)


def test_arguments_sent_again_count_once_case_t23() -> None:
    parts, turn = assemble(
        CallDelta(0, "a", "f", '{"x":'),
        CallDelta(0, arguments="1}"),
        CallDelta(0, arguments='{"x":1}'),
        CallDelta(0, name="f", arguments='{"x":1}{"x":1}'),
        FinishDelta("stop"),
    )
    assert shown(turn) == [X]
    assert [part for part in parts if isinstance(part, CallReady)] == [CallReady(0, "f", {"x": 1})]


def test_last_piece_may_repeat_all_and_end_the_turn_case_t24() -> None:
    turn = read_chat(
        calls(call('{"x":', id="a", name="f")), chunk(calls(call("1}", id="a", name="f")), "tool_calls"), finish=None
    )
    assert shown(turn) == [X]


def test_lost_brace_is_told_and_not_repaired_case_t25() -> None:
    parts, turn = assemble(CallDelta(0, "a", "f", '{"x":1'), FinishDelta("tool_calls"))
    assert shown(turn) == [("f", None, "invalid")]
    sealed = parts[-1]
    assert isinstance(sealed, SealedCall)
    assert sealed.arguments is None
    assert "aren't JSON" in (sealed.error or "")


def test_second_call_glued_to_the_first_becomes_its_own_case_t26() -> None:
    parts, turn = assemble(
        CallDelta(0, "a", "f", '{"x":1}'), CallDelta(0, arguments='{"y":2}'), FinishDelta("tool_calls")
    )
    assert shown(turn) == [X, ("f", {"y": 2}, "sealed")]
    assert [type(part) for part in parts[-3:]] == [CallOpened, CallFragment, SealedCall]
    assert turn.calls[0].id == "a"
    assert turn.calls[1].id not in ("", "a")


def test_second_call_with_a_name_and_without_id_is_its_own_case_t26() -> None:
    turn = read_chat(calls(call('{"x":1}', id="a", name="f")), calls(call('{"y":2}', name="g")))
    assert shown(turn) == [X, Y]


def test_json_in_json_case_t27() -> None:
    assert shown(read_chat(calls(call(json.dumps('{"x":1}'), id="a", name="f")))) == [X]


@pytest.mark.parametrize(
    ("arguments", "state"),
    [('{"x":"a\nb"}', "sealed"), ('{"x":NaN}', "invalid"), ("[1]", "invalid"), ("1", "invalid"), ('"a"', "invalid")],
)
def test_lenient_only_where_it_is_safe_case_t28(arguments: str, state: str) -> None:
    assert [made.state for made in read_chat(calls(call(arguments, id="a", name="f"))).calls] == [state]


def test_type_may_be_missing_case_t29() -> None:
    assert shown(read_chat(calls(call('{"x":1}', id="a", name="f", type=...)))) == [X]


def test_input_of_a_custom_call_is_free_text_case_t30() -> None:
    def custom(**fields: str) -> dict[str, Any]:
        return {"index": 0, "type": "custom", "id": "a", "custom": fields}

    turn = read_chat(calls(custom(name="f", input="")), calls(custom(input='{"x"')), calls(custom(input=":")))
    (made,) = turn.calls
    assert (made.name, made.arguments, made.raw, made.state, made.custom) == ("f", None, '{"x":', "sealed", True)


def test_old_function_call_is_one_call_without_id_case_t31() -> None:
    turn = read_chat(
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"name": "f", "arguments": '{"x":'}},
        {"function_call": {"arguments": "1}"}},
        finish="function_call",
    )
    assert shown(turn) == [X]
    assert (turn.finish_reason, turn.reason, turn.complete) == ("function_call", "tool_calls", True)


def test_thought_signature_is_kept_for_its_call_case_t32() -> None:
    extra: JSON = {"google": {"thought_signature": "S"}}
    parts = calls(call('{"x":1}', id="a", name="f", extra_content=extra), call('{"y":2}', index=1, id="b", name="g"))
    turn = read_chat(parts)
    assert [made.provider for made in turn.calls] == [ProviderDelta("extra_content", extra), None]


def test_call_without_a_name_is_told() -> None:
    parts, turn = assemble(CallDelta(0, "a", arguments='{"x":1}'), FinishDelta("stop"))
    assert shown(turn) == [("", None, "invalid")]
    assert turn.calls[0].error == "the call has no name"
    assert isinstance(parts[-1], SealedCall)


def test_fragment_that_nothing_names_goes_to_the_one_open_call() -> None:
    turn = read_chat(calls(call('{"x":', id="a", name="f")), calls(call("1}", index=5)))
    assert shown(turn) == [X]


def test_turn_has_a_bound_on_its_calls() -> None:
    _, turn = assemble(
        *(CallDelta(index, f"{index}", "f", "{}") for index in range(MAX_CALLS + 5)), FinishDelta("stop")
    )
    assert len(turn.calls) == MAX_CALLS
    assert isinstance(turn.error, StreamError)
    assert {made.state for made in turn.calls} == {"void"}


def test_calls_that_are_done_at_once_have_the_bound_too() -> None:
    _, turn = assemble(*(CallDone(slot, "{}", "f") for slot in range(MAX_CALLS + 5)), FinishDelta("stop"))
    assert len(turn.calls) == MAX_CALLS
    assert isinstance(turn.error, StreamError)


@pytest.mark.parametrize("name", ["f", "parallel"])
def test_calls_found_inside_others_have_the_bound_too(name: str) -> None:
    glued = "".join(f'{{"x":{number}}}' for number in range(30))
    use = '{"name":"f","parameters":{}}'
    text = glued if name == "f" else f'{{"tool_uses":[{",".join([use] * 30)}]}}'
    deltas = [CallDelta(slot, f"{slot}", name, text) for slot in range(50)]
    _, turn = assemble(*deltas, FinishDelta("stop"), known=("f",))
    assert MAX_CALLS - 30 < len(turn.calls) <= MAX_CALLS
    assert turn.calls[-1].index > 50, "some were told apart"


# how a turn ends


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "function_call"])
def test_calls_are_sealed_whatever_good_reason_is_given_case_f01(finish: str) -> None:
    turn = read_chat(calls(call('{"x":1}', id="a", name="f")), finish=finish)
    assert (shown(turn), turn.finish_reason, turn.complete) == ([X], finish, True)


def test_reason_may_come_with_the_last_piece_case_f02() -> None:
    turn = read_chat(chunk({"content": "Hi", **calls(call('{"x":1}', id="a", name="f"))}, "tool_calls"), finish=None)
    assert (turn.text, shown(turn)) == ("Hi", [X])


def test_end_mark_alone_seals_what_is_valid_case_f03() -> None:
    turn = read_chat(calls(call('{"x":1}', id="a", name="f")), finish=None)
    assert (shown(turn), turn.finish_reason, turn.reason) == ([X], None, "unknown")
    assert (turn.error, turn.complete) == (None, True)


def test_end_mark_alone_seals_nothing_that_is_still_open_case_f03() -> None:
    turn = read_chat(calls(call('{"x":1}', id="a", name="f"), call('{"y":', index=1, id="b", name="g")), finish=None)
    assert [made.state for made in turn.calls] == ["sealed", "void"]
    assert isinstance(turn.error, StreamTruncated)


def test_end_mark_alone_leaves_a_text_usable_but_not_known_to_be_whole_case_f03() -> None:
    turn = read_chat({"content": "Hi"}, finish=None)
    assert (turn.text, turn.error, turn.complete) == ("Hi", None, False)


def test_repeated_reason_seals_once_case_f04() -> None:
    parts, turn = assemble(
        CallDelta(0, "a", "f", '{"x":1}'), FinishDelta("tool_calls"), FinishDelta("tool_calls"), EndDelta(), EndDelta()
    )
    assert shown(turn) == [X]
    assert len([part for part in parts if isinstance(part, SealedCall)]) == 1


@pytest.mark.parametrize("finish", ["length", "content_filter", "error", "who knows"])
def test_after_a_bad_end_every_open_call_is_void_case_f05(finish: str) -> None:
    turn = read_chat(
        calls(call('{"x":1}', id="a", name="f")), calls(call('{"y"', index=1, id="b", name="g")), finish=finish
    )
    assert shown(turn) == [("f", {"x": 1}, "void"), ("g", None, "void")]
    assert (turn.finish_reason, turn.complete) == (finish, False)
    assert turn.reason == ("unknown" if finish == "who knows" else finish)


def test_void_call_says_why() -> None:
    parts, _ = assemble(CallDelta(0, "a", "f", '{"x":1}'), FinishDelta("length", wire="length"))
    assert parts[-1] == CallVoided(0, "the answer ended with 'length' before this call did")
    parts, _ = assemble(CallDelta(0, "a", "f", '{"x":1}'), ErrorDelta(ModelError("gone")))
    assert parts[-1] == CallVoided(0, "gone")


def test_reason_without_end_mark_is_enough_case_f06() -> None:
    turn = read_chat(calls(call('{"x":1}', id="a", name="f")), done=False)
    assert (shown(turn), turn.complete) == ([X], True)


def test_body_that_just_ends_is_truncated_case_f07() -> None:
    turn = read_chat({"content": "Hi"}, calls(call('{"x":1}', id="a", name="f")), finish=None, done=False)
    assert shown(turn) == [("f", {"x": 1}, "void")]
    assert isinstance(turn.error, StreamTruncated)
    assert (turn.error.retryable, turn.complete, turn.text, turn.reason) == (True, False, "Hi", "error")


def test_last_event_without_empty_line_counts_case_f08() -> None:
    body = chunk(calls(call('{"x":1}', id="a", name="f"))) + chunk({}, "tool_calls").rstrip()
    turn = read_chat(body, finish=None, done=False)
    assert (shown(turn), turn.complete) == ([X], True)


def test_transport_error_voids_what_is_open() -> None:
    assembler = Assembler()
    assembler.feed(CallDelta(0, "a", "f", '{"x":1}'))
    assert assembler.end(ModelError("reset")) == [CallVoided(0, "reset")]
    assert str(assembler.turn.error) == "reset"
    assert assembler.end() == []


def test_what_comes_behind_a_good_end_does_not_break_it() -> None:
    parts, turn = assemble(
        CallDelta(0, "a", "f", '{"x":1}'),
        FinishDelta("tool_calls"),
        CallDelta(0, arguments='{"x":2}'),
        FinishDelta("length"),
        ErrorDelta(ModelError("late")),
    )
    assert shown(turn) == [X]
    assert (turn.error, turn.complete, turn.reason) == (None, True, "tool_calls")
    assert isinstance(parts[-1], SealedCall)


def test_call_behind_a_good_end_is_sealed_at_the_end() -> None:
    _, turn = assemble(FinishDelta("tool_calls"), CallDelta(0, "a", "f", '{"x":1}'), EndDelta())
    assert shown(turn) == [X]


def test_call_behind_a_good_end_is_void_without_a_signal_of_its_own() -> None:
    _, turn = assemble(FinishDelta("tool_calls"), CallDelta(0, "a", "f", '{"x":1}'))
    assert [made.state for made in turn.calls] == ["void"]
    _, cut = assemble(FinishDelta("tool_calls"), CallDelta(0, "a", "f", '{"x":1'), EndDelta())
    assert [made.state for made in cut.calls] == ["void"]


def test_call_behind_the_end_mark_is_void() -> None:
    parts, _ = assemble(EndDelta(), CallDelta(0, "a", "f", '{"x":1}'))
    assert parts[-1] == CallVoided(0, "the answer had already ended")


def test_reason_behind_each_call_seals_each() -> None:
    first, second = CallDelta(0, "a", "f", '{"x":1}'), CallDelta(0, "b", "g", '{"y":2}')
    _, turn = assemble(first, FinishDelta("tool_calls"), second, FinishDelta("tool_calls"))
    assert shown(turn) == [X, Y]
    _, cut = assemble(first, FinishDelta("tool_calls"), second, FinishDelta("length"))
    assert [made.state for made in cut.calls] == ["sealed", "void"]


def test_call_behind_an_error_is_void() -> None:
    _, turn = assemble(ErrorDelta(ModelError("gone")), CallDelta(0, "a", "f", '{"x":1}'), FinishDelta("stop"))
    assert [made.state for made in turn.calls] == ["void"]


def test_done_of_the_wire_seals_before_a_bad_end() -> None:
    parts, turn = assemble(
        CallDelta(0, "a", "f", '{"x":1}'),
        CallDone(0, '{"x":1}'),
        CallDelta(1, "b", "g", '{"y":2}'),
        FinishDelta("length"),
    )
    assert [made.state for made in turn.calls] == ["sealed", "void"]
    assert [type(part) for part in parts] == [
        CallOpened, CallFragment, CallReady, SealedCall, CallOpened, CallFragment, CallReady, CallVoided,
    ]  # fmt: skip


def test_done_seals_once_and_nothing_changes_it() -> None:
    parts, turn = assemble(
        CallDelta(0, "a", "f", '{"x":1}'), CallDone(0), CallDone(0, '{"x":2}'), CallDelta(0, arguments="!"), EndDelta()
    )
    assert shown(turn) == [X]
    assert len([part for part in parts if isinstance(part, SealedCall)]) == 1


def test_done_without_a_call_is_passed_over() -> None:
    assert assemble(CallDone(0, "{}"), FinishDelta("stop"))[1].calls == ()


# the soft signal


def test_ready_comes_once_at_the_closing_brace() -> None:
    assembler = Assembler()
    pieces = ["", " ", '{"a": {"b": "}', '"}', ', "c": [1', "]", " } ", "\n"]
    parts = [part for piece in pieces for part in assembler.feed(CallDelta(0, "a", "f", piece or None))]
    assert [part for part in parts if isinstance(part, CallReady)] == [CallReady(0, "f", {"a": {"b": "}"}, "c": [1]})]
    assert "".join(part.fragment for part in parts if isinstance(part, CallFragment)) == "".join(pieces)


@pytest.mark.parametrize("text", ["{}", " { } ", "[1]", "1", "null", '{"a":1]', '{"a":1}}', '{"a":1}{"b":2}', '"{}"'])
def test_nothing_else_is_ready(text: str) -> None:
    parts, _ = assemble(CallDelta(0, "a", "f", text))
    assert not any(isinstance(part, CallReady) for part in parts)


@pytest.mark.parametrize("fragment", ["word ", "}", '"}, {"', "\\\\"])
def test_json_is_not_parsed_for_each_fragment(fragment: str) -> None:
    parsed: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name in ("decode", "raw_decode"):
            parsed.append(frame.f_code.co_name)

    pieces = ['{"x": [{"', *[fragment] * 500, '"}]}']
    sys.setprofile(note)
    try:
        assemble(CallDelta(0, "a", "f"), *(CallDelta(0, arguments=piece) for piece in pieces), FinishDelta("stop"))
    finally:
        sys.setprofile(None)
    assert 0 < len(parsed) <= 8  # when it closes, when it is sealed, and what stands in a text that is no JSON


def test_custom_call_is_never_ready() -> None:
    parts, _ = assemble(CallDelta(0, "a", "f", '{"x":1}', custom=True), FinishDelta("stop"))
    assert not any(isinstance(part, CallReady) for part in parts)


def test_call_without_arguments_is_opened_when_the_next_begins() -> None:
    assembler = Assembler()
    assert assembler.feed(CallDelta(0, "a", "f")) == []
    assert assembler.feed(CallDelta(1, "b", "g", "{"))[0] == CallOpened(0, "f")


# for every…

fragments = st.builds(
    CallDelta,
    slot=st.sampled_from([None, 0, 1]),
    id=st.sampled_from([None, "a", "b"]),
    name=st.sampled_from([None, "f", "g", "parallel"]),
    arguments=st.sampled_from([None, "{}", '{"x":', "1}", '{"y":2}', "}", '"', " "]),
    choice=st.sampled_from([0, 0, 0, 1]),
    custom=st.just(False),
    provider=st.none(),
)
ends = st.sampled_from(
    [FinishDelta("stop"), FinishDelta("length"), FinishDelta("unknown"), EndDelta(), ErrorDelta(ModelError("gone"))]
)
dones = st.builds(CallDone, slot=st.sampled_from([0, 1]), arguments=st.sampled_from([None, '{"x":1}', "{"]))
deltas = st.lists(fragments | fragments | dones | ends | st.builds(TextDelta, st.just("a")), max_size=14)


@settings(max_examples=examples(400))
@given(deltas, st.sampled_from([(), ("f", "g")]))
def test_each_opened_call_is_closed_once_and_never_changes(deltas: list[Delta], known: tuple[str, ...]) -> None:
    parts, turn = assemble(*deltas, known=known)
    opened = [part.index for part in parts if isinstance(part, CallOpened)]
    closed = [part.index for part in parts if isinstance(part, SealedCall | CallVoided)]
    assert len(opened) == len(set(opened))
    assert sorted(opened) == sorted(closed)
    assert {made.state for made in turn.calls} <= {"sealed", "invalid", "void"}
    for place, part in enumerate(parts):
        if isinstance(part, CallFragment | CallReady):
            assert part.index in [before.index for before in parts[:place] if isinstance(before, CallOpened)]
            assert part.index in [after.index for after in parts[place:] if isinstance(after, SealedCall | CallVoided)]
    sealed = {part.index: (part.id, part.arguments) for part in parts if isinstance(part, SealedCall)}
    final = {made.index: (made.id, made.arguments) for made in turn.calls if made.state in ("sealed", "invalid")}
    assert sealed == final
    assert len({made.id for made in turn.calls}) == len(turn.calls)


@settings(max_examples=examples(200))
@given(deltas)
def test_nothing_is_sealed_in_an_answer_that_breaks_off_without_a_hard_signal(deltas: list[Delta]) -> None:
    soft = [delta for delta in deltas if isinstance(delta, CallDelta | TextDelta)]
    parts, turn = assemble(*soft)
    assert not any(isinstance(part, SealedCall) for part in parts)
    assert isinstance(turn.error, StreamTruncated)


def test_ping_event_is_no_delta() -> None:
    assert shown(read_chat(event({"type": "ping"}, "ping"), calls(call('{"x":1}', id="a", name="f")))) == [X]


def test_name_of_a_call_without_arguments_is_cleaned_too() -> None:
    _, turn = assemble(CallDelta(0, "a", "functions.f"), FinishDelta("tool_calls"), known=("f", "g"))
    assert [made.name for made in turn.calls] == ["f"]


def test_end_mark_alone_does_not_make_a_call_with_empty_arguments_whole_case_f03() -> None:
    turn = read_chat(calls(call("{}", id="a", name="f")), finish=None)
    assert (shown(turn), turn.complete) == ([("f", {}, "sealed")], False)


def test_wrapper_that_says_name_and_arguments_is_opened_too() -> None:
    text = json.dumps({"tool_uses": [{"name": "f", "arguments": {"x": 1}}, {"name": "g"}]})
    _, turn = assemble(CallDelta(0, "w", "parallel", text), FinishDelta("stop"), known=("f", "g"))
    assert shown(turn) == [X, ("g", {}, "sealed")]


def test_name_again_without_index_and_id_goes_on_with_the_call_and_another_begins_one() -> None:
    deltas = (CallDelta(name="f", arguments='{"x":'), CallDelta(name="f", arguments="1}"))
    _, turn = assemble(*deltas, CallDelta(name="g", arguments='{"y":2}'), FinishDelta("tool_calls"))
    assert shown(turn) == [X, Y]
    _, turn = assemble(deltas[0], CallDelta(name="g", arguments='{"y":2}'), FinishDelta("tool_calls"))
    assert [made.name for made in turn.calls] == ["f", "g"]
