"""Three workers over one PostgreSQL with a standby and one Redis, while all of them fail: no write twice, no stale read."""

import asyncio
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from flowkit import Journal, submit
from flowkit.cache import RedisCache
from flowkit.journal import Done, Resolution, Retry, RunSummary, migrate
from tests.fleet import CACHED_APP, LIMIT_S, Fleet, start_fleet
from tests.servers.postgres import PostgresServer, start_postgres
from tests.servers.redis import RedisServer, start_redis

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("FLOWKIT_TEST_KILLS", "20"))
"""How often something fails."""
LEASE_S = 5.0
SLEEP_S = 1.5 * LEASE_S
"""How long a worker is stopped that others take for dead."""


class Machines:
    """What the workers share, and what can happen to it."""

    def __init__(self, primary: PostgresServer, standby: PostgresServer, redis: RedisServer, fleet: Fleet) -> None:
        self.primary = primary
        self._standby = standby
        self._redis = redis
        self.fleet = fleet
        self.running = [self._start() for _ in range(3)]
        self._asleep: list[tuple[subprocess.Popen[bytes], float]] = []
        self._is_promoted = False

    def _start(self) -> "subprocess.Popen[bytes]":
        return self.fleet.start("--lease", f"{LEASE_S}")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait, and start workers in place of those that ended, as whoever supervises them does.

        One that starts while the database does ends with an error that says so.
        """

        def check() -> bool:
            self.running = [worker if worker.poll() is None else self._start() for worker in self.running]
            return condition()

        self.fleet.wait_until(check)

    def kill_worker(self, chance: random.Random) -> None:
        victim = self.running.pop(0)
        victim.kill()
        victim.wait()
        self.running.append(self._start())

    def stop_worker(self, chance: random.Random) -> None:
        victim = self.running.pop(0)
        victim.send_signal(signal.SIGSTOP)
        threading.Event().wait(chance.uniform(0, 0.5))
        victim.send_signal(signal.SIGCONT)
        self.running.append(victim)

    def hang_worker(self, chance: random.Random) -> None:
        """One is stopped for longer than its lease, so that others take its runs over; `wake_all` lets it go on."""
        victim = self.running.pop(0)
        victim.send_signal(signal.SIGSTOP)
        self._asleep.append((victim, time.monotonic() + SLEEP_S))
        self.running.append(self._start())

    def wake(self, *, all_of_them: bool = False) -> None:
        """Let those go on that have hung long enough, and wait until what they were doing has ended."""
        awake = [(worker, at) for worker, at in self._asleep if all_of_them or at <= time.monotonic()]
        self._asleep = [pair for pair in self._asleep if pair not in awake]
        for worker, at in awake:
            threading.Event().wait(max(0.0, at - time.monotonic()))
            worker.send_signal(signal.SIGCONT)
            worker.send_signal(signal.SIGTERM)
        for worker, _ in awake:
            # One that hung while it started has no runs, and is ended by the signal.
            assert worker.wait(LIMIT_S) in (0, -signal.SIGTERM), self.fleet.read_log()

    def crash_database(self, chance: random.Random) -> None:
        (self._standby if self._is_promoted else self.primary).restart("immediate")

    def fail_over(self, chance: random.Random) -> None:
        """The primary is gone for good, and its synchronous standby takes its place."""
        if not self._is_promoted:
            self._is_promoted = True
            self.primary.stop("immediate")
            self._standby.promote()

    def flush_cache(self, chance: random.Random) -> None:
        self._redis.execute("FLUSHALL")

    def evict_cache(self, chance: random.Random) -> None:
        self._redis.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        self._redis.execute("CONFIG", "SET", "maxmemory", "1")
        with suppress(Exception):  # it refuses what it has no room for
            self._redis.execute("SET", "filler", "x")
        self._redis.execute("CONFIG", "SET", "maxmemory", "0")

    def kill_cache(self, chance: random.Random) -> None:
        self._redis.restart()


@pytest.fixture
def machines(tmp_path: Path) -> Generator[Machines]:
    with start_postgres() as primary, start_redis() as redis:
        database = primary.create_database()
        migrate(primary.address(database))
        with primary.standby() as standby:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            primary.execute("SELECT pg_reload_conf()")
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            with start_fleet(tmp_path, f"postgresql://flowkit@{hosts}/{database}", app=CACHED_APP) as fleet:
                fleet.environment |= {"FLOWKIT_CACHE": redis.address(), "FLOWKIT_CACHE_DIR": str(tmp_path / "marks")}
                yield Machines(primary, standby, redis, fleet)


@pytest.mark.timeout(300 + 10 * KILLS)
def test_whatever_fails_each_write_is_done_once_or_in_doubt_and_no_read_is_stale(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, chance, began = machines.fleet, random.Random(KILLS), time.monotonic()
    app = fleet.load().app
    assert app is not None
    faults: list[Callable[[random.Random], None]] = [
        machines.kill_worker,
        machines.flush_cache,
        machines.stop_worker,
        machines.crash_database,
        machines.evict_cache,
        machines.kill_worker,
        machines.kill_cache,
        machines.hang_worker,
    ]
    with closing(Journal(fleet.journal)) as journal:

        async def submit_all(names: list[str]) -> None:
            for name in names:
                for user in ("ann", "bob"):
                    await submit(app, inputs={"order": name}, journal=journal, user=user, run_id=name)

        orders: list[str] = []
        for number in range(KILLS):
            more = [f"o{number}-{index}" for index in range(2)]
            asyncio.run(submit_all(more))
            orders += more
            seen = len(fleet.read("seen"))
            machines.wait_until(lambda seen=seen: len(fleet.read("seen")) > seen)
            threading.Event().wait(chance.uniform(0, 0.15))
            if number == KILLS // 2:
                machines.fail_over(chance)
            else:
                faults[number % len(faults)](chance)
            machines.wake()
        machines.wake(all_of_them=True)
        doubts = settle_all(machines, journal)
        done = {(run.user, run.run_id) for run in journal.runs(status="done", limit=10_000)}
    users = ("ann", "bob")
    assert done == {(user, order) for user in users for order in orders}
    # A read of before the payment, or of the other user's order, would have left another line.
    expected = [("pay", f"{user}/{order}/0") for user in users for order in orders]
    expected += [("ship", f"{user}/{order}/1") for user in users for order in orders]
    assert fleet.count_effects() == dict.fromkeys(expected, 1)
    with capsys.disabled():
        print(
            f"\n{KILLS} faults in {time.monotonic() - began:.0f} s: {len(done)} runs done, each write once;"
            f" {doubts} were in doubt"
        )


def settle_all(machines: Machines, journal: Journal) -> int:
    """Let every run end, and settle each write in doubt as a person who reads the log outside; return how many there were."""
    fleet, doubts = machines.fleet, 0

    def is_settled() -> bool:
        return all(run.status in ("done", "in_doubt") for run in journal.runs(limit=10_000))

    def say(run: RunSummary, place: str) -> Resolution:
        seen = f"{run.user}/{run.run_id}/{int(place == 'ship')}"
        has_happened = fleet.count_effects().get((place, seen))
        return Done(run.run_id if place == "pay" else seen) if has_happened else Retry()

    machines.wait_until(is_settled)
    while found := journal.runs(status="in_doubt", limit=1000):
        for run in found:
            details = journal.show(run.run_id, user=run.user)
            assert details is not None
            for node in [node for node in details.nodes.values() if node.state == "in_doubt"]:
                doubts += 1
                settled = fleet.settle(
                    journal, run.run_id, node.node, lambda run=run, node=node: say(run, node.node), user=run.user
                )
                asyncio.run(end_reads(fleet.environment["FLOWKIT_CACHE"], settled.resources))
            journal.requeue(run.run_id, user=run.user)
        machines.wait_until(is_settled)
    return doubts


async def end_reads(address: str, resources: tuple[str, ...]) -> None:
    cache = RedisCache(address, timeout_s=30)
    await cache.bump(resources)
    await cache.close()
