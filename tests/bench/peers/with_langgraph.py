"""LangGraph: a `StateGraph` whose nodes put their results into one dict; no checkpointer.

It runs in steps: a node starts when all nodes of the step before have ended, not when those it waits for have.
"""
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportReturnType=false
# pyright: reportAssignmentType=false
# The package needn't be there where this is checked.

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph


def update(results: dict[int, int], new: dict[int, int]) -> dict[int, int]:
    """In place: `operator.or_` would copy all results for every node."""
    results.update(new)
    return results


class State(TypedDict):
    results: Annotated[dict[int, int], update]


def make_graph(
    edges: Sequence[Sequence[int]], durations_s: Sequence[float]
) -> Callable[[], Coroutine[Any, Any, object]]:
    graph = StateGraph(State)
    for number, (before, seconds) in enumerate(zip(edges, durations_s, strict=True)):
        graph.add_node(f"n{number}", make_node(number, before, seconds))
        if before:
            graph.add_edge([f"n{other}" for other in before], f"n{number}")
        else:
            graph.add_edge(START, f"n{number}")
    made = graph.compile()

    async def run() -> None:
        state = await made.ainvoke({"results": {}}, {"recursion_limit": len(edges) + 1})
        assert len(state["results"]) == len(edges)

    return run


def make_node(number: int, before: Sequence[int], seconds: float) -> Callable[[State], Coroutine[Any, Any, State]]:
    async def node(state: State) -> State:
        assert all(other in state["results"] for other in before)
        if seconds:
            await asyncio.sleep(seconds)
        return {"results": {number: number}}

    return node
