"""The options of a recipe's run beyond those of every run, and its result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.executor import Decision, Outcome
from flowkit.models.base import Model
from flowkit.option_checks import Expected
from flowkit.recipes.plan import RecipePlan
from flowkit.runs.options import MODEL, RunOptions, check_identity, check_run_options
from flowkit.runs.results import RunResult

R_co = TypeVar("R_co", covariant=True)


class RecipeRunOptions(RunOptions, total=False):
    """The options of a recipe's run, besides its inputs: those of every run, and two more.

    `model` replaces the models that the steps name: all of them, or by name. `resume` is the result of a run that
    waited for a person; without a journal, it resumes with `decisions`.
    """

    model: Model | Mapping[str, Model] | None
    resume: "RecipeResult[Any] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeResult(RunResult[R_co]):
    """The result of a recipe's run with these `inputs`; `calls` includes the calls in bodies and needs."""

    inputs: Mapping[str, JSON] = field(default_factory=dict[str, JSON])


_EXPECTED: Mapping[str, Expected] = {
    "model": Expected(
        "a model, or models by the names that the steps give",
        lambda value: (
            all(map(MODEL.fits, cast(Mapping[object, object], value).values()))
            if isinstance(value, Mapping)
            else MODEL.fits(value)
        ),
        instead=MODEL.instead,
    ),
    "resume": Expected("the result of a run that waits", lambda value: isinstance(value, RecipeResult)),
}


def check_recipe_options(given: RecipeRunOptions) -> None:
    """Refuse options that such a run hasn't, and values that they don't take."""
    check_run_options(cast(Mapping[str, object], given), RecipeRunOptions, "a run of a recipe", _EXPECTED)


def refuse_options(recipe: str, given: Mapping[str, object], parameters: Mapping[str, Any]) -> None:
    """Refuse options among the inputs, where agents take them."""
    for name in RecipeRunOptions.__optional_keys__ & given.keys() - parameters["properties"].keys():
        raise ConfigurationError(
            f"recipe {recipe!r} has no input {name!r}; as an option: await {recipe}.options({name}=…).run(…)"
        )


def read_past(options: RecipeRunOptions) -> tuple[dict[str, Outcome], dict[str, Decision]]:
    """Read earlier outcomes, and all decisions, earlier and new."""
    decisions, resumed = options.get("decisions", {}), options.get("resume")
    if resumed is None:
        return {}, dict(decisions)
    past = {outcome.call.id: outcome for outcome in resumed.calls}
    before = {call_id: outcome.decision for call_id, outcome in past.items() if outcome.decision is not None}
    return past, {**before, **decisions}


def check_options(plan: RecipePlan[Any], options: RecipeRunOptions, inputs: Mapping[str, JSON]) -> None:
    """Refuse a run that lacks the identity by which its tools' results are kept apart, or that names a model in vain."""
    check_identity(plan.tools.values(), options.get("user"), options.get("session"))
    model = options.get("model")
    unknown = model.keys() - plan.requests.keys() if isinstance(model, Mapping) else ()
    if unknown:
        raise ConfigurationError(
            f"recipe {plan.name!r} asks no {min(unknown)!r}; it asks {', '.join(plan.requests) or 'no model'}"
        )
    _check_past(options, inputs)


def _check_past(options: RecipeRunOptions, inputs: Mapping[str, JSON]) -> None:
    """Refuse decisions without a run to resume, since a new run would repeat finished calls."""
    resumed = options.get("resume")
    if options.get("journal") is None and options.get("decisions") and resumed is None:
        raise ConfigurationError(
            "decisions are for a resumed run: pass resume=, the result that waits, or its journal and run_id"
        )
    if resumed is None:
        return
    if options.get("journal") is not None:
        raise ConfigurationError("a run in a journal is resumed by its run_id; leave resume= out")
    if resumed.status != "waiting":
        raise ConfigurationError(f"a run that is {resumed.status} can't be resumed: resume= takes a result that waits")
    if resumed.inputs != inputs:
        raise ConfigurationError(f"run {resumed.run_id!r} began with other inputs")
