"""An agent as a tool of another one: what it may do counts, what it does is seen, and it ends with its call."""

import asyncio
from typing import Any

import pytest

from flowkit.agent import Agent
from flowkit.agent.run import AgentResult
from flowkit.context import CONTEXT, Context
from flowkit.errors import DefinitionError
from flowkit.events import CallFinished, CallNew, CallStarted, Event, RunFinished
from flowkit.messages import ToolMessage
from flowkit.models.scripted import Script, ScriptedModel, call
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool

CLOSING = (
    "call.finished",
    "call.failed",
    "call.cancelled",
    "call.void",
    "call.in_doubt",
    "call.skipped",
    "call.denied",
)


@tool(effect="read")
async def look(name: str, ctx: Context[str] = CONTEXT) -> str:
    """Look something up."""
    await asyncio.sleep(1)
    return f"seen {name} for {ctx.data}"


def agent_of(turns: list[Script], *tools: Any, name: str = "agent") -> Agent[str]:
    return Agent(ScriptedModel(turns), tools=tools, cache=False, name=name)


def make_outer(*inner_tools: Any) -> Agent[str]:
    inner = agent_of([[call("look", name="tea")], "It is there."], *inner_tools, name="clerk")
    return agent_of([[call("clerk", task="find tea")], "Done."], inner.as_tool(description="Ask the clerk."))


async def watch(agent: Agent[str], cancel_at: float | None = None) -> tuple[AgentResult[str], list[Event]]:
    run = agent.start("go", data="Ann")
    if cancel_at is not None:
        asyncio.get_running_loop().call_later(cancel_at, run.cancel)
    seen = [event async for event in run]
    return await run.wait(), seen


def test_its_answer_is_the_result_and_its_calls_stand_under_the_call() -> None:
    result, seen = run_virtual(watch(make_outer(look)))
    assert [message.text for message in result.messages if isinstance(message, ToolMessage)] == ["It is there."]
    news = [(event.call, event.parent) for event in seen if isinstance(event, CallNew)]
    assert news == [("turn/1/call/0", None), ("turn/1/call/0/turn/1/call/0", "turn/1/call/0")]
    values = [event.value for event in seen if isinstance(event, CallFinished)]
    assert values == ["seen tea for Ann", "It is there."]


def test_its_effect_is_the_strongest_of_its_tools() -> None:
    @tool
    def order(name: str) -> str:
        return name

    assert agent_of([], look).as_tool().effect == "read"
    assert agent_of([], look, order).as_tool().effect == "write"


def test_one_that_only_reads_starts_before_the_turn_has_ended() -> None:
    inner = agent_of(["Hello."], name="clerk")
    outer = agent_of([[call("clerk", task="hi"), 5.0, "…"], "Done."], inner.as_tool())
    _, seen = run_virtual(watch(outer))
    assert [event.t for event in seen if isinstance(event, CallStarted)] == [0.0]


def test_a_tool_that_always_asks_a_person_is_refused() -> None:
    @tool(approval=True)
    def pay(won: int) -> str:
        return "paid"

    with pytest.raises(DefinitionError, match="its tool 'pay' asks a person"):
        agent_of([], pay).as_tool()


def test_a_rule_that_asks_ends_the_task_with_an_error_and_pays_nothing() -> None:
    paid: list[int] = []

    @tool(approval=lambda arguments, _: arguments["won"] > 10)
    def pay(won: int) -> str:
        paid.append(won)
        return "paid"

    inner = agent_of([[call("pay", won=5), call("pay", won=50)], "Paid."], pay, name="clerk")
    outer = agent_of([[call("clerk", task="pay")], "Done."], inner.as_tool())
    result, _ = run_virtual(watch(outer))
    told = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert told == ["not done: pay needs a person's decision, which can't be had here"]
    assert paid == [5]


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
def test_stopped_it_stops_and_every_call_is_closed(moment: float) -> None:
    _, seen = run_virtual(watch(make_outer(look), moment))
    opened = [event.call for event in seen if isinstance(event, CallNew)]
    closed = [str(event.to_json()["call"]) for event in seen if event.type in CLOSING]
    assert sorted(opened) == sorted(closed)
    assert isinstance(seen[-1], RunFinished)
    assert [event.seq for event in seen] == sorted({event.seq for event in seen})
