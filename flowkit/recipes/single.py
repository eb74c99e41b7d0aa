"""One tool call as a recipe, so that it runs with approval, cache, journal, resources and events as every step does."""

from collections.abc import Mapping
from typing import Any

from flowkit.graph import Body
from flowkit.recipes.decorator import Recipe
from flowkit.recipes.plan import RecipeOutput, RecipePlan
from flowkit.references import Reference, ToolCall
from flowkit.tools import Tool, tool

CALL = "call"


def make_single(called: Tool[..., Any], arguments: Mapping[str, object]) -> Recipe[..., Any]:
    """Make a recipe of one call, and of what its tool needs; raises `ToolArgumentsError`."""
    called.check(arguments)

    @tool(name=called.name, description=called.description, effect="read")
    def take_nothing() -> None: ...

    plan: RecipePlan[Any] = RecipePlan(
        name=called.name,
        description=called.description,
        interface=take_nothing,
        output=RecipeOutput(lambda value: value, called.result_schema),
        body=Body(called.expand(ToolCall(CALL, called.name, dict(arguments))), Reference(CALL)),
        tools={called.name: called, **called.needed_tools},
    )
    return Recipe(plan)
