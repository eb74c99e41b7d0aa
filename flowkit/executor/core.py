"""Runs a graph of calls that may still grow: each call starts the moment that nothing holds it back.

A call is counted, not watched: it has a number of things that it still waits for, and whoever ends lowers the number
of those behind it; the one that gets to zero goes on. So a waiting call is an entry in a few dicts, with no task, and
nothing is ever looked for in turns. Tasks exist only for what runs; one that has ended takes the next call that is
ready, so a thousand calls in a row are a few tasks.

What a call takes, always in this order, so that nobody holds what another waits for: what it needs, approval, its
place on its resources, the cache, the flight of an equal call, a slot; then its time-out starts.

State: `_entries` (every node, by id), the queues of slots and resources, `_shared` (reads of this turn that equal
ones may share, until a write ends). True at every moment: an entry has at most one outcome; the end of an early run is
told when its call is sealed; a tool that waits for its own calls holds no slot.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, cast

from flowkit.codec import JSON, dump_sorted
from flowkit.errors import GraphError, ToolArgumentsError, ToolError
from flowkit.executor.entries import AnyTool, Entry, Phase, Plan, Waiter
from flowkit.executor.inside import load_result
from flowkit.executor.outcomes import Approve, Decision, Outcome
from flowkit.executor.placing import Placing
from flowkit.graph import Group
from flowkit.masking import show_arguments
from flowkit.references import Reference, ToolCall, find_references


class Executor(Placing):
    """One run's graph. Use it in the task that owns the run: `async with executor:`; leaving cancels and waits.

    `slots` limits what runs at once, in all or by name (`{"all": 16, "db": 4}`). With `fail_fast` the first failure of
    a node that no other node made cancels the rest. `timeout_s` bounds the whole. `look_at_reference` sees each value
    that goes from one call into another and may refuse it by raising `ToolError`. `run_model_step` asks models. What
    finished or failed in `past`, the outcomes of a run that waited for a person, doesn't run again.
    """

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
        # A model reads it when the conversation goes on, so it says which end it was.
        is_stopped = kind is not None and issubclass(kind, asyncio.CancelledError)
        self.cancel_all("the run was stopped" if is_stopped else "the run has ended")
        self._is_closed = True
        await self._runner.wait_closed()
        if self._broken is not None and error is None:
            raise self._broken

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
        self._place(entry, call, ([], [], ()), early=True, sealed=False)
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
        try:
            edges = self._find_edges(call)
        except GraphError as unknown:
            entry.node = call
            self._tell_sealed(entry, call)
            self._end(entry, "failed", error=f"not run: {unknown}")
            return
        self._place(entry, call, edges, early=False, sealed=True)

    def void(self, call_id: str, reason: str) -> None:
        """A call that will never be sealed. What its early run found is kept for an equal call of this turn."""
        entry = self._entries[call_id]
        if entry.sealed_s is not None or entry.state == "void":
            return
        for child in self._children(entry):
            self.void(child.id, reason)
        if not entry.has_ended:
            self._stop(entry, reason)
        self._become(entry, "void", reason)

    def fail(self, call: ToolCall, error: str) -> None:
        """A call that can't run, such as one of an unknown tool; `error` is what the model reads.

        What is known of it from before stands: its tool may only be gone by now.
        """
        entry = self._open_again(call)
        if entry.phase != Phase.NEW:
            entry = self._start_anew(entry)
        entry.node = call
        self._tell_sealed(entry, call)
        if not self._remembers or not self._take_recorded(entry):
            self._end(entry, "failed", error=error)

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

    def references(self, call_id: str) -> dict[str, Reference]:
        """The arguments of a sealed call that are references to other calls, by name."""
        call = cast(ToolCall, self._entries[call_id].node)
        return {name: value for name, value in call.arguments.items() if isinstance(value, Reference)}

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
        if call_ids:
            asked = {name: self._entries[name] for name in call_ids}
        else:
            asked = {name: entry for name, entry in self._entries.items() if entry.parent is None}
        waiter.left = {name for name, entry in asked.items() if entry.state is None or not self._is_told(entry)}
        self._waiters.add(waiter)
        try:
            if self._pending:
                self._look_for_stuck()
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
        placed = ToolCall(name, made.name, made.arguments)
        edges = self._find_edges(placed)
        entry = self._open(placed, parent, Plan(tool, remembers=self._remembers))
        self._place(entry, placed, edges, early=False, sealed=True)
        await self._wait_within(caller, entry)
        raw = entry.more.raw
        return load_result(tool, entry.value) if raw is None else raw

    async def run_group(self, group: Group, tools: Mapping[str, AnyTool], parent: str) -> JSON:
        """The value of nodes that a running tool opens in this graph; the tool holds no slot while it waits.

        They call these tools, whatever else the run calls by the same names.
        """
        self._brought[group.id] = {name: Plan(tool, remembers=self._remembers) for name, tool in tools.items()}
        try:
            self.add(group, parent=parent)
            entry = self._entries[group.id]
            await self._wait_within(self._entries[parent], entry)
        finally:
            del self._brought[group.id]
        return entry.value

    async def _wait_within(self, caller: Entry, entry: Entry) -> None:
        """Until what a running tool made has ended; raises `ToolError` when it has no result."""
        if not entry.has_ended:
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry.more.tell_end(lambda _: None if ended.done() else ended.set_result(None))
            try:
                await self._runner.lend_slot(caller, ended)
            except asyncio.CancelledError:
                self.cancel(entry.id, "its caller was stopped")
                raise
        if entry.state != "finished":
            raise ToolError(f"{entry.node.name}: {entry.error or entry.state}")

    def _name_call(self, caller: Entry, tool: str) -> str:
        """An id for one more call of this tool; a need of the caller, or an early run of it, may have taken the first."""
        counts = caller.more.counts = caller.more.counts or {}
        while True:
            counts[tool] = counts.get(tool, 0) + 1
            name = f"{caller.id}/{tool}" if counts[tool] == 1 else f"{caller.id}/{tool}_{counts[tool]}"
            if name not in self._entries:
                return name


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


def _equal(first: Mapping[str, object], second: Mapping[str, object]) -> bool:
    """Equal as JSON, so that true isn't 1."""
    return dump_sorted(show_arguments(first)) == dump_sorted(show_arguments(second))
