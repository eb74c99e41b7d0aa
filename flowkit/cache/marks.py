"""Generations, leases and counters: the small tables beside the results, in the same database file.

One file, so that whatever happens to the results (cleared, broken, moved aside) happens to what guards them. All of
it is by the boot clock where there is one, so a wall clock that jumps neither frees a lease nor holds it.

A generation grows with every write that overlaps with its resource (`flowkit.resource_names`) and is part of the key of
every read of it. A row `order:\\0` counts writes on that family, which invalidate the reads of all its members;
`order:*` counts writes on any member, which invalidate the reads of the family. The family of all names is the floor:
its row invalidates every read of any resource. It starts at a random number, so that no two databases of a folder ever
share a generation, and replaces all rows when there are too many.
"""

import os
import sqlite3
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from secrets import randbits
from threading import local
from typing import cast

from flowkit.clock import Clock
from flowkit.resource_names import find_family, list_edges

MAX_GENERATIONS = 100_000
"""The limit on the number of resources with a generation of their own."""
MAX_LEASE_S = 60.0
"""The longest lease; one that expires later was written by a clock that has jumped."""

_TABLES = """
CREATE TABLE IF NOT EXISTS flowkit_generation (resource TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS flowkit_lease (key TEXT PRIMARY KEY, owner TEXT, boot TEXT, until REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS flowkit_counter (tool TEXT PRIMARY KEY, hits INTEGER, misses INTEGER) WITHOUT ROWID;
"""

_IN = "\0"
"""The suffix of a family's row for writes on all of it."""
_FLOOR = _IN


class Marks:
    """The tables of one database; reads from any thread without waiting for a lock, writes from the writer's."""

    def __init__(self, database: Path, clock: Clock, *, busy_timeout_s: float, opens_within_s: float) -> None:
        self._database = database
        self._clock = clock
        self._busy_timeout_s = busy_timeout_s
        self._local = local()
        connection = self._connect(opens_within_s)
        try:
            connection.executescript(_TABLES)
            # Looked for first: to write takes the lock, which another process may hold for long.
            if connection.execute("SELECT 1 FROM flowkit_generation WHERE resource = ?", (_FLOOR,)).fetchone() is None:
                connection.execute("INSERT OR IGNORE INTO flowkit_generation VALUES (?, ?)", (_FLOOR, randbits(48)))
        finally:
            connection.close()

    def read_generation(self, resource: str) -> int:
        """Read the number of the resource's last write; it only grows."""
        rows = rows_of_a_read(resource)
        marks = ", ".join("?" * len(rows))
        row = self._reader.execute(
            f"SELECT MAX(number) FROM flowkit_generation WHERE resource IN ({marks})", rows
        ).fetchone()
        return row[0] or 0

    def bump(self, resources: Iterable[str]) -> None:
        """Make every cached read of these resources unreachable."""
        names = {name for resource in resources for name in rows_of_a_write(resource)}
        with self._transaction() as writer:
            last, count = writer.execute("SELECT MAX(number), COUNT(*) FROM flowkit_generation").fetchone()
            if count + len(names) > MAX_GENERATIONS:
                writer.execute("DELETE FROM flowkit_generation")
                names.add(_FLOOR)
            writer.executemany(
                "INSERT OR REPLACE INTO flowkit_generation VALUES (?, ?)", [(name, (last or 0) + 1) for name in names]
            )

    def take_lease(self, key: str, owner: str, lease_s: float) -> bool:
        """Take the lease; return whether it is ours now. One that ran out, or is of another boot, is free."""
        boot, now = self._now()
        found = self._writer.execute(
            "INSERT INTO flowkit_lease VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
            " SET owner = excluded.owner, boot = excluded.boot, until = excluded.until"
            " WHERE until <= ? OR boot <> excluded.boot OR until > ?",
            (key, owner, boot, now + lease_s, now, now + MAX_LEASE_S),
        )
        return found.rowcount == 1

    def renew_leases(self, owners: Mapping[str, str], lease_s: float) -> None:
        """Hold these leases for another `lease_s`; `owners` by key."""
        boot, now = self._now()
        self._writer.executemany(
            "UPDATE flowkit_lease SET until = ? WHERE key = ? AND owner = ? AND boot = ?",
            [(now + lease_s, key, owner, boot) for key, owner in owners.items()],
        )

    def release_leases(self, owners: Mapping[str, str]) -> None:
        """Release these where they are still ours; `owners` by key."""
        with self._transaction() as writer:
            writer.executemany("DELETE FROM flowkit_lease WHERE key = ? AND owner = ?", owners.items())

    def is_leased(self, key: str) -> bool:
        """Return whether this key is leased now."""
        boot, now = self._now()
        row = self._reader.execute(
            "SELECT 1 FROM flowkit_lease WHERE key = ? AND boot = ? AND until > ?", (key, boot, now)
        ).fetchone()
        return row is not None

    def add_counts(self, counts: Mapping[str, Sequence[int]]) -> None:
        """Add hits and misses, by tool."""
        self._writer.executemany(
            "INSERT INTO flowkit_counter VALUES (?, ?, ?) ON CONFLICT (tool) DO UPDATE"
            " SET hits = hits + excluded.hits, misses = misses + excluded.misses",
            [(tool, hits, misses) for tool, (hits, misses) in counts.items()],
        )

    def read_counts(self) -> dict[str, tuple[int, int]]:
        """Read the hits and misses of all processes so far, by tool."""
        return {tool: (hits, misses) for tool, hits, misses in self._reader.execute("SELECT * FROM flowkit_counter")}

    def forget_leases(self) -> None:
        """Drop the leases that ran out."""
        boot, now = self._now()
        self._writer.execute("DELETE FROM flowkit_lease WHERE until <= ? OR boot <> ?", (now, boot))

    def close(self) -> None:
        """Close this thread's connections."""
        for connection in vars(self._local).pop("connections", {}).values():
            connection.close()

    @property
    def _reader(self) -> sqlite3.Connection:
        return self._connection(0.0)

    @property
    def _writer(self) -> sqlite3.Connection:
        return self._connection(self._busy_timeout_s)

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            yield writer
        except BaseException:
            # After any error: an open transaction would keep every process from writing.
            writer.execute("ROLLBACK")
            raise
        writer.execute("COMMIT")

    def _connection(self, busy_timeout_s: float) -> sqlite3.Connection:
        """Return this thread's connection; a forked process must not use its parent's."""
        place = (os.getpid(), busy_timeout_s)
        connections = cast(
            "dict[tuple[int, float], sqlite3.Connection]", vars(self._local).setdefault("connections", {})
        )
        if place not in connections:
            connections[place] = self._connect(busy_timeout_s)
        return connections[place]

    def _connect(self, busy_timeout_s: float) -> sqlite3.Connection:
        connection = sqlite3.connect(self._database, timeout=busy_timeout_s, isolation_level=None)
        # Anyone who can write the file can add triggers and views; they must not call unsafe functions.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _now(self) -> tuple[str, float]:
        return self._clock.boot() or ("", self._clock.wall())


@lru_cache(maxsize=10_000)
def rows_of_a_read(resource: str) -> tuple[str, ...]:
    """List the rows of a read's generation: for writes on the resource, on its members, and on enclosing families.

    >>> rows_of_a_read("order:ORD"), rows_of_a_read("order:*")
    (('order:ORD', '\\x00', 'order:\\x00'), ('order:*', '\\x00', 'order:\\x00'))
    """
    family = find_family(resource)
    own = resource if family is None else f"{family}*"
    return (own, *(edge + _IN for edge in list_edges(resource if family is None else family)))


def rows_of_a_write(resource: str) -> tuple[str, ...]:
    """List the rows that a write raises: its own, and one for each family that it lies in.

    >>> rows_of_a_write("order:ORD"), rows_of_a_write("order:*")
    (('order:ORD', '*', 'order:*'), ('order:\\x00', '*', 'order:*'))
    """
    family = find_family(resource)
    own = resource if family is None else family + _IN
    return (own, *(f"{edge}*" for edge in list_edges(resource if family is None else family)))
