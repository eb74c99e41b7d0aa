"""The cache on disk: diskcache stores the results, flowkit's own rules do everything else.

Reads run on the event loop and never wait for a lock: a locked, broken or missing store is a miss, and is counted. One
thread does all writing: results, leases, generations, expiry, culling. diskcache is imported when the first
`DiskCache` opens its folder.

Invariants: no tool ever sees an exception of the store; a database that can't be trusted (malformed, with foreign
settings, or a symbolic link) is renamed and replaced by a new one.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from secrets import randbits, token_hex

from flowkit.cache.access import Access
from flowkit.cache.counters import Counters
from flowkit.cache.entries import (
    MAX_ERROR_TTL_S,
    CacheStats,
    Hit,
    HitError,
    KeyOf,
    Label,
    Lease,
    Look,
    ShownEntry,
    ToolStats,
    decode_entry,
    encode_entry,
    read_boot,
)
from flowkit.cache.flights import Flights
from flowkit.cache.inventory import find_keys, read_entry, sum_by_tool
from flowkit.cache.marks import MAX_LEASE_S
from flowkit.cache.memory import Memory
from flowkit.cache.opening import Store, default_directory
from flowkit.cache.unfinished import Unfinished
from flowkit.cache.writing import NewEntry, Writer
from flowkit.clock import Clock, SystemClock
from flowkit.codec import JSON, dumps
from flowkit.identity import HERE
from flowkit.stores.folders import make_private_folder, refuse_network

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
PATIENCE_S = 0.5
"""How long `get` and `generation` may block an event loop to open the cache, if neither `open` nor `look` was called
before and no other process has to be waited for: some milliseconds, more on a busy machine. Runs use `look`, which never blocks."""
CLEAN_UP_S = 60.0
"""diskcache drops a row so much later than our own clock says, and only to free its space."""


class DiskCache:
    """A cache in a folder of its own, shared by every process that opens it.

    `directory` is made with mode 0700; one that belongs to another user, that others can write into, or that lies on a
    network disk (unless `allow_network`) is refused with `ConfigurationError`.
    """

    is_local = True

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
        self._value_limit = value_limit
        self._clock = SystemClock() if clock is None else clock
        self._counters = Counters()
        self._access = Access(self._path, size_limit, self._clock, self._counters)
        self._unfinished = Unfinished(self._path)
        self._writer = Writer(
            self._access,
            self._counters,
            self._unfinished,
            lease_s=min(lease_s, MAX_LEASE_S),
            size_limit=size_limit,
        )
        self._memory = Memory(self._clock)
        try:
            make_private_folder(self._path)
        except OSError as error:
            self._access.note_trouble(error)
        if not allow_network:
            refuse_network(self._path)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    @property
    def is_ready(self) -> bool:
        """Return whether its database is open, or can't be opened just now."""
        return self._access.store is not None or not self._access.may_open()

    async def look(self, resources: Sequence[str], key_of: KeyOf, *, tool: str) -> Look:
        """Look for a result, once the database is open; where another process keeps it from that, it is a miss."""
        await self._writer.open_soon()
        generations = [self.generation(resource) for resource in resources]
        key = key_of(generations)
        return Look(generations, key, None if key is None else self.get(key, tool=tool))

    def get(self, key: str, *, tool: str = "") -> Hit | HitError | None:
        """Return the result under this key, if it is fresh; never waits. Hits and misses are counted under `tool`."""
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
        """Store a result for `ttl_s` seconds and release the key's lease; one that is too large or not JSON is only counted."""
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
        """Cache the tool's error message, for at most 30 s; only for errors that it declares (`cache_errors`)."""
        label = Label(tool, user, tuple(resources))
        await self._store_entry(key, dumps(error), min(ttl_s, MAX_ERROR_TTL_S), label, is_error=True)

    def generation(self, resource: str) -> int:
        """Return the number to put into the key of a read on this resource; it changes with each write, and each boot.

        After a power loss the invalidations of the last writes may be missing, so no result outlives the boot.
        """

        def read(store: Store) -> int:
            return read_boot(self._clock)[0] + store.marks.read_generation(resource)

        if self._access.look() is None and not self._reach():
            return self._access.stand_in
        # Before the number is read: it grows before the mark of a failed bump is taken away.
        if self._unfinished.is_any():
            self._writer.repair_soon()
            return randbits(62)  # no other process has it, so nothing stale is found
        number = self._access.read(read, None)
        return randbits(62) if number is None else number

    async def bump(self, resources: Sequence[str]) -> None:
        """Invalidate the cached reads of these resources, in every process.

        Where that fails, no process takes a read on any resource from this folder until it has succeeded.
        """
        if resources:
            self._access.stand_in = randbits(62)
            await self._writer.bump(resources)

    async def open(self) -> None:
        """Open the folder's database now, beside the loop; `look` does so otherwise."""
        await self._writer.open()

    async def lease(self, key: str, *, tool: str = "", wait_s: float = WAIT_S) -> Lease | Hit | HitError:
        """Take the lease to compute this key, or the result of another process that was computing it.

        While another process holds the lease, wait until its result is stored, it gives up or dies, or `wait_s` have
        passed. If the store fails, every process computes.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        owner = token_hex(8)
        poll_s = POLL_S
        is_here = key.startswith(HERE)
        while not (self._memory.take_lease(key, owner) if is_here else await self._writer.take_lease(key, owner)):
            while self._is_leased(key):
                if loop.time() >= deadline:
                    return Lease(key)
                await asyncio.sleep(poll_s)
                poll_s = min(poll_s * 1.5, MAX_POLL_S)
                if (found := self._look_up(key)) is not None:
                    self._counters.recount(tool)
                    return found
        lease = Lease(key, owner, self._release)
        # The holder before us may have stored its result between the caller's look and our lease.
        if (found := self._look_up(key)) is not None:
            await lease.release()
            self._counters.recount(tool)
            return found
        return lease

    def _is_leased(self, key: str) -> bool:
        if key.startswith(HERE):
            return self._memory.is_leased(key)
        self._reach()
        return self._access.read(lambda store: store.marks.is_leased(key), False)

    async def _release(self, lease: Lease) -> None:
        if lease.key.startswith(HERE):
            self._memory.release_lease(lease.key, lease.owner)
        else:
            await self._writer.release_lease(lease.key, lease.owner)

    def get_stats(self) -> CacheStats:
        """Return the content, and the hits and misses of all processes; errors and refusals are those of this process."""

        def read(store: Store) -> dict[str, ToolStats]:
            counts = self._counters.add_to(store.marks.read_counts())
            return sum_by_tool(store.database, self._clock, counts)

        self._reach()
        tools = self._memory.add_to(self._access.read(read, {}))
        return CacheStats(
            tools=tools,
            hits=sum(stats.hits for stats in tools.values()),
            misses=sum(stats.misses for stats in tools.values()),
            errors=self._counters.errors,
            too_large=self._counters.too_large,
            not_json=self._counters.not_json,
            entries=sum(stats.entries or 0 for stats in tools.values()),
            size_bytes=sum(stats.size_bytes or 0 for stats in tools.values()),
        )

    async def clear(self, *, tool: str | None = None, resource: str | None = None, user: str | None = None) -> int:
        """Drop the entries that match every given filter, all entries without one; return how many."""

        def drop(store: Store) -> int:
            if tool is None and resource is None and user is None:
                return store.writer.clear()
            keys = find_keys(store.database, tool, resource, user)
            return sum(store.writer.delete(key) for key in keys)

        return await self._writer.write(drop, 0) + self._memory.clear(tool, resource, user)

    def show(self, key: str) -> ShownEntry | None:
        """Return one entry in full; a unique prefix of its key is enough."""
        self._reach()
        return self._access.read(lambda store: read_entry(store.database, key, self._clock), None)

    async def close(self) -> None:
        """Finish writing and release the files; using the cache reopens it."""
        await self._writer.close()
        self._access.close()

    def _reach(self) -> bool:
        """Open the store if it isn't; on a loop, wait a moment for it at most."""
        if self._access.store is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                self._access.ensure()
            else:
                self._writer.open_within(PATIENCE_S)
        return self._access.store is not None

    def _look_up(self, key: str) -> Hit | HitError | None:
        if key.startswith(HERE):
            return self._memory.get(key)
        access = self._access
        if access.store is None:
            self._reach()
        data = access.find(key)
        return None if data is None else decode_entry(data, self._clock)

    async def _store_entry(self, key: str, body: bytes, ttl_s: float, label: Label, *, is_error: bool) -> None:
        if len(body) > self._value_limit:
            self._counters.too_large += 1
            return
        data = encode_entry(body, ttl_s, self._clock, is_error=is_error)
        if key.startswith(HERE):
            self._memory.set(key, label, data)
            return
        await self._writer.put(NewEntry(key, data, ttl_s + CLEAN_UP_S, label.to_text()))
