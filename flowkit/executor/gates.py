"""The gates of a call, in their order, and the one loop that passes calls through them."""

from collections import deque
from typing import Protocol

from flowkit import events
from flowkit.errors import CycleError
from flowkit.events import EventLog
from flowkit.executor import phases
from flowkit.executor.approvals import ApprovalGate, Guarded, read_decision
from flowkit.executor.circles import find_circle
from flowkit.executor.controls import Controls
from flowkit.executor.entries import MODEL_SLOT, Entry
from flowkit.executor.intake import Intake
from flowkit.executor.outcomes import Approve
from flowkit.executor.plan import Plan
from flowkit.executor.settling import Settler
from flowkit.executor.sharing import ShareGate
from flowkit.executor.slots import Slots, SlotWaiter
from flowkit.executor.table import Past, Table
from flowkit.graph import ModelStep
from flowkit.journal import RunJournal
from flowkit.references import ToolCall


class Gate(Protocol):
    """A check that a call of some tools has to pass before it runs."""

    def applies(self, plan: Plan) -> bool:
        """Return whether calls of this tool pass this gate; asked once for each tool."""
        ...

    def enter(self, entry: Entry) -> bool:
        """Let the call pass (True), or make it wait or end.

        After waiting it starts from the first gate again, since the state may have changed.
        """
        ...


class RememberedGate:
    """The gate that restores earlier outcomes: of the run that this one resumes, or of an earlier process."""

    def __init__(self, settler: Settler, journal: RunJournal | None, past: Past) -> None:
        self._settler = settler
        self._journal = journal
        self._past = past

    def applies(self, plan: Plan) -> bool:
        return plan.remembers

    def enter(self, entry: Entry) -> bool:
        if entry.is_holder:
            return True  # its body's nodes are looked up one by one
        ended, decision = self._past.get(entry.id), None
        if ended is not None:
            decision = ended.decision
        elif self._journal is not None:
            ended = self._journal.lookup(entry.id)
            approval = self._journal.approvals.get(entry.id)
            if approval is not None and approval.decision is not None:
                decision = read_decision(approval.decision)
        if ended is None or ended.state not in ("finished", "failed"):
            return True
        entry.more.source, entry.attempt, entry.value = "journal", ended.attempt, ended.value
        if decision is not None:
            entry.more.decision = decision
            if isinstance(decision, Approve) and decision.arguments is not None:
                entry.node = ToolCall(entry.id, entry.node.name, decision.arguments)
        self._settler.end(entry, ended.state, error=ended.error)
        return False


class ResolvedGate:
    """Puts in the values that its references point to."""

    def __init__(self, intake: Intake) -> None:
        self.enter = intake.resolve

    def applies(self, plan: Plan) -> bool:
        return True


class ResourceGate:
    """The gate that a call passes when no earlier call reads or writes its resources."""

    def __init__(self, table: Table, log: EventLog, settler: Settler) -> None:
        self._table = table
        self._log = log
        self._settler = settler

    def applies(self, plan: Plan) -> bool:
        return plan.touches

    def enter(self, entry: Entry) -> bool:
        ticket = entry.more.ticket
        assert ticket is not None
        assert entry.plan is not None
        assert entry.arguments is not None
        for freed in self._table.resources.narrow(ticket, entry.plan.accesses(entry.arguments)):
            if freed is not ticket:
                self._settler.free(freed)
        if not ticket.blockers:
            ticket.has_started = True
            return True
        entry.phase = phases.RESOURCE
        circle = find_circle(self._table, entry)
        if circle:
            self._settler.end(entry, "failed", error=f"not run: {CycleError(circle)}")
            return False
        names = tuple(name for name, _ in ticket.accesses)
        self._log.note(events.CallWaiting, entry.id, "resource", names)
        if self._table.pending:
            self._settler.stuck.look()
        return False


class OpenedGate:
    """Open the body of a control, for which this is the last gate. A step that asks a model continues to a slot."""

    def __init__(self, log: EventLog, controls: Controls) -> None:
        self._log = log
        self._controls = controls

    def applies(self, plan: Plan) -> bool:
        return False

    def enter(self, entry: Entry) -> bool:
        node = entry.node
        if isinstance(node, ModelStep):
            if node.timeout_s is not None:
                entry.more.timeout_s = node.timeout_s
            return True
        entry.phase = phases.RUNNING
        entry.attempt = 1
        entry.started_s = self._log.note(events.CallStarted, entry.id)
        self._controls.begin(entry)
        return False


class StoppedGate:
    """The only gate once the run was stopped: it cancels whatever comes."""

    def __init__(self, settler: Settler, reason: str) -> None:
        self._settler = settler
        self._reason = reason

    def applies(self, plan: Plan) -> bool:
        return True

    def enter(self, entry: Entry) -> bool:
        self._settler.end(entry, "cancelled", error=self._reason)
        return False


class Gates:
    """Takes the table's moves: passes due calls through the gates, and releases the dependents of ended ones."""

    def __init__(
        self,
        table: Table,
        log: EventLog,
        settler: Settler,
        slots: Slots[Entry | SlotWaiter],
        *,
        remembered: RememberedGate,
        resolved: ResolvedGate,
        guarded: Guarded,
        approval: ApprovalGate,
        resource: ResourceGate,
        share: ShareGate,
        opened: OpenedGate,
        fail_fast: bool,
    ) -> None:
        self._table = table
        self._moves: deque[Entry] = table.moves
        self._ready: deque[Entry] = table.ready
        self._log = log
        self._settler = settler
        self._slots = slots
        self._fail_fast = fail_fast
        self._is_draining = False
        # The order in which a call acquires what it needs. All calls use this order, so no two of them can wait for
        # each other.
        self._order: tuple[Gate, ...] = (
            # First: a recorded call doesn't run again, and needs nothing.
            remembered,
            # Before the approval: a person has to see the values, and they name the resources.
            resolved,
            # Before the approval: a person has to see the guard's changes, and no call that it refuses.
            guarded,
            # Before the resources: a person thinks for days, and would keep all others from them.
            approval,
            # Before the cache lookup: earlier writes may invalidate the cached result.
            resource,
            # Last: who waits for an equal call or finds a result needs no slot. Then comes the slot, in `drain`.
            share,
        )
        self._for_controls: tuple[Gate, ...] = (remembered, opened) if table.remembers else (opened,)
        self._of_tools: dict[Plan | None, tuple[Gate, ...]] = {}
        self._of_tools_with_references: dict[Plan | None, tuple[Gate, ...]] = {}
        self._resolved = resolved

    def drain(self) -> None:
        """Take moves until there are none. It never nests: a chain may be a million long."""
        moves = self._moves
        if self._is_draining:
            return
        of_tools, of_tools_with_references = self._of_tools, self._of_tools_with_references
        self._is_draining = True
        try:
            while moves:
                entry = moves.popleft()
                if entry.phase >= phases.ENDED:
                    self._settler.pass_on(entry)
                    if self._fail_fast and entry.state == "failed" and entry.parent is None and not entry.is_usable:
                        self.stop(f"{entry.id} failed")
                    continue
                known = of_tools if entry.bound is None else of_tools_with_references
                plan = entry.plan
                gates = known.get(plan)
                if gates is None:
                    gates = self._choose(plan, known)
                # Most calls with references have only the gate that resolves them: then no call for the walk.
                if gates and not (gates[0].enter(entry) if len(gates) == 1 else self._pass(entry, gates)):
                    continue
                entry.phase = phases.SLOT
                if self._slots.take(entry, MODEL_SLOT if plan is None else plan.slot):
                    self._ready.append(entry)
                else:
                    self._log.note_value(events.CallWaiting, entry.id, "slot")
        finally:
            self._is_draining = False

    def stop(self, reason: str) -> None:
        """Cancel every call that hasn't ended, and each that comes later."""
        self._order = self._for_controls = (StoppedGate(self._settler, reason),)
        self._of_tools.clear()
        self._of_tools_with_references.clear()
        self.cancel_all(reason)

    def cancel_all(self, reason: str) -> None:
        """Cancel every unfinished call; the dependents of a cancelled call are skipped with that reason."""
        entries = self._table.entries.values()
        for entry in [entry for entry in entries if entry.phase < phases.ENDED or entry.sealed_s is None]:
            self._settler.cancel(entry, reason)
            self.drain()

    def _pass(self, entry: Entry, gates: "tuple[Gate, ...]") -> bool:
        """Pass an entry through its remaining gates."""
        extra = entry.extra
        for gate in gates if extra is None or not extra.gate else gates[extra.gate :]:
            if not gate.enter(entry):
                if gate is not gates[0] and entry.phase < phases.ENDED:
                    entry.more.gate = gates.index(gate)
                return False
        return True

    def _choose(self, plan: Plan | None, wanted: dict[Plan | None, tuple[Gate, ...]]) -> tuple[Gate, ...]:
        """Choose the gates of a tool: none, for one that changes something and declares nothing else."""
        chosen = self._for_controls if plan is None else tuple(gate for gate in self._order if gate.applies(plan))
        self._of_tools_with_references[plan] = chosen
        self._of_tools[plan] = tuple(gate for gate in chosen if gate is not self._resolved)
        return wanted[plan]
