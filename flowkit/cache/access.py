"""The way to the cache's database: opened when it is first needed, and begun anew when it can't be read any more.

No error of the store gets past here: it is counted, said once, and what was asked for is a miss.
"""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import TypeVar

from flowkit.cache.counters import Counters
from flowkit.cache.opening import Store, is_malformed, open_store
from flowkit.clock import Clock

T = TypeVar("T")

REOPEN_S = 30.0
"""How long after a store that couldn't be opened the next try."""

logger = logging.getLogger("flowkit.cache")


class Access:
    """The open store, or none; `store` is what is open now, `ensure` opens it."""

    def __init__(self, path: Path, size_limit: int, clock: Clock, counters: Counters) -> None:
        self.store: Store | None = None
        self._database = path / "cache.db"
        self._clock = clock
        self._size_limit = size_limit
        self._counters = counters
        self._opening = RLock()  # what fails to open may have to be moved aside
        self._reopen_at = 0.0
        self._has_warned = False

    def ensure(self) -> Store | None:
        """The open store; None while it can't be opened."""
        if self.store is not None or self._clock.monotonic() < self._reopen_at:
            return self.store
        with self._opening:
            if self.store is None:
                try:
                    self.store = open_store(self._database.parent, self._size_limit, self._clock)
                except (sqlite3.Error, OSError) as error:
                    self._reopen_at = self._clock.monotonic() + REOPEN_S
                    self.note_trouble(error)
            return self.store

    def read(self, operation: Callable[[Store], T], otherwise: T) -> T:
        """Run `operation`, which never waits for a lock; `otherwise` when the store can't."""
        store = self.store or self.ensure()
        if store is None:
            return otherwise
        try:
            return operation(store)
        except (sqlite3.Error, OSError) as error:
            self.note_trouble(error)
            return otherwise

    def write(self, operation: Callable[[Store], T], otherwise: T) -> T:
        """The same for what writes; in the writer's thread only."""
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
        """Count it, say it once, and begin anew where the database can't be read any more."""
        self._counters.errors += 1
        if not self._has_warned:
            self._has_warned = True
            way_out = "; FLOWKIT_CACHE_DIR names another folder" if _is_refused(error) else ""
            text = "the cache in %s is in trouble and answers with misses: %s%s"
            logger.warning(text, self._database.parent, error, way_out)
        if is_malformed(error):
            with self._opening:
                # The connections of other threads end with their threads, or here by the garbage collector.
                store, self.store = self.store, None
                if store is not None:
                    store.close()
                    store.move_aside()

    def close(self) -> None:
        """Close this thread's connections; the next `ensure` opens the store again."""
        store, self.store = self.store, None
        if store is not None:
            store.close()


def _is_refused(error: Exception) -> bool:
    """Whether the folder can't be made or written, which another folder mends."""
    return isinstance(error, OSError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_FULL,
    )
