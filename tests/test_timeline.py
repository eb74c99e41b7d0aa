"""Times of a run: as measured, and as they would have been."""

import pytest

from flowkit import events
from flowkit.errors import ConfigurationError
from flowkit.graph.pictures.timeline import Timeline, fold, format_seconds, read_trace
from tests.runs import Script, two_turns


def test_computed_times_are_of_the_same_calls() -> None:
    timeline = fold(two_turns().events)
    assert timeline.wall_s == 5
    assert timeline.one_after_another_s == 2 + 1 + 3 + 1
    assert timeline.turn_by_turn_s == (2 + 3) + 1
    assert timeline.while_speaking_s == 1 + 0.5


def test_turn_by_turn_keeps_what_calls_need_in_order() -> None:
    script = Script()
    script.at(0, events.TurnStarted, 1, "gpt")
    script.call("turn/1/call/0", 1, 1, 4)
    # Its arguments were complete when the other had ended, so it never waited for it.
    script.at(5, events.CallNew, "turn/1/call/1", "ship")
    script.at(5, events.CallSealed, "turn/1/call/1", {"to": [{"from_call": "turn/1/call/0", "path": "/city"}]})
    script.at(5, events.CallStarted, "turn/1/call/1")
    script.at(6, events.TurnFinished, 1, "tool_calls")
    script.at(7, events.CallFinished, "turn/1/call/1")
    timeline = fold(script.log.events)
    assert timeline.calls["turn/1/call/1"].needs == ["turn/1/call/0"]
    assert timeline.turn_by_turn_s == 6 + (3 + 2)


def test_early_result_counts_when_it_was_there() -> None:
    script = Script()
    script.at(0, events.CallNew, "a", "look")
    script.at(1, events.CallStarted, "a", 1, True)
    script.at(9, events.CallSealed, "a", {})
    script.at(9, events.CallFinished, "a", None, "run", None, 3.0)
    span = fold(script.log.events).calls["a"]
    assert (span.duration_s, span.describe()) == (2, "2.00 s, early")


def test_call_that_holds_others_does_not_count_twice() -> None:
    script = Script()
    script.at(0, events.CallNew, "outer", "outer")
    script.at(0, events.CallStarted, "outer")
    script.call("outer/in", 1, 1, 3, parent="outer")
    script.at(4, events.CallFinished, "outer")
    timeline = fold(script.log.events)
    assert timeline.one_after_another_s == 2
    assert [call.id for call in timeline.leaves] == ["outer/in"]


def test_trace_read_from_json_is_the_same_as_from_events() -> None:
    from flowkit.codec import dumps

    log = two_turns()
    assert fold(read_trace(dumps(event.to_json()) for event in log.events)) == fold(log.events)


def test_unknown_events_are_passed_over() -> None:
    assert fold([{"type": "weather.changed", "t": 1.0}]) == Timeline(wall_s=1.0)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"t": 1}'])
def test_line_that_is_no_event_is_named(line: bytes) -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        read_trace([b'{"type": "x"}', line])


def test_times_read_as_people_write_them() -> None:
    assert [format_seconds(s) for s in (0.34, 1.254, 200)] == ["340 ms", "1.25 s", "3 min 20 s"]


def test_turn_and_its_call_have_every_time_that_was_told() -> None:
    script = Script()
    script.at(0, events.TurnStarted, 1, "gpt")
    script.at(1, events.CallNew, "a", "look")
    script.at(2, events.CallSealed, "a", {"place": "Seoul"})
    script.at(3, events.CallFailed, "a", "closed")
    script.at(4, events.TurnFinished, 1, "error", "the stream broke off")
    timeline = fold(script.log.events)
    call = timeline.calls["a"]
    assert (call.new_s, call.sealed_s, call.ended_s, call.describe()) == (1, 2, 3, "failed")
    turn = timeline.turns[0]
    assert (turn.started_s, turn.first_s, turn.ended_s, turn.error) == (0, 1, 4, "the stream broke off")


def test_trace_without_events_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the trace holds no events"):
        read_trace([b"", b"  "])


def test_argument_that_only_looks_like_a_reference_is_none() -> None:
    script = Script()
    script.call("a", 0, 0, 1)
    script.at(1, events.CallNew, "b", "look")
    script.at(1, events.CallSealed, "b", {"tags": {"from_call": "a"}})
    assert fold(script.log.events).calls["b"].needs == []
