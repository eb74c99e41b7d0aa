"""Take over a run: the first driver inserts its row, a later one continues from what an earlier one left.

Each driver gets a fence, higher than all earlier ones, and everything that it writes carries it. A run's number is
never reused, so a driver whose run was deleted and started again can't change anything in the new one.
"""

import sqlite3
from collections.abc import Mapping
from types import EllipsisType
from typing import Any, cast

from flowkit.errors import CodeChanged, RunBusy, RunError
from flowkit.journal.driver_lease import RunLease
from flowkit.journal.records import RunDetails, RunSummary
from flowkit.journal.rows import from_optional_column, from_text, place_text, to_column, to_optional_column, to_text
from flowkit.journal.sqlite.holding import Holding
from flowkit.journal.sqlite.reading import naming_damage, read_details
from flowkit.journal.sqlite.writing import put_kept
from flowkit.journal.store import OVER, SEQ_GAP, Blobs, RunPlace, Taken, WantedRun, describe_several


def take_run(connection: sqlite3.Connection, wanted: WantedRun, holding: Holding, blobs: Blobs) -> Taken:
    """Start the run or take it over; the errors are those of `Journal.open_run`."""
    run_id = wanted.run_id
    number = find_run(connection, wanted.place)
    if number is None:
        if wanted.must_exist:
            raise RunError(f"there is no run {run_id!r} to resume; pass a message to start one")
        return _begin(connection, wanted, holding)
    with naming_damage(run_id):
        return _take_again(connection, number, wanted, holding, blobs)


def _take_again(
    connection: sqlite3.Connection, number: int, wanted: WantedRun, holding: Holding, blobs: Blobs
) -> Taken:
    """Take over the run of this number."""
    run_id = wanted.run_id
    code, inputs, status, fence_before, *lease_columns = connection.execute(
        "SELECT code, inputs, status, fence, holder, boot, until, until_wall FROM run WHERE id = ?", (number,)
    ).fetchone()
    lease = RunLease(*lease_columns)
    if holding.is_held(number, lease):
        raise RunBusy(f"run {run_id!r} is driven by another process: {lease.describe(holding.clock)}")
    if code != to_column(wanted.code) and status not in OVER and not wanted.allow_changed:
        raise CodeChanged(f"run {run_id!r} began with other code; pass allow_changed=True to resume it")
    if not wanted.ignores_inputs and wanted.inputs is not None and from_text(inputs) != wanted.inputs:
        raise RunError(f"run {run_id!r} began with other inputs")
    fence: int | None = None if status in wanted.only_read else fence_before + 1
    was_held = lease.holder is not None
    if fence is not None:
        _take_over(connection, number, wanted, holding, is_over=status in OVER)
        connection.execute(
            "UPDATE run SET fence = ?, holder = ?, boot = ?, until = ?, until_wall = ? WHERE id = ?",
            (fence, holding.holder, *holding.lease(), number),
        )
    (last_seq,) = connection.execute("SELECT MAX(seq) FROM event WHERE run = ?", (number,)).fetchone()
    first_seq = (-1 if last_seq is None else last_seq) + 1 + (SEQ_GAP if was_held else 0)
    (position,) = connection.execute("SELECT MAX(position) FROM node WHERE run = ?", (number,)).fetchone()
    details = read_details(connection, number, holding, blobs)
    assert details is not None, "its row was found or written above"
    kept = connection.execute("SELECT turn, arguments FROM kept WHERE run = ?", (number,)).fetchall()
    hidden = {turn: cast("Mapping[str, str]", from_text(arguments)) for turn, arguments in kept}
    return Taken(details, None if fence is None else str(fence), first_seq, position or 0, False, hidden)


def find_run(connection: sqlite3.Connection, place: RunPlace) -> int | None:
    """Find the number of the run at this place; None when there is none. Raises `RunError` when there are several."""
    where, values = "run_id = ?", [to_column(place.run_id)]
    for column, value in (("user", place.user), ("session", place.session)):
        if not isinstance(value, EllipsisType):
            where += f" AND {column} IS ?"
            values.append(to_optional_column(value))  # pyright: ignore[reportArgumentType]  # NULL is found by IS
    found: list[tuple[Any, ...]] = connection.execute(
        f"SELECT id, user, session FROM run WHERE {where}", values
    ).fetchall()
    if len(found) > 1:
        places = [(from_optional_column(user), from_optional_column(session)) for _, user, session in found]
        raise describe_several(place.run_id, places)
    return found[0][0] if found else None


def _begin(connection: sqlite3.Connection, wanted: WantedRun, holding: Holding) -> Taken:
    """Write the row of a new run; nothing has to be read, since there is nothing of it yet."""
    now, code, inputs = holding.clock.wall(), to_column(wanted.code), to_text(wanted.inputs)
    made = connection.execute(
        "INSERT INTO run (place, run_id, user, session, parent, name, code, inputs, status, began, changed, fence,"
        " holder, boot, until, until_wall) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'running', ?, ?, 1, ?, ?, ?, ?)",
        (
            place_text(wanted.user, wanted.session, wanted.run_id),
            to_column(wanted.run_id),
            to_optional_column(wanted.user),
            to_optional_column(wanted.session),
            wanted.parent,
            to_column(wanted.name),
            code,
            inputs,
            now,
            now,
            holding.holder,
            *holding.lease(),
        ),
    )
    number = made.lastrowid
    assert number is not None
    if wanted.kept:
        put_kept(connection, number, 0, to_text(dict(wanted.kept)))
    summary = RunSummary(
        wanted.run_id,
        wanted.name,
        "running",
        wanted.user,
        wanted.session,
        began_at=now,
        changed_at=now,
        is_held=True,
        number=number,
        parent=wanted.parent,
    )
    # A copy through JSON: the caller may change its objects later.
    details = RunDetails(summary, wanted.code, from_text(inputs), None)
    return Taken(details, "1", 0, 0, True, {0: wanted.kept} if wanted.kept else {})


def _take_over(
    connection: sqlite3.Connection, number: int, wanted: WantedRun, holding: Holding, *, is_over: bool
) -> None:
    """Run it on, unless it is over; a write that was claimed may have happened."""
    if not is_over:
        # The messages recorded when it started waiting are no longer complete.
        connection.execute(
            "UPDATE run SET status = CASE status WHEN 'cancelling' THEN status ELSE 'running' END, messages = NULL,"
            " code = ?, changed = ? WHERE id = ?",
            (to_column(wanted.code), holding.clock.wall(), number),
        )
    connection.execute(
        "UPDATE node SET state = 'in_doubt' WHERE run = ? AND state = 'claimed' AND effect = 'write'", (number,)
    )
