"""Keeping a journal small: how much it holds, and runs that nobody needs any more.

Removing goes in steps of a bounded size, each a transaction of its own, so that who drives a run meanwhile waits for
none of them long.
"""

import sqlite3
from collections import Counter
from contextlib import suppress

from flowkit.errors import RunBusy
from flowkit.journal.driver_lease import RunLease
from flowkit.journal.log import JournalLog
from flowkit.journal.records import JournalStats
from flowkit.journal.takeover import OVER

UNUSED_BLOB_S = 3600.0
"""How old a result that no run names must be to be removed."""
RUNS_AT_ONCE = 100
PAGES_AT_ONCE = 2000
"""How much one transaction removes, and gives back to the disk."""


def get_stats(log: JournalLog) -> JournalStats:
    """What the journal holds."""

    def read(connection: sqlite3.Connection) -> tuple[Counter[str], float | None]:
        counts = Counter(dict(connection.execute("SELECT status, COUNT(*) FROM run GROUP BY status")))
        for lease in connection.execute("SELECT holder, boot, until, until_wall FROM run WHERE status = 'running'"):
            if not RunLease(*lease).is_held(log.clock):
                counts["running"] -= 1
                counts["stopped"] += 1
        (oldest,) = connection.execute("SELECT MIN(began) FROM run").fetchone()
        return counts, oldest

    counts, oldest = log.read(read)
    size_bytes = 0
    for ending in ("", "-wal"):
        with suppress(FileNotFoundError):
            size_bytes += log.path.with_name(log.path.name + ending).stat().st_size
    return JournalStats(dict(sorted((+counts).items())), oldest, size_bytes, log.blobs.size_bytes)


def delete_run(log: JournalLog, run_id: str) -> bool:
    """Remove a run; False when there is none, `RunBusy` while somebody drives it."""

    def write(connection: sqlite3.Connection) -> bool:
        found = connection.execute(
            "SELECT holder, boot, until, until_wall FROM run WHERE run_id = ?", (run_id,)
        ).fetchone()
        if found is None:
            return False
        if RunLease(*found).is_held(log.clock):
            raise RunBusy(f"run {run_id!r} is driven by another process")
        _remove(connection, run_id)
        return True

    is_removed = log.write_now(write)
    _give_back(log)
    return is_removed


def prune(log: JournalLog, older_than_s: float, *, unfinished: bool) -> int:
    """Remove the runs that nothing happened to for so long; those that haven't ended only when `unfinished`."""
    before = log.clock.wall() - older_than_s
    where = "changed < ? AND run_id > ?" + ("" if unfinished else f" AND status IN {OVER}")
    last, count = "", 0

    def write(connection: sqlite3.Connection) -> tuple[str | None, int]:
        """Remove the next ones; the last that was looked at, None when there are no more, and how many went."""
        found = connection.execute(
            f"SELECT run_id, holder, boot, until, until_wall FROM run WHERE {where} ORDER BY run_id LIMIT ?",
            (before, last, RUNS_AT_ONCE),
        ).fetchall()
        free = [run_id for run_id, *lease in found if not RunLease(*lease).is_held(log.clock)]
        for run_id in free:
            _remove(connection, run_id)
        return found[-1][0] if found else None, len(free)

    while True:
        reached, removed = log.write_now(write)
        count += removed
        if reached is None:
            break
        last = reached
    _give_back(log)
    return count


def _remove(connection: sqlite3.Connection, run_id: str) -> None:
    for table in ("node", "turn", "approval", "event", "run"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))


def _give_back(log: JournalLog) -> None:
    """Remove large results that no run names, and give free pages back to the disk."""
    used = log.read(
        lambda connection: {blob for (blob,) in connection.execute("SELECT blob FROM node WHERE blob IS NOT NULL")}
    )
    log.blobs.remove_unused(used, log.clock.wall() - UNUSED_BLOB_S)

    def write(connection: sqlite3.Connection) -> int:
        connection.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
        return connection.execute("PRAGMA freelist_count").fetchone()[0]

    free_before = -1
    # A file that version 1 made can't give pages back; the free ones are used again.
    while (free := log.write_now(write)) and free != free_before:
        free_before = free
    # All that was removed stands in SQLite's log now, which else keeps its size.
    log.read(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
