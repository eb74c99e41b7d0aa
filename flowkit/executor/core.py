"""Runs a graph of calls that may still grow: each call starts the moment that nothing holds it back.

A call is counted, not watched: it has a number of things that it still waits for, and whoever ends lowers the number
of those behind it; the one that gets to zero goes on. So a waiting call is an entry in a few dicts, with no task, and
nothing is ever looked for in turns. Tasks exist only for what runs; one that has ended takes the next call that is
ready, so a thousand calls in a row are a few tasks.

What a call takes, always in this order, so that nobody holds what another waits for: what it needs, approval, its
place on its resources, the cache, the flight of an equal call, a slot; then its time-out starts.

State: `_entries` (every node, by id), the queues of slots and resources, `_shared` (reads of this turn that equal
ones may share). True at every moment: an entry has at most one outcome; the end of an early run is told when its call
is sealed.
"""

import asyncio
import hashlib
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, cast

from flowkit import events
from flowkit.arguments import Arguments
from flowkit.cache import Cache, HitError, NullCache
from flowkit.codec import JSON, dump_sorted
from flowkit.context import Context
from flowkit.effects import ApprovalRule
from flowkit.errors import CycleError, GraphError, ResolutionError, ToolArgumentsError, ToolError
from flowkit.events import EventLog
from flowkit.executor.controls import begin_control
from flowkit.executor.entries import AnyTool, Entry, Failure, Phase, Plan, Waiter
from flowkit.executor.inside import Progress, load_result
from flowkit.executor.outcomes import Approve, Decision, Deny, Outcome, State
from flowkit.executor.running import Runner, SlotWaiter
from flowkit.executor.showing import show_arguments, show_later, show_note
from flowkit.graph import Control, Graph, Group, ModelStep, Node, Step, find_own_references, get_after
from flowkit.journal import Decision as RecordedDecision
from flowkit.journal import RunJournal
from flowkit.references import Reference, ToolCall, find_references, lookup, substitute
from flowkit.resources import Access, Resources, Ticket
from flowkit.result_paths import find_subschemas
from flowkit.slots import DEFAULT_LIMIT, Slots
from flowkit.tools import ToolLookup

RunModelStep = Callable[[ModelStep, Mapping[str, JSON]], Awaitable[JSON]]
LookAtReference = Callable[[ToolCall, Reference, JSON], None]


class Executor:
    """One run's graph. Use it in the task that owns the run: `async with executor:`; leaving cancels and waits.

    `slots` limits what runs at once, in all or by name (`{"all": 16, "db": 4}`). With `fail_fast` the first failure of
    a node that no other node made cancels the rest. `timeout_s` bounds the whole. `look_at_reference` sees each value
    that goes from one call into another and may refuse it by raising `ToolError`. `run_model_step` asks models.
    """

    def __init__(
        self,
        tools: ToolLookup,
        log: EventLog,
        *,
        data: object = None,
        user: str | None = None,
        session: str | None = None,
        run_id: str = "",
        cache: Cache | None = None,
        journal: RunJournal | None = None,
        slots: int | Mapping[str, int] = DEFAULT_LIMIT,
        fail_fast: bool = False,
        timeout_s: float | None = None,
        run_model_step: RunModelStep | None = None,
        look_at_reference: LookAtReference | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._tools = tools
        self._log = log
        self._data = data
        self._user = user
        self._session = session
        self._run_id = run_id
        self._cache: Cache = NullCache() if cache is None else cache
        self._journal = journal
        self._fail_fast = fail_fast
        self._timeout_s = timeout_s
        self._run_model = run_model_step
        self._look_at_reference = look_at_reference
        # Results are shared among those of one identity; None where the run doesn't have it.
        self._scope_ids: dict[str, str | None] = {"run": run_id or None, "session": session, "user": user, "all": ""}
        self._entries: dict[str, Entry] = {}
        self._count = 0
        self._plans: dict[str, Plan] = {}
        self._pending: dict[str, Entry] = {}
        self._asking: set[str] = set()
        self._shared: dict[str, Entry] = {}
        self._resources = Resources()
        self._resource_writes = 0
        self._ended: deque[Entry] = deque()
        self._is_settling = False
        self._is_closed = False
        self._broken: BaseException | None = None
        self._waiters: set[Waiter] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._runner = Runner(
            log,
            slots=Slots[Entry | SlotWaiter](slots),
            cache=self._cache,
            journal=journal,
            make_context=self._make_context,
            run_model_step=self._run_model_step,
            settle=self._settle,
            broken=self._break_off,
            random=random,
        )

    async def __aenter__(self) -> "Executor":
        if self._timeout_s is not None:
            stop = f"the whole took longer than {self._timeout_s:g} s"
            self._deadline = asyncio.get_running_loop().call_later(self._timeout_s, self.cancel_all, stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.cancel_all("the run has ended")
        self._is_closed = True
        await self._runner.wait_closed()
        if self._broken is not None and error is None:
            raise self._broken

    # The graph

    def add(self, node: Node, *, parent: str | None = None, early: bool = False, sealed: bool = True) -> None:
        """Put a node into the graph; it starts when it can. What its tool needs is put in before it.

        Raises `GraphError` for an id that is taken, and for a reference to what isn't there.
        """
        references = self._find_known(node)
        entry = self._open(node, parent)
        if isinstance(node, ToolCall):
            self._place(entry, node, references, early=early, sealed=sealed)
        else:
            self._place_control(entry, node, references)

    def add_graph(self, graph: Graph) -> None:
        """Put in every node of a graph."""
        for node in graph.values():
            self.add(node)

    def provide(self, node_id: str, value: JSON) -> None:
        """Let nodes refer to a value from outside, such as a recipe's inputs."""
        if node_id in self._entries:
            raise GraphError(f"{node_id!r} is taken: every node needs an id of its own")
        entry = Entry(node_id, ToolCall(node_id, ""), None, None, 0)
        entry.phase, entry.state, entry.value, entry.sealed_s = Phase.ENDED, "finished", value, 0.0
        self._entries[node_id] = entry

    def announce(self, call_id: str, name: str, parent: str | None = None) -> None:
        """A call exists whose arguments still stream; its place in the order of calls is taken now."""
        self._open(ToolCall(call_id, name), parent)

    def start_early(self, call: ToolCall) -> bool:
        """Start a call that isn't sealed yet, if that can do no harm: whether it was started.

        It must be a read, with all it needs, need no approval, have arguments, and none that refer to other calls.
        """
        plan = self._plan(call.name)
        if plan is None or not plan.is_read or plan.tool.approval or not call.arguments:
            return False
        if find_references(call.arguments):
            return False
        try:
            plan.tool.check(call.arguments)
        except ToolArgumentsError:
            return False
        entry = self._open_again(call)
        if entry.phase != Phase.NEW:
            return False
        self._place(entry, call, [], early=True, sealed=False)
        return True

    def seal(self, call: ToolCall, repaired: Sequence[str] = ()) -> None:
        """These are the final arguments. An early run with equal ones stands; another is stopped and forgotten."""
        entry = self._open_again(call)
        if entry.sealed_s is not None or entry.state == "void":
            raise GraphError(f"{call.id!r} is sealed already")
        if entry.phase != Phase.NEW:
            if _equal(cast(ToolCall, entry.node).arguments, call.arguments):
                self._seal_early(entry, tuple(repaired))
                return
            entry = self._start_anew(entry)
        if repaired:
            entry.more.repaired = tuple(repaired)
        references = find_references(call.arguments)
        unknown = next((r for r in references if r.call_id not in self._entries or r.call_id == call.id), None)
        if unknown is not None:
            entry.node = call
            self._tell_sealed(entry, call)
            self._end(entry, "failed", error=f"not run: there is no call {unknown.call_id!r} before it")
            return
        self._place(entry, call, references, early=False, sealed=True)

    def void(self, call_id: str, reason: str) -> None:
        """A call that will never be sealed. What its early run found is kept for an equal call of this turn."""
        entry = self._entries[call_id]
        if entry.sealed_s is not None:
            return
        for child in self._children(entry):
            self.void(child.id, reason)
        if not entry.has_ended:
            self._stop(entry, reason)
        self._become(entry, "void", reason)

    def fail(self, call: ToolCall, error: str) -> None:
        """A call that can't run, such as one of an unknown tool; `error` is what the model reads."""
        entry = self._open_again(call)
        if entry.phase != Phase.NEW:
            entry = self._start_anew(entry)
        entry.node = call
        self._tell_sealed(entry, call)
        self._end(entry, "failed", error=error)

    def cancel(self, call_id: str, reason: str = "") -> None:
        """Stop a call, or drop it before it runs, with all that it made; nothing happens when it has ended."""
        entry = self._entries[call_id]
        if entry.has_ended:
            if not self._is_told(entry):
                self._become(entry, "void", reason)
            return
        if entry.phase == Phase.NEW:
            self._become(entry, "void", reason)
        elif entry.worker is not None or (entry.phase == Phase.RUNNING and not entry.is_holder):
            self._runner.stop(entry, reason or "cancelled")
        else:
            self._pending.pop(entry.id, None)
            self._end(entry, "cancelled", error=reason)
        for child in self._children(entry):
            self.cancel(child.id, reason)

    def cancel_all(self, reason: str = "") -> None:
        """Stop everything that hasn't ended."""
        for node_id in list(self._entries):
            self.cancel(node_id, reason)

    def decide(self, call_id: str, decision: Decision) -> None:
        """What a person says about a call that waits for approval.

        Raises `KeyError` when it doesn't, and `ToolArgumentsError` for other arguments that the tool doesn't take;
        then it still waits.
        """
        self._apply(self._pending[call_id], decision)
        if self._journal is not None:
            approved = isinstance(decision, Approve)
            reason = "" if isinstance(decision, Approve) else decision.reason
            arguments = (
                None if not isinstance(decision, Approve) or decision.arguments is None else dict(decision.arguments)
            )
            self._runner.start_alone(
                self._journal.decide(
                    call_id, approved=approved, by=decision.by, reason=reason, arguments=cast(JSON, arguments)
                )
            )

    def end_turn(self) -> None:
        """Reads made from now on share nothing with those made before, unless the cache has them."""
        self._shared.clear()

    @property
    def pending(self) -> tuple[ToolCall, ...]:
        """The calls that wait for a person, with resolved arguments."""
        return tuple(self._show_call(entry) for entry in self._pending.values())

    def now(self) -> float:
        """Seconds since the run began."""
        return self._log.now()

    async def wait(self, *call_ids: str) -> None:
        """Until each has its outcome, or waits for a person, itself or behind one that does; all calls if none is named."""
        waiter = Waiter(asyncio.get_running_loop().create_future())
        names = call_ids or [name for name, entry in self._entries.items() if entry.parent is None]
        for name in names:
            entry = self._entries[name]
            if not self._is_told(entry):
                waiter.left.add(name)
        self._waiters.add(waiter)
        try:
            self._release_stuck()
            if waiter.left and not waiter.future.done():
                await waiter.future
        finally:
            self._waiters.discard(waiter)

    def outcome(self, call_id: str) -> Outcome | None:
        """How a call ended; None while it hasn't, or isn't sealed."""
        entry = self._entries.get(call_id)
        return None if entry is None or entry.order == 0 or not self._is_told(entry) else self._make_outcome(entry)

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """The calls that have ended, in the order of their making."""
        return _Outcomes(self._entries, self.outcome)

    async def call(self, tool: AnyTool, args: Sequence[object], kwargs: Mapping[str, object], parent: str) -> Any:
        """A call that a running tool makes, as a node of this graph; its caller holds no slot while it waits."""
        made = tool.call(*args, **kwargs)
        caller = self._entries[parent]
        name = self._name_call(caller, tool.name)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        placed = ToolCall(name, made.name, made.arguments)
        references = self._find_known(placed)
        entry = self._open(placed, parent, Plan(tool, has_journal=self._journal is not None))
        entry.more.tell_end(lambda _: None if future.done() else future.set_result(None))
        self._place(entry, placed, references, early=False, sealed=True)
        try:
            await self._runner.lend_slot(caller, future)
        except asyncio.CancelledError:
            self.cancel(name, "its caller was stopped")
            raise
        if entry.state != "finished":
            raise ToolError(f"{tool.name}: {entry.error or entry.state}")
        raw = entry.more.raw
        return load_result(tool, entry.value) if raw is None else raw

    async def run_group(self, group: Group, tools: Mapping[str, AnyTool], parent: str) -> JSON:
        """The value of nodes that a running tool opens in this graph; the tool holds no slot while it waits."""
        for name, tool in tools.items():
            known = self._plan(name)
            if known is None:
                self._plans[name] = Plan(tool, has_journal=self._journal is not None)
            elif known.tool.identity != tool.identity:
                raise ToolError(f"{group.name}: this run has another tool called {name!r}")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(group, parent=parent)
        entry = self._entries[group.id]
        if not entry.has_ended:
            entry.more.tell_end(lambda _: None if future.done() else future.set_result(None))
            try:
                await self._runner.lend_slot(self._entries[parent], future)
            except asyncio.CancelledError:
                self.cancel(group.id, "its caller was stopped")
                raise
        if entry.state != "finished":
            raise ToolError(f"{group.name}: {entry.error or entry.state}")
        return entry.value

    # From new to ready

    def _plan(self, name: str) -> Plan | None:
        plan = self._plans.get(name)
        if plan is None:
            tool = self._tools.get(name)
            if tool is None:
                return None
            plan = self._plans[name] = Plan(tool, has_journal=self._journal is not None)
        return plan

    def _find_known(self, node: Node) -> list[Reference]:
        """The references that a node waits for; raises `GraphError` for one to what isn't there."""
        references = find_references(node.arguments) if type(node) is ToolCall else find_own_references(node)
        if references or type(node) is not ToolCall:
            for name in (*(reference.call_id for reference in references), *get_after(node)):
                if name == node.id:
                    raise GraphError(f"{node.id!r} refers to itself")
                if name not in self._entries:
                    raise GraphError(f"{node.id!r} refers to {name!r}, which isn't there before it")
        return references

    def _open(self, node: Node, parent: str | None, plan: Plan | None = None) -> Entry:
        """A new entry, told of."""
        if self._is_closed:
            raise GraphError(f"{node.id!r}: this executor is closed")
        before = self._entries.get(node.id)
        if before is not None and before.state != "void":
            raise GraphError(f"{node.id!r} is taken: every node needs an id of its own")
        above = None if parent is None else self._entries[parent]
        if plan is None and isinstance(node, ToolCall):
            plan = self._plan(node.name)
        self._count += 1
        entry = Entry(node.id, node, plan, above, self._count)
        if above is not None:
            above.more.add_child(entry)
        self._entries[node.id] = entry
        self._log.note(events.CallNew, node.id, node.name, parent)
        return entry

    def _open_again(self, call: ToolCall) -> Entry:
        """The entry that was announced for this call, or a new one."""
        entry = self._entries.get(call.id)
        return self._open(call, None) if entry is None or entry.state == "void" else entry

    def _start_anew(self, entry: Entry) -> Entry:
        """The same call as if it were only announced: its early run, and those it needed, are stopped and forgotten."""
        fresh = Entry(entry.id, entry.node, entry.plan, entry.parent, entry.order)
        self._entries[entry.id] = fresh
        for child in self._children(entry):
            self._drop(child)
            again = Entry(child.id, child.node, child.plan, fresh, child.order)
            fresh.more.add_child(again)
            self._entries[child.id] = again
        self._drop(entry)
        return fresh

    def _drop(self, entry: Entry) -> None:
        if not entry.has_ended:
            self._runner.stop(entry, "its arguments changed")
            self._leave(entry)
            entry.phase = Phase.DROPPED
            self._let_follow(entry)

    def _place(self, entry: Entry, call: ToolCall, references: list[Reference], *, early: bool, sealed: bool) -> None:
        """The arguments are there: put in what the tool needs, and count what the call waits for."""
        entry.node = call
        entry.early = early
        plan = entry.plan
        if sealed:
            self._tell_sealed(entry, call)
        if plan is None:
            self._end(entry, "failed", error=f"there is no tool {call.name!r}")
            return
        if isinstance(call, Step):
            self._take_options(entry, call)
        waits_for: Collection[str] = ()
        try:
            if plan.needs or references:
                waits_for = self._bind(entry, call, plan, references, early=early, sealed=sealed)
            else:
                entry.arguments = plan.tool.validate(call.arguments)
        except ToolError as error:
            self._end(entry, "failed", error=str(error))
            return
        if plan.touches:
            self._take_ticket(entry, plan)
        self._wait_for(entry, (*waits_for, *call.after) if isinstance(call, Step) else waits_for)

    def _take_options(self, entry: Entry, step: Step) -> None:
        if step.timeout_s is not None or step.retries is not None or step.optional or step.after:
            more = entry.more
            more.timeout_s, more.retries, more.optional = step.timeout_s, step.retries, step.optional
            more.after = frozenset(step.after)

    def _bind(
        self, entry: Entry, call: ToolCall, plan: Plan, references: list[Reference], *, early: bool, sealed: bool
    ) -> list[str]:
        """Put in what the tool needs; the ids that the call waits for."""
        plan.tool.check(call.arguments)
        arguments = call.arguments
        if plan.needs:
            *needed, bound = plan.tool.expand(call)
            for place, need in enumerate(needed, 1):
                child = self._open_need(entry, need, plan)
                # It counts as made just before the call that needs it.
                child.order = entry.order - 1 + place / (len(needed) + 1)
                self._place(child, need, find_references(need.arguments), early=early, sealed=sealed)
            arguments = bound.arguments
            references = find_references(arguments)
        entry.bound = arguments
        for reference in references:
            if reference.path:
                self._check_path(reference)
        return [reference.call_id for reference in references]

    def _open_need(self, entry: Entry, need: ToolCall, plan: Plan) -> Entry:
        """The entry of what a call needs; an early run with other arguments may have opened it before."""
        child = self._entries.get(need.id)
        if child is not None and child.phase == Phase.NEW and child.parent is entry:
            return child
        return self._open(need, entry.id, self._plan_need(plan, need.name))

    def _plan_need(self, plan: Plan, name: str) -> Plan | None:
        tool = plan.tool.needed_tools.get(name)
        known = self._plan(name)
        if tool is None or (known is not None and known.tool is tool):
            return known
        return Plan(tool, has_journal=self._journal is not None)

    def _check_path(self, reference: Reference) -> None:
        """Whether the path can be in what the other call's tool says it gives."""
        producer = self._entries[reference.call_id]
        schema = None if producer.plan is None else producer.plan.tool.result_schema
        if schema is not None:
            find_subschemas(schema, reference.path, producer.node.name)

    def _place_control(self, entry: Entry, node: Control, references: list[Reference]) -> None:
        entry.sealed_s = self._log.note(events.CallSealed, entry.id, {})
        if node.after:
            entry.more.after = frozenset(node.after)
        self._wait_for(entry, [*(reference.call_id for reference in references), *node.after])

    def _wait_for(self, entry: Entry, names: Collection[str]) -> None:
        """Count the calls that it waits for; it goes on at once when there are none."""
        if names:
            unmet: list[str] = []
            for name in dict.fromkeys(names):
                producer = self._entries[name]
                if not producer.has_ended:
                    unmet.append(name)
                elif not self._is_met(entry, producer):
                    self._skip(entry, producer)
                    return
            if unmet:
                for name in unmet:
                    producer = self._entries[name]
                    if producer.dependents is None:
                        producer.dependents = []
                    producer.dependents.append(entry)
                entry.missing = len(unmet)
                entry.phase = Phase.NEEDS
                self._log.note(events.CallWaiting, entry.id, "calls", tuple(unmet))
                if self._pending and self._waiters:
                    self._release_stuck()
                return
        self._go_on(entry)

    def _is_met(self, entry: Entry, producer: Entry) -> bool:
        return producer.is_usable or (entry.extra is not None and producer.id in entry.extra.after)

    def _go_on(self, entry: Entry) -> None:
        """Everything it needs is there."""
        plan = entry.plan
        if self._journal is not None and self._take_recorded(entry, self._journal):
            return
        if plan is None:
            self._begin(entry)
            return
        if entry.bound is not None and not self._resolve(entry, plan):
            return
        if plan.ungated:
            self._runner.start(entry)
        elif plan.approval:
            if callable(plan.approval):
                entry.phase = Phase.APPROVAL
                self._runner.start_alone(self._judge(entry, plan.approval))
            else:
                self._ask_person(entry)
        else:
            self._queue_on_resources(entry)

    def _take_recorded(self, entry: Entry, journal: RunJournal) -> bool:
        """Whether it ended in an earlier process."""
        if entry.plan is None and not isinstance(entry.node, ModelStep):
            return False
        recorded = journal.lookup(entry.id)
        if recorded is None or not recorded.is_ended or recorded.state not in ("finished", "failed"):
            return False
        entry.source, entry.attempt, entry.value = "journal", recorded.attempt, recorded.value
        self._end(entry, recorded.state, error=recorded.error)
        return True

    def _resolve(self, entry: Entry, plan: Plan) -> bool:
        """Put the values in and validate them; False when that failed."""
        bound = entry.bound
        try:
            values = cast("dict[str, object]", substitute(bound, partial(self._value, entry)))
            if plan.needs:
                needed = {name: value for name, value in values.items() if name in plan.needs}
                given = {name: value for name, value in values.items() if name not in plan.needs}
                entry.arguments = plan.tool.validate(given, needed)
            else:
                entry.arguments = plan.tool.validate(values)
        except ToolError as error:
            self._end(entry, "failed", error=f"not run: {error}")
            return False
        return True

    def _value(self, entry: Entry | None, reference: Reference) -> JSON:
        producer = self._entries.get(reference.call_id)
        if producer is None:
            raise ResolutionError(f"there is no call {reference.call_id!r}")
        if producer.state != "finished":
            if not producer.is_usable:
                raise ResolutionError(f"{producer.node.name or producer.id!r} has no result")
            return None  # an optional step that failed counts as null
        value = producer.value
        if reference.path:
            value = lookup(value, reference.path, producer.node.name or producer.id)
        if entry is not None and self._look_at_reference is not None and isinstance(entry.node, ToolCall):
            self._look_at_reference(entry.node, reference, value)
        return value

    # Approval, resources, equal calls

    async def _judge(self, entry: Entry, rule: ApprovalRule) -> None:
        """Ask the tool's rule whether a person has to decide."""
        failure = await self._runner.ask_rule(entry, rule)
        if entry.has_ended:
            return
        if failure is not None:
            self._end(entry, failure.state, error=failure.error)
        elif entry.more.raw:
            self._ask_person(entry)
        else:
            self._queue_on_resources(entry)

    def _ask_person(self, entry: Entry) -> None:
        entry.phase = Phase.APPROVAL
        shown = dict(self._show_call(entry).arguments)
        self._pending[entry.id] = entry
        self._log.note(events.ApprovalAsked, entry.id, entry.node.name, shown)
        self._log.note(events.CallWaiting, entry.id, "approval")
        if self._journal is None:
            self._release_stuck()
        else:
            self._asking.add(entry.id)
            self._runner.start_alone(self._ask_journal(entry, cast(JSON, shown), self._journal))

    async def _ask_journal(self, entry: Entry, shown: JSON, journal: RunJournal) -> None:
        """Write down that a person has to decide; one may have decided already, in another process."""
        decided = await journal.ask(entry.id, name=entry.node.name, arguments=shown)
        self._asking.discard(entry.id)
        if entry.id not in self._pending:
            return
        if decided is None:
            self._release_stuck()
        else:
            self._apply(entry, _from_journal(decided))

    def _apply(self, entry: Entry, decision: Decision) -> None:
        match decision:
            case Approve(arguments=arguments, by=by):
                if arguments is not None:
                    self._change_arguments(entry, arguments)
                del self._pending[entry.id]
                self._log.note(events.ApprovalDecided, entry.id, True, "", by)
                self._queue_on_resources(entry)
            case Deny(reason=reason, by=by):
                del self._pending[entry.id]
                self._log.note(events.ApprovalDecided, entry.id, False, reason, by)
                self._end(entry, "denied", error=reason)

    def _change_arguments(self, entry: Entry, arguments: Mapping[str, object]) -> None:
        assert entry.plan is not None
        plan = entry.plan
        bound: Mapping[str, object] = entry.bound or {}
        needed = {
            name: self._value(None, value)
            for name, value in bound.items()
            if isinstance(value, Reference) and name in plan.needs
        }
        entry.arguments = plan.tool.validate(arguments, needed)
        entry.node = ToolCall(entry.id, entry.node.name, arguments)

    def _take_ticket(self, entry: Entry, plan: Plan) -> None:
        """Queue on the resources of the call, or of what it may turn out to touch."""
        known = entry.bound if entry.arguments is None else entry.arguments
        top = entry
        while top.parent is not None:
            top = top.parent
        # A root stands behind all that it made, and before the next root.
        position = (top.order, entry.order if entry is not top else math.inf)
        ticket = entry.more.ticket = Ticket(entry.id, position, self._accesses(plan, known or {}))
        self._resources.enter(ticket)

    def _accesses(self, plan: Plan, arguments: Arguments | Mapping[str, object]) -> list[Access]:
        return [(resource, not plan.is_read) for resource in plan.tool.resources(arguments)]

    def _queue_on_resources(self, entry: Entry) -> None:
        ticket = None if entry.extra is None else entry.extra.ticket
        if ticket is not None:
            assert entry.plan is not None
            assert entry.arguments is not None
            for freed in self._resources.narrow(ticket, self._accesses(entry.plan, entry.arguments)):
                if freed is not ticket:
                    self._free(freed)
            if ticket.blockers:
                entry.phase = Phase.RESOURCE
                circle = self._find_circle(entry)
                if circle:
                    self._end(entry, "failed", error=f"not run: {CycleError(circle)}")
                    return
                names = tuple(name for name, _ in ticket.accesses)
                self._log.note(events.CallWaiting, entry.id, "resource", names)
                if self._pending and self._waiters:
                    self._release_stuck()
                return
        self._admit(entry)

    def _free(self, ticket: Ticket) -> None:
        entry = self._entries[ticket.owner]
        if entry.phase == Phase.RESOURCE and entry.more.ticket is ticket:
            self._admit(entry)

    def _find_circle(self, entry: Entry) -> list[str]:
        """The circle in which a call that was made by a running one waits for its own maker; empty when there is none."""
        if entry.parent is None:
            return []
        above = set[str]()
        parent: Entry | None = entry.parent
        while parent is not None:
            above.add(parent.id)
            parent = parent.parent
        came_from: dict[str, str] = {entry.id: ""}
        stack = [entry]
        while stack:
            current = stack.pop()
            for other in self._waits_on(current):
                if other.id in above:
                    path = [other.id, current.id]
                    while (before := came_from[path[-1]]) != "":
                        path.append(before)
                    return path[::-1]
                if other.id not in came_from:
                    came_from[other.id] = current.id
                    stack.append(other)
        return []

    def _waits_on(self, entry: Entry) -> Iterator[Entry]:
        if entry.phase == Phase.NEEDS:
            names = [reference.call_id for reference in find_own_references(entry.node)]
            for name in (*names, *get_after(entry.node)):
                if not self._entries[name].has_ended:
                    yield self._entries[name]
        elif entry.phase == Phase.RESOURCE and entry.extra is not None and entry.extra.ticket is not None:
            yield from (self._entries[ticket.owner] for ticket in entry.extra.ticket.blockers)
        elif entry.phase == Phase.RUNNING and entry.extra is not None:
            yield from (child for child in entry.extra.children if not child.has_ended)

    def _admit(self, entry: Entry) -> None:
        """Its resources are free: look for its result elsewhere, then run it."""
        plan = entry.plan
        assert plan is not None
        assert entry.arguments is not None
        if plan.touches:
            ticket = entry.more.ticket
            assert ticket is not None
            ticket.has_started = True
            if not plan.is_read:
                self._resource_writes += 1
        if not plan.is_read or not self._share(entry, plan, entry.arguments):
            self._runner.start(entry)

    def _share(self, entry: Entry, plan: Plan, arguments: Arguments) -> bool:
        """Whether somebody else's result serves, now or soon: the cache's, or an equal call's."""
        tool = plan.tool
        resources = tool.resources(arguments) if plan.touches else ()
        scope_id = self._scope_ids[tool.scope]
        generations = [self._cache.generation(resource) for resource in resources]
        key = tool.key(arguments, self._run_id if scope_id is None else scope_id, generations)
        if key is None:
            return False
        is_stored = tool.ttl_s is not None and scope_id is not None
        if is_stored and self._take_stored(entry, key):
            return True
        shared = f"{key}/{self._resource_writes}" if resources else key
        leader = self._shared.get(shared)
        if leader is not None and leader.state == "finished":
            entry.value, entry.source, entry.age_s = leader.value, "flight", None
            self._end(entry, "finished")
            return True
        if leader is not None and not leader.has_ended:
            leader.more.add_follower(entry)
            entry.phase = Phase.FLIGHT
            self._log.note(events.CallWaiting, entry.id, "calls", (leader.id,))
            return True
        self._shared[shared] = entry
        entry.more.key = shared
        if is_stored:
            self._runner.start_shared(entry, key, self._user if tool.scope == "user" else None)
        return is_stored

    def _take_stored(self, entry: Entry, key: str) -> bool:
        hit = self._cache.get(key, tool=entry.node.name)
        if hit is None:
            return False
        entry.source, entry.age_s = "cache", hit.age_s
        if isinstance(hit, HitError):
            self._end(entry, "failed", error=hit.error)
        else:
            entry.value = hit.value
            self._end(entry, "finished")
        return True

    # The end

    def _settle(self, entry: Entry, failure: Failure | None) -> None:
        """What the runner tells of a call that ran."""
        if entry.has_ended:
            # Voided, or dropped for other arguments: only what it held is given back.
            self._leave(entry, failure)
        elif failure is None:
            self._end(entry, "finished")
        else:
            self._end(entry, failure.state, error=failure.error, failure=failure)

    def _end(self, entry: Entry, state: State, *, error: str | None = None, failure: Failure | None = None) -> None:
        """The one outcome of an entry; starts what waited for it."""
        entry.phase = Phase.ENDED
        entry.state = state
        entry.error = error
        if state != "finished":
            entry.value = None
        # Nobody needs them any more, and a million of them would be in the garbage collector's way.
        entry.arguments = entry.bound = None
        if entry.sealed_s is not None:
            self._tell(entry)
        else:
            entry.ended_s = self._log.now()
            note = show_note(entry.value) if state == "finished" else str(error)
            self._log.note(events.CallProgress, entry.id, 1, 1, note)
        if entry.extra is not None:
            self._leave(entry, failure)
        self._ended.append(entry)
        if not self._is_settling:
            self._settle_all()

    def _settle_all(self) -> None:
        """Go through all that ended, and what ends by that, without nesting: a chain may be a million long."""
        self._is_settling = True
        try:
            while self._ended:
                entry = self._ended.popleft()
                if entry.dependents is not None:
                    dependents, entry.dependents = entry.dependents, None
                    for dependent in dependents:
                        self._count_down(dependent, entry)
                if entry.extra is not None:
                    self._let_follow(entry)
                if self._fail_fast and entry.state == "failed" and entry.parent is None and not entry.is_usable:
                    self.cancel_all(f"{entry.id} failed")
        finally:
            self._is_settling = False

    def _count_down(self, entry: Entry, producer: Entry) -> None:
        if entry.phase != Phase.NEEDS:
            return
        if not self._is_met(entry, producer):
            self._skip(entry, producer)
            return
        entry.missing -= 1
        if not entry.missing:
            self._go_on(entry)

    def _skip(self, entry: Entry, producer: Entry) -> None:
        because = producer.extra.because if producer.extra is not None else None
        root = producer if because is None else self._entries[because]
        entry.more.because = root.id
        reason = f": {root.error}" if root.error else ""
        self._end(
            entry,
            "skipped",
            error=f"not run: it needs {root.node.name or root.id!r} ({root.id}), which {_SAID[root.state or 'failed']}{reason}",
        )

    def _leave(self, entry: Entry, failure: Failure | None = None) -> None:
        """Give its place on resources to those behind it, as soon as nothing of it runs any more."""
        if entry.extra is None or entry.extra.ticket is None:
            return
        if failure is not None and failure.job is not None and failure.job.is_busy:
            failure.job.on_free.append(lambda: self._leave(entry))
            return
        ticket, entry.extra.ticket = entry.extra.ticket, None
        if ticket.has_started and entry.plan is not None and not entry.plan.is_read:
            self._resource_writes += 1
        for freed in self._resources.leave(ticket):
            self._free(freed)

    def _let_follow(self, entry: Entry) -> None:
        """Give its result to the equal calls that waited for it; one of them runs when it has none."""
        assert entry.extra is not None
        followers, entry.extra.followers = entry.extra.followers, ()
        followers = [follower for follower in followers if not follower.has_ended]
        if entry.state in ("finished", "failed"):
            for follower in followers:
                follower.value, follower.source = entry.value, "flight"
                self._end(follower, entry.state, error=entry.error)
            return
        key = entry.extra.key
        if key is not None and self._shared.get(key) is entry:
            del self._shared[key]
        for follower in followers:
            self._admit(follower)

    def _tell_sealed(self, entry: Entry, call: ToolCall) -> None:
        secrets = () if entry.plan is None else entry.plan.tool.secrets
        repaired = () if entry.extra is None else entry.extra.repaired
        shown = show_later(call.arguments, secrets)
        entry.sealed_s = self._log.note(events.CallSealed, entry.id, shown, repaired)

    def _seal_early(self, entry: Entry, repaired: tuple[str, ...]) -> None:
        """The early run stands: it, and what it needed, are as good as sealed from the start."""
        for child in self._children(entry):
            self._seal_early(child, ())
        if repaired:
            entry.more.repaired = repaired
        self._tell_sealed(entry, cast(ToolCall, entry.node))
        if entry.has_ended:
            self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        """Say how it ended, to the log, the journal and whoever waits for it."""
        note, node_id = self._log.note, entry.id
        error = entry.error or ""
        match entry.state:
            case "finished":
                told_s = note(events.CallFinished, node_id, entry.value, entry.source, entry.age_s, entry.ended_s)
            case "failed":
                told_s = note(events.CallFailed, node_id, error)
            case "skipped":
                told_s = note(events.CallSkipped, node_id, entry.more.because or error)
            case "denied":
                told_s = note(events.CallDenied, node_id, error)
            case "cancelled":
                told_s = note(events.CallCancelled, node_id, error)
            case "in_doubt":
                told_s = note(events.CallInDoubt, node_id, error)
            case "void" | None:
                told_s = note(events.CallVoid, node_id, error)
        if entry.ended_s is None:
            entry.ended_s = told_s
        if self._journal is not None and entry.source != "journal" and entry.state in ("finished", "failed"):
            self._record_read(entry, self._journal)
        for waiter in self._waiters:
            waiter.left.discard(node_id)
            if not waiter.left:
                waiter.release()
        if self._pending and self._waiters:
            self._release_stuck()  # perhaps only those that wait for a person are left
        if entry.extra is not None:
            for told in entry.extra.on_end:
                told(entry)

    def _record_read(self, entry: Entry, journal: RunJournal) -> None:
        """Reads and model steps are written down when they are told; effects were by whoever ran them."""
        if (entry.plan is None and not isinstance(entry.node, ModelStep)) or (entry.plan and not entry.plan.is_read):
            return
        assert entry.state is not None
        self._runner.start_alone(
            journal.record(
                entry.id,
                state=entry.state,
                value=entry.value,
                error=entry.error,
                effect="read",
                attempt=max(1, entry.attempt),
                tool=entry.node.name,
            )
        )

    def _become(self, entry: Entry, state: State, reason: str) -> None:
        """Void what was never sealed; what it found stays for equal calls of this turn."""
        extra = entry.extra
        if extra is not None and extra.key is not None and entry.state == "finished":
            kept = Entry(entry.id, entry.node, None, None, entry.order)
            kept.phase, kept.state, kept.value = Phase.ENDED, "finished", entry.value
            self._shared[extra.key] = kept
        entry.phase, entry.state, entry.error, entry.value = Phase.ENDED, state, reason, None
        entry.sealed_s = None
        self._tell(entry)
        self._leave(entry)
        if extra is not None:
            self._let_follow(entry)

    def _stop(self, entry: Entry, reason: str) -> None:
        if entry.phase >= Phase.FLIGHT:
            self._runner.stop(entry, reason)

    def _break_off(self, error: BaseException) -> None:
        """The journal can't be written, or another driver has the run: stop, and tell whoever leaves the executor."""
        if self._broken is None:
            self._broken = error
            self.cancel_all(str(error))
            for waiter in self._waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(error)

    # Questions

    def _show_call(self, entry: Entry) -> ToolCall:
        """The call with its references resolved, if they can be, and its secrets masked."""
        node = entry.node
        arguments: Mapping[str, object] = node.arguments if isinstance(node, (ToolCall, ModelStep)) else {}
        secrets = () if entry.plan is None else entry.plan.tool.secrets
        if find_references(arguments):
            # One that can't be resolved is shown as it was written: it failed, and says so.
            with suppress(ToolError):
                arguments = cast("Mapping[str, object]", substitute(arguments, partial(self._value, None)))
        return ToolCall(entry.id, node.name, cast("Mapping[str, object]", show_arguments(arguments, secrets)))

    def _make_outcome(self, entry: Entry) -> Outcome:
        assert entry.state is not None
        return Outcome(
            call=self._show_call(entry),
            state=entry.state,
            value=entry.value,
            error=entry.error,
            source=entry.source,
            age_s=entry.age_s,
            attempt=entry.attempt,
            early=entry.early,
            parent=None if entry.parent is None else entry.parent.id,
            sealed_s=entry.sealed_s,
            started_s=entry.started_s,
            ended_s=entry.ended_s or 0.0,
        )

    def _is_told(self, entry: Entry) -> bool:
        return entry.has_ended and (entry.sealed_s is not None or entry.state == "void")

    def _children(self, entry: Entry) -> list[Entry]:
        """What this entry made that is still in the graph."""
        if entry.extra is None:
            return []
        return [child for child in entry.extra.children if self._entries.get(child.id) is child]

    def _release_stuck(self) -> None:
        """Let go of whoever waits only for calls that wait for a person."""
        if not self._waiters or not self._pending:
            return
        # One that is still being looked up in the journal may have been decided in another process.
        stack = [entry for entry in self._pending.values() if entry.id not in self._asking]
        stuck = {entry.id for entry in stack}
        while stack:
            entry = stack.pop()
            behind = list(entry.dependents or ())
            if entry.extra is not None:
                behind += entry.extra.followers
                if entry.extra.ticket is not None:
                    behind += [self._entries[ticket.owner] for ticket in entry.extra.ticket.followers]
            if entry.parent is not None and entry.parent.phase == Phase.RUNNING:
                behind.append(entry.parent)
            for other in behind:
                if other.id not in stuck and not other.has_ended:
                    stuck.add(other.id)
                    stack.append(other)
        for waiter in self._waiters:
            if stuck.issuperset(waiter.left):
                waiter.release()

    def _name_call(self, caller: Entry, tool: str) -> str:
        name = f"{caller.id}/{tool}"
        count = 1
        while name in self._entries:
            count += 1
            name = f"{caller.id}/{tool}_{count}"
        return name

    def _make_context(self, entry: Entry) -> Context[Any]:
        context = Context[Any](
            self._data,
            user=self._user,
            session=self._session,
            run_id=self._run_id,
            call_id=entry.id,
            attempt=max(1, entry.attempt),
            idempotency_key=hashlib.sha256(f"{self._run_id}\0{entry.id}".encode()).hexdigest()[:32],
            _progress=Progress(self._log, entry),
            _call=partial(self.call, parent=entry.id),
            _open=partial(self.run_group, parent=entry.id),
        )
        entry.more.context = context
        return context

    # Controls

    def _begin(self, entry: Entry) -> None:
        """Start a step that asks a model, or open a control's body."""
        node = entry.node
        assert not isinstance(node, ToolCall)
        if isinstance(node, ModelStep):
            if node.timeout_s is not None:
                entry.more.timeout_s = node.timeout_s
            self._runner.start(entry)
            return
        entry.phase = Phase.RUNNING
        entry.attempt = 1
        entry.started_s = self._log.note(events.CallStarted, entry.id)
        begin_control(self, entry, node)

    async def _run_model_step(self, entry: Entry) -> JSON:
        node = entry.node
        assert isinstance(node, ModelStep)
        if self._run_model is None:
            raise ToolError("this run has no model to ask")
        values = substitute(node.arguments, lambda reference: self._value(entry, reference))
        return await self._run_model(node, cast("Mapping[str, JSON]", values))

    def finish_control(self, entry: Entry, value: JSON, failure: str | None = None) -> None:
        """A control's body has ended."""
        if entry.has_ended:
            return
        entry.value = value
        self._end(entry, "finished" if failure is None else "failed", error=failure)

    def resolve_value(self, value: object) -> object:
        """A control's value with its references replaced."""
        return substitute(value, lambda reference: self._value(None, reference))

    def get_entry(self, node_id: str) -> Entry:
        """What is known of a node; for controls."""
        return self._entries[node_id]

    def skip_node(self, node: Node, because: str, parent: str) -> None:
        """A node of a branch that isn't taken: it is told of, and never runs."""
        entry = self._open(node, parent)
        entry.more.because = because
        entry.sealed_s = self._log.now()
        self._end(entry, "skipped", error=f"not run: {because}")


class _Outcomes(Mapping[str, Outcome]):
    """Outcomes made when they are looked at: most are never."""

    def __init__(self, entries: Mapping[str, Entry], make: Callable[[str], Outcome | None]) -> None:
        self._entries = entries
        self._make = make

    def __getitem__(self, call_id: str) -> Outcome:
        outcome = self._make(call_id)
        if outcome is None:
            raise KeyError(call_id)
        return outcome

    def __iter__(self) -> Iterator[str]:
        return (name for name in list(self._entries) if self._make(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


_SAID = {
    "failed": "failed",
    "skipped": "did not run",
    "denied": "a person denied",
    "cancelled": "was cancelled",
    "void": "was never complete",
    "in_doubt": "may or may not have happened",
    "finished": "finished",
}


def _equal(first: Mapping[str, object], second: Mapping[str, object]) -> bool:
    """Equal as JSON, so that true isn't 1."""
    return dump_sorted(show_arguments(first)) == dump_sorted(show_arguments(second))


def _from_journal(decided: RecordedDecision) -> Decision:
    if not decided.approved:
        return Deny(decided.reason, decided.by)
    arguments = decided.arguments
    return Approve(arguments if isinstance(arguments, dict) else None, decided.by)
