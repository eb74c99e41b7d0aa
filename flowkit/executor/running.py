"""Runs one call after another in as many tasks as there are slots: attempts, time-outs, retries, threads, claims.

A task that has run a call settles it, and takes the next that is ready; it ends when there is none. A call that can
be shared with other runs has a task of its own, since it may wait for another's flight.
"""

import asyncio
import contextvars
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from flowkit import events
from flowkit.cache import Cache, Hit, HitError, Lease
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.effects import ApprovalRule
from flowkit.errors import InDoubt, RunError, StoreError, ToolError
from flowkit.events import EventLog
from flowkit.executor.entries import AnyTool, Entry, Failure, Phase
from flowkit.executor.showing import show_name
from flowkit.graph import ModelStep
from flowkit.journal import Done, Fail, Resolution, Retry, RunJournal
from flowkit.slots import Slots
from flowkit.threads import ThreadJob, Threads

logger = logging.getLogger("flowkit.executor")

RETRIES_AT_MOST = 10
FIRST_DELAY_S = 0.1
"""The wait before the first retry, doubled for each further one and shortened by up to half at random."""
LONGEST_DELAY_S = 30.0
CALLS_IN_A_ROW = 64
"""How many calls a task runs before it lets the loop look at everything else."""

MAY_HAVE_HAPPENED = "it may have happened; don't repeat it"


class SlotWaiter:
    """A task that waits for a slot."""

    __slots__ = ("future", "slot")

    def __init__(self, slot: str | None) -> None:
        self.slot = slot
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Runner:
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
        self._log = log
        self._slots = slots
        self._cache = cache
        self._journal = journal
        self._make_context = make_context
        self._run_model_step = run_model_step
        self._settle = settle
        self._broken = broken
        self._random = random
        self._threads = Threads()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._context = contextvars.copy_context()
        self._is_spare = False
        self._taken: Entry | None = None

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
        """Wait without holding the slot of a running call; it goes on, when there is a slot again, before the rest."""
        slot = entry.slot
        self._give_back(slot)
        try:
            return await wait
        finally:
            waiter = SlotWaiter(slot)
            if not self._slots.take(waiter, slot, first=True):
                await self._wait_for_slot(waiter)

    # Tasks

    def _spawn(self, entry: Entry) -> None:
        if self._is_spare:
            self._is_spare = False
            self._taken = entry
        else:
            self._keep(self._work(entry))

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    async def _work(self, entry: Entry) -> None:
        in_a_row = 0
        before = contextvars.copy_context()
        while True:
            try:
                # It may have been cancelled between getting its slot and this task's beginning.
                failure = None if entry.has_ended else await self._run(entry)
            except (RunError, StoreError) as error:
                # The journal failed under an effect that ran: nobody waits for it for ever, and nothing new starts.
                self._broken(error)
                failure = Failure("in_doubt", f"{MAY_HAVE_HAPPENED}: that could not be recorded ({error})")
            following = self._release(entry, failure)
            # What becomes ready now may take this task instead of a new one.
            self._is_spare = following is None
            self._settle(entry, failure)
            if following is None:
                self._is_spare = False
                following, self._taken = self._taken, None
                if following is None:
                    return
            in_a_row += 1
            if in_a_row >= CALLS_IN_A_ROW or contextvars.copy_context() != before:
                # A tool that set a context variable must not be seen by the next call; the loop gets its turn, too.
                self._keep(self._work(following))
                return
            entry = following

    def _release(self, entry: Entry, failure: Failure | None) -> Entry | None:
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
            self._keep(self._work(following))

    async def _wait_for_slot(self, waiter: SlotWaiter) -> None:
        try:
            await waiter.future
        except asyncio.CancelledError:
            if not waiter.future.cancelled():
                self._give_back(waiter.slot)
            raise

    async def _fly(self, entry: Entry, key: str, user: str | None) -> None:
        """Lead the flight of this key, or wait for whoever leads it."""
        entry.worker = asyncio.current_task()
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
            waiter = SlotWaiter(entry.slot)
            if not self._slots.take(waiter, entry.slot):
                self._log.note(events.CallWaiting, entry.id, "slot")
                await self._wait_for_slot(waiter)
            failure = await self._run(entry)
            following = self._release(entry, failure)
            if following is not None:
                self._keep(self._work(following))
            self._settle(entry, failure)
            if failure is None:
                assert tool.ttl_s is not None
                await self._cache.set(key, entry.value, tool.ttl_s, tool=tool.name, user=user, resources=resources)
            elif failure.is_remembered(tool):
                await self._cache.set_error(key, failure.error, tool=tool.name, user=user)
        finally:
            await lease.release()
        if failure is not None and failure.state == "cancelled":
            # Whoever waits for this flight leads one of its own.
            raise asyncio.CancelledError
        return _Landed(entry.value, failure)

    # One call

    async def _run(self, entry: Entry) -> Failure | None:
        """Run a call that has its slot; its value is in the entry when nothing is returned."""
        plan = entry.plan
        entry.phase = Phase.RUNNING
        if plan is None:
            entry.attempt = 1
            entry.started_s = self._log.note(events.CallStarted, entry.id)
            return await self._attempt(entry, None, entry.node.timeout_s if isinstance(entry.node, ModelStep) else None)
        if plan.is_plain and (entry.extra is None or (entry.extra.timeout_s is None and entry.extra.retries is None)):
            entry.attempt = 1
            entry.started_s = self._log.note(events.CallStarted, entry.id, 1, entry.early)
            return await self._attempt(entry, None, None)
        if plan.is_read:
            return await self._try_again(entry, plan.tool)
        return await self._run_effect(entry, plan.tool)

    async def _run_effect(self, entry: Entry, tool: AnyTool) -> Failure | None:
        """Run what changes something: claimed before, recorded after, and reads of its resources ended both times."""
        assert entry.arguments is not None
        resources = tool.resources(entry.arguments)
        if resources:
            # Before the claim: one that may have happened, in a process that died in the middle, ends reads too.
            await self._cache.bump(resources)
        if self._journal is not None and (doubt := await self._claim(entry, tool, self._journal)) is not None:
            return doubt.failure
        if entry.stop is not None:
            failure: Failure | None = Failure("cancelled", entry.stop)
        else:
            failure = await self._try_again(entry, tool)
        if resources:
            await self._cache.bump(resources)
        if self._journal is not None:
            await self._journal.record(
                entry.id,
                state="finished" if failure is None else failure.state,
                value=entry.value,
                error=None if failure is None else failure.error,
                effect=tool.effect,
                attempt=entry.attempt,
            )
        return failure

    async def _claim(self, entry: Entry, tool: AnyTool, journal: RunJournal) -> "_Doubt | None":
        """Say in the journal that it starts; None when it may."""
        assert entry.arguments is not None
        try:
            entry.attempt = (
                await journal.claim(
                    entry.id, tool=tool.name, code=tool.code(), effect=tool.effect, arguments=entry.arguments.shown
                )
                - 1
            )
        except InDoubt as error:
            if tool.probe is None:
                return _Doubt(Failure("in_doubt", f"{error}; {MAY_HAVE_HAPPENED}"))
            return await self._probe(entry, tool, journal)
        except (RunError, StoreError) as error:
            return _Doubt(Failure("failed", f"not run: {error}"))
        return None

    async def _probe(self, entry: Entry, tool: AnyTool, journal: RunJournal) -> "_Doubt | None":
        """Let the tool's own probe say whether a write happened before the run was interrupted."""
        values = {} if entry.arguments is None else entry.arguments.values
        failure = await self._attempt(entry, None, None, partial(_call_probe, tool, values))
        if failure is not None:
            return _Doubt(Failure("in_doubt", f"its probe failed ({failure.error}): {MAY_HAVE_HAPPENED}"))
        match entry.more.raw:
            case None:
                return _Doubt(Failure("in_doubt", f"its probe can't tell: {MAY_HAVE_HAPPENED}"))
            case False:
                resolution: Resolution = Retry()
            case True:
                resolution = Done(None)
            case Done() | Retry() | Fail() as said:
                resolution = said
            case answer:
                resolution = Done(tool.dump(answer))
        await journal.resolve(entry.id, resolution)
        if isinstance(resolution, Retry):
            return await self._claim(entry, tool, journal)
        entry.source = "journal"
        if isinstance(resolution, Fail):
            return _Doubt(Failure("failed", resolution.error))
        entry.value = resolution.value
        return _Doubt(None)

    async def ask_rule(self, entry: Entry, rule: ApprovalRule) -> Failure | None:
        """Whether a person has to decide, left in `raw`; a rule that fails fails the call."""

        async def ask() -> bool:
            assert entry.arguments is not None
            return rule(entry.arguments.values, self._make_context(entry))

        return await self._attempt(entry, None, None, ask)

    async def _try_again(self, entry: Entry, tool: AnyTool) -> Failure | None:
        """Run it, and again where a failure may be a passing one and repeating does no harm."""
        retries = entry.extra.retries if entry.extra is not None and entry.extra.retries is not None else tool.retries
        left = min(retries, RETRIES_AT_MOST) if tool.effect != "write" else 0
        timeout_s = entry.extra.timeout_s if entry.extra is not None and entry.extra.timeout_s else tool.timeout_s
        delay_s = FIRST_DELAY_S
        while True:
            entry.attempt += 1
            context = self._make_context(entry) if tool.takes_context else None
            started_s = self._log.note(events.CallStarted, entry.id, entry.attempt, entry.early)
            if entry.started_s is None:
                entry.started_s = started_s
            failure = await self._attempt(entry, context, timeout_s)
            if failure is None or not failure.may_pass or left <= 0:
                return failure
            left -= 1
            pause_s = delay_s * (1 - self._random() / 2)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
            self._log.note(events.CallRetried, entry.id, failure.error, pause_s)
            stopped = await self._pause(entry, pause_s)
            if stopped is not None:
                return stopped

    async def _pause(self, entry: Entry, pause_s: float) -> Failure | None:
        """Wait before the next attempt, with the slot given to others meanwhile."""
        entry.worker = asyncio.current_task()
        pause = asyncio.ensure_future(asyncio.sleep(pause_s))
        try:
            await self.lend_slot(entry, pause)
        except asyncio.CancelledError:
            pause.cancel()
            return self._explain_cancellation(entry)
        finally:
            entry.worker = None
        return None

    async def _attempt(
        self,
        entry: Entry,
        context: Context[Any] | None,
        timeout_s: float | None,
        instead: Callable[[], Awaitable[object]] | None = None,
    ) -> Failure | None:
        """Call the function once, or `instead`. This is where whatever a tool's author wrote raises becomes a result."""
        entry.worker = asyncio.current_task()
        job: ThreadJob | None = None
        limit: asyncio.Timeout | None = None
        plan = entry.plan
        try:
            if plan is None:
                async with asyncio.timeout(timeout_s) as limit:
                    entry.value = await self._run_model_step(entry)
                return None
            tool = plan.tool
            assert entry.arguments is not None
            if instead is not None:
                entry.more.raw = await instead()
                return None
            if plan.is_async and timeout_s is None:
                result = await tool.invoke(entry.arguments, context)
            elif plan.is_async:
                async with asyncio.timeout(timeout_s) as limit:
                    result = await tool.invoke(entry.arguments, context)
            else:
                job = self._threads.run(partial(tool.invoke, entry.arguments, context))
                async with asyncio.timeout(timeout_s) as limit:
                    result = await job.future
            entry.value = tool.dump(result)
            if entry.extra is not None and entry.extra.on_end:
                entry.extra.raw = result
            return None
        except asyncio.CancelledError:
            failure = self._explain_cancellation(entry)
        except ToolError as error:
            failure = Failure("failed", str(error), error)
        except Exception as error:  # noqa: BLE001  # the one place: a tool may raise anything
            if limit is not None and limit.expired():
                failure = self._explain_timeout(entry, timeout_s)
            else:
                failure = _report(entry, error)
        finally:
            entry.worker = None
        if job is not None and job.is_busy:
            failure.job = job
            if context is not None:
                context.cancelled.set()
        return failure

    def _explain_cancellation(self, entry: Entry) -> Failure:
        task = asyncio.current_task()
        if entry.stop is None:
            if task is not None and task.cancelling():
                raise  # the executor's own end: called inside the handler, so it goes on
            return Failure("failed", "the tool cancelled itself")
        if task is not None:
            task.uncancel()
        if entry.plan is not None and entry.plan.tool.effect == "write":
            return Failure("in_doubt", f"stopped while it ran ({entry.stop}): {MAY_HAVE_HAPPENED}")
        return Failure("cancelled", entry.stop)

    def _explain_timeout(self, entry: Entry, timeout_s: float | None) -> Failure:
        if entry.plan is not None and entry.plan.tool.effect == "write":
            return Failure("in_doubt", f"no answer within {timeout_s:g} s: {MAY_HAVE_HAPPENED}")
        return Failure("failed", f"no answer within {timeout_s:g} s", may_pass=True)


class _Doubt:
    """A call that needn't run: what its probe found, or why nobody knows."""

    __slots__ = ("failure",)

    def __init__(self, failure: Failure | None) -> None:
        self.failure = failure


class _Landed:
    """What a flight brings; `age_s` when it came out of the cache."""

    __slots__ = ("age_s", "failure", "value")

    def __init__(self, value: JSON, failure: Failure | None, age_s: float | None = None) -> None:
        self.value = value
        self.failure = failure
        self.age_s = age_s


async def _call_probe(tool: AnyTool, values: Mapping[str, object]) -> object:
    assert tool.probe is not None
    result = tool.probe(**values)
    return await result if inspect.isawaitable(result) else result


def _report(entry: Entry, error: Exception) -> Failure:
    """An error that isn't meant for the model: it reads a reference, the log has the rest."""
    reference = secrets.token_hex(4)
    logger.error("call %s of %s failed (ref %s)", entry.id, show_name(entry.node), reference, exc_info=error)
    return Failure("failed", f"failed (ref {reference})", error, may_pass=True)
