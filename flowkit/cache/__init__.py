"""Results that needn't be computed again: the cache's interface, and the choice of a program's cache.

Only tools with the effect `read` and a TTL are cached, under the key that `Tool.key` computes. A cache also holds the
flights of its process, so that identical reads in flight run once.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from flowkit.cache.disk import DiskCache
from flowkit.cache.entries import CacheStats, Hit, HitError, KeyOf, Lease, Look, ShownEntry, ToolStats
from flowkit.cache.flights import Flights
from flowkit.cache.opening import default_directory
from flowkit.cache.redis import RedisCache
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError

__all__ = [
    "Cache",
    "CacheStats",
    "DiskCache",
    "Flights",
    "Hit",
    "HitError",
    "KeyOf",
    "Lease",
    "Look",
    "NullCache",
    "RedisCache",
    "ShownEntry",
    "ToolStats",
    "open_default_cache",
]


class Cache(Protocol):
    """A store of results between calls. A failure of the store is a miss; no method raises an error for it.

    A read calls `look`. On a miss it shares a flight: the leader takes the `lease`, computes, and calls `set`, or
    releases the lease if it failed. A write calls `bump` when it starts and when it finishes. An entry whose key starts
    with `flowkit.identity.HERE` is useless to other processes, and stays in this one.

    If the cache `is_local` and `is_ready`, `generation` and `get` do the same as `look` without waiting.
    """

    @property
    def is_local(self) -> bool:
        """Return whether it is on this machine, so that `generation` and `get` return immediately.

        For other caches `get` finds nothing.
        """
        ...

    @property
    def is_ready(self) -> bool:
        """Return whether it is open; if not, `look` opens it, beside the loop."""
        ...

    @property
    def flights(self) -> Flights: ...
    async def open(self) -> None: ...
    async def look(self, resources: Sequence[str], key_of: KeyOf, *, tool: str) -> Look:
        """Look for the result of a read on these resources, under the key that `key_of` makes of their generations."""
        ...

    def get(self, key: str, *, tool: str = "") -> Hit | HitError | None: ...
    async def set(
        self,
        key: str,
        value: JSON,
        ttl_s: float,
        *,
        tool: str,
        user: str | None = None,
        resources: Sequence[str] = (),
    ) -> None: ...
    async def set_error(
        self,
        key: str,
        error: str,
        ttl_s: float = 30.0,
        *,
        tool: str,
        user: str | None = None,
        resources: Sequence[str] = (),
    ) -> None: ...
    def generation(self, resource: str) -> int: ...
    async def bump(self, resources: Sequence[str]) -> None: ...
    async def lease(self, key: str, *, tool: str = "", wait_s: float = 60.0) -> Lease | Hit | HitError: ...
    def get_stats(self) -> CacheStats: ...
    async def clear(self, *, tool: str | None = None, resource: str | None = None, user: str | None = None) -> int: ...
    async def close(self) -> None: ...


class NullCache:
    """A cache that stores nothing; equal reads in flight are still shared."""

    is_local = True
    is_ready = True

    def __init__(self) -> None:
        self.flights = Flights()

    async def open(self) -> None:
        return

    async def look(self, resources: Sequence[str], key_of: KeyOf, *, tool: str) -> Look:
        generations = [0] * len(resources)
        return Look(generations, key_of(generations))

    def get(self, key: str, *, tool: str = "") -> Hit | HitError | None:
        return None

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
        return

    async def set_error(
        self,
        key: str,
        error: str,
        ttl_s: float = 30.0,
        *,
        tool: str,
        user: str | None = None,
        resources: Sequence[str] = (),
    ) -> None:
        return

    def generation(self, resource: str) -> int:
        return 0

    async def bump(self, resources: Sequence[str]) -> None:
        return

    async def lease(self, key: str, *, tool: str = "", wait_s: float = 60.0) -> Lease | Hit | HitError:
        return Lease(key)

    def get_stats(self) -> CacheStats:
        return CacheStats()

    async def clear(self, *, tool: str | None = None, resource: str | None = None, user: str | None = None) -> int:
        return 0

    async def close(self) -> None:
        return


def open_default_cache() -> Cache:
    """Open the cache of the environment: one object per place, so that a process's agents share their flights.

    `FLOWKIT_CACHE` is `off` for none, or the address of a Redis server; unset or `on`, it is one in `FLOWKIT_CACHE_DIR`
    or the user's cache folder. Anything else raises `ConfigurationError`: with a typo in the address, each replica would
    have a cache of its own, and stale reads.
    """
    named = os.environ.get("FLOWKIT_CACHE", "").strip()
    if named.lower() in ("off", "0", "no", "false"):
        return _no_cache()
    if "://" in named:
        return _redis_cache(named)
    if named.lower() not in ("", "on", "1", "yes", "true"):
        raise ConfigurationError(
            f"FLOWKIT_CACHE is {named!r}, expected 'on', 'off' or an address such as redis://127.0.0.1:6379/0;"
            " a folder is named by FLOWKIT_CACHE_DIR"
        )
    return _disk_cache(default_directory())


@lru_cache(maxsize=8)
def _disk_cache(directory: Path) -> DiskCache:
    return DiskCache(directory)


@lru_cache(maxsize=8)
def _redis_cache(url: str) -> RedisCache:
    return RedisCache(url)


@lru_cache(maxsize=1)
def _no_cache() -> NullCache:
    return NullCache()
