"""A recipe as a tool that a model, another tool or an agent can call.

Its steps become nodes of the graph that the call stands in, under the call's name: with their own cache, journal,
events and approvals. The tool's effect and scope are the strongest of them. A step that a person has to decide on asks
for itself, with its final arguments, so the tool as a whole doesn't ask before.
"""

from collections.abc import Mapping
from typing import Any

from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.graph import Group
from flowkit.recipes.agent_steps import lower_agents
from flowkit.recipes.model_steps import AskRequest, run_request
from flowkit.recipes.plan import AnyTool, RecipePlan
from flowkit.tools import Tool


def make_recipe_tool(plan: RecipePlan[Any]) -> AnyTool:
    """The tool; its arguments are the recipe's inputs, its result is the output as JSON."""

    async def run(arguments: dict[str, JSON], context: Context[Any] = CONTEXT) -> Any:
        attempt = "" if context.attempt == 1 else f"_{context.attempt}"
        group = plan.nest(f"{context.call_id}/{plan.name}{attempt}", arguments)
        (lowered,), asking = lower_agents((group,), _ask, plan.tools, models_too=True)
        assert isinstance(lowered, Group)
        return await context.open_group(lowered, {**plan.tools, **asking})

    return Tool.from_schema(
        plan.name, plan.description, plan.parameters, run, effect=plan.effect, scope=plan.scope or "all"
    )


async def _ask(request: AskRequest, values: Mapping[str, JSON], context: Context[Any]) -> JSON:
    return await run_request(request, values, call_id=context.call_id, log=context.log, context=context)
