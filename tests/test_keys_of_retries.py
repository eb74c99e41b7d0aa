"""A retry in the same process makes the same calls: each has the key that it had in the attempt before."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Agent, Context, Executor, ScriptedModel, ToolCall, recipe, step, tool
from flowkit.context import CONTEXT
from flowkit.executor.outcomes import Outcome
from flowkit.models.base import ModelRequest
from flowkit.testing import call
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, Tool
from tests.stores import opened_journal

KINDS = ["call", "call through a read", "agent", "agent as tool", "recipe", "recipe as tool", "agent in a read"]
BREAK = "the line broke"


def make_tree(kind: str, keys: list[str], fails: int) -> list[Tool[..., Any]]:
    """Make `work`, which pays twice in each attempt, and whose first attempts fail after it; and its parts."""

    @tool(effect="idempotent")
    async def pay(amount: int, ctx: Context[Any] = CONTEXT) -> str:
        """Pay."""
        keys.append(ctx.idempotency_key)
        return "paid"

    def say(request: ModelRequest) -> Any:
        return "ok" if request.turn > 1 else [call("pay", amount=1), call("pay", amount=2)]

    clerk = Agent(ScriptedModel(say), tools=[pay], cache=False, name="clerk")
    clerk_tool = clerk.as_tool()

    @recipe
    def settle() -> list[str]:
        return [step(pay, amount=1), step(pay, amount=2)]  # type: ignore[list-item]

    @tool(effect="read")
    async def through(amount: int, ctx: Context[Any] = CONTEXT) -> str:
        """Pay through a read."""
        return await ctx.call(pay, amount)

    @tool(effect="read")
    async def ask(ctx: Context[Any] = CONTEXT) -> str:
        """Ask the clerk."""
        return (await clerk.run("a")).text

    settle_tool = settle.as_tool()

    @tool(effect="idempotent", retries=2)
    async def work(ctx: Context[Any] = CONTEXT) -> str:
        """Work."""
        match kind:
            case "call":
                await ctx.call(pay, 1)
                await asyncio.gather(ctx.call(pay, 2))
            case "call through a read":
                await ctx.call(through, 1)
                await ctx.call(through, 2)
            case "agent":
                await clerk.run("a")
            case "agent as tool":
                await ctx.call(clerk_tool, task="a")
            case "recipe":
                await settle.run()
            case "recipe as tool":
                await ctx.call(settle_tool)
            case _:
                await ctx.call(ask)
        if ctx.attempt <= fails:
            raise RuntimeError(BREAK)
        return "done"

    return [work, pay, through, ask]


def drive(tools: list[Tool[..., Any]], within_s: float | None = None, **options: Any) -> Outcome:
    async def go() -> Outcome:
        async with Executor(tools, user="ann", run_id="r", **options) as graph:
            graph.add(ToolCall("a", "work"))
            await asyncio.wait_for(graph.wait(), within_s)
        return graph.outcomes["a"]

    return run_virtual(go())


@pytest.mark.parametrize("kind", KINDS)
def test_a_retry_pays_with_the_keys_of_the_attempt_before(kind: str) -> None:
    keys: list[str] = []
    ended = drive(make_tree(kind, keys, fails=2))
    assert (ended.state, ended.attempt) == ("finished", 3)
    assert len(set(keys[:2])) == 2
    assert keys == keys[:2] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_keys_after_a_crash_are_those_of_the_retry_before_it(kind: str) -> None:
    keys: list[str] = []
    drive(make_tree(kind, keys, fails=0))
    first = list(keys)
    keys.clear()
    drive(make_tree(kind, keys, fails=2))
    assert keys[2:] == first * 2


def test_what_a_retry_read_is_not_the_result_of_another_call_after_a_crash(tmp_path: Path) -> None:
    """The first process ends in its second attempt; the second one reads on in its first attempt."""
    lines = ["broken", "whole"]

    @tool(effect="read")
    async def look(name: str) -> str:
        """Look."""
        return f"seen {name}"

    @tool(effect="idempotent", retries=1)
    async def work(ctx: Context[Any] = CONTEXT) -> list[str]:
        """Work."""
        first = await ctx.call(look, "x")
        if lines[0] == "broken":
            if ctx.attempt == 2:
                await asyncio.sleep(1000)
            raise RuntimeError(BREAK)
        return [first, await ctx.call(look, "y")]

    with opened_journal(tmp_path / "j") as journal:
        with pytest.raises(TimeoutError):
            drive([work, look], journal=journal, within_s=100)
        del lines[0]
        assert drive([work, look], journal=journal).value == ["seen x", "seen y"]


@given(plan=st.lists(st.lists(st.sampled_from("ab"), max_size=4), min_size=1, max_size=4))
def test_the_nth_call_of_a_tool_has_one_key_in_every_attempt(plan: list[list[str]]) -> None:
    """For every plan of calls for each attempt, with a need and a call of a guard in the way."""
    seen: list[list[tuple[str, str]]] = []
    ids: list[str] = []

    @tool(effect="idempotent")
    async def a(ctx: Context[Any] = CONTEXT) -> str:
        """Act."""
        return note("a", ctx)

    @tool(effect="idempotent")
    async def b(ctx: Context[Any] = CONTEXT) -> str:
        """Act."""
        return note("b", ctx)

    def note(name: str, ctx: Context[Any]) -> str:
        if seen:
            seen[-1].append((name, ctx.idempotency_key))
        ids.append(ctx.call_id)
        return name

    @tool(effect="idempotent", retries=len(plan) - 1)
    async def work(needed: str = Needs(a), ctx: Context[Any] = CONTEXT) -> str:
        """Work."""
        seen.append([])
        for name in plan[ctx.attempt - 1]:
            await ctx.call(a if name == "a" else b)
        if ctx.attempt < len(plan):
            raise RuntimeError(BREAK)
        return "done"

    assert drive([work, a, b]).state == "finished"
    assert len(ids) == len(set(ids))
    numbered = [
        Counter(name for name, _ in attempt[: place + 1])[name]
        for attempt in seen
        for place, (name, _) in enumerate(attempt)
    ]
    keys = {
        (number, name, key)
        for number, (name, key) in zip(numbered, [one for attempt in seen for one in attempt], strict=True)
    }
    assert len({key for *_, key in keys}) == len({(number, name) for number, name, _ in keys}) == len(keys)


def test_a_write_that_never_began_keeps_its_id_in_the_retry(tmp_path: Path) -> None:
    """A crash after the retry's write finds it: the first attempt after it asks for that id."""
    paid: list[str] = []

    @tool(effect="write")
    async def pay(ctx: Context[Any] = CONTEXT) -> str:
        """Pay."""
        paid.append(ctx.call_id)
        return "paid"

    @tool(effect="read", retries=0)
    async def hold() -> str:
        """Hold the only slot."""
        await asyncio.sleep(2)
        return "held"

    @tool(effect="idempotent", retries=1, timeout=1)
    async def work(ctx: Context[Any] = CONTEXT) -> str:
        """Work."""
        return await ctx.call(pay)

    async def go() -> list[str]:
        async with Executor([work, pay, hold], user="ann", run_id="r", slots=1) as graph:
            graph.add(ToolCall("a", "work"))
            graph.add(ToolCall("h", "hold"))
            graph.add(ToolCall("h2", "hold"))
            await graph.wait()
        assert graph.outcomes["a"].state == "finished", graph.outcomes["a"]
        assert graph.outcomes["a"].attempt == 2
        return paid

    assert run_virtual(go()) == ["a/pay"]
