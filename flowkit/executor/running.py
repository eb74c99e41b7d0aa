"""The tasks that run calls: as many as run at once, each one call after another.

A call that has its slot is ready. A task that has run a call settles it, and takes the next that is ready; it ends
when there is none. While calls are ready, a task is on its way to take one, and when it begins it sends for two more:
so a hundred calls that wait are all begun within a few rounds of the loop, and a hundred that don't cost few tasks.
A call that can be shared with other runs has a task of its own, since it may wait for another's flight.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from flowkit import events
from flowkit.cache import Cache, Hit, HitError, Lease
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import RunError, StoreError
from flowkit.events import EventLog
from flowkit.executor.entries import Entry, Failure, Phase
from flowkit.executor.slots import Slots
from flowkit.executor.tool_attempts import MAY_HAVE_HAPPENED, Attempts
from flowkit.journal import RunJournal

CALLS_IN_A_ROW = 64
"""How many calls a task runs before it lets the loop look at everything else."""


class SlotWaiter:
    """A task that waits for a slot."""

    __slots__ = ("future", "slot")

    def __init__(self, slot: str | None) -> None:
        self.slot = slot
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Runner(Attempts):
    """The tasks and threads of one executor. `settle` is told how each call went, in the task that ran it."""

    def __init__(
        self,
        log: EventLog,
        *,
        slots: Slots[Entry | SlotWaiter],
        cache: Cache,
        journal: RunJournal | None,
        make_context: Callable[[Entry], Context[Any]],
        run_model_step: Callable[[Entry], Awaitable[JSON]],
        settle: Callable[[Entry, Failure | None], None],
        broken: Callable[[BaseException], None],
        random: Callable[[], float],
    ) -> None:
        super().__init__(
            log, cache=cache, journal=journal, make_context=make_context, run_model_step=run_model_step, random=random
        )
        self._slots = slots
        self._settle = settle
        self._broken = broken
        self._tasks: set[asyncio.Task[Any]] = set()
        self._context = contextvars.copy_context()
        self._ready: deque[Entry] = deque()
        self._coming = 0
        """How many tasks are on their way to take what is ready."""
        self._is_settling = False
        """Whether a task settles a call, and will look at what is ready itself."""

    def start(self, entry: Entry) -> None:
        """Run it as soon as there is a slot."""
        entry.phase = Phase.SLOT
        if self._slots.take(entry, entry.slot):
            self._spawn(entry)
        else:
            self._log.note(events.CallWaiting, entry.id, "slot")

    def start_shared(self, entry: Entry, key: str, user: str | None) -> None:
        """Run it, or wait for an equal call of another run or process, or find its result in the cache by then."""
        entry.phase = Phase.FLIGHT
        self._keep(self._fly(entry, key, user))

    def start_alone(self, work: Coroutine[Any, Any, Any]) -> None:
        """Keep a task of the executor's own, such as asking the journal for a decision."""
        self._keep(work)

    def stop(self, entry: Entry, reason: str) -> None:
        """Stop a call that runs or waits in a task; `settle` is told when it has."""
        entry.stop = reason
        if entry.extra is not None and entry.extra.context is not None:
            entry.extra.context.cancelled.set()
        if entry.worker is not None:
            entry.worker.cancel()

    async def wait_closed(self) -> None:
        """Wait for every task, and end the threads that are free."""
        cancelled = False
        while self._tasks:
            try:
                await asyncio.wait(tuple(self._tasks))
            except asyncio.CancelledError:
                cancelled = True  # a second cancellation must not leave tasks behind
        self._threads.close()
        if cancelled:
            raise asyncio.CancelledError

    async def lend_slot(self, entry: Entry, wait: "asyncio.Future[Any]") -> Any:
        """Wait without holding the slot of a running call; it goes on, when there is a slot again, before the rest.

        A tool may wait for many calls at once: its slot is lent with the first of them, and taken again after the last.
        """
        more = entry.more
        more.waits += 1
        if not more.is_lent:
            more.is_lent = True
            self._give_back(entry.slot)
        try:
            return await wait
        finally:
            more.waits -= 1
            # One that was stopped only has to end, and must not wait for that behind others.
            if not more.waits and entry.stop is None:
                await self._take_again(entry)

    async def _take_again(self, entry: Entry) -> None:
        more = entry.more
        waiter = SlotWaiter(entry.slot)
        if not self._slots.take(waiter, entry.slot, first=True):
            await self._wait_for_slot(waiter)
        # Meanwhile another of the tool's tasks may have begun to wait, or got the slot, or the tool may have ended.
        if more.waits or not more.is_lent or entry.has_ended:
            self._give_back(entry.slot)
        else:
            more.is_lent = False

    def _spawn(self, entry: Entry) -> None:
        """It has its slot: let a task take it."""
        self._ready.append(entry)
        if not self._is_settling and not self._coming:
            self._send_for_help()

    def _send_for_help(self) -> None:
        if self._coming < len(self._ready):
            self._coming += 1
            self._keep(self._work())

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    async def _work(self) -> None:
        self._coming -= 1
        if not self._ready:
            return
        following: Entry | None = self._ready.popleft()
        self._send_for_help()
        self._send_for_help()
        in_a_row = 0
        was_stopped = False
        before = contextvars.copy_context()
        while following is not None:
            entry = following
            if in_a_row >= CALLS_IN_A_ROW or was_stopped or contextvars.copy_context() != before:
                # What a tool left in the task, a variable or a cancellation, must not reach the next call; and the
                # loop gets its turn, too.
                self._ready.appendleft(entry)
                self._send_for_help()
                return
            in_a_row += 1
            try:
                # It may have been cancelled between getting its slot and this task's beginning.
                failure = None if entry.phase >= Phase.ENDED else await self._run(entry)
            except (RunError, StoreError) as error:
                # The journal failed under an effect that ran: nobody waits for it for ever, and nothing new starts.
                self._broken(error)
                failure = Failure("in_doubt", f"{MAY_HAVE_HAPPENED}: that could not be recorded ({error})")
            was_stopped = entry.stop is not None
            is_simple = failure is None and entry.extra is None
            following = self._free(entry.slot) if is_simple else self._release(entry, failure)
            self._is_settling = True
            try:
                self._settle(entry, failure)
            finally:
                self._is_settling = False
            if following is None and self._ready:
                following = self._ready.popleft()
            if self._ready and not self._coming:
                self._send_for_help()

    def _release(self, entry: Entry, failure: Failure | None) -> Entry | None:
        """Give back the slot of a call that ran, if it has it and nothing of it runs any more; as `_free`."""
        if entry.extra is not None and entry.extra.is_lent:
            return None
        if failure is not None and failure.job is not None and failure.job.is_busy:
            # The thread goes on, so its slot isn't free.
            failure.job.on_free.append(lambda: self._give_back(entry.slot))
            return None
        return self._free(entry.slot)

    def _free(self, slot: str | None) -> Entry | None:
        """Give a slot back; an entry that gets it has to be run by the caller."""
        while True:
            item = self._slots.release(slot)
            if item is None:
                return None
            if isinstance(item, SlotWaiter):
                if not item.future.done():
                    item.future.set_result(None)
                    return None
            elif item.phase == Phase.SLOT:
                return item
            slot = item.slot

    def _give_back(self, slot: str | None) -> None:
        following = self._free(slot)
        if following is not None:
            self._spawn(following)

    async def _wait_for_slot(self, waiter: SlotWaiter) -> None:
        try:
            await waiter.future
        except asyncio.CancelledError:
            if not waiter.future.cancelled():
                self._give_back(waiter.slot)
            raise

    async def _fly(self, entry: Entry, key: str, user: str | None) -> None:
        """Lead the flight of this key, or wait for whoever leads it."""
        entry.worker = asyncio.current_task(self._loop)
        try:
            landed, is_ours = await self._cache.flights.share(
                key,
                lambda: self._lead(entry, key, user),
                joined=partial(self._tell_joined, entry),
            )
        except asyncio.CancelledError:
            entry.worker = None
            if not entry.has_ended:
                self._settle(entry, Failure("cancelled", entry.stop or "stopped"))
            return
        entry.worker = None
        if entry.has_ended:
            return
        if landed.age_s is not None:
            entry.source, entry.age_s = "cache", landed.age_s
        elif not is_ours:
            entry.source = "flight"
        entry.value = landed.value
        self._settle(entry, landed.failure)

    def _tell_joined(self, entry: Entry) -> None:
        self._log.note(events.CallWaiting, entry.id, "calls")

    async def _lead(self, entry: Entry, key: str, user: str | None) -> "_Landed":
        assert entry.plan is not None
        tool = entry.plan.tool
        resources = () if entry.arguments is None else tool.resources(entry.arguments)
        lease = await self._cache.lease(key, tool=tool.name)
        match lease:
            case Hit():
                return _Landed(lease.value, None, lease.age_s)
            case HitError():
                return _Landed(None, Failure("failed", lease.error), lease.age_s)
            case Lease():
                pass
        try:
            if entry.has_ended:
                raise asyncio.CancelledError  # dropped while it waited for the lease, and its arguments with it
            waiter = SlotWaiter(entry.slot)
            if not self._slots.take(waiter, entry.slot):
                self._log.note(events.CallWaiting, entry.id, "slot")
                await self._wait_for_slot(waiter)
            failure = await self._run(entry)
            following = self._release(entry, failure)
            if following is not None:
                self._spawn(following)
            self._settle(entry, failure)
            if failure is None:
                assert tool.ttl_s is not None
                await self._cache.set(key, entry.value, tool.ttl_s, tool=tool.name, user=user, resources=resources)
            elif failure.is_remembered(tool):
                await self._cache.set_error(key, failure.error, tool=tool.name, user=user, resources=resources)
        finally:
            await lease.release()
        if failure is not None and failure.state == "cancelled":
            # Whoever waits for this flight leads one of its own.
            raise asyncio.CancelledError
        return _Landed(entry.value, failure)


class _Landed:
    """What a flight brings; `age_s` when it came out of the cache."""

    __slots__ = ("age_s", "failure", "value")

    def __init__(self, value: JSON, failure: Failure | None, age_s: float | None = None) -> None:
        self.value = value
        self.failure = failure
        self.age_s = age_s
