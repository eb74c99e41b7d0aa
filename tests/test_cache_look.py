"""A look into a cache that may wait: before it is open, or because it lies elsewhere. The loop goes on meanwhile."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from flowkit.cache import DiskCache, Hit, KeyOf, Look, NullCache
from flowkit.executor import Executor
from flowkit.references import ToolCall
from flowkit.stores.folders import hold_folder
from flowkit.tools import tool
from tests.executing import execute
from tests.stores import opened


class FarCache(NullCache):
    """A cache that takes a while to answer, and has what it was told to have."""

    is_local = False

    def __init__(self, found: Hit | None = None) -> None:
        super().__init__()
        self.found = found
        self.looks = 0

    async def look(self, resources: Sequence[str], key_of: KeyOf, *, tool: str) -> Look:
        self.looks += 1
        await asyncio.sleep(1)
        generations = [0] * len(resources)
        return Look(generations, key_of(generations), self.found)


ran: list[str] = []


@tool(ttl=60, scope="all")
async def rate(day: str) -> str:
    """Look up a rate."""
    ran.append(day)
    await asyncio.sleep(1)
    return f"rate of {day}"


def test_what_a_far_cache_has_is_taken_when_its_answer_is_there() -> None:
    ran.clear()
    cache = FarCache(Hit("stored", 5.0))
    one = execute([rate], [ToolCall("a", "rate", {"day": "today"})], cache=cache)["a"]
    assert (one.value, one.source, one.age_s, one.started_s) == ("stored", "cache", 5.0, None)
    assert ran == []


def test_equal_calls_that_both_miss_run_once() -> None:
    ran.clear()
    calls = [ToolCall(name, "rate", {"day": "today"}) for name in "abc"]
    done = execute([rate], calls, cache=FarCache())
    assert ran == ["today"]
    assert [done[name].value for name in "abc"] == ["rate of today"] * 3
    assert sorted(done[name].source for name in "abc") == ["flight", "flight", "run"]


def test_a_call_that_was_cancelled_while_it_was_looked_up_never_runs() -> None:
    ran.clear()

    async def drive(executor: Executor) -> None:
        executor.add(ToolCall("a", "rate", {"day": "today"}))
        await asyncio.sleep(0.5)
        executor.cancel("a", "not wanted")

    done = execute([rate], [], drive, cache=FarCache(Hit("stored", 5.0)))
    assert (done["a"].state, done["a"].error) == ("cancelled", "not wanted")
    assert ran == []


def test_a_call_that_is_never_sealed_ends_void_while_it_is_looked_up() -> None:
    ran.clear()

    async def drive(executor: Executor) -> None:
        executor.announce("a", "rate")
        assert executor.start_early(ToolCall("a", "rate", {"day": "today"}))
        await asyncio.sleep(0.5)
        executor.void("a", "the stream broke")

    assert execute([rate], [], drive, cache=FarCache(Hit("stored", 5.0)))["a"].state == "void"
    assert ran == []


def test_a_write_waits_until_a_read_before_it_has_been_looked_up() -> None:
    steps: list[str] = []

    @tool(ttl=60, scope="all", resource="order:{name}")
    async def read(name: str) -> str:
        """Read it."""
        steps.append("read")
        return name

    @tool(resource="order:{name}")
    async def write(name: str) -> None:
        """Write it."""
        steps.append("write")

    calls = [ToolCall("r", "read", {"name": "a"}), ToolCall("w", "write", {"name": "a"})]
    execute([read, write], calls, cache=FarCache())
    assert steps == ["read", "write"]


def test_one_who_waited_for_a_call_that_was_cancelled_looks_again() -> None:
    ran.clear()
    cache = FarCache()

    async def drive(executor: Executor) -> None:
        executor.add(ToolCall("a", "rate", {"day": "today"}))
        executor.add(ToolCall("b", "rate", {"day": "today"}))
        await asyncio.sleep(1.5)
        cache.found = Hit("stored", 1.0)
        executor.cancel("a")

    done = execute([rate], [], drive, cache=cache)
    assert (done["b"].value, done["b"].source) == ("stored", "cache")
    assert cache.looks == 3


def test_the_first_look_of_a_process_finds_what_is_there(tmp_path: Path) -> None:
    ran.clear()

    async def main() -> str:
        async with opened(tmp_path) as cache, Executor([rate], cache=cache) as graph:
            graph.add(ToolCall("a", "rate", {"day": "today"}))
            await graph.wait()
            return graph.outcomes["a"].source

    assert [asyncio.run(main()) for _ in range(3)] == ["run", "cache", "cache"]


def test_while_another_holds_the_folder_the_first_look_is_a_miss_and_the_loop_goes_on(tmp_path: Path) -> None:
    ran.clear()

    async def main() -> None:
        async with opened(tmp_path / "c") as cache:
            await cache.set("key", 1, 60, tool="t")
        cache = DiskCache(tmp_path / "c")
        assert not cache.is_ready
        with hold_folder(tmp_path / "c"):
            async with Executor([rate], cache=cache) as graph:
                graph.add(ToolCall("a", "rate", {"day": "today"}))
                assert await cache.look((), lambda _: "key", tool="t") == Look([], "key", None)
                assert not cache.is_ready, "it is still to be opened"
        assert graph.outcomes["a"].source == "run"
        await cache.open()
        assert cache.is_ready
        assert (await cache.look((), lambda _: "key", tool="t")).found is not None
        await cache.close()

    asyncio.run(main())


def test_all_that_opening_waits_for_is_within_its_bound() -> None:
    from flowkit.cache import opening

    waits = (opening.HOLD_TIMEOUT_S, opening.OPEN_TIMEOUT_S, *[opening.CONNECT_TIMEOUT_S] * 3)
    assert sum(waits) <= opening.OPEN_WITHIN_S == 5
