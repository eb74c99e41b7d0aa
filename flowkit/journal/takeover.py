"""Taking hold of a run: the first driver writes its row, a later one takes over what an earlier one left.

Each driver has a fence of its own, higher than those before it, and what it writes says so. A run's number is never
used twice, so a driver whose run was deleted meanwhile, and began anew, can change nothing in the new one.
"""

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, cast

from flowkit.codec import JSON
from flowkit.errors import CodeChanged, RunBusy, RunError
from flowkit.journal.driver_lease import RunLease, lease_until
from flowkit.journal.log import JournalLog
from flowkit.journal.records import RunDetails
from flowkit.journal.rows import from_text, to_text
from flowkit.journal.schema import place_text
from flowkit.journal.views import read_details

SEQ_GAP = 10_000
"""A run that went on after a crash numbers its events from so much further: the last ones may be lost, but somebody
may have seen them, and no number is used twice."""
OVER = ("done", "failed", "cancelled", "limit")
"""How runs end that nobody goes on with."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The run that a driver wants to start, or believes that it goes on with; `inputs` None stands for any.

    So they do where it `ignores_inputs`, but they are kept when it begins. A run that ended in one of the states `only_read` is opened to be read. One that isn't there is begun, unless it
    `must_exist`. `parent` is the number of the run that calls it.
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


@dataclass(frozen=True, slots=True)
class Taken:
    """The run that it got; `fence` is None for one that is only read."""

    details: RunDetails
    fence: int | None
    first_seq: int
    position: int
    is_new: bool
    kept: Mapping[int, Mapping[str, str]]


def take_run(connection: sqlite3.Connection, wanted: Wanted, log: JournalLog, held: list[tuple[int, int]]) -> Taken:
    """Start the run or take it over; the errors are those of `Journal.open_run`. What it holds is added to `held`."""
    run_id = wanted.run_id
    number = find_run(connection, run_id, user=wanted.user, session=... if wanted.session is None else wanted.session)
    fence: int | None = 1
    was_held = False
    is_new = number is None
    if number is None:
        if wanted.must_exist:
            raise RunError(f"there is no run {run_id!r} to go on with; give a message to start it")
        number = _begin(connection, wanted, log)
    else:
        code, inputs, status, fence_before, *lease_columns = connection.execute(
            "SELECT code, inputs, status, fence, holder, boot, until, until_wall FROM run WHERE id = ?", (number,)
        ).fetchone()
        lease = RunLease(*lease_columns)
        if log.is_held(number, lease):
            raise RunBusy(f"run {run_id!r} is driven by another process ({lease.holder})")
        if code != wanted.code and status not in OVER and not wanted.allow_changed:
            raise CodeChanged(f"run {run_id!r} began with other code; pass allow_changed=True to go on")
        if not wanted.ignores_inputs and wanted.inputs is not None and from_text(inputs) != wanted.inputs:
            raise RunError(f"run {run_id!r} began with other inputs")
        fence = None if status in wanted.only_read else fence_before + 1
        was_held = lease.holder is not None
        if fence is not None:
            _take_over(connection, number, wanted, log, is_over=status in OVER)
    if fence is not None:
        connection.execute(
            "UPDATE run SET fence = ?, holder = ?, boot = ?, until = ?, until_wall = ? WHERE id = ?",
            (fence, log.holder.to_text(), *lease_until(log.clock, log.lease_s), number),
        )
        log.hold(number, fence)
        held.append((number, fence))
    (last_seq,) = connection.execute("SELECT MAX(seq) FROM event WHERE run = ?", (number,)).fetchone()
    first_seq = (-1 if last_seq is None else last_seq) + 1 + (SEQ_GAP if was_held else 0)
    (position,) = connection.execute("SELECT MAX(position) FROM node WHERE run = ?", (number,)).fetchone()
    details = read_details(connection, number, log)
    assert details is not None, "its row was found or written above"
    kept = connection.execute("SELECT turn, arguments FROM kept WHERE run = ?", (number,)).fetchall()
    hidden = {turn: cast("Mapping[str, str]", from_text(arguments)) for turn, arguments in kept}
    return Taken(details, fence, first_seq, position or 0, is_new, hidden)


def find_run(
    connection: sqlite3.Connection,
    run_id: str,
    *,
    user: str | EllipsisType | None = ...,
    session: str | EllipsisType | None = ...,
) -> int | None:
    """The number of the run at this place, `...` standing for any user or session; None when there is none.

    Raises `RunError` when there are several: a run id alone says nothing then.
    """
    where, values = "run_id = ?", [run_id]
    for column, value in (("user", user), ("session", session)):
        if not isinstance(value, EllipsisType):
            where += f" AND {column} IS ?"
            values.append(value)  # pyright: ignore[reportArgumentType]  # NULL is found by IS
    found: list[tuple[Any, ...]] = connection.execute(
        f"SELECT id, user, session FROM run WHERE {where}", values
    ).fetchall()
    if len(found) > 1:
        places = "; ".join(f"user {owner!r}, session {name!r}" for _, owner, name in found[:5])
        raise RunError(f"there are {len(found)} runs {run_id!r} ({places}): name the user and the session")
    return found[0][0] if found else None


def _begin(connection: sqlite3.Connection, wanted: Wanted, log: JournalLog) -> int:
    now = log.clock.wall()
    made = connection.execute(
        "INSERT INTO run (place, run_id, user, session, parent, name, code, inputs, status, began, changed, fence)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'running', ?, ?, 1)",
        (
            place_text(wanted.user, wanted.session, wanted.run_id),
            wanted.run_id,
            wanted.user,
            wanted.session,
            wanted.parent,
            wanted.name,
            wanted.code,
            to_text(wanted.inputs),
            now,
            now,
        ),
    )
    assert made.lastrowid is not None
    return made.lastrowid


def _take_over(connection: sqlite3.Connection, number: int, wanted: Wanted, log: JournalLog, *, is_over: bool) -> None:
    """Run it on, unless it is over; a write that was claimed may have happened."""
    if not is_over:
        # What it had said when it began to wait isn't all any more.
        connection.execute(
            "UPDATE run SET status = CASE status WHEN 'cancelling' THEN status ELSE 'running' END, messages = NULL,"
            " code = ?, changed = ? WHERE id = ?",
            (wanted.code, log.clock.wall(), number),
        )
    connection.execute(
        "UPDATE node SET state = 'in_doubt' WHERE run = ? AND state = 'claimed' AND effect = 'write'", (number,)
    )
