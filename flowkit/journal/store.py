"""The operations that a journal needs from a database, with their arguments as data.

A driver's writes are `Changes`, applied for many runs at a time. Each `token` names the opening of the run that the
change belongs to. If the run has another token by then, another driver took over and the change isn't written. Every
other operation is its own transaction.

A `JournalStore` writes only in the thread of `journal.log`, and reads in any thread. It raises `StoreError` for what
it can't do, after a bounded time.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Protocol

from flowkit.codec import JSON
from flowkit.errors import FlowkitError, RunError, StoreError
from flowkit.journal.records import (
    Approval,
    Decision,
    JournalStats,
    Recorded,
    Resolution,
    RunDetails,
    RunState,
    RunSummary,
)

SEQ_GAP = 10_000
"""A run that went on after a crash numbers its events from so much further: the last ones may be lost, but somebody
may have seen them, and no number is used twice."""
OVER = ("done", "failed", "cancelled", "limit")
"""The final states: a run in one of them is never resumed."""
UNFINISHED = "status IN ('queued', 'running', 'cancelling')"
"""Runs that somebody drives, or should; in every dialect of SQL."""
DOUBT_INSIDE = (
    "WITH RECURSIVE inside(id) AS (SELECT id FROM {run} WHERE parent = {number} UNION ALL"
    " SELECT r.id FROM {run} r JOIN inside ON r.parent = inside.id)"
    " SELECT 1 FROM inside JOIN {node} n ON n.run = inside.id"
    " WHERE n.state = 'in_doubt' OR (n.state = 'claimed' AND n.effect = 'write') LIMIT 1"
)
"""Whether there is a write in doubt in the runs inside one; in every dialect of SQL."""


class MaybeWritten(StoreError):
    """It couldn't be confirmed that something was written, so it may have been."""


@dataclass(frozen=True, slots=True)
class RunPlace:
    """The key to find a run by: its user, its session and its id; `...` matches any."""

    run_id: str
    user: str | EllipsisType | None = ...
    session: str | EllipsisType | None = ...


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs a list shows, the newest first; `before` is a run's number. With `inner` also those that calls made."""

    status: str | None = None
    session: str | None = None
    user: str | EllipsisType | None = ...
    before: int | None = None
    inner: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class WantedRun:
    """The run that a driver wants to start or resume; `inputs=None` matches any.

    With `ignores_inputs` any inputs match, and the given ones are stored if the run is new. A run that ended in one of
    the states `only_read` is opened for reading. A missing run is started, unless it `must_exist`. `parent` is the
    number of the calling run. `kept` are arguments that its inputs hide; they are stored as those of turn 0.
    """

    run_id: str
    name: str
    code: str
    inputs: JSON
    user: str | None
    session: str | None
    allow_changed: bool
    only_read: Collection[str] = ("done",)
    must_exist: bool = False
    parent: int | None = None
    ignores_inputs: bool = False
    kept: Mapping[str, str] | None = None

    @property
    def place(self) -> RunPlace:
        """Return the key to find it by: without a session, this user's run in any session."""
        return RunPlace(self.run_id, self.user, ... if self.session is None else self.session)


@dataclass(frozen=True, slots=True)
class Taken:
    """The run that a driver got; `token` is None for one that is only read."""

    details: RunDetails
    token: str | None
    first_seq: int
    position: int
    is_new: bool
    kept: Mapping[int, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Put:
    """A node as it is from now on; `data` is its value as JSON, `position` its place among those that changed."""

    record: Recorded
    data: bytes
    position: int


@dataclass(frozen=True, slots=True)
class TurnText:
    """A model's message as JSON; `kept` are the arguments that it hides, as JSON by call.

    Without a message it holds only the hidden arguments, under a number that no turn has.
    """

    turn: int
    message: str | None
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class TakeBack:
    """A claim to undo, if it is still the latest: the node returns to its state `before`."""

    node: str
    attempt: int
    before: Put | None


@dataclass(frozen=True, slots=True)
class Ending:
    """The release of a run by its driver: it ended with this `status`, or None leaves it for another driver.

    No claimed and unrecorded call of the run is running any more.
    """

    status: RunState | None = None
    output: str = "null"
    error: str | None = None
    messages: str = "[]"


@dataclass(frozen=True, slots=True)
class Changes:
    """All that a driver writes about one run in one transaction."""

    run: int
    run_id: str
    token: str
    nodes: tuple[Put, ...] = ()
    turn: TurnText | None = None
    events: tuple[tuple[int, str], ...] = ()
    take_back: TakeBack | None = None
    ending: Ending | None = None


@dataclass(slots=True)
class Commits:
    """The number of committed transactions; `durable` ones waited for the disk."""

    durable: int = 0
    normal: int = 0


@dataclass(slots=True)
class HeldRuns:
    """The runs that this process holds in one journal, each with the token of its opening, by its number."""

    tokens: dict[int, str] = field(default_factory=dict[int, str])
    unreleased: dict[int, str] = field(default_factory=dict[int, str])
    """Those that were let go of when that couldn't be written."""
    pid: int = field(default_factory=os.getpid)

    def let_go(self, run: int, token: str, *, is_written: bool = True) -> None:
        """Hold it no more; one that the store still has as held is let go of there as soon as that is possible."""
        if self.tokens.get(run) == token:
            del self.tokens[run]
            if not is_written:
                # This process is alive, so every other process treats the run as held until the store says otherwise.
                self.unreleased[run] = token

    def let_go_of_all(self) -> None:
        """Hold none."""
        self.unreleased |= self.tokens
        self.tokens.clear()

    def notice_fork(self) -> bool:
        """Return whether this process was forked from the one that opened the store; the parent keeps its runs."""
        if self.pid == os.getpid():
            return False
        self.pid, self.tokens, self.unreleased = os.getpid(), {}, {}
        return True


class Blobs(Protocol):
    """Large results, each under the SHA-256 of its content."""

    def put(self, data: bytes) -> str:
        """Store `data` together with the row that names it; returns its name."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return the content under this name; None when it is missing or doesn't match its hash."""
        ...


class JournalStore(Protocol):
    """A database of runs. From `take` to `close` only the writer's thread calls; the rest may be asked from any."""

    @property
    def name(self) -> str:
        """The location for people to read, without a password."""
        ...

    @property
    def is_shared(self) -> bool:
        """Return whether other machines may use it too."""
        ...

    @property
    def commits(self) -> Commits:
        """The number of commits by this process."""
        ...

    @property
    def is_remote(self) -> bool:
        """Return whether each transaction costs a round trip to a server."""
        ...

    @property
    def holder(self) -> str:
        """This process, as a claim names it."""
        ...

    def try_open(self) -> bool:
        """Open it if that needs no waiting; raises `StoreError` if it is not a journal."""
        ...

    def open(self) -> None:
        """Open it, in a bounded time. Raises `StoreError`."""
        ...

    def take(self, wanted: WantedRun) -> Taken:
        """Start the run or take it over, and hold it; the errors are those of `Journal.open_run`."""
        ...

    def apply(self, batch: Sequence[Changes], *, durable: bool) -> list[FlowkitError | None]:
        """Write the drivers' changes in order; return an error for each: `RunBusy` if another driver took over.

        `durable` changes survive a power loss.
        """
        ...

    def ask(self, run: int, run_id: str, token: str, question: Approval, *, anew: bool) -> dict[str, Approval]:
        """Record a request for a person's decision, unless the same one exists; return all requests of the run.

        `anew` discards an earlier decision. Raises `RunBusy` when another driver took over.
        """
        ...

    def decide(self, run: int | RunPlace, node: str, decision: Decision) -> bool:
        """Decide a pending request; return False if there is no such request, or it was already decided."""
        ...

    def approvals(self, run: int) -> dict[str, Approval]:
        """Return the requests of a run, decided or not, oldest first."""
        ...

    def settle(self, place: RunPlace, node: str, resolution: Resolution, by: str) -> Recorded:
        """Resolve a write in doubt of a run without a driver; its last driver can't write any more. See `Journal.resolve`."""
        ...

    def change_status(self, place: RunPlace, status: RunState, of: Collection[RunState]) -> bool:
        """Change a run's status if it is one `of` these; False where it isn't, or where there is no run."""
        ...

    def add_spent(self, key: str, usd: float) -> float:
        """Add to the amount spent from a budget, atomically; return the sum."""
        ...

    def read_spent(self, key: str) -> float:
        """Return the amount spent from a budget; 0 without an entry."""
        ...

    def announce(self) -> None:
        """Wake those who follow runs that were written, where the store can; call it when the writers know of it."""
        ...

    def renew(self) -> None:
        """Renew this process's lease, and write pending releases."""
        ...

    def delete(self, place: RunPlace) -> bool:
        """Remove a run; False when there is none, `RunBusy` while it is driven."""
        ...

    def prune(self, older_than_s: float, *, unfinished: bool) -> Iterator[int]:
        """Remove the runs unchanged for that long, in steps of a bounded size; yield the number of each step."""
        ...

    def prune_events(self, older_than_s: float) -> Iterator[int]:
        """Remove the events of runs that began that long ago, in steps; yield the number removed in each."""
        ...

    def tidy(self) -> Iterator[int]:
        """Free the space of removed runs, in steps."""
        ...

    def close_writer(self) -> None:
        """Close the writer thread's connection; it may be reopened."""
        ...

    def close(self) -> None:
        """Close everything else."""
        ...

    def show(self, place: RunPlace) -> RunDetails | None:
        """Return a run in full, with a claimed write without a driver shown as in doubt."""
        ...

    def find(self, place: RunPlace) -> RunSummary | None:
        """Find a run for a list."""
        ...

    def has_doubt_inside(self, run: int) -> bool:
        """Return whether a write is in doubt in a run that a call of this one started, at any depth.

        None of them is driven then: this one's driver asks at its end, and a claimed write without a driver is in doubt.
        """
        ...

    def runs(self, chosen: Filter) -> list[RunSummary]:
        """List the latest runs, newest first."""
        ...

    def stopped(self, limit: int) -> list[RunSummary]:
        """List the runs to resume that have no driver, oldest first."""
        ...

    def event_rows(self, place: RunPlace, after: int, before: int | None, limit: int | None) -> list[tuple[int, str]]:
        """Return the next events of a run, each with its JSON as it was written."""
        ...

    def last_seq(self, place: RunPlace) -> int | None:
        """Return the number of its last event."""
        ...

    def conversation(self, session: str, user: str | None, before: int | RunPlace | None, limit: int) -> list[JSON]:
        """Return the messages of the session's last runs, or of the last before one of them, oldest first."""
        ...

    def listen(self, run: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake`, in any thread, soon after events of this run were written, until the returned function is called.

        A store that can't be notified never calls it, so poll as well.
        """
        ...

    def stats(self) -> JournalStats:
        """Return the size of the journal."""
        ...


def describe_several(run_id: str, places: Sequence[tuple[str | None, str | None]]) -> RunError:
    """Make the error for a run id that several users or sessions have: the id alone is ambiguous then."""
    listed = "; ".join(f"user {user!r}, session {session!r}" for user, session in places[:5])
    return RunError(f"there are {len(places)} runs {run_id!r} ({listed}): name the user and the session")
