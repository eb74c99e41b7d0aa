"""How entries end: one outcome each, told once, and what waited for it goes on or is skipped."""

import asyncio
from abc import abstractmethod
from collections.abc import Container
from typing import cast

from flowkit import events
from flowkit.executor.entries import Entry, Failure, Phase
from flowkit.executor.outcomes import State
from flowkit.executor.resources import Ticket
from flowkit.executor.table import Table
from flowkit.graph import ModelStep
from flowkit.journal import RunJournal
from flowkit.masking import NO_SECRETS, mask_text, show_note
from flowkit.references import ToolCall

_SAID = {
    "failed": "failed",
    "skipped": "did not run",
    "denied": "a person denied",
    "cancelled": "was cancelled",
    "void": "was never complete",
    "in_doubt": "may or may not have happened",
    "finished": "finished",
}


class Endings(Table):
    """Ends entries, and counts down those behind them."""

    def cancel(self, call_id: str, reason: str = "") -> None:
        """Stop a call, or drop it before it runs, with all that it made; nothing happens when it has ended."""
        entry = self._entries[call_id]
        if self._is_told(entry):
            return
        if entry.has_ended or entry.phase == Phase.NEW:
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
        for entry in list(self._entries.values()):
            if entry.phase < Phase.ENDED or entry.sealed_s is None:
                self.cancel(entry.id, reason)

    def _settle(self, entry: Entry, failure: Failure | None) -> None:
        """What the runner tells of a call that ran."""
        if entry.phase >= Phase.ENDED:
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
        if self._shared and entry.started_s is not None:
            self._end_sharing(entry)
        if entry.sealed_s is not None:
            self._tell(entry)
        else:
            entry.ended_s = self._log.now()
            note = show_note(entry.value) if state == "finished" else str(error)
            self._log.note(events.CallProgress, entry.id, 1, 1, note)
        if entry.extra is not None:
            self._leave(entry, failure)
        if entry.dependents is None and entry.extra is None and not self._fail_fast:
            return  # nobody waits for it
        self._let_go_on(entry)

    def _end_sharing(self, entry: Entry) -> None:
        """What was read before a write says nothing of what is there after it."""
        if entry.plan is not None and not entry.plan.is_read:
            self._shared.clear()

    def _let_go_on(self, entry: Entry) -> None:
        """Start or skip what waited for it."""
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
                    if entry.sealed_s is None and entry.state != "void":
                        dependents = self._hold_back(entry, dependents)
                    is_usable = entry.is_usable
                    for dependent in dependents:
                        dependent.missing -= 1
                        # It may have been skipped or cancelled meanwhile.
                        if not is_usable and not self._is_met(dependent, entry):
                            if dependent.phase == Phase.NEEDS:
                                self._skip(dependent, entry)
                        elif not dependent.missing and dependent.phase == Phase.NEEDS:
                            self._go_on(dependent)
                if entry.extra is not None:
                    self._let_follow(entry)
                if self._fail_fast and entry.state == "failed" and entry.parent is None and not entry.is_usable:
                    self.cancel_all(f"{entry.id} failed")
        finally:
            self._is_settling = False

    def _hold_back(self, entry: Entry, dependents: list[Entry]) -> list[Entry]:
        """Keep the sealed ones waiting for the seal of an early run: its arguments may still turn out otherwise."""
        entry.dependents = [dependent for dependent in dependents if dependent.sealed_s is not None] or None
        return [dependent for dependent in dependents if dependent.sealed_s is None]

    def _is_met(self, entry: Entry, producer: Entry) -> bool:
        return producer.is_usable or (entry.extra is not None and producer.id in entry.extra.after)

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
        if ticket.has_started:
            self._end_sharing(entry)  # again: a thread may have gone on writing when its call had ended
        for freed in self._resources.leave(ticket):
            self._free(freed)

    def _let_follow(self, entry: Entry) -> None:
        """Give its result to the equal calls that waited for it; one of them runs when it has none."""
        if entry.extra is None:
            return
        followers, entry.extra.followers = entry.extra.followers, ()
        has_result = entry.state in ("finished", "failed")
        if not has_result and entry.key is not None and self._shared.get(entry.key) is entry:
            del self._shared[entry.key]
        for follower in followers:
            if follower.has_ended:
                continue  # cancelled before, or by what the one before it ended
            if has_result:
                assert entry.state is not None
                follower.value, follower.source = entry.value, "flight"
                self._end(follower, entry.state, error=entry.error)
            else:
                self._admit(follower)

    def _tell_sealed(self, entry: Entry, call: ToolCall) -> None:
        secrets = NO_SECRETS if entry.plan is None else entry.plan.tool.secrets
        repaired = () if entry.extra is None else entry.extra.repaired
        shown = call
        if secrets:
            shown = secrets.mask(call.arguments)
            repaired = tuple(mask_text(line, secrets.find(call.arguments)) for line in repaired)
        entry.sealed_s = self._log.note(events.CallSealed, entry.id, shown, repaired)

    def _seal_early(self, entry: Entry, repaired: tuple[str, ...]) -> None:
        """The early run stands: it, and what it needed, are as good as sealed from the start."""
        for child in self._children(entry):
            # A call that its tool made was sealed then; one that was cancelled is void.
            if child.sealed_s is None and child.state != "void":
                self._seal_early(child, ())
        if repaired:
            entry.more.repaired = repaired
        self._tell_sealed(entry, cast(ToolCall, entry.node))
        if entry.has_ended:
            self._tell(entry)
            self._let_go_on(entry)

    def _tell(self, entry: Entry) -> None:
        """Say how it ended, to the log, the journal and whoever waits for it."""
        note, node_id = self._log.note, entry.id
        error = entry.error or ""
        match entry.state:
            case "finished":
                told_s = note(events.CallFinished, node_id, entry.value, entry.source, entry.age_s, entry.ended_s)
            case "failed":
                told_s = note(events.CallFailed, node_id, error, entry.ended_s)
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
        if entry.extra is not None:
            for told in entry.extra.on_end:
                told(entry)
        if self._pending:
            self._look_for_stuck()  # perhaps only those that wait for a person are left

    def _record_read(self, entry: Entry, journal: RunJournal) -> None:
        """Reads, model steps and calls of unknown tools are written down when they are told; effects were before."""
        is_recorded = isinstance(entry.node, (ModelStep, ToolCall)) if entry.plan is None else entry.plan.is_read
        if not is_recorded:
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
        if entry.key is not None and entry.state == "finished" and self._shared.get(entry.key) is entry:
            kept = Entry(entry.id, entry.node, None, None, entry.order)
            kept.phase, kept.state, kept.value, kept.ended_s = Phase.ENDED, "finished", entry.value, entry.ended_s
            self._shared[entry.key] = kept
        entry.phase, entry.state, entry.error, entry.value = Phase.ENDED, state, reason, None
        entry.sealed_s = None
        self._tell(entry)
        self._leave(entry)
        self._let_go_on(entry)

    def _stop(self, entry: Entry, reason: str) -> None:
        if entry.phase >= Phase.FLIGHT:
            self._runner.stop(entry, reason)

    def _look_for_stuck(self) -> None:
        """Look soon who waits only for a person: a tool or a control may be about to make more calls."""
        if self._waiters and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_soon(self._release_stuck)

    def _release_stuck(self) -> None:
        """Let go of whoever waits only for calls that wait for a person."""
        self._is_looking = False
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
            above = entry.parent
            if above is not None and above.phase == Phase.RUNNING and above.id not in stuck and _is_stuck(above, stuck):
                behind.append(above)
            for other in behind:
                if other.id not in stuck and not other.has_ended:
                    stuck.add(other.id)
                    stack.append(other)
        for waiter in self._waiters:
            if stuck.issuperset(waiter.left):
                waiter.release()

    def _break_off(self, error: BaseException) -> None:
        """The journal can't be written, or another driver has the run: stop, and tell whoever leaves the executor."""
        if self._broken is None:
            self._broken = error
            self.cancel_all(str(error))
            for waiter in self._waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(error)

    # What the layers above add

    @abstractmethod
    def _go_on(self, entry: Entry) -> None:
        """Everything the entry needs is there."""

    @abstractmethod
    def _admit(self, entry: Entry) -> None:
        """The entry's resources are free."""

    @abstractmethod
    def _free(self, ticket: Ticket) -> None:
        """A ticket waits no more."""


def _is_stuck(entry: Entry, stuck: Container[str]) -> bool:
    """Whether all that it made and that hasn't ended is among these."""
    # From the last on: those that were made first have most likely ended.
    children = () if entry.extra is None else reversed(entry.extra.children)
    return all(child.has_ended or child.id in stuck for child in children)
