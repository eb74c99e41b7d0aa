"""One call, once it has its slot: claimed, run, tried again, recorded; this is where a tool is called."""

import asyncio
import inspect
import logging
import secrets
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import cached_property, partial
from typing import Any

from flowkit import events
from flowkit.cache import Cache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import InDoubt, RunError, StoreError, ToolError, ToolResultError
from flowkit.events import EventLog
from flowkit.executor.entries import AnyTool, Entry, Failure, Phase
from flowkit.executor.threads import ThreadJob, Threads
from flowkit.graph import ModelStep
from flowkit.journal import Done, Fail, Resolution, Retry, RunJournal
from flowkit.masking import mask_echoes, mask_text
from flowkit.tools.options import ApprovalRule

logger = logging.getLogger("flowkit.executor")

RETRIES_AT_MOST = 10
FIRST_DELAY_S = 0.1
"""The wait before the first retry, doubled for each further one and shortened by up to half at random."""
LONGEST_DELAY_S = 30.0
MAY_HAVE_HAPPENED = "it may have happened; don't repeat it"


class Attempts(ABC):
    """Runs calls one at a time; who calls it gives the slot."""

    def __init__(
        self,
        log: EventLog,
        *,
        cache: Cache,
        journal: RunJournal | None,
        make_context: Callable[[Entry], Context[Any]],
        run_model_step: Callable[[Entry], Awaitable[JSON]],
        random: Callable[[], float],
    ) -> None:
        self._log = log
        self._cache = cache
        self._journal = journal
        self._make_context = make_context
        self._run_model_step = run_model_step
        self._random = random
        self._threads = Threads()

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # Looked up once: in Python 3.11 the look asks the system for the process's id.
        return asyncio.get_running_loop()

    @abstractmethod
    async def lend_slot(self, entry: Entry, wait: "asyncio.Future[Any]") -> Any:
        """Wait without holding the slot of a running call."""

    def _run(self, entry: Entry) -> Coroutine[Any, Any, Failure | None]:
        """Run a call that has its slot; its value is in the entry when nothing is returned."""
        plan = entry.plan
        entry.phase = Phase.RUNNING
        if plan is None:
            entry.attempt = 1
            entry.started_s = self._log.note(events.CallStarted, entry.id)
            return self._attempt(entry, None, entry.node.timeout_s if isinstance(entry.node, ModelStep) else None)
        if plan.is_plain and (entry.extra is None or (entry.extra.timeout_s is None and entry.extra.retries is None)):
            entry.attempt = 1
            entry.started_s = self._log.note(events.CallStarted, entry.id, 1, entry.early)
            return self._attempt(entry, None, None)
        if plan.is_read:
            return self._try_again(entry, plan.tool)
        return self._run_effect(entry, plan.tool)

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
                    entry.id,
                    tool=tool.name,
                    code=tool.code(),
                    effect=tool.effect,
                    arguments=entry.arguments.shown,
                    resources=tool.resources(entry.arguments),
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
                try:
                    resolution = Done(tool.dump(answer))
                except ToolResultError as error:
                    resolution = Fail(_explain_unshown(error))
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
            made_before = 0 if entry.extra is None else len(entry.extra.children)
            failure = await self._attempt(entry, context, timeout_s)
            if failure is None or not failure.may_pass or left <= 0:
                return failure
            if entry.extra is not None and any(map(_has_written, entry.extra.children[made_before:])):
                return failure  # trying again would write again
            left -= 1
            pause_s = delay_s * (1 - self._random() / 2)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
            self._log.note(events.CallRetried, entry.id, failure.error, pause_s)
            stopped = await self._pause(entry, pause_s)
            if stopped is not None:
                return stopped

    async def _pause(self, entry: Entry, pause_s: float) -> Failure | None:
        """Wait before the next attempt, with the slot given to others meanwhile."""
        entry.worker = asyncio.current_task(self._loop)
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
        entry.worker = asyncio.current_task(self._loop)
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
            try:
                entry.value = _hide_echoes(entry, tool.dump(result))
            except ToolResultError as error:
                # The function has returned: who reads that it failed would do it again.
                return Failure("failed", str(error) if plan.is_read else _explain_unshown(error), error)
            if entry.extra is not None and entry.extra.on_end:
                entry.extra.raw = result
            return None
        except asyncio.CancelledError:
            failure = self._explain_cancellation(entry)
        except ToolError as error:
            failure = Failure("failed", mask_text(str(error), _find_secrets(entry)), error)
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
        task = asyncio.current_task(self._loop)
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


def _has_written(entry: Entry) -> bool:
    """Whether this call is a write that has begun, or made one."""
    is_write = entry.plan is not None and entry.plan.tool.effect == "write" and entry.started_s is not None
    return is_write or (entry.extra is not None and any(map(_has_written, entry.extra.children)))


class _Doubt:
    """A call that needn't run: what its probe found, or why nobody knows."""

    __slots__ = ("failure",)

    def __init__(self, failure: Failure | None) -> None:
        self.failure = failure


async def _call_probe(tool: AnyTool, values: Mapping[str, object]) -> object:
    assert tool.probe is not None
    result = tool.probe(**values)
    return await result if inspect.isawaitable(result) else result


def _explain_unshown(error: ToolResultError) -> str:
    return f"it was done, but its result can't be shown: {error}; don't repeat it"


def _find_secrets(entry: Entry) -> frozenset[str]:
    """The texts of the secrets that the call was given."""
    if entry.plan is None or entry.arguments is None or not entry.plan.tool.secrets:
        return frozenset()
    return entry.plan.tool.secrets.find(entry.arguments.given)


def _hide_echoes(entry: Entry, value: JSON) -> JSON:
    """The result without the secrets that it repeats from the call's arguments: it is stored, shown and sent on."""
    return mask_echoes(value, _find_secrets(entry))


def _report(entry: Entry, error: Exception) -> Failure:
    """An error that isn't meant for the model: it reads a reference, the log has the rest."""
    reference = secrets.token_hex(4)
    hidden = _find_secrets(entry)
    if hidden:
        # The error's own words, or those of what caused it, may repeat them.
        told = mask_text("".join(traceback.format_exception(error)), hidden)
        logger.error("call %s of %s failed (ref %s)\n%s", entry.id, entry.node.name, reference, told)
    else:
        logger.error("call %s of %s failed (ref %s)", entry.id, entry.node.name, reference, exc_info=error)
    return Failure("failed", f"failed (ref {reference})", error, may_pass=True)
