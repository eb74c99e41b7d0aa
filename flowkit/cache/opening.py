"""Opening the cache's database: what can't be trusted or read is renamed aside, and a new one begins.

diskcache is imported here, when the first database is opened.
"""

import logging
import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flowkit.cache.entries import ResultStore
from flowkit.cache.marks import Marks
from flowkit.clock import Clock
from flowkit.stores.folders import hold_folder, make_private_folder, move_aside

BUSY_TIMEOUT_S = 5.0
"""How long the writer waits for another process's lock."""

logger = logging.getLogger("flowkit.cache")


@dataclass(frozen=True, slots=True)
class Store:
    """The open database: results to read without waiting and to write with it, and the tables beside them."""

    reader: ResultStore
    writer: ResultStore
    marks: Marks
    busy: type[Exception]
    database: Path
    inode: int

    def close(self) -> None:
        """Close this thread's connections."""
        self.reader.close()
        self.writer.close()
        self.marks.close()

    def move_aside(self) -> None:
        """Rename the database away, unless another process did so already."""
        with hold_folder(self.database.parent), suppress(OSError):
            if self.database.stat().st_ino == self.inode:
                move_aside(self.database)


def default_directory() -> Path:
    """`FLOWKIT_CACHE_DIR`, or the user's cache folder for flowkit."""
    import platformdirs

    named = os.environ.get("FLOWKIT_CACHE_DIR")
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_cache_dir("flowkit")) / "results"


def is_malformed(error: Exception) -> bool:
    """Whether SQLite says that the file is no good, which neither waiting nor another try can mend."""
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", None) in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def open_store(directory: Path, size_limit: int, clock: Clock) -> Store:
    """Open the database in this folder; one that can't be trusted or read is moved aside first."""
    from flowkit.cache.safe_disk import has_foreign_settings

    make_private_folder(directory)
    database = directory / "cache.db"
    with hold_folder(directory):
        try:
            if _is_linked(database) or (database.exists() and has_foreign_settings(database)):
                logger.warning("%s was not written by flowkit; renamed aside", database)
                move_aside(database)
            return _connect(database, size_limit, clock)
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
            logger.warning("%s can't be read (%s); renamed aside", database, error)
            move_aside(database)
            return _connect(database, size_limit, clock)


def _connect(database: Path, size_limit: int, clock: Clock) -> Store:
    from flowkit.cache.safe_disk import Busy, open_result_store

    writer = open_result_store(database.parent, timeout_s=BUSY_TIMEOUT_S, size_limit=size_limit)
    # Opened here, used in the writer's thread: diskcache has a connection for each thread.
    writer.close()
    reader = open_result_store(database.parent, timeout_s=0, size_limit=size_limit)
    marks = Marks(database, clock, busy_timeout_s=BUSY_TIMEOUT_S)
    return Store(reader, writer, marks, Busy, database, database.stat().st_ino)


def _is_linked(database: Path) -> bool:
    return any(database.with_name(database.name + ending).is_symlink() for ending in ("", "-wal", "-shm"))
