"""Logs of real runs, one for each thing that a front end has to show; `python -m tests.web_runs FOLDER` writes them."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import shop
from flowkit import CONTEXT, Agent, Context, Journal, Limits, Run, ToolError, codec, recipe, step, tool
from flowkit.codec import JSON
from flowkit.testing import CUT, ScriptedModel, call, raw_call, thinking

Log = list[dict[str, JSON]]


@tool(effect="read", retries=2)
async def find(query: str, ctx: Context[None] = CONTEXT) -> list[dict[str, str]]:
    """Find pages."""
    if query == "broken":
        raise ToolError("the index is down")
    await asyncio.sleep(0.02)
    ctx.progress(1, 2, "read half")
    await asyncio.sleep(0.02)
    return [{"title": f"{query} {n}", "city": "Busan"} for n in range(3)]


@tool(effect="read")
async def count(pages: list[dict[str, str]]) -> int:
    """Count pages."""
    return len(pages)


@tool(approval=True)
async def pay(won: int, to: str = "shop") -> str:
    """Pay."""
    return f"paid {won} to {to}"


@recipe
def look_up(query: str) -> int:
    """Find and count."""
    return step(count, step(find, query))


def agent_of(script: list[Any], *tools: Any, **options: Any) -> Agent[str]:
    """An agent whose model says the script's turns."""
    return Agent(ScriptedModel(script), name="helper", tools=tools or [find, count, pay], cache=False, **options)


async def collect(*runs: Run[Any]) -> Log:
    """All that these runs told, one after the other."""
    log: Log = []
    for run in runs:
        await run.wait()
        log += [event.to_json() async for event in run.watch()]
    return log


async def plain(folder: Path) -> Log:
    """Text alone, in Korean and with signs outside the basic plane."""
    return await collect(agent_of([["안녕하세요 ", 0.01, "🙂🙃 ", 0.01, "세계"]]).start("Hi"))


async def early_calls(folder: Path) -> Log:
    """Thinking, then two reads that start while the model still speaks, then an answer."""
    turn = [thinking("Two "), 0.01, thinking("things."), "I look. "]
    turn += [call("find", query="tea").slowly(0.05), call("find", query="cups"), 0.1]
    return await collect(agent_of([turn, "Found."]).start("tea"))


async def references(folder: Path) -> Log:
    """A call that takes the result of another of the same turn."""
    turn = [call("find", query="tea"), call("count", pages={"from_call": "find", "path": ""})]
    return await collect(agent_of([turn, "Three."], references=True).start("How many?"))


async def failures(folder: Path) -> Log:
    """A call that fails, one that is skipped for it, one with arguments that don't fit, one of no tool."""
    turn = [call("find", query="broken"), call("count", pages={"from_call": "find", "path": ""})]
    turn += [raw_call("find", '{"query": 3, }'), raw_call("nothing", "{}")]
    return await collect(agent_of([turn, "Sorry."], references=True).start("Try"))


async def broken_turn(folder: Path) -> Log:
    """A turn that breaks off in its call, and its second attempt."""
    turns = [["I will ", call("find", query="tea"), raw_call("find", '{"que'), CUT], [call("find", query="tea")], "Ok."]
    return await collect(agent_of(turns).start("Try"))


async def limit(folder: Path) -> Log:
    """A run that uses up its turns."""
    return await collect(agent_of([[call("find", query="a")]] * 3, limits=Limits(turns=2)).start("Try"))


async def nested(folder: Path) -> Log:
    """An agent and a recipe as tools."""
    inner = Agent(ScriptedModel([[call("find", query="tea")], "Inside."]), name="clerk", tools=[find], cache=False)
    turn = [call("clerk", task="find tea"), call("look_up", query="cups")]
    return await collect(
        agent_of([turn, "Done."], inner.as_tool(description="Ask the clerk."), look_up.as_tool()).start("Both")
    )


async def approval(folder: Path) -> Log:
    """A call that waits for a person, and the run that goes on when one has changed an argument."""
    turn = [call("find", query="tea"), call("pay", won=5, to="Kim"), call("pay", won=7)]
    with closing(Journal(folder / "journal.sqlite3")) as journal:
        agent = agent_of([turn, "Paid."], journal=journal)
        first = agent.start("Pay", run_id="run-1")
        log = await collect(first)
        waiting = (await first.wait()).pending
        journal.decide("run-1", waiting[0].id, approved=True, arguments={"won": 4, "to": "Kim"}, by="ann")
        journal.decide("run-1", waiting[1].id, approved=False, reason="too much", by="ann")
        return log + await collect(agent.start(run_id="run-1"))


async def shop_agent(folder: Path) -> Log:
    """The shop's agent: a prefetch, a need, references, a refund that waits."""
    turn = [thinking("The latest order, "), 0.1, thinking("where it is, and what goes with it."), 0.1]
    turn += ["I look at your ", 0.05, "order.\n", call("track_parcel").slowly(0.2)]
    turn += [call("search_products", query="tea", category="food").slowly(0.2), call("recommend_products", limit=2)]
    model = ScriptedModel([turn, ["It is ", 0.05, "on its way."]])
    with shop.open_data(database=folder / "shop.sqlite3") as data, shop.agent.override(model=model, cache=False):
        return await collect(shop.agent.start("Where is my order?", data=data, user="c-1"))


async def shop_recipe(folder: Path) -> Log:
    """The shop's recipe, of a cancelled order: `each`, `when`, and a refund that a person approves."""
    with shop.open_data(database=folder / "shop.sqlite3") as data:
        return await collect(shop.order_support.start({"order_id": "ORD-1034"}, data=data, user="c-1", cache=False))


SCENARIOS: Mapping[str, Callable[[Path], Coroutine[Any, Any, Log]]] = {
    make.__name__: make
    for make in (
        plain,
        early_calls,
        references,
        failures,
        broken_turn,
        limit,
        nested,
        approval,
        shop_agent,
        shop_recipe,
    )
}


def write_logs(folder: Path) -> None:
    """Run every scenario and write its log as `NAME.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in SCENARIOS.items():
        with TemporaryDirectory() as scratch:
            log = asyncio.run(make(Path(scratch)))
        (folder / f"{name}.jsonl").write_bytes(b"".join(codec.dumps(event) + b"\n" for event in log))


if __name__ == "__main__":
    write_logs(Path(sys.argv[1]))
