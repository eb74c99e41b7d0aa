"""A conversation stays in the order in which its runs began, whatever the wall clock does between and inside them."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, Approve, Journal, Limits, ModelError, ScriptedModel, tool
from flowkit.clock import ManualClock
from flowkit.messages import AssistantMessage, UserMessage
from flowkit.models.base import ModelRequest
from flowkit.testing import call
from flowkit.testing.loop import run_virtual
from tests.stores import journal_at, opened_journal

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


@pytest.mark.sqlite_only
@pytest.mark.parametrize("ends", ["failed", "limit", "cancelled", "killed"])
def test_no_message_of_a_session_is_lost_however_a_run_ended(tmp_path: Path, ends: str) -> None:
    """The next run hears of the message, the turn that was complete, and the result or fate of its call."""
    asked: list[ModelRequest] = []

    @tool(effect="write")
    async def pay() -> str:
        """Pay."""
        if ends == "killed":
            shutil.copyfile(tmp_path / "j", tmp_path / "copy")
            for ending in ("-wal", "-shm"):
                shutil.copyfile(tmp_path / f"j{ending}", tmp_path / f"copy{ending}")
        return "paid"

    def answer(request: ModelRequest) -> Any:
        if request.turn == 1:
            return [call("pay")]
        return [3600.0, "late"] if ends in ("cancelled", "limit") else [ModelError("gone", retryable=False)]

    async def go() -> None:
        with opened_journal(tmp_path / "j") as journal:
            agent = Agent(ScriptedModel(answer), tools=[pay], cache=False, journal=journal)
            limits = Limits(seconds=60) if ends == "limit" else None
            run = agent.start("Pay the bill.", user="ann", session="s", run_id="r", limits=limits)
            async for event in run:
                if ends == "cancelled" and event.type == "turn.started" and event.to_json()["turn"] == 2:
                    run.cancel()
            assert (await run.wait()).status == ("failed" if ends == "killed" else ends)

    run_virtual(go())
    path = tmp_path / "copy" if ends == "killed" else tmp_path / "j"
    if ends == "killed":
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE run SET holder = NULL")  # its process is gone

    def look(request: ModelRequest) -> Any:
        asked.append(request)
        return "ok"

    with opened_journal(path) as journal:
        agent = Agent(ScriptedModel(look), tools=[pay], cache=False, journal=journal)
        agent.run_sync("And now?", user="ann", session="s")
        asked.clear()
        agent.run_sync("Mine?", user="bob", session="s")
        assert len(asked[0].messages) == 1, "another user's runs can't see it"
        asked.clear()
        agent.run_sync("And then?", user="ann", session="s")
    said = [getattr(message, "content", None) or getattr(message, "text", "") for message in asked[0].messages]
    assert said[0] == "Pay the bill."
    assert ("it may have happened" if ends == "killed" else "paid") in str(said[2])
    assert said[-3:] == ["And now?", "ok", "And then?"]
