"""A run's handle, the same for agents and recipes: stopped at any moment, it ends once and its result comes."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowkit.agent import Agent, AgentResult
from flowkit.context import Context
from flowkit.errors import ConfigurationError, RunError, RunNotDone, ToolError
from flowkit.events import CallCancelled, CallNew, CallStarted, Event, RunFinished, RunStarted
from flowkit.executor import Approve
from flowkit.journal import Journal
from flowkit.models.scripted import Script, ScriptedModel, call
from flowkit.recipes import Recipe, recipe, step
from flowkit.runs.run import Run
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool
from tests.executing import ENDS

AnyRun = Run[Any]
Start = Callable[[Journal | None], AnyRun]


@tool(effect="read")
async def look(name: str) -> str:
    """Look for a day."""
    await asyncio.sleep(86_400)
    return f"{name} is there"


@tool(effect="read", approval=True)
async def ask_first(name: str) -> str:
    """Look when a person says so."""
    return f"{name} is there"


def start_agent(journal: Journal | None = None, *, run_id: str = "r", **options: Any) -> AnyRun:
    turn: Script = [0.0, "Let me see.", call("look", name="tea"), 0.0, call("look", name="rice")]
    agent = Agent(ScriptedModel([turn]), tools=[look], prefetch=[look.call("milk")], cache=False, journal=journal)
    return agent.start("go", run_id=run_id, **options)


@recipe
def look_twice(name: str) -> list[str]:
    """Look for two things."""
    first = step(look, name)
    return [first, step(look, first)]


def start_recipe(journal: Journal | None = None, *, run_id: str = "r", **options: Any) -> AnyRun:
    made = Recipe[..., list[str]](look_twice.plan)
    return made.start({"name": "tea"}, journal=journal, cache=False, run_id=run_id, **options)


KINDS = pytest.mark.parametrize("start", [start_agent, start_recipe])


def agent_of(turns: list[Script], *tools: Any, **options: Any) -> Agent[str]:
    return Agent(ScriptedModel(turns), tools=tools, cache=False, **options)


def test_a_run_that_is_cancelled_before_its_first_step_has_a_result() -> None:
    async def go() -> tuple[AgentResult[str], list[str]]:
        run = agent_of([["Hi.", 9.0]]).start("go")
        run.cancel()
        return await run.wait(), [event.type async for event in run]

    result, seen = run_virtual(go())
    assert result.status == "cancelled"
    assert seen[-1] == "run.finished"


def test_a_stream_can_be_left_at_once() -> None:
    async def go() -> str:
        async with agent_of([["Hi.", 9.0]]).stream("go") as run:
            pass
        return (await run.wait()).status

    assert run_virtual(go()) == "cancelled"


@pytest.mark.parametrize("moments", [(0.0, 0.0), (0.5, 0.5), (0.5, 0.7), (0.5, 1.0)])
def test_cancelling_twice_is_cancelling_once(moments: tuple[float, float], tmp_path: Path) -> None:
    @tool
    async def slow() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.5)
        return ""

    async def go() -> tuple[AgentResult[str], int]:
        journal = Journal(tmp_path / "runs.db")
        loop = asyncio.get_running_loop()
        run = agent_of([[call("slow")]], slow, journal=journal).start("go")
        for moment in moments:
            loop.call_later(moment, run.cancel)
        result = await run.wait()
        journal.close()
        return result, len([event async for event in run if isinstance(event, RunFinished)])

    result, ends = run_virtual(go())
    assert result.status in ("cancelled", "in_doubt")
    assert ends == 1


def test_a_run_that_is_cancelled_while_its_journal_opens_can_go_on(tmp_path: Path) -> None:
    async def go() -> list[str | None]:
        journal = Journal(tmp_path / "runs.db")
        agent = agent_of([["Hi."]], journal=journal)
        run = agent.start("go", run_id="r")
        run.cancel()
        run.cancel()
        first, second = await run.wait(), await agent.run(run_id="r")
        journal.close()
        return [first.status, second.output]

    assert run_virtual(go()) == ["cancelled", "Hi."]


def test_a_cancellation_while_the_last_words_are_written_changes_nothing(tmp_path: Path) -> None:
    async def go() -> AgentResult[str]:
        journal = Journal(tmp_path / "runs.db")
        run = agent_of(["Hi."], journal=journal).start("go")
        async for event in run:
            if isinstance(event, RunFinished):
                run.cancel()
        result = await run.wait()
        journal.close()
        return result

    assert run_virtual(go()).output == "Hi."


def test_a_time_out_of_the_users_own_function_is_no_limit_of_the_run() -> None:
    def instruct(_: Context[Any]) -> str:
        raise TimeoutError("the wiki is slow")

    with pytest.raises(TimeoutError, match="the wiki is slow"):
        run_virtual(agent_of(["Hi."], instructions=instruct).run("go"))


def test_an_error_of_the_users_own_function_stands_in_the_last_event() -> None:
    def instruct(_: Context[Any]) -> str:
        raise KeyError("wiki")

    async def go() -> str | None:
        run = agent_of(["Hi."], instructions=instruct).start("go")
        with pytest.raises(KeyError):
            await run.wait()
        *_, last = [event async for event in run]
        assert isinstance(last, RunFinished)
        return last.error

    assert run_virtual(go()) == "KeyError: 'wiki'"


def test_going_on_with_an_unknown_run_is_an_error(tmp_path: Path) -> None:
    async def go() -> None:
        journal = Journal(tmp_path / "runs.db")
        try:
            await agent_of(["Hi."], journal=journal).run(run_id="nope")
        finally:
            assert journal.show("nope") is None
            journal.close()

    with pytest.raises(RunError, match="there is no run 'nope' to resume"):
        run_virtual(go())


def test_the_blocking_form_inside_a_loop_says_what_to_write_instead() -> None:
    async def go() -> None:
        agent_of(["Hi."]).run_sync("go")

    with pytest.raises(ConfigurationError, match=r"await agent\.run"):
        run_virtual(go())


def test_the_blocking_form_of_a_recipe_inside_a_loop_says_so_too() -> None:
    @recipe
    def nothing(text: str) -> str:
        return text

    async def go() -> None:
        nothing.run_sync("go")

    with pytest.raises(ConfigurationError, match="run_sync would block"):
        run_virtual(go())


def test_the_error_of_a_blocking_run_is_not_shown_as_one_of_handling_another() -> None:
    @tool(effect="read")
    def refuse(text: str) -> str:
        """Refuse."""
        raise ToolError(f"no {text}")

    @recipe
    def fail(text: str) -> str:
        return step(refuse, text)

    with pytest.raises(ToolError) as caught:
        fail.run_sync("tea")
    assert caught.value.__context__ is None


def test_call_says_which_end_of_its_run_stopped_it() -> None:
    @tool(approval=True)
    def pay(won: int) -> str:
        return f"paid {won}"

    @tool(effect="read")
    async def look() -> str:
        await asyncio.sleep(99)
        return "seen"

    async def waiting() -> list[str]:
        agent = Agent(ScriptedModel([[call("pay", won=5)]]), tools=[pay], cache=False)
        run = agent.start("Pay.")
        return [event.reason async for event in run if isinstance(event, CallCancelled)]

    async def stopped() -> str | None:
        run = Agent(ScriptedModel([[call("look")]]), tools=[look], cache=False).start("Look.")
        async for event in run:
            if isinstance(event, CallStarted):
                run.cancel()
        return (await run.wait()).calls[0].error

    assert run_virtual(waiting()) == ["the run waits for a person"]
    assert run_virtual(stopped()) == "the run was stopped"


@KINDS
@pytest.mark.parametrize("keeps_journal", [False, True])
def test_a_run_that_is_cancelled_at_any_tick_ends_as_cancelled_with_all_its_events(
    start: Callable[..., AnyRun], keeps_journal: bool, tmp_path: Path
) -> None:
    async def stop_after(ticks: int) -> tuple[str, list[Event]]:
        journal = Journal(tmp_path / "runs.db") if keeps_journal else None
        run = start(journal, run_id=f"after {ticks}")
        for _ in range(ticks):
            await asyncio.sleep(0)
        run.cancel()
        result = await run.wait()
        assert run.status == result.status
        if journal is not None:
            journal.close()
        return result.status, [event async for event in run]

    begun = 0
    for ticks in range(50):
        status, told = run_virtual(stop_after(ticks))
        assert status == "cancelled", f"after {ticks} ticks"
        assert isinstance(told[0], RunStarted)
        assert isinstance(told[-1], RunFinished)
        assert told[-1].status == "cancelled"
        assert sum(isinstance(event, RunStarted | RunFinished) for event in told) == 2
        opened = [event.call for event in told if isinstance(event, CallNew)]
        closed = [event.call for event in told if isinstance(event, ENDS)]
        assert sorted(opened) == sorted(closed), f"after {ticks} ticks"
        begun += bool(opened)
    assert keeps_journal or begun > 25, "most of these moments lie in the middle of the work"


@KINDS
def test_a_run_that_is_cancelled_in_its_journal_goes_on_under_its_id(start: Start, tmp_path: Path) -> None:
    async def go() -> list[str]:
        statuses: list[str] = []
        for seconds in (0, 10, 90_000):
            journal = Journal(tmp_path / "runs.db")
            run = start(journal)
            asyncio.get_running_loop().call_later(seconds, run.cancel)
            statuses.append((await run.wait()).status)
            journal.close()
        return statuses

    assert run_virtual(go()) == ["cancelled", "cancelled", "cancelled"]


def test_a_run_that_vanishes_from_nobody_in_a_task_group() -> None:
    async def go() -> list[str]:
        seen: list[str] = []

        async def watch(run: AnyRun) -> None:
            seen.append((await run.wait()).status)

        async with asyncio.TaskGroup() as group:
            for start in (start_agent, start_recipe):
                run = start()
                run.cancel()
                group.create_task(watch(run))
        return seen

    assert run_virtual(go()) == ["cancelled", "cancelled"]


@KINDS
def test_a_stream_that_is_left_at_once_has_ended(start: Start) -> None:
    async def go() -> tuple[str, list[str]]:
        source: Any = agent_of([["Hi.", 9.0]]) if start is start_agent else look_twice.options(cache=False)
        given: Any = "go" if start is start_agent else {"name": "tea"}
        async with source.stream(given) as run:
            pass
        return (await run.wait()).status, [event.type async for event in run]

    status, told = run_virtual(go())
    assert (status, told[0], told[-1]) == ("cancelled", "run.started", "run.finished")


def test_a_recipe_that_is_started_twice_under_one_id_runs_once() -> None:
    async def go() -> tuple[bool, bool, list[str]]:
        quick, inputs = look_twice.options(cache=False, run_id="r"), {"name": "tea"}
        first = quick.start(inputs, user="Ann")
        second = look_twice.start(inputs, run_id="r", user="Ann")
        other = quick.start(inputs, user="Bo")
        await asyncio.gather(first.wait(), other.wait())
        later = quick.start(inputs, user="Ann")
        later.cancel()
        await later.wait()
        started = [event.call for event in first.log.events if isinstance(event, CallStarted)]
        return first is second, first is other or first is later, started

    joined, mixed, started = run_virtual(go())
    assert (joined, mixed) == (True, False)
    assert started == ["look", "look_2"]


def test_a_recipe_at_work_is_not_joined_with_other_inputs() -> None:
    async def go() -> None:
        first = look_twice.start({"name": "tea"}, user="Ann", run_id="r", cache=False)
        try:
            with pytest.raises(RunError, match="run 'r' began with other inputs"):
                look_twice.start({"name": "rice"}, user="Ann", run_id="r")
        finally:
            first.cancel()
            await first.wait()

    run_virtual(go())


@KINDS
def test_both_kinds_are_bounded_by_a_timeout(start: Callable[..., AnyRun]) -> None:
    async def go() -> tuple[str, str]:
        result = await start(timeout=timedelta(hours=1)).wait()
        return result.status, str(result.error)

    assert run_virtual(go()) == ("limit", "the limit of 3600 seconds is reached")


def test_a_call_that_waits_is_seen_and_decided_while_the_run_goes_on() -> None:
    @recipe
    def both(name: str) -> list[str]:
        """Ask a person, and look besides."""
        return [step(ask_first, name), step(look, name)]

    async def decide_in(run: AnyRun) -> tuple[str, list[str], object]:
        await asyncio.sleep(1)
        assert (run.status, run.is_done) == ("running", False)
        waiting = [(pending.name, dict(pending.arguments)) for pending in run.pending]
        assert waiting == [("ask_first", {"name": "tea"})]
        with pytest.raises(KeyError):
            run.decide("nobody", Approve())
        run.decide(run.pending[0].id, Approve(by="Kim"))
        result = await run.wait()
        assert run.pending == ()
        return result.status, [str(outcome.value) for outcome in result.calls], result.output

    async def go() -> list[tuple[str, list[str], object]]:
        script: Script = [call("ask_first", name="tea"), call("look", name="tea")]
        agent = Agent(ScriptedModel([script, "Both."]), tools=[ask_first, look], cache=False)
        return [await decide_in(agent.start("go")), await decide_in(both.start({"name": "tea"}, cache=False))]

    found = ["tea is there", "tea is there"]
    assert run_virtual(go()) == [("done", found, "Both."), ("done", found, found)]


def test_decisions_that_come_with_a_second_start_reach_the_run_at_work() -> None:
    @recipe
    def both(name: str) -> list[str]:
        """Ask a person, and look besides."""
        return [step(ask_first, name), step(look, name)]

    async def go() -> list[str]:
        script: Script = [call("ask_first", name="tea"), call("look", name="tea")]
        agent = Agent(ScriptedModel([script, "Both."]), tools=[ask_first, look], cache=False)
        statuses: list[str] = []

        def start_asking(**given: Any) -> AnyRun:
            return agent.start("go", user="Ann", run_id="a", **given)

        def start_both(**given: Any) -> AnyRun:
            return both.start({"name": "tea"}, user="Ann", run_id="b", cache=False, **given)

        for start in (start_asking, start_both):
            run = start()
            await asyncio.sleep(1)
            assert start(decisions={run.pending[0].id: Approve()}) is run
            statuses.append((await run.wait()).status)
        return statuses

    assert run_virtual(go()) == ["done", "done"]


@KINDS
def test_the_output_of_a_run_that_is_not_done_is_an_error_that_names_its_status(start: Start) -> None:
    async def go() -> None:
        run = start(None)
        run.cancel()
        result = await run.wait()
        assert result.output_or_none is None
        with pytest.raises(RunNotDone, match="run 'r' has no output, its status is 'cancelled'") as caught:
            _ = result.output
        assert (caught.value.status, caught.value.run_id) == ("cancelled", "r")

    run_virtual(go())


@KINDS
def test_a_run_that_its_journal_refuses_has_a_result_and_both_ends_of_its_log(start: Start, tmp_path: Path) -> None:
    async def go() -> tuple[str, str | None, list[str]]:
        first, second = Journal(tmp_path / "runs.db"), Journal(tmp_path / "runs.db")
        held = start(first)
        await asyncio.sleep(1)
        refused = start(second)
        result = await refused.wait()
        held.cancel()
        await held.wait()
        first.close()
        second.close()
        return result.status, type(result.error).__name__, [event.type async for event in refused]

    assert run_virtual(go()) == ("failed", "RunBusy", ["run.started", "run.finished"])


@KINDS
def test_a_run_that_has_just_ended_is_not_joined(start: Start) -> None:
    async def go() -> list[bool]:
        agent = Agent(ScriptedModel(["One.", "Two."]), cache=False)
        quick = look_twice.options(cache=False)

        def begin() -> AnyRun:
            if start is start_agent:
                return agent.start("go", user="Ann", run_id="r")
            return quick.start({"name": "tea"}, user="Ann", run_id="r")

        first = begin()
        joins: list[bool] = []

        async def begin_again() -> None:
            await first.wait()
            second = begin()
            third = begin()
            joins.extend([second is first, third is second])
            await second.wait()

        await asyncio.gather(*(begin_again() for _ in range(2)))
        return joins

    assert run_virtual(go()) == [False, True, False, True]
