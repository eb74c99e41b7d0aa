"""Who observes runs: each run's log before its first event, nested ones with the log around them, and an end of it."""

import asyncio
import time

import pytest

from flowkit import Agent, Executor, ScriptedModel, ToolCall, tool
from flowkit.events import CallFailed, CallNew, CallStarted, CallWaiting, Event, EventLog, RunStarted, TurnStarted
from flowkit.models.scripted import call
from flowkit.observers import observe


@tool(effect="write")
async def fail(order: str) -> str:
    """Fail."""
    raise KeyError(order)


def test_each_run_is_shown_before_its_first_event_and_a_nested_one_with_the_run_around_it() -> None:
    seen: list[tuple[EventLog, EventLog | None, int]] = []
    helper = Agent(ScriptedModel([["done"]]), name="helper")
    outer = Agent(ScriptedModel([[call("helper", task="go")], ["end"]]), tools=[helper.as_tool(description="Help.")])
    stop = observe(lambda log, around: seen.append((log, around, len(log.events))))
    try:
        result = outer.run_sync("go", cache=False)
    finally:
        stop()
    outer_log, inner_log = seen[0][0], seen[1][0]
    assert [(around, count) for _, around, count in seen] == [(None, 0), (outer_log, 0)]
    assert inner_log.run_id == f"{result.run_id}/turn/1/call/0"


def test_nobody_is_told_after_the_end() -> None:
    seen: list[EventLog] = []
    first = observe(lambda log, around: seen.append(log))
    second = observe(lambda log, around: seen.append(log))
    first()
    Agent(ScriptedModel([["hi"]])).run_sync("go", cache=False)
    second()
    Agent(ScriptedModel([["hi"]])).run_sync("go", cache=False)
    assert len(seen) == 1


def test_a_listener_that_leaves_while_it_is_told_keeps_no_other_from_the_event() -> None:
    log = EventLog("run", lambda: 0.0)
    told: list[str] = []

    def leave(event: Event) -> None:
        told.append("first")
        stop()

    stop = log.listen(leave)
    log.listen(lambda event: told.append("second"))
    log.emit(CallStarted, "a")
    log.emit(CallStarted, "b")
    assert told == ["first", "second", "second"]


def test_a_failure_names_the_class_of_what_was_raised_and_a_start_its_effect(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[Event]:
        async with Executor([fail], run_id="r-1") as graph:
            graph.add(ToolCall("a", "fail", {"order": "7"}))
            await graph.wait("a")
            return list(graph.log.events)

    found = asyncio.run(main())
    assert [event.error_type for event in found if isinstance(event, CallFailed)] == ["KeyError"]
    assert [event.effect for event in found if isinstance(event, CallStarted)] == ["write"]
    record = caplog.records[-1]
    assert (record.__dict__["run_id"], record.__dict__["call_id"], record.__dict__["tool"]) == ("r-1", "a", "fail")


def test_a_run_tells_the_time_of_the_wall_at_which_it_began() -> None:
    before = time.time()
    run = asyncio.run(_run_once())
    (started,) = [event for event in run if isinstance(event, RunStarted)]
    assert started.at_wall is not None
    assert before <= started.at_wall <= time.time()


def test_an_event_names_the_calls_that_are_waited_for_and_the_models_answer_its_source() -> None:
    @tool(effect="read")
    async def first() -> str:
        """Give the first."""
        await asyncio.sleep(0)
        return "one"

    @tool(effect="read")
    async def second(value: str) -> str:
        """Give the second."""
        return value

    async def go() -> list[Event]:
        turn = [call("first"), call("second", value={"from_call": "first", "path": ""})]
        run = Agent(ScriptedModel([turn, "done"]), tools=[first, second], references=True, cache=False).start("go")
        return [event async for event in run]

    told = asyncio.run(go())
    (waiting,) = [event for event in told if isinstance(event, CallWaiting) and event.waiting_for == "calls"]
    names = {event.call: event.name for event in told if isinstance(event, CallNew)}
    assert [names[one] for one in waiting.on] == ["first"]
    assert {event.effect for event in told if isinstance(event, CallStarted)} == {"read"}
    assert {event.model for event in told if isinstance(event, TurnStarted)} == {"scripted"}


async def _run_once() -> list[Event]:
    return [event async for event in Agent(ScriptedModel(["hi"])).start("go")]
