"""Read a journal's file: one run in full, lists of runs, and the messages of a session."""

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from itertools import islice
from types import EllipsisType
from typing import Any

from flowkit.codec import JSON
from flowkit.errors import FlowkitError
from flowkit.journal.driver_lease import RunLease
from flowkit.journal.records import Approval, Recorded, RecordedTurn, RunDetails, RunSummary
from flowkit.journal.rows import (
    APPROVAL_COLUMNS,
    RECORD_COLUMNS,
    from_column,
    from_optional_column,
    from_text,
    read_approval_rows,
    read_list,
    read_record,
    show_doubt,
    to_optional_column,
)
from flowkit.journal.sqlite.holding import Holding
from flowkit.journal.store import UNFINISHED, Blobs, Filter
from flowkit.journal.unfinished_messages import recall

SUMMARY_COLUMNS = (
    "id, parent, run_id, name, status, user, session, began, changed, error, holder, boot, until, until_wall"
)


def read_summaries(rows: Iterable[tuple[Any, ...]], holding: Holding) -> list[RunSummary]:
    """Read runs from rows of `SUMMARY_COLUMNS`."""
    return [
        RunSummary(
            run_id=from_column(run_id),
            name=from_column(name),
            status=status,
            user=from_optional_column(user),
            session=from_optional_column(session),
            began_at=began,
            changed_at=changed,
            error=from_optional_column(error),
            is_held=holding.is_held(number, RunLease(*lease)),
            number=number,
            parent=parent,
        )
        for number, parent, run_id, name, status, user, session, began, changed, error, *lease in rows
    ]


def read_runs(connection: sqlite3.Connection, chosen: Filter, holding: Holding) -> list[RunSummary]:
    """Read the latest runs, newest first."""
    rows = connection.execute(
        f"SELECT {SUMMARY_COLUMNS} FROM run WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR session = ?2)"
        " AND (?3 OR user IS ?4) AND (?5 IS NULL OR id < ?5) AND (?6 OR parent IS NULL)"
        " ORDER BY id DESC LIMIT ?7",
        (
            chosen.status,
            to_optional_column(chosen.session),
            isinstance(chosen.user, EllipsisType),
            None if isinstance(chosen.user, EllipsisType) else to_optional_column(chosen.user),
            chosen.before,
            chosen.inner,
            chosen.limit,
        ),
    )
    return read_summaries(rows, holding)


def read_stopped(connection: sqlite3.Connection, limit: int, holding: Holding) -> list[RunSummary]:
    """Read the runs to resume that have no driver, oldest first."""
    rows = connection.execute(f"SELECT {SUMMARY_COLUMNS} FROM run WHERE {UNFINISHED} AND parent IS NULL ORDER BY id")
    free = (row for row in rows if not holding.is_held(row[0], RunLease(*row[-4:])))
    return read_summaries(islice(free, limit), holding)


def read_summary(connection: sqlite3.Connection, run: int, holding: Holding) -> RunSummary | None:
    """Read the run of this number for a list."""
    rows = connection.execute(f"SELECT {SUMMARY_COLUMNS} FROM run WHERE id = ?", (run,)).fetchall()
    return next(iter(read_summaries(rows, holding)), None)


class Damaged(Exception):
    """Raised for a run with columns that can't be read; `run` names it."""

    def __init__(self, run: str, error: Exception) -> None:
        super().__init__(f"run {run!r} can't be read ({error})")
        self.run = run


@contextmanager
def naming_damage(run: str) -> Generator[None]:
    """Name the run with unreadable columns; SQLite reports an invalid text as an error of the statement."""
    try:
        yield
    except FlowkitError:
        raise
    except (ValueError, TypeError, LookupError) as error:
        raise Damaged(run, error) from error
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        raise Damaged(run, error) from error


def read_details(connection: sqlite3.Connection, run: int, holding: Holding, blobs: Blobs) -> RunDetails | None:
    """Read the run of this number as its rows are; None when there is no such run."""
    summary = read_summary(connection, run, holding)
    if summary is None:
        return None
    with naming_damage(summary.run_id):
        code, inputs, output, messages = connection.execute(
            "SELECT code, inputs, output, messages FROM run WHERE id = ?", (run,)
        ).fetchone()
        return RunDetails(
            summary=summary,
            code=from_column(code),
            inputs=from_text(inputs),
            output=from_text(output),
            messages=tuple(read_list(messages)),
            nodes=_read_nodes(connection, run, blobs),
            turns=_read_turns(connection, run),
            approvals=read_approvals(connection, run),
        )


def read_conversation(
    connection: sqlite3.Connection,
    session: str,
    holding: Holding,
    blobs: Blobs,
    *,
    user: str | None,
    before: int | None = None,
    limit: int = 1000,
) -> list[JSON]:
    """Read the messages of the session's last `limit` runs, or of the last before one of them, oldest first.

    They are sorted by the runs' numbers, not by time: a clock may be set back.
    """
    rows = connection.execute(
        "SELECT id, messages FROM run WHERE session = ?1 AND user IS ?2 AND parent IS NULL AND (?3 IS NULL OR id < ?3)"
        " ORDER BY id DESC LIMIT ?4",
        (to_optional_column(session), to_optional_column(user), before, limit),
    ).fetchall()
    messages: list[JSON] = []
    for run, said in reversed(rows):
        if said is not None:
            with naming_damage(f"number {run} of session {session}"):
                messages += read_list(said)
        elif (details := read_details(connection, run, holding, blobs)) is not None:
            messages += recall(show_doubt(details))
    return messages


def read_approvals(connection: sqlite3.Connection, run: int) -> dict[str, Approval]:
    """Read the requests of a run, decided or not, oldest first."""
    rows = connection.execute(
        f"SELECT {APPROVAL_COLUMNS} FROM approval WHERE run = ? ORDER BY asked", (run,)
    ).fetchall()
    return read_approval_rows(rows)


def _read_nodes(connection: sqlite3.Connection, run: int, blobs: Blobs) -> dict[str, Recorded]:
    """Read every node of a run, the most recently changed last."""
    # All rows at once: a cursor in the traceback of a damaged row would stay open, and later checkpoints wait for it.
    rows = connection.execute(
        f"SELECT holder, boot, until, until_wall, {RECORD_COLUMNS} FROM node WHERE run = ? ORDER BY position", (run,)
    ).fetchall()
    found = (read_record(columns[4:], RunLease(*columns[:4]), blobs.get) for columns in rows)
    return {record.node: record for record in found if record is not None}


def _read_turns(connection: sqlite3.Connection, run: int) -> tuple[RecordedTurn, ...]:
    """Read the turns of a run, in order."""
    rows = connection.execute("SELECT turn, message FROM turn WHERE run = ? ORDER BY turn", (run,)).fetchall()
    return tuple(RecordedTurn(turn, from_text(message)) for turn, message in rows)
