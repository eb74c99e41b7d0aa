"""Steps and blocks of a recipe file, as the nodes that a function under `@recipe` makes."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NoReturn, cast

from jsonschema import Draft202012Validator
from pydantic import AfterValidator, WithJsonSchema

from flowkit.agent import Agent
from flowkit.codec import JSON
from flowkit.errors import CycleError, DefinitionError, RecipeFileError, ToolArgumentsError
from flowkit.graph import AT_MOST, Body, Each, Fallback, Group, ModelStep, Node, Step, When, sort_nodes
from flowkit.models.base import Model
from flowkit.recipes.model_steps import AskRequest, find_placeholders, make_request
from flowkit.recipes.plan import AnyTool, Nesting, RecipePlan
from flowkit.recipes.values import FileScope, ValueReader
from flowkit.recipes.yaml_source import Path, join_errors
from flowkit.references import Reference
from flowkit.suggestions import suggest

AnyTarget = Model | Agent[Any]
ReadType = Callable[[Path], Mapping[str, JSON]]
"""Gives the checked schema at a place of the file."""


@dataclass(frozen=True, slots=True)
class Known:
    """The tools, models, agents and recipes that a file's steps may name."""

    tools: Mapping[str, AnyTool]
    targets: Mapping[str, AnyTarget]
    recipes: Mapping[str, RecipePlan[Any]]


@dataclass(slots=True)
class StepReader:
    """Reads the steps of one file, and notes what they use."""

    known: Known
    values: ValueReader
    read_type: ReadType
    tools: dict[str, AnyTool] = field(default_factory=dict[str, AnyTool])
    requests: dict[str, AskRequest] = field(default_factory=dict[str, AskRequest])
    nestings: dict[str, Nesting] = field(default_factory=dict[str, Nesting])
    skipped: Collection[Path] = ()
    """Steps that aren't read, since their form is wrong."""
    errors: list[RecipeFileError] = field(default_factory=list[RecipeFileError])
    has_advised: bool = False

    def read_steps(self, path: Path, steps: Mapping[str, Any], scope: FileScope) -> list[Node]:
        """Read the steps into an order in which each comes after those it refers to.

        What is wrong with a step is noted in `errors`, and the next one is read.
        """
        nodes: list[Node] = []
        for name, data in steps.items():
            if (*path, name) in self.skipped:
                continue
            try:
                nodes.append(self._read_step((*path, name), scope.prefix + name, data, scope))
            except RecipeFileError as error:
                self.errors.append(error)
        if self.errors or self.skipped:
            return nodes  # which will never run
        try:
            return sort_nodes(nodes)
        except CycleError as error:
            first = error.members[0].removeprefix(scope.prefix)
            at = (*path, first)
            self.values.fail(at, f"steps wait for one another: {error}", at_key=True)

    def _read_step(self, path: Path, name: str, data: Mapping[str, Any], scope: FileScope) -> Node:
        if path[-1] in ("item", "index") and scope.each is not None:
            self.values.fail(path, f"inside each, {path[-1]!r} is the item's own name", at_key=True)
        after = tuple(
            self.values.find_step((*path, "after", index), step, scope)
            for index, step in enumerate(data.get("after", ()))
        )
        make = self._read_kind(path, data, scope)
        if "fallback" not in data and not (data.get("optional") and "tool" not in data):
            return _with_after(make(name), after)
        if "fallback" in data and data.get("optional"):
            self.values.fail(
                (*path, "optional"), "a step with a fallback isn't optional; make the fallback's step optional"
            )
        inner = f"{name}/1/{_default_name(data)}"
        tries = [Body((make(inner),), Reference(inner))]
        if "fallback" in data:
            tries.append(self._read_block((*path, "fallback"), f"{name}/2/", data["fallback"], scope))
        return Fallback(name, tuple(tries), optional=bool(data.get("optional")), after=after)

    def _read_kind(self, path: Path, data: Mapping[str, Any], scope: FileScope) -> Callable[[str], Node]:
        match data:
            case {"tool": tool}:
                return self._read_call(path, str(tool), data, scope)
            case {"ask": target}:
                return self._read_ask(path, str(target), data, scope)
            case {"recipe": recipe}:
                return self._read_nested(path, str(recipe), data, scope)
            case {"each": _}:
                return lambda name: self._read_each(path, name, data, scope)
            case _:
                return lambda name: self._read_when(path, name, data, scope)

    def _read_call(self, path: Path, name: str, data: Mapping[str, Any], scope: FileScope) -> Callable[[str], Node]:
        tool = self.known.tools.get(name)
        if tool is None:
            self.values.fail((*path, "tool"), f"there is no tool {name!r}{self._advise(name)}")
        arguments = self.values.read_arguments(path, data, scope)
        try:
            tool.check(arguments)
        except ToolArgumentsError as error:
            self._fail_arguments(path, arguments, error)
        if data.get("retries") and tool.effect == "write":
            self.values.fail((*path, "retries"), f"{name!r} is a write, which is never retried automatically")
        self.values.check_types(path, tool.parameters, arguments)
        self.tools[name] = tool
        made = Step(
            "",
            name,
            arguments,
            timeout_s=data.get("timeout"),
            retries=data.get("retries"),
            optional=bool(data.get("optional")) and "fallback" not in data,
        )
        return lambda node_id: replace(made, id=node_id)

    def _advise(self, name: str) -> str:
        """Suggest a tool that is known; if none is, say once for the whole file how tools are given."""
        if self.known.tools:
            return f"; {suggest(name, self.known.tools)}"
        advice = "" if self.has_advised else "; give some: tools=, or --tools FILE"
        self.has_advised = True
        return advice

    def _read_ask(self, path: Path, name: str, data: Mapping[str, Any], scope: FileScope) -> Callable[[str], Node]:
        target = self.known.targets.get(name)
        if target is None:
            self.values.fail((*path, "ask"), f"there is no model {name!r}; {suggest(name, self.known.targets)}")
        output_type: Any = _type_of_schema(self.read_type((*path, "returns"))) if "returns" in data else str
        values = self.values.read_arguments(path, data, scope)
        try:
            request = make_request(target, str(data["prompt"]), output_type, retries=data.get("retries"), name=name)
        except DefinitionError as error:
            self.values.fail((*path, "prompt"), str(error))
        for wanted in find_placeholders(request.prompt):
            if wanted not in values:
                self.values.fail((*path, "prompt"), f"the prompt names {wanted!r}; {suggest(wanted, values)}")
        self.requests[name] = request
        timeout_s = data.get("timeout")
        return lambda node_id: ModelStep(node_id, values, request, name=name, timeout_s=timeout_s)

    def _read_nested(self, path: Path, name: str, data: Mapping[str, Any], scope: FileScope) -> Callable[[str], Node]:
        recipe = self.known.recipes.get(name)
        if recipe is None:
            self.values.fail((*path, "recipe"), f"there is no recipe {name!r}; {suggest(name, self.known.recipes)}")
        inputs = self.values.read_arguments(path, data, scope)
        try:
            recipe.interface.check(inputs)
        except ToolArgumentsError as error:
            self._fail_arguments(path, inputs, error)
        self.values.check_types(path, recipe.parameters, inputs)
        self.tools |= recipe.tools
        self.requests |= recipe.requests

        def nest(group_id: str) -> Group:
            self.nestings[group_id] = Nesting(recipe, inputs)
            return recipe.nest(group_id, inputs)

        return nest

    def _read_each(self, path: Path, name: str, data: Mapping[str, Any], scope: FileScope) -> Each:
        over = self.values.read((*path, "each"), data["each"], scope)
        if not isinstance(over, (Reference, list)):
            self.values.fail((*path, "each"), "expected a list, or a reference to one: ${{ steps.name.field }}")
        body = self._read_block((*path, "do"), f"{name}/", data["do"], scope, each=name)
        inside = FileScope(f"{name}/", scope, name)
        key = self.values.read((*path, "key"), data["key"], inside) if "key" in data else None
        return Each(
            name,
            cast(object, over),
            body,
            at_once=data.get("at_once"),
            at_most=data.get("at_most", AT_MOST),
            key=key,
            on_error=data.get("on_error", "fail"),
        )

    def _read_when(self, path: Path, name: str, data: Mapping[str, Any], scope: FileScope) -> When:
        otherwise = None
        condition = self.values.read_condition((*path, "when"), data["when"], scope)
        then = self._read_block((*path, "then"), f"{name}/then/", data["then"], scope)
        if "otherwise" in data:
            otherwise = self._read_block((*path, "otherwise"), f"{name}/otherwise/", data["otherwise"], scope)
        return When(name, condition, then, otherwise)

    def _read_block(
        self, path: Path, prefix: str, data: Mapping[str, Any], scope: FileScope, each: str | None = None
    ) -> Body:
        inside = FileScope(prefix, scope, each)
        if "value" in data:
            return Body((), self.values.read((*path, "value"), data["value"], inside))
        if "steps" not in data:
            local = _default_name(data)
            inside.steps[local] = prefix + local
            node = self._read_step(path, prefix + local, data, inside)
            return Body((node,), Reference(node.id))
        steps = cast(Mapping[str, Any], data["steps"])
        inside.steps |= {name: prefix + name for name in steps}
        nodes = self.read_steps((*path, "steps"), steps, inside)
        last = prefix + list(steps)[-1]
        value = self.values.read((*path, "output"), data["output"], inside) if "output" in data else Reference(last)
        return Body(tuple(nodes), value)

    def _fail_arguments(self, path: Path, arguments: Mapping[str, object], error: ToolArgumentsError) -> NoReturn:
        """Point each problem at the argument that it names, and the others at all arguments."""
        named = {
            problem: next((name for name in arguments if repr(name) in problem), None) for problem in error.problems
        }
        others = [problem for problem, name in named.items() if name is None]
        errors = [
            self.values.make_error((*path, "with", name), problem)
            for problem, name in named.items()
            if name is not None
        ]
        if others:
            errors.append(self.values.make_error((*path, "with"), "; ".join(others), at_key=True))
        raise join_errors(errors)


def _type_of_schema(schema: Mapping[str, JSON]) -> Any:
    """Return a type that pydantic validates by a JSON Schema."""
    validator = Draft202012Validator(cast(Any, schema))

    def check(value: object) -> object:
        for error in cast(Any, validator).iter_errors(value):
            raise ValueError(error.message)
        return value

    return Annotated[Any, AfterValidator(check), WithJsonSchema(dict(schema))]


def _default_name(data: Mapping[str, Any]) -> str:
    """Return the default name of a block's only step."""
    for key in ("tool", "recipe"):
        if key in data:
            return str(data[key]).replace("/", "_")
    return next(key for key in ("ask", "each", "when") if key in data)


def _with_after(node: Node, after: tuple[str, ...]) -> Node:
    return replace(cast(Step, node), after=after) if after else node
