"""Access to the cache's database: opened on first use, and replaced when it can't be read any more.

Store errors don't leave this module: each is counted, logged once, and treated as a miss. Opening may wait for another
process for some seconds, so on an event loop the writer's thread does it.
"""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from secrets import randbits
from threading import RLock
from typing import TypeVar

from flowkit.cache.counters import Counters
from flowkit.cache.opening import Store, is_malformed, open_store
from flowkit.clock import Clock
from flowkit.stores.thread import Signal

T = TypeVar("T")

REOPEN_S = 30.0
"""How long after a store that couldn't be opened the next try."""

logger = logging.getLogger("flowkit.cache")


class Access:
    """The open store, or none; `store` is the one that is open now, `ensure` opens it."""

    def __init__(self, path: Path, size_limit: int, clock: Clock, counters: Counters) -> None:
        self.store: Store | None = None
        self.stand_in = randbits(62)
        """The generation while there is no store; another one after every opening, so that nothing is found by it."""
        self.settled = Signal()
        """Set when an opening has finished, or has started waiting for another process."""
        self._database = path / "cache.db"
        self._clock = clock
        self._size_limit = size_limit
        self._counters = counters
        self._opening = RLock()  # a database that fails to open may have to be moved aside
        self._reopen_at = 0.0
        self._broken: Store | None = None
        """A store whose database has to be moved aside before the next opening."""
        self._has_warned = False

    def may_open(self) -> bool:
        """Return whether `ensure` would try; not soon after it failed."""
        return self._clock.monotonic() >= self._reopen_at

    def ensure(self) -> Store | None:
        """Open the store of the current file; None while it can't be opened. May wait: not on a loop."""
        if (store := self.look()) is not None:
            return store
        with self._opening:
            if self.store is None and self.may_open():
                try:
                    if self._broken is not None:
                        self._broken.move_aside()
                        self._broken = None
                    self.stand_in = randbits(62)
                    self.store = open_store(
                        self._database.parent, self._size_limit, self._clock, waits=self.settled.set
                    )
                except (sqlite3.Error, OSError) as error:
                    self._reopen_at = self._clock.monotonic() + REOPEN_S
                    self.note_trouble(error)
                finally:
                    self.settled.set()
            return self.store

    def look(self) -> Store | None:
        """Return the open store, unless its file was removed or replaced: then release it. Never waits."""
        store = self.store
        if store is None or store.is_current():
            return store
        # Where the log alone is gone, the file that is left misses what was in it; `move_aside` leaves any other file.
        self._broken = store
        self._let_go(store)
        return None

    def read(self, operation: Callable[[Store], T], otherwise: T) -> T:
        """Run `operation`, which never waits for a lock; `otherwise` when the store can't, or isn't open."""
        store = self.store
        if store is None:
            return otherwise
        try:
            return operation(store)
        except (sqlite3.Error, OSError) as error:
            self.note_trouble(error)
            return otherwise

    def find(self, key: str) -> bytes | None:
        """Find the entry under this key, in the same way; without `read`, whose function would be made for each hit."""
        store = self.store
        if store is None:
            return None
        try:
            return store.reader.get(key)
        except (sqlite3.Error, OSError) as error:
            self.note_trouble(error)
            return None

    def write(self, operation: Callable[[Store], T], otherwise: T) -> T:
        """Run a writing operation in the same way; in the writer's thread only."""
        store = self.ensure()
        if store is None:
            return otherwise
        try:
            return operation(store)
        # TypeError and ValueError: diskcache stumbles over rows that somebody else wrote.
        except (sqlite3.Error, OSError, store.busy, TypeError, ValueError) as error:
            self.note_trouble(error)
            return otherwise

    def note_trouble(self, error: Exception) -> None:
        """Count the error, log it once, and start with a new database if this one is unreadable."""
        self._counters.errors += 1
        if not self._has_warned:
            self._has_warned = True
            way_out = "; FLOWKIT_CACHE_DIR names another folder" if _is_refused(error) else ""
            text = "the cache in %s is in trouble and answers with misses: %s%s"
            logger.warning(text, self._database.parent, error, way_out)
        if is_malformed(error) and (store := self.store) is not None:
            self._broken = store
            self._let_go(store)

    def unlink(self) -> None:
        """Remove the database's files, so that no process finds their content; raises `OSError`."""
        for ending in ("-wal", "-shm", ""):
            self._database.with_name(self._database.name + ending).unlink(missing_ok=True)

    def close(self) -> None:
        """Close this thread's connections; the next `ensure` reopens the store."""
        if (store := self.store) is not None:
            self._let_go(store)

    def _let_go(self, store: Store) -> None:
        # The connections of other threads are closed with their threads, or by the garbage collector.
        if self.store is store:
            self.store = None
        store.close()
        store.anchor.close()


def _is_refused(error: Exception) -> bool:
    """Return whether the folder can't be made or written, which another folder mends."""
    return isinstance(error, OSError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_FULL,
    )
