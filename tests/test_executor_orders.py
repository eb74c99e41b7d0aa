"""Calls put in, started early, sealed, voided, cancelled and decided on in any order: each ends once, and frees all."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowkit.context import CONTEXT, Context
from flowkit.executor import Approve, Deny, Executor
from flowkit.references import Reference, ToolCall
from flowkit.tools import Needs, tool
from tests.example_counts import examples
from tests.executing import AnyTool, execute

running = [0, 0]
"""How many tools run, and the most that did at once; those that wait for calls of their own aside."""


async def take(seconds: float) -> None:
    running[0] += 1
    running[1] = max(running)
    try:
        await asyncio.sleep(seconds)
    finally:
        running[0] -= 1


@tool(effect="read")
async def look(number: int = 0) -> int:
    """Read."""
    await take(1)
    return number


@tool(effect="read", timeout=0.7, retries=1)
async def slow(number: int = 0) -> int:
    """Take too long."""
    await take(1)
    return number


@tool(resource="order:{number}")
async def change(number: int = 0) -> int:
    """Write."""
    await take(1)
    return number


@tool(approval=True, resource="order:{number}")
async def pay(number: int = 0) -> int:
    """Write when a person agrees."""
    await take(1)
    return number


@tool(effect="read")
async def quote(order: int = Needs(look)) -> int:
    """Need a read."""
    await take(1)
    return order


@tool(effect="read")
async def fan(number: int = 0, ctx: Context[Any] = CONTEXT) -> int:
    """Make calls at once, and do without those that fail."""
    calls = [ctx.call(made, number) for made in (look, slow, pay)[: number + 1]]
    return len(await asyncio.gather(*calls, return_exceptions=True))


TOOLS: list[AnyTool] = [look, slow, change, pay, quote, fan]


async def drive_in_any_order(executor: Executor, random: Random) -> None:
    early: dict[str, ToolCall] = {}
    made: list[str] = []
    for step in range(random.randint(2, 10)):
        call = ToolCall(f"c{step}", random.choice(TOOLS).name, {"number": random.randint(0, 2)})
        match random.choice(["add", "add", "refer", "announce", "announce", "seal", "void", "cancel"]):
            case "refer" if made:
                executor.add(ToolCall(call.id, "look", {"number": Reference(random.choice(made))}))
            case "announce":
                executor.announce(call.id, call.name)
                executor.start_early(call)
                early[call.id] = call
            case "seal" if early:
                begun = early.popitem()[1]
                executor.seal(ToolCall(begun.id, begun.name, random.choice([begun.arguments, call.arguments])))
            case "void" if early:
                executor.void(early.popitem()[0], "cut off")
            case "cancel" if early or made:
                executor.cancel(random.choice([*early, *made]), "not wanted")
            case _:
                executor.add(call)
                made.append(call.id)
        _decide(executor, lambda: random.choice([Approve(), Approve({"number": 1}), Deny("no")]))
        await asyncio.sleep(random.choice([0, 0.1, 0.5, 1]))
    for begun in early.values():
        executor.seal(begun)
    await executor.wait()
    while executor.pending:
        _decide(executor, Approve)
        await executor.wait()


def _decide(executor: Executor, choose: Callable[[], Approve | Deny]) -> None:
    for asked in executor.pending:
        # A decision may end others: where one item is denied, the list that it is of may be stopped.
        if any(asked.id == left.id for left in executor.pending):
            executor.decide(asked.id, choose())


@settings(max_examples=examples(200))
@given(st.integers(0, 10**6), st.integers(1, 3))
@example(6746, 1)  # an early call is cancelled, and sealed with other arguments: what it needs begins again
def test_every_order_ends_each_call_once_within_its_slots(seed: int, slots: int) -> None:
    running[:] = [0, 0]
    random = Random(seed)

    async def drive(executor: Executor) -> None:
        async with asyncio.timeout(1000):
            await drive_in_any_order(executor, random)
        # What was stopped only now, with a voided call, has ended one turn of the loop later.
        await asyncio.sleep(0)
        before = running[0]
        # All that was taken is free again: as many run at once as may.
        for number in range(slots + 1):
            executor.add(ToolCall(f"last {number}", "look", {"number": 10 + number}))
        await asyncio.sleep(0.5)
        assert (before, running[0]) == (0, slots)

    execute(TOOLS, [], drive, slots=slots)  # it looks at the ends
    assert running[1] <= slots
