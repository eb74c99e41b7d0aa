"""An agent as a tool of another one: what it may do counts, what it does is seen, and it ends with its call."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.agent import Agent, AgentResult
from flowkit.context import CONTEXT, Context
from flowkit.errors import DefinitionError
from flowkit.events import CallFinished, CallNew, CallStarted, Event, NestedTurn, RunFinished, UsageReported
from flowkit.journal import Journal
from flowkit.messages import ToolMessage, Usage, UserMessage
from flowkit.models.pricing import Price
from flowkit.models.scripted import Script, ScriptedModel, call
from flowkit.recipes import ask, recipe, step
from flowkit.runs.limits import Limits
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


def agent_of(turns: list[Script], *tools: Any, name: str = "agent", limits: Limits | None = None) -> Agent[str]:
    return Agent(ScriptedModel(turns), tools=tools, cache=False, name=name, limits=limits)


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


def test_a_recipe_that_writes_is_no_tool_if_it_always_asks_and_fails_where_its_rule_asks() -> None:
    paid: list[int] = []

    @tool(approval=True)
    def pay_asking(won: int) -> str:
        paid.append(won)
        return "paid"

    @tool(approval=lambda arguments, _: arguments["won"] > 10)
    def pay(won: int) -> str:
        paid.append(won)
        return "paid"

    @recipe
    def settle_asking(won: int) -> str:
        return step(pay_asking, won)

    @recipe
    def settle(won: int) -> str:
        return step(pay, won)

    with pytest.raises(DefinitionError, match="can't be a tool: its step 'pay_asking' asks a person"):
        settle_asking.as_tool()
    outer = agent_of([[call("settle", won=5), call("settle", won=50)], "Done."], settle.as_tool())
    result, _ = run_virtual(watch(outer))
    told = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert told[0] == "paid"
    assert "a person has to decide on it" in told[1]
    assert paid == [5]


def as_its_tool(clerk: Agent[str]) -> Any:
    return clerk.as_tool(name="find")


def in_a_recipe(clerk: Agent[str]) -> Any:
    @recipe
    def find(task: str) -> str:
        return ask(clerk, "Do {task}.", task=task)

    return find.as_tool()


@pytest.mark.parametrize("make", [as_its_tool, in_a_recipe])
def test_what_is_said_inside_is_no_part_of_the_conversation(make: Callable[[Agent[str]], Any], tmp_path: Path) -> None:
    inner = ScriptedModel(["There."] * 2)

    async def go() -> AgentResult[str]:
        journal = Journal(tmp_path / "runs.db")
        clerk = Agent(inner, name="clerk", cache=False, journal=journal)
        turns: list[Script] = ["Hello.", [call("find", task="find tea")], "Done.", "Bye."]
        outer = Agent(ScriptedModel(turns), tools=[make(clerk)], cache=False, journal=journal)
        for message in ("Hi", "Find tea."):
            await outer.run(message, user="Ann", session="s")
        result = await outer.run("Bye", user="Ann", session="s")
        journal.close()
        return result

    said = [message.content for message in run_virtual(go()).messages if isinstance(message, UserMessage)]
    assert said == ["Hi", "Find tea.", "Bye"]
    assert len(inner.requests[0].messages) == 1


# What it spends

DOLLARS = Price(input=1.0, output=1.0)


def priced(turns: list[Script], *, price: Price | None = DOLLARS, **options: Any) -> Agent[str]:
    return Agent(ScriptedModel(turns, price=price), cache=False, **options)


def make_clerk(*, price: Price | None = DOLLARS) -> Agent[str]:
    return priced([["It is there.", Usage(400_000, 100_000)]], price=price, name="clerk")


ASKS: Script = [call("find", task="find tea"), Usage(90, 10)]
AGAIN: Script = ["Done.", Usage(40, 60)]


def in_a_tool_of_the_users_own(clerk: Agent[str]) -> Any:
    @tool(name="find")
    async def call_it(task: str) -> str:
        return (await clerk.run(task)).output or ""

    return call_it


def in_a_thread(clerk: Agent[str]) -> Any:
    @tool(name="find")
    def call_it(task: str) -> str:
        return clerk.run_sync(task).output or ""

    return call_it


@pytest.mark.parametrize("make", [as_its_tool, in_a_recipe, in_a_tool_of_the_users_own, in_a_thread])
def test_what_it_spends_counts_for_the_run_that_asked(make: Callable[[Agent[str]], Any]) -> None:
    result = run_virtual(priced([ASKS, AGAIN], tools=[make(make_clerk())]).run("go"))
    assert result.usage == Usage(400_130, 100_070)
    assert result.cost == pytest.approx(0.5002)  # pyright: ignore[reportUnknownMemberType]  # pytest's own type


@pytest.mark.parametrize("limits", [Limits(tokens=500_000), Limits(cost_usd=0.5)])
def test_the_outer_limits_hold_for_what_it_spends(limits: Limits) -> None:
    result = run_virtual(priced([ASKS, AGAIN], tools=[as_its_tool(make_clerk())], limits=limits).run("go"))
    assert result.status == "limit"
    assert [message.text for message in result.messages if isinstance(message, ToolMessage)] == ["It is there."]


def test_it_stops_where_the_outer_limit_is_reached() -> None:
    clerk = agent_of([[call("look", name="tea"), Usage(400, 200)], "It is there."], look, name="clerk")
    result = run_virtual(agent_of([ASKS, AGAIN], as_its_tool(clerk), limits=Limits(tokens=500)).run("go", data=""))
    assert result.status == "limit"
    assert [message.text for message in result.messages if isinstance(message, ToolMessage)] == [
        "find ended without an answer (limit): the limit of 500 tokens is reached"
    ]


def test_an_outer_limit_on_cost_refuses_a_model_without_a_price() -> None:
    clerk = make_clerk(price=None)
    result = run_virtual(priced([ASKS, AGAIN], tools=[as_its_tool(clerk)], limits=Limits(cost_usd=9)).run("go"))
    told = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert "the price of model 'scripted' isn't known" in told[0]
    assert result.output == "Done."


def test_runs_side_by_side_count_each_for_itself() -> None:
    async def go() -> list[Usage]:
        outer = [priced([ASKS, AGAIN], tools=[as_its_tool(make_clerk())]), priced([AGAIN])]
        return [result.usage for result in await asyncio.gather(*(agent.run("go") for agent in outer))]

    assert run_virtual(go()) == [Usage(400_130, 100_070), Usage(40, 60)]


def test_the_events_tell_what_each_spent() -> None:
    _, seen = run_virtual(watch(priced([ASKS, AGAIN], tools=[as_its_tool(make_clerk())])))
    told = [(event.call, event.usage.total_tokens) for event in seen if isinstance(event, UsageReported)]
    assert told == [(None, 100), ("turn/1/call/0", 500_000), (None, 100)]


# How it ends


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
def test_stopped_it_stops_and_every_call_is_closed(moment: float) -> None:
    _, seen = run_virtual(watch(make_outer(look), moment))
    opened = [event.call for event in seen if isinstance(event, CallNew)]
    closed = [str(event.to_json()["call"]) for event in seen if event.type in CLOSING]
    assert sorted(opened) == sorted(closed)
    assert isinstance(seen[-1], RunFinished)
    assert [event.seq for event in seen] == sorted({event.seq for event in seen})


def test_turns_of_a_nested_agent_are_told_in_the_outer_run() -> None:
    innermost = agent_of(["deep"], name="deep")
    inner = agent_of([[call("deep", task="hm")], "Shipped."], innermost.as_tool(), name="clerk")
    outer = agent_of([[call("clerk", task="hi")], "Done."], inner.as_tool())

    async def go() -> list[NestedTurn]:
        run = outer.start("go")
        return [event async for event in run if isinstance(event, NestedTurn)]

    told = [(event.call, event.turn, event.state, event.reason) for event in run_virtual(go())]
    assert told == [
        ("turn/1/call/0", 1, "started", None),
        ("turn/1/call/0", 1, "finished", "tool_calls"),
        ("turn/1/call/0/turn/1/call/0", 1, "started", None),
        ("turn/1/call/0/turn/1/call/0", 1, "finished", "stop"),
        ("turn/1/call/0", 2, "started", None),
        ("turn/1/call/0", 2, "finished", "stop"),
    ]
