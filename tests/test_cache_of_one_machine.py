"""A cache of one machine beside a journal that several share: a write on another machine ends no reads here."""

import asyncio
import logging
from pathlib import Path

import pytest

from flowkit.cache import Cache
from flowkit.executor import Executor
from flowkit.journal import Journal
from flowkit.references import ToolCall
from flowkit.tools import tool
from tests.cache_places import RedisPlace
from tests.command import Command
from tests.servers.processes import find_free_port
from tests.servers.redis import RedisServer
from tests.stores import opened


@tool(ttl=300, scope="all", resource="order:{name}")
async def read_order(name: str) -> str:
    """Read an order."""
    return f"order {name}"


@tool(ttl=300, scope="all")
async def convert(name: str) -> str:
    """Convert, whatever was written."""
    return f"converted {name}"


async def run_twice(cache: Cache, journal: Journal) -> dict[str, list[str]]:
    """Where the results of two runs come from, for each tool."""
    sources: dict[str, list[str]] = {"read_order": [], "convert": []}
    for _ in range(2):
        async with Executor([read_order, convert], cache=cache, journal=journal) as graph:
            for name in sources:
                graph.add(ToolCall(name, name, {"name": "1"}))
            await graph.wait()
        for name, found in sources.items():
            found.append(graph.outcomes[name].source)
    return sources


def test_beside_a_shared_journal_reads_on_resources_are_not_kept_on_this_machine(
    tmp_path: Path, postgres_journal: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        journal = Journal(postgres_journal)
        assert journal.is_shared
        async with opened(tmp_path / "c") as cache:
            with caplog.at_level(logging.WARNING):
                sources = await run_twice(cache, journal)
        assert sources == {"read_order": ["run", "run"], "convert": ["run", "cache"]}
        journal.close()

    asyncio.run(main())
    assert caplog.text.count("the journal is shared by several machines") <= 1


def test_beside_a_shared_journal_a_shared_cache_keeps_them(postgres_journal: str, redis_server: RedisServer) -> None:
    async def main() -> None:
        journal = Journal(postgres_journal)
        cache = RedisPlace(redis_server, redis_server.create_database()).make()
        sources = await run_twice(cache, journal)
        assert sources == {"read_order": ["run", "cache"], "convert": ["run", "cache"]}
        await cache.close()
        journal.close()

    asyncio.run(main())


def test_beside_a_journal_in_a_file_a_cache_on_the_disk_keeps_them(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal(tmp_path / "journal.db")
        assert not journal.is_shared
        async with opened(tmp_path / "c") as cache:
            sources = await run_twice(cache, journal)
        assert sources == {"read_order": ["run", "cache"], "convert": ["run", "cache"]}
        journal.close()

    asyncio.run(main())


def test_the_command_takes_the_address_of_a_cache(flowkit: Command, redis_server: RedisServer, tmp_path: Path) -> None:
    place = RedisPlace(redis_server, redis_server.create_database())

    async def store() -> None:
        cache = place.make()
        await cache.set("key", {"a": 1}, 60, tool="t", user="ada")
        await cache.look((), lambda _: "key", tool="t")
        await cache.close()

    asyncio.run(store())
    address = place.address
    assert flowkit("cache", "path", "--cache", address).out == f"{address}\n"
    assert "1 hit, 0 misses, maxmemory-policy noeviction" in flowkit("cache", "stats", "--cache", address).out
    assert '{"a":1}' in flowkit("cache", "show", "key", "--cache", address).out
    assert flowkit("cache", "clear", "--user", "ada", "--cache", address).out == "1 entry cleared\n"
    assert flowkit("cache", "path", "--cache", str(tmp_path / "here")).out == f"{tmp_path / 'here'}\n"
    assert flowkit("cache", "path", "--cache", "off").err == "flowkit: the cache is turned off by FLOWKIT_CACHE\n"
    assert flowkit("cache", "path", "--cache", "http://host").code != 0
    assert address not in flowkit("cache", "path").out, "the next command has its own"


def test_statistics_of_a_server_that_is_away_are_an_error(flowkit: Command) -> None:
    address = f"redis://127.0.0.1:{find_free_port()}/0"

    ended = flowkit("cache", "stats", "--cache", address)

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.endswith(f"flowkit: the cache at {address} can't be read\n")
