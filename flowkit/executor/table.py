"""The state of one run's graph, which all objects of the executor read, and through which they notify one another.

It also keeps the waiters for the end of certain calls, or of all calls.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from flowkit.codec import JSON
from flowkit.errors import NoSuchNode, ResolutionError, ToolError
from flowkit.executor import phases
from flowkit.executor.entries import Entry
from flowkit.executor.outcomes import Outcome
from flowkit.executor.plan import Plan, find_plan
from flowkit.executor.resources import Resources
from flowkit.graph import ModelStep
from flowkit.known_secrets import KNOWN, KnownSecrets
from flowkit.masking import show_arguments
from flowkit.references import SCALARS, Reference, ToolCall, find_references, lookup, substitute
from flowkit.suggestions import suggest
from flowkit.tools import ToolLookup


class CallsWaiter:
    """Waits for some calls; `left` are the unfinished ones."""

    __slots__ = ("future", "left")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = {entry.id for entry in entries if not entry.is_told}

    def note_end(self, entry: Entry) -> None:
        """Note that a call's end has just been reported."""
        self.left.discard(entry.id)
        if not self.left:
            self.release()

    def waits_only_for(self, stuck: Iterable[Entry]) -> bool:
        """Return whether it waits for these calls only."""
        return self.left <= {entry.id for entry in stuck}

    def release(self) -> None:
        """Wake the waiter."""
        if not self.future.done():
            self.future.set_result(None)


class AllWaiter:
    """Waits for all current calls that no other entry made; `left` is the number of unfinished ones.

    It counts them, since the ids of a million calls would add a twentieth to the memory of the calls.
    """

    __slots__ = ("future", "left", "newest")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = 0
        self.newest: float = 0
        """The position of the last one in the order; later entries follow it."""
        for entry in entries:
            # Values from outside have the order 0: there is one for each item of an `each`.
            if entry.parent is None and entry.order and (entry.phase < phases.ENDED or not entry.is_told):
                self.left += 1
            if entry.order > self.newest:
                self.newest = entry.order

    def note_end(self, entry: Entry) -> None:
        """Note that a call's end has just been reported."""
        if entry.parent is None and entry.order <= self.newest:
            self.left -= 1
            if not self.left:
                self.release()

    def waits_only_for(self, stuck: Iterable[Entry]) -> bool:
        """Return whether these unfinished calls are all that it waits for."""
        return self.left == sum(1 for entry in stuck if entry.parent is None and entry.order <= self.newest)

    def release(self) -> None:
        """Wake the waiter."""
        if not self.future.done():
            self.future.set_result(None)


Waiter = CallsWaiter | AllWaiter


Past = Mapping[str, Outcome]
"""The outcomes of an earlier run, by id."""


class Table:
    """The entries, and the queues by which a lower object passes work to a higher one.

    It calls no other object. `Gates` takes `moves`; `Workers` takes the rest.
    """

    def __init__(self, tools: ToolLookup, *, remembers: bool) -> None:
        self.remembers = remembers
        """Whether an earlier run or process may have recorded results."""
        around = KNOWN.get()
        self.known = KnownSecrets() if around is None else around
        """The secrets of the run so far, shared with the run around it."""
        self.entries: dict[str, Entry] = {}
        """Every node, by its id."""
        self.pending: dict[str, Entry] = {}
        """The calls that wait for a person."""
        self.asking: dict[str, None] = {}
        """Those of them with a decision that is still being looked up in the journal.

        No set, which takes 216 bytes in each run while it is empty.
        """
        self.shared: dict[Hashable, Entry] = {}
        """Reads of this turn that equal ones may share, until a write finishes."""
        self.has_doubt = False
        """Whether a call is in doubt, or has one inside it that is."""
        self.resources = Resources()
        self.waiters: set[Waiter] = set()
        self.moves: deque[Entry] = deque()
        """The entries that may continue, and the ended ones with dependents to release."""
        self.ready: deque[Entry] = deque()
        """The calls that have their slot, for a task to run."""
        # Few runs have any of these, and they are taken all together: no queue, which takes 760 bytes while it is empty.
        self.apart: list[Entry] = []
        """The calls that first need their own task: to call an approval rule, or to share a run with other processes."""
        self.errands: list[Coroutine[Any, Any, object]] = []
        """Pending writes to the journal and look-ups in it."""
        self._tools = tools
        self.plans: dict[str, Plan] = {}
        """The properties of the run's tools, by name."""
        self.brought: dict[str, Mapping[str, Plan]] = {}
        """Of the groups that running tools opened, the tools that their nodes call, by group and name."""

    def take_apart(self) -> tuple[list[Entry], list[Coroutine[Any, Any, object]]]:
        """Take the calls and the errands that need tasks of their own; those of a task that is made now come next time."""
        taken = self.apart, self.errands
        self.apart, self.errands = [], []
        return taken

    def find(self, node_id: str) -> Entry:
        """Find the entry of a node; raises `NoSuchNode`."""
        entry = self.entries.get(node_id)
        if entry is None:
            raise NoSuchNode(node_id, f"there is no node {node_id!r}; {suggest(node_id, self.entries)}")
        return entry

    def plan(self, name: str, above: Entry | None = None) -> Plan | None:
        """Find the tool that a node below `above` calls by this name: the nearest group's own tool, or the run's."""
        if self.brought:
            while above is not None:
                brought = self.brought.get(above.id)
                if brought is not None:
                    return brought.get(name)
                above = above.parent
        plan = self.plans.get(name)
        if plan is None:
            tool = self._tools.get(name)
            if tool is None:
                return None
            plan = self.plans[name] = find_plan(tool, remembers=self.remembers)
        return plan

    def value(self, reference: Reference) -> JSON:
        """Look up the value of a reference; raises `ResolutionError`."""
        try:
            producer = self.entries[reference.call_id]
        except KeyError:
            raise ResolutionError(f"there is no call {reference.call_id!r}") from None
        if producer.state != "finished":
            if not producer.is_usable:
                raise ResolutionError(f"{producer.node.name or producer.id!r} has no result")
            return None  # an optional step that failed counts as null
        path = reference.path
        return lookup(producer.value, path, producer.node.name or producer.id) if path else producer.value

    def fill_in(self, argument: Any) -> object:
        """Replace each reference in an argument by its value; raises `ResolutionError`."""
        kind: type[object] = argument.__class__
        if kind is Reference:
            return self.value(argument)
        if kind is not list:
            return substitute(argument, self.value)
        # What most that refers to many calls is: a list of their results, taken here without a call for each.
        items: list[object] = argument
        entries = self.entries
        filled: list[object] = []
        for item in items:
            if type(item) is Reference and not item.path and item.call_id in entries:
                producer = entries[item.call_id]
                filled.append(producer.value if producer.state == "finished" else self.value(item))
            else:
                filled.append(item if type(item) in SCALARS else substitute(item, self.value))
        return filled

    def children(self, entry: Entry) -> list[Entry]:
        """List the entries that this one made and that are still in the graph."""
        if entry.extra is None:
            return []
        return [child for child in entry.extra.children if self.entries.get(child.id) is child]

    def show_call(self, entry: Entry) -> ToolCall:
        """Show the call with its references resolved, if they can be, and its secrets masked."""
        node = entry.node
        arguments: Mapping[str, object] = node.arguments if isinstance(node, (ToolCall, ModelStep)) else {}
        if find_references(arguments):
            # A reference that can't be resolved is shown as written; the call has failed with the reason.
            with suppress(ToolError):
                arguments = cast("Mapping[str, object]", substitute(arguments, self.value))
        return ToolCall(entry.id, node.name, self.show_arguments(entry, arguments))

    def show_arguments(self, entry: Entry, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """Show arguments of a call, with its own secrets and those that the run knows masked."""
        secrets = () if entry.plan is None else entry.plan.tool.secrets
        return cast("Mapping[str, object]", self.known.mask(show_arguments(arguments, secrets)))

    def outcome(self, call_id: str) -> Outcome | None:
        """Return a call's outcome; None while it is in flight or isn't sealed."""
        entry = self.entries.get(call_id)
        if entry is None or entry.order == 0 or not entry.is_told:
            return None
        assert entry.state is not None
        return Outcome(
            call=self.show_call(entry),
            state=entry.state,
            value=entry.value,
            error=entry.error,
            source=entry.source,
            age_s=entry.age_s,
            attempt=entry.attempt,
            early=entry.early,
            parent=None if entry.parent is None else entry.parent.id,
            decision=None if entry.extra is None else entry.extra.decision,
            sealed_s=entry.sealed_s,
            started_s=entry.started_s,
            ended_s=entry.ended_s or 0.0,
        )


class Outcomes(Mapping[str, Outcome]):
    """The ended calls, in the order in which they were made; each outcome is created on access."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, call_id: str) -> Outcome:
        outcome = self._table.outcome(call_id)
        if outcome is None:
            self._table.find(call_id)
            raise NoSuchNode(call_id, f"{call_id!r} has not ended: it has no outcome yet")
        return outcome

    def __iter__(self) -> Iterator[str]:
        for name, entry in list(self._table.entries.items()):
            if entry.order != 0 and entry.is_told:
                yield name

    def __contains__(self, call_id: object) -> bool:
        entry = self._table.entries.get(call_id) if isinstance(call_id, str) else None
        return entry is not None and entry.order != 0 and entry.is_told

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        states = ", ".join(f"{name!r}: {outcome.state}" for name, outcome in self.items())
        return f"Outcomes({{{states}}})"
