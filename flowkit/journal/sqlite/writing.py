"""The writes of drivers and users to a journal's file; each function runs inside a transaction."""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress

from flowkit.clock import Clock
from flowkit.errors import FlowkitError, RunBusy, StoreError
from flowkit.journal.records import Approval, Decision
from flowkit.journal.rows import (
    RECORD_COLUMNS,
    decision_values,
    record_values,
    to_column,
    to_optional_column,
    to_text,
)
from flowkit.journal.sqlite.reading import read_approvals
from flowkit.journal.store import OVER, Blobs, Changes, Ending, Put

BLOB_BYTES = 2**16
"""Larger results go to the blob folder."""
_NODE_COLUMNS = f"run, changed, position, holder, boot, until, until_wall, {RECORD_COLUMNS}"
_PUT_NODE = f"INSERT OR REPLACE INTO node ({_NODE_COLUMNS}) VALUES (?{', ?' * _NODE_COLUMNS.count(',')})"


class Fences:
    """The fences of runs within one transaction: no other process can change them, so each is read once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tokens: dict[int, str | None] = {}

    def check(self, run: int, run_id: str, token: str) -> None:
        """Raise `RunBusy` unless the run's fence is still that of this opening."""
        if run not in self._tokens:
            row = self._connection.execute("SELECT fence FROM run WHERE id = ?", (run,)).fetchone()
            self._tokens[run] = None if row is None else str(row[0])
        if self._tokens[run] != token:
            raise RunBusy(f"run {run_id!r}: another process took over; nothing more is recorded from here")


def write_changes(
    connection: sqlite3.Connection, changes: Changes, fences: Fences, blobs: Blobs, clock: Clock
) -> FlowkitError | None:
    """Write a driver's changes; return an error if none were written."""
    run = changes.run
    try:
        fences.check(run, changes.run_id, changes.token)
        # Before the first row: a result that can't be stored leaves nothing of the rest.
        puts = [(put, put_blob(put, blobs)) for put in changes.nodes]
    except (RunBusy, StoreError) as error:
        return error
    for put, blob in puts:
        write_node(connection, run, put, blob, clock)
    if changes.take_back is not None:
        where = (run, to_column(changes.take_back.node), changes.take_back.attempt)
        deleted = connection.execute(
            "DELETE FROM node WHERE run = ? AND node = ? AND attempt = ? AND state = 'claimed'", where
        )
        before = changes.take_back.before
        if before is not None and deleted.rowcount:
            write_node(connection, run, before, put_blob(before, blobs), clock)
    if changes.turn is not None:
        turn = changes.turn
        if turn.message is not None:
            connection.execute(
                "INSERT OR REPLACE INTO turn (run, turn, message) VALUES (?, ?, ?)", (run, turn.turn, turn.message)
            )
        if turn.kept is not None:
            put_kept(connection, run, turn.turn, turn.kept)
    if changes.events:
        connection.executemany(
            "INSERT OR REPLACE INTO event (run, seq, body) VALUES (?, ?, ?)",
            [(run, seq, body) for seq, body in changes.events],
        )
    if changes.ending is not None:
        _write_ending(connection, run, changes.ending, clock)
    return None


def write_node(connection: sqlite3.Connection, run: int, put: Put, blob: str | None, clock: Clock) -> None:
    """Insert or replace a node."""
    lease = put.record.lease
    values = record_values(put.record, put.data, blob)
    connection.execute(
        _PUT_NODE,
        (run, clock.wall(), put.position, lease.holder, lease.boot, lease.until, lease.until_wall, *values),
    )


def write_question(connection: sqlite3.Connection, run: int, question: Approval, *, anew: bool) -> dict[str, Approval]:
    """Record a request for a person's decision, unless the same one exists; return all requests of the run."""
    found = read_approvals(connection, run).get(question.node)
    if anew or found is None or found.arguments != question.arguments or found.name != question.name:
        connection.execute(
            "INSERT OR REPLACE INTO approval (run, node, name, arguments, asked) VALUES (?, ?, ?, ?, ?)",
            (
                run,
                to_column(question.node),
                to_column(question.name),
                to_text(question.arguments),
                question.asked_at,
            ),
        )
    return read_approvals(connection, run)


def write_decision(connection: sqlite3.Connection, run: int, node: str, decision: Decision) -> bool:
    """Decide a pending request; return False if there is no such request, or it was already decided."""
    found = connection.execute(
        "UPDATE approval SET approved = ?, by = ?, at = ?, reason = ?, changed_arguments = ?"
        " WHERE run = ? AND node = ? AND approved IS NULL",
        (*decision_values(decision), run, to_column(node)),
    )
    return found.rowcount == 1


def release(connection: sqlite3.Connection, tokens: Sequence[tuple[int, str]]) -> None:
    """Release runs for drivers that couldn't record the release."""
    # Not NULL: it tells the next driver that some events of the run may be lost.
    connection.executemany(
        "UPDATE run SET holder = '' WHERE id = ? AND fence = ?", [(run, int(token)) for run, token in tokens]
    )


def _write_ending(connection: sqlite3.Connection, run: int, ending: Ending, clock: Clock) -> None:
    connection.execute("UPDATE node SET holder = NULL WHERE run = ? AND state = 'claimed'", (run,))
    if ending.status is None:
        connection.execute("UPDATE run SET holder = NULL, changed = ? WHERE id = ?", (clock.wall(), run))
        return
    # A run that stops to wait may have been asked to be cancelled in that moment: it still is to be.
    status = "?" if ending.status in OVER else "CASE status WHEN 'cancelling' THEN status ELSE ? END"
    connection.execute(
        f"UPDATE run SET status = {status}, output = ?, error = ?, messages = ?, changed = ?, holder = NULL"
        " WHERE id = ?",
        (ending.status, ending.output, to_optional_column(ending.error), ending.messages, clock.wall(), run),
    )


def put_blob(put: Put, blobs: Blobs) -> str | None:
    """Store a large result beside the journal and return its name; None for one that fits into its row."""
    if len(put.data) <= BLOB_BYTES:
        return None
    try:
        return blobs.put(put.data)
    except OSError as error:
        raise StoreError(f"the result of {put.record.node!r} can't be stored beside the journal: {error}") from error


_SPENT_TABLE = (
    "CREATE TABLE IF NOT EXISTS spent (key TEXT PRIMARY KEY, usd REAL NOT NULL, changed REAL NOT NULL) WITHOUT ROWID"
)


def add_spent(connection: sqlite3.Connection, key: str, usd: float, wall: float) -> float:
    """Add to the amount spent under a key; return the sum."""
    connection.execute(_SPENT_TABLE)
    return connection.execute(
        "INSERT INTO spent (key, usd, changed) VALUES (?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET usd = usd + excluded.usd, changed = excluded.changed RETURNING usd",
        (key, usd, wall),
    ).fetchone()[0]


def read_spent(connection: sqlite3.Connection, key: str) -> float:
    """Return the amount spent under a key; 0 without an entry."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'spent'").fetchone() is None:
        return 0.0
    row = connection.execute("SELECT usd FROM spent WHERE key = ?", (key,)).fetchone()
    return 0.0 if row is None else row[0]


def put_kept(connection: sqlite3.Connection, run: int, turn: int, arguments: str) -> None:
    """Keep the arguments of one turn, which have secrets and are erased when the run is over, in place of earlier ones."""
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("INSERT OR REPLACE INTO kept (run, turn, arguments) VALUES (?, ?, ?)", (run, turn, arguments))
    connection.execute("PRAGMA secure_delete = OFF")


def delete_kept(connection: sqlite3.Connection, runs: Sequence[int]) -> None:
    """Remove and overwrite the secrets of these runs; empty the log with a `LogCleaner` after the commit."""
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"DELETE FROM kept WHERE run IN ({', '.join('?' * len(runs))})", list(runs))
    connection.execute("PRAGMA secure_delete = OFF")


class LogCleaner:
    """Empties the log of a journal once secrets were removed; used by the writer's thread alone.

    SQLite overwrites deleted data if it is configured to. Its write-ahead log has older copies of the same pages until
    it is truncated, which is impossible while another process reads it; then the truncation is retried.
    """

    def __init__(self) -> None:
        self.is_due = False

    def remove_kept(self, runs: Sequence[int], connection: sqlite3.Connection) -> None:
        """Remove the secrets of the runs that end in this transaction; if there were any, empty the log afterwards."""
        marks = ", ".join("?" * len(runs))
        found = connection.execute(f"SELECT 1 FROM kept WHERE run IN ({marks}) LIMIT 1", list(runs)).fetchone()
        if found is not None:
            self.is_due = True
            delete_kept(connection, runs)

    def clean(self, connection: sqlite3.Connection) -> None:
        """Empty the log if that is due, without waiting for readers; outside of any transaction."""
        if not self.is_due:
            return
        (busy_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            with suppress(sqlite3.Error):  # another connection is writing, or the disk is full
                is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self.is_due = bool(is_busy)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {busy_ms}")
