"""A recipe as a tool that a model, another tool or an agent can call.

Its steps become nodes of the graph that the call stands in, under the call's name: with their own cache, journal,
and events. The tool's effect and scope are the strongest of them.

A write that has begun can't wait for a person. So a recipe that writes is no tool when one of its steps always asks,
and a step that asks by its rule, and does, fails there.
"""

from collections.abc import Mapping
from typing import Any

from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.errors import DefinitionError
from flowkit.graph import Group
from flowkit.recipes.agent_steps import lower_agents
from flowkit.recipes.model_steps import AskRequest, run_request
from flowkit.recipes.plan import AnyTool, RecipePlan
from flowkit.tools import Tool


def make_recipe_tool(plan: RecipePlan[Any]) -> AnyTool:
    """Make the tool: its arguments are the recipe's inputs, its result is the output as JSON.

    Raises `DefinitionError` for a recipe that writes and always asks a person.
    """
    asking = [tool.name for tool in plan.tools.values() if tool.approval is True]
    if plan.effect == "write" and asking:
        raise DefinitionError(
            f"recipe {plan.name!r} can't be a tool: its step {asking[0]!r} asks a person, and a write that has begun "
            f"can't wait for that; give {asking[0]!r} to the agent",
            tool=asking[0],
        )

    async def run(arguments: dict[str, JSON], context: Context[Any] = CONTEXT) -> Any:
        # A second attempt in this process needs other names; after a crash the first finds what earlier ones did.
        here = context.attempt - context.attempts_before
        attempt = "" if here <= 1 else f"_{here}"
        group = plan.nest(f"{context.call_id}/{plan.name}{attempt}", arguments)
        (lowered,), asking = lower_agents((group,), _ask, plan.tools, models_too=True)
        assert isinstance(lowered, Group)
        return await context.open_group(lowered, {**plan.tools, **asking})

    return Tool.from_schema(
        plan.name, plan.description, plan.parameters, run, effect=plan.effect, scope=plan.scope or "all"
    )


async def _ask(request: AskRequest, values: Mapping[str, JSON], context: Context[Any]) -> JSON:
    return await run_request(request, values, call_id=context.call_id, log=context.log, context=context)
