"""Runs that a server drives itself: what another process asks just as one stops to wait isn't missed."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from flowkit import Journal
from flowkit.runs.requests import Requests
from flowkit.testing import call
from flowkit.web.live_runs import LiveRuns
from flowkit.web.served import StartRequest, make_served
from tests.test_queues import Till, opened, status_of, with_journal

pytestmark = pytest.mark.usefixtures("journal_store")
SESSIONS = pytest.mark.parametrize("session", [None, "s"])


@pytest.fixture(autouse=True)
def never_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never look at what others ask of a run while it goes on, as if all of it came just before it stops."""
    monkeypatch.setattr("flowkit.web.live_runs.Requests", partial(Requests, poll_s=1e6))


async def start(till: Till, journal: Journal, session: str | None) -> LiveRuns:
    """Start a run that asks for a person, and goes on as long as the door is closed; return once it has asked."""
    agent = till.make_agent([call("refund", won=7), call("wait_at_door")], "Done.")
    runs = LiveRuns(make_served(agent), journal, 10)
    live = await runs.start(StartRequest("till", "ann", "r1", "Refund", session=session))
    await till.entered.wait()
    while not (details := await asyncio.to_thread(journal.show, "r1")) or not details.approvals:
        assert live.task is not None
        await asyncio.wait([live.task], timeout=0.01)
    return runs


async def wait_for_end(runs: LiveRuns) -> None:
    """Wait until the run is no longer driven here, and hasn't been begun again."""
    while (live := runs.find("ann", "r1")) is not None:
        assert live.task is not None
        await asyncio.wait([live.task])
        await asyncio.sleep(0)


@SESSIONS
def test_decision_of_another_process_as_the_run_stops_is_carried_out(tmp_path: Path, session: str | None) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        runs = await start(till, journal, session)
        async with opened(tmp_path / "j.sqlite3") as another:
            another.decide("r1", "turn/1/call/0", approved=True, by="boss")
            summary = another.find("r1")
            assert summary is not None
            assert summary.is_held  # so whoever decided has nothing further to do
        till.door.set()
        await wait_for_end(runs)
        assert status_of(journal, "r1") == "done"
        assert till.paid == [-7]

    with_journal(tmp_path, act)


@SESSIONS
def test_request_to_cancel_as_the_run_stops_is_carried_out(tmp_path: Path, session: str | None) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        runs = await start(till, journal, session)
        async with opened(tmp_path / "j.sqlite3") as another:
            assert another.request_cancel("r1")
        till.door.set()
        await wait_for_end(runs)
        assert status_of(journal, "r1") == "cancelled"
        assert till.paid == []

    with_journal(tmp_path, act)


def test_run_that_waits_for_a_person_is_left_alone(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        runs = await start(till, journal, None)
        till.door.set()
        await wait_for_end(runs)
        assert status_of(journal, "r1") == "waiting"

    with_journal(tmp_path, act)
