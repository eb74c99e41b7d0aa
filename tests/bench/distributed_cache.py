"""What a hit in Redis costs: `python -m tests.bench.distributed_cache [--json]`.

Each ratio is to redis-py's own GET of as many bytes from the same server, taken in turn with it, so that a busy machine
slows both. A hit of a read on a resource asks for three tokens, the value and its age, in one round trip.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from flowkit.cache import RedisCache
from tests.bench.report import Report, wants_json
from tests.servers.redis import RedisServer, start_redis

ROUNDS = 40
CALLS = 50
VALUE = "x" * 500


def key_of(generations: Sequence[int]) -> str:
    return f"key {list(generations)}"


async def measure(work: dict[str, Callable[[], Awaitable[Any]]]) -> dict[str, float]:
    """The median time of each, in seconds, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, run in work.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                await run()
            times[name].append((time.perf_counter() - began) / CALLS)
    return {name: statistics.median(found) for name, found in times.items()}


async def compare(server: RedisServer, report: Report) -> None:
    import redis.asyncio

    cache = RedisCache(server.address(), timeout_s=10)
    raw: Any = redis.asyncio.Redis(port=server.port)
    resources = ["order:1"]
    for given in ((), resources):
        look = await cache.look(given, key_of, tool="t")
        assert look.key is not None
        await cache.set(look.key, VALUE, 3600, tool="t", user="ada", resources=given)
    await raw.set("raw", VALUE)

    async def hit(given: Sequence[str]) -> None:
        assert (await cache.look(given, key_of, tool="t")).found is not None

    times = await measure({"raw": lambda: raw.get("raw"), "hit": lambda: hit(()), "resource": lambda: hit(resources)})
    report.row("hit / raw GET", times["hit"] / times["raw"], 2.0, us=f"{times['hit'] * 1e6:.0f}")
    report.row(
        "hit on a resource / raw GET", times["resource"] / times["raw"], 2.0, us=f"{times['resource'] * 1e6:.0f}"
    )
    began = time.perf_counter()
    await asyncio.gather(*(hit(resources) for _ in range(2000)))
    at_once = time.perf_counter() - began
    report.row("2,000 at once / as many one by one", at_once / (2000 * times["resource"]), 1.0, s=f"{at_once:.2f}")
    await raw.aclose()
    await cache.close()


def main() -> None:
    """Print the ratios."""
    report = Report("distributed_cache", wants_json(sys.argv))
    with start_redis() as server:
        asyncio.run(compare(server, report))
    report.print()


if __name__ == "__main__":
    main()
