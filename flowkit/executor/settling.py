"""Settle entries: one outcome each, reported once. Calls that may start then are queued, never started from here."""

from typing import cast

from flowkit import events
from flowkit.errors import ToolResultError
from flowkit.events import EventLog
from flowkit.executor import phases
from flowkit.executor.current import find_around, note_doubt
from flowkit.executor.entries import Entry, Failure
from flowkit.executor.outcomes import State
from flowkit.executor.resources import Ticket
from flowkit.executor.seals import find_unsealed
from flowkit.executor.stuck_waiters import StuckWaiters
from flowkit.executor.table import Table
from flowkit.graph import ModelStep
from flowkit.journal import Recorded, RunJournal
from flowkit.masking import NO_SECRETS, mask_text, show_arguments, show_note
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


class Settler:
    """Settles entries, and queues finished and startable ones in the table's `moves`."""

    def __init__(self, table: Table, log: EventLog, journal: RunJournal | None, *, fail_fast: bool) -> None:
        self._table = table
        self._entries = table.entries
        self._moves = table.moves
        self._log = log
        self._journal = journal
        self._fail_fast = fail_fast
        self.stuck = StuckWaiters(table)
        self._around = find_around()
        self._closing: str | None = None
        """Why nobody seals a call any more; None while the run goes on."""

    def close(self, reason: str) -> None:
        """Count as void, from now on, what ends without its seal."""
        self._closing = reason

    def end(self, entry: Entry, state: State, error: str | None = None, failure: Failure | None = None) -> None:
        """Record the one outcome of an entry, and report it if its call is sealed."""
        entry.phase = phases.ENDED
        entry.state = state
        if error is not None:
            # Errors in arguments contain their values.
            error = mask_text(error, entry.find_secrets()) if error else error
            entry.more.error = self._table.known.mask_text(error)
        if state == "in_doubt":
            note_doubt(entry, self._around)
            self._table.has_doubt = True
        elif entry.extra is not None and entry.extra.has_doubt:
            self._table.has_doubt = True
        if state != "finished":
            entry.value = None
            if failure is not None and failure.exception is not None:
                entry.more.error_type = failure.error_type
        # They aren't needed any more, and a million of them would slow down the garbage collector.
        entry.arguments = entry.bound = None
        if entry.started_s is not None and self._table.shared:
            self._end_sharing(entry)
        if entry.sealed_s is not None:
            self._tell(entry)
        elif self._closing is not None:
            self._become_void(entry, self._closing)
            return
        else:
            entry.ended_s = self._log.now()
            note = show_note(entry.value) if state == "finished" else str(entry.error)
            self._log.note(events.CallProgress, entry.id, 1, 1, note)
        extra = entry.extra
        if extra is not None and extra.ticket is not None:
            self.leave(entry, failure)
        # Inlines `_have_passed_on`: if none of these holds, no call waits for it.
        if entry.on_end:
            self._moves.appendleft(entry)
        elif entry.dependents is not None or extra is not None or self._fail_fast:
            self._moves.append(entry)

    def finish(self, entry: Entry) -> None:
        """Record that a call that ran has finished: what `end` does, in one step for nearly all."""
        if entry.extra is not None or entry.sealed_s is None or self._journal is not None or self._table.pending:
            self.end(entry, "finished")
            return
        entry.phase = phases.ENDED
        entry.state = "finished"
        entry.arguments = entry.bound = None
        if self._table.shared:
            self._end_sharing(entry)
        entry.ended_s = self._log.note_value(events.CallFinished, entry.id, entry.value)
        for waiter in self._table.waiters:
            waiter.note_end(entry)
        if entry.on_end:
            self._moves.appendleft(entry)
        elif entry.dependents is not None or self._fail_fast:
            self._moves.append(entry)

    def settle(self, entry: Entry, failure: Failure | None) -> None:
        """Record how a call went that ran."""
        if entry.phase >= phases.ENDED:
            # Voided, or dropped for other arguments: only its slot and resources are released.
            self.leave(entry, failure)
        elif failure is None:
            self.end(entry, "finished")
        else:
            self.end(entry, failure.state, error=failure.error, failure=failure)

    def let_go_on(self, entry: Entry) -> None:
        """Queue an entry that waits for no other call any more."""
        entry.phase = phases.DUE
        self._moves.append(entry)

    def _have_passed_on(self, entry: Entry) -> None:
        if entry.on_end:
            # Before all other due calls: a control may stop them, or a tool make its next call before them.
            self._moves.appendleft(entry)
        else:
            self._moves.append(entry)

    def pass_on(self, entry: Entry) -> None:
        """Start or skip the dependents of a finished entry; repeating it has no effect."""
        if entry.dependents is not None:
            dependents, entry.dependents = entry.dependents, None
            if entry.sealed_s is None and entry.state != "void":
                dependents = self._hold_back(entry, dependents)
            is_usable = entry.state == "finished" or entry.is_usable
            for dependent in dependents:
                dependent.missing -= 1
                # It may have been skipped or cancelled meanwhile.
                if not is_usable and not is_met(dependent, entry):
                    if dependent.phase == phases.NEEDS:
                        self.skip(dependent, entry)
                elif not dependent.missing and dependent.phase == phases.NEEDS:
                    dependent.phase = phases.DUE
                    self._moves.append(dependent)
        if entry.on_end and (entry.sealed_s is not None or entry.is_told):
            told, entry.on_end = entry.on_end, ()
            for tell in told:
                tell(entry)
            if self._table.pending:
                self.stuck.look()  # only now: a tool that waited for this call has to make its next one before
        if entry.extra is not None:
            self._let_follow(entry)

    def _hold_back(self, entry: Entry, dependents: list[Entry]) -> list[Entry]:
        """Keep sealed dependents waiting for the seal of an early run: its arguments may still change.

        An unsealed dependent continues immediately. It is part of the same early run, such as the caller of a need, and
        is stopped and dropped with it if the arguments change. A sealed one would report, or write, results of
        arguments that the model never sent.
        """
        entry.dependents = [dependent for dependent in dependents if dependent.sealed_s is not None] or None
        return [dependent for dependent in dependents if dependent.sealed_s is None]

    def skip(self, entry: Entry, producer: Entry) -> None:
        """Skip an entry whose dependency has no result."""
        because = producer.extra.because if producer.extra is not None else None
        root = producer if because is None else self._entries[because]
        entry.more.because = root.id
        reason = f": {root.error}" if root.error else ""
        self.end(
            entry,
            "skipped",
            error=f"not run: it needs {root.node.name or root.id!r} ({root.id}), which {_SAID[root.state or 'failed']}{reason}",
        )

    def cancel(self, entry: Entry, reason: str = "") -> None:
        """Cancel a call, running or not, and the calls that it made; does nothing if it has ended."""
        if entry.is_told:
            return
        if entry.has_ended or entry.phase == phases.NEW:
            # Unlike one whose turn came to nothing, it doesn't run either when its arguments arrive after all.
            entry.more.is_withdrawn = True
            self._become_void(entry, reason)
        elif entry.worker is not None or (entry.phase == phases.RUNNING and not entry.is_holder):
            entry.ask_to_stop(reason or "cancelled")
        else:
            if self._table.pending.pop(entry.id, None) is not None or self._holds_asked(entry):
                entry.more.was_asked = True
            self.end(entry, "cancelled", error=reason)
        for child in self._table.children(entry):
            self.cancel(child, reason)

    def end_withdrawn(self, entry: Entry, call: ToolCall) -> None:
        """End a call that is sealed after it was cancelled."""
        entry.node = call
        self.tell_sealed(entry, call)
        self.end(entry, "cancelled", error=entry.more.error)

    def end_left(self, error: BaseException) -> None:
        """End the calls that an aborted run has left: the one that raised a forbidden exception, and the enclosing ones.

        The journal records nothing of it: when the run is resumed, reads run again, and a write is in doubt.
        """
        reason = f"{type(error).__name__} ended the run"
        for entry in [entry for entry in self._entries.values() if entry.phase < phases.ENDED]:
            has_written = entry.started_s is not None and entry.plan is not None and not entry.plan.is_read
            if entry.sealed_s is None:
                self._become_void(entry, reason)
            elif has_written:
                self.end(entry, "in_doubt", error=f"it may or may not have happened: {reason}")
            else:
                self.end(entry, "cancelled", error=reason)

    def void(self, entry: Entry, reason: str) -> None:
        """Void a call that will never be sealed; its early run's result is kept for an equal call of this turn."""
        if entry.sealed_s is not None or entry.state == "void":
            return
        for child in self._table.children(entry):
            self.void(child, reason)
        if phases.LOOKUP <= entry.phase < phases.ENDED or entry.worker is not None:
            entry.ask_to_stop(reason)
        self._become_void(entry, reason)

    def confirm(self, entry: Entry) -> None:
        """Allow the calls made by a sealed call, and its dependencies, to write: its turn is complete."""
        if entry.extra is None:
            return
        entry.extra.is_provisional = False
        _release_writes(entry)
        self._take_guesses(entry)

    def _take_guesses(self, entry: Entry) -> None:
        self.take_guess(entry)
        for child in self._table.children(entry):
            self._take_guesses(child)

    def take_guess(self, entry: Entry) -> None:
        """Allow the calls made by a prefetched read to write, if the call that uses its result may write."""
        leader = None if entry.extra is None else entry.extra.leader
        guess = None if leader is None or find_unsealed(entry) is not None else find_unsealed(leader)
        if guess is not None and guess.extra is not None and guess.extra.is_guess:
            self.confirm(guess)

    def disown(self, entry: Entry) -> None:
        """Let nothing that a sealed call makes write: its turn came to nothing."""
        entry.more.is_disowned = True
        _release_writes(entry)

    def drop(self, entry: Entry) -> None:
        """Stop and drop an early run that had other arguments than the final ones."""
        if not entry.has_ended:
            entry.ask_to_stop("its arguments changed")
            self.leave(entry)
            entry.phase = phases.DROPPED
            _release_writes(entry)
            self._let_follow(entry)

    def _become_void(self, entry: Entry, reason: str) -> None:
        shared = self._table.shared
        if entry.key is not None and entry.state == "finished" and shared.get(entry.key) is entry:
            kept = Entry(entry.id, entry.node, None, None, entry.order)
            kept.phase, kept.state, kept.value, kept.ended_s = phases.ENDED, "finished", entry.value, entry.ended_s
            shared[entry.key] = kept
        entry.phase, entry.state, entry.more.error, entry.value = phases.ENDED, "void", reason, None
        entry.sealed_s = None
        self._tell(entry)
        self.leave(entry)
        _release_writes(entry)
        self._have_passed_on(entry)

    def leave(self, entry: Entry, failure: Failure | None = None) -> None:
        """Release its place on resources as soon as nothing of it runs any more."""
        if entry.extra is None or entry.extra.ticket is None:
            return
        if failure is not None and failure.running is not None and failure.running.is_busy:
            # Its call has ended, but its worker is still writing: later calls must not read a partial write.
            failure.running.on_free.append(lambda: self.leave(entry))
            return
        ticket, entry.extra.ticket = entry.extra.ticket, None
        if ticket.has_started:
            self._end_sharing(entry)  # once more: a worker may have continued to write after the end of its call
        for freed in self._table.resources.leave(ticket):
            self.free(freed)

    def free(self, ticket: Ticket) -> None:
        """Wake the call of a ticket that no longer waits, if it had come to its resources."""
        entry = self._entries[ticket.owner]
        if entry.phase == phases.RESOURCE and entry.more.ticket is ticket:
            self.let_go_on(entry)

    def _end_sharing(self, entry: Entry) -> None:
        """Drop the results read before a write: they are stale after it."""
        if entry.plan is not None and not entry.plan.is_read:
            self._table.shared.clear()

    def _let_follow(self, entry: Entry) -> None:
        """Wake the equal calls that waited for its result; one of them runs when it has none."""
        if entry.extra is None:
            return
        followers, entry.extra.followers = entry.extra.followers, ()
        shared = self._table.shared
        if entry.state not in ("finished", "failed") and entry.key is not None and shared.get(entry.key) is entry:
            del shared[entry.key]
        for follower in followers:
            if not follower.has_ended:
                self.let_go_on(follower)

    def tell_sealed(self, entry: Entry, call: ToolCall) -> None:
        """Report that a call's arguments are final."""
        secrets = NO_SECRETS if entry.plan is None or not entry.plan.has_secrets else entry.plan.tool.secrets
        repaired = () if entry.extra is None else entry.extra.repaired
        shown: object = call
        known = self._table.known
        if secrets:
            found = secrets.find(call.arguments)
            known.learn(found)
            repaired = tuple(mask_text(line, found) for line in repaired)
        if secrets or known:
            shown = known.mask(show_arguments(call.arguments, secrets))
            repaired = tuple(map(known.mask_text, repaired))
        entry.sealed_s = self._log.note(events.CallSealed, entry.id, shown, repaired)

    def _holds_asked(self, entry: Entry) -> bool:
        """Return whether a call that was made for this one waits for a person, and so this one too."""
        for asked in self._table.pending.values():
            above = asked.parent
            while above is not None and above is not entry:
                above = above.parent
            if above is entry:
                return True
        return False

    def seal_early(self, entry: Entry, repaired: tuple[str, ...]) -> None:
        """Seal an early run: it and its needs count as sealed from the start."""
        for child in self._table.children(entry):
            # A call that its tool made was sealed then; one that was cancelled is void.
            if child.sealed_s is None and child.state != "void":
                self.seal_early(child, ())
        if repaired:
            entry.more.repaired = repaired
        self.tell_sealed(entry, cast(ToolCall, entry.node))
        _release_writes(entry)
        if entry.has_ended:
            self._tell(entry)
            self._have_passed_on(entry)

    def _tell(self, entry: Entry) -> None:
        """Report the outcome to the log, to the journal and to all waiters."""
        note, node_id = self._log.note, entry.id
        error = "" if entry.extra is None else entry.extra.error or ""
        match entry.state:
            case "finished" if entry.ended_s is None and (entry.extra is None or entry.extra.source == "run"):
                # The common case; all other fields keep their defaults.
                told_s = self._log.note_value(events.CallFinished, node_id, entry.value)
            case "finished":
                told_s = note(events.CallFinished, node_id, entry.value, entry.source, entry.age_s, entry.ended_s)
            case "failed":
                told_s = note(events.CallFailed, node_id, error, entry.ended_s, entry.extra and entry.extra.error_type)
            case "skipped":
                told_s = note(events.CallSkipped, node_id, entry.more.because or error)
            case "denied":
                told_s = note(events.CallDenied, node_id, error)
            case "cancelled":
                told_s = note(events.CallCancelled, node_id, error, entry.extra is not None and entry.extra.was_asked)
            case "in_doubt":
                told_s = note(events.CallInDoubt, node_id, error)
            case "void" | None:
                told_s = note(events.CallVoid, node_id, error)
        if entry.ended_s is None:
            entry.ended_s = told_s
        if self._journal is not None and entry.source != "journal" and entry.state in ("finished", "failed"):
            self._record_read(entry, self._journal)
        for waiter in self._table.waiters:
            waiter.note_end(entry)
        if self._table.pending and not entry.on_end:
            self.stuck.look()  # perhaps only those that wait for a person are left

    def _record_read(self, entry: Entry, journal: RunJournal) -> None:
        """Record reads, model steps and calls of unknown tools when they are reported; effects were recorded before."""
        is_recorded = isinstance(entry.node, (ModelStep, ToolCall)) if entry.plan is None else entry.plan.is_read
        if not is_recorded or entry.has_doubt:
            return  # one with a call in doubt runs again once that is settled
        assert entry.state is not None
        name, attempt = entry.node.name, max(1, entry.attempt)
        record = Recorded(entry.id, entry.state, entry.value, entry.error, attempt, "read", tool=name)
        try:
            journal.post_read(record)
        except ToolResultError as error:
            self._table.errands.append(_fail(error))  # it stops the run


def _release_writes(entry: Entry) -> None:
    """Wake the calls that wait for its seal: they start, or fail because there will be none."""
    if entry.extra is not None and entry.extra.on_seal:
        told, entry.extra.on_seal = entry.extra.on_seal, ()
        for tell in told:
            tell()


def is_met(entry: Entry, producer: Entry) -> bool:
    """Return whether a finished producer satisfies `entry`, which needs its value or only its end."""
    return producer.is_usable or (entry.extra is not None and producer.id in entry.extra.after)


async def _fail(error: ToolResultError) -> None:
    raise error
