"""The executor and whole graphs under their user's own loop: no agent, no recipe."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowkit import (
    Approve,
    ConfigurationError,
    DiskCache,
    Executor,
    Graph,
    Journal,
    Needs,
    Outcome,
    Reference,
    ToolCall,
    run_graph,
    tool,
)
from flowkit.codec import JSON
from flowkit.errors import GraphError, RunError, ToolResultError
from flowkit.events import Event
from flowkit.graph import INPUTS, ModelStep
from flowkit.testing.loop import run_virtual

ran: list[str] = []


@dataclass(frozen=True)
class Order:
    """An order."""

    order_id: str
    total: int


@tool(ttl=60, scope="all")
async def get_order(order_id: str) -> Order:
    """Look an order up."""
    ran.append(order_id)
    await asyncio.sleep(1)
    return Order(order_id, 5)


@tool(effect="read")
async def double(total: int) -> int:
    """Twice as much."""
    return total * 2


@tool(effect="write")
async def refund(order: Order = Needs(get_order)) -> str:
    """Pay an order back."""
    ran.append(f"refund {order.order_id}")
    return f"refunded {order.total}"


@tool(effect="read", approval=True)
async def ask_first(name: str) -> str:
    """Look when a person says so."""
    return name


@pytest.fixture(autouse=True)
def _forget() -> None:  # pyright: ignore[reportUnusedFunction]  # pytest's own
    ran.clear()


GRAPH = Graph(
    [
        ToolCall("order", "get_order", {"order_id": Reference(INPUTS, ("order_id",))}),
        ToolCall("twice", "double", {"total": Reference("order", ("total",))}),
    ]
)
INPUT: Mapping[str, JSON] = {INPUTS: {"order_id": "O1"}}


def test_calls_run_as_one_graph_and_their_results_have_their_types() -> None:
    async def go() -> tuple[Order, int, float]:
        async with Executor(tools=[get_order, double]) as graph:
            graph.add(ToolCall("a", "get_order", {"order_id": "O1"}))
            graph.add(ToolCall("b", "get_order", {"order_id": "O2"}))
            graph.add(ToolCall("twice", "double", {"total": Reference("a", ("total",))}))
            await graph.wait()
            order, twice = graph.outcomes["a"].load(get_order), graph.outcomes["twice"].load(double)
            return order, twice, graph.now()

    assert run_virtual(go()) == (Order("O1", 5), 10, 1.0)


def test_a_need_runs_also_where_its_tool_is_not_given() -> None:
    async def go() -> object:
        async with Executor([refund]) as graph:
            graph.add(ToolCall("r", "refund", {"order_id": "O1"}))
            await graph.wait("r")
            return graph.outcomes["r"].value

    assert (run_virtual(go()), ran) == ("refunded 5", ["O1", "refund O1"])


def test_results_come_from_the_cache_the_second_time(tmp_path: Path) -> None:
    async def go() -> list[str]:
        cache = DiskCache(tmp_path)
        sources = [
            (await run_graph(GRAPH, tools=[get_order, double], inputs=INPUT, cache=cache))["order"].source
            for _ in range(2)
        ]
        await cache.close()
        return sources

    assert (run_virtual(go()), ran) == (["run", "cache"], ["O1"])


def test_a_graph_in_a_journal_runs_on_under_its_id(tmp_path: Path) -> None:
    async def run(**more: Any) -> dict[str, Outcome]:
        journal = Journal(tmp_path / "runs.db")
        try:
            graph = Graph([*GRAPH.values(), ToolCall("pay", "refund", {"order_id": "O1"})])
            given: Mapping[str, Any] = {"tools": [double, refund], "inputs": INPUT, "run_id": "g", **more}
            return await run_graph(graph, journal=journal, **given)
        finally:
            journal.close()

    first = run_virtual(run())
    assert [outcome.state for outcome in first.values()] == ["finished"] * 4
    assert {outcome.source for outcome in run_virtual(run()).values()} == {"journal"}
    assert ran.count("refund O1") == 1
    with pytest.raises(RunError, match="run 'g' began with other inputs"):
        run_virtual(run(inputs={INPUTS: {"order_id": "O2"}}))
    journal = Journal(tmp_path / "runs.db")
    [summary] = journal.runs()
    assert (summary.run_id, summary.status) == ("g", "done")
    journal.close()


def test_a_graph_that_was_stopped_goes_on_where_it_stood(tmp_path: Path) -> None:
    async def run(seconds: float) -> str | None:
        journal = Journal(tmp_path / "runs.db")
        try:
            async with asyncio.timeout(seconds):
                async with Executor([get_order, double, refund], journal=journal, run_id="g", user="ann") as graph:
                    graph.add(ToolCall("pay", "refund", {"order_id": "O1"}))
                    graph.add(
                        ToolCall(
                            "later",
                            "get_order",
                            {"order_id": "O2"},
                        )
                    )
                    await graph.wait("pay")
                    await asyncio.sleep(5)
                    return graph.outcomes["pay"].source
        except TimeoutError:
            return None
        finally:
            journal.close()

    assert [run_virtual(run(3)), run_virtual(run(30))] == [None, "journal"]
    assert ran.count("refund O1") == 1


def test_what_waits_for_a_person_is_decided_in_the_graph_or_beside_it(tmp_path: Path) -> None:
    graph = Graph([ToolCall("a", "ask_first", {"name": "tea"}), ToolCall("b", "double", {"total": 1})])

    async def go() -> list[list[str]]:
        journal = Journal(tmp_path / "runs.db")
        tools = [ask_first, double]
        open_one = await run_graph(graph, tools=tools, journal=journal, run_id="g")
        [summary] = journal.runs()
        assert summary.status != "done"
        decided = await run_graph(graph, tools=tools, journal=journal, run_id="g", decisions={"a": Approve(by="Kim")})
        journal.close()
        return [sorted(open_one), sorted(decided)]

    assert run_virtual(go()) == [["b"], ["a", "b"]]


def test_its_log_is_whole_and_can_be_watched() -> None:
    async def go() -> tuple[list[Event], list[Event]]:
        async with Executor([get_order], user="ann", run_id="g") as graph:
            watching = asyncio.ensure_future(_collect(graph))
            graph.add(ToolCall("a", "get_order", {"order_id": "O1"}))
            await graph.wait()
        return await watching, graph.log.events

    seen, told = run_virtual(go())
    assert [event.type for event in seen] == [event.type for event in told]
    assert (seen[0].type, seen[-1].type, seen[0].run) == ("run.started", "run.finished", "g")


async def _collect(graph: Executor) -> list[Event]:
    return [event async for event in graph.log.watch()]


@pytest.mark.parametrize(
    ("body", "status"), [("done", "done"), ("failed", "failed"), ("error", "failed"), ("cancelled", "cancelled")]
)
def test_its_end_says_how_it_was_left(body: str, status: str) -> None:
    async def go() -> object:
        executor = Executor([double])
        try:
            async with asyncio.timeout(1 if body == "cancelled" else None):
                async with executor as graph:
                    graph.add(ToolCall("a", "double", {"total": "x" if body == "failed" else 1}))
                    await graph.wait()
                    if body == "error":
                        raise ValueError("mine")
                    await asyncio.sleep(9 if body == "cancelled" else 0)
        except (ValueError, TimeoutError):
            pass
        return getattr(executor.log.events[-1], "status", None)

    assert run_virtual(go()) == status


def test_a_timeout_bounds_the_whole() -> None:
    async def go() -> str:
        outcomes = await run_graph(GRAPH, tools=[get_order, double], inputs=INPUT, timeout=timedelta(milliseconds=500))
        return outcomes["order"].state

    assert run_virtual(go()) == "cancelled"


@pytest.mark.parametrize(
    ("make", "kind", "expected"),
    [
        (lambda: run_graph(GRAPH, tools=[get_order, double]), GraphError, "inputs"),
        (lambda: run_graph(GRAPH, tools=double, inputs=INPUT), ConfigurationError, r"tools=\[double\]"),  # pyright: ignore[reportArgumentType]  # the mistake
        (lambda: run_graph(Graph([ModelStep("m", {}, None)]), tools=[]), GraphError, "'m' asks a model"),
    ],
)
def test_what_cannot_run_is_told_before_anything_runs(
    make: Callable[[], Any], kind: type[Exception], expected: str
) -> None:
    async def go() -> None:
        await make()

    with pytest.raises(kind, match=expected):
        run_virtual(go())
    assert ran == []


def test_an_executor_outside_an_event_loop_says_so() -> None:
    with pytest.raises(ConfigurationError, match="made inside the event loop"):
        Executor([double])


def test_an_outcome_without_a_result_or_of_another_tool_is_not_loaded() -> None:
    done = Outcome(ToolCall("a", "double"), "finished", 5)
    with pytest.raises(ToolResultError, match="the result of 'a', of 'double', isn't what 'get_order' returns"):
        done.load(get_order)
    with pytest.raises(ToolResultError, match="call 'a' has no result, it is failed: sold out"):
        Outcome(ToolCall("a", "double"), "failed", error="sold out").load(double)
