"""Keep a journal small: measure its size, and remove runs that are no longer needed.

Runs are removed in steps of bounded size, each in its own transaction, so that no driver waits long.

Large results lie in a folder beside it, each under the SHA-256 of its content.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

from flowkit.errors import RunBusy
from flowkit.journal.driver_lease import RunLease
from flowkit.journal.records import JournalStats
from flowkit.journal.sqlite.file import Transactions
from flowkit.journal.sqlite.holding import Holding
from flowkit.journal.sqlite.schema import OF_A_RUN
from flowkit.journal.sqlite.takeover import find_run
from flowkit.journal.sqlite.writing import delete_kept
from flowkit.journal.store import OVER, RunPlace
from flowkit.stores.folders import make_private_folder


class BlobFolder:
    """Write once, read many; equal content is stored once, and content is checked against its name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, data: bytes) -> str:
        """Store `data` so that it survives a power loss; returns its name."""
        name = sha256(data).hexdigest()
        place = self._place(name)
        with suppress(FileNotFoundError):
            os.utime(place)  # as good as new: `remove_unused` leaves it alone
            return name
        make_private_folder(self._path)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        # Renamed when it is complete, so a name never refers to partial content.
        draft = place.with_name(f"{name}.{token_hex(4)}.part")
        handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(place)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise
        _sync_folder(place.parent)
        return name

    def get(self, name: str) -> bytes | None:
        """Return the content under this name; None when it is missing or doesn't match its hash."""
        try:
            data = self._place(name).read_bytes()
        except OSError:
            return None
        return data if sha256(data).hexdigest() == name else None

    @property
    def size_bytes(self) -> int:
        """The size of all of it."""
        total = 0
        for place in self._path.glob("??/*"):
            with suppress(FileNotFoundError):
                total += place.stat().st_size
        return total

    def remove_unused(self, used: Collection[str], before: float) -> int:
        """Remove unused content and drafts that were written before that time; return how many.

        A result is stored before the row that names it, so a new one may be about to be used.
        """
        count = 0
        for place in self._path.glob("??/*"):
            with suppress(FileNotFoundError):  # another process tidies too
                if place.name not in used and place.stat().st_mtime < before:
                    place.unlink()
                    count += 1
        return count

    def _place(self, name: str) -> Path:
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise ValueError(f"a blob is called {name!r}, expected a SHA-256 in hexadecimal")
        return self._path / name[:2] / name


def _sync_folder(path: Path) -> None:
    """Make a rename in it survive a power loss, where folders can be opened."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


UNUSED_BLOB_S = 3600.0
"""The minimum age at which a result that no run names is removed."""
RUNS_AT_ONCE = 100
PAGES_AT_ONCE = 2000
"""How much one transaction removes and returns to the file system."""


class SQLiteUpkeep:
    """Counts and removes the runs of one file."""

    def __init__(self, transactions: Transactions, holding: Holding, blobs: BlobFolder) -> None:
        self._transactions = transactions
        self._path = transactions.file.path
        self._holding = holding
        self._blobs = blobs

    def stats(self) -> JournalStats:
        """Return the size of the journal."""

        def read(connection: sqlite3.Connection) -> tuple[Counter[str], float | None]:
            counts = Counter(
                dict(connection.execute("SELECT status, COUNT(*) FROM run WHERE parent IS NULL GROUP BY status"))
            )
            running = connection.execute(
                "SELECT id, holder, boot, until, until_wall FROM run WHERE status = 'running' AND parent IS NULL"
            )
            for number, *lease in running:
                if not self._holding.is_held(number, RunLease(*lease)):
                    counts["running"] -= 1
                    counts["stopped"] += 1
            (oldest,) = connection.execute("SELECT MIN(began) FROM run").fetchone()
            return counts, oldest

        counts, oldest = self._transactions.read(read)
        size_bytes = 0
        for ending in ("", "-wal"):
            with suppress(FileNotFoundError):
                size_bytes += self._path.with_name(self._path.name + ending).stat().st_size
        return JournalStats(dict(sorted((+counts).items())), oldest, size_bytes, self._blobs.size_bytes)

    def delete(self, place: RunPlace) -> bool:
        """Remove a run; False when there is none, `RunBusy` while it is driven."""

        def write(connection: sqlite3.Connection) -> bool:
            number = find_run(connection, place)
            if number is None:
                return False
            lease = connection.execute(
                "SELECT holder, boot, until, until_wall FROM run WHERE id = ?", (number,)
            ).fetchone()
            if self._holding.is_held(number, RunLease(*lease)):
                raise RunBusy(f"run {place.run_id!r} is driven by another process")
            _remove(connection, [number])
            return True

        return self._transactions.write(write)

    def prune(self, older_than_s: float, *, unfinished: bool) -> Iterator[int]:
        """Remove the runs unchanged for that long; unfinished ones only with `unfinished`."""
        before = self._holding.clock.wall() - older_than_s
        # The runs that a run's calls made go with it.
        where = "changed < ? AND parent IS NULL" + ("" if unfinished else f" AND status IN {OVER}")
        old: list[tuple[Any, ...]] = self._transactions.read(
            lambda connection: connection.execute(
                f"SELECT id, holder, boot, until, until_wall FROM run WHERE {where}", (before,)
            ).fetchall()
        )
        free = [number for number, *lease in old if not self._holding.is_held(number, RunLease(*lease))]
        while free:
            some, free = free[:RUNS_AT_ONCE], free[RUNS_AT_ONCE:]

            def write(connection: sqlite3.Connection, some: Sequence[int] = some) -> int:
                """Remove these, except those driven again meanwhile; return how many."""
                marks = ", ".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT id, holder, boot, until, until_wall FROM run WHERE id IN ({marks}) AND {where}",
                    (*some, before),
                ).fetchall()
                gone = [number for number, *lease in rows if not self._holding.is_held(number, RunLease(*lease))]
                _remove(connection, gone)
                return len(gone)

            yield self._transactions.write(write)

    def prune_events(self, older_than_s: float) -> Iterator[int]:
        """Remove the events of ended runs that began that long ago."""
        before = self._holding.clock.wall() - older_than_s
        old: list[tuple[int]] = self._transactions.read(
            lambda connection: connection.execute(
                f"SELECT id FROM run WHERE began < ? AND status IN {OVER}", (before,)
            ).fetchall()
        )
        runs = [number for (number,) in old]
        while runs:
            some, runs = runs[:RUNS_AT_ONCE], runs[RUNS_AT_ONCE:]

            def write(connection: sqlite3.Connection, some: Sequence[int] = some) -> int:
                marks = ", ".join("?" * len(some))
                return connection.execute(f"DELETE FROM event WHERE run IN ({marks})", some).rowcount

            yield self._transactions.write(write)

    def tidy(self) -> Iterator[int]:
        """Remove large results that no run names, and return free pages to the disk."""
        used = self._transactions.read(
            lambda connection: {blob for (blob,) in connection.execute("SELECT blob FROM node WHERE blob IS NOT NULL")}
        )
        self._blobs.remove_unused(used, self._holding.clock.wall() - UNUSED_BLOB_S)

        def write(connection: sqlite3.Connection) -> int:
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            for _ in range(min(free, PAGES_AT_ONCE)):
                # One page per statement: it returns a row without columns per page, and `sqlite3` steps to the first row only.
                connection.execute("PRAGMA incremental_vacuum(1)")
            return connection.execute("PRAGMA freelist_count").fetchone()[0]

        free_before = -1
        # A file created by version 1 can't return pages to the file system; its free pages are reused.
        while (free := self._transactions.write(write, is_durable=False)) and free != free_before:
            free_before = free
            yield 0
        # The removals are all in SQLite's log now, which otherwise keeps its size.
        self._transactions.read(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())


def _remove(connection: sqlite3.Connection, runs: Sequence[int]) -> None:
    """Remove these runs, and those that their calls made."""
    pending = list(runs)
    while pending:
        marks = ", ".join("?" * len(pending))
        delete_kept(connection, pending)
        for table in OF_A_RUN:
            connection.execute(f"DELETE FROM {table} WHERE run IN ({marks})", pending)
        connection.execute(f"DELETE FROM run WHERE id IN ({marks})", pending)
        inner = connection.execute(f"SELECT id FROM run WHERE parent IN ({marks})", pending)
        pending = [number for (number,) in inner]
