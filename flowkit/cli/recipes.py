"""`flowkit run`: run a recipe, show its progress, and resume one that was stopped.

Predict what a run of a recipe would do, as far as that can be known without running anything.

If a step's arguments are known, it is looked up in the cache. A cached result is known too, so the walk continues from
there. After a step that would have to run, arguments are unknown, and the output says so.
"""

import asyncio
import secrets
import shlex
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from pydantic_core import to_jsonable_python

from flowkit import codec
from flowkit.apps import App, load_app
from flowkit.cache import Cache, Hit, open_default_cache
from flowkit.cli.exit_codes import FAILED
from flowkit.cli.journals import find_run, open_journal
from flowkit.cli.model_choice import choose_model, close_models, is_local, offer_local_servers
from flowkit.cli.options import (
    AppTarget,
    AsJson,
    BaseUrl,
    CacheAddress,
    Data,
    JournalAddress,
    ToolsFile,
    Trace,
    User,
    read_pairs,
)
from flowkit.cli.options import Model as ModelName
from flowkit.cli.output import note, print_json, say
from flowkit.cli.running import open_trace, show_summary, watch
from flowkit.cli.starting import show_start
from flowkit.codec import JSON
from flowkit.display.words import say_arguments
from flowkit.errors import ConfigurationError, FlowkitError, ResolutionError, ToolArgumentsError
from flowkit.events import Event
from flowkit.graph import INPUTS, Node, describe, find_own_references, get_bodies
from flowkit.graph.pictures.timeline import format_seconds
from flowkit.identity import RunIdentity
from flowkit.journal import Journal, RunDetails
from flowkit.journal.store import OVER
from flowkit.models.base import Model
from flowkit.models.default import DefaultModel
from flowkit.recipes import Recipe, RecipeResult
from flowkit.references import ToolCall, resolve
from flowkit.schema_words import read_properties
from flowkit.tools import Tool


@dataclass(frozen=True, slots=True)
class RecipeRequest:
    """A request to run a recipe: its inputs, its user and its run id."""

    app: App
    recipe: Recipe[..., Any]
    inputs: Mapping[str, object]
    user: str | None
    run_id: str


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The command's options about how a job runs and is displayed."""

    data: Mapping[str, str]
    model: str | None
    base_url: str | None
    trace: Path | None
    journal: str | None
    as_json: bool


def run(
    app: AppTarget,
    inputs: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="The recipe's inputs.")] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="A JSON file with the inputs; KEY=VALUE arguments override it."),
    ] = None,
    tools: ToolsFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, without running it.")] = False,
    as_json: AsJson = False,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Resume this run.")] = None,
    run_id: Annotated[str | None, typer.Option(metavar="RUN", help="The id of the new run.")] = None,
    model: ModelName = None,
    base_url: BaseUrl = None,
    data: Data = None,
    user: User = None,
    trace: Trace = None,
    journal: JournalAddress = None,
    cache: CacheAddress = None,
) -> None:
    """Run a recipe."""
    with show_start():
        loaded = load_app(app, tools=tools)
    recipe = loaded.get_recipe()
    given = _read_inputs(recipe, inputs, input_file)
    if resume is None:
        _check_inputs(recipe, given)
    if dry_run:
        for line in say_dry_run(recipe, given, user=loaded.find_user(user)):
            say(line)
        return
    if resume is None:
        job = RecipeRequest(loaded, recipe, given, user, run_id or f"{recipe.name}-{secrets.token_hex(3)}")
    else:
        with open_journal(journal, must_exist=True) as opened:
            job = make_job(loaded, recipe, find_run(opened, resume))
        if given:
            job = replace(job, inputs=given)  # it has them already; given once more they must be the same
    run_job(job, RunSettings(read_pairs(data, "--data"), model, base_url, trace, journal, as_json))


def make_job(app: App, recipe: Recipe[..., Any], found: RunDetails) -> RecipeRequest:
    """Make a job that resumes a run from the journal."""
    inputs = found.inputs if isinstance(found.inputs, dict) else {}
    return RecipeRequest(app, recipe, inputs, found.summary.user, found.summary.run_id)


def run_job(job: RecipeRequest, settings: RunSettings) -> None:
    """Run a job and show it; exit with `FAILED` unless it is done."""
    with (
        open_trace(settings.trace) as trace,
        open_journal(settings.journal) as journal,
        _choose_models(job.recipe, settings) as models,
    ):
        try:
            result, events = asyncio.run(_run(job, settings, journal, trace, models))
        except KeyboardInterrupt:
            note(_say_resume(job))
            raise
    if result.status == "done":
        print_json(to_jsonable_python(result.output))
    if not settings.as_json:
        show_summary(events)  # last: a long output would push it out of sight
    _say_end(job, result)
    if result.status != "done":
        raise typer.Exit(FAILED)


@contextmanager
def _choose_models(recipe: Recipe[..., Any], settings: RunSettings) -> Generator[dict[str, Model]]:
    """Open the models that replace the recipe's own, by name."""
    requests = recipe.plan.requests
    own = {name: request.agent.model for name, request in requests.items()}
    is_named = settings.model is not None or settings.base_url is not None
    if is_named and not own:
        raise ConfigurationError(f"recipe {recipe.name!r} has no step that asks a model")
    if is_local(own.values(), settings.model, settings.base_url) and not all(one.tools for one in requests.values()):
        offer_local_servers()
        raise ConfigurationError(
            f"recipe {recipe.name!r} asks a model to write, and the offline demo model only calls tools: "
            "set OPENAI_API_KEY, OPENAI_BASE_URL or ANTHROPIC_API_KEY, or give --base-url and --model"
        )
    with choose_model(own.values(), settings.model, settings.base_url) as chosen:
        replaced = [name for name, model in own.items() if is_named or isinstance(model, DefaultModel)]
        yield {} if chosen is None else dict.fromkeys(replaced, chosen)


async def _run(
    job: RecipeRequest, settings: RunSettings, journal: Journal, trace: BinaryIO | None, models: Mapping[str, Model]
) -> tuple[RecipeResult[Any], Sequence[Event]]:
    async with job.app.open(settings.data, job.user) as (data, user):
        found = journal.find(job.run_id, user=user)
        if found is not None and found.status in OVER:
            note(f"run {job.run_id!r} is already {found.status}: nothing ran, and this is its result")
        run = job.recipe.start(job.inputs, data=data, user=user, run_id=job.run_id, journal=journal, model=models)
        try:
            await watch(run, trace=trace, quiet=settings.as_json, graph=job.recipe.graph(), with_summary=False)
            return await run.wait(), run.log.events
        finally:
            await close_models(
                *models.values(), *(request.agent.model for request in job.recipe.plan.requests.values())
            )
            await open_default_cache().close()


def _read_inputs(recipe: Recipe[..., Any], pairs: list[str] | None, file: Path | None) -> dict[str, object]:
    """Read inputs from a file and from the command line; convert the latter to their types."""
    values: dict[str, object] = {}
    if file is not None:
        try:
            content = codec.loads(file.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"the inputs {str(file)!r} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(f"the inputs {str(file)!r} aren't JSON: {error}") from error
        if not isinstance(content, dict):
            raise ConfigurationError(f"the inputs {str(file)!r} aren't a JSON object")
        values.update(content)
    known = read_properties(recipe.parameters)
    for name, text in read_pairs(pairs, "input").items():
        if name not in known:
            raise ConfigurationError(
                f"recipe {recipe.name!r} has no input {name!r}; it has {', '.join(known) or 'none'}"
            )
        values[name] = known[name].read(text)
    return values


def _check_inputs(recipe: Recipe[..., Any], values: Mapping[str, object]) -> None:
    """Check the inputs before anything is opened; raises `ConfigurationError` for inputs that don't fit."""
    try:
        recipe.read_inputs(values)
    except ToolArgumentsError as error:
        raise ConfigurationError(f"recipe {recipe.name!r}: {'; '.join(error.problems)}") from error


def _say_end(job: RecipeRequest, result: RecipeResult[Any]) -> None:
    match result.status:
        case "done":
            pass
        case "waiting":
            for pending in result.pending:
                note(
                    f"waiting for approval: {pending.id}: {pending.name}({say_arguments(dict(pending.arguments), 400)})"
                )
            note(f"decide with: {shlex.join(['flowkit', 'runs', 'approve', job.run_id, result.pending[0].id])}")
            note(_say_resume(job))
        case "in_doubt":
            note(f"flowkit: {result.error}")
            for outcome in result.calls:
                if outcome.state == "in_doubt":
                    settle = shlex.join(["flowkit", "runs", "resolve", job.run_id, outcome.call.id])
                    note(f"resolve it with: {settle} --done JSON|--retry|--fail TEXT")
            note(_say_resume(job))
        case _:
            note(f"flowkit: {result.error or f'recipe {job.recipe.name!r} was stopped'}")


def _say_resume(job: RecipeRequest) -> str:
    tools = [] if job.app.tools_file is None else ["--tools", str(job.app.tools_file)]
    return "resume with: " + shlex.join(["flowkit", "run", job.app.target, *tools, "--resume", job.run_id])


def say_dry_run(recipe: Recipe[..., Any], inputs: Mapping[str, object], *, user: str | None) -> list[str]:
    """List one line per step, in an order in which they can run; raises `ToolArgumentsError` for wrong inputs."""
    walk = _Walk(recipe.plan.tools, open_default_cache(), user)
    walk.known[INPUTS] = dict(recipe.read_inputs(inputs))
    return list(walk.say(recipe.graph().values(), ""))


class _Walk:
    def __init__(self, tools: Mapping[str, Tool[..., Any]], cache: Cache, user: str | None) -> None:
        self.known: dict[str, JSON] = {}
        self._tools = tools
        self._cache = cache
        self._user = user

    def say(self, nodes: Iterable[Node], indent: str) -> Iterable[str]:
        for node in nodes:
            if isinstance(node, ToolCall):
                yield f"{indent}{self._say_call(node)}"
                continue
            yield f"{indent}{node.id}: {describe(node)}"
            for word, body in get_bodies(node):
                if word:
                    yield f"{indent}  {word}:"
                yield from self.say(body.nodes, indent + "    ")

    def _say_call(self, call: ToolCall) -> str:
        tool = self._tools[call.name]
        said = call.id if call.id.rsplit("/", 1)[-1] == call.name else f"{call.id}: {call.name}"
        open_ids = {reference.call_id for reference in find_own_references(call)} - set(self.known)
        if open_ids:
            return f"{said}, with what {', '.join(sorted(open_ids))} gives: {_say_effect(tool)}"
        try:
            arguments: Any = resolve(dict(call.arguments), self.known.__getitem__)
            hit = self._find(tool, ToolCall(call.id, call.name, arguments))
        except (FlowkitError, ResolutionError) as error:
            return f"{said}: would fail: {error}"
        said += f"({say_arguments(arguments)})"
        if hit is None:
            return f"{said}: {_say_effect(tool)}"
        self.known[call.id] = hit.value
        return f"{said}: in the cache, {format_seconds(hit.age_s)} old"

    def _find(self, tool: Tool[..., Any], call: ToolCall) -> Hit | None:
        """Find a call's result in the cache, if everything that the call needs is cached too."""
        *needed, bound = tool.expand(call)
        for need in needed:
            hit = self._look_up(tool.needed_tools[need.name], need.arguments)
            if hit is None:
                return None
            self.known[need.id] = hit.value
        return self._look_up(tool, bound.arguments)

    def _look_up(self, tool: Tool[..., Any], arguments: Mapping[str, object]) -> Hit | None:
        values: Any = resolve(dict(arguments), self.known.__getitem__)
        needed = {need.parameter: values.pop(need.parameter) for need in tool.needs}
        read = tool.validate(values, needed)
        # As a run does it, or the keys differ; a session and a run's own results are no dry run's.
        scope_id = RunIdentity(self._user).scope_key(tool.scope)
        if tool.ttl_s is None or scope_id is None:
            return None
        generations = [self._cache.generation(resource) for resource in tool.resources(read)]
        key = tool.key(read, scope_id, generations)
        found = None if key is None else self._cache.get(key)
        return found if isinstance(found, Hit) else None


def _say_effect(tool: Tool[..., Any]) -> str:
    asks = "" if tool.approval is False else ", after approval" if tool.approval is True else ", perhaps after approval"
    return f"would run ({tool.effect}{asks})"
