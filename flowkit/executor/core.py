"""Run a graph of calls that may still grow: each call starts as soon as nothing holds it back.

A waiting call has a counter of unfinished dependencies. Each completion decrements the counters of the dependents, and
a call whose counter reaches zero may start. So a waiting call is an entry in a few dicts, without a task, and nothing is
polled. Only running calls have tasks; a task that has finished a call takes the next ready one, so a thousand calls in
sequence need few tasks.

No object calls one above it. The object that ends a call writes the calls that may start to the table's `moves`, and
one loop takes them:

    Executor.add, .seal    find the edges, open the entry and place it (`Intake`); it is due when it waits for nothing
    Gates.drain            takes due and ended calls until there are none
    Gates._pass            passes a call through its gates, in the one order that is written there, to a slot
    Workers._work          a task takes the call when it has its slot
    Attempts.attempt       calls the tool's function, here or by a `Worker`
    Settler.end            records the one outcome and reports it once; the entry goes to `moves`: back to `Gates.drain`

Invariants: an entry has at most one outcome; the end of an early run is reported when its call is sealed; a tool that
waits for its own calls occupies no slot.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType

from flowkit.cache import Cache
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, GraphError, ToolArgumentsError
from flowkit.events import EventLog
from flowkit.executor import phases
from flowkit.executor.approvals import ApprovalGate, CallGuard, Guarded
from flowkit.executor.controls import Controls
from flowkit.executor.current import enter_run
from flowkit.executor.entries import Entry, began_with
from flowkit.executor.gates import Gates, OpenedGate, RememberedGate, ResolvedGate, ResourceGate
from flowkit.executor.intake import NO_EDGES, Intake, LookAtReference
from flowkit.executor.lending import Lending
from flowkit.executor.outcomes import Decision, Outcome
from flowkit.executor.settling import Settler
from flowkit.executor.shared_runs import SharedRuns
from flowkit.executor.sharing import ShareGate
from flowkit.executor.slots import DEFAULT_LIMIT, Slots, SlotWaiter
from flowkit.executor.standalone import (
    OwnRun,
    ToolLike,
    begin_log,
    check_options,
    choose_cache,
    find_tools,
    name_run,
)
from flowkit.executor.table import AllWaiter, CallsWaiter, Outcomes, Past, Table
from flowkit.executor.tool_attempts import Attempts, RunModelStep
from flowkit.executor.worker import Worker
from flowkit.executor.workers import Workers
from flowkit.graph import Node
from flowkit.identity import RunIdentity
from flowkit.journal import Journal, RunJournal
from flowkit.known_secrets import KnownSecrets
from flowkit.pools.windows import find_windows
from flowkit.references import Reference, ToolCall, find_references
from flowkit.tools import ToolLookup
from flowkit.tools.options import to_seconds

NOBODY = RunIdentity()


class Executor:
    """One run's graph. Use it in the task that owns the run: `async with Executor(tools=[…]) as graph`.

    Leaving cancels unfinished calls, and waits for them.

    - `tools` are tools, functions and sets of them, or an object that finds a tool by its name.
    - `cache` keeps results with a TTL; True is the user's cache folder.
    - `journal`: nodes that have finished under this `run_id` don't run again; they are identified by their ids.
    - `user` and `session` limit who may share results.
    - `inputs`: nodes may refer to their names. A run in a journal continues with its first inputs.
    - `log` takes the events; by default the executor makes one.
    - `timeout` limits the whole run.
    - `slots` limits the calls in parallel, in total or by name (`{"all": 16, "db": 4}`).
    - `fail_fast`: the first failure of a node that no other node made cancels the rest.
    - `look_at_reference` sees each value that one call passes to another, and may refuse it by raising `ToolError`.
    - `guard` sees each call before it runs.
    - `run_model_step` asks models.
    - `past` are the outcomes of a run that waited for a person; finished and failed calls don't run again.
    - `workers` run the calls of tools with a named slot, by the slot's name (provisional).
    """

    def __init__(
        self,
        tools: ToolLookup | Iterable[ToolLike] = (),
        log: EventLog | None = None,
        *,
        inputs: Mapping[str, JSON] | None = None,
        data: object = None,
        identity: RunIdentity = NOBODY,
        user: str | None = None,
        session: str | None = None,
        run_id: str | None = None,
        cache: Cache | bool | None = None,
        journal: RunJournal | Journal | None = None,
        past: Past | None = None,
        slots: int | Mapping[str, int] = DEFAULT_LIMIT,
        fail_fast: bool = False,
        timeout: float | timedelta | None = None,
        timeout_s: float | None = None,
        run_model_step: RunModelStep | None = None,
        look_at_reference: LookAtReference | None = None,
        guard: CallGuard | None = None,
        workers: Mapping[str, Worker] | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._own: OwnRun | None = None
        if log is None:
            options = {"user": user, "session": session, "run_id": run_id, "cache": cache, "journal": journal}
            check_options("Executor", {**options, "timeout": timeout, "slots": slots})
            identity = name_run(user, session, run_id)
            log = begin_log(identity)
            self._own = OwnRun(identity, log, data)
        self.log = log
        self._timeout_s = to_seconds(timeout) if timeout is not None else timeout_s
        self._deadline: asyncio.TimerHandle | None = None
        self._journal = journal if isinstance(journal, Journal) else None
        self._inputs = dict(inputs or {})
        self._tools = find_tools(tools)
        compose = partial(
            self._bind,
            log=log,
            data=data,
            identity=identity,
            cache=choose_cache(cache),
            past=past,
            slots=slots,
            fail_fast=fail_fast,
            run_model_step=run_model_step,
            look_at_reference=look_at_reference,
            guard=guard,
            workers=workers,
            random=random,
        )
        # Entering opens the journal and connects to servers that list tools, which takes a while; a run that has opened
        # its own is ready immediately.
        if isinstance(journal, Journal) and self._own is None:
            raise ConfigurationError("an executor with a log of its run's takes the run that its journal opened")
        compose(self._tools, None if isinstance(journal, Journal) else journal)
        self._compose = None if self._own is None else compose
        """Makes the parts anew; None in a run that has opened all it needs, where it would only take memory."""

    def _bind(
        self,
        tools: ToolLookup,
        journal: RunJournal | None,
        *,
        log: EventLog,
        data: object,
        identity: RunIdentity,
        cache: Cache,
        past: Past | None,
        slots: int | Mapping[str, int],
        fail_fast: bool,
        run_model_step: RunModelStep | None,
        look_at_reference: LookAtReference | None,
        guard: CallGuard | None,
        workers: Mapping[str, Worker] | None,
        random: Callable[[], float],
    ) -> None:
        """Make the parts; each receives those that it calls."""
        shared_slots = Slots[Entry | SlotWaiter](slots, find_windows())
        self._table = table = Table(tools, remembers=journal is not None or bool(past))
        self._settler = settler = Settler(table, log, journal, fail_fast=fail_fast)
        self._intake = intake = Intake(
            table, log, settler, look_at_reference, identity, is_entered_later=self._own is not None
        )
        self._approval = ApprovalGate(table, log, settler, journal)
        self._remembered = RememberedGate(settler, journal, past or {})
        guarded = Guarded(table, guard)
        gates = Gates(
            table,
            log,
            settler,
            shared_slots,
            remembered=self._remembered,
            resolved=ResolvedGate(intake),
            guarded=guarded,
            approval=self._approval,
            resource=ResourceGate(table, log, settler),
            share=ShareGate(table, log, settler, cache, identity, is_shared=journal is not None and journal.is_shared),
            opened=OpenedGate(log, Controls(table, intake, settler)),
            fail_fast=fail_fast,
        )
        lending = Lending(table, shared_slots)
        attempts = Attempts(
            table, log, cache=cache, journal=journal, run_model_step=run_model_step, workers=workers or {}
        )
        self._workers = Workers(
            table,
            log,
            settler,
            intake,
            gates,
            lending,
            SharedRuns(log, settler, lending, cache, identity),
            attempts,
            guarded,
            identity=identity,
            context=enter_run(identity, log, table.known, journal),
            data=data,
            lives=None if self._own is None else self._own.lives,
            random=random,
        )

    async def __aenter__(self) -> "Executor":
        if self._intake.is_closed:
            raise GraphError("this executor is closed: make a new one for more nodes")
        if self._own is not None:
            tools = await self._own.find_now(self._tools)
            held = await self._own.begin(self._journal, self._inputs)
            if self._compose is not None and (self._journal is not None or tools is not self._tools):
                self._compose(tools, held)
        self._intake.begin()
        for name, value in self._inputs.items():
            self.provide(name, value)
        if self._timeout_s is not None:
            stop = f"the whole took longer than {self._timeout_s:g} s"
            end = partial(self._workers.cancel_all, stop, for_good=True)
            self._deadline = asyncio.get_running_loop().call_later(self._timeout_s, end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        # The model reads it when the conversation continues, so it includes the reason.
        is_stopped = kind is not None and issubclass(kind, asyncio.CancelledError)
        stop = "the run was stopped" if is_stopped else "the run has ended"
        # The current states: calls that only leaving has stopped continue when this run is opened again.
        made = [] if self._own is None else self._list_made()
        try:
            self._settler.close(stop)
            self.cancel_all(stop)
            self._intake.close()
            await self._workers.wait_closed()
            if self._workers.broken is not None:
                self._settler.end_left(self._workers.broken)
        finally:
            if self._own is not None:
                await self._own.finish(made, error or self._workers.broken, has_doubt=self.has_doubt)
        if self._workers.broken is not None and error is None:
            raise self._workers.broken

    def announce(self, call_id: str, name: str, parent: str | None = None) -> None:
        """Register a call with arguments that are still streaming; its position in the order of calls is fixed now."""
        self._intake.open(ToolCall(call_id, name), self._find(parent))

    def add(self, node: Node, *, parent: str | None = None, early: bool = False, sealed: bool = True) -> None:
        """Add a node to the graph, after its tool's needs; it starts as soon as it can.

        Raises `GraphError` for an id that is taken, and for a reference to a missing node.
        """
        above = None if parent is None else self._table.find(parent)
        self._intake.add(node, above, early, sealed)
        if self._table.moves or self._table.errands:  # nothing comes of a node that waits for others
            self._workers.drain()

    def guess(self, call: ToolCall) -> None:
        """Add a prefetched read, which no model has requested yet.

        Calls that it makes don't write before an equal call of a complete turn waits for its result.
        """
        guessed = self._intake.add(call, None).more
        guessed.is_guess = guessed.is_provisional = True
        self._workers.drain()

    def provide(self, node_id: str, value: JSON) -> None:
        """Let nodes refer to a value from outside, such as a recipe's inputs."""
        self._intake.provide(node_id, value)

    def start_early(self, call: ToolCall) -> bool:
        """Start a call that isn't sealed yet, if that can do no harm; return whether it was started.

        It must be a read, with all it needs, need no approval, have arguments, and none that refer to other calls.
        """
        plan = self._table.plan(call.name)
        if plan is None or not plan.is_read or plan.tool.approval or not call.arguments:
            return False
        if find_references(call.arguments):
            return False
        try:
            plan.tool.check(call.arguments)
        except ToolArgumentsError:
            return False
        entry = self._intake.open_again(call)
        if entry.phase != phases.NEW or entry.is_withdrawn:
            return False
        self._intake.place(entry, call, NO_EDGES, True, False)
        self._workers.drain()
        return True

    def seal(self, call: ToolCall, repaired: Sequence[str] = (), *, is_provisional: bool = False) -> None:
        """Take the final arguments. An early run with equal ones is kept; any other is stopped and dropped.

        With `is_provisional` the turn may still be discarded: calls that a read makes don't write before `confirm`, and
        never after `disown`.
        """
        entry = self._intake.open_again(call)
        if entry.sealed_s is not None or entry.state == "void":
            raise GraphError(f"{call.id!r} is sealed already")
        if entry.extra is not None and entry.is_withdrawn:
            self._settler.end_withdrawn(entry, call)
            self._workers.drain()
            return
        has_begun = entry.phase != phases.NEW
        stands = has_begun and began_with(entry, call.arguments)
        if has_begun and not stands:
            entry = self._intake.start_anew(entry)
        if is_provisional:
            entry.more.is_provisional = True
        if stands:
            if entry.extra is None or entry.extra.given is None:
                entry.node = call  # its values are those of the model's message, so that the others needn't be kept
            self._settler.seal_early(entry, tuple(repaired))
        else:
            self._place_sealed(entry, call, repaired)
        self._workers.drain()

    def confirm(self, call_id: str) -> None:
        """Allow calls that this call makes to write: its turn is complete."""
        self._settler.confirm(self._table.find(call_id))

    def disown(self, call_id: str) -> None:
        """Let nothing that this call makes write: its turn came to nothing."""
        self._settler.disown(self._table.find(call_id))

    def _place_sealed(self, entry: Entry, call: ToolCall, repaired: Sequence[str]) -> None:
        if repaired:
            entry.more.repaired = tuple(repaired)
        try:
            edges = self._intake.find_edges(call)
        except GraphError as unknown:
            entry.node = call
            self._settler.tell_sealed(entry, call)
            self._settler.end(entry, "failed", error=f"not run: {unknown}")
        else:
            self._intake.place(entry, call, edges, False, True)

    def void(self, call_id: str, reason: str) -> None:
        """Void a call that will never be sealed; its early run's result is kept for an equal call of this turn."""
        self._settler.void(self._table.find(call_id), reason)
        self._workers.drain()

    def fail(self, call: ToolCall, error: str) -> None:
        """Fail a call that can't run, such as one of an unknown tool; `error` is the text that the model reads.

        A recorded outcome is kept: the tool may have been removed since.
        """
        entry = self._intake.open_again(call)
        if entry.phase != phases.NEW:
            entry = self._intake.start_anew(entry)
        entry.node = call
        self._settler.tell_sealed(entry, call)
        if not self._table.remembers or self._remembered.enter(entry):
            self._settler.end(entry, "failed", error=error)
        self._workers.drain()

    def cancel(self, call_id: str, reason: str = "") -> None:
        """Cancel a call, running or not, and the calls that it made; does nothing if it has ended."""
        self._settler.cancel(self._table.find(call_id), reason)
        self._workers.drain()

    def cancel_all(self, reason: str = "") -> None:
        """Cancel every unfinished call."""
        self._workers.cancel_all(reason)

    def decide(self, call_id: str, decision: Decision) -> None:
        """Apply a person's decision on a call that waits for approval.

        Raises `NoSuchNode` if it doesn't wait. Raises `ToolArgumentsError` for changed arguments that the tool doesn't
        accept; the call then still waits.
        """
        self._approval.decide(call_id, decision)
        self._workers.drain()

    def references(self, call_id: str) -> dict[str, Reference]:
        """Return the arguments of a sealed call that are references to other calls, by name."""
        node = self._table.find(call_id).node
        arguments: Mapping[str, object] = node.arguments if isinstance(node, ToolCall) else {}
        return {name: value for name, value in arguments.items() if isinstance(value, Reference)}

    def end_turn(self) -> None:
        """Share no read made from now on with those made before, unless the cache has them."""
        self._table.shared.clear()

    @property
    def pending(self) -> tuple[ToolCall, ...]:
        """The calls that wait for a person, with resolved arguments."""
        return tuple(self._table.show_call(entry) for entry in self._table.pending.values())

    @property
    def known_secrets(self) -> KnownSecrets:
        """The secrets in the calls so far, of this run and those around and inside it."""
        return self._table.known

    def now(self) -> float:
        """Return the seconds since the run began."""
        return self.log.now()

    async def wait(self, *call_ids: str) -> None:
        """Wait until each has its outcome, or waits for a person, itself or behind one that does.

        All calls are waited for if none is named.
        """
        entries = self._table.entries
        waiter = CallsWaiter(map(self._table.find, call_ids)) if call_ids else AllWaiter(entries.values())
        self._table.waiters.add(waiter)
        try:
            if self._table.pending:
                self._settler.stuck.look()
            if waiter.left and not waiter.future.done():
                await waiter.future
        finally:
            self._table.waiters.discard(waiter)

    def outcome(self, call_id: str) -> Outcome | None:
        """Return a call's outcome; None while it is in flight or isn't sealed."""
        return self._table.outcome(call_id)

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """The finished calls, in the order of their making."""
        return Outcomes(self._table)

    @property
    def has_doubt(self) -> bool:
        """Return whether a call is in doubt, or one inside it, also in a run that its function started."""
        return self._table.has_doubt

    def _list_made(self) -> list[Outcome | None]:
        """List the outcome of each node that no other made; None for one that is in flight."""
        return [self.outcome(name) for name, entry in self._table.entries.items() if entry.order and not entry.parent]

    def _find(self, node_id: str | None) -> Entry | None:
        return None if node_id is None else self._table.find(node_id)
