"""Calls that a running tool makes: its slot, what they share, circles, and what becomes of them when it is stopped."""

import asyncio
from typing import Any

import pytest

from flowkit.context import CONTEXT, Context
from flowkit.events import CallStarted
from flowkit.executor import Approve, Executor
from flowkit.references import ToolCall
from flowkit.tools import Effect, Needs, tool
from tests.executing import execute

running = [0, 0]
"""How many `leaf` run, and the most that did at once."""


@pytest.fixture(autouse=True)
def _nothing_ran_yet() -> None:  # pyright: ignore[reportUnusedFunction]  # pytest finds it
    running[:] = [0, 0]


@tool(effect="read")
async def leaf(number: int = 0, seconds: float = 1) -> int:
    """Take a second."""
    running[0] += 1
    running[1] = max(running)
    try:
        await asyncio.sleep(seconds)
    finally:
        running[0] -= 1
    return number


@tool(effect="read")
async def fan(count: int, ctx: Context[Any] = CONTEXT) -> int:
    """Make calls at once."""
    return sum(await asyncio.gather(*(ctx.call(leaf, number) for number in range(count))))


@tool(effect="read")
async def one(ctx: Context[Any] = CONTEXT) -> int:
    """Make one call."""
    return await ctx.call(leaf)


def test_tool_that_waits_for_many_calls_lends_its_one_slot() -> None:
    ran = execute([fan, leaf], [ToolCall("a", "fan", {"count": 5})], slots=2)
    assert ran["a"].value == 10
    assert running == [0, 2]
    assert ran.makespan == 3


def test_caller_that_is_stopped_while_it_waits_for_a_slot_gives_none_back() -> None:
    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.add(ToolCall("long", "leaf", {"seconds": 9}))
        await asyncio.sleep(1)  # the caller's call has ended, and the long one has the slot
        executor.cancel("caller", "not wanted")
        for number in range(3):
            executor.add(ToolCall(f"next {number}", "leaf", {"number": number}))

    ran = execute([one, leaf], [ToolCall("caller", "one")], drive, slots=1)
    assert running == [0, 1]
    assert ran["caller"].ended_s == 1.5


def test_caller_that_is_stopped_while_its_call_runs_ends_at_once() -> None:
    @tool
    async def patient(ctx: Context[Any] = CONTEXT) -> int:
        return await ctx.call(leaf, seconds=20)

    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.add(ToolCall("behind", "leaf", {"seconds": 9}))
        executor.cancel("caller", "not wanted")
        await executor.wait()
        executor.add(ToolCall("next", "leaf", {"number": 1}))

    ran = execute([patient, leaf], [ToolCall("caller", "patient")], drive, slots=1)
    assert ran["caller"].ended_s == 0.5
    assert running == [0, 1]


def test_tool_that_leaves_a_call_behind_keeps_no_slot() -> None:
    left: list[asyncio.Task[int]] = []

    @tool
    async def hasty(ctx: Context[Any] = CONTEXT) -> str:
        left.append(asyncio.create_task(ctx.call(leaf)))
        await asyncio.sleep(0.5)
        return "done"

    async def drive(executor: Executor) -> None:
        await executor.wait("a")
        await asyncio.sleep(1)
        executor.add(ToolCall("b", "leaf", {"number": 1}))
        executor.add(ToolCall("c", "leaf", {"number": 2}))

    ran = execute([hasty, leaf], [ToolCall("a", "hasty")], drive, slots=1)
    assert [task.result() for task in left] == [0]
    assert running == [0, 1]
    assert ran["c"].ended_s == 3.5


@tool(effect="read")
async def ask(number: int, ctx: Context[Any] = CONTEXT) -> int:
    """Make one call, which may begin early."""
    return await ctx.call(leaf, number)


@pytest.mark.parametrize("sealed", [1, 2])
@pytest.mark.parametrize("pause_s", [0.5, 3])
def test_call_of_a_tool_that_ran_early_has_one_end(sealed: int, pause_s: float) -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "ask")
        assert executor.start_early(ToolCall("a", "ask", {"number": 1}))
        await asyncio.sleep(pause_s)
        executor.seal(ToolCall("a", "ask", {"number": sealed}))

    ran = execute([ask, leaf], [], drive)  # it looks at the ends
    assert ran["a"].value == sealed
    is_stopped = sealed != 1 and pause_s == 0.5
    assert ran["a/leaf"].state == ("cancelled" if is_stopped else "finished")


def test_run_waits_for_a_person_only_when_no_other_call_of_a_tool_runs() -> None:
    @tool(approval=True)
    async def sign() -> str:
        return "signed"

    @tool(effect="read")
    async def both(ctx: Context[Any] = CONTEXT) -> str:
        async def two_in_a_row() -> int:
            return await ctx.call(leaf, 1) + await ctx.call(leaf, 2)

        word, total = await asyncio.gather(ctx.call(sign), two_in_a_row())
        return f"{word} {total}"

    async def drive(executor: Executor) -> None:
        await executor.wait()
        assert [executor.now(), *(call.id for call in executor.pending)] == [2, "a/sign"]
        executor.decide("a/sign", Approve())

    ran = execute([both, sign, leaf], [ToolCall("a", "both")], drive)
    assert ran["a"].value == "signed 3"


def test_tool_that_asks_again_gets_a_new_result() -> None:
    progress = iter(range(10))

    @tool(effect="read")
    async def get_progress() -> int:
        await asyncio.sleep(1)
        return next(progress)

    @tool(effect="read")
    async def is_done(progress: int = Needs(get_progress)) -> bool:
        return progress >= 3

    @tool(effect="read")
    async def ask_again(ctx: Context[Any] = CONTEXT) -> list[Any]:
        return [await ctx.call(tool) for tool in (get_progress, get_progress, is_done, is_done)]

    ran = execute([ask_again, is_done, get_progress], [ToolCall("a", "ask_again")])
    assert ran["a"].value == [0, 1, False, True]


def test_tool_takes_what_was_found_before_it_began_and_joins_what_runs() -> None:
    async def drive(executor: Executor) -> None:
        executor.add(ToolCall("before", "leaf"))
        await asyncio.sleep(2)
        executor.add(ToolCall("one", "one"))
        executor.add(ToolCall("fan", "fan", {"count": 3}))
        executor.add(ToolCall("another", "fan", {"count": 2}))

    ran = execute([one, fan, leaf], [], drive)
    assert [event.call for event in ran.log.events if isinstance(event, CallStarted)] == [
        "before",
        "one",
        "fan",
        "another",
        "fan/leaf_2",
        "fan/leaf_3",
    ]


@tool(effect="read")
async def there(ctx: Context[Any] = CONTEXT) -> str:
    """Ask the other way."""
    await asyncio.sleep(1)
    answer: str = await ctx.call(back)
    return answer


@tool(effect="read")
async def back(ctx: Context[Any] = CONTEXT) -> str:
    """Ask the one who asks."""
    await asyncio.sleep(1)
    answer: str = await ctx.call(there)
    return answer


@pytest.mark.parametrize("names", [["there"], ["there", "back"]])
def test_read_that_waits_for_its_own_result_is_a_circle_and_no_hang(names: list[str]) -> None:
    ran = execute([there, back], [ToolCall(name, name) for name in names], timeout_s=9)
    assert {outcome.state for outcome in ran.executor.outcomes.values()} == {"failed"}
    assert "a circle: " in (ran["there"].error or "")


@pytest.mark.parametrize(("inner", "attempts"), [("write", 1), ("idempotent", 3), ("read", 3)])
def test_tool_that_fails_after_a_write_of_its_own_is_not_tried_again(inner: Effect, attempts: int) -> None:
    ran: list[str] = []

    @tool(effect=inner)
    async def step_inside(name: str) -> str:
        ran.append(name)
        return name

    @tool(effect="read")
    async def through(name: str, ctx: Context[None] = CONTEXT) -> str:
        return await ctx.call(step_inside, name)

    @tool(effect="idempotent", retries=2)
    async def outer(ctx: Context[None] = CONTEXT) -> str:
        await ctx.call(through, "a")
        raise RuntimeError("the line broke")

    result = execute([outer, through, step_inside], [ToolCall("o", "outer")])["o"]
    assert (result.state, result.attempt, len(ran)) == ("failed", attempts, attempts)


def test_what_an_approval_rule_says_is_not_the_result_of_the_call() -> None:
    @tool(effect="read", approval=lambda arguments, context: False)
    async def free(number: int) -> int:
        await asyncio.sleep(1)
        return number

    @tool(effect="read")
    async def twice(ctx: Context[Any] = CONTEXT) -> list[int]:
        return list(await asyncio.gather(ctx.call(free, 7), ctx.call(free, 7)))

    ran = execute([twice, free], [ToolCall("a", "twice")])
    assert ran["a"].value == [7, 7], "the second takes the first one's result, and not what its rule said"
    assert ran["a/free_2"].source == "flight"


def test_outcomes_say_what_became_of_each_call() -> None:
    ran = execute([leaf], [ToolCall("a", "leaf", {})])
    assert repr(ran.executor.outcomes) == "Outcomes({'a': finished})"
