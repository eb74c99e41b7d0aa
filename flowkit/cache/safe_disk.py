"""A diskcache `Disk` that never unpickles, and never opens or deletes a file that a row names.

diskcache reads a row as its own `mode`, `raw` and `filename` columns say, so anyone who can write the database can
make the stock `Disk` and `JSONDisk` run code or delete files (CVE-2025-69872). `SafeDisk` reads text keys and inline
bytes, and treats the rest as a miss. diskcache prefers the settings in the database to its own defaults, so all of
them are passed explicitly.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from os import getpid
from pathlib import Path
from typing import Any, cast

import diskcache  # pyright: ignore[reportMissingTypeStubs]  # it has none

from flowkit.cache.entries import ResultStore

_MODE_RAW = 1

SETTINGS: dict[str, int | str] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "least-recently-stored",
    "cull_limit": 0,
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2**13,
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 2**26,
    "sqlite_synchronous": 1,
    "disk_min_file_size": 2**62,
    "disk_pickle_protocol": 0,
}
"""Every setting of diskcache but `size_limit`. `cull_limit` is 0: culling belongs to the writer's spare time."""

OWN_SETTINGS = frozenset(("count", "size", "hits", "misses", "size_limit"))
"""The other rows among the settings: diskcache's own counters, and the limit."""

Busy = cast(type[Exception], diskcache.Timeout)
"""Raised when another process held the lock for too long."""


class ForeignRow(OSError):
    """A row that flowkit didn't write. diskcache takes an `OSError` while reading for a miss."""


_Disk = cast(type[Any], diskcache.Disk)  # its types are guessed from its bodies, and too narrow to override
_Cache = cast(type[Any], diskcache.Cache)


class SafeDisk(_Disk):
    """Text keys, values as bytes inside the row, nothing else."""

    def put(self, key: object) -> tuple[str, bool]:
        if type(key) is not str:
            raise TypeError(f"a cache key is {key!r}, expected text")
        return key, True

    def get(self, key: object, raw: object) -> str:
        if type(key) is not str or not raw:
            raise ForeignRow("a key that is not text")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, None, memoryview]:
        if type(value) is not bytes or read:
            raise TypeError(f"a cache value is {type(value).__name__}, expected bytes")
        return 0, _MODE_RAW, None, memoryview(value)

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes:
        if mode != _MODE_RAW or filename is not None or type(value) is not bytes or read:
            raise ForeignRow("a value that is not inline bytes")
        return value

    def filename(self, key: object = None, value: object = None) -> tuple[str, str]:
        raise ForeignRow("values live inside their rows, never in files")

    def remove(self, file_path: object) -> None:
        """Remove nothing: a row that names a file names one that isn't ours. Raising here would stop `expire`."""


_FIND = f"SELECT value FROM Cache WHERE key = ? AND raw = 1 AND mode = {_MODE_RAW} AND filename IS NULL"
"""Without `expire_time`: an entry says itself how long it counts, by a clock that nobody can set."""


class SafeCache(_Cache):
    """diskcache's `Cache` with reads that select the value alone: the rest of a row takes as long as the value."""

    def get(self, key: str) -> bytes | None:
        """Find a value; one that `SafeDisk` wouldn't have written is a miss."""
        local = self._local
        try:
            find = local.find
            if local.pid != getpid():  # a forked process must not use its parent's connection
                find = self._prepare()
        except AttributeError:
            find = self._prepare()
        # All rows, of which there is one: a statement that isn't read to its end keeps the log from being emptied.
        for (value,) in find(_FIND, (key,)).fetchall():
            if type(value) is bytes:
                return value
        return None

    def wait_from_now_on(self, timeout_s: float) -> None:
        """Let the connections that are opened from now on wait this long for a lock."""
        self._timeout = timeout_s

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        with suppress(AttributeError):
            del self._local.find
        _Cache.close(self)

    def _prepare(self) -> Callable[[str, tuple[str]], sqlite3.Cursor]:
        """Keep this thread's cursor: to find its connection, and to make a cursor, takes a fifth of the time of a read."""
        connection = cast(sqlite3.Connection, self._con)  # closes the one that this process has from its parent
        self._local.find = connection.cursor().execute
        return self._local.find


def open_result_store(
    directory: Path, *, timeout_s: float, size_limit: int, opens_within_s: float = 0.0
) -> ResultStore:
    """Open diskcache's `Cache` with a `SafeDisk`; `timeout_s` 0 never waits for a lock."""
    settings: dict[str, Any] = {**SETTINGS, "size_limit": size_limit}
    cache = SafeCache(str(directory), timeout=opens_within_s, disk=SafeDisk, **settings)
    cache.wait_from_now_on(timeout_s)
    return cast(ResultStore, cache)


def has_foreign_settings(database: Path) -> bool:
    """Return whether the database names settings that flowkit doesn't.

    diskcache would set them as attributes of its cache and its disk, and run `sqlite_…` ones as pragmas; the ones
    that we know are overwritten on opening.
    """
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        names = {name for (name,) in connection.execute("SELECT key FROM Settings")}
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return not names <= SETTINGS.keys() | OWN_SETTINGS
