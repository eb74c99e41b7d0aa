"""Events that a reader takes many at a time, and their JSON in one pass."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import codec, events
from flowkit.codec import JSON
from flowkit.events import Event, EventLog, TextDelta, dump_event, merge
from flowkit.journal import Journal, RunJournal
from flowkit.journal.run_writing import EVENTS_WITHIN_S
from flowkit.messages import Usage
from flowkit.references import ToolCall

NOTES = st.one_of(
    st.tuples(st.just(events.TextDelta), st.text(max_size=3), st.integers(1, 2), st.just(None), st.integers(0, 9)),
    st.tuples(st.just(events.ThinkingDelta), st.text(max_size=3), st.just(1), st.just(None), st.integers(0, 9)),
    st.tuples(st.just(events.CallArguments), st.sampled_from("ab"), st.text(max_size=3)),
    st.tuples(st.just(events.CallProgress), st.sampled_from("ab"), st.floats(0, 1)),
    st.tuples(st.just(events.CallSealed), st.just("a"), st.just(ToolCall("a", "look", {"n": 1}))),
    st.tuples(st.just(events.TurnStarted), st.just(1), st.just("m")),
)
STEPS = st.lists(st.one_of(NOTES, st.sampled_from(["take", "read", "emit"])), max_size=30)


def list_types(journal: Journal) -> list[JSON]:
    return [event["type"] for event in journal.events("r") if isinstance(event, dict)]


@given(STEPS)
def test_for_every_way_to_take_them_a_backlog_holds_the_events_of_the_log(steps: list[Any]) -> None:
    log = EventLog("r", lambda: 0.0)
    log.first_seq = 7
    taken: list[Event] = []
    for step in steps:
        match step:
            case "take":
                taken += log.take_backlog().build(lambda kind: True)
            case "read":
                list(log.events)  # what was noted is built by reading it
            case "emit":
                log.emit(events.TurnStarted, 1, "m")
            case _:
                kind, *values = step
                log.note(kind, *values)
    taken += log.take_backlog().build(lambda kind: True)
    assert list(merge(taken)) == list(merge(log.events))
    assert log.take_backlog().build(lambda kind: True) == []


def test_kinds_that_are_not_kept_are_left_out_and_keep_their_numbers() -> None:
    log = EventLog("r", lambda: 0.0)
    log.note(events.TextDelta, "a", 1, None, 0)
    log.emit(events.TurnStarted, 1, "m")
    log.note(events.TextDelta, "b", 1, None, 1)
    found = log.take_backlog().build(lambda kind: kind is not TextDelta)
    assert [(event.seq, event.type) for event in found] == [(1, "turn.started")]


def test_reader_is_told_of_the_next_event_once() -> None:
    log = EventLog("r", lambda: 0.0)
    told: list[int] = []
    log.tell_next(lambda: told.append(len(log.events)))
    log.note(events.TextDelta, "a", 1, None, 0)
    log.note(events.TextDelta, "b", 1, None, 1)
    assert told == [1]
    log.tell_next(lambda: told.append(len(log.events)))
    log.emit(events.TurnStarted, 1, "m")
    assert told == [1, 3]


@pytest.mark.parametrize(
    "event",
    [
        events.TextDelta("r", 1, 0.5, "tea\x00\u2028", 1, None, 3),
        events.TextDelta("r", 1, 0.5, "half \ud83d", 1),
        events.CallSealed("r", 1, 0.5, "a", {"n": 2**70, "none": None}, ("a comma",)),
        events.CallSealed("r", 1, 0.5, "a", {"long": "x" * 70_000}),
        events.CallProgress("r", 1, 0.5, "a", 0.5),
        events.UsageReported("r", 1, 0.5, 1, Usage(1, 2, billed=Usage(3)), None),
        events.RunStarted("r", 1, 0.5, "agent", "m", inputs={"a": [1, None]}),
        events.RunFinished("r", 1, 0.5, "done", {"a": None}, None, ("a tip",)),
    ],
    ids=lambda event: event.type,
)
def test_event_is_written_in_one_pass_as_its_json_says(event: Event) -> None:
    assert dump_event(event) == codec.dumps(event.to_json())


@pytest.mark.parametrize(
    "event",
    [
        events.CallProgress("r", 1, 0.5, "a", float("nan")),
        events.RunFinished("r", 1, 0.5, "done", {"deep": [float("inf")]}),
        events.RunFinished("r", 1, 0.5, "done", {1, 2}),  # pyright: ignore[reportArgumentType]  # as a tool may give
    ],
    ids=["nan", "infinity", "set"],
)
def test_event_that_is_no_json_is_refused(event: Event) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        dump_event(event)


@asynccontextmanager
async def followed_run(path: Path) -> AsyncGenerator[tuple[Journal, RunJournal, EventLog]]:
    """A run of a new journal, which writes down the events of its log."""
    with closing(Journal(path)) as journal:
        run = await journal.open_run("r", name="n")
        log = EventLog("r", asyncio.get_running_loop().time)
        run.follow(log)
        yield journal, run, log
        await run.finish("done")


def test_events_before_a_claim_are_written_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with followed_run(tmp_path / "j") as (journal, run, log):
            log.emit(events.TurnStarted, 1, "m")
            for piece in ("a ", "b ", "c"):
                log.note(events.TextDelta, piece, 1, None, 0)
            await run.claim("a", tool="pay", code="1", effect="write", arguments={})
            assert list_types(journal) == ["turn.started", "text.delta"]

    asyncio.run(main())


def test_events_are_written_soon_when_nothing_else_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with followed_run(tmp_path / "j") as (journal, _, log):
            for turn in (1, 2):  # also after a quiet time
                log.emit(events.TurnStarted, turn, "m")
                async with asyncio.timeout(20):
                    while len(journal.events("r")) < turn:  # noqa: ASYNC110  # the disk tells nobody
                        await asyncio.sleep(EVENTS_WITHIN_S)

    asyncio.run(main())


def test_one_event_that_is_no_json_does_not_take_the_others_along(tmp_path: Path) -> None:
    async def main() -> None:
        async with followed_run(tmp_path / "j") as (journal, run, log):
            log.emit(events.TurnStarted, 1, "m")
            log.emit(events.CallProgress, "a", float("nan"))
            await run.claim("a", tool="pay", code="1", effect="write", arguments={})
            assert list_types(journal) == ["turn.started"]

    asyncio.run(main())
