"""Times of a run: as measured, and as they would have been."""

import pytest

from flowkit import events
from flowkit.errors import ConfigurationError
from flowkit.events import EventLog
from flowkit.graph.timeline import Timeline, draw_timeline, fold, format_seconds, read_trace


class Script:
    """A log written by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log = EventLog("r", lambda: self.now)

    def at(self, t: float, kind: type[events.Event], *values: object) -> None:
        self.now = t
        self.log.emit(kind, *values)

    def call(
        self, name: str, new: float, started: float, ended: float, source: str = "run", parent: str | None = None
    ) -> None:
        self.at(new, events.CallNew, name, name, parent)
        self.at(new, events.CallSealed, name, {})
        if source == "run":
            self.at(started, events.CallStarted, name, 1, started < 2)
        self.at(ended, events.CallFinished, name, None, source, None if source == "run" else 3.0)


def two_turns() -> EventLog:
    """A turn of 2 s with a call of 3 s that starts in it and one of 1 s, then a turn of 1 s."""
    script = Script()
    script.at(0, events.RunStarted, "shop", "gpt")
    script.at(0, events.TurnStarted, 1, "gpt")
    script.at(0.5, events.TextDelta, "hm")
    script.call("turn/1/call/0", 1, 1, 4)
    script.call("turn/1/call/1", 1.5, 1.5, 2.5)
    script.call("turn/1/call/2", 1.5, 1.5, 1.5, "cache")
    script.at(2, events.TurnFinished, 1, "tool_calls")
    script.at(4, events.TurnStarted, 2, "gpt")
    script.at(5, events.TurnFinished, 2, "stop")
    script.at(5, events.RunFinished, "done")
    return script.log


def test_computed_times_are_of_the_same_calls() -> None:
    timeline = fold(two_turns().events)
    assert timeline.wall_s == 5
    assert timeline.one_after_another_s == 2 + 1 + 3 + 1
    assert timeline.turn_by_turn_s == (2 + 3) + 1
    assert timeline.while_speaking_s == 1 + 0.5


def test_critical_path_names_what_the_time_is_made_of() -> None:
    assert fold(two_turns().events).critical_path() == ["turn 1", "turn/1/call/0", "turn 2"]


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
    assert [(call.label, depth) for call, depth in timeline.by_maker()] == [("outer", 0), ("in", 1)]


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


@pytest.mark.parametrize("width", [40, 80, 200])
def test_chart_fits_and_says_what_is_computed(width: int) -> None:
    text = draw_timeline(two_turns().events, width).plain
    lines = text.splitlines()
    assert lines[0] == "shop  done  5.00 s"
    assert lines[1].startswith("turn 1")
    assert "━" in lines[1]
    assert "█" in lines[3]
    assert "from cache" in text
    assert "one after another: 7.00 s (computed)" in text
    assert "turn by turn: 6.00 s (computed)" in text


def test_times_read_as_people_write_them() -> None:
    assert [format_seconds(s) for s in (0.34, 1.254, 200)] == ["340 ms", "1.25 s", "3 min 20 s"]
