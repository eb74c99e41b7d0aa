"""Agents as steps: each runs as a tool call, with an effect derived from its tools.

An agent whose tools only read runs like a model step. An agent that may change something has the strongest effect of
its tools: in a run with a journal its step is claimed before it starts, and is never retried automatically.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, assert_never, cast

from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.graph import Body, Each, Fallback, Group, ModelStep, Node, Step, ToolCall, When
from flowkit.recipes.model_steps import AskRequest
from flowkit.tools import Tool
from flowkit.tools.options import strongest

Ask = Callable[[AskRequest, Mapping[str, JSON], Context[Any]], Awaitable[JSON]]
"""Asks, with these values, for the step that the context is of."""


def lower_agents(
    nodes: tuple[Node, ...], ask: Ask, taken: Collection[str], *, models_too: bool = False
) -> tuple[tuple[Node, ...], dict[str, Tool[..., Any]]]:
    """Lower such agents to tool calls; return the nodes, and the tools that they call under unused names.

    `models_too` makes a call of each step that asks, for a run that knows nothing of such steps.
    """
    lowering = _Lowering(ask, taken, models_too)
    return tuple(map(lowering.lower, nodes)), lowering.tools


class _Lowering:
    def __init__(self, ask: Ask, taken: Collection[str], models_too: bool) -> None:
        self._models_too = models_too
        self._ask = ask
        self._taken = taken
        self.tools: dict[str, Tool[..., Any]] = {}

    def lower(self, node: Node) -> Node:
        match node:
            case ModelStep():
                return self._lower_step(node)
            case Group() | Each():
                return replace(node, body=self._lower_body(node.body))
            case When():
                otherwise = None if node.otherwise is None else self._lower_body(node.otherwise)
                return replace(node, then=self._lower_body(node.then), otherwise=otherwise)
            case Fallback():
                return replace(node, tries=tuple(map(self._lower_body, node.tries)))
            case ToolCall():
                return node
            case _:
                assert_never(node)

    def _lower_body(self, body: Body) -> Body:
        return replace(body, nodes=tuple(map(self.lower, body.nodes)))

    def _lower_step(self, node: ModelStep) -> Node:
        request = cast(AskRequest, node.request)
        effect = strongest(["read", *(tool.effect for tool in request.tools)])
        if effect == "read" and not self._models_too:
            return node

        async def run(arguments: dict[str, JSON], context: Context[Any] = CONTEXT) -> Any:
            return await self._ask(request, arguments, context)

        name = request.name
        while name in self._taken or name in self.tools:
            name += "+"
        self.tools[name] = Tool.from_schema(name, "", {"type": "object"}, run, effect=effect)
        return Step(node.id, name, node.arguments, timeout_s=node.timeout_s, after=node.after)
