"""Run one call that has its slot: claim it, call the tool, retry it, and record the result."""

import asyncio
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, cast

from flowkit.cache import Cache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import InDoubt, RunBusy, RunError, StoreError, ToolError, ToolResultError
from flowkit.events import EventLog
from flowkit.executor.current import CALL
from flowkit.executor.entries import Entry, Failure, explain_unshown, refuse_result
from flowkit.executor.plan import AnyTool, Plan
from flowkit.executor.pooled import Pooled, TooSlow, prepare
from flowkit.executor.read_scope import READ_SCOPE, find_read_scope
from flowkit.executor.retries import find_timeout
from flowkit.executor.seals import INSIDE, Seal, find_unsealed
from flowkit.executor.table import Table
from flowkit.executor.worker import Claimed, InThread, Job, Running, TooLate, Worker
from flowkit.graph import ModelStep
from flowkit.journal import Done, Fail, Resolution, Retry, RunJournal
from flowkit.masking import mask_echoes, mask_text, show_traceback
from flowkit.pools.calls import Lost, NotBegun, PoolFailure, Unshown
from flowkit.references import substitute
from flowkit.tools.options import ApprovalRule

logger = logging.getLogger("flowkit.executor")

RunModelStep = Callable[[ModelStep, Mapping[str, JSON]], Awaitable[JSON]]

THREAD_WAIT_S = 30.0
"""How long to wait for the thread of a timed-out call before the call fails without a retry."""
_OWN_REASONS = (asyncio.CancelledError, ToolError, InDoubt, Unshown)
"""The errors that describe an attempt's outcome themselves, even after its timeout."""
MAY_HAVE_HAPPENED = "it may have happened; don't repeat it"


class Attempts:
    """Single attempts at calls; the caller provides the slot, the context, and the next attempt."""

    def __init__(
        self,
        table: Table,
        log: EventLog,
        *,
        cache: Cache,
        journal: RunJournal | None,
        run_model_step: RunModelStep | None,
        workers: Mapping[str, Worker],
    ) -> None:
        self._table = table
        self._log = log
        self._cache = cache
        self._journal = journal
        self._run_model_step = run_model_step
        self._in_thread = InThread()
        self._by_slot = workers

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which the calls run."""
        # Looked up once: in Python 3.11 each lookup makes a system call.
        return asyncio.get_running_loop()

    def close(self) -> None:
        """Stop the free threads."""
        self._in_thread.close()

    async def begin_effect(self, entry: Entry, tool: AnyTool, resources: Sequence[str]) -> "Doubt | None":
        """Claim a write and invalidate the reads of its resources; return None when it may run."""
        if tool.pool is not None and (entry.slot is None or entry.slot not in self._by_slot):
            # Before the claim: a call that a pool refuses hasn't started, and may run elsewhere.
            try:
                await prepare(tool, tool.pool)
            except PoolFailure as error:
                return Doubt(self._explain_pool(entry, error))
        if self._journal is not None and self._journal.is_leaving:
            return Doubt(await self._wait_to_be_stopped(entry))
        if resources:
            # Before the claim: a write interrupted by the death of a process may have happened, so it invalidates reads, too.
            try:
                await self._cache.bump(resources)
            except StoreError as error:
                return Doubt(Failure("failed", f"not run: {error}"))
        return None if self._journal is None else await self._claim(entry, tool, self._journal)

    async def end_effect(self, entry: Entry, tool: AnyTool, resources: Sequence[str], failure: Failure | None) -> None:
        """Record a write, and invalidate the reads that started while it ran."""
        if resources:
            with suppress(StoreError):  # the write has happened; the cache retries the invalidation
                await self._cache.bump(resources)
        if self._journal is not None:
            # It isn't over while a call inside it is in doubt: it runs again, and finds there how that was settled.
            runs_again = entry.has_doubt and tool.effect != "write"
            await self._journal.record(
                entry.id,
                state="retry" if runs_again else "finished" if failure is None else failure.state,
                value=None if runs_again else entry.value,
                error=None if failure is None else failure.error,
                effect=tool.effect,
                attempt=entry.attempt,
                is_running=failure is not None and failure.running is not None and failure.running.is_busy,
            )

    async def _claim(self, entry: Entry, tool: AnyTool, journal: RunJournal) -> "Doubt | None":
        """Claim the start in the journal; None when the call may start."""
        assert entry.arguments is not None
        try:
            entry.attempt = (
                await journal.claim(
                    entry.id,
                    tool=tool.name,
                    code=tool.code(),
                    effect=tool.effect,
                    arguments=self._table.known.mask(entry.arguments.shown),
                    resources=tool.resources(entry.arguments),
                    timeout_s=find_timeout(entry, tool),
                )
                - 1
            )
            if entry.attempt:
                entry.more.attempts_before = entry.attempt
        except InDoubt as error:
            if tool.probe is None or journal.may_still_run(entry.id):
                return Doubt(Failure("in_doubt", f"{error}; {MAY_HAVE_HAPPENED}"))
            return await self._probe(entry, tool, journal)
        except (RunBusy, StoreError) as error:
            return Doubt(_break(error))
        except RunError as error:
            return Doubt(Failure("failed", f"not run: {error}"))
        return None

    async def claim_again(self, entry: Entry, tool: AnyTool) -> Failure | None:
        """Check, before a further attempt of a write, that the run is still ours; None when it is."""
        if self._journal is None or tool.effect == "read":
            return None
        try:
            await self._journal.reclaim(entry.id, timeout_s=find_timeout(entry, tool))
        except (RunError, StoreError) as error:
            return _break(error)
        return None

    async def _probe(self, entry: Entry, tool: AnyTool, journal: RunJournal) -> "Doubt | None":
        """Call the tool's own probe to find out whether a write happened before the run was interrupted."""
        said: list[object] = []

        async def ask() -> None:
            assert tool.probe is not None
            result = tool.probe(**({} if entry.arguments is None else entry.arguments.values))
            said.append(await result if inspect.isawaitable(result) else result)

        failure = await self.attempt(entry, None, None, ask)
        if failure is not None:
            return Doubt(Failure("in_doubt", f"its probe failed ({failure.error}): {MAY_HAVE_HAPPENED}"))
        match said[0]:
            case None:
                return Doubt(Failure("in_doubt", f"its probe can't tell: {MAY_HAVE_HAPPENED}"))
            case False:
                resolution: Resolution = Retry()
            case True:
                resolution = Done(None)
            case Done() | Retry() | Fail() as resolved:
                resolution = resolved
            case answer:
                try:
                    resolution = Done(tool.dump(answer))
                except ToolResultError as error:
                    resolution = Fail(explain_unshown(error))
        await journal.resolve(entry.id, resolution)
        if isinstance(resolution, Retry):
            return await self._claim(entry, tool, journal)
        entry.more.source = "journal"
        if isinstance(resolution, Fail):
            return Doubt(Failure("failed", resolution.error))
        entry.value = resolution.value
        return Doubt(None)

    async def ask_rule(self, entry: Entry, rule: ApprovalRule, context: Context[Any]) -> Failure | None:
        """Call the approval rule; an error in the rule fails the call."""

        async def ask() -> None:
            assert entry.arguments is not None
            entry.more.asks_person = bool(rule(entry.arguments.values, context))

        return await self.attempt(entry, None, None, ask)

    async def ask_model(self, entry: Entry) -> JSON:
        """Ask the model of a step."""
        node = entry.node
        assert isinstance(node, ModelStep)
        if self._run_model_step is None:
            raise ToolError("this run has no model to ask")
        values = substitute(node.arguments, self._table.value)
        return await self._run_model_step(node, cast("Mapping[str, JSON]", values))

    async def attempt(
        self,
        entry: Entry,
        context: Context[Any] | None,
        timeout_s: float | None,
        instead: Callable[[], Awaitable[None]] | None = None,
    ) -> Failure | None:
        """Call the function once, or `instead`. Exceptions of the tool's code become results here."""
        if self._journal is not None and instead is None:
            late = await self._wait_until_ours(entry, self._journal)
            if late is not None:
                return late
        entry.worker = asyncio.current_task(self.loop)
        leaves = self._enter(entry)
        running: Running | None = None
        limit: asyncio.Timeout | None = None
        pooled: Pooled | None = None
        plan = entry.plan
        try:
            if plan is None:
                async with asyncio.timeout(timeout_s) as limit:
                    entry.value = await self.ask_model(entry)
                return None
            tool = plan.tool
            assert entry.arguments is not None
            if instead is not None:
                await instead()
                return None
            worker = self._by_slot.get(plan.slot) if self._by_slot and plan.slot is not None else None
            if worker is None and plan.pool is not None:
                job = Job(tool, entry.arguments, None, self._find_claim(entry, plan))
                pooled = Pooled(job, plan.pool, f"{self._log.run_id}:{entry.id}:{entry.attempt}")
                entry.value = await pooled.run(timeout_s)
                result = None
            elif worker is None and plan.is_async:
                if timeout_s is None:
                    result = await plan.invoke(entry.arguments, context)
                else:
                    async with asyncio.timeout(timeout_s) as limit:
                        result = await plan.invoke(entry.arguments, context)
                try:
                    entry.value = plan.dump(plan.tool.name, result)
                except ToolResultError as error:
                    return refuse_result(plan, error)
            else:
                running = (worker or self._in_thread).run(
                    Job(tool, entry.arguments, context, self._find_claim(entry, plan))
                )
                async with asyncio.timeout(timeout_s) as limit:
                    entry.value = await running.result
                result = running.raw
            if plan.has_secrets:
                entry.value = mask_echoes(entry.value, entry.find_secrets())
            if entry.on_end and entry.is_within:
                # What can be read once was read for its JSON.
                entry.more.raw = None if isinstance(result, Iterator) else result
            return None
        except TooLate:
            failure = None
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # a tool may raise anything
            is_late = limit is not None and limit.expired() and not isinstance(error, _OWN_REASONS)
            if is_late or isinstance(error, TooSlow):
                failure = self._explain_timeout(entry, timeout_s)
            else:
                has_begun = instead is None and (pooled is None or pooled.has_begun)
                failure = self.explain(entry, error, has_begun=has_begun)
        finally:
            entry.worker = None
            for leave in leaves:
                leave()
        if failure is None:
            return await self.attempt(entry, context, timeout_s)  # which claims it again first
        if running is not None and running.is_busy:
            running.stop()
            failure.running = running
        return failure

    def _enter(self, entry: Entry) -> list[Callable[[], object]]:
        """Set the current call for the code in this task; return a function that resets it."""
        leaves: list[Callable[[], object]] = []
        if CALL.get() is not entry:  # a task of its own: a read of a flight, a guard or a rule
            leaves.append(partial(CALL.reset, CALL.set(entry)))
        if entry.is_within or not entry.may_write:
            unsealed = find_unsealed(entry)
            if unsealed is not None:
                leaves.append(partial(INSIDE.reset, INSIDE.set(Seal(unsealed, INSIDE.get()))))
        leaves += [enter(entry.id) for enter in self._log.around]
        if entry.is_within or entry.extra is not None:
            reading = find_read_scope(entry)
            if reading is not None:
                leaves.append(partial(READ_SCOPE.reset, READ_SCOPE.set(reading)))
        return leaves

    def explain(self, entry: Entry, error: BaseException, *, has_begun: bool = True) -> Failure:
        """Make a failure from the exception of an attempt; called in the handler."""
        plan = entry.plan
        match error:
            case asyncio.CancelledError():
                return self.explain_cancellation(entry, has_begun=has_begun)
            case PoolFailure():
                return self._explain_pool(entry, error)
            case Unshown() if plan is not None:
                return refuse_result(plan, error.error)
            case InDoubt():
                # A read changes nothing, so it may run again even if it may have happened.
                is_read = plan is not None and plan.is_read
                said = self._hide(entry, str(error))
                said = said if is_read else f"{said}: {MAY_HAVE_HAPPENED}"
                return Failure("failed" if is_read else "in_doubt", said, error, may_pass=is_read)
            case ToolError():
                said = self._hide(entry, str(error))
                return Failure("failed", said, error, may_pass=error.retryable)
            case _:
                assert isinstance(error, Exception)
                return _report(entry, error, self._log.run_id, entry.find_secrets() | self._table.known.texts)

    def _hide(self, entry: Entry, text: str) -> str:
        """Mask the secrets of the call, and those that its run knows."""
        return self._table.known.mask_text(mask_text(text, entry.find_secrets()))

    async def wait_sealed(self, entry: Entry, seal: Seal) -> Failure | None:
        """Wait until a call inside another run is sealed, before it changes anything."""
        entry.worker = asyncio.current_task(self.loop)
        try:
            await seal.wait()
        except asyncio.CancelledError:
            return self.explain_cancellation(entry, has_begun=False)
        except ToolError as error:
            return Failure("failed", str(error))
        finally:
            entry.worker = None
        return None

    async def _wait_to_be_stopped(self, entry: Entry) -> Failure:
        """Start nothing that may change something, in a run that is about to be released."""
        entry.worker = asyncio.current_task(self.loop)
        try:
            await self.loop.create_future()
        except asyncio.CancelledError:
            return self.explain_cancellation(entry, has_begun=False)
        finally:
            entry.worker = None
        raise AssertionError("that future has no result")

    async def wait_until_free(self, entry: Entry, failure: Failure, running: Running) -> Failure:
        """Wait, with the slot and the resources kept, until the thread of an attempt has finished.

        A thread can't be stopped, and two attempts in parallel would both take effect. Return the failure without its
        thread if that has ended, otherwise the final failure of the call.
        """
        entry.worker = asyncio.current_task(self.loop)
        ended = asyncio.Event()
        running.on_free.append(ended.set)
        try:
            async with asyncio.timeout(THREAD_WAIT_S):
                if running.is_busy:
                    await ended.wait()
            failure.running = None
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            failure = self.explain_cancellation(entry)
            failure.running = running
        finally:
            entry.worker = None
        return failure

    async def _wait_until_ours(self, entry: Entry, journal: RunJournal) -> Failure | None:
        """Claim again if the claim is so old that another driver may have the run; None when it is ours.

        This process may have been stopped at any moment. So nothing is awaited between this and the call.
        """
        if entry.plan is None or entry.plan.is_read:
            return None
        while not journal.may_start(entry.id):
            failure = await self.claim_again(entry, entry.plan.tool)
            if failure is not None:
                return failure
        return None

    def _find_claim(self, entry: Entry, plan: Plan) -> Claimed | None:
        return None if self._journal is None or plan.is_read else Claimed(self._journal, entry.id)

    def explain_cancellation(self, entry: Entry, *, has_begun: bool = True) -> Failure:
        """Explain why a call's task was cancelled; if the executor itself is stopping, raise on."""
        task = asyncio.current_task(self.loop)
        if entry.stop is None:
            if task is not None and task.cancelling():
                raise  # the executor's own exceptions: called inside the handler, so it is raised again
            return Failure("failed", "the tool cancelled itself")
        if task is not None:
            task.uncancel()
        if has_begun and entry.plan is not None and entry.plan.tool.effect == "write":
            return Failure("in_doubt", f"stopped while it ran ({entry.stop}): {MAY_HAVE_HAPPENED}")
        return Failure("cancelled", entry.stop)

    def _explain_pool(self, entry: Entry, error: PoolFailure) -> Failure:
        """Explain that a pool didn't start a call, or lost it: only for a write is the effect in doubt."""
        if not isinstance(error, Lost):
            return Failure("failed", f"not run: {error}", error, may_pass=isinstance(error, NotBegun))
        if entry.plan is not None and entry.plan.tool.effect == "write":
            return Failure("in_doubt", f"{error}: {MAY_HAVE_HAPPENED}", error)
        return Failure("failed", str(error), error, may_pass=True)

    def _explain_timeout(self, entry: Entry, timeout_s: float | None) -> Failure:
        if entry.plan is not None and entry.plan.tool.effect == "write":
            return Failure("in_doubt", f"no answer within {timeout_s:g} s: {MAY_HAVE_HAPPENED}")
        return Failure("failed", f"no answer within {timeout_s:g} s", may_pass=True)


def _break(error: Exception) -> Failure:
    """Break off a call that didn't start since its run can't continue here."""
    failure = Failure("failed", f"not run: {error}")
    failure.broken = error
    return failure


class Doubt:
    """The outcome of a call that needn't run: its probe's result, or the reason that it is unknown."""

    __slots__ = ("failure",)

    def __init__(self, failure: Failure | None) -> None:
        self.failure = failure


def _report(entry: Entry, error: Exception, run_id: str, hidden: Collection[str]) -> Failure:
    """Report an error that isn't meant for the model: it reads a reference, the log has the rest."""
    reference = secrets.token_hex(4)
    extra = {"run_id": run_id, "call_id": entry.id, "tool": entry.node.name}
    if hidden:
        # The texts of the error and of its cause may repeat them.
        told = show_traceback(error, hidden)
        logger.error("call %s of %s failed (ref %s)\n%s", entry.id, entry.node.name, reference, told, extra=extra)
    else:
        logger.error("call %s of %s failed (ref %s)", entry.id, entry.node.name, reference, exc_info=error, extra=extra)
    return Failure("failed", f"failed (ref {reference})", error, may_pass=True)
