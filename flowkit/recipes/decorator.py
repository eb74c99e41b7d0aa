"""`@recipe`: multi-step work declared once, as a graph with a name, typed inputs and an output.

The function runs once, at decoration, with a `Ref` for each input. Its steps are the graph, and its return value is the
output. After that it never runs again: runs, pictures and files are made from the graph alone.

A recipe as a tool that a model, another tool or an agent can call.

Its steps become nodes of the graph that the call stands in, under the call's name: with their own cache, journal,
and events. The tool's effect and scope are the strongest of them.

A write that has begun can't wait for a person. So a recipe that writes is no tool when one of its steps always asks,
and a step that asks by its rule, and does, fails there.
"""

from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from dataclasses import replace
from inspect import getdoc, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, Generic, Never, TypeVar, cast, overload

from pydantic_core import to_jsonable_python
from typing_extensions import ParamSpec, Unpack

from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.errors import DefinitionError, ToolArgumentsError
from flowkit.graph import INPUTS, Body, Graph, Group, Node, get_after
from flowkit.identity import RunIdentity
from flowkit.notebook import Bundle, show_picture
from flowkit.option_checks import TEXT, find_misfit
from flowkit.recipes.asking import ask
from flowkit.recipes.input_findings import find_missing_values, find_secret_inputs
from flowkit.recipes.model_steps import AskRequest, lower_agents, run_request
from flowkit.recipes.options import RecipeResult, RecipeRunOptions, check_options, check_recipe_options, refuse_options
from flowkit.recipes.plan import AnyTool, RecipePlan, output_of_type
from flowkit.recipes.recipe_run import RecipeWork
from flowkit.recipes.ref import Ref, Symbol, here, is_in, is_none, not_, open_scopes, operand, traced_file
from flowkit.recipes.source import check_source
from flowkit.recipes.steps import build, each, finally_, step, when
from flowkit.recipes.tracing import Scope
from flowkit.runs.decided import DECIDED
from flowkit.runs.nested import NewRun, place_run
from flowkit.runs.options import open_log
from flowkit.runs.run import Run, RunsAtWork, block_on, hold, wait_with
from flowkit.schema_paths import find_problem
from flowkit.tools import Tool, make_tool
from flowkit.tools.needs import NeedMarker
from flowkit.tools.options import Effect, Options
from flowkit.tools.schema.arguments_schema import Schema
from flowkit.tools.schema.signatures import MISSING, Signature, read_signature


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


P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_MAKERS = (step, each, when, build, ask, finally_, is_in, is_none, not_)


class Recipe(Generic[P, R_co]):
    """A graph with a name, typed inputs and an output; `@recipe` and `load_recipe` make it."""

    def __init__(self, plan: RecipePlan[R_co], options: RecipeRunOptions | None = None) -> None:
        self.plan = plan
        self._options: RecipeRunOptions = {} if options is None else options
        self._at_work = RunsAtWork[RecipeResult[R_co]]()

    def __repr__(self) -> str:
        return f"<recipe {self.name}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        """Show the recipe's graph in a notebook."""
        graph = self.plan.graph
        return show_picture(f"recipe {self.name}\n{graph.explain()}", graph.to_svg())

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.plan.name

    @property
    def description(self) -> str:
        """The recipe's description, from its docstring."""
        return self.plan.description

    @property
    def parameters(self) -> Schema:
        """The JSON Schema of its inputs."""
        return self.plan.parameters

    @property
    def effect(self) -> Effect:
        """The strongest effect of its steps."""
        return self.plan.effect

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Never:
        """Refuse to be called: run a recipe, or use it as a step of another one."""
        raise DefinitionError(
            f"{here()}: recipe {self.name!r} isn't called: await {self.name}.run(…), or in a recipe step({self.name}, …)"
        )

    def options(self, **options: Unpack[RecipeRunOptions]) -> "Recipe[P, R_co]":
        """Return the same recipe with these options for its runs: `await support.options(user="c-17").run("ORD-1")`."""
        check_recipe_options(options)
        changed = copy(self)
        changed._options = cast(RecipeRunOptions, {**self._options, **options})
        return changed

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> RecipeResult[R_co]:
        """Start a run and return its result; it is cancelled with its caller. The arguments are the inputs.

        Raises `ToolArgumentsError` for inputs that don't fit, and the run's error when its status is `failed`;
        `error.result` then holds the partial result.
        """
        refuse_options(self.name, kwargs, self.parameters)
        return await wait_with(self.start(self.plan.interface.call(*args, **kwargs).arguments))

    def run_sync(self, *args: P.args, **kwargs: P.kwargs) -> RecipeResult[R_co]:
        """Run in an event loop of its own, for a program without one."""
        return block_on(lambda: self.run(*args, **kwargs), self.name)

    def start(
        self, inputs: Mapping[str, object] | None = None, **options: Unpack[RecipeRunOptions]
    ) -> Run[RecipeResult[R_co]]:
        """Start a run that owns its task; needs a running event loop.

        If this user has a run with this `run_id` in progress in this session, that run is returned; without a `user`,
        no run is joined. If the journal has the run, it is resumed. A run that a tool's function starts without a
        `run_id` gets one from its call, the same when the call runs again, and is recorded in the calling run's journal.
        Raises:

        - `ToolArgumentsError` for inputs that don't fit.
        - `RunError` for other inputs than those of the run in progress.
        - `ConfigurationError` for a run without the identity that a tool's scope needs.
        """
        check_recipe_options(options)
        chosen = cast(RecipeRunOptions, {**self._options, **options})
        values = self.read_inputs({} if inputs is None else inputs)
        resumed = chosen.get("resume")
        run_id = chosen.get("run_id") or (None if resumed is None else resumed.run_id)
        if run_id is not None:
            place = NewRun(RunIdentity(chosen.get("user"), chosen.get("session"), run_id))
        else:
            has_journal = chosen.get("journal") is not None
            place = place_run(chosen, self.name, lambda: values, has_journal=has_journal)
            chosen = cast(RecipeRunOptions, {**chosen, "user": place.identity.user, "session": place.identity.session})
        identity = place.identity
        at_work = self._at_work.find(identity, values)
        if at_work is not None:
            at_work.add_decisions(chosen.get("decisions", {}))
            return at_work
        check_options(self.plan, chosen, values)
        key = None if resumed is None else id(resumed)
        decisions = chosen.get("decisions", {})
        before = None if key is None else DECIDED.find(key, decisions)
        if before is not None:
            return before
        work = RecipeWork(self.plan, values, chosen, open_log(identity.run_id), place.around)
        run = self._at_work.start(work, identity, values)
        if key is not None and decisions:
            DECIDED.keep(key, decisions, run, of=resumed)
        return run

    def stream(
        self, inputs: Mapping[str, object] | None = None, **options: Unpack[RecipeRunOptions]
    ) -> AbstractAsyncContextManager[Run[RecipeResult[R_co]]]:
        """Start a run that is cancelled and waited for on leaving."""
        return hold(lambda: self.start(inputs, **options))

    def read_inputs(self, inputs: Mapping[str, object]) -> dict[str, JSON]:
        """Validate inputs and return them as JSON, with defaults; raises `ToolArgumentsError`."""
        return to_jsonable_python(self.plan.interface.validate(inputs).values, bytes_mode="base64")

    def graph(self) -> Graph:
        """Return the graph of its nodes, for pictures and analysis."""
        return self.plan.graph

    def explain(self) -> str:
        """Describe the graph in words: layers, critical path, dependencies."""
        return self.plan.graph.explain()

    def to_yaml(self) -> str:
        """Write the recipe as a file that `load_recipe` reads; raises `DefinitionError` for a part that a file can't express."""
        from flowkit.recipes.format import to_yaml

        return to_yaml(self.plan)

    def as_tool(self) -> Tool[P, Coroutine[Any, Any, R_co]]:
        """Make a tool of the recipe, for agents; its effect and scope are the strongest of its steps."""
        return make_recipe_tool(self.plan)

    def name_inputs(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        """Bind the inputs of a step of another recipe by name; raises `DefinitionError` for unknown ones."""
        try:
            return self.plan.interface.call(*args, **kwargs).arguments
        except (TypeError, ToolArgumentsError) as error:
            raise DefinitionError(f"{here()}: {str(error).replace('tool ', 'recipe ', 1)}") from None

    def check_output(self, path: tuple[str | int, ...]) -> str | None:
        """Check a path in its output, as a step of another recipe; return a description of the fault."""
        schema = self.plan.output.schema
        return None if schema is None else find_problem(schema, path)


@overload
def recipe(function: Callable[P, R], /) -> Recipe[P, R]: ...
@overload
def recipe(*, name: str | None = None, description: str | None = None) -> "RecipeDecorator": ...
def recipe(
    function: Callable[..., Any] | None = None, /, *, name: str | None = None, description: str | None = None
) -> Any:
    """Make a recipe of a function that makes steps; as `@recipe` or `@recipe(name=…)`.

    Raises `DefinitionError`, with file and line, for a function that branches on values known only in a run, and for
    steps that don't fit together.
    """
    misfit = find_misfit({"name": name, "description": description}, {"name": TEXT, "description": TEXT})
    if misfit is not None:
        raise DefinitionError(f"@recipe: {misfit}")
    decorator = RecipeDecorator(name, description)
    return decorator if function is None else decorator(function)


class RecipeDecorator:
    """The decorator that `@recipe(...)` returns."""

    def __init__(self, name: str | None, description: str | None) -> None:
        self._name = name
        self._description = description

    def __call__(self, function: Callable[P, R], /) -> Recipe[P, R]:
        if not callable(function) or isinstance(function, Tool):
            raise DefinitionError(
                f"@recipe takes a function that makes steps, not {function!r}; options stand by name, "
                "as in @recipe(name='night')"
            )
        name = self._name or function.__name__
        _check_function(name, function)
        check_source(function, _MAKERS)
        signature = read_signature(function, skip_first=False, name=name)
        description = self._description or (getdoc(function) or "").strip()
        return Recipe(trace(name, description, function, signature))


def trace(name: str, description: str, function: Callable[..., Any], signature: Signature) -> RecipePlan[Any]:
    """Run the function once, with a `Ref` for each input, and keep its graph."""
    if open_scopes.get():
        raise DefinitionError(
            f"{here()}: recipe {name!r} is made inside another one; make it outside and step({name}, …)"
        )
    _check_inputs(name, signature)
    interface = make_tool(function, Options(name=name, description="", effect="read"))
    if interface.secrets:
        secret = interface.secrets.list_arguments()[0]
        raise DefinitionError(f"recipe {name!r}: input {secret!r} is a secret; hand it on in the run's data")
    output = output_of_type(name, signature.returns)
    scope = Scope("")
    value = _run_traced(function, signature, scope, interface)
    plan = RecipePlan(
        name,
        description,
        interface,
        output,
        Body(order_nodes(scope.nodes, scope.final_ids), value),
        defaults={
            parameter.name: cast(JSON, operand(parameter.default))
            for parameter in signature.parameters
            if parameter.default is not MISSING
        },
        final_ids=tuple(scope.final_ids),
        tools=scope.tools,
        requests=scope.asked,
        nestings=scope.nested,
        annotations={"return": signature.returns} | {p.name: p.annotation for p in signature.parameters},
    )
    _check_plan(plan)
    return plan


def _run_traced(function: Callable[..., Any], signature: Signature, scope: Scope, interface: AnyTool) -> object:
    """Run the function with a `Ref` for each input; its steps gather in the scope. Return what it returned."""

    def make_ref(name: str) -> Ref:
        return Ref(Symbol(INPUTS, (name,), name, scope, lambda path: find_problem(interface.parameters, path)))

    refs = {parameter.name: make_ref(parameter.name) for parameter in signature.parameters}
    token = open_scopes.set((scope,))
    file_token = traced_file.set(getattr(getattr(function, "__code__", None), "co_filename", None))
    try:
        positional, named = signature.bind(refs)
        return operand(function(*positional, **named))
    finally:
        open_scopes.reset(token)
        traced_file.reset(file_token)


def _check_plan(plan: RecipePlan[Any]) -> None:
    """Raise an error for a circle, an argument that no step fills, or a secret among the inputs."""
    _ = plan.graph
    name = plan.name
    for missing in find_missing_values(plan.body, plan.tools):
        raise DefinitionError(f"recipe {name!r}: {missing}", tool=missing.step, parameter=missing.argument)
    for secret in find_secret_inputs(plan.body, plan.tools):
        raise DefinitionError(f"recipe {name!r}: {secret}", tool=secret.step, parameter=secret.argument)


def order_nodes(nodes: list[Node], final_ids: list[str]) -> tuple[Node, ...]:
    """Order the nodes: final ones last, each waiting for all others."""
    main = [node for node in nodes if node.id not in final_ids]
    before = tuple(node.id for node in main)
    final = [
        replace(node, after=tuple(dict.fromkeys((*before, *get_after(node))))) for node in nodes if node.id in final_ids
    ]
    return (*main, *final)


def _check_function(name: str, function: Callable[..., Any]) -> None:
    if iscoroutinefunction(function) or isasyncgenfunction(function) or isgeneratorfunction(function):
        raise DefinitionError(
            f"recipe {name!r}: a recipe is a plain function (def, no await, no yield): it only declares steps, and the"
            " run waits for them"
        )
    if "<lambda>" in name:
        raise DefinitionError("a lambda has no name of its own; write @recipe above a def")


def _check_inputs(name: str, signature: Signature) -> None:
    if signature.context is not None:
        raise DefinitionError(f"recipe {name!r}: {signature.context!r} is a Context; only tools take it, in each run")
    for parameter in signature.parameters:
        if parameter.kind in ("star", "extra"):
            raise DefinitionError(f"recipe {name!r}: input {parameter.name!r} collects many; give each input a name")
        if isinstance(parameter.default, NeedMarker):
            raise DefinitionError(f"recipe {name!r}: input {parameter.name!r} is a need; make it a step")
