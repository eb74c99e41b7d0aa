"""The cache on the disk: diskcache for the results, our own rules for everything else.

Reads run on the event loop and never wait for a lock: a locked, broken or missing store is a miss, and is counted.
Everything that writes runs in one thread: results, leases, generations, expiry, culling. diskcache is imported when
the first `DiskCache` opens its folder.

Always true: no tool ever sees an exception of the store; what can't be trusted (a malformed database, settings that
aren't ours, a link in place of the file) is renamed aside and begun anew.
"""

import asyncio
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import randbits, token_hex
from threading import RLock
from typing import TypeVar

from flowkit.cache.counters import Counters
from flowkit.cache.entries import (
    MAX_ERROR_TTL_S,
    CacheStats,
    Hit,
    HitError,
    Label,
    Lease,
    ShownEntry,
    ToolStats,
    decode_entry,
    encode_entry,
    read_boot,
)
from flowkit.cache.flights import Flights
from flowkit.cache.inventory import list_items, read_entry, sum_by_tool, touches
from flowkit.cache.marks import MAX_LEASE_S
from flowkit.cache.opening import Store, default_directory, is_malformed, open_store
from flowkit.clock import Clock, SystemClock
from flowkit.codec import JSON, dumps
from flowkit.stores.folders import make_private_folder, refuse_network
from flowkit.stores.thread import Job, StoreThread

T = TypeVar("T")

SIZE_LIMIT_BYTES = 2**30
"""How large the folder may grow, about; the oldest results go first."""
VALUE_LIMIT_BYTES = 2**20
"""Larger results aren't cached."""
LEASE_S = 5.0
"""How long a killed holder keeps others waiting; a living one renews its lease."""
WAIT_S = 60.0
"""How long to wait for another process before computing the same thing here."""
POLL_S = 0.005
MAX_POLL_S = 0.03
"""How often a waiter looks whether the other process is done; there is nothing to wait on between processes."""
REOPEN_S = 30.0
"""How long after a store that couldn't be opened the next try."""
TIDY_WRITES = 200
"""Expired results and those above the size limit are dropped after so many writes."""
CLEAN_UP_S = 60.0
"""diskcache drops a row so much later than our own clock says, and only to free its space."""

logger = logging.getLogger("flowkit.cache")


class DiskCache:
    """A cache in a folder of its own, shared by every process that opens it.

    `directory` is made with mode 0700; one that belongs to somebody else, that others can write into, or that lies
    on a network disk (unless `allow_network`) is refused with `ConfigurationError`.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        size_limit: int = SIZE_LIMIT_BYTES,
        value_limit: int = VALUE_LIMIT_BYTES,
        lease_s: float = LEASE_S,
        allow_network: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.flights = Flights()
        self._path = (default_directory() if directory is None else Path(directory).expanduser()).absolute()
        self._size_limit = size_limit
        self._value_limit = value_limit
        self._lease_s = min(lease_s, MAX_LEASE_S)
        self._clock = SystemClock() if clock is None else clock
        self._store: Store | None = None
        self._opening = RLock()  # what fails to open may have to be moved aside
        self._reopen_at = 0.0
        self._held: dict[str, str] = {}
        self._entries: deque[_Entry] = deque()
        self._pid = os.getpid()
        self._counters = Counters()
        self._failed_bumps = 0
        self._untidy = 0
        self._has_warned = False
        self._thread = StoreThread(
            "flowkit-cache", self._handle, tick=self._tick, tick_s=self._lease_s / 3, leave=self._leave
        )
        try:
            make_private_folder(self._path)
        except OSError as error:
            self._trouble(error)
        if not allow_network:
            refuse_network(self._path)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    def get(self, key: str, *, tool: str = "") -> Hit | HitError | None:
        """The result under this key, if it is fresh; never waits. Hits and misses are counted under `tool`."""
        found = self._look_up(key)
        self._counters.count(tool, is_hit=found is not None)
        return found

    async def set(
        self,
        key: str,
        value: JSON,
        ttl_s: float,
        *,
        tool: str,
        user: str | None = None,
        resources: Sequence[str] = (),
    ) -> None:
        """Store a result for `ttl_s` seconds and release the key's lease; what is too large or not JSON is counted."""
        try:
            body = dumps(value)
        except (ValueError, TypeError, RecursionError):
            self._counters.not_json += 1
            return
        await self._store_entry(key, body, ttl_s, Label(tool, user, tuple(resources)), is_error=False)

    async def set_error(
        self,
        key: str,
        error: str,
        ttl_s: float = MAX_ERROR_TTL_S,
        *,
        tool: str,
        user: str | None = None,
        resources: Sequence[str] = (),
    ) -> None:
        """Remember that the tool said this, at most 30 s; only for errors that it declares (`cache_errors`)."""
        label = Label(tool, user, tuple(resources))
        await self._store_entry(key, dumps(error), min(ttl_s, MAX_ERROR_TTL_S), label, is_error=True)

    def generation(self, resource: str) -> int:
        """The number to put into the key of a read on this resource; another one after every write, and every boot.

        A machine that loses its power may forget which reads a write has ended, so none of them outlives the boot.
        """
        store = self._ensure()
        if store is None:
            return 0
        try:
            number = read_boot(self._clock)[0] + store.marks.read_generation(resource)
        except sqlite3.Error as error:
            self._trouble(error)
            return randbits(62)  # nobody else has it, so nothing stale is found
        return hash((number, self._failed_bumps, id(self))) if self._failed_bumps else number

    async def bump(self, resources: Sequence[str]) -> None:
        """End the cached reads on these resources, in every process."""
        if resources and not await self._write(lambda store: store.marks.bump(resources) or True, False):
            # Others can't be told, but here nothing that was stored before may be found again.
            self._failed_bumps += 1

    async def lease(self, key: str, *, tool: str = "", wait_s: float = WAIT_S) -> Lease | Hit | HitError:
        """The right to compute this key, or the result of another process that was computing it.

        Waits while another process holds the lease: until its result is there, it gives up or dies, or `wait_s` are
        over. A store in trouble lets everybody compute.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        owner = token_hex(8)
        poll_s = POLL_S
        while not await self._write(lambda store: self._take_lease(store, key, owner), True):
            while self._is_leased(key):
                if loop.time() >= deadline:
                    return Lease(key)
                await asyncio.sleep(poll_s)
                poll_s = min(poll_s * 1.5, MAX_POLL_S)
                if (found := self._look_up(key)) is not None:
                    self._counters.recount(tool)
                    return found
        lease = Lease(key, owner, self._release_lease)
        # The holder before us may have stored its result between the caller's look and our lease.
        if (found := self._look_up(key)) is not None:
            await lease.release()
            self._counters.recount(tool)
            return found
        return lease

    def get_stats(self) -> CacheStats:
        """What is stored, and the hits and misses of all processes; errors and refusals are this process's."""
        store = self._ensure()
        tools: dict[str, ToolStats] = {}
        if store is not None:
            try:
                counts = self._counters.add_to(store.marks.read_counts())
                tools = sum_by_tool(self._database, self._clock, counts)
            except sqlite3.Error as error:
                self._trouble(error)
        return CacheStats(
            tools=tools,
            hits=sum(stats.hits for stats in tools.values()),
            misses=sum(stats.misses for stats in tools.values()),
            errors=self._counters.errors,
            too_large=self._counters.too_large,
            not_json=self._counters.not_json,
            entries=sum(stats.entries for stats in tools.values()),
            size_bytes=sum(stats.size_bytes for stats in tools.values()),
        )

    async def clear(self, *, tool: str | None = None, resource: str | None = None, user: str | None = None) -> int:
        """Drop the entries that fit all that is given, every entry when nothing is; returns how many."""
        return await self._write(lambda store: self._clear(store, tool, resource, user), 0)

    def show(self, key: str) -> ShownEntry | None:
        """One entry in full; the beginning of its key is enough where only one begins so."""
        if self._ensure() is None:
            return None
        try:
            return read_entry(self._database, key, self._clock)
        except sqlite3.Error as error:
            self._trouble(error)
            return None

    async def close(self) -> None:
        """Finish writing and let go of the files; using the cache again opens it again."""
        if self._store is not None:
            await self._thread.submit(self._finish)
        self._thread.close()
        store, self._store = self._store, None
        if store is not None:
            store.close()

    # The reading side: any thread, mostly the loop's.

    @property
    def _database(self) -> Path:
        return self._path / "cache.db"

    def _look_up(self, key: str) -> Hit | HitError | None:
        store = self._store or self._ensure()
        if store is None:
            return None
        try:
            data = store.reader.get(key)
        except (sqlite3.Error, OSError) as error:
            self._trouble(error)
            return None
        return None if data is None else decode_entry(data, self._clock)

    def _is_leased(self, key: str) -> bool:
        store = self._ensure()
        try:
            return store is not None and store.marks.is_leased(key)
        except sqlite3.Error as error:
            self._trouble(error)
            return False

    def _ensure(self) -> "Store | None":
        """The open store; None while it can't be opened."""
        if self._store is not None or self._clock.monotonic() < self._reopen_at:
            return self._store
        with self._opening:
            if self._store is None:
                try:
                    self._store = open_store(self._path, self._size_limit, self._clock)
                except (sqlite3.Error, OSError) as error:
                    self._reopen_at = self._clock.monotonic() + REOPEN_S
                    self._trouble(error)
            return self._store

    def _trouble(self, error: Exception) -> None:
        """Count it, say it once, and begin anew where the database can't be read any more."""
        self._counters.errors += 1
        if not self._has_warned:
            self._has_warned = True
            logger.warning("the cache in %s is in trouble and answers with misses: %s", self._path, error)
        if is_malformed(error):
            with self._opening:
                # The connections of other threads end with their threads, or here by the garbage collector.
                store, self._store = self._store, None
                if store is not None:
                    store.close()
                    store.move_aside()

    # The writing side: the store's thread only.

    async def _write(self, operation: Callable[[Store], T], otherwise: T) -> T:
        """Run `operation` in the thread; `otherwise` when the store can't."""
        if self._ensure() is None:
            return otherwise
        return await self._thread.submit(lambda: self._guard(operation, otherwise))

    def _guard(self, operation: Callable[[Store], T], otherwise: T) -> T:
        store = self._ensure()
        if store is None:
            return otherwise
        try:
            return operation(store)
        # TypeError and ValueError: diskcache stumbles over rows that somebody else wrote.
        except (sqlite3.Error, OSError, store.busy, TypeError, ValueError) as error:
            self._trouble(error)
            return otherwise

    def _handle(self, batch: Sequence[Job]) -> None:
        for job in batch:
            job.run()
            job.settle()

    def _tick(self) -> None:
        self._guard(self._renew, None)
        self._guard(self._flush_counters, None)

    def _finish(self) -> None:
        self._guard(self._flush_counters, None)
        if self._untidy:
            self._guard(self._tidy, None)

    def _leave(self) -> None:
        if self._store is not None:
            self._finish()
            self._store.close()

    async def _store_entry(self, key: str, body: bytes, ttl_s: float, label: Label, *, is_error: bool) -> None:
        if len(body) > self._value_limit:
            self._counters.too_large += 1
            return
        if self._ensure() is None:
            return
        data = encode_entry(body, ttl_s, self._clock, is_error=is_error)
        self._entries.append(_Entry(key, data, ttl_s + CLEAN_UP_S, label.to_text()))
        await self._write(self._put_entries, None)

    def _put_entries(self, store: Store) -> None:
        """Write all entries that wait, in one transaction; those who ask for it later find theirs written."""
        entries: list[_Entry] = []
        while self._entries:
            entries.append(self._entries.popleft())
        if not entries:
            return
        with store.writer.transact():
            for entry in entries:
                store.writer.set(entry.key, entry.data, expire=entry.expire_s, tag=entry.tag)
                self._untidy += max(1, len(entry.data) * TIDY_WRITES * 20 // self._size_limit)
        if done := {entry.key: self._held.pop(entry.key) for entry in entries if entry.key in self._held}:
            store.marks.release_leases(done)
        if self._untidy >= TIDY_WRITES:
            self._tidy(store)

    def _tidy(self, store: Store) -> None:
        self._untidy = 0
        store.writer.cull()
        store.marks.forget_leases()

    def _take_lease(self, store: Store, key: str, owner: str) -> bool:
        is_ours = store.marks.take_lease(key, owner, self._lease_s)
        if is_ours:
            self._held[key] = owner
        return is_ours

    async def _release_lease(self, lease: Lease) -> None:
        if self._held.get(lease.key) == lease.owner:
            await self._write(lambda store: self._drop_lease(store, lease), None)

    def _drop_lease(self, store: Store, lease: Lease) -> None:
        if self._held.get(lease.key) == lease.owner:
            del self._held[lease.key]
        store.marks.release_leases({lease.key: lease.owner})

    def _renew(self, store: Store) -> None:
        if self._pid != os.getpid():
            # Forked: what the parent holds is the parent's.
            self._pid = os.getpid()
            self._held.clear()
        if self._held:
            store.marks.renew_leases(self._held, self._lease_s)

    def _flush_counters(self, store: Store) -> None:
        if counts := self._counters.take():
            store.marks.add_counts(counts)

    def _clear(self, store: Store, tool: str | None, resource: str | None, user: str | None) -> int:
        if tool is None and resource is None and user is None:
            return store.writer.clear()
        keys = [
            item.key
            for item in list_items(self._database)
            if (tool is None or item.label.tool == tool)
            and (user is None or item.label.user == user)
            and (resource is None or touches(item.label, resource))
        ]
        return sum(store.writer.delete(key) for key in keys)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry on its way to the disk."""

    key: str
    data: bytes
    expire_s: float
    tag: str
