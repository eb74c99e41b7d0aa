"""Rerun a recipe from a recording: each step gives what the step of this id gave when it was recorded.

No tool runs and no model is asked. What is new is the recipe itself: its steps, conditions and loops of today, which
have to make the same calls, with the same arguments, of the same results.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.errors import ToolError
from flowkit.executor import Deny, Outcome
from flowkit.exports.recorded_recipe import RecordedRecipe, RecordedStep, load_recipe_run
from flowkit.exports.recorded_run import give_media
from flowkit.masking import show_arguments
from flowkit.measure.rehearsing import imitate
from flowkit.recipes import Recipe, RecipeResult
from flowkit.recipes.agent_steps import lower_agents
from flowkit.recipes.model_steps import AskRequest
from flowkit.recipes.plan import AnyTool

AnyRecipe = Recipe[..., Any]


async def replay_recipe_run(
    path: Path, recipe: AnyRecipe
) -> tuple[RecipeResult[Any], list[tuple[str, dict[str, Any]]]]:
    """Run the recipe on what the recording has; return the result, and the calls in the order of the recipe's steps.

    Raises the run's error if the recorded run didn't fail in the same way.
    """
    run = load_recipe_run(path)
    answers = _RecordedSteps(run)
    nodes, asking = lower_agents(recipe.plan.body.nodes, answers.ask, recipe.plan.tools, models_too=True)
    tools = {name: answers.replace(tool) for name, tool in recipe.plan.tools.items()}
    plan = replace(
        recipe.plan, body=replace(recipe.plan.body, nodes=nodes), tools={**tools, **asking}, requests={}, nestings={}
    )
    alone: AnyRecipe = Recipe(plan)
    inputs, user, session = dict(run.inputs), run.user, run.session
    result = await alone.start(inputs, user=user, session=session, cache=False, journal=None).wait()
    if result.status == "waiting":
        result = await alone.start(
            inputs,
            user=user,
            session=session,
            cache=False,
            resume=result,
            decisions={call.id: Deny(answers.steps[call.id].error or "") for call in result.pending},
        ).wait()
    if result.status != run.status or (result.error is not None and str(result.error) != run.error):
        raise result.error or ToolError(f"the recorded run was {run.status}: {run.error}; this one is {result.status}")
    order = {node.id: index for index, node in enumerate(recipe.plan.body.nodes)}
    calls = sorted(
        (outcome for outcome in result.calls if outcome.call.id in answers.steps),
        key=lambda outcome: _find_place(outcome.call.id, order),
    )
    return result, [_show(outcome) for outcome in calls]


class _RecordedSteps:
    """What the steps gave, in place of running them."""

    def __init__(self, run: RecordedRecipe) -> None:
        self.steps = {step.id: step for step in run.steps}

    def replace(self, tool: AnyTool) -> AnyTool:
        """Return a tool that takes what this one takes, and gives what the step gave."""

        def give(arguments: dict[str, Any], context: Context[Any] = CONTEXT) -> JSON:
            return self._answer(tool.name, context.call_id)

        def asks(arguments: Mapping[str, Any], context: Context[Any]) -> bool:
            return (step := self.steps.get(context.call_id)) is not None and step.is_denied

        return imitate(tool, give, approval=asks if tool.approval else None)

    async def ask(self, request: AskRequest, values: Mapping[str, JSON], context: Context[Any]) -> JSON:
        """Return what the model or the agent of this step answered."""
        return self._answer(request.name, context.call_id)

    def _answer(self, tool: str, step_id: str) -> JSON:
        step: RecordedStep | None = self.steps.get(step_id)
        if step is None or step.tool.rstrip("+") != tool:
            raise ToolError(
                f"the recording has no result of {tool} at step {step_id!r}: the recipe isn't the one that ran"
            )
        if step.error is not None:
            raise ToolError(step.error)
        return give_media(step.value)


def _find_place(step_id: str, order: Mapping[str, int]) -> list[tuple[int, str]]:
    """Place a call as its step stands in the recipe, numbers by size: calls in flight together end in any order."""
    first, *inner = step_id.split("/")
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in inner]
    return [(order.get(first, len(order)), first), *parts]


def _show(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    return outcome.call.name, cast(dict[str, Any], show_arguments(outcome.call.arguments))
