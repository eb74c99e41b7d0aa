"""Rows 14 to 16: calls that are stopped, results that are no results, errors that are no words; and who sees what."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flowkit.agent import Agent
from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.events import EventLog
from flowkit.executor import Executor, Outcome
from flowkit.identity import RunIdentity
from flowkit.models.scripted import ScriptedModel, call
from flowkit.references import Reference, ToolCall
from flowkit.tools import Tool, tool
from flowkit.tools.toolsets import Toolset
from tests.stores import opened, opened_journal

MEGABYTES = 100


class Odd(Exception):
    """Can't be pickled, and can't be made again from its arguments."""

    def __init__(self, first: str, second: int) -> None:
        super().__init__(first)
        self.lock = threading.Lock()
        self.second = second


async def drive(
    path: Path,
    calls: Sequence[ToolCall],
    *tools: Tool[..., Any],
    act: Callable[[Executor], Awaitable[None]] | None = None,
    **options: Any,
) -> dict[str, Outcome]:
    """Run these calls in the run `r` of the journal; `act` is awaited when they are in."""
    with opened_journal(path) as journal:
        run = await journal.open_run("r", name="n")
        log = EventLog("r", time.monotonic)
        log.first_seq = run.first_seq
        log.listen(run.append_event)
        try:
            async with Executor(
                Toolset(*tools), log, identity=RunIdentity(run_id="r"), journal=run, **options
            ) as executor:
                for node in calls:
                    executor.add(node)
                if act is not None:
                    await act(executor)
                await executor.wait()
                return {node.id: executor.outcome(node.id) for node in calls}  # pyright: ignore[reportReturnType]
        finally:
            await run.close()


@pytest.mark.timing
@pytest.mark.parametrize("is_thread", [False, True])
def test_row_14_what_is_cancelled_in_the_middle_is_in_doubt_and_nothing_after_it_ever_starts(
    tmp_path: Path, is_thread: bool
) -> None:
    starts: list[int] = []
    has_started, let_go = threading.Event(), threading.Event()

    @tool(name="pay", effect="write")
    async def pay_slowly(number: int) -> int:
        """Never ends."""
        starts.append(number)
        has_started.set()
        await asyncio.Event().wait()
        return number

    @tool(name="pay", effect="write")
    def pay_in_a_thread(number: int) -> int:
        """Can't be stopped."""
        starts.append(number)
        has_started.set()
        let_go.wait()
        return number

    async def cancel(executor: Executor) -> None:
        await asyncio.to_thread(has_started.wait)
        executor.cancel("a", "no longer wanted")
        let_go.set()

    calls = [ToolCall("a", "pay", {"number": 1}), ToolCall("b", "pay", {"number": Reference("a")})]
    pay = pay_in_a_thread if is_thread else pay_slowly
    for act in (cancel, None):
        outcomes = asyncio.run(drive(tmp_path / "j", calls, pay, act=act))
        assert {node: outcome.state for node, outcome in outcomes.items()} == {"a": "in_doubt", "b": "skipped"}
        assert "may have happened" in (outcomes["a"].error or "")
    assert starts == [1]


@pytest.mark.slow
def test_row_15_a_result_of_a_hundred_megabytes_goes_to_a_blob(tmp_path: Path) -> None:
    runs: list[int] = []

    @tool(effect="write")
    async def export(number: int) -> str:
        """Give a lot."""
        runs.append(number)
        return "x" * (MEGABYTES * 2**20)

    for source in ("run", "journal"):
        outcomes = asyncio.run(drive(tmp_path / "j", [ToolCall("a", "export", {"number": 1})], export))
        assert outcomes["a"].source == source
        assert isinstance(outcomes["a"].value, str)
        assert len(outcomes["a"].value) == MEGABYTES * 2**20
    assert runs == [1]


def circle() -> list[JSON]:
    found: list[JSON] = []
    found.append(found)
    return found


@pytest.mark.parametrize("make", [lambda: float("nan"), circle, lambda: {1, object()}, threading.Lock])
@pytest.mark.parametrize("effect", ["read", "write"])
def test_row_15_a_result_that_is_not_json_is_a_typed_error_and_the_run_goes_on(
    tmp_path: Path, make: Callable[[], object], effect: Any
) -> None:
    runs: list[str] = []

    @tool(effect=effect)
    async def make_it() -> Any:
        """Give something else."""
        runs.append("bad")
        return make()

    @tool(effect=effect)
    async def count() -> int:
        """Give a number."""
        runs.append("good")
        return 1

    calls = [ToolCall("bad", "make_it"), ToolCall("good", "count")]
    for _ in range(2):
        outcomes = asyncio.run(drive(tmp_path / "j", calls, make_it, count))
        assert {node: outcome.state for node, outcome in outcomes.items()} == {"bad": "failed", "good": "finished"}
        assert "can't be JSON" in (outcomes["bad"].error or "")
    assert sorted(runs) == ["bad", "good"], "both ends were recorded"


def test_row_16_an_error_that_cannot_be_made_again_is_kept_as_its_words(tmp_path: Path) -> None:
    @tool(effect="write")
    async def stumble() -> int:
        """Raise."""
        raise Odd("internal detail", 2)

    first = asyncio.run(drive(tmp_path / "j", [ToolCall("a", "stumble")], stumble))["a"]
    second = asyncio.run(drive(tmp_path / "j", [ToolCall("a", "stumble")], stumble))["a"]
    assert (first.state, second.state, second.source) == ("failed", "failed", "journal")
    assert first.error == second.error
    assert "internal detail" not in (first.error or "")


# Who sees what


def test_secrets_are_nowhere_in_clear(tmp_path: Path) -> None:
    """Neither in the cache nor in the journal, its log and its blobs, nor in an event."""
    secret, token = "correct-horse-battery", "tok-1234567890"

    @tool(effect="read", ttl=60, secret=("token",))
    async def log_in(name: str, password: SecretStr, token: str) -> int:
        """Log in."""
        assert password.get_secret_value() == secret
        return len(token)

    @tool(effect="write", secret=("token",), approval=True)
    async def pay(password: SecretStr, token: str) -> str:
        """Pay."""
        return "x" * 100_000

    calls = [
        ToolCall("a", "log_in", {"name": "ada", "password": secret, "token": token}),
        ToolCall("b", "pay", {"password": secret, "token": token}),
    ]

    async def main() -> None:
        async with opened(tmp_path / "all" / "cache") as cache:
            outcomes = await drive(tmp_path / "all" / "j", calls[:1], log_in, pay, cache=cache)
            assert outcomes["a"].value == len(token)
            assert cache.get_stats().entries == 1
            with opened_journal(tmp_path / "all" / "j") as journal:
                run = await journal.open_run("r", name="n")
                log = EventLog("r", time.monotonic)
                log.listen(run.append_event)
                async with Executor(
                    Toolset(log_in, pay), log, identity=RunIdentity(run_id="r"), journal=run, cache=cache
                ) as executor:
                    executor.add(calls[1])
                    await executor.wait()
                    assert [waiting.id for waiting in executor.pending] == ["b"]
                await run.close()

    asyncio.run(main())
    files = [path for path in (tmp_path / "all").rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        data = path.read_bytes()
        assert secret.encode() not in data, path
        assert token.encode() not in data, path


def test_two_users_never_get_each_others_value(tmp_path: Path) -> None:
    """Not by the cache, not by a flight, not by a prefetch, not by going on with the other's run."""
    runs: list[str] = []

    @tool(ttl=60, scope="user")
    async def get_profile(ctx: Context[str] = CONTEXT) -> str:
        """Who is this?"""
        runs.append(ctx.data)
        await asyncio.sleep(0.01)
        return f"profile of {ctx.data}"

    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            async with opened(tmp_path / "c") as cache:

                def agent(*, is_prefetching: bool) -> Agent[str]:
                    turns = [[call("get_profile")], "Done."]
                    prefetch = [get_profile.call()] if is_prefetching else []
                    return Agent(
                        ScriptedModel(turns), tools=[get_profile], cache=cache, journal=journal, prefetch=prefetch
                    )

                async def ask(user: str, number: int) -> None:
                    run = agent(is_prefetching=number % 2 == 0)
                    result = await run.run("Who am I?", data=user, user=user, run_id=f"{user}-{number}")
                    values = [outcome.value for outcome in result.calls if outcome.state == "finished"]
                    assert set(map(str, values)) == {f"profile of {user}"}

                await asyncio.gather(*(ask(user, number) for number in range(3) for user in ("ada", "bob")))
                await asyncio.gather(*(ask(user, number) for number in range(3, 5) for user in ("ada", "bob")))
                # A run id is no identity: the same one is another run of another user's.
                result = await agent(is_prefetching=False).run("Who am I?", data="bob", user="bob", run_id="ada-0")
                assert [outcome.value for outcome in result.calls] == ["profile of bob"]

    asyncio.run(main())
    assert sorted(runs) == ["ada", "bob"], "each profile was computed once, for whoever it is"


def test_a_result_for_everybody_is_shared_by_runs_of_everybody(tmp_path: Path) -> None:
    """Not only within one run: the scope `all` has no identity, and that is not the run's."""
    runs: list[str] = []

    @tool(ttl=60)
    async def get_price(product_id: str) -> int:
        """What it costs."""
        runs.append(product_id)
        return 129_000

    async def main() -> None:
        async with opened(tmp_path / "c") as cache:
            for user in (None, "ada", "bob"):
                agent = Agent(
                    ScriptedModel([[call("get_price", product_id="P001")], "Done."]), tools=[get_price], cache=cache
                )
                result = await agent.run("How much?", user=user)
                assert [outcome.value for outcome in result.calls] == [129_000]

    asyncio.run(main())
    assert runs == ["P001"]


def test_a_write_in_doubt_ends_the_reads_on_its_resource(tmp_path: Path) -> None:
    """It may have happened, and its process died before it could say so."""

    @tool(effect="write", resource="order:{order_id}")
    async def cancel_order(order_id: str) -> None:
        """Cancel an order."""

    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            await run.claim("a", tool="cancel_order", code=cancel_order.code(), effect="write", arguments={})
            await run.close()
        async with opened(tmp_path / "c") as cache:
            before = cache.generation("order:1")
            calls = [ToolCall("a", "cancel_order", {"order_id": "1"})]
            outcomes = await drive(tmp_path / "j", calls, cancel_order, cache=cache)
            assert outcomes["a"].state == "in_doubt"
            assert cache.generation("order:1") != before

    asyncio.run(main())
