"""Places where caches of one kind lie, for tests that are run over all kinds."""

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from flowkit.cache import Cache, DiskCache, Hit, HitError, RedisCache
from flowkit.clock import ManualClock
from tests.servers.redis import RedisServer

PATIENCE_S = 30.0
"""How long a server may take to answer on a busy machine: these tests aren't about a slow one."""


class CachePlace(Protocol):
    """Where the caches of a test share what they hold."""

    def make(self, **options: Any) -> Cache:
        """A cache there, as another process would have it."""
        ...

    def pass_time(self, seconds: float) -> None:
        """Let everything become older."""
        ...

    @property
    def program(self) -> str:
        """The text by which a program makes a cache there."""
        ...


class DiskPlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock = ManualClock()

    def make(self, **options: Any) -> Cache:
        return DiskCache(self._folder, clock=self._clock, **options)

    def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)

    @property
    def program(self) -> str:
        return f"DiskCache({str(self._folder)!r})"


_PASS = """
for _, key in ipairs(redis.call('KEYS', '*')) do
    local left = redis.call('PTTL', key)
    if left >= 0 then redis.call('PEXPIRE', key, left - ARGV[1]) end
end
"""


class RedisPlace:
    """A database of a Redis server; time passes by taking it from what every key has left."""

    def __init__(self, server: RedisServer, address: str) -> None:
        self.server = server
        self.address = address
        self._database = int(address.rpartition("/")[2])

    def make(self, **options: Any) -> Cache:
        options.setdefault("timeout_s", PATIENCE_S)
        return RedisCache(self.address, **options)

    def pass_time(self, seconds: float) -> None:
        self.server.execute("EVAL", _PASS, 0, int(seconds * 1000), database=self._database)

    @property
    def program(self) -> str:
        return f"RedisCache({self.address!r}, timeout_s={PATIENCE_S})"


@asynccontextmanager
async def opened_in(place: CachePlace, **options: Any) -> AsyncGenerator[Cache]:
    """A cache there, closed again whatever happens."""
    cache = place.make(**options)
    try:
        yield cache
    finally:
        await cache.close()


async def find(cache: Cache, key: str, *, tool: str = "") -> Hit | HitError | None:
    """What stands under a key."""
    return (await cache.look((), lambda _: key, tool=tool)).found


async def read_generations(cache: Cache, resources: Sequence[str]) -> dict[str, int]:
    """The generation of each resource now."""
    return {name: (await cache.look([name], lambda _: None, tool="")).generations[0] for name in resources}


def program_of(place: CachePlace, statement: str) -> list[str]:
    """The command of a program that makes a cache there, as `cache`, and does something with it."""
    lines = [
        "import asyncio",
        "from flowkit.cache import DiskCache, RedisCache",
        "async def main():",
        f"    cache = {place.program}",
        f"    {statement}",
        "    await cache.close()",
        "asyncio.run(main())",
    ]
    return [sys.executable, "-c", "\n".join(lines)]
