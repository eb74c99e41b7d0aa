"""A conversation stays in the order in which its runs began, whatever the wall clock does between and inside them."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, Approve, Journal, ScriptedModel, tool
from flowkit.clock import ManualClock
from flowkit.messages import AssistantMessage, UserMessage
from flowkit.models.base import ModelRequest
from flowkit.testing import call
from tests.stores import journal_at

pytestmark = pytest.mark.usefixtures("journal_store")

JUMPS = [[-1.0, -1.0, -1.0], [3600.0, -7200.0, 1.0], [0.0, 0.0, 0.0], [-400 * 86400.0, 0.0, 0.0], [10.0, -5.0, -10.0]]


@tool(effect="write", approval=True)
async def pay() -> str:
    """Pay."""
    return "paid"


def read_said(request: ModelRequest) -> list[object]:
    """What user and model said before this request."""
    said: list[object] = []
    for message in request.messages:
        if isinstance(message, UserMessage):
            said.append(message.content)
        elif isinstance(message, AssistantMessage) and message.text:
            said.append(message.text)
    return said


async def say(journal: Journal, message: str | None, *turns: Any, **options: Any) -> tuple[list[object], Any]:
    """Run once in the session; give what its model was told, and the result."""
    model = ScriptedModel(turns)
    agent = Agent(model, tools=[pay], cache=False, journal=journal)
    result = await agent.run(message, session="s", user="ann", **options)
    return read_said(model.requests[0]), result


@pytest.mark.parametrize("jumps", JUMPS)
def test_runs_of_a_session_stay_in_order_over_several_jumps_and_in_the_next_process(
    tmp_path: Path, jumps: list[float]
) -> None:
    async def go() -> None:
        clock, before = ManualClock(), list[object]()
        for number, jump in enumerate([0.0, *jumps]):
            clock.jump(jump)
            with closing(Journal(journal_at(tmp_path / "j"), clock=clock)) as journal:
                told, _ = await say(journal, f"question {number}", f"answer {number}")
                assert told == [*before, f"question {number}"]
                before = [*told, f"answer {number}"]
                numbers = [run.number for run in journal.runs()]
                assert numbers == sorted(numbers, reverse=True)

    asyncio.run(go())


def test_run_that_waits_while_the_clock_is_set_back_stays_where_it_began(tmp_path: Path) -> None:
    async def go() -> None:
        clock = ManualClock()
        with closing(Journal(journal_at(tmp_path / "j"), clock=clock)) as journal:
            await say(journal, "first", "one")
            clock.jump(-50)
            _, waits = await say(journal, "second", [call("pay")], run_id="w")
            clock.jump(-50)
            decisions = {pending.id: Approve() for pending in waits.pending}
            told, result = await say(journal, None, "two", run_id="w", decisions=decisions)
            assert (told, result.status) == (["first", "one", "second"], "done")
            clock.jump(-50)
            told, _ = await say(journal, "third", "three")
            assert told == ["first", "one", "second", "two", "third"]

    asyncio.run(go())


def test_events_of_a_run_after_a_jump_are_kept_in_their_order(tmp_path: Path) -> None:
    async def go() -> None:
        clock = ManualClock()
        with closing(Journal(journal_at(tmp_path / "j"), clock=clock)) as journal:
            await say(journal, "first", "one", run_id="r0")
            clock.jump(-1000)
            await say(journal, "second", "two", run_id="r1")
            kept = [event["seq"] for event in journal.events("r1") if isinstance(event, dict)]
            assert kept == list(range(len(kept)))

    asyncio.run(go())
