"""An agent as a tool of another one: it takes a task and returns the answer, and its events are nested under the call.

Its effect is the strongest and its scope the narrowest of its tools. An inner call can't wait for a person, since the
outer call doesn't wait for days. So a tool that always requires approval is refused here. If a tool's rule requires it
for a call, the task fails with an error that the outer model reads.
"""

from collections.abc import Callable
from typing import Any

from pydantic_core import to_jsonable_python

from flowkit.agent.agent_run import AgentResult
from flowkit.context import CONTEXT, Context
from flowkit.errors import DefinitionError, InDoubt, ToolError
from flowkit.runs.nested import follow
from flowkit.runs.run import Run
from flowkit.tools import Tool, make_tool
from flowkit.tools.options import Effect, Options, Scope, narrowest, strongest
from flowkit.tools.toolsets import Toolset


def make_agent_tool(
    start: Callable[[str, Context[Any]], Run[AgentResult[Any]]], tools: Toolset, *, name: str, description: str
) -> Tool[..., Any]:
    """Make the tool; `start` starts a run for a task. Raises `DefinitionError` for tools that always require approval."""
    asking = [tool.name for tool in tools if tool.approval is True]
    if asking:
        raise DefinitionError(
            f"agent {name!r} can't be a tool: its tool {asking[0]!r} asks a person, who can't be waited for inside a "
            f"call; give {asking[0]!r} to the outer agent",
            tool=asking[0],
        )

    async def ask(task: str, context: Context[Any] = CONTEXT) -> Any:
        result = await follow(start(task, context), context.call_id, context.log)
        if result.status == "waiting":
            names = ", ".join(sorted({pending.name for pending in result.pending}))
            raise ToolError(f"not done: {names} needs a person's decision, which can't be had here")
        if result.status == "in_doubt":
            raise InDoubt(f"{name} did something that may or may not have happened")
        if result.status != "done":
            raise ToolError(f"{name} ended without an answer ({result.status}): {result.error or 'it was stopped'}")
        return to_jsonable_python(result.output)

    # The inner run has its own attempts; a retry from outside would report its calls twice.
    effect, scope = _find_effect(tools), _find_scope(tools)
    return make_tool(ask, Options(name=name, description=description, effect=effect, scope=scope, retries=0))


def _find_effect(tools: Toolset) -> Effect:
    """Find the strongest effect of its tools; if its tools aren't known yet, return `write`."""
    return "write" if tools.is_dynamic else strongest(["read", *(tool.effect for tool in tools)])


def _find_scope(tools: Toolset) -> Scope | None:
    """Find the narrowest scope of its tools; None if a tool declares no scope that can be shared."""
    if tools.is_dynamic or any(tool.named_scope is None and tool.uses_context for tool in tools):
        return None
    named: list[Scope] = [tool.named_scope for tool in tools if tool.named_scope is not None]
    return narrowest(named) if named else None
