"""Run a complete graph."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import cast

from flowkit.cache import Cache
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, GraphError
from flowkit.executor.core import Executor
from flowkit.executor.outcomes import Decision, Outcome
from flowkit.executor.slots import DEFAULT_LIMIT
from flowkit.executor.standalone import ToolLike, check_options
from flowkit.graph import Graph, ModelStep
from flowkit.journal import Journal
from flowkit.option_checks import show
from flowkit.suggestions import suggest
from flowkit.tools import ToolLookup


async def run_graph(
    graph: Graph,
    *,
    tools: ToolLookup | Iterable[ToolLike],
    inputs: Mapping[str, JSON] | None = None,
    data: object = None,
    user: str | None = None,
    session: str | None = None,
    run_id: str | None = None,
    cache: Cache | bool | None = None,
    journal: Journal | None = None,
    decisions: Mapping[str, Decision] | None = None,
    slots: int | Mapping[str, int] = DEFAULT_LIMIT,
    fail_fast: bool = False,
    timeout: float | timedelta | None = None,  # noqa: ASYNC109  # the executor's own, which lets what has ended stand
) -> dict[str, Outcome]:
    """Run every node of the graph as soon as its dependencies allow; return the outcomes by id.

    `inputs` are the values of the ids in `graph.inputs`. `decisions` answer calls that wait for a person; an undecided
    one has no outcome. The other options are those of `Executor`. Raises `GraphError` for a missing input, and for a
    node that asks a model, which only a recipe can run.
    """
    if not isinstance(cast(object, graph), Graph):
        raise ConfigurationError(f"run_graph: {show(graph)} is no graph, expected Graph([ToolCall(…), …])")
    check_options("run_graph", {"decisions": decisions})
    for name in (inputs or {}).keys() - graph.inputs:
        known = suggest(name, graph.inputs)
        raise GraphError(f"the graph has no input {name!r}; {known}")
    decided = dict(decisions or {})
    asking = [node.id for node in graph.values() if isinstance(node, ModelStep)]
    if asking:
        raise GraphError(f"{asking[0]!r} asks a model, which a graph alone can't; run it as a recipe")
    async with Executor(
        tools,
        inputs=inputs,
        data=data,
        user=user,
        session=session,
        run_id=run_id,
        cache=cache,
        journal=journal,
        slots=slots,
        fail_fast=fail_fast,
        timeout=timeout,
    ) as executor:
        for node in graph.values():
            executor.add(node)
        await executor.wait()
        while waiting := [call.id for call in executor.pending if call.id in decided]:
            for call_id in waiting:
                executor.decide(call_id, decided.pop(call_id))
            await executor.wait()
        return dict(executor.outcomes)
