"""What a run of a recipe is started with, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from flowkit.agent.plan import Pending
from flowkit.cache import Cache
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, FlowkitError
from flowkit.events import RunStatus
from flowkit.executor import Decision, Outcome
from flowkit.journal import Journal
from flowkit.messages import Usage
from flowkit.models.base import Model
from flowkit.recipes.plan import RecipePlan

R_co = TypeVar("R_co", covariant=True)


class RecipeRunOptions(TypedDict, total=False):
    """What a run may be started with, beside its inputs.

    `data` is what tools see as `ctx.data`; `user` and `session` say who may share cached results. `cache` keeps
    results with a TTL: True is the user's cache folder, False none. With `journal` a run can go on after a crash,
    under its `run_id`; `allow_changed` lets it although its code changed. `slots` says how many calls run at once, in
    all or by name. `timeout_s` bounds the whole. `decisions` answer calls that wait for a person, by their ids, in a
    run that goes on: `resume` is the result of one that waited, where there is no journal. `model` is asked in place of
    those that the steps name: of all, or by name.
    """

    data: object
    user: str | None
    session: str | None
    run_id: str | None
    cache: Cache | bool
    journal: Journal | None
    allow_changed: bool
    slots: int | Mapping[str, int]
    timeout_s: float | None
    decisions: Mapping[str, Decision]
    resume: "RecipeResult[Any] | None"
    model: Model | Mapping[str, Model] | None


@dataclass(frozen=True, slots=True)
class RecipeResult(Generic[R_co]):
    """How a run of a recipe ended, which began with `inputs`.

    `output` is None unless `status` is `done`. `calls` has the outcome of every call, those of bodies and needs
    included. `usage` and `cost` (US dollars, None where a price isn't known) are of all models that were asked. `pending`
    are the calls that wait for a person.
    """

    output: R_co | None
    status: RunStatus
    calls: tuple[Outcome, ...]
    usage: Usage
    cost: float | None
    pending: tuple[Pending, ...]
    error: FlowkitError | None
    run_id: str
    inputs: Mapping[str, JSON]


def read_past(options: RecipeRunOptions) -> tuple[Mapping[str, Outcome], Mapping[str, Decision]]:
    """What ended before, and what was decided, before and now."""
    decisions, resumed = options.get("decisions", {}), options.get("resume")
    if resumed is None:
        return {}, decisions
    past = {outcome.call.id: outcome for outcome in resumed.calls}
    before = {call_id: outcome.decision for call_id, outcome in past.items() if outcome.decision is not None}
    return past, {**before, **decisions}


def check_options(plan: RecipePlan[Any], options: RecipeRunOptions, inputs: Mapping[str, JSON]) -> None:
    """Refuse a run that lacks the identity by which its tools' results are kept apart, or that names a model in vain."""
    for tool in plan.tools.values():
        if tool.ttl_s is not None and tool.scope in ("user", "session") and options.get(tool.scope) is None:
            raise ConfigurationError(
                f"tool {tool.name!r} keeps its results for each {tool.scope}: start the run with {tool.scope}=…"
            )
    model = options.get("model")
    unknown = model.keys() - plan.requests.keys() if isinstance(model, Mapping) else ()
    if unknown:
        raise ConfigurationError(
            f"recipe {plan.name!r} asks no {min(unknown)!r}; it asks {', '.join(plan.requests) or 'nobody'}"
        )
    _check_past(options, inputs)


def _check_past(options: RecipeRunOptions, inputs: Mapping[str, JSON]) -> None:
    """Refuse decisions on nothing, since a run that starts anew would do once more what has been done."""
    resumed = options.get("resume")
    if options.get("journal") is None and options.get("decisions") and resumed is None:
        raise ConfigurationError(
            "decisions are for a run that goes on: give resume=, the result that waits, or its journal and run_id"
        )
    if resumed is None:
        return
    if options.get("journal") is not None:
        raise ConfigurationError("a run in a journal goes on by its run_id; leave resume= out")
    if resumed.status != "waiting":
        raise ConfigurationError(f"a run that is {resumed.status} doesn't go on: resume= takes a result that waits")
    if resumed.inputs != inputs:
        raise ConfigurationError(f"run {resumed.run_id!r} began with other inputs")
