"""Runs that are driven elsewhere: submitted, driven once however often a queue calls, cancelled and decided from anywhere."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, ConfigurationError, Context, Journal, ScriptedModel, drive, recipe, step, submit, tool
from flowkit.context import CONTEXT
from flowkit.errors import RunError, ToolArgumentsError
from flowkit.identity import RunIdentity
from flowkit.queues import Driver, QueueWorker
from flowkit.testing import call
from flowkit.web.served import Target, make_served
from tests.stores import journal_at

pytestmark = pytest.mark.usefixtures("journal_store")


class Till:
    """What the tools of these tests work on: payments that were made, and a door that holds some of them up."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.entered = asyncio.Event()
        self.door = asyncio.Event()

    def make_tools(self) -> tuple[Any, Any, Any]:
        @tool
        async def pay(won: int) -> str:
            """Pay."""
            self.paid.append(won)
            return f"paid {won}"

        @tool(effect="read")
        async def wait_at_door() -> str:
            """Wait."""
            self.entered.set()
            await self.door.wait()
            return "in"

        @tool(approval=True)
        async def refund(won: int) -> str:
            """Refund."""
            self.paid.append(-won)
            return f"refunded {won}"

        return pay, wait_at_door, refund

    def make_agent(self, *turns: object) -> Agent[str]:
        return Agent(ScriptedModel(list(turns)), name="till", tools=self.make_tools(), cache=False, early=False)  # pyright: ignore[reportArgumentType]


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Journal]:
    journal = await asyncio.to_thread(Journal, journal_at(path))
    try:
        yield journal
    finally:
        await asyncio.to_thread(journal.close)


def with_journal(tmp_path: Path, act: Callable[[Journal], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.sqlite3") as journal:
            await act(journal)

    asyncio.run(main())


def status_of(journal: Journal, run_id: str) -> str:
    found = journal.find(run_id)
    assert found is not None
    return found.status


def test_submitted_run_is_driven_once_however_often_it_is_delivered(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        agent = till.make_agent([call("pay", won=5)], "Paid.")
        run_id = await submit(agent, "Pay 5", journal=journal, user="ann", session="s", run_id="r1")
        assert run_id == "r1"
        assert status_of(journal, "r1") == "queued"
        assert till.paid == []
        said = await asyncio.gather(*(drive("r1", agent, journal=journal) for _ in range(3)))
        assert "done" in said
        assert {*said} <= {"done", "running"}
        assert await drive("r1", agent, journal=journal) == "done"  # late
        assert till.paid == [5]
        details = journal.show("r1")
        assert details is not None
        assert (details.summary.user, details.summary.session, details.output) == ("ann", "s", "Paid.")
        assert journal.conversation("s", user="ann")[0] == {"role": "user", "content": "Pay 5"}

    with_journal(tmp_path, act)


def test_run_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        agent = till.make_agent([call("wait_at_door")], "In.")
        await submit(agent, "Come in", journal=journal, run_id="r1")
        driving = asyncio.create_task(drive("r1", agent, journal=journal))
        await till.entered.wait()
        async with opened(tmp_path / "j.sqlite3") as another:
            assert await drive("r1", agent, journal=another) == "running"
        till.door.set()
        assert await driving == "done"

    with_journal(tmp_path, act)


def test_cancelled_drive_lets_go_of_the_run_and_the_next_goes_on(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        agent = till.make_agent([call("pay", won=1), call("wait_at_door")], "Done.")
        await submit(agent, "Go", journal=journal, run_id="r1")
        driving = asyncio.create_task(drive("r1", agent, journal=journal))
        await till.entered.wait()
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving
        assert [(run.run_id, run.status) for run in journal.stopped()] == [("r1", "running")]
        till.door.set()
        again = till.make_agent("Done.")
        assert await drive("r1", again, journal=journal) == "done"
        assert till.paid == [1]

    with_journal(tmp_path, act)


@pytest.mark.parametrize("is_recipe", [False, True])
def test_run_is_cancelled_from_another_process(is_recipe: bool, tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        _, wait_at_door, _ = till.make_tools()

        @recipe
        def visit() -> str:
            return step(wait_at_door)

        target: Target = visit if is_recipe else till.make_agent([call("wait_at_door")], "In.")
        await submit(target, None if is_recipe else "Come in", journal=journal, run_id="r1")
        driving = asyncio.create_task(drive("r1", target, journal=journal))
        await till.entered.wait()
        async with opened(tmp_path / "j.sqlite3") as another:
            assert another.request_cancel("r1")
            assert status_of(another, "r1") == "cancelling"
            assert await driving == "cancelled"
            assert status_of(another, "r1") == "cancelled"
            assert not another.request_cancel("r1")
        types = [event["type"] for event in journal.events("r1") if isinstance(event, dict)]
        assert types[0] == "run.started"
        assert types[-1] == "run.finished"
        assert await drive("r1", target, journal=journal) == "cancelled"

    with_journal(tmp_path, act)


def test_run_is_cancelled_from_another_process_while_the_app_blocks_all_threads_of_the_loop(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till, is_over = Till(), threading.Event()
        agent = till.make_agent([call("wait_at_door")], "In.")
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        async with opened(tmp_path / "j.sqlite3") as another:
            blocked = asyncio.create_task(asyncio.to_thread(is_over.wait))
            try:
                await submit(agent, "Come in", journal=journal, run_id="r1")
                driving = asyncio.create_task(drive("r1", agent, journal=journal))
                await till.entered.wait()
                assert another.request_cancel("r1")
                assert await asyncio.wait_for(driving, 60) == "cancelled"
            finally:
                is_over.set()
                await blocked

    with_journal(tmp_path, act)


def test_request_to_cancel_a_run_that_nobody_drives_is_carried_out_by_the_next_driver(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        agent = till.make_agent([call("pay", won=5)], "Paid.")
        await submit(agent, "Pay", journal=journal, session="s", run_id="r1")
        journal.request_cancel("r1")
        assert await drive("r1", agent, journal=journal) == "cancelled"
        assert till.paid == []
        types = [event["type"] for event in journal.events("r1") if isinstance(event, dict)]
        assert types == ["run.started", "run.finished"]
        assert journal.conversation("s") == [{"role": "user", "content": "Pay"}]

    with_journal(tmp_path, act)


def test_decision_made_in_another_process_is_seen_while_the_run_goes_on(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        agent = till.make_agent([call("refund", won=7), call("wait_at_door")], "Done.")
        await submit(agent, "Refund", journal=journal, run_id="r1")
        driving = asyncio.create_task(drive("r1", agent, journal=journal))
        await till.entered.wait()
        async with opened(tmp_path / "j.sqlite3") as another:
            while not (details := another.show("r1")) or not details.approvals:
                await asyncio.wait([driving], timeout=0.01)
            another.decide("r1", "turn/1/call/0", approved=True, by="boss")
        while not till.paid:
            await asyncio.wait([driving], timeout=0.01)
        assert not driving.done()
        till.door.set()
        assert await driving == "done"
        assert till.paid == [-7]

    with_journal(tmp_path, act)


def test_run_that_waits_is_left_alone_until_it_is_decided(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        agent = till.make_agent([call("refund", won=7)], "Refunded.")
        await submit(agent, "Refund", journal=journal, run_id="r1")
        assert await drive("r1", agent, journal=journal) == "waiting"
        assert await drive("r1", agent, journal=journal) == "waiting"
        assert journal.stopped() == []
        journal.decide("r1", "turn/1/call/0", approved=True, by="boss")
        assert journal.requeue("r1")
        assert [run.run_id for run in journal.stopped()] == ["r1"]
        assert await drive("r1", agent, journal=journal) == "done"
        assert till.paid == [-7]

    with_journal(tmp_path, act)


def test_same_run_submitted_again_is_the_same_and_with_other_inputs_an_error(tmp_path: Path) -> None:
    @tool(effect="read")
    async def double(number: int) -> int:
        return 2 * number

    @recipe
    def twice(number: int) -> int:
        return step(double, number)

    async def act(journal: Journal) -> None:
        for _ in range(2):
            await submit(twice, inputs={"number": 3}, journal=journal, run_id="r1")
        with pytest.raises(RunError, match="other inputs"):
            await submit(twice, inputs={"number": 4}, journal=journal, run_id="r1")
        with pytest.raises(ToolArgumentsError):
            await submit(twice, inputs={"number": "many"}, journal=journal)
        assert await drive("r1", twice, journal=journal) == "done"
        await submit(twice, inputs={"number": 3}, journal=journal, run_id="r1")
        assert status_of(journal, "r1") == "done"
        details = journal.show("r1")
        assert details is not None
        assert details.output == 6

    with_journal(tmp_path, act)


def test_what_can_not_be_driven_is_said(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        agent = Till().make_agent("Hi.")
        with pytest.raises(RunError, match="there is no run 'nothing'"):
            await drive("nothing", agent, journal=journal)
        with pytest.raises(ConfigurationError, match="no 'other'"):
            await submit(agent, "Hi", name="other", journal=journal)
        await submit(agent, "Hi", journal=journal, run_id="r1")
        other = Agent(ScriptedModel(["Hi."]), name="other", cache=False)
        with pytest.raises(ConfigurationError, match="'till', which this app doesn't have"):
            await drive("r1", other, journal=journal)
        assert status_of(journal, "r1") == "queued"
        for user in ("ann", "bob"):
            await submit(agent, "Hi", journal=journal, user=user, run_id="r2")
        with pytest.raises(RunError, match="name the user"):
            await drive("r2", agent, journal=journal)
        assert await drive("r2", agent, journal=journal, user="bob") == "done"

    with_journal(tmp_path, act)


def test_recipe_with_other_code_is_left_for_who_has_its_code(tmp_path: Path) -> None:
    @tool(effect="read")
    async def one() -> int:
        return 1

    @tool(effect="read")
    async def two() -> int:
        return 2

    def make(tool: Any) -> Target:
        @recipe(name="count")
        def count() -> int:
            return step(tool)

        return count

    async def act(journal: Journal) -> None:
        await submit(make(one), journal=journal, run_id="r1")
        assert await drive("r1", make(two), journal=journal) == "stopped"
        assert await drive("r1", make(one), journal=journal) == "done"

    with_journal(tmp_path, act)


APP = """
from flowkit import Agent, ScriptedModel

agent = Agent(ScriptedModel(["Hi."]), name="greeter", cache=False)
opened = []

def open_data(user: str = "c-1"):
    opened.append(user)
    if user == "nobody":
        raise OSError("the database is away")
    return user
"""


def test_run_whose_data_can_not_be_opened_fails_after_some_tries(tmp_path: Path) -> None:
    (tmp_path / "greeting_app.py").write_text(APP)

    async def act(journal: Journal) -> None:
        app = str(tmp_path / "greeting_app.py")
        await submit(app, "Hi", journal=journal, user="nobody", run_id="r1")
        driver = Driver(make_served(app), journal)
        said = [await driver.drive("r1") for _ in range(5)]
        assert said == ["stopped"] * 4 + ["failed"]
        details = journal.show("r1")
        assert details is not None
        assert "the database is away" in (details.summary.error or "")

    with_journal(tmp_path, act)


def test_worker_drives_what_nobody_does_and_no_more_than_it_has_room_for(tmp_path: Path) -> None:
    running: set[str] = set()
    most = 0
    ended = 0

    @tool(effect="read")
    async def count(ctx: Context[None] = CONTEXT) -> int:
        nonlocal most, ended
        running.add(ctx.identity.run_id)
        most = max(most, len(running))
        for _ in range(20):
            await asyncio.sleep(0)
        running.discard(ctx.identity.run_id)
        ended += 1
        return ended

    @recipe
    def counting() -> int:
        return step(count)

    async def act(journal: Journal) -> None:
        stop = asyncio.Event()
        for number in range(12):
            await submit(counting, journal=journal, run_id=f"r{number}")
        workers = [
            asyncio.create_task(
                QueueWorker(Driver(make_served(counting), journal), at_once=3, poll_s=0.01).work(stop, 1.0)
            )
            for _ in range(2)
        ]
        while any(run.status != "done" for run in journal.runs()):
            await asyncio.wait(workers, timeout=0.01)
        stop.set()
        await asyncio.gather(*workers)
        assert ended == 12
        assert most <= 6

    with_journal(tmp_path, act)


def test_worker_that_stops_lets_go_of_its_runs_behind_a_write_that_has_begun(tmp_path: Path) -> None:
    async def act(journal: Journal) -> None:
        till = Till()
        begun, may_end = asyncio.Event(), asyncio.Event()

        @tool
        async def ship() -> str:
            """Ship."""
            begun.set()
            await may_end.wait()
            till.paid.append(1)
            return "shipped"

        @tool
        async def bill(shipped: str) -> str:
            """Bill."""
            till.paid.append(2)
            return "billed"

        @recipe
        def order() -> str:
            shipped = step(ship)
            return step(bill, shipped)

        put: list[tuple[RunIdentity, str]] = []

        class Told:
            async def put(self, run: RunIdentity, name: str) -> None:
                put.append((run, name))

        await submit(order, journal=journal, run_id="r1", user="ann")
        stop = asyncio.Event()
        worker = QueueWorker(Driver(make_served(order), journal), queue=Told(), poll_s=0.01)
        working = asyncio.create_task(worker.work(stop, 60.0))
        await begun.wait()
        stop.set()
        await asyncio.wait([working], timeout=0.1)
        assert not working.done()
        may_end.set()
        await working
        assert till.paid == [1]
        assert put == [(RunIdentity("ann", None, "r1"), "order")]
        async with opened(tmp_path / "j.sqlite3") as another:
            assert [(run.run_id, run.status) for run in another.stopped()] == [("r1", "running")]
            assert await drive("r1", order, journal=another) == "done"
        assert till.paid == [1, 2]

    with_journal(tmp_path, act)
