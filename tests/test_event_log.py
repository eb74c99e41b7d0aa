"""The log of a run: what is noted, emitted and built late is what a listener is told at once."""

from hypothesis import given
from hypothesis import strategies as st

from flowkit.events import CallFinished, CallSealed, Event, EventLog, TextDelta, TurnFinished
from flowkit.references import ToolCall

steps = st.lists(st.sampled_from(["note", "emit", "sealed", "call", "look"]), max_size=30)


def fill(log: EventLog, wanted: list[str]) -> list[int]:
    """Do these steps; gives the places that emitted events were told."""
    told: list[int] = []
    for number, step in enumerate(wanted):
        match step:
            case "note":
                log.note(TextDelta, f"word {number}", 1)
            case "emit":
                told.append(log.emit(TurnFinished, number, "stop", model="m").seq)
            case "sealed":
                log.note_sealed(f"n{number}", "find", None, ToolCall(f"n{number}", "find", {"x": number}))
            case "call":
                log.note(CallFinished, f"n{number}", {"x": [number]})
            case _:
                assert log.events is not None
    return told


@given(steps, st.integers(0, 5))
def test_for_every_order_late_events_are_those_that_a_listener_is_told(wanted: list[str], first_seq: int) -> None:
    late, followed = (EventLog("r", lambda: 2.0) for _ in range(2))
    late.first_seq = followed.first_seq = first_seq
    heard: list[Event] = []
    followed.listen(heard.append)

    assert fill(late, wanted) == fill(followed, wanted)
    assert late.events == followed.events == heard
    assert [event.seq for event in late.events] == list(range(first_seq, first_seq + len(heard)))


@given(steps, steps)
def test_for_every_moment_a_listener_that_comes_later_hears_the_rest(before: list[str], after: list[str]) -> None:
    log = EventLog("r", lambda: 2.0)
    fill(log, before)
    count = len(log.events)
    fill(log, before)
    heard: list[Event] = []
    stop = log.listen(heard.append)
    fill(log, after)
    stop()
    fill(log, after)

    assert heard == log.events[2 * count : 2 * count + len(heard)]
    assert [event.seq for event in log.events] == list(range(len(log.events)))
    assert sum(isinstance(event, CallSealed) for event in heard) == after.count("sealed")
