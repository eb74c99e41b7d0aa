"""What every cache does, wherever it lies: each test is run on the disk and in Redis."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flowkit.cache import Cache, Hit, HitError, Lease
from flowkit.codec import JSON
from flowkit.errors import ToolError
from flowkit.executor import Executor
from flowkit.identity import HERE
from flowkit.references import ToolCall
from flowkit.tools import tool
from tests.cache_places import CachePlace, find, opened_in, program_of, read_generations

AGE_S = 5.0
"""How much older than expected something may be, on a busy machine."""


def value_of(found: Hit | HitError | Lease | None) -> JSON:
    assert isinstance(found, Hit)
    return found.value


# What it keeps


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1, 2.5, None, "ü"]}, 2**80, "x" * 100_000])
def test_what_was_stored_is_found_as_it_was(places: CachePlace, value: JSON) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            assert await find(cache, "key") is None
            await cache.set("key", value, 60, tool="t")
            assert value_of(await find(cache, "key")) == value

    asyncio.run(main())


@pytest.mark.parametrize("key", ["", "ü", "a b\n\0", "{", "x" * 1000, "a{b}c"])
def test_any_text_is_a_key(places: CachePlace, key: str) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.set(key, 1, 60, tool="t", user="ü\0", resources=["a\0b", "ü{x}"])
            assert value_of(await find(cache, key)) == 1
            assert await find(cache, f"{key}x") is None

    asyncio.run(main())


def test_another_process_finds_it_too(places: CachePlace) -> None:
    subprocess.run(program_of(places, "await cache.set('key', {'a': 1}, 60, tool='t')"), check=True)
    command = program_of(places, "print((await cache.look((), lambda _: 'key', tool='t')).found.value)")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "{'a': 1}\n"


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, object(), {1, 2}])
def test_what_is_not_json_is_not_stored_but_counted(places: CachePlace, value: Any) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.set("key", value, 60, tool="t")
            assert await find(cache, "key") is None
            assert cache.get_stats().not_json == 1

    asyncio.run(main())


def test_a_circle_is_not_json(places: CachePlace) -> None:
    circle: list[JSON] = []
    circle.append(circle)

    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.set("key", circle, 60, tool="t")
            assert cache.get_stats().not_json == 1

    asyncio.run(main())


def test_what_is_too_large_is_not_stored_but_counted(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places, value_limit=100) as cache:
            await cache.set("large", "x" * 99, 60, tool="t")
            await cache.set("small", "x" * 98, 60, tool="t")
            assert await find(cache, "large") is None
            assert await find(cache, "small") is not None
            assert cache.get_stats().too_large == 1

    asyncio.run(main())


def test_what_only_this_process_understands_stays_in_it(places: CachePlace) -> None:
    async def main() -> None:
        key = f"{HERE}key"
        async with opened_in(places) as one, opened_in(places) as other:
            lease = await one.lease(key)
            assert isinstance(lease, Lease)
            assert lease.owner
            await one.set(key, 1, 60, tool="t", user="ada")
            await lease.release()
            assert value_of(await find(one, key)) == 1
            assert value_of(await one.lease(key)) == 1
            assert await find(other, key) is None
            assert await one.clear(user="ada") == 1
            assert await find(one, key) is None

    asyncio.run(main())


# For how long


def test_it_is_found_until_its_time_is_over(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.set("key", 1, 60, tool="t")
            places.pass_time(50)
            found = await find(cache, "key")
            assert value_of(found) == 1
            assert found is not None
            assert 50 <= found.age_s < 50 + AGE_S
            places.pass_time(10)
            assert await find(cache, "key") is None

    asyncio.run(main())


def test_an_error_is_remembered_for_thirty_seconds_at_most(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.set_error("key", "no order 'ORD-9'", 3600, tool="t")
            places.pass_time(20)
            found = await find(cache, "key")
            assert isinstance(found, HitError)
            assert (found.error, 20 <= found.age_s < 20 + AGE_S) == ("no order 'ORD-9'", True)
            places.pass_time(10)
            assert await find(cache, "key") is None

    asyncio.run(main())


@pytest.mark.parametrize("ttl_s", [0.0, 0.0001, 1e9, 1e300])
def test_any_time_to_live_is_taken(places: CachePlace, ttl_s: float) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.set("key", 1, ttl_s, tool="t", resources=["order:1"])
            if ttl_s > 1:
                assert value_of(await find(cache, "key")) == 1
            assert cache.get_stats().errors == 0

    asyncio.run(main())


# What ends it


def test_a_generation_stays_until_a_write(places: CachePlace) -> None:
    async def main() -> None:
        names = ("order:1", "order:*", "stock:1", "*", "a:b:c:d:e:f:g")
        async with opened_in(places) as one, opened_in(places) as other:
            seen = [await read_generations(cache, names) for cache in (one, other, one, other)]
            assert seen[0] == seen[1] == seen[2] == seen[3]

    asyncio.run(main())


def test_a_write_changes_the_generation_of_its_resource_and_of_the_family(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            names = ("order:1", "order:2", "order:*", "stock:1")
            before = await read_generations(cache, names)
            await cache.bump(["order:1"])
            after = await read_generations(cache, names)
            assert {name for name in names if before[name] != after[name]} == {"order:1", "order:*"}

    asyncio.run(main())


def test_a_write_on_the_family_changes_every_member_known_or_not(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.bump(["order:1"])
            names = ("order:1", "order:2", "order:*", "stock:*")
            before = await read_generations(cache, names)
            await cache.bump(["order:*"])
            after = await read_generations(cache, names)
            assert {name for name in names if before[name] != after[name]} == set(names) - {"stock:*"}

    asyncio.run(main())


def test_generations_are_seen_by_another_cache(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as one, opened_in(places) as other:
            before = await read_generations(other, ["order:1"])
            await one.bump(["order:1"])
            assert await read_generations(other, ["order:1"]) == await read_generations(one, ["order:1"]) != before

    asyncio.run(main())


WRITER = """
    for number in range(100):
        await cache.bump(["order:1"])  # when it starts, and when it has ended
        Path({state!r}).write_text(str(number))
        await cache.bump(["order:1"])
        print(number, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.slow
def test_after_a_write_of_another_process_has_ended_nobody_reads_what_was_before(
    places: CachePlace, tmp_path: Path
) -> None:
    """A process reads all the time, as fast as it can, while another writes a hundred times."""
    state = tmp_path / "state"
    state.write_text("-1")
    program = program_of(places, WRITER.format(state=str(state)).strip())
    program[2] = "import sys\nfrom pathlib import Path\n" + program[2]

    async def read(cache: Cache) -> int:
        look = await cache.look(["order:1"], lambda found: f"read {list(found)}", tool="t")
        if isinstance(look.found, Hit):
            assert isinstance(look.found.value, int)
            return look.found.value
        value = int(state.read_text() or "-1")
        if look.key is not None:
            await cache.set(look.key, value, 60, tool="t", resources=["order:1"])
        return value

    async def main() -> None:
        writer = await asyncio.create_subprocess_exec(
            *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdin is not None
        assert writer.stdout is not None
        async with opened_in(places) as cache:
            is_over = False

            async def keep_reading() -> None:
                while not is_over:
                    await read(cache)
                    await asyncio.sleep(0)

            reading = asyncio.create_task(keep_reading())
            for number in range(100):
                assert int(await writer.stdout.readline()) == number
                assert await read(cache) == number
                writer.stdin.write(b"\n")
                await writer.stdin.drain()
            is_over = True
            await reading
        assert await writer.wait() == 0

    asyncio.run(main())


def test_a_read_is_found_under_its_generation_until_a_write_in_another_cache(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as one, opened_in(places) as other:

            def key_of(generations: object) -> str:
                return f"read {generations}"

            for _ in range(3):
                look = await one.look(["order:1"], key_of, tool="t")
                assert (look.found, look.key) == (None, key_of(look.generations))
                assert look.key is not None
                await one.set(look.key, 1, 60, tool="t", resources=["order:1"])
                assert value_of((await one.look(["order:1"], key_of, tool="t")).found) == 1
                assert value_of((await other.look(["order:1"], key_of, tool="t")).found) == 1
                await other.bump(["order:*"])

    asyncio.run(main())


# Managing it


def test_hits_and_misses_of_processes_that_ended_are_kept(places: CachePlace) -> None:
    async def main() -> None:
        for _ in range(2):
            async with opened_in(places) as cache:
                await find(cache, "key", tool="t")
        async with opened_in(places) as cache:
            await cache.set("key", 1, 60, tool="t")
            await find(cache, "key", tool="t")
            stats = cache.get_stats()
            assert (stats.tools["t"].misses, stats.tools["t"].hits) == (2, 1)
            assert (stats.misses, stats.hits) == (2, 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({}, set[str]()),
        ({"tool": "get"}, {"b"}),
        ({"user": "ada"}, {"b", "c"}),
        ({"resource": "order:1"}, {"b"}),
        ({"resource": "order:2"}, {"a", "b"}),
        ({"resource": "order:*"}, {"b"}),
        ({"tool": "get", "user": "bob"}, {"a", "b"}),
        ({"tool": "none"}, {"a", "b", "c"}),
    ],
)
def test_clear_drops_what_fits_all_that_is_given(places: CachePlace, chosen: dict[str, str], left: set[str]) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.set("a", 1, 60, tool="get", user="ada", resources=["order:1"])
            await cache.set("b", 2, 60, tool="list", user="bob", resources=["stock:1"])
            await cache.set("c", 3, 60, tool="get", user="bob", resources=["order:*"])
            assert await cache.clear(**chosen) == 3 - len(left)
            assert {key for key in "abc" if await find(cache, key) is not None} == left

    asyncio.run(main())


def test_clear_finds_remembered_errors_too(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.set_error("key", "no", tool="t", user="ada", resources=["order:1"])
            assert await cache.clear(resource="order:1", user="ada") == 1
            assert await find(cache, "key") is None

    asyncio.run(main())


# Leases


def test_a_second_caller_gets_the_result_of_the_first(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as one, opened_in(places) as other:
            lease = await one.lease("key")
            assert isinstance(lease, Lease)
            waiting = asyncio.create_task(other.lease("key", tool="t"))
            await one.set("key", 7, 60, tool="t")
            assert value_of(await waiting) == 7

    asyncio.run(main())


def test_a_lease_that_was_cancelled_while_it_was_taken_is_free(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as cache:
            await cache.open()
            asking = asyncio.create_task(cache.lease("key"))
            await asyncio.sleep(0)  # it is on its way
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            lease = await cache.lease("key", wait_s=30)
            assert isinstance(lease, Lease)
            assert lease.owner, "it is held"

    asyncio.run(main())


def test_a_released_lease_goes_to_who_waits(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as one, opened_in(places) as other:
            lease = await one.lease("key")
            assert isinstance(lease, Lease)
            waiting = asyncio.create_task(other.lease("key"))
            await lease.release()
            taken = await waiting
            assert isinstance(taken, Lease)
            assert taken.owner
            await lease.release()
            assert await one.lease("key", wait_s=0) == Lease("key"), "released by another's, it stays"

    asyncio.run(main())


def test_waiting_for_another_holder_has_a_bound(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as one, opened_in(places) as other:
            await one.lease("key")
            assert await other.lease("key", wait_s=0) == Lease("key"), "one that holds nothing"

    asyncio.run(main())


def test_result_of_another_process_that_came_before_the_lease_is_a_hit(places: CachePlace) -> None:
    async def main() -> None:
        async with opened_in(places) as one, opened_in(places) as other:
            assert await find(one, "key", tool="t") is None
            await other.set("key", 7, 60, tool="t")
            assert value_of(await one.lease("key", tool="t")) == 7
            stats = one.get_stats()
            assert (stats.hits, stats.misses) == (1, 0)

    asyncio.run(main())


# In a run

ran: list[str] = []


@tool(ttl=300, scope="user", resource="order:{name}")
async def read_order(name: str) -> str:
    """Read an order."""
    ran.append(name)
    return f"order {name}"


@tool(resource="order:{name}")
async def write_order(name: str) -> str:
    """Write an order."""
    return "written"


@tool(ttl=300, scope="all", cache_errors=(ToolError,))
async def refuse(name: str) -> str:
    """Refuse."""
    ran.append(name)
    raise ToolError(f"no {name}")


async def run_calls(place: CachePlace, *calls: ToolCall, user: str = "ada") -> dict[str, tuple[str, str, str]]:
    """Run calls one after another, each in a run of its own: how each ended, from where, and with what."""
    ended: dict[str, tuple[str, str, str]] = {}
    async with opened_in(place) as cache:
        for call in calls:
            async with Executor([read_order, write_order, refuse], cache=cache, user=user) as graph:
                graph.add(call)
                await graph.wait()
            outcome = graph.outcomes[call.id]
            ended[call.id] = (outcome.state, outcome.source, str(outcome.error or outcome.value))
    return ended


def test_a_run_finds_what_another_stored_until_a_write(places: CachePlace) -> None:
    ran.clear()
    read, write = ("read_order", {"name": "1"}), ("write_order", {"name": "1"})

    async def main() -> list[str]:
        calls = [ToolCall("a", *read), ToolCall("b", *read), ToolCall("w", *write), ToolCall("c", *read)]
        first = await run_calls(places, *calls)
        other = await run_calls(places, ToolCall("d", *read))
        bob = await run_calls(places, ToolCall("e", *read), user="bob")
        return [ended[1] for part in (first, other, bob) for ended in part.values()]

    assert asyncio.run(main()) == ["run", "cache", "run", "run", "cache", "run"]
    assert ran == ["1", "1", "1"]


def test_an_error_that_a_tool_asks_to_remember_is_remembered(places: CachePlace) -> None:
    ran.clear()

    async def main() -> None:
        ended = await run_calls(places, *(ToolCall(name, "refuse", {"name": "x"}) for name in "ab"))
        assert ended["a"] == ("failed", "run", "no x")
        assert ended["b"] == ("failed", "cache", "no x")

    asyncio.run(main())
    assert ran == ["x"]
