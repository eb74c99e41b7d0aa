"""The executor with a real cache and a real journal: what is found, what is ended, what a write in doubt comes to."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowkit.cache import Cache, DiskCache
from flowkit.clock import ManualClock
from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.errors import ToolError
from flowkit.events import CallWaiting, EventLog
from flowkit.executor import Approve, Deny, Executor
from flowkit.identity import RunIdentity
from flowkit.journal import Fail, Journal, RunJournal
from flowkit.references import ToolCall
from flowkit.tools import tool
from tests.executing import AnyTool, Drive, Ran, Shelf, check_events
from tests.stores import journal_at, opened

pytestmark = pytest.mark.usefixtures("journal_store")

runs: list[str] = []


@tool(ttl=60, resource="order:{order_id}", scope="user")
async def get_order(order_id: str) -> str:
    """Read an order."""
    runs.append(f"get {order_id}")
    return order_id


@tool(resource="order:{order_id}")
async def refund(order_id: str) -> str:
    """Write an order."""
    runs.append(f"refund {order_id}")
    return "done"


TOOLS: list[AnyTool] = [get_order, refund]


@pytest.fixture(autouse=True)
def _no_runs_yet() -> None:  # pyright: ignore[reportUnusedFunction]  # pytest finds it
    runs.clear()


async def run(
    calls: Sequence[ToolCall], tools: Sequence[AnyTool] = TOOLS, drive: Drive | None = None, **options: Any
) -> Ran:
    log = EventLog("r", asyncio.get_running_loop().time)
    executor = Executor(Shelf(tools), log, **options)
    async with executor:
        for call in calls:
            executor.add(call)
        if drive is not None:
            await drive(executor)
        await executor.wait()
    ran = Ran(executor, log)
    check_events(ran)
    return ran


def with_cache(folder: Path, test: Callable[[Cache], Any]) -> None:
    async def go() -> None:
        cache = DiskCache(folder / "cache")
        try:
            await test(cache)
        finally:
            await cache.close()

    asyncio.run(go())


@pytest.mark.sqlite_only
def test_result_is_found_again_and_not_by_another_user(tmp_path: Path) -> None:
    async def go(cache: Cache) -> None:
        call = [ToolCall("a", "get_order", {"order_id": "1"})]
        assert (await run(call, cache=cache, identity=RunIdentity("kim")))["a"].source == "run"
        found = (await run(call, cache=cache, identity=RunIdentity("kim")))["a"]
        assert found.source == "cache"
        assert found.age_s is not None
        assert (await run(call, cache=cache, identity=RunIdentity("lee")))["a"].source == "run"
        for _ in range(2):
            assert (await run(call, cache=cache))["a"].source == "run", "a run without a user shares nothing"

    with_cache(tmp_path, go)


@pytest.mark.sqlite_only
def test_write_ends_the_cached_reads_on_its_resource(tmp_path: Path) -> None:
    async def go(cache: Cache) -> None:
        reads = [ToolCall(f"r{name}", "get_order", {"order_id": name}) for name in "12"]
        await run(reads, cache=cache, identity=RunIdentity("kim"))
        await run([ToolCall("w", "refund", {"order_id": "1"})], cache=cache, identity=RunIdentity("kim"))
        ran = await run(reads, cache=cache, identity=RunIdentity("kim"))
        assert (ran["r1"].source, ran["r2"].source) == ("run", "cache")

    with_cache(tmp_path, go)


def test_result_without_a_resource_outlives_a_reboot_and_one_with_a_resource_does_not(tmp_path: Path) -> None:
    """A write may have ended it just before the power failed."""

    @tool(ttl=86_400)
    async def get_rate(currency: str) -> float:
        """Read a rate."""
        return 1_400.0

    async def go() -> None:
        clock = ManualClock()
        calls = [ToolCall("rate", "get_rate", {"currency": "usd"}), ToolCall("order", "get_order", {"order_id": "1"})]
        for sources in (("run", "run"), ("cache", "cache")):
            async with opened(tmp_path / "cache", clock=clock) as cache:
                ran = await run(calls, [get_rate, get_order], cache=cache, identity=RunIdentity("kim"))
                assert (ran["rate"].source, ran["order"].source) == sources
        clock.reboot()
        async with opened(tmp_path / "cache", clock=clock) as cache:
            ran = await run(calls, [get_rate, get_order], cache=cache, identity=RunIdentity("kim"))
            assert (ran["rate"].source, ran["order"].source) == ("cache", "run")

    asyncio.run(go())


def test_equal_reads_of_two_runs_share_a_flight(tmp_path: Path) -> None:
    async def go(cache: Cache) -> None:
        call = [ToolCall("a", "get_order", {"order_id": "1"})]
        both = await asyncio.gather(*(run(call, cache=cache, identity=RunIdentity("kim")) for _ in range(2)))
        assert sorted(ran["a"].source for ran in both) == ["flight", "run"]
        assert runs == ["get 1"]

    with_cache(tmp_path, go)


def with_journal(folder: Path, test: Callable[[RunJournal], Any]) -> None:
    async def go() -> None:
        journal = Journal(journal_at(folder / "runs.db"))
        held = await journal.open_run("r", name="test")
        try:
            await test(held)
        finally:
            await held.close()
            journal.close()

    asyncio.run(go())


def test_recorded_calls_never_run_again(tmp_path: Path) -> None:
    calls = [ToolCall("a", "get_order", {"order_id": "1"}), ToolCall("w", "refund", {"order_id": "2"})]

    async def go(journal: RunJournal) -> None:
        await run(calls, journal=journal, identity=RunIdentity(run_id="r"))

    with_journal(tmp_path, go)
    first = list(runs)

    async def again(journal: RunJournal) -> None:
        ran = await run(calls, journal=journal, identity=RunIdentity(run_id="r"))
        assert {ran["a"].source, ran["w"].source} == {"journal"}
        assert ran["w"].value == "done"
        assert journal.nodes["w"].resources == ("order:2",)

    with_journal(tmp_path, again)
    assert runs == first


def test_a_retry_renews_its_claim_and_keeps_its_key(tmp_path: Path) -> None:
    claims: list[float] = []
    keys: set[str] = set()

    async def go(journal: RunJournal) -> None:
        @tool(effect="idempotent", retries=2)
        async def put(ctx: Context[Any] = CONTEXT) -> str:
            """Put it there, at the third attempt."""
            claimed = journal.nodes["p"]
            assert claimed.state == "claimed"
            assert claimed.lease.until_wall is not None
            claims.append(claimed.lease.until_wall)
            keys.add(ctx.idempotency_key)
            if len(claims) < 3:
                raise OSError("the line is busy")
            return "put"

        ran = await run([ToolCall("p", "put")], [put], journal=journal, identity=RunIdentity(run_id="r"))
        assert ran["p"].state == "finished"

    with_journal(tmp_path, go)
    assert len(claims) == 3
    assert claims[0] < claims[1] < claims[2], "each attempt may take until a later time"
    assert len(keys) == 1


def test_write_whose_result_cannot_be_shown_reads_as_done(tmp_path: Path) -> None:
    @tool
    async def pay(won: int) -> object:
        runs.append(f"pay {won}")
        return object()

    async def go(journal: RunJournal) -> None:
        outcome = (
            await run([ToolCall("p", "pay", {"won": 1})], [pay], journal=journal, identity=RunIdentity(run_id="r"))
        )["p"]
        assert outcome.state == "failed"
        assert "it was done, but its result can't be shown" in (outcome.error or "")
        assert (outcome.error or "").endswith("don't repeat it")

    with_journal(tmp_path, go)
    with_journal(tmp_path, go)
    assert runs == ["pay 1"]


def unsure() -> None:
    raise ToolError("can't reach the bank")


@pytest.mark.parametrize(
    ("answer", "state", "value", "ran_again"),
    [
        (lambda: True, "finished", None, False),
        (lambda: "receipt 7", "finished", "receipt 7", False),
        (lambda: False, "finished", "paid", True),
        (lambda: Fail("refused"), "failed", None, False),
        (lambda: object(), "failed", None, False),
        (lambda: None, "in_doubt", None, False),
        (unsure, "in_doubt", None, False),
    ],
)
def test_probe_decides_on_a_write_that_was_interrupted(
    tmp_path: Path, answer: Callable[[], object], state: str, value: JSON, ran_again: bool
) -> None:
    def probe(won: int) -> object:
        return answer()

    @tool(probe=probe)
    async def pay(won: int) -> str:
        runs.append(f"pay {won}")
        return "paid"

    async def go(journal: RunJournal) -> None:
        # What a process leaves that died in the middle of the write.
        await journal.claim("p", tool="pay", code=pay.code(), effect="write", arguments={"won": 1})

    async def again(journal: RunJournal) -> None:
        outcome = (
            await run([ToolCall("p", "pay", {"won": 1})], [pay], journal=journal, identity=RunIdentity(run_id="r"))
        )["p"]
        assert (outcome.state, outcome.value) == (state, value)
        assert bool(runs) == ran_again

    with_journal(tmp_path, go)
    with_journal(tmp_path, again)


def test_write_in_doubt_without_a_probe_does_not_run(tmp_path: Path) -> None:
    async def go(journal: RunJournal) -> None:
        await journal.claim("w", tool="refund", code=refund.code(), effect="write", arguments={"order_id": "1"})

    async def again(journal: RunJournal) -> None:
        ran = await run([ToolCall("w", "refund", {"order_id": "1"})], journal=journal, identity=RunIdentity(run_id="r"))
        assert ran["w"].state == "in_doubt"
        assert "don't repeat it" in (ran["w"].error or "")

    with_journal(tmp_path, go)
    with_journal(tmp_path, again)
    assert runs == []


def test_decision_made_in_an_earlier_process_holds(tmp_path: Path) -> None:
    @tool(approval=True)
    async def buy(won: int) -> str:
        return "bought"

    async def go(journal: RunJournal) -> None:
        async def drive(executor: Executor) -> None:
            await executor.wait()
            assert executor.pending
            await journal.decide("b", approved=True, by="kim")
            executor.cancel_all("the process ends")

        await run([ToolCall("b", "buy", {"won": 1})], [buy], drive, journal=journal, identity=RunIdentity(run_id="r"))

    async def again(journal: RunJournal) -> None:
        ran = await run([ToolCall("b", "buy", {"won": 1})], [buy], journal=journal, identity=RunIdentity(run_id="r"))
        assert ran["b"].value == "bought"
        assert "approval.decided" in ran.kinds("b")

    with_journal(tmp_path, go)
    with_journal(tmp_path, again)


def test_decision_is_written_down(tmp_path: Path) -> None:
    @tool(approval=True)
    async def buy(won: int) -> str:
        return "bought"

    async def go(journal: RunJournal) -> None:
        async def drive(executor: Executor) -> None:
            await executor.wait()
            executor.decide("b", Approve(by="kim"))

        await run([ToolCall("b", "buy", {"won": 1})], [buy], drive, journal=journal, identity=RunIdentity(run_id="r"))
        decision = journal.approvals["b"].decision
        assert decision is not None
        assert (decision.approved, decision.by) == (True, "kim")

    with_journal(tmp_path, go)


def test_denial_made_in_an_earlier_process_holds(tmp_path: Path) -> None:
    @tool(approval=True)
    async def buy(won: int) -> str:
        return "bought"

    async def go(journal: RunJournal) -> None:
        async def drive(executor: Executor) -> None:
            await executor.wait()
            await journal.decide("b", approved=False, reason="too dear", by="kim")
            executor.cancel_all("the process ends")

        await run([ToolCall("b", "buy", {"won": 1})], [buy], drive, journal=journal, identity=RunIdentity(run_id="r"))

    async def again(journal: RunJournal) -> None:
        ran = await run([ToolCall("b", "buy", {"won": 1})], [buy], journal=journal, identity=RunIdentity(run_id="r"))
        assert (ran["b"].state, ran["b"].error) == ("denied", "too dear")
        assert ran["b"].decision == Deny("too dear", "kim")

    with_journal(tmp_path, go)
    with_journal(tmp_path, again)


@pytest.mark.sqlite_only
def test_read_that_may_be_shared_waits_for_a_slot_like_any_other(tmp_path: Path) -> None:
    @tool
    async def hold(ctx: Context[Any] = CONTEXT) -> str:
        assert ctx.log is not None
        async for event in ctx.log.watch():
            if isinstance(event, CallWaiting) and event.waiting_for == "slot":
                break
        runs.append("held")
        return "done"

    async def go(cache: Cache) -> None:
        calls = [ToolCall("h", "hold"), ToolCall("r", "get_order", {"order_id": "1"})]
        ran = await run(calls, [hold, get_order], cache=cache, identity=RunIdentity("kim"), slots=1)
        assert ran.states() == {"h": "finished", "r": "finished"}
        assert runs == ["held", "get 1"]

    with_cache(tmp_path, go)


@pytest.mark.sqlite_only
def test_error_that_a_tool_declares_is_remembered_and_no_other(tmp_path: Path) -> None:
    class SoldOut(ToolError):
        pass

    @tool(ttl=60, cache_errors=(SoldOut,))
    async def find(name: str) -> str:
        runs.append(name)
        raise SoldOut("sold out") if name == "tea" else ToolError("busy")

    async def go(cache: Cache) -> None:
        for sources in (("run", "run"), ("cache", "run")):
            ran = await run([ToolCall(name, "find", {"name": name}) for name in ("tea", "soup")], [find], cache=cache)
            assert (ran["tea"].state, ran["tea"].error) == ("failed", "sold out")
            assert (ran["tea"].source, ran["soup"].source) == sources
        assert sorted(runs) == ["soup", "soup", "tea"]

    with_cache(tmp_path, go)
