"""A driver stopped by SIGSTOP at each call of a journal in PostgreSQL, beside a cache in Redis, and woken again.

Effects are written down outside of flowkit: each write is there once, and no read is older than the writes before it.
"""

import asyncio
import inspect
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from forking import Child, Forks, say

from flowkit.cache import Cache, RedisCache
from flowkit.clock import SystemClock
from flowkit.context import CONTEXT, Context
from flowkit.errors import RunBusy, StoreError
from flowkit.events import EventLog
from flowkit.executor import Executor
from flowkit.identity import RunIdentity
from flowkit.journal import Done, Journal, Retry, RunJournal
from flowkit.journal import run as journal_run
from flowkit.references import Reference, ToolCall
from flowkit.tools import tool
from flowkit.tools.toolsets import Toolset
from tests.example_counts import IS_THOROUGH
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.stores import fast_folder

pytestmark = [pytest.mark.skipif(os.name != "posix", reason="forks, and signals"), pytest.mark.slow]

LEASE_S = 0.5
START_WITHIN_S = 0.5
CALLS_OF_THE_JOURNAL = 30
"""More than the run below makes of them."""


@dataclass
class Bank:
    """A file of effects, and the call of the journal at which this process stops itself."""

    effects: Path
    stop_at: int | None = None
    calls: int = 0

    def note(self, context: Context["Bank"]) -> int:
        """Note an effect; return how many payments there are."""
        handle = os.open(self.effects, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(handle, json.dumps({"node": context.call_id, "key": context.idempotency_key}).encode() + b"\n")
        os.close(handle)
        return self.count_payments()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.effects.read_text().splitlines()] if self.effects.exists() else []

    def count_payments(self) -> int:
        return sum(effect["node"].startswith("pay") for effect in self.read())


@tool(ttl=300, scope="all", resource="account")
async def get_balance(after: int = 0, ctx: Context[Bank] = CONTEXT) -> int:
    """Count the payments."""
    return ctx.data.count_payments()


@tool(effect="write", resource="account")
async def pay(after: int = 0, ctx: Context[Bank] = CONTEXT) -> int:
    """Pay, and say how many payments there are."""
    return ctx.data.note(ctx)


@tool(effect="idempotent")
async def put(after: int = 0, ctx: Context[Bank] = CONTEXT) -> int:
    """Set something."""
    ctx.data.note(ctx)
    return after


TOOLS = Toolset(get_balance, pay, put)
NAMES = {"look-1": "get_balance", "pay-1": "pay", "look-2": "get_balance", "put": "put", "pay-2": "pay"}
CALLS = [
    ToolCall(node, name, {"after": Reference(before)} if before else {})
    for (node, name), before in zip(NAMES.items(), ["", *NAMES], strict=False)
]


class StoppingJournal:
    """A run's journal that stops its process before one of its calls."""

    def __init__(self, run: RunJournal, bank: Bank) -> None:
        self._run = run
        self._bank = bank

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._run, name)
        if name != "post_read" and not inspect.iscoroutinefunction(found):
            return found

        def call(*args: Any, **named: Any) -> Any:
            self._bank.calls += 1
            if self._bank.calls == self._bank.stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)
            return found(*args, **named)

        return call


async def execute(bank: Bank, cache: Cache, calls: list[ToolCall], journal: RunJournal | None = None) -> dict[str, Any]:
    """Run the calls; give the state and the value of each."""
    log = EventLog("r", time.monotonic)
    if journal is not None:
        log.first_seq = journal.first_seq
        log.listen(journal.append_event)
    identity = RunIdentity(run_id="r")
    async with Executor(TOOLS, log, data=bank, identity=identity, journal=journal, cache=cache) as executor:
        for call in calls:
            executor.add(call)
        await executor.wait()
        outcomes = {call.id: executor.outcome(call.id) for call in calls}
    return {node: (outcome.state, outcome.value) if outcome else None for node, outcome in outcomes.items()}


def drive(folder: str, address: str, redis: str, stop_at: int | None) -> None:
    """Start the run or go on with it, and say how it ended."""
    bank = Bank(Path(folder) / "effects", stop_at)
    journal_run.START_WITHIN_S = START_WITHIN_S

    async def main() -> None:
        cache = RedisCache(redis)
        with closing(Journal(address, lease_s=LEASE_S)) as journal:
            try:
                run = await journal.open_run("r", name="n")
                say("driving")
                stopping = cast(RunJournal, StoppingJournal(run, bank))
                ended = await execute(bank, cache, CALLS, stopping)
                is_done = all(found and found[0] == "finished" for found in ended.values())
                await stopping.finish("done" if is_done else "in_doubt")
                say(json.dumps(ended))
            except (RunBusy, StoreError) as error:
                say(f"stopped: {error}")
        await cache.close()

    asyncio.run(main())


@pytest.fixture(scope="module")
def forks() -> Generator[Forks]:
    with Forks(["test_stopped_drivers"]) as forks:
        yield forks


@dataclass
class Story:
    """One run through a stop, a take-over, a wake and decisions."""

    forks: Forks
    folder: Path
    address: str
    redis: str

    @property
    def bank(self) -> Bank:
        return Bank(self.folder / "effects")

    def start(self, stop_at: int | None = None) -> Child:
        self.wait_until_free()
        return self.forks.start("test_stopped_drivers:drive", self.folder, self.address, self.redis, stop_at)

    def wait_until_free(self) -> None:
        """Wait until nobody holds the run, and nothing that was claimed may be running."""
        until = time.monotonic() + 60
        with closing(Journal(self.address)) as journal:
            while (shown := journal.show("r")) is not None and (
                shown.summary.is_held
                or any(not node.is_ended and node.lease.may_run(SystemClock()) for node in shown.nodes.values())
            ):
                assert time.monotonic() < until
                time.sleep(0.02)

    def check(self) -> None:
        effects = self.bank.read()
        counts = Counter(effect["node"] for effect in effects)
        assert all(count == 1 for node, count in counts.items() if node.startswith("pay")), counts
        assert len({effect["key"] for effect in effects if effect["node"] == "put"}) <= 1

    def finish(self) -> None:
        """Go on until the end, and decide what is in doubt as the bank says."""
        for _ in range(4):
            child = self.start()
            assert child.hear() == "driving"
            ended = json.loads(child.hear())
            child.wait()
            self.check()
            if ended["pay-2"] == ["finished", 2]:
                assert ended["look-1"] == ["finished", 0]
                assert ended["look-2"] == ["finished", 1], "it is older than the payment before it"
                return
            self.decide()
        raise AssertionError("it never ended")

    def decide(self) -> None:
        self.wait_until_free()
        with closing(Journal(self.address)) as journal:
            shown = journal.show("r")
            assert shown is not None
            for node, found in shown.nodes.items():
                if found.state == "in_doubt":
                    paid = sorted(e["node"] for e in self.bank.read() if e["node"].startswith("pay"))
                    journal.resolve("r", node, Done(paid.index(node) + 1) if node in paid else Retry(), by="ada")

    def look(self) -> int:
        """Read the balance in another run, of this process."""

        async def go() -> int:
            cache = RedisCache(self.redis)
            ended = await execute(self.bank, cache, [ToolCall("look", "get_balance")])
            await cache.close()
            return cast(int, ended["look"][1])

        return asyncio.run(go())


def test_driver_that_is_stopped_at_any_call_of_the_journal_repeats_nothing_and_no_read_is_old(
    forks: Forks, postgres_server: PostgresServer, journal_template: str, redis_server: RedisServer
) -> None:
    took_over = 0
    with fast_folder() as place:
        for stop_at in range(1, CALLS_OF_THE_JOURNAL, 1 if IS_THOROUGH else 2):
            name = postgres_server.create_database(journal_template)
            address = postgres_server.address(name)
            story = Story(forks, place / str(stop_at), address, redis_server.create_database())
            story.folder.mkdir()
            first = story.start(stop_at)
            assert first.hear() == "driving"
            if not first.has_stopped():
                break
            story.finish()
            first.go_on()
            assert first.hear().startswith("stopped: run 'r': another process took over")
            first.wait()
            story.check()
            assert story.bank.count_payments() == 2
            assert story.look() == 2, "what the woken driver had read isn't found"
            postgres_server.drop_database(name)
            took_over += 1
        else:
            raise AssertionError("there are more calls of the journal than that")
    assert took_over > 3
