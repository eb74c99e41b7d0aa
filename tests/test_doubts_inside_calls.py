"""A call in doubt inside another one: the run stops until a person has settled it, and the outer call sees how."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from flowkit import Agent, Context, InDoubt, ScriptedModel, ToolError, recipe, step, tool
from flowkit.context import CONTEXT
from flowkit.errors import RunError
from flowkit.executor import Executor
from flowkit.journal import Done, Fail, Journal, Resolution, Retry
from flowkit.models.base import ModelRequest
from flowkit.references import ToolCall
from flowkit.testing import call
from flowkit.tools import Tool
from tests.stores import opened_journal

AnyTool = Tool[..., Any]
Way = Literal["call", "swallowed", "agent", "agent as tool", "recipe", "optional step", "recipe run", "shared"]
Inside = Literal["call", "run", "run in a run", "recipe"]
Outer = Literal["agent", "recipe", "graph"]


class Shop:
    """The effects, and a bank that gives no answer the first time."""

    def __init__(self, way: Way, effect: Literal["read", "idempotent", "write"]) -> None:
        self.effects: list[str] = []
        self.keys: set[str] = set()
        self.answers: list[str] = []
        effects, keys = self.effects, self.keys

        @tool(effect="idempotent")
        async def book(ctx: Context[Any] = CONTEXT) -> str:
            """Book a room."""
            effects.append("book")
            keys.add(ctx.idempotency_key)
            return "booked"

        @tool(effect="write")
        async def pay(ctx: Context[Any] = CONTEXT) -> str:
            """Pay for it."""
            effects.append("pay")
            keys.add(ctx.idempotency_key)
            if effects.count("pay") == 1:
                raise InDoubt("the bank didn't answer")
            return "paid now"

        def ask(request: ModelRequest) -> Any:
            return "Done." if request.turn > 1 else [call("book"), call("pay")]

        clerk = Agent(ScriptedModel(ask), tools=[book, pay], cache=False, name="clerk")

        @recipe
        def steps() -> list[Any]:
            """Book and pay."""
            paid = step.options(optional=True)(pay) if way == "optional step" else step(pay)
            return [step(book), paid]

        @tool(effect=effect, retries=0 if effect == "write" else 2)
        async def travel(ctx: Context[Any] = CONTEXT) -> str:
            """Book and pay."""
            effects.append("travel")
            match way:
                case "agent":
                    return (await clerk.run("Go.")).text
                case "agent as tool":
                    return str(await ctx.call(clerk.as_tool(), "Go."))
                case "recipe" | "optional step":
                    return str(await ctx.call(steps.as_tool()))
                case "recipe run":
                    return str((await steps.options(cache=False).run()).output)
                case "swallowed":
                    booked = await ctx.call(book)
                    with suppress(ToolError):
                        return f"{booked}, {await ctx.call(pay)}"
                    return f"{booked}, not paid"
                case "call" | "shared":
                    return f"{await ctx.call(book)}, {await ctx.call(pay)}"

        self._travel = travel
        self._calls = [call("travel")] * (2 if way == "shared" else 1)

    def live(self, journal: Journal) -> str:
        """Run, or resume; return the status."""

        def answer(request: ModelRequest) -> Any:
            if request.turn > 1:
                self.answers.append(str(request.messages[-1]))
                return "Done."
            return self._calls

        agent = Agent(ScriptedModel(answer), tools=[self._travel], cache=False, journal=journal)
        return asyncio.run(agent.run("Go.", run_id="r")).status


def find_doubts(journal: Journal) -> list[tuple[str, str, str]]:
    """Find the calls in doubt: each with its run and its tool."""
    return [
        (summary.run_id, node, record.tool)
        for summary in journal.runs(inner=True)
        if (shown := journal.show(summary.run_id)) is not None
        for node, record in shown.nodes.items()
        if record.state == "in_doubt"
    ]


def settle(journal: Journal, payment: Resolution) -> None:
    """Settle a payment by what happened; the calls around it, which have to run again, by `Retry`."""
    for run, node, name in find_doubts(journal):
        journal.resolve(run, node, payment if name == "pay" else Retry(), by="kim")


WAYS: tuple[Way, ...] = ("call", "swallowed", "agent", "agent as tool", "recipe", "optional step", "recipe run")


@pytest.mark.parametrize("payment", [Done("paid, says the bank"), Retry(), Fail("refused")])
@pytest.mark.parametrize("effect", ["read", "idempotent"])
@pytest.mark.parametrize("way", WAYS)
def test_a_doubt_inside_a_call_stops_the_run_until_it_is_settled_and_then_the_call_runs_again(
    way: Way, effect: Literal["read", "idempotent"], payment: Resolution, tmp_path: Path
) -> None:
    shop, journal = Shop(way, effect), Journal(tmp_path / "j.sqlite3")
    assert shop.live(journal) == "in_doubt"
    doubts = find_doubts(journal)
    assert doubts
    assert shop.live(journal) == "in_doubt", "nobody has settled it"
    assert find_doubts(journal) == doubts
    assert not shop.answers, "the model hears nothing yet"

    settle(journal, payment)
    assert shop.live(journal) == "done"
    assert shop.effects.count("pay") == (2 if isinstance(payment, Retry) else 1)
    assert shop.effects.count("book") == 1, "a finished call comes from the journal"
    assert len(shop.keys) == 2
    if way == "call":
        said = {Done: "paid, says the bank", Retry: "paid now", Fail: "refused"}[type(payment)]
        assert said in shop.answers[0]
    journal.close()


@pytest.mark.parametrize("payment", [Done("paid, says the bank"), Retry()])
def test_an_equal_read_that_shares_the_result_of_one_in_doubt_is_not_over_either(
    payment: Resolution, tmp_path: Path
) -> None:
    shop, journal = Shop("shared", "read"), Journal(tmp_path / "j.sqlite3")
    assert shop.live(journal) == "in_doubt"
    settle(journal, payment)
    assert shop.live(journal) == "done"
    assert shop.effects.count("book") == 1
    shown = journal.show("r")
    assert shown is not None
    said = [node.value for node in shown.nodes.values() if node.tool == "travel"]
    assert len(said) == 2
    assert len(set(map(str, said))) == 1, "both have the settled result"
    journal.close()


def test_a_write_that_made_a_doubtful_call_and_went_on_is_not_repeated_and_the_run_tells_the_doubt(
    tmp_path: Path,
) -> None:
    shop, journal = Shop("swallowed", "write"), Journal(tmp_path / "j.sqlite3")
    assert shop.live(journal) == "in_doubt"
    assert shop.live(journal) == "in_doubt"
    settle(journal, Done("paid"))
    assert shop.live(journal) == "done"
    assert shop.effects == ["travel", "book", "pay"]
    assert "not paid" in shop.answers[0]
    journal.close()


class Swallowing:
    """A write that goes on after a doubt inside it, in a run of its own or in a call that it makes."""

    def __init__(self, way: Inside) -> None:
        self.effects: list[str] = []
        effects = self.effects

        @tool(effect="write")
        async def pay() -> str:
            """Pay."""
            effects.append("pay")
            if effects.count("pay") == 1:
                raise InDoubt("the bank didn't answer")
            return "paid now"

        def ask(request: ModelRequest) -> Any:
            return "Done." if request.turn > 1 else [call("pay")]

        clerk = Agent(ScriptedModel(ask), tools=[pay], cache=False, name="clerk")

        @tool(effect="write")
        async def chain() -> str:
            """Let the clerk pay."""
            return (await clerk.run("Go.")).text

        deeper = Agent(
            ScriptedModel(lambda asked: "Done." if asked.turn > 1 else [call("chain")]),
            tools=[chain],
            cache=False,
            name="boss",
        )

        @recipe
        def steps() -> Any:
            """Pay."""
            return step(pay)

        @tool(effect="write")
        async def travel(ctx: Context[Any] = CONTEXT) -> str:
            """Travel, paid or not."""
            effects.append("travel")
            with suppress(Exception):
                match way:
                    case "call":
                        await ctx.call(pay)
                    case "run":
                        await clerk.run("Go.")
                    case "run in a run":
                        await deeper.run("Go.")
                    case "recipe":
                        await steps.options(cache=False).run()
            return "not paid"

        self._travel = travel

    def live(self, journal: Journal, outer: Outer) -> str:
        """Run, or resume; return the status."""
        if outer == "recipe":
            travel = self._travel

            @recipe
            def trip() -> Any:
                """Travel."""
                return step(travel)

            return asyncio.run(trip.options(journal=journal, cache=False, run_id="r").run()).status
        if outer == "graph":
            return asyncio.run(self._live_as_graph(journal))

        def answer(request: ModelRequest) -> Any:
            return "Done." if request.turn > 1 else [call("travel")]

        agent = Agent(ScriptedModel(answer), tools=[self._travel], cache=False, journal=journal)
        return asyncio.run(agent.run("Go.", run_id="r")).status

    async def _live_as_graph(self, journal: Journal) -> str:
        async with Executor(tools=[self._travel], journal=journal, run_id="r") as graph:
            graph.add(ToolCall("trip", "travel", {}))
            await graph.wait()
        found = journal.find("r")
        assert found is not None
        return found.status


@pytest.mark.usefixtures("journal_store")
@pytest.mark.parametrize("outer", ["agent", "recipe", "graph"])
@pytest.mark.parametrize("way", ["call", "run", "run in a run", "recipe"])
def test_a_write_that_swallowed_a_doubt_at_any_depth_is_not_over_until_somebody_has_settled_it(
    way: Inside, outer: Outer, tmp_path: Path
) -> None:
    shop = Swallowing(way)
    with opened_journal(tmp_path / "j") as journal:
        for _ in range(3):
            assert shop.live(journal, outer) == "in_doubt"
        assert shop.effects == ["travel", "pay"]
        doubts = find_doubts(journal)
        assert doubts
        for run, node, _ in doubts:
            with pytest.raises(RunError, match="nothing would run it again"):
                journal.resolve(run, node, Retry(), by="kim")
        assert find_doubts(journal) == doubts
        for run, node, _ in doubts:
            journal.resolve(run, node, Done("paid, says the bank"), by="kim")
        assert shop.live(journal, outer) == "done"
        assert shop.effects == ["travel", "pay"]
