"""The call whose function runs the current code: a run that the function starts gets its id from it.

The tasks and threads that a function starts inherit it. It is gone when the call has ended: a task that outlives its
call doesn't belong to it any more.
"""

import hashlib
import itertools
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass

from flowkit.codec import JSON, dumps
from flowkit.events import EventLog
from flowkit.executor.entries import Entry
from flowkit.identity import RunIdentity
from flowkit.journal import RunJournal
from flowkit.known_secrets import KNOWN, KnownSecrets
from flowkit.observers import RUN_AROUND

CALL: ContextVar[Entry | None] = ContextVar("flowkit_call", default=None)
"""The call that this task is a part of."""
RUN: ContextVar[RunIdentity | None] = ContextVar("flowkit_run", default=None)
"""The run of that call."""
JOURNAL: ContextVar[RunJournal | None] = ContextVar("flowkit_journal", default=None)
"""The journal of the run in whose call this task runs: a run that the call starts is recorded there, too."""


@dataclass(frozen=True, slots=True)
class CurrentCall:
    """A call that runs, and its run."""

    identity: RunIdentity
    entry: Entry

    def name_run(self, name: str, inputs: JSON) -> str:
        """Name a run that the call's function starts: the same in every attempt and process, for the same inputs.

        It depends on the inputs and not only on the order, since several runs may be started in parallel. Equal runs of
        one attempt are counted.
        """
        entry = self.entry
        # The guard of a call runs before its first attempt.
        made = dumps([self.identity.key, entry.lasting_id, "call" if entry.attempt else "guard", name, inputs])
        digest = hashlib.sha256(made).hexdigest()[:12]
        more = entry.more
        if more.runs is None or more.runs[0] != entry.attempt:
            more.runs = (entry.attempt, {})
        count = next(more.runs[1].setdefault(digest, itertools.count(1)))
        return f"{self.identity.run_id}/{entry.lasting_id}/{name}-{digest}" + ("" if count == 1 else f"-{count}")


AROUND: ContextVar[tuple[Entry, ...]] = ContextVar("flowkit_calls_around", default=())
"""The calls around this run, from the outermost to the one whose function started it."""


def note_write(call: Entry, around: tuple[Entry, ...]) -> None:
    """Note a write that begins inside these calls: a further attempt of theirs would write again."""
    if call.plan is not None and call.plan.effect == "write":
        for entry in around:
            entry.more.has_written = True


def note_doubt(call: Entry, around: tuple[Entry, ...]) -> None:
    """Note a call in doubt in the calls that made it, and in those around its run."""
    for start in (call.parent, *around):
        above = start
        while above is not None:
            above.more.has_doubt = True
            above = above.parent


def find_around() -> tuple[Entry, ...]:
    """Return the calls around a run that starts here."""
    call = CALL.get()
    return AROUND.get() if call is None or call.has_ended else (*AROUND.get(), call)


def enter_run(identity: RunIdentity, log: EventLog, known: KnownSecrets, journal: RunJournal | None) -> Context:
    """Return the context of the tasks that run this run's calls: this one, as it is in the run."""
    context = copy_context()
    context.run(AROUND.set, find_around())
    context.run(RUN.set, identity)
    context.run(JOURNAL.set, journal)
    context.run(CALL.set, None)
    context.run(RUN_AROUND.set, log)
    context.run(KNOWN.set, known)
    return context


def find_call() -> CurrentCall | None:
    """Find the call whose function runs the current code; None outside a call, and in a run without an id."""
    identity, entry = RUN.get(), CALL.get()
    if identity is None or entry is None or not identity.run_id or entry.has_ended:
        return None
    return CurrentCall(identity, entry)
