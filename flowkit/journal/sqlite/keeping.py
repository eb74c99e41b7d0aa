"""Arguments with secrets, which a run keeps separately while it may be resumed, and which are erased when it is over.

SQLite overwrites deleted data if it is configured to. Its write-ahead log has older copies of the same pages until it
is truncated, which is impossible while another process reads it; then the truncation is retried.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress


def put_kept(connection: sqlite3.Connection, run: int, turn: int, arguments: str) -> None:
    """Keep the arguments of one turn, in place of those that were kept of it before."""
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("INSERT OR REPLACE INTO kept (run, turn, arguments) VALUES (?, ?, ?)", (run, turn, arguments))
    connection.execute("PRAGMA secure_delete = OFF")


def delete_kept(connection: sqlite3.Connection, runs: Sequence[int]) -> None:
    """Remove and overwrite what these runs kept; empty the log with a `LogCleaner` when this is committed."""
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"DELETE FROM kept WHERE run IN ({', '.join('?' * len(runs))})", list(runs))
    connection.execute("PRAGMA secure_delete = OFF")


class LogCleaner:
    """Empties the log of a journal once secrets were removed; used by the writer's thread alone."""

    def __init__(self) -> None:
        self.is_due = False

    def remove_kept(self, runs: Sequence[int], connection: sqlite3.Connection) -> None:
        """Remove what these runs kept, which end in this transaction; if it was anything, empty the log after it."""
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
