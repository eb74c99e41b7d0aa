"""A run's handle: stopped at any moment, it ends once and its result comes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flowkit.agent import Agent
from flowkit.agent.plan import AgentResult
from flowkit.context import Context
from flowkit.errors import ConfigurationError, RunError
from flowkit.events import CallCancelled, CallStarted, RunFinished
from flowkit.journal import Journal
from flowkit.models.scripted import Script, ScriptedModel, call
from flowkit.recipes import recipe
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool


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

    with pytest.raises(RunError, match="there is no run 'nope' to go on with"):
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
