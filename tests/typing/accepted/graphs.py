"""The executor alone and a model of one's own as users write them; strict checkers have nothing to say."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

from flowkit import (
    Agent,
    AgentResult,
    Approve,
    Delta,
    EndDelta,
    Executor,
    FinishDelta,
    Graph,
    Model,
    ModelRequest,
    Outcome,
    Reference,
    Run,
    RunResult,
    TextDelta,
    ToolCall,
    run_graph,
    tool,
)


@dataclass(frozen=True)
class Order:
    order_id: str
    total: int


@tool(ttl=60, scope="all")
async def get_order(order_id: str) -> Order:
    return Order(order_id, 5)


@tool(effect="read")
def double(total: int) -> int:
    return total * 2


async def alone() -> int:
    async with Executor(tools=[get_order, double], cache=True, timeout=timedelta(minutes=1), user="ann") as graph:
        assert_type(graph, Executor)
        graph.add(ToolCall("order", "get_order", {"order_id": "O1"}))
        graph.add(ToolCall("twice", "double", {"total": Reference("order", ("total",))}))
        await graph.wait()
        assert_type(graph.outcomes["order"], Outcome)
        assert_type(graph.outcomes["order"].load(get_order), Order)
        assert_type(graph.outcomes["twice"].load(double), int)
        for call in graph.pending:
            graph.decide(call.id, Approve())
    outcomes = await run_graph(Graph([ToolCall("a", "double", {"total": 1})]), tools=[double], cache=False)
    assert_type(outcomes, dict[str, Outcome])
    return outcomes["a"].load(double)


class Echo:
    """Says what it was told."""

    name = "echo"
    source = "echo"

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        yield self.answer(len(request.messages))

    async def answer(self, count: int) -> AsyncIterator[Delta]:
        yield TextDelta(f"{count} messages.")
        yield FinishDelta("stop")
        yield EndDelta()


model: Model = Echo()
agent = Agent(Echo())


async def watch() -> str:
    run = agent.options(user="ann", timeout=30).start("Hello", run_id="r")
    assert_type(run, Run[AgentResult[str]])
    async for event in run.watch(after=3):
        print(event.seq, run.status, run.pending)
    result = await run.wait()
    common: RunResult[str] = result
    print(common.cost_usd, common.output_or_none)
    assert_type(result.output, str)
    assert_type(result.output_or_none, str | None)
    return result.output
