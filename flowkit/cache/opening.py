"""Open the cache's database; one that can't be trusted or read is renamed and replaced by a new one.

diskcache is imported here, when the first database is opened.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from os import stat
from pathlib import Path

from flowkit.cache.entries import ResultStore
from flowkit.cache.marks import Marks
from flowkit.clock import Clock
from flowkit.stores.folders import hold_folder, make_private_folder, move_aside

BUSY_TIMEOUT_S = 5.0
"""How long the writer waits for another process's lock."""

HOLD_TIMEOUT_S = 2.0
"""How long opening waits for a process that opens or replaces the same database."""
OPEN_TIMEOUT_S = 2.0
"""How long opening waits for a process that writes into the database."""
CONNECT_TIMEOUT_S = 0.3
"""How long each of the three connections waits after that, for a process that began to write in between."""
OPEN_WITHIN_S = 5.0
"""The limit on all of that together."""

logger = logging.getLogger("flowkit.cache")


@dataclass(frozen=True, slots=True)
class Store:
    """The open database: results to read without waiting and to write with it, and the tables beside them."""

    reader: ResultStore
    writer: ResultStore
    marks: Marks
    busy: type[Exception]
    database: Path
    anchor: sqlite3.Connection
    """Open as long as the store, so that SQLite keeps the log and its index under their names."""
    files: Mapping[str, tuple[int, int]]
    """The device and inode of each file that was opened, by its path."""

    def is_current(self) -> bool:
        """Return whether the paths still name the files that were opened; anybody may remove or replace them."""
        try:
            for place, known in self.files.items():
                found = stat(place)
                if (found.st_ino, found.st_dev) != known:
                    return False
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close this thread's connections."""
        self.reader.close()
        self.writer.close()
        self.marks.close()

    def move_aside(self) -> None:
        """Rename the database away, unless another process did so already."""
        place = str(self.database)
        with suppress(OSError), hold_folder(self.database.parent, timeout_s=HOLD_TIMEOUT_S):
            if _identify(place) == self.files[place]:
                move_aside(self.database)


def default_directory() -> Path:
    """`FLOWKIT_CACHE_DIR`, or the user's cache folder for flowkit."""
    import platformdirs

    named = os.environ.get("FLOWKIT_CACHE_DIR")
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_cache_dir("flowkit")) / "results"


def is_malformed(error: Exception) -> bool:
    """Return whether SQLite reports the file as broken, which neither waiting nor a retry can mend."""
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", None) in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def open_store(directory: Path, size_limit: int, clock: Clock, *, waits: Callable[[], None]) -> Store:
    """Open the database in this folder; one that can't be trusted or read is moved aside first.

    Calls `waits` before it waits for another process, which it does for a few seconds at most.
    """
    from flowkit.cache.safe_disk import has_foreign_settings

    make_private_folder(directory)
    database = directory / "cache.db"
    with hold_folder(directory, timeout_s=HOLD_TIMEOUT_S, waits=waits):
        try:
            if _is_linked(database) or (database.exists() and has_foreign_settings(database)):
                logger.warning("%s was not written by flowkit; renamed aside", database)
                move_aside(database)
            elif not database.exists():
                move_aside(database)  # SQLite would apply the log of a removed database to the new one
            _wait_for_lock(database, waits)
            return _connect(database, size_limit, clock)
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
            logger.warning("%s can't be read (%s); renamed aside", database, error)
            move_aside(database)
            return _connect(database, size_limit, clock)


def _connect(database: Path, size_limit: int, clock: Clock) -> Store:
    from flowkit.cache.safe_disk import Busy, open_result_store

    opens_within_s = CONNECT_TIMEOUT_S
    writer = open_result_store(
        database.parent, timeout_s=BUSY_TIMEOUT_S, size_limit=size_limit, opens_within_s=opens_within_s
    )
    # Opened here, used in the writer's thread: diskcache has a connection for each thread.
    writer.close()
    reader = open_result_store(database.parent, timeout_s=0, size_limit=size_limit)
    marks = Marks(database, clock, busy_timeout_s=BUSY_TIMEOUT_S, opens_within_s=opens_within_s)
    # Used by no thread after this one; it is closed by whichever lets go of the store last.
    anchor = sqlite3.connect(database, timeout=opens_within_s, isolation_level=None, check_same_thread=False)
    anchor.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # opens the log
    places = [f"{database}{ending}" for ending in ("", "-wal", "-shm")]
    return Store(reader, writer, marks, Busy, database, anchor, {place: _identify(place) for place in places})


def _wait_for_lock(database: Path, waits: Callable[[], None]) -> None:
    """Raise `sqlite3.OperationalError` when another process doesn't release the database.

    diskcache tries for a minute.
    """
    for timeout_s in (0.0, OPEN_TIMEOUT_S):
        with closing(sqlite3.connect(database, timeout=timeout_s, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                if timeout_s or error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                waits()
            else:
                return


def _identify(place: str) -> tuple[int, int]:
    found = stat(place)
    return found.st_ino, found.st_dev


def _is_linked(database: Path) -> bool:
    return any(database.with_name(database.name + ending).is_symlink() for ending in ("", "-wal", "-shm"))
