"""The tasks that run calls: as many as calls run in parallel, each taking one call after another.

A call with a slot is ready. A task that has run a call settles it, releases the calls that waited for it, and takes
the next ready one; it ends when there is none. While calls are ready, a task is scheduled to take one, and when it
starts it schedules two more. So a hundred waiting calls all start within a few rounds of the loop, and a hundred calls
that don't wait need few tasks. A read that can be shared with other runs has its own task, since it may wait for
another flight.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from flowkit import events
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import RunError, StoreError
from flowkit.events import EventLog
from flowkit.executor import phases
from flowkit.executor.approvals import Guarded
from flowkit.executor.contexts import make_context
from flowkit.executor.current import CALL, find_around, note_write
from flowkit.executor.entries import MODEL_SLOT, Entry, Failure, check_result, keep_result
from flowkit.executor.gates import Gates
from flowkit.executor.intake import Intake
from flowkit.executor.lending import Lending
from flowkit.executor.outcomes import load_result
from flowkit.executor.plan import AnyTool, Plan
from flowkit.executor.retries import Retries, find_timeout
from flowkit.executor.seals import INSIDE, Seal, find_unsealed
from flowkit.executor.settling import Settler
from flowkit.executor.shared_runs import Landed, SharedRuns
from flowkit.executor.table import Table
from flowkit.executor.tool_attempts import MAY_HAVE_HAPPENED, Attempts
from flowkit.graph import Group, ModelStep
from flowkit.identity import RunIdentity
from flowkit.tools.lives import Lives

CALLS_IN_A_ROW = 64
"""How many calls a task runs before it lets the loop look at everything else."""


class Workers:
    """The tasks of one executor: they run calls, settle them, and start the next."""

    def __init__(
        self,
        table: Table,
        log: EventLog,
        settler: Settler,
        intake: Intake,
        gates: Gates,
        lending: Lending,
        shared_runs: SharedRuns,
        attempts: Attempts,
        guarded: Guarded,
        *,
        identity: RunIdentity,
        context: contextvars.Context,
        data: object,
        lives: Lives | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._table = table
        self._log = log
        self._settler = settler
        self._intake = intake
        self._gates = gates
        self._lending = lending
        self._slots = lending.slots
        self._shared_runs = shared_runs
        self._attempts = attempts
        self._guarded = guarded
        self._identity = identity
        self._data = data
        self._lives = lives  # None where the run around this graph has opened what its tools need
        self._random = random
        self._ready = table.ready
        self._tasks: set[asyncio.Task[Any]] = set()
        self._around, self._context = find_around(), context
        inside = INSIDE.get()
        self._inside = inside if inside is not None and inside.is_open else None
        """The call of the enclosing run, if it wasn't sealed when this run started."""
        self._coming = 0
        """How many tasks have been scheduled to take ready calls."""
        self.broken: BaseException | None = None
        """The error that stopped the run from below: the journal can't be written, or another driver has the run."""

    def drain(self) -> None:
        """Start everything that may run, and schedule a task for the ready calls.

        Every change from outside ends with this call: one by a method of the executor, a tool or a thread.
        """
        table = self._table
        if table.moves:
            self._gates.drain()
        if table.apart or table.errands:
            self._start_apart()
        if self._ready and not self._coming:
            self._send_for_help()

    def cancel_all(self, reason: str, *, for_good: bool = False) -> None:
        """Cancel every unfinished call; `for_good` also each that comes later."""
        (self._gates.stop if for_good else self._gates.cancel_all)(reason)
        self.drain()

    async def wait_closed(self) -> None:
        """Wait for every task, and stop the idle threads."""
        cancelled = False
        while self._tasks:
            try:
                await asyncio.wait(tuple(self._tasks))
            except asyncio.CancelledError:
                cancelled = True  # a second cancellation must not leave tasks behind
        self._attempts.close()
        if cancelled:
            raise asyncio.CancelledError

    # Tasks

    def _start_apart(self) -> None:
        """Start a task for each call, and each errand, that needs one of its own."""
        apart, errands = self._table.take_apart()
        for entry in apart:
            match entry.phase:
                case phases.LOOKUP:
                    work = self._shared_runs.look(entry)
                case phases.FLIGHT:
                    work = self._shared_runs.share(entry, partial(self._lead, entry))
                case _:
                    work = self._judge(entry)
            self._keep(self._run_errand(work))
        for errand in errands:
            self._keep(self._run_errand(errand))

    async def _run_errand(self, errand: Coroutine[Any, Any, object]) -> None:
        await errand
        self.drain()

    def _send_for_help(self) -> None:
        if self._coming < len(self._ready):
            self._coming += 1
            self._keep(self._work(context := self._context.copy()), context)

    def _keep(self, work: Coroutine[Any, Any, Any], context: contextvars.Context | None = None) -> None:
        task = self._attempts.loop.create_task(work, context=context or self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break_off(error)

    def _break_off(self, error: BaseException) -> None:
        """Stop the run; wake its waiters and the code that leaves the executor."""
        if self.broken is None:
            self.broken = error
            self.cancel_all(str(error), for_good=True)
            for waiter in self._table.waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(error)

    async def _work(self, context: contextvars.Context) -> None:
        """Run ready calls one after another; `context` is the task's own, so that it can be compared without a copy."""
        self._coming -= 1
        if not self._ready:
            return
        following: Entry | None = self._ready.popleft()
        self._send_for_help()
        self._send_for_help()
        table, settler, gates, log, moves = self._table, self._settler, self._gates, self._log, self._table.moves
        task = asyncio.current_task(self._attempts.loop)
        in_a_row, was_stopped = 0, False
        copy_context, set_call = context.copy, CALL.set
        before = copy_context()
        while following is not None:
            entry = following
            if in_a_row >= CALLS_IN_A_ROW or was_stopped or context != before:
                # What a tool left in the task, a variable or a cancellation, must not reach the next call. And calls
                # that never wait would keep the loop from everything else: 64 of them are a few milliseconds, and
                # the new task is then a hundredth of their cost.
                self._ready.appendleft(entry)
                self._send_for_help()
                return
            in_a_row += 1
            set_call(entry)
            before = copy_context()
            try:
                # It may have been cancelled between getting its slot and this task's beginning.
                if entry.phase >= phases.ENDED:
                    failure = None
                elif (
                    (plan := entry.plan) is not None
                    and plan.is_plain
                    and not entry.is_within
                    and (entry.extra is None or not (entry.is_bounded or entry.extra.is_provisional))
                    and entry.sealed_s is not None
                    and self._inside is None
                    and not self._around
                ):
                    # What `_run` comes to for nearly all calls. Nobody around the call has to be told that it runs, or
                    # waited for: inside an early call of another run, a write would have to wait for that call's seal.
                    entry.phase = phases.RUNNING
                    entry.attempt = 1
                    entry.started_s = log.note_started(entry.id, 1, entry.early, plan.effect)
                    entry.worker = task
                    assert entry.arguments is not None
                    leaves = [enter(entry.id) for enter in log.around] if log.around else None
                    try:
                        # Locals first: calling an attribute looks it up each time.
                        function, kind = plan.function, plan.own_json
                        result = await function(**entry.arguments.values)
                        if type(result) is kind and (kind is not str or result.isascii()):
                            entry.value, failure = result, None  # as `dump` returns it
                        else:
                            failure = keep_result(entry, plan, result)
                    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # a tool may raise anything
                        failure = self._attempts.explain(entry, error)
                    finally:
                        entry.worker = None
                        if leaves is not None:
                            for leave in leaves:
                                leave()
                else:
                    failure = await self._run(entry)
            except (RunError, StoreError) as error:
                # The journal failed while an effect ran: settle the call so that no waiter hangs, and start nothing new.
                failure = Failure("in_doubt", f"{MAY_HAVE_HAPPENED}: that could not be recorded ({error})")
                failure.broken = error
            was_stopped = entry.extra is not None and entry.extra.stop is not None
            if failure is None and entry.phase == phases.RUNNING and (entry.extra is None or not entry.extra.is_lent):
                # The common case of `_finish`, inlined.
                freed = self._slots.release(MODEL_SLOT if entry.plan is None else entry.plan.slot)
                if freed is None or (type(freed) is Entry and freed.phase == phases.SLOT):
                    following = freed
                else:
                    following = self._lending.pass_on(freed)
                settler.finish(entry)
                if moves:
                    gates.drain()
            else:
                following = self._finish(entry, failure)
            if table.apart or table.errands:
                self._start_apart()
            if following is None and self._ready:
                following = self._ready.popleft()
            if self._ready and not self._coming:
                self._send_for_help()

    def _finish(self, entry: Entry, failure: Failure | None) -> Entry | None:
        """Record a call's outcome, release its slot, and start its dependents.

        The caller has to run an entry that gets the slot, and then checks the ready calls.
        """
        if failure is not None and failure.broken is not None:
            self._break_off(failure.broken)
        following = self._lending.release(entry, failure)
        self._settler.settle(entry, failure)
        if failure is not None and failure.running is not None and failure.running.is_busy:
            failure.running.on_free.append(self.drain)  # after the slot and resources released above
        self._gates.drain()
        return following

    # One call

    def _run(self, entry: Entry) -> Coroutine[Any, Any, Failure | None]:
        """Run a call that has its slot; its value is in the entry when nothing is returned."""
        entry.phase = phases.RUNNING
        if self._around:
            note_write(entry, self._around)
        if self._inside is not None and entry.plan is not None and not entry.plan.is_read:
            return self._run_after(self._attempts.wait_sealed(entry, self._inside), entry)
        if self._lives is not None and entry.plan is not None and entry.plan.tool.life is not None:
            # Before the claim: a call that can't open its resources hasn't started.
            opened = partial(self._lives.open, entry.plan.tool.life)
            return self._run_after(self._attempts.attempt(entry, None, None, opened), entry)
        return self._start(entry, entry.plan)

    async def _run_after(self, before: Coroutine[Any, Any, Failure | None], entry: Entry) -> Failure | None:
        failure = await before
        return await self._start(entry, entry.plan) if failure is None else failure

    def _start(self, entry: Entry, plan: Plan | None) -> Coroutine[Any, Any, Failure | None]:
        if plan is None:
            entry.attempt = 1
            entry.started_s = self._log.note(events.CallStarted, entry.id)
            timeout_s = entry.node.timeout_s if isinstance(entry.node, ModelStep) else None
            return self._attempts.attempt(entry, None, timeout_s)
        if plan.runs_once and not entry.is_bounded:
            entry.attempt = 1
            entry.started_s = self._log.note(events.CallStarted, entry.id, 1, entry.early, plan.tool.effect)
            return self._attempts.attempt(entry, None, None)
        if plan.is_read:
            return self._try_again(entry, plan.tool)
        return self._run_effect(entry, plan.tool)

    async def _run_effect(self, entry: Entry, tool: AnyTool) -> Failure | None:
        """Run a write: claim it before, record it after, and invalidate reads of its resources both times."""
        assert entry.arguments is not None
        resources = tool.resources(entry.arguments)
        doubt = await self._attempts.begin_effect(entry, tool, resources)
        if doubt is not None:
            return doubt.failure
        if entry.stop is not None:
            failure: Failure | None = Failure("cancelled", entry.stop)
        else:
            failure = await self._try_again(entry, tool)
        if failure is None or failure.broken is None:
            await self._attempts.end_effect(entry, tool, resources, failure)
        return failure

    async def _try_again(self, entry: Entry, tool: AnyTool) -> Failure | None:
        """Run it, with retries where the failure may pass and repeating does no harm."""
        retries = Retries(entry, tool)
        timeout_s = find_timeout(entry, tool)
        while True:
            entry.attempt += 1
            context = self._make_context(entry) if tool.takes_context else None
            started_s = self._log.note(events.CallStarted, entry.id, entry.attempt, entry.early, tool.effect)
            if entry.started_s is None:
                entry.started_s = started_s
            retries.begin(entry)
            failure = await self._attempts.attempt(entry, context, timeout_s)
            if failure is None:
                return None
            pause_s = retries.pause_after(entry, failure, self._random)
            if pause_s is None:
                return failure
            if failure.running is not None:
                failure = await self._attempts.wait_until_free(entry, failure, failure.running)
                if failure.running is not None:
                    return failure
            self._log.note(events.CallRetried, entry.id, failure.error, pause_s, failure.error_type)
            stopped = await self._pause(entry, pause_s)
            if stopped is None:
                stopped = await self._attempts.claim_again(entry, tool)
            if stopped is not None:
                return stopped

    async def _pause(self, entry: Entry, pause_s: float) -> Failure | None:
        """Wait before the next attempt, with the slot lent to others."""
        entry.worker = asyncio.current_task(self._attempts.loop)
        pause = asyncio.ensure_future(asyncio.sleep(pause_s))
        try:
            await self._lend_slot(entry, pause)
        except asyncio.CancelledError:
            pause.cancel()
            return self._attempts.explain_cancellation(entry)
        finally:
            entry.worker = None
        return None

    async def _lend_slot(self, entry: Entry, wait: "asyncio.Future[Any]") -> Any:
        """Wait without holding the slot of a running call; with a slot again, it continues before the rest."""
        self._lending.lend(entry)
        self.drain()
        try:
            return await wait
        finally:
            try:
                await self._lending.take_again(entry)
            finally:
                self.drain()

    async def _lead(self, entry: Entry) -> Landed:
        """Run it for all that share its flight, unless its result has come meanwhile."""
        lead = await self._shared_runs.lease(entry)
        if isinstance(lead, Landed):
            return lead
        try:
            await lead.begin()
            failure = await self._run(entry)
            if (following := self._finish(entry, failure)) is not None:
                self._ready.append(following)
            self.drain()  # now, since to store a result takes a while
            return await lead.keep(failure)
        finally:
            await lead.release()

    async def _judge(self, entry: Entry) -> None:
        """Run the guard on a call, or the tool's rule on whether a person has to decide."""
        if entry.has_ended:
            return
        assert entry.plan is not None
        context = self._make_context(entry)
        if entry.phase == phases.GUARD:
            failure = await self._attempts.attempt(entry, None, None, partial(self._guarded.ask, entry, context))
        else:
            rule = entry.plan.approval
            assert callable(rule)
            failure = await self._attempts.ask_rule(entry, rule, context)
        if entry.has_ended:
            return
        if failure is None:
            self._settler.let_go_on(entry)
        else:
            self._settler.end(entry, failure.state, error=failure.error)

    # Requests of a running tool to its run

    def _make_context(self, entry: Entry) -> Context[Any]:
        call, open_group = partial(self._call, entry), partial(self._open_group, entry)
        return make_context(entry, self._identity, self._data, self._log, self._table.known, call, open_group)

    async def _call(self, caller: Entry, tool: AnyTool, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
        """Run a call that a tool makes, as a node of this graph; its caller holds no slot while it waits."""
        if tool.effect != "read":
            await self._wait_sealed(caller)
        entry = self._intake.add_made(tool, tool.call(*args, **kwargs), caller)
        await self._wait_within(caller, entry)
        raw = entry.more.raw
        return load_result(tool, entry.id, tool.name, entry.value) if raw is None else raw

    async def _wait_sealed(self, caller: Entry) -> None:
        """Wait until all calls around it are sealed, before a running tool makes a call that changes something."""
        while (unsealed := find_unsealed(caller)) is not None:
            await self._lend_slot(caller, asyncio.ensure_future(Seal(unsealed, None).wait()))

    async def _open_group(self, caller: Entry, group: Group, tools: Mapping[str, AnyTool]) -> JSON:
        """Run the nodes that a tool opens in this graph; the tool holds no slot while it waits.

        They call these tools, even if the run has others with the same names.
        """
        plans = {name: Plan(tool, remembers=self._table.remembers) for name, tool in tools.items()}
        self._table.brought[group.id] = plans
        try:
            entry = self._intake.add_opened(group, caller)
            await self._wait_within(caller, entry)
        finally:
            del self._table.brought[group.id]
        return entry.value

    async def _wait_within(self, caller: Entry, entry: Entry) -> None:
        """Wait until a running tool's child has finished; the errors are those of `check_result`."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not entry.has_ended:
            entry.tell_end(lambda _: None if ended.done() else ended.set_result(None))
        self.drain()
        if not entry.has_ended:
            try:
                await self._lend_slot(caller, ended)
            except asyncio.CancelledError:
                self._settler.cancel(entry, "its caller was stopped")
                self.drain()
                raise
        check_result(entry)
