"""Equal work in flight runs once, and nobody is taken along by another's cancellation."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.cache import Flights
from flowkit.testing.loop import run_virtual
from tests.example_counts import examples


def test_equal_keys_run_once_and_others_run_themselves() -> None:
    runs: list[str] = []

    async def main() -> None:
        flights = Flights()

        def work(key: str) -> Callable[[], Awaitable[str]]:
            async def run() -> str:
                runs.append(key)
                await asyncio.sleep(1)
                return key.upper()

            return run

        found = await asyncio.gather(*(flights.share(key, work(key)) for key in "aabab"))
        assert found == [("A", True), ("A", False), ("B", True), ("A", False), ("B", False)]
        assert len(flights) == 0

    run_virtual(main())
    assert sorted(runs) == ["a", "b"]


def test_a_later_call_runs_anew() -> None:
    async def main() -> None:
        flights = Flights()
        runs = 0

        async def run() -> int:
            nonlocal runs
            runs += 1
            return runs

        assert await flights.share("a", run) == (1, True)
        assert await flights.share("a", run) == (2, True)

    run_virtual(main())


def test_an_error_reaches_everybody_who_waits() -> None:
    async def main() -> None:
        flights = Flights()

        async def run() -> int:
            await asyncio.sleep(1)
            raise ValueError("no")

        found = await asyncio.gather(*(flights.share("a", run) for _ in range(3)), return_exceptions=True)
        assert [str(error) for error in found] == ["no"] * 3

    run_virtual(main())


def test_a_cancelled_leader_hands_over() -> None:
    async def main() -> None:
        flights = Flights()
        runs: list[str] = []

        def work(name: str) -> Callable[[], Awaitable[str]]:
            async def run() -> str:
                runs.append(name)
                await asyncio.sleep(10)
                return name

            return run

        tasks = [asyncio.create_task(flights.share("a", work(name))) for name in ("one", "two", "three")]
        await asyncio.sleep(5)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert await tasks[1] == ("two", True)
        assert await tasks[2] == ("two", False)
        assert runs == ["one", "two"]
        assert asyncio.get_running_loop().time() == 15

    run_virtual(main())


def test_a_cancelled_follower_changes_nothing() -> None:
    async def main() -> None:
        flights = Flights()
        joined: list[int] = []

        async def run() -> int:
            await asyncio.sleep(10)
            return 1

        leader = asyncio.create_task(flights.share("a", run))
        follower = asyncio.create_task(flights.share("a", run, joined=lambda: joined.append(1)))
        await asyncio.sleep(5)
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        assert await leader == (1, True)
        assert joined == [1]

    run_virtual(main())


@settings(max_examples=examples(100))
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.none() | st.integers(0, 8)), max_size=8),
    st.integers(1, 5),
)
def test_whoever_is_not_cancelled_gets_the_result_and_no_two_run_at_once(
    callers: list[tuple[int, str, int | None]], work_s: int
) -> None:
    running: dict[str, int] = {"a": 0, "b": 0}

    async def main() -> None:
        flights = Flights()

        async def call(start_s: int, key: str) -> str:
            async def run() -> str:
                running[key] += 1
                assert running[key] == 1
                try:
                    await asyncio.sleep(work_s)
                finally:
                    running[key] -= 1
                return key

            await asyncio.sleep(start_s)
            result, _ = await flights.share(key, run)
            return result

        tasks = [asyncio.create_task(call(start_s, key)) for start_s, key, _ in callers]
        loop = asyncio.get_running_loop()
        for task, (_, _, cancel_s) in zip(tasks, callers, strict=True):
            if cancel_s is not None:
                loop.call_at(cancel_s + 0.5, task.cancel)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for result, (_, key, cancel_s) in zip(found, callers, strict=True):
            assert result == key or (cancel_s is not None and isinstance(result, asyncio.CancelledError))
        assert len(flights) == 0

    run_virtual(main())
