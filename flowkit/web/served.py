"""The agents and recipes that a server runs, by name, and how to start a run of each.

Only this module distinguishes agents from recipes.

Limits per user, and time limits for clients.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from flowkit.agent import Agent, AgentRunOptions
from flowkit.agent.plan import Given
from flowkit.apps import App, load_app
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, RunBusy, RunError
from flowkit.journal import Journal, RunDetails
from flowkit.journal.store import OVER
from flowkit.models.base import Model
from flowkit.models.default import DefaultModel
from flowkit.recipes import Recipe
from flowkit.recipes.data import hash_recipe
from flowkit.runs.options import check_identity
from flowkit.runs.run import Run
from flowkit.stores.waiting import wait_in_thread


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of `serve_app`; times in seconds.

    `streams` and `runs` limit each user's open streams and live runs. `body_bytes` and
    `head_bytes` limit the size of a request, `body_s` the time its body takes. A run of `/api/chat` that has had no
    viewer for `unwatched_s` is cancelled. `grace_s` is the time that runs have to finish when the server stops.
    """

    streams: int = 4
    runs: int = 8
    body_bytes: int = 2**20
    head_bytes: int = 2**16
    body_s: float = 10.0
    unwatched_s: float = 2.0
    grace_s: float = 1.0
    keep_alive_s: float = 15.0
    poll_s: float = 0.25


Target = Agent[Any] | Recipe[..., Any]
Servable = App | Target | str | Path


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A run to start: a message for an agent, or inputs for a recipe; neither to resume a run."""

    target: str
    user: str | None
    run_id: str
    message: str | None = None
    inputs: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    session: str | None = None
    fork: str | None = None
    at: str | None = None
    results: Mapping[str, JSON] = field(default_factory=dict[str, JSON])


@dataclass(frozen=True, slots=True)
class Served:
    """The served agents and recipes. `model` replaces `DefaultModel`s, or with `replaces_all` every model."""

    targets: Mapping[str, Target]
    app: App | None = None
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    model: Model | None = None
    replaces_all: bool = False

    def choose(self, name: str | None) -> str:
        """Find the target by name; without a name, the first. Raises `KeyError`."""
        if name is None:
            return next(iter(self.targets))
        _ = self.targets[name]
        return name

    def is_agent(self, name: str) -> bool:
        """Return True if an agent of this name is served."""
        return isinstance(self.targets.get(name), Agent)

    def find_user(self, user: str | None) -> str | None:
        """Return the user when there is no login: the given one, or the app's default."""
        return user if self.app is None else self.app.find_user(user)

    @asynccontextmanager
    async def open(self, user: str | None) -> AsyncGenerator[object]:
        """Open the data of one run; raises `ConfigurationError` if it isn't available."""
        if self.app is None:
            yield None
            return
        async with self.app.open(self.options, user) as (data, _):
            yield data

    def check(self, wanted: StartRequest) -> None:
        """Check a request; raises `ToolArgumentsError` for invalid inputs, `RunError` for a message to a recipe."""
        target = self.targets[wanted.target]
        if isinstance(target, Recipe):
            if wanted.message is not None:
                raise RunError(f"recipe {wanted.target!r} takes inputs, no message")
            target.read_inputs(wanted.inputs)
        elif wanted.fork is None and not (wanted.message or "").strip():
            raise RunError(f"agent {wanted.target!r} takes a message")

    def start(self, wanted: StartRequest, data: object, journal: Journal) -> Run[Any]:
        """Start the run in the current event loop."""
        target = self.targets[wanted.target]
        if isinstance(target, Recipe):
            return target.start(
                wanted.inputs,
                data=data,
                user=wanted.user,
                session=wanted.session,
                run_id=wanted.run_id,
                journal=journal,
                model=self._replace_models(target),
            )
        options: AgentRunOptions = {
            "data": data,
            "user": wanted.user,
            "session": wanted.session,
            "run_id": wanted.run_id,
        }
        if wanted.fork is not None:
            options |= {"fork": wanted.fork, "at": wanted.at, "results": wanted.results}
        with target.override(model=self._replace_model(target.model), journal=journal):
            return target.start(wanted.message, **options)

    async def record(self, wanted: StartRequest, journal: Journal) -> bool:
        """Record the run for the process that drives it next; False if the journal has it already.

        Raises the errors of `check`, and `RunError` if a run with this id started with different inputs.
        """
        self.check(wanted)
        target = self.targets[wanted.target]
        if isinstance(target, Recipe):
            inputs, code = cast(JSON, target.read_inputs(wanted.inputs)), hash_recipe(target.plan)
        else:
            check_identity(target.tools, wanted.user, wanted.session)
            inputs, code = Given(wanted.message).to_json(), ""
        session = ... if wanted.session is None else wanted.session

        async def show() -> RunDetails | None:
            return await wait_in_thread(journal.show, wanted.run_id, user=wanted.user, session=session)

        known = await show()
        if known is not None:
            if known.inputs != inputs or known.summary.name != target.name:
                raise RunError(f"run {wanted.run_id!r} began with other inputs")
            return False
        try:
            held = await journal.open_run(
                wanted.run_id,
                name=target.name,
                code=code,
                inputs=inputs,
                user=wanted.user,
                session=wanted.session,
                only_read=OVER,
            )
        except RunBusy:
            if await show() is None:
                raise
            return False  # two at once: the other one's is driven already
        if held.is_new:
            await held.finish("queued")
        await held.close()
        return held.is_new

    def check_arguments(self, target: str, tool: str, arguments: Mapping[str, JSON]) -> None:
        """Check a call's arguments; raises `ToolArgumentsError` for arguments that its tool doesn't accept."""
        found = self._find_tool(target, tool)
        # What fills its needs isn't among them, and a secret only as its mask: the run itself checks those.
        if found is not None and not found.needs and not found.secrets:
            found.validate(arguments)

    def name_model(self, target: Agent[Any]) -> str:
        """Return the name of the model that this agent calls."""
        return (self._replace_model(target.model) or target.model).name

    def _find_tool(self, target: str, tool: str) -> Any:
        owner = self.targets.get(target)
        if isinstance(owner, Recipe):
            return owner.plan.tools.get(tool)
        return None if owner is None else owner.tools.get(tool)

    def _replace_model(self, own: Model) -> Model | None:
        is_replaced = self.replaces_all or isinstance(own, DefaultModel)
        return self.model if is_replaced else None

    def _replace_models(self, target: Recipe[..., Any]) -> Mapping[str, Model]:
        models = {name: self._replace_model(request.agent.model) for name, request in target.plan.requests.items()}
        return {name: model for name, model in models.items() if model is not None}

    @property
    def models(self) -> list[Model]:
        """All models that can be called."""
        found: list[Model] = []
        for target in self.targets.values():
            if isinstance(target, Recipe):
                found += [request.agent.model for request in target.plan.requests.values()]
            else:
                found.append(target.model)
        return found


def go_on_with(details: RunDetails) -> StartRequest:
    """Return the request that resumes a run of the journal."""
    summary = details.summary
    inputs = details.inputs if isinstance(details.inputs, dict) else {}
    return StartRequest(summary.name, summary.user, summary.run_id, inputs=inputs, session=summary.session)


def make_served(servable: Servable | Iterable[Target], options: Mapping[str, str] | None = None) -> Served:
    """Collect the served agents and recipes by name, from an app, its path, or one or several agents and recipes.

    Raises `ConfigurationError` if two have the same name, or if there is none.
    """
    app = None
    if isinstance(servable, (str, Path)):
        servable = load_app(str(servable))
    if isinstance(servable, App):
        app = servable
        chosen = {**app.agents, **app.recipes}
        if app.selected is not None:
            if app.selected not in chosen:
                raise ConfigurationError(f"{app.path} has no agent and no recipe {app.selected!r}")
            chosen = {app.selected: chosen[app.selected]}
        targets = list(dict.fromkeys(chosen.values()))
    elif isinstance(servable, (Agent, Recipe)):
        targets: list[Target] = [servable]
    else:
        targets = list(servable)
    names = [target.name for target in targets]
    if not targets:
        raise ConfigurationError(f"{'it' if app is None else app.path} has no agent and no recipe to serve")
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ConfigurationError(f"two agents or recipes are called {double!r}; name them apart, Agent(…, name=…)")
    return Served(dict(zip(names, targets, strict=True)), app, options or {})
