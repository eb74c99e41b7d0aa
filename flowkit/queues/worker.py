"""A worker: it polls the journal for runs without a driver, and drives them.

So several processes on one machine share the work in one SQLite file, and several machines the work in one PostgreSQL
database. It treats submitted runs, released runs and runs of dead processes alike. If several workers want the same
run, the journal gives it to one of them. With a queue, workers start runs sooner and poll the journal less often; they
find the runs that the queue lost.
"""

import asyncio
import logging
import random
import time
from collections.abc import Collection
from typing import Protocol, runtime_checkable

from flowkit.errors import FlowkitError
from flowkit.identity import RunIdentity
from flowkit.queues.driver import Driver
from flowkit.runs.queue import JournalQueue, RunQueue
from flowkit.runs.requests import identify
from flowkit.stores.waiting import wait_in_thread

logger = logging.getLogger("flowkit.queues")

POLL_S = 0.25
"""How often the journal is asked while there is room for runs, where no queue tells of them."""
SWEEP_S = 5.0
"""How often where one does."""
AT_ONCE = 16
LONGEST_WAIT_S = 60.0
"""How long a run that couldn't be driven is left alone, at most."""
LOOKED_AT = 1000
"""How many stopped runs are looked at, the oldest ones."""


@runtime_checkable
class Feed(Protocol):
    """A queue that delivers runs to a worker."""

    async def feed(self, worker: "QueueWorker", stop: asyncio.Event) -> None:
        """Feed the announced runs to the worker's `take`, until `stop` is set."""
        ...


class Waits:
    """Runs that couldn't be driven, and until when each is left alone: twice as long every time."""

    def __init__(self) -> None:
        self._waits: dict[RunIdentity, tuple[float, float]] = {}

    def add(self, run: RunIdentity) -> None:
        """Leave the run alone for a while."""
        wait_s = min(2 * self._waits.get(run, (0.5, 0.0))[0], LONGEST_WAIT_S)
        self._waits[run] = wait_s, time.monotonic() + wait_s

    def drop(self, run: RunIdentity) -> None:
        """Forget the run: it was resumed."""
        self._waits.pop(run, None)

    def choose(self, runs: Collection[RunIdentity]) -> list[RunIdentity]:
        """Choose those that needn't wait any more."""
        now = time.monotonic()
        return [run for run in runs if self._waits.get(run, (0.0, 0.0))[1] <= now]

    def keep(self, runs: Collection[RunIdentity]) -> None:
        """Forget all but these."""
        kept = set(runs)
        self._waits = {run: wait for run, wait in self._waits.items() if run in kept}


class QueueWorker:
    """Drive the journal's runs without a driver, several in parallel, until it is stopped."""

    def __init__(
        self, driver: Driver, *, queue: RunQueue | None = None, at_once: int = AT_ONCE, poll_s: float | None = None
    ) -> None:
        self.driver = driver
        self._queue = queue or JournalQueue()
        self._at_once = at_once
        self._poll_s = poll_s if poll_s is not None else SWEEP_S if isinstance(queue, Feed) else POLL_S
        self._tasks: dict[asyncio.Task[None], RunIdentity] = {}
        self._waits = Waits()
        self._found: list[RunIdentity] = []
        """Runs that nobody drove when the journal was asked last, the next one at the end."""
        self._ask_at = 0.0
        self._changed = asyncio.Event()
        """A run has ended, or the worker stops."""

    async def work(self, stop: asyncio.Event, grace_s: float) -> None:
        """Take runs until `stop` is set, then release unfinished ones; a write in them has `grace_s` to finish."""
        stopping = asyncio.create_task(stop.wait())
        feeding = asyncio.create_task(self._queue.feed(self, stop)) if isinstance(self._queue, Feed) else stopping
        try:
            while not stop.is_set():
                try:
                    await self._look()
                except FlowkitError as error:
                    logger.warning("the journal can't be asked for runs: %s", error)
                rest_s = max(0.0, self._ask_at - time.monotonic())
                await asyncio.wait({stopping, *self._tasks}, timeout=rest_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            self.driver.is_leaving = True
            self._changed.set()
            await self.driver.leave(grace_s)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=grace_s)
            feeding.cancel()
            await asyncio.wait([feeding])

    async def take(self, run: RunIdentity) -> bool:
        """Drive this run, once there is room for it, and return when that begins; False when the worker leaves."""
        while len(self._tasks) >= self._at_once and not self.driver.is_leaving:
            self._changed.clear()
            await self._changed.wait()
        if self.driver.is_leaving:
            return False
        if run not in self._tasks.values():
            self._start(run)
        return True

    async def _look(self) -> None:
        """Take runs without a driver up to the free capacity; poll the journal at most once per interval."""
        if time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + self._poll_s
            await self._ask()
        mine = set(self._tasks.values())
        while self._found and len(self._tasks) < self._at_once:
            run = self._found.pop()
            if run not in mine:
                self._start(run)

    async def _ask(self) -> None:
        """Find what nobody drives."""
        if len(self._tasks) >= self._at_once:
            return
        found = await wait_in_thread(self.driver.journal.stopped, LOOKED_AT)
        runs = [identify(summary) for summary in found if summary.name in self.driver.served.targets]
        if len(found) < LOOKED_AT:
            self._waits.keep([*runs, *self._tasks.values()])
        free = self._waits.choose(runs)
        # The older ones first, yet not all workers the same: who comes second has asked for nothing.
        near = 4 * self._at_once
        self._found = [*reversed(free[near:]), *random.sample(free[:near], min(near, len(free)))]

    def _start(self, run: RunIdentity) -> None:
        task = asyncio.create_task(self._drive(run), name=f"drive {run.run_id}")
        self._tasks[task] = run
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._changed.set()

    async def _drive(self, run: RunIdentity) -> None:
        try:
            status = await self.driver.drive(run.run_id, user=run.user, session=run.session)
        except FlowkitError as error:
            logger.warning("run %s: %s", run.run_id, error, extra={"run_id": run.run_id})
            status = "stopped"
        if status != "stopped":
            self._waits.drop(run)
        elif not self.driver.is_leaving:
            self._waits.add(run)
        else:
            await self._pass_on(run)

    async def _pass_on(self, run: RunIdentity) -> None:
        """Announce a released run to the other workers; one that isn't announced is found by them."""
        try:
            found = await wait_in_thread(self.driver.journal.find, run.run_id, user=run.user, session=run.session)
        except FlowkitError as error:
            logger.warning(
                "run %s is released, but the workers couldn't be notified: %s",
                run.run_id,
                error,
                extra={"run_id": run.run_id},
            )
            return
        if found is not None:
            await self._queue.put(run, found.name)
