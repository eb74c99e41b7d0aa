"""What saves time and what doesn't, in virtual time: each figure is the one that the page about time works out."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.agent import Agent, AgentResult
from flowkit.cache import DiskCache
from flowkit.models.scripted import Script, ScriptedModel, call
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, tool
from tests.example_counts import examples

FIRST_TOKEN_S = 1.0


@tool(effect="read")
async def look(name: str, seconds: float = 0.3) -> str:
    """Look something up."""
    await asyncio.sleep(seconds)
    return f"seen {name}"


@tool(effect="read")
async def get_order() -> str:
    """Get the order."""
    await asyncio.sleep(0.3)
    return "ORD-1"


@tool(effect="read")
async def quote(order: str) -> int:
    """Quote the shipping of an order."""
    await asyncio.sleep(0.3)
    return 3000


@tool(effect="read")
async def quote_latest(order: str = Needs(get_order)) -> int:
    """Quote the shipping of the order."""
    await asyncio.sleep(0.3)
    return 3000


def time_run(turns: Sequence[Script], *tools: Any, **options: Any) -> tuple[float, AgentResult[str], ScriptedModel]:
    """Run an agent whose model takes a second until the first token of each turn; give the seconds it took."""
    model = ScriptedModel([[FIRST_TOKEN_S, *([turn] if isinstance(turn, str) else turn)] for turn in turns])

    async def go() -> tuple[float, AgentResult[str], ScriptedModel]:
        loop = asyncio.get_running_loop()
        options.setdefault("cache", False)
        result = await Agent(model, tools=tools, **options).run("go")
        assert result.status == "done"
        return loop.time(), result, model

    return run_virtual(go())


def about(seconds: float) -> Any:
    return pytest.approx(seconds)  # pyright: ignore[reportUnknownMemberType]  # pytest's own type


Times = st.integers(0, 20).map(lambda tenths: tenths / 10)
Calls = st.lists(st.tuples(Times, Times), min_size=1, max_size=4)


@settings(max_examples=examples(200), deadline=None)
@given(calls=Calls, after_s=Times)
def test_for_every_turn_starting_early_and_late_take_the_times_that_the_page_says(
    calls: list[tuple[float, float]], after_s: float
) -> None:
    asked = [call("look", name=str(n), seconds=takes).slowly(said) for n, (said, takes) in enumerate(calls)]
    turns: list[Script] = [[*asked, after_s, "…"], "Done."]
    complete = [sum(said for said, _ in calls[: n + 1]) for n in range(len(calls))]
    spoken = complete[-1] + after_s
    early = 2 * FIRST_TOKEN_S + max(spoken, *(s + takes for s, (_, takes) in zip(complete, calls, strict=True)))
    late = 2 * FIRST_TOKEN_S + spoken + max(takes for _, takes in calls)

    assert time_run(turns, look)[0] == about(early)
    assert time_run(turns, look, early=False)[0] == about(late)
    # It saves at most what comes after the calls, or after the slowest of them.
    slowest = max(range(len(calls)), key=lambda n: calls[n][1])
    assert late - early <= spoken - complete[slowest] + 1e-9
    if not after_s and slowest == len(calls) - 1:
        assert early == about(late)


def test_early_start_saves_nothing_where_all_calls_come_at_the_end() -> None:
    turns: list[Script] = [[2.0, call("look", name="a"), call("look", name="b")], "Done."]
    assert time_run(turns, look)[0] == time_run(turns, look, early=False)[0]


def test_slowest_call_first_is_a_head_start() -> None:
    slow, quick = call("look", name="a", seconds=1.0).slowly(0.2), call("look", name="b").slowly(0.2)
    first, last = time_run([[slow, quick], "Done."], look)[0], time_run([[quick, slow], "Done."], look)[0]
    assert (first, last) == (about(3.2), about(3.4))


def test_declared_need_saves_a_turn() -> None:
    asked, _, conversation = time_run([[call("get_order")], [call("quote", order="ORD-1")], "Done."], get_order, quote)
    needed, _, shorter = time_run([[call("quote_latest")], "Done."], quote_latest)
    assert (len(conversation.requests), len(shorter.requests)) == (3, 2)
    assert asked - needed == about(FIRST_TOKEN_S)


def test_prefetched_read_runs_beside_the_first_request_and_is_joined() -> None:
    turns: list[Script] = [[call("get_order")], "Done."]
    plain, _, model = time_run(turns, get_order)
    guessed, result, same = time_run(turns, get_order, prefetch=[get_order.call()])
    assert plain - guessed == about(0.3)
    assert result.prefetched == (1, 1)
    assert same.requests[0].messages == model.requests[0].messages, "the model isn't told"
    wrong, result, _ = time_run(["Done."], get_order, prefetch=[get_order.call()])
    assert (wrong, result.prefetched) == (about(FIRST_TOKEN_S), (0, 1))


def test_three_calls_in_parallel_take_as_long_as_one() -> None:
    three = time_run([[call("look", name=name) for name in "abc"], "Done."], look)[0]
    assert three == time_run([[call("look", name="a")], "Done."], look)[0] == about(2.3)


def test_cached_result_saves_the_call_and_not_the_turn(tmp_path: Path) -> None:
    asked: list[str] = []

    @tool(ttl=60)
    async def find(order: str) -> str:
        """Find an order."""
        asked.append(order)
        await asyncio.sleep(0.3)
        return "shipped"

    cache = DiskCache(tmp_path / "cache")
    turns: list[Script] = [[call("find", order="ORD-1")], "Done."]
    time_run(turns, find, cache=cache)
    _, result, model = time_run(turns, find, cache=cache)
    asyncio.run(cache.close())
    assert (asked, result.calls[0].source, len(model.requests)) == (["ORD-1"], "cache", 2)
