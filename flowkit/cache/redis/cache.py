"""The cache in Redis or Valkey, for several machines, with the rules of the cache on disk.

If nothing was written since the last lookup, a lookup takes one round trip: it requests the tokens of the read's
resources and the result under the key of the last known tokens. If they have changed, a second request uses the new
key.

Invariants: no tool ever sees an exception of the store, or waits longer than `timeout_s` for a server that doesn't
answer; after that the cache doesn't use the server for half a minute. If a write's cached reads can't be invalidated,
the invalidation is kept and retried until it succeeds.
"""

import asyncio
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from secrets import randbits, token_hex
from weakref import WeakKeyDictionary

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
    encode_entry,
)
from flowkit.cache.flights import Flights
from flowkit.cache.marks import MAX_LEASE_S
from flowkit.cache.memory import Memory
from flowkit.cache.opening import default_directory
from flowkit.cache.redis.inventory import clear_node, read_counts
from flowkit.cache.redis.keeper import Keeper, bump
from flowkit.cache.redis.layout import (
    Command,
    KeyLayout,
    decode,
    decode_shown,
    encode,
    list_rows,
    to_ms,
)
from flowkit.cache.redis.link import Answer, RedisLink, read_info
from flowkit.cache.redis.place import Outage, RedisAddress, Unreachable
from flowkit.cache.redis.tokens import Tokens
from flowkit.clock import Clock, SystemClock
from flowkit.codec import JSON, dumps
from flowkit.errors import ConfigurationError, StoreError
from flowkit.identity import HERE

VALUE_LIMIT_BYTES = 2**20
"""Larger results aren't cached."""
TIMEOUT_S = 0.25
"""How long a server may take to answer."""
LEASE_S = 5.0
"""How long a killed holder keeps others waiting; a living one renews its lease."""
WAIT_S = 60.0
"""How long to wait for another process before computing the same thing here."""
POLL_S = 0.02
MAX_POLL_S = 0.25
"""How often a waiter checks whether the other process is done."""


class RedisCache:
    """A cache in Redis (7 or newer) or Valkey, shared by every process that uses the same address and `prefix`.

    `url` is `redis://user:password@host:6379/0`, `rediss://…` for TLS (`?ssl_ca_certs=FILE` names the authority), or
    `unix://…`; one node of a cluster is enough. With `strict`, a write isn't started if its cached reads can't be
    invalidated. Raises `ConfigurationError` without the extra `redis`, or for an address of another kind.
    """

    is_local = False
    is_ready = True

    def __init__(
        self,
        url: str,
        *,
        strict: bool = False,
        prefix: str = "fk",
        value_limit: int = VALUE_LIMIT_BYTES,
        lease_s: float = LEASE_S,
        timeout_s: float = TIMEOUT_S,
        clock: Clock | None = None,
    ) -> None:
        if find_spec("redis") is None:
            raise ConfigurationError("a cache in Redis needs redis-py: pip install 'flowkit-agents[redis]'")
        self.flights = Flights()
        self._place = RedisAddress(url, timeout_s=timeout_s)
        self._strict = strict
        self._value_limit = value_limit
        self._lease_s = min(lease_s, MAX_LEASE_S)
        self._clock = SystemClock() if clock is None else clock
        self._counters = Counters()
        self._outage = Outage(self._place, self._clock, self._counters)
        self._layout = KeyLayout(prefix)
        self._memory = Memory(self._clock)
        self._own_bumps = 0
        self._links: WeakKeyDictionary[asyncio.AbstractEventLoop, RedisLink] = WeakKeyDictionary()
        self._tokens = Tokens(self._layout)
        self._keeper = Keeper(
            self._make_link,
            self._layout,
            self._outage,
            self._counters,
            default_directory() / "redis" / self._layout.name_result(self._place.name).split("{")[1].split("}")[0],
            lease_s=self._lease_s,
        )

    def __repr__(self) -> str:
        return f"RedisCache({self._place.shown!r})"

    @property
    def url(self) -> str:
        """The address, without its password."""
        return self._place.shown

    async def open(self) -> None:
        """Connect now; `look` does so otherwise."""
        try:
            await self._link().run([Command("", ("PING",))])
        except Unreachable:
            return  # counted

    async def look(self, resources: Sequence[str], key_of: KeyOf, *, tool: str = "") -> Look:
        """Look for the result of a read on these resources; a server in trouble is a miss."""
        look = None
        if not resources or not self._keeper.is_kept(resources):
            with suppress(Unreachable):  # counted
                look = await self._look(resources, key_of)
        if look is None:
            # No other process has these numbers, so nothing stale is found.
            generations = [randbits(62) for _ in resources]
            key = key_of(generations)
            look = Look(generations, key, None if key is None else self._memory_of(key))
        self._counters.count(tool, is_hit=look.found is not None)
        self._keeper.work()
        return look

    def get(self, key: str, *, tool: str = "") -> Hit | HitError | None:
        """Return the result under a key that only this process uses; `look` reads others from Redis."""
        return self._memory_of(key)

    def generation(self, resource: str) -> int:
        """Return a number that only writes of this process change; `look` reads the shared generation."""
        return self._own_bumps

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
        await self._store(key, body, ttl_s, Label(tool, user, tuple(resources)), is_error=False)

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
        await self._store(key, dumps(error), min(ttl_s, MAX_ERROR_TTL_S), label, is_error=True)

    async def bump(self, resources: Sequence[str]) -> None:
        """Invalidate the cached reads of these resources, in every process.

        Where Redis doesn't take it, it is repeated until it does, and these resources aren't looked up meanwhile, by
        this process and the others of this machine. With `strict` it raises `StoreError` then.
        """
        if not resources:
            return
        self._own_bumps += 1
        try:
            tokens = await bump(self._link(), self._layout, resources, insists=self._strict)
        except Unreachable as error:
            await self._keeper.keep(resources)
            if self._strict:
                names = ", ".join(resources)
                raise StoreError(f"the cached reads of {names} can't be invalidated now: {error}") from None
        except asyncio.CancelledError:
            await self._keeper.keep(resources)  # it is unknown whether it was sent
            raise
        else:
            self._tokens.forget(tokens)

    async def lease(self, key: str, *, tool: str = "", wait_s: float = WAIT_S) -> Lease | Hit | HitError:
        """Take the lease to compute this key, or the result of another process that was computing it.

        While another process holds the lease, wait until its result is stored, it gives up or dies, or `wait_s` have
        passed. If the server fails, every process computes.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        owner = token_hex(8)
        poll_s = POLL_S
        while True:
            found = self._lease_here(key, owner) if key.startswith(HERE) else await self._lease_there(key, owner)
            if isinstance(found, Lease):
                return found
            if found is not None:
                self._counters.recount(tool)
                return found
            if loop.time() >= deadline:
                return Lease(key)
            await asyncio.sleep(poll_s * random.uniform(0.5, 1))
            poll_s = min(poll_s * 1.5, MAX_POLL_S)

    def get_stats(self) -> CacheStats:
        """Return the hits and misses of all processes, and the server's eviction policy; it waits for the answer.

        Stored results aren't counted: Redis would have to scan every key.
        """
        commands = [Command(self._layout.counters, ("HGETALL", self._layout.counters)), Command("", ("INFO", "memory"))]
        counts: dict[str, tuple[int, int]] = {}
        memory: dict[str, str] = {}
        try:
            asked, told = self._keeper.call(lambda link: link.run(commands))
        except Unreachable:
            pass  # counted
        else:
            counts = read_counts(asked.value)
            if isinstance(told.value, bytes):
                memory = read_info(told.value)
        tools = {
            tool: ToolStats(hits, misses, entries=None, size_bytes=None)
            for tool, (hits, misses) in sorted(self._counters.add_to(counts).items())
        }
        return CacheStats(
            tools=tools,
            hits=sum(tool.hits for tool in tools.values()),
            misses=sum(tool.misses for tool in tools.values()),
            errors=self._counters.errors,
            too_large=self._counters.too_large,
            not_json=self._counters.not_json,
            entries=None,
            size_bytes=None,
            policy=memory.get("maxmemory_policy"),
        )

    async def clear(self, *, tool: str | None = None, resource: str | None = None, user: str | None = None) -> int:
        """Drop the results that match every given filter, all results without one; return how many.

        Redis is scanned for them, which takes a while if it holds much. Raises `StoreError` when it can't be reached: a
        caller that removes a user's results has to know.
        """
        dropped = self._memory.clear(tool, resource, user)
        link = self._link()
        try:
            for node in await link.list_nodes():
                dropped += await clear_node(link, node, self._layout, tool, resource, user)
        except Unreachable as error:
            raise StoreError(f"the cache at {self._place.shown} can't be cleared: {error}") from None
        return dropped

    def show(self, key: str) -> ShownEntry | None:
        """Return one result in full, by its whole key."""
        try:
            found, left_ms = self._keeper.call(lambda link: link.run(self._layout.find(key)))
        except Unreachable:
            return None
        return decode_shown(found.value, left_ms.value, key)

    async def close(self) -> None:
        """Release the connections of this loop and of the thread; using the cache reopens it."""
        await asyncio.to_thread(self._keeper.close)
        link = self._links.pop(asyncio.get_running_loop(), None)
        if link is not None:
            await link.close()

    # Looking

    async def _look(self, resources: Sequence[str], key_of: KeyOf) -> Look:
        """Read the tokens, and in the same round trip the result under the key of the last known tokens."""
        guess = self._tokens.guess(resources)
        key = None if guess is None else key_of(guess)
        find = self._find(key)
        generations, answers = await self._tokens.ask(self._link(), resources, find)
        if generations != guess:
            key = key_of(generations)
            find = self._find(key)
            answers = await self._link().run(find) if find else []
        if key is None:
            return Look(generations, None)
        if not find:
            return Look(generations, key, self._memory_of(key))
        found, left_ms = answers[0], answers[1]
        self._note_refused(found)
        return Look(generations, key, decode(found.value, left_ms.value, key))

    def _find(self, key: str | None) -> Sequence[Command]:
        return () if key is None or key.startswith(HERE) else self._layout.find(key)

    def _memory_of(self, key: str) -> Hit | HitError | None:
        return self._memory.get(key) if key.startswith(HERE) else None

    def _note_refused(self, answer: Answer) -> None:
        if isinstance(answer.value, Exception):
            self._outage.note(answer.value)

    # Computing

    def _lease_here(self, key: str, owner: str) -> Lease | Hit | HitError | None:
        """Take the lease of a process-local key, or its result; None while another caller computes it."""
        found = self._memory.get(key)
        if found is None and self._memory.take_lease(key, owner):
            return Lease(key, owner, self._release)
        return found

    async def _lease_there(self, key: str, owner: str) -> Lease | Hit | HitError | None:
        """Take the lease in Redis; where it doesn't answer, every process may compute."""
        try:
            [answer] = await self._link().run([self._layout.lease(key, owner, self._lease_s)])
        except Unreachable:
            return Lease(key)
        except asyncio.CancelledError:
            self._keeper.release_soon(key, owner)
            raise
        match answer.value:
            case 0:
                return None
            case 1:
                self._keeper.hold(key, owner)
                return Lease(key, owner, self._release)
            case [data, left_ms]:
                # An unreadable entry is computed again, and overwritten.
                return decode(data, left_ms, key) or Lease(key)
            case _:
                self._note_refused(answer)
                return Lease(key)

    async def _release(self, lease: Lease) -> None:
        if lease.key.startswith(HERE):
            self._memory.release_lease(lease.key, lease.owner)
            return
        if self._keeper.find_owner(lease.key) != lease.owner:
            return
        self._keeper.let_go(lease.key, lease.owner)
        try:
            await self._link().run([self._layout.release(lease.key, lease.owner)])
        except Unreachable:
            return  # it runs out
        except asyncio.CancelledError:
            self._keeper.release_soon(lease.key, lease.owner)
            raise

    async def _store(self, key: str, body: bytes, ttl_s: float, label: Label, *, is_error: bool) -> None:
        if len(body) > self._value_limit:
            self._counters.too_large += 1
            return
        if key.startswith(HERE):
            self._memory.set(key, label, encode_entry(body, ttl_s, self._clock, is_error=is_error))
            return
        if to_ms(ttl_s) < 1:
            return
        owner = self._keeper.find_owner(key)
        data = encode(key, label, body, ttl_s, is_error=is_error)
        rows = list_rows(label.resources)
        commands = [self._layout.store(key, data, ttl_s, owner), *(self._layout.keep_row(row, ttl_s) for row in rows)]
        try:
            stored, *_ = await self._link().run(commands)
        except Unreachable:
            return
        if isinstance(stored.value, Exception):
            self._note_refused(stored)
        else:
            self._keeper.let_go(key, owner)

    def _link(self) -> RedisLink:
        """Return the link of the current loop."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None or link.pid != os.getpid():
            link = self._links[loop] = self._make_link()
        return link

    def _make_link(self) -> RedisLink:
        return RedisLink(self._place, self._outage)
