"""The approval gate: check whether a person has to decide, record the request, and apply the decision.

The gate at which the run's guard checks a call, before any approval request and before anything runs.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, cast

from flowkit import events
from flowkit.codec import JSON, dump_sorted, dumps
from flowkit.context import Context
from flowkit.errors import ConfigurationError, NoSuchNode, ToolArgumentsError
from flowkit.events import EventLog
from flowkit.executor import phases
from flowkit.executor.entries import Entry
from flowkit.executor.outcomes import Approve, Decision, Deny
from flowkit.executor.plan import AnyTool, Plan
from flowkit.executor.settling import Settler
from flowkit.executor.table import Table
from flowkit.journal import Decision as RecordedDecision
from flowkit.journal import RunJournal
from flowkit.masking import MASK, unmask
from flowkit.references import Reference, ToolCall, find_references, substitute
from flowkit.tools.keys import NotKeyable, canonicalize
from flowkit.tools.schema.arguments import Arguments


class ApprovalGate:
    """The gate that a call passes when it needs no approval, or has it."""

    def __init__(self, table: Table, log: EventLog, settler: Settler, journal: RunJournal | None) -> None:
        self._table = table
        self._log = log
        self._settler = settler
        self._journal = journal

    def applies(self, plan: Plan) -> bool:
        """Return whether calls of this tool pass this gate."""
        return bool(plan.approval)

    def enter(self, entry: Entry) -> bool:
        """Let the call pass, or hold it: for the tool's rule first, then for a person."""
        assert entry.plan is not None
        more = entry.more
        if more.decision is not None:
            return True  # a denied call has ended
        if callable(entry.plan.approval):
            if more.asks_person is None:
                # A rule is its author's code: it gets a task, and a failure of its own fails the call alone.
                entry.phase = phases.APPROVAL
                self._table.apart.append(entry)
                return False
            if not more.asks_person:
                return True
        self._ask(entry)
        return False

    def _ask(self, entry: Entry) -> None:
        caller = _find_write_around(entry)
        if caller is not None:
            # A run stops while a person thinks, and a write that was stopped in the middle must not start again.
            self._settler.end(
                entry,
                "failed",
                error=f"a person has to decide on it, and {caller.node.name!r}, a write that has begun, can't wait for that",
            )
            return
        entry.phase = phases.APPROVAL
        shown = dict(self._table.show_call(entry).arguments)
        self._table.pending[entry.id] = entry
        self._log.note(events.ApprovalAsked, entry.id, entry.node.name, shown)
        self._log.note(events.CallWaiting, entry.id, "approval")
        if self._journal is None:
            self._settler.stuck.look()
        else:
            self._table.asking[entry.id] = None
            self._table.errands.append(self._ask_journal(entry, cast(JSON, shown), self._journal))

    async def _ask_journal(self, entry: Entry, shown: JSON, journal: RunJournal) -> None:
        """Write down that a person has to decide; one may have decided already, in another process."""
        assert entry.plan is not None
        tool, arguments = entry.plan.tool, entry.arguments
        is_masked = bool(tool.secrets) or MASK in dumps(shown).decode()
        hash_secrets = partial(_hash_arguments, tool, arguments) if is_masked and arguments is not None else None
        ask = partial(journal.ask, entry.id, name=entry.node.name, arguments=shown, hash_secrets=hash_secrets)
        decided = await ask()
        self._table.asking.pop(entry.id, None)
        if entry.id not in self._table.pending:
            return
        if decided is None:
            self._settler.stuck.look()
        else:
            try:
                self._apply(entry, read_decision(decided))
            except ToolArgumentsError as refused:
                # A decision made in another process was made without the tool, so the arguments are unchecked.
                await ask(anew=True)
                self._log.note(events.CallProgress, entry.id, 0, None, f"the decision can't be carried out: {refused}")
                self._settler.stuck.look()

    def decide(self, call_id: str, decision: Decision) -> None:
        """Apply and record a person's decision on a call that waits for approval.

        Raises `NoSuchNode` if it doesn't wait. Raises `ToolArgumentsError` for changed arguments that the tool doesn't
        accept; the call then still waits.
        """
        if not isinstance(cast(object, decision), Approve | Deny):
            raise ConfigurationError(f"a decision is {decision!r}, expected Approve() or Deny(reason)")
        entry = self._table.pending.get(call_id)
        if entry is None:
            raise NoSuchNode(call_id, f"{call_id!r} doesn't wait for a decision: {_say_why(self._table.find(call_id))}")
        self._apply(entry, decision)
        if self._journal is not None:
            approved = isinstance(decision, Approve)
            reason = "" if isinstance(decision, Approve) else decision.reason
            arguments = (
                None if not isinstance(decision, Approve) or decision.arguments is None else dict(decision.arguments)
            )
            self._table.errands.append(
                self._journal.decide(
                    call_id, approved=approved, by=decision.by, reason=reason, arguments=cast(JSON, arguments)
                )
            )

    def _apply(self, entry: Entry, decision: Decision) -> None:
        match decision:
            case Approve(arguments=arguments, by=by):
                shown: JSON = None
                if arguments is not None:
                    if entry.plan is not None and (entry.plan.tool.secrets or self._table.known):
                        arguments = self._unmask(entry, entry.plan, arguments)
                    change_arguments(self._table, entry, arguments)
                    shown = cast(JSON, dict(self._table.show_call(entry).arguments))
                del self._table.pending[entry.id]
                entry.more.decision = decision if shown is None else Approve(cast("Mapping[str, object]", shown), by)
                self._log.note(events.ApprovalDecided, entry.id, True, "", by, shown)
                self._settler.let_go_on(entry)
            case Deny(reason=reason, by=by):
                del self._table.pending[entry.id]
                entry.more.decision = decision
                self._log.note(events.ApprovalDecided, entry.id, False, reason, by)
                self._settler.end(entry, "denied", error=reason)

    def _unmask(self, entry: Entry, plan: Plan, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """Replace the masks in a decision's arguments by the secrets, which the person didn't see."""
        before: Mapping[str, object] = cast(ToolCall, entry.node).arguments
        if find_references(before):
            before = cast("Mapping[str, object]", substitute(before, self._table.value))
        shown = self._table.show_arguments(entry, before)
        unmasked: dict[str, object] = {}
        for name, value in arguments.items():
            try:
                unmasked[name] = unmask(value, before.get(name), cast(JSON, shown.get(name)))
            except ValueError as error:
                raise ToolArgumentsError(plan.tool.name, [f"{name!r}: the mask {MASK!r} {error}"]) from None
        return unmasked


def _say_why(entry: Entry) -> str:
    """Return the reason that a call doesn't wait for a person."""
    if entry.state is not None:
        return f"it has ended ({entry.state})"
    is_decided = entry.extra is not None and entry.extra.decision is not None
    return "it was decided before" if is_decided else "nobody is asked about it, or not yet"


def change_arguments(table: Table, entry: Entry, arguments: Mapping[str, object]) -> None:
    """Run a call with other arguments than its own; raises `ToolArgumentsError` for some that its tool doesn't take."""
    assert entry.plan is not None
    plan = entry.plan
    bound: Mapping[str, object] = entry.bound or {}
    needed = {
        name: table.value(value) for name, value in bound.items() if isinstance(value, Reference) and name in plan.needs
    }
    entry.arguments = plan.tool.validate(arguments, needed)
    entry.node = ToolCall(entry.id, entry.node.name, arguments)


def read_decision(decided: RecordedDecision) -> Decision:
    """Read a decision as the journal keeps it."""
    if not decided.approved:
        return Deny(decided.reason, decided.by)
    arguments = decided.arguments
    return Approve(arguments if isinstance(arguments, dict) else None, decided.by)


def _hash_arguments(tool: AnyTool, arguments: Arguments, key: bytes) -> str:
    """Hash the arguments, with this key for secrets; empty if their values can't be distinguished."""
    try:
        forms: list[JSON] = [[name, canonicalize(value, key)] for name, value in sorted(arguments.values.items())]
    except (NotKeyable, RecursionError):
        return ""
    return hashlib.sha256(key + dump_sorted(forms)).hexdigest()


def _find_write_around(entry: Entry) -> Entry | None:
    """Find the write in flight that this call is a part of."""
    around = entry.parent
    while around is not None and not (around.phase == phases.RUNNING and _is_write(around)):
        around = around.parent
    return around


def _is_write(entry: Entry) -> bool:
    return entry.plan is not None and entry.plan.tool.effect == "write"


class CallGuard(Protocol):
    """Looks at calls before they run."""

    async def __call__(
        self, call: ToolCall, context: Context[Any], secrets: frozenset[str]
    ) -> Mapping[str, object] | None:
        """Pass a call, or return arguments to change; raises `ToolError` to refuse it. `secrets` are in its arguments."""
        ...


class Guarded:
    """Lets a call on that the guard has passed; early calls, too, since these only run sooner."""

    def __init__(self, table: Table, guard: CallGuard | None) -> None:
        self._table = table
        self._guard = guard

    def applies(self, plan: Plan) -> bool:
        """Return whether calls of this tool pass this gate."""
        return self._guard is not None

    def enter(self, entry: Entry) -> bool:
        """Let the call pass if the guard has passed it; otherwise start a task in which the guard runs."""
        if entry.more.is_guarded:
            return True  # a refused call has ended
        entry.phase = phases.GUARD
        self._table.apart.append(entry)
        return False

    async def ask(self, entry: Entry, context: Context[Any]) -> None:
        """Run the guard, and apply its changes to the arguments."""
        assert self._guard is not None
        assert entry.arguments is not None
        seen = ToolCall(entry.id, entry.node.name, entry.arguments.values)
        changed = await self._guard(seen, context, entry.find_secrets())
        if changed is not None:
            given: Mapping[str, object] = cast(ToolCall, entry.node).arguments
            if entry.sealed_s is None:
                entry.more.given = given
            if find_references(given):
                given = cast("Mapping[str, object]", substitute(given, self._table.value))
            change_arguments(self._table, entry, {**given, **changed})
        entry.more.is_guarded = True
