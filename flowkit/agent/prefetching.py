"""Reads that an agent names before the model has asked for them.

They run in parallel to the first request, as does the function that names them. If the model makes the same call, it
joins the prefetched one. Calls that the model hasn't made by the end of that turn are dropped, and counted.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from inspect import isawaitable, iscoroutine
from typing import Any

from flowkit.agent.plan import Prefetch
from flowkit.agent.requesting import TurnTools
from flowkit.context import Context
from flowkit.errors import DefinitionError, ToolArgumentsError
from flowkit.executor import Executor, Outcome
from flowkit.references import ToolCall
from flowkit.tools.toolsets import Toolset


class Prefetching:
    """One run's prefetched reads; leaving the context stops the function that names them."""

    def __init__(self, prefetch: Prefetch, graph: Executor, tools: TurnTools, agent: str) -> None:
        self._prefetch = prefetch
        self._graph = graph
        self._tools = tools
        self._agent = agent
        self._nodes: list[str] = []
        self._naming: asyncio.Task[None] | None = None
        self._named: Awaitable[Iterable[ToolCall]] | None = None

    async def __aenter__(self) -> "Prefetching":
        return self

    async def __aexit__(self, *_: object) -> None:
        naming = self._naming
        if naming is None:
            return
        naming.cancel()
        while not naming.done():
            with suppress(asyncio.CancelledError):  # a second cancellation must not leave it behind
                await asyncio.wait([naming])
        if not naming.cancelled():
            naming.exception()  # a run that ends earlier has its own error
        elif iscoroutine(self._named):
            self._named.close()  # a coroutine cancelled before its first step would warn that it was never awaited

    def start(self, context: Context[Any]) -> None:
        """Start the reads, or the function that names them. Raises `DefinitionError` for a tool that may not be prefetched."""
        prefetch = self._prefetch
        named = prefetch(context, context.message) if callable(prefetch) else prefetch
        if isawaitable(named):
            self._named = named
            self._naming = asyncio.create_task(self._wait_named(named))
        else:
            self._start(named)

    def end_turn(self) -> None:
        """Drop the reads that the model didn't request. Raises the error of the function that names reads."""
        if self._naming is not None:
            if self._naming.done():
                self._naming.result()
            self._naming.cancel()
        for node in self._nodes:
            self._graph.cancel(node, "the model did not ask for it")

    def count(self, outcomes: Mapping[str, Outcome]) -> tuple[int, int]:
        """Count the prefetched calls that the model used, directly or through a need, and all of them."""
        tools = self._tools.now
        if not self._nodes:
            return 0, 0
        asked = [_canonical(tools, outcome.call) for node, outcome in outcomes.items() if node not in self._nodes]
        met = sum(_canonical(tools, outcomes[node].call) in asked for node in self._nodes if node in outcomes)
        return met, len(self._nodes)

    async def _wait_named(self, named: Awaitable[Iterable[ToolCall]]) -> None:
        self._start(await named)

    def _start(self, calls: Iterable[ToolCall]) -> None:
        calls = tuple(calls)
        for call in calls:
            check_prefetch(self._tools.now, call, self._agent)
        for position, call in enumerate(calls):
            node = f"prefetch/{position}"
            self._nodes.append(node)
            self._graph.guess(ToolCall(node, call.name, call.arguments))


def check_prefetch(tools: Toolset, call: object, agent: str) -> None:
    """Raise `DefinitionError` for an object that is no call, or a call that must not start before the model requests it."""
    if not isinstance(call, ToolCall):
        raise DefinitionError(f"agent {agent!r}: prefetch takes calls, such as get_order.call(), not {call!r}")
    tool = tools.find(call.name)
    if tool is None:
        raise DefinitionError(f"agent {agent!r}: prefetch names {call.name!r}, which isn't one of its tools")
    if tool.effect != "read" or tool.approval:
        raise DefinitionError(
            f"agent {agent!r}: prefetch names {call.name!r}, but only a read without approval may start before the "
            "model has asked for it",
            tool=call.name,
        )


def _canonical(tools: Toolset, call: ToolCall) -> tuple[str, object]:
    """Fill in the call's defaults, so that a call that omits them equals one that spells them out."""
    tool = tools.find(call.name)
    try:
        return call.name, call.arguments if tool is None else tool.validate(call.arguments).shown
    except ToolArgumentsError:
        return call.name, call.arguments
