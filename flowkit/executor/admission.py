"""What stands between a call whose needs are there and its run: approval, resources, and results found elsewhere."""

import math
from collections.abc import Iterator, Mapping
from typing import cast

from flowkit import events
from flowkit.cache import HitError
from flowkit.codec import JSON
from flowkit.errors import CycleError, ToolArgumentsError
from flowkit.executor.endings import Endings
from flowkit.executor.entries import Entry, Phase, Plan
from flowkit.executor.outcomes import Approve, Decision, Deny
from flowkit.executor.resources import Access, Ticket
from flowkit.graph import find_own_references, get_after
from flowkit.journal import Decision as RecordedDecision
from flowkit.journal import RunJournal
from flowkit.masking import MASK, unmask
from flowkit.references import Reference, ToolCall, find_references, substitute
from flowkit.tools.options import ApprovalRule
from flowkit.tools.schema.arguments import Arguments


class Admission(Endings):
    """Lets calls in, in the one order of taking things."""

    async def _judge(self, entry: Entry, rule: ApprovalRule) -> None:
        """Ask the tool's rule whether a person has to decide."""
        if entry.has_ended:
            return
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
        caller = _find_write_around(entry)
        if caller is not None:
            # A run stops while a person thinks, and a write that was stopped in the middle must not start again.
            self._end(
                entry,
                "failed",
                error=f"a person has to decide on it, and {caller.node.name!r}, a write that has begun, can't wait for that",
            )
            return
        entry.phase = Phase.APPROVAL
        shown = dict(self._show_call(entry).arguments)
        self._pending[entry.id] = entry
        self._log.note(events.ApprovalAsked, entry.id, entry.node.name, shown)
        self._log.note(events.CallWaiting, entry.id, "approval")
        if self._journal is None:
            self._look_for_stuck()
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
            self._look_for_stuck()
        else:
            try:
                self._apply(entry, read_decision(decided))
            except ToolArgumentsError as refused:
                # Whoever decided in another process had no tool to check the arguments with.
                await journal.ask(entry.id, name=entry.node.name, arguments=shown, anew=True)
                self._log.note(events.CallProgress, entry.id, 0, None, f"the decision can't be carried out: {refused}")
                self._look_for_stuck()

    def _apply(self, entry: Entry, decision: Decision) -> None:
        match decision:
            case Approve(arguments=arguments, by=by):
                shown: JSON = None
                if arguments is not None:
                    self._change_arguments(entry, arguments)
                    shown = cast(JSON, dict(self._show_call(entry).arguments))
                del self._pending[entry.id]
                entry.more.decision = decision if shown is None else Approve(cast("Mapping[str, object]", shown), by)
                self._log.note(events.ApprovalDecided, entry.id, True, "", by, shown)
                self._queue_on_resources(entry)
            case Deny(reason=reason, by=by):
                del self._pending[entry.id]
                entry.more.decision = decision
                self._log.note(events.ApprovalDecided, entry.id, False, reason, by)
                self._end(entry, "denied", error=reason)

    def _change_arguments(self, entry: Entry, arguments: Mapping[str, object]) -> None:
        assert entry.plan is not None
        plan = entry.plan
        bound: Mapping[str, object] = entry.bound or {}
        needed = {
            name: self._value(value)
            for name, value in bound.items()
            if isinstance(value, Reference) and name in plan.needs
        }
        if plan.tool.secrets:
            arguments = self._unmask(entry, plan, arguments)
        entry.arguments = plan.tool.validate(arguments, needed)
        entry.node = ToolCall(entry.id, entry.node.name, arguments)

    def _unmask(self, entry: Entry, plan: Plan, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """The arguments of a decision, with what its masks stand for: a person saw no more of it."""
        before: Mapping[str, object] = cast(ToolCall, entry.node).arguments
        if find_references(before):
            before = cast("Mapping[str, object]", substitute(before, self._value))
        shown = plan.tool.secrets.mask(before)
        unmasked: dict[str, object] = {}
        for name, value in arguments.items():
            try:
                unmasked[name] = (
                    unmask(value, before.get(name), shown.get(name)) if plan.tool.secrets.touch(name) else value
                )
            except ValueError as error:
                raise ToolArgumentsError(plan.tool.name, [f"{name!r}: the mask {MASK!r} {error}"]) from None
        return unmasked

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
                if self._pending:
                    self._look_for_stuck()
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
        elif entry.phase == Phase.FLIGHT and entry.key is not None:
            leader = self._shared.get(entry.key)
            if leader is not None and leader is not entry:
                yield leader
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
        if not plan.is_read or not self._share(entry, plan, entry.arguments):
            self._runner.start(entry)

    def _share(self, entry: Entry, plan: Plan, arguments: Arguments) -> bool:
        """Whether somebody else's result serves, now or soon: the cache's, or an equal call's."""
        tool = plan.tool
        resources = tool.resources(arguments) if plan.touches else ()
        scope_key = self._scope_keys[tool.scope]
        generations = [self._cache.generation(resource) for resource in resources]
        stored: str | None = None
        if tool.ttl_s is not None and scope_key is not None:
            key = stored = tool.key(arguments, scope_key, generations)
        else:
            key = tool.process_key(arguments, scope_key or "", generations)
        if key is None:
            return False
        if stored is not None and self._take_stored(entry, stored):
            return True
        leader = self._shared.get(key)
        if leader is not None and leader.state == "finished" and not _may_know(entry, leader):
            entry.value, entry.source, entry.age_s = leader.value, "flight", None
            self._end(entry, "finished")
            return True
        if leader is not None and not leader.has_ended:
            entry.phase = Phase.FLIGHT
            entry.key = key
            circle = self._find_circle(entry)
            if circle:
                self._end(entry, "failed", error=f"not run: {CycleError(circle)}")
                return True
            leader.more.add_follower(entry)
            self._log.note(events.CallWaiting, entry.id, "calls", (leader.id,))
            return True
        self._shared[key] = entry
        entry.key = key
        if stored is None:
            return False
        self._runner.start_shared(entry, stored, None if tool.scope == "all" else self._identity.user)
        return True

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


def read_decision(decided: RecordedDecision) -> Decision:
    """A decision as the journal keeps it."""
    if not decided.approved:
        return Deny(decided.reason, decided.by)
    arguments = decided.arguments
    return Approve(arguments if isinstance(arguments, dict) else None, decided.by)


def _may_know(entry: Entry, ended: Entry) -> bool:
    """Whether a running tool made this call after it may have seen that result: who asks again wants a new one."""
    made = entry
    while (caller := made.parent) is not None:
        if caller.phase == Phase.RUNNING and caller.plan is not None:
            assert caller.started_s is not None
            assert ended.ended_s is not None
            assert made.sealed_s is not None
            if caller.started_s <= ended.ended_s <= made.sealed_s:
                return True
        made = caller
    return False


def _find_write_around(entry: Entry) -> Entry | None:
    """The write that has begun and that this call is a part of."""
    around = entry.parent
    while around is not None and not (around.phase == Phase.RUNNING and _is_write(around)):
        around = around.parent
    return around


def _is_write(entry: Entry) -> bool:
    return entry.plan is not None and entry.plan.tool.effect == "write"
