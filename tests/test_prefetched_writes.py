"""A prefetched read that makes a write: nobody has asked for it before the model has."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from flowkit import Agent, Context, ModelError, Needs, ScriptedModel, tool
from flowkit.context import CONTEXT
from flowkit.errors import FlowkitError
from flowkit.events import TurnFinished
from flowkit.testing import call
from flowkit.testing.loop import run_virtual
from flowkit.tools import Tool

GONE = ModelError("the stream broke", retryable=True)
GONE_FOR_GOOD = ModelError("the stream broke", retryable=False)


class Bank:
    """Notes when each write was made."""

    def __init__(self, effect: Any) -> None:
        self.paid: list[float] = []

        @tool(effect=effect)
        async def pay() -> str:
            """Pay."""
            self.paid.append(asyncio.get_running_loop().time())
            return "paid"

        @tool(effect="read")
        async def look(ctx: Context[Any] = CONTEXT) -> str:
            """Say that it only reads, and pay."""
            return await ctx.call(pay)

        @tool(effect="read")
        async def ask() -> str:
            """Say that it only reads, and let an agent pay."""
            inner = Agent(ScriptedModel([[call("pay")], "It is paid."]), tools=[pay], cache=False)
            return (await inner.run("Pay.")).text

        @tool(effect="read")
        async def report(seen: str = Needs(look)) -> str:
            """Make a report of what it needs."""
            return f"report: {seen}"

        self.tools: dict[str, Tool[..., Any]] = {"look": look, "ask": ask, "report": report}


def start(bank: Bank, guessed: str, turns: list[Any]) -> list[float]:
    """Run with a prefetched read; give when the turns ended well, or nothing if the run failed."""

    async def go() -> list[float]:
        tools = list(bank.tools.values())
        run = Agent(ScriptedModel(turns), tools=tools, cache=False, prefetch=[bank.tools[guessed].call()]).start("Go.")
        with suppress(FlowkitError):
            await run.wait()
        return [event.t for event in run.log.events if isinstance(event, TurnFinished) and event.error is None]

    return run_virtual(go())


@pytest.mark.parametrize("effect", ["write", "idempotent"])
@pytest.mark.parametrize("guessed", ["look", "ask", "report"])
@pytest.mark.parametrize("turns", [[[2.0, "Hello."]], [[2.0, "Hel", GONE], [2.0, "Hello."]], [[2.0, GONE_FOR_GOOD]]])
def test_guess_that_nobody_asks_for_writes_nothing(effect: str, guessed: str, turns: list[Any]) -> None:
    bank = Bank(effect)
    start(bank, guessed, turns)
    assert bank.paid == []


@pytest.mark.parametrize("effect", ["write", "idempotent"])
@pytest.mark.parametrize("guessed", ["look", "ask", "report"])
@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("before_s", [0.0, 2.0])
def test_guess_that_is_asked_for_writes_once_when_the_turn_has_ended_well(
    effect: str, guessed: str, broken: int, before_s: float
) -> None:
    bank = Bank(effect)
    asked = [before_s, call(guessed), 1.0, "One moment."]
    ends = start(bank, guessed, [*[[*asked, GONE]] * broken, asked, "Done."])
    assert len(ends) == 2
    assert len(bank.paid) == 1
    assert bank.paid[0] >= ends[0]


@pytest.mark.parametrize("guessed", ["look", "report"])
def test_guess_that_is_asked_for_by_a_need_writes_once(guessed: str) -> None:
    bank = Bank("write")
    ends = start(bank, guessed, [[1.0, call("report"), 1.0, "One moment."], "Done."])
    assert len(bank.paid) == 1
    assert bank.paid[0] >= ends[0]


def test_guess_whose_need_alone_is_asked_for_writes_once() -> None:
    bank = Bank("write")
    ends = start(bank, "report", [[1.0, call("look"), 1.0, "One moment."], "Done."])
    assert len(bank.paid) == 1
    assert bank.paid[0] >= ends[0]


def test_run_that_is_cancelled_leaves_no_write_of_a_guess() -> None:
    bank = Bank("write")

    async def go() -> None:
        look = bank.tools["look"]
        run = Agent(ScriptedModel([[5.0, "Hello."]]), tools=[look], cache=False, prefetch=[look.call()]).start("Go.")
        await asyncio.sleep(1)
        run.cancel()
        await run.wait()

    run_virtual(go())
    assert bank.paid == []
