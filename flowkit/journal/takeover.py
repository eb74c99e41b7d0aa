"""Taking hold of a run: the first driver writes its row, a later one takes over what an earlier one left.

Each driver has a fence of its own, higher than those before it, and what it writes says so.
"""

import sqlite3
from dataclasses import dataclass

from flowkit.codec import JSON
from flowkit.errors import CodeChanged, RunBusy, RunError
from flowkit.journal.driver_lease import RunLease, lease_until
from flowkit.journal.log import JournalLog
from flowkit.journal.records import RunDetails
from flowkit.journal.rows import from_text, to_text
from flowkit.journal.views import read_details

SEQ_GAP = 10_000
"""A run that went on after a crash numbers its events from so much further: the last ones may be lost, but somebody
may have seen them, and no number is used twice."""
OVER = ("done", "failed", "cancelled", "limit")
"""How runs end that nobody goes on with."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The run that a driver wants to start, or believes that it goes on with; `inputs` None stands for any."""

    run_id: str
    name: str
    code: str
    inputs: JSON
    user: str | None
    session: str | None
    allow_changed: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """The run that it got."""

    details: RunDetails
    fence: int
    first_seq: int


def take_run(connection: sqlite3.Connection, wanted: Wanted, log: JournalLog) -> Taken:
    """Start the run or take it over; the errors are those of `Journal.open_run`."""
    run_id = wanted.run_id
    found = connection.execute(
        "SELECT user, code, inputs, status, fence, holder, boot, until, until_wall FROM run WHERE run_id = ?",
        (run_id,),
    ).fetchone()
    fence = 1
    was_held = False
    if found is None:
        _begin(connection, wanted, log)
    else:
        user, code, inputs, status, fence_before, *lease_columns = found
        lease = RunLease(*lease_columns)
        if user != wanted.user:
            raise RunError(f"run {run_id!r} is another user's")
        if log.is_held(run_id, lease):
            raise RunBusy(f"run {run_id!r} is driven by another process ({lease.holder})")
        if code != wanted.code and status not in OVER and not wanted.allow_changed:
            raise CodeChanged(f"run {run_id!r} began with other code; pass allow_changed=True to go on")
        if wanted.inputs is not None and from_text(inputs) != wanted.inputs:
            raise RunError(f"run {run_id!r} began with other inputs")
        fence = fence_before + 1
        was_held = lease.holder is not None
        _take_over(connection, wanted, log, is_over=status in OVER)
    connection.execute(
        "UPDATE run SET fence = ?, holder = ?, boot = ?, until = ?, until_wall = ? WHERE run_id = ?",
        (fence, log.holder.to_text(), *lease_until(log.clock, log.lease_s), run_id),
    )
    (last_seq,) = connection.execute("SELECT MAX(seq) FROM event WHERE run_id = ?", (run_id,)).fetchone()
    first_seq = (-1 if last_seq is None else last_seq) + 1 + (SEQ_GAP if was_held else 0)
    details = read_details(connection, run_id, log)
    assert details is not None, "its row was written above"
    log.hold(run_id, fence)
    return Taken(details, fence, first_seq)


def _begin(connection: sqlite3.Connection, wanted: Wanted, log: JournalLog) -> None:
    now = log.clock.wall()
    connection.execute(
        "INSERT INTO run (run_id, name, code, user, session, inputs, status, began, changed, fence)"
        " VALUES (?, ?, ?, ?, ?, ?, 'running', ?, ?, 1)",
        (wanted.run_id, wanted.name, wanted.code, wanted.user, wanted.session, to_text(wanted.inputs), now, now),
    )


def _take_over(connection: sqlite3.Connection, wanted: Wanted, log: JournalLog, *, is_over: bool) -> None:
    """Run it on, unless it is over; a write that was claimed may have happened."""
    if not is_over:
        # What it had said when it began to wait isn't all any more.
        connection.execute(
            "UPDATE run SET status = 'running', messages = NULL, code = ?, changed = ? WHERE run_id = ?",
            (wanted.code, log.clock.wall(), wanted.run_id),
        )
    connection.execute(
        "UPDATE node SET state = 'in_doubt' WHERE run_id = ? AND state = 'claimed' AND effect = 'write'",
        (wanted.run_id,),
    )
