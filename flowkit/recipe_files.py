"""Recipes from YAML files.

A file is read as plain data, checked against `recipe.schema.json`, and then turned into the same nodes that a
function under `@recipe` makes. Tools, models, agents and other recipes are given by name; nothing in a file is
imported, called or evaluated. Every error names file, line, column, key and what was expected.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Annotated, Any, NoReturn, cast

from jsonschema import Draft202012Validator, SchemaError
from pydantic import AfterValidator, WithJsonSchema

from flowkit.agent import Agent
from flowkit.codec import JSON
from flowkit.conditions import Both, Compare, Condition, Either, IsIn, IsNone, IsTrue, Not, Operator
from flowkit.errors import CycleError, DefinitionError, GraphError, RecipeFileError, ToolArgumentsError
from flowkit.graph import (
    AT_MOST,
    INPUTS,
    Body,
    Each,
    Fallback,
    Group,
    ModelStep,
    Node,
    Step,
    When,
    item_id,
    sort_nodes,
)
from flowkit.model_steps import AskRequest, find_placeholders, make_request
from flowkit.models.base import Model
from flowkit.recipe_data import COMPARISONS
from flowkit.recipe_format import check_format, nearest
from flowkit.recipe_output import output_of_schema
from flowkit.recipe_plan import Nesting, RecipePlan
from flowkit.recipes import Recipe, order_nodes
from flowkit.references import Reference, parse_expression
from flowkit.shapes import find_problem, find_unknown_reference, may_fit, types_at
from flowkit.tools import Tool
from flowkit.toolsets import Toolset
from flowkit.yaml_source import Path, YamlSource, read_yaml

AnyTool = Tool[..., Any]
AnyRecipe = Recipe[..., Any]
AnyTarget = Model | Agent[Any]

_OPERATORS: dict[str, Operator] = {word: cast(Operator, operator) for operator, word in COMPARISONS.items()}


def load_recipe(
    path: str | FilePath,
    *,
    tools: Iterable[AnyTool | Toolset | Callable[..., Any]] = (),
    models: Mapping[str, AnyTarget] | None = None,
    recipes: Iterable[AnyRecipe] = (),
) -> Recipe[..., JSON]:
    """The recipe in a file; `tools`, `models` (agents, too) and other `recipes` are what its steps may name.

    Raises `RecipeFileError` for everything that is wrong with the file.
    """
    name = str(path)
    try:
        data = FilePath(path).read_bytes()
    except OSError as error:
        raise RecipeFileError(f"can't be read: {error.strerror or error}", path=name) from None
    return read_recipe(data, name, tools=tools, models=models, recipes=recipes)


def read_recipe(
    data: bytes,
    name: str,
    *,
    tools: Iterable[AnyTool | Toolset | Callable[..., Any]] = (),
    models: Mapping[str, AnyTarget] | None = None,
    recipes: Iterable[AnyRecipe] = (),
) -> Recipe[..., JSON]:
    """The recipe in the bytes of a file; errors call it `name`."""
    source = read_yaml(data, name)
    check_format(source)
    known = _Known(
        {tool.name: tool for tool in Toolset(*tools)},
        {} if models is None else models,
        {recipe.name: recipe for recipe in recipes},
    )
    return Recipe(_Loader(source, known).load())


class _Known:
    """What a file's steps may name."""

    def __init__(
        self, tools: Mapping[str, AnyTool], targets: Mapping[str, AnyTarget], recipes: Mapping[str, AnyRecipe]
    ) -> None:
        self.tools = tools
        self.targets = targets
        self.recipes = recipes


class _Scope:
    """The names that may be used at a place: steps and the items of `each`, to their ids."""

    def __init__(self, prefix: str, outer: "_Scope | None" = None, each: str | None = None) -> None:
        self.prefix = prefix
        self.outer = outer
        self.steps: dict[str, str] = {}
        self.each = each

    def find_step(self, name: str) -> str | None:
        """The nearest step of this name; `/` before it makes it a whole id."""
        if name.startswith("/"):
            return name[1:] if name[1:] in self.all_ids() else None
        return self.steps.get(name) or (None if self.outer is None else self.outer.find_step(name))

    def all_ids(self) -> set[str]:
        return set(self.steps.values()) | (set() if self.outer is None else self.outer.all_ids())

    def all_names(self) -> list[str]:
        return [*self.steps, *(() if self.outer is None else self.outer.all_names())]

    def eaches(self) -> list[str]:
        """The ids of the `each` around this place, the nearest first."""
        above = [] if self.outer is None else self.outer.eaches()
        return above if self.each is None else [self.each, *above]


class _Loader:
    """Turns one file's data, whose form is right, into a plan."""

    def __init__(self, source: YamlSource, known: _Known) -> None:
        self._source = source
        self._known = known
        self._data = cast(Mapping[str, Any], source.value)
        self._tools: dict[str, AnyTool] = {}
        self._requests: dict[str, AskRequest] = {}
        self._nestings: dict[str, Nesting] = {}
        self._inputs: dict[str, JSON] = {}
        self._checks: dict[str, Mapping[str, JSON]] = {}

    def load(self) -> RecipePlan[JSON]:
        data, name = self._data, str(self._data["recipe"])
        schema = self._read_inputs()
        returns = self._read_type(("returns",)) if "returns" in data else None
        scope = _Scope("")
        main, final = cast(Mapping[str, Any], data["steps"]), cast(Mapping[str, Any], data.get("finally", {}))
        for key, steps in (("steps", main), ("finally", final)):
            for step in steps:
                if step in scope.steps or step == INPUTS:
                    self._source.fail((key, step), f"{key}.{step}: the name is taken", at_key=True)
                scope.steps[step] = step
        nodes = self._read_steps(("steps",), main, scope) + self._read_steps(("finally",), final, scope)
        last = list(main)[-1]
        value = self._value(("output",), data["output"], scope) if "output" in data else Reference(last)
        interface = Tool.from_schema(name, "", schema, _never_run, effect="read")
        plan = RecipePlan(
            name,
            str(data.get("description", "")),
            interface,
            output_of_schema(name, returns),
            Body(order_nodes(nodes, list(final)), value),
            defaults={key: held["default"] for key, held in self._properties(schema) if "default" in held},
            final_ids=tuple(final),
            tools=self._tools,
            requests=self._requests,
            nestings=self._nestings,
        )
        try:
            _ = plan.graph
        except GraphError as error:
            self._source.fail((), str(error))
        return plan

    # Types

    def _read_inputs(self) -> dict[str, JSON]:
        properties: dict[str, JSON] = {
            name: dict(self._read_type(("inputs", name))) for name in self._data.get("inputs", {})
        }
        required: list[JSON] = [
            name for name, held in properties.items() if "default" not in cast(dict[str, JSON], held)
        ]
        schema: dict[str, JSON] = {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
        if "$defs" in self._data:
            schema["$defs"] = self._data["$defs"]
        self._check_schema(("inputs",), schema)
        for name, held in self._properties(schema):
            if "default" in held:
                self._check_default(name, schema, held["default"])
        self._inputs = schema
        return schema

    def _check_default(self, name: str, schema: Mapping[str, JSON], default: JSON) -> None:
        whole = {**schema, "required": []}
        for error in cast(Any, Draft202012Validator(whole)).iter_errors({name: default}):
            self._source.fail(("inputs", name, "default"), f"inputs.{name}.default: {error.message}")

    def _properties(self, schema: Mapping[str, JSON]) -> list[tuple[str, Mapping[str, JSON]]]:
        return list(cast(Mapping[str, Mapping[str, JSON]], schema["properties"]).items())

    def _read_type(self, path: Path) -> Mapping[str, JSON]:
        held = self._at(path)
        schema = {"type": held} if isinstance(held, str) else cast(Mapping[str, JSON], held)
        if path != ("returns",) and path[0] == "inputs":
            return schema
        whole = {**schema, "$defs": self._data["$defs"]} if "$defs" in self._data and "$defs" not in schema else schema
        self._check_schema(path, whole)
        return whole

    def _check_schema(self, path: Path, schema: Mapping[str, JSON]) -> None:
        """Refuse a schema that isn't one, and one that leads out of the file."""
        where = ".".join(map(str, path))
        try:
            cast(Any, Draft202012Validator).check_schema(schema)
        except SchemaError as error:
            inner = tuple(key for key in error.absolute_path if key != "properties")
            self._source.fail((*path, *inner), f"{where}: not a JSON Schema: {error.message}")
        unknown = find_unknown_reference(schema)
        if unknown is not None:
            self._source.fail(path, f"{where}: '$ref' is {unknown!r}, which isn't in this file; write '#/$defs/name'")

    # Steps

    def _read_steps(self, path: Path, steps: Mapping[str, Any], scope: _Scope) -> list[Node]:
        """The steps in an order in which each comes after those it refers to."""
        nodes = [self._read_step((*path, name), scope.prefix + name, data, scope) for name, data in steps.items()]
        try:
            return sort_nodes(nodes)
        except CycleError as error:
            first = error.members[0].removeprefix(scope.prefix)
            at = (*path, first)
            self._source.fail(at, f"{_dotted(at)}: steps wait for one another: {error}", at_key=True)

    def _read_step(self, path: Path, name: str, data: Mapping[str, Any], scope: _Scope) -> Node:
        if path[-1] in ("item", "index") and scope.each is not None:
            self._source.fail(path, f"{_dotted(path)}: inside each, {path[-1]!r} is the item's own name", at_key=True)
        after = tuple(
            self._find_step((*path, "after", index), step, scope) for index, step in enumerate(data.get("after", ()))
        )
        make = self._read_kind(path, data, scope)
        if "fallback" not in data and not (data.get("optional") and "tool" not in data):
            return _with_after(make(name), after)
        if "fallback" in data and data.get("optional"):
            self._fail((*path, "optional"), "a step with a fallback isn't optional; make the fallback's step optional")
        inner = f"{name}/1/{_default_name(data)}"
        tries = [Body((make(inner),), Reference(inner))]
        if "fallback" in data:
            tries.append(self._read_block((*path, "fallback"), f"{name}/2/", data["fallback"], scope))
        return Fallback(name, tuple(tries), optional=bool(data.get("optional")), after=after)

    def _read_kind(self, path: Path, data: Mapping[str, Any], scope: _Scope) -> Callable[[str], Node]:
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

    def _read_call(self, path: Path, name: str, data: Mapping[str, Any], scope: _Scope) -> Callable[[str], Node]:
        tool = self._known.tools.get(name)
        if tool is None:
            self._fail((*path, "tool"), f"there is no tool {name!r}; {nearest(name, list(self._known.tools))}")
        arguments = self._read_with(path, data, scope)
        try:
            tool.check(arguments)
        except ToolArgumentsError as error:
            self._fail_arguments(path, arguments, error)
        if data.get("retries") and tool.effect == "write":
            self._fail((*path, "retries"), f"{name!r} is a write, which is never tried again by itself")
        self._check_types(path, tool.parameters, arguments)
        self._tools[name] = tool
        made = Step(
            "",
            name,
            arguments,
            timeout_s=data.get("timeout"),
            retries=data.get("retries"),
            optional=bool(data.get("optional")) and "fallback" not in data,
        )
        return lambda node_id: replace(made, id=node_id)

    def _read_ask(self, path: Path, name: str, data: Mapping[str, Any], scope: _Scope) -> Callable[[str], Node]:
        target = self._known.targets.get(name)
        if target is None:
            self._fail((*path, "ask"), f"there is no model {name!r}; {nearest(name, list(self._known.targets))}")
        output_type: Any = _type_of_schema(self._read_type((*path, "returns"))) if "returns" in data else str
        values = self._read_with(path, data, scope)
        try:
            request = make_request(target, str(data["prompt"]), output_type, retries=data.get("retries"), name=name)
        except DefinitionError as error:
            self._fail((*path, "prompt"), str(error))
        for wanted in find_placeholders(request.prompt):
            if wanted not in values:
                self._fail((*path, "prompt"), f"the prompt names {wanted!r}; {nearest(wanted, list(values))}")
        self._requests[name] = request
        timeout_s = data.get("timeout")
        return lambda node_id: ModelStep(node_id, values, request, name=name, timeout_s=timeout_s)

    def _read_nested(self, path: Path, name: str, data: Mapping[str, Any], scope: _Scope) -> Callable[[str], Node]:
        recipe = self._known.recipes.get(name)
        if recipe is None:
            self._fail((*path, "recipe"), f"there is no recipe {name!r}; {nearest(name, list(self._known.recipes))}")
        inputs = self._read_with(path, data, scope)
        try:
            recipe.plan.interface.check(inputs)
        except ToolArgumentsError as error:
            self._fail_arguments(path, inputs, error)
        self._check_types(path, recipe.plan.parameters, inputs)
        self._tools |= recipe.plan.tools
        self._requests |= recipe.plan.requests

        def nest(group_id: str) -> Group:
            self._nestings[group_id] = Nesting(recipe.plan, inputs)
            return recipe.plan.nest(group_id, inputs)

        return nest

    def _read_each(self, path: Path, name: str, data: Mapping[str, Any], scope: _Scope) -> Each:
        over = self._value((*path, "each"), data["each"], scope)
        if not isinstance(over, (Reference, list)):
            self._fail((*path, "each"), "expected a list, or a reference to one: ${{ steps.name.field }}")
        body = self._read_block((*path, "do"), f"{name}/", data["do"], scope, each=name)
        inside = _Scope(f"{name}/", scope, name)
        key = self._value((*path, "key"), data["key"], inside) if "key" in data else None
        return Each(
            name,
            cast(object, over),
            body,
            at_once=data.get("at_once"),
            at_most=data.get("at_most", AT_MOST),
            key=key,
            on_error=data.get("on_error", "fail"),
        )

    def _read_when(self, path: Path, name: str, data: Mapping[str, Any], scope: _Scope) -> When:
        otherwise = None
        condition = self._read_condition((*path, "when"), data["when"], scope)
        then = self._read_block((*path, "then"), f"{name}/then/", data["then"], scope)
        if "otherwise" in data:
            otherwise = self._read_block((*path, "otherwise"), f"{name}/otherwise/", data["otherwise"], scope)
        return When(name, condition, then, otherwise)

    def _read_block(
        self, path: Path, prefix: str, data: Mapping[str, Any], scope: _Scope, each: str | None = None
    ) -> Body:
        inside = _Scope(prefix, scope, each)
        if "value" in data:
            return Body((), self._value((*path, "value"), data["value"], inside))
        if "steps" not in data:
            local = _default_name(data)
            inside.steps[local] = prefix + local
            node = self._read_step(path, prefix + local, data, inside)
            return Body((node,), Reference(node.id))
        steps = cast(Mapping[str, Any], data["steps"])
        inside.steps |= {name: prefix + name for name in steps}
        nodes = self._read_steps((*path, "steps"), steps, inside)
        last = prefix + list(steps)[-1]
        value = self._value((*path, "output"), data["output"], inside) if "output" in data else Reference(last)
        return Body(tuple(nodes), value)

    def _read_condition(self, path: Path, data: Mapping[str, Any], scope: _Scope) -> Condition:
        match data:
            case {"not": inner}:
                return Not(self._read_condition((*path, "not"), inner, scope))
            case {"all": parts}:
                return self._join((*path, "all"), parts, scope, Both)
            case {"any": parts}:
                return self._join((*path, "any"), parts, scope, Either)
            case _:
                pass
        value = self._value((*path, "value"), data["value"], scope)
        word = next(key for key in data if key != "value")
        if word == "is_none":
            return IsNone(value)
        if word == "is_true":
            return IsTrue(value)
        other = self._value((*path, word), data[word], scope)
        if word == "is_in":
            if not isinstance(other, (Reference, list)):
                self._fail((*path, word), "expected a list, or a reference to one")
            return IsIn(value, tuple(cast(list[object], other)) if isinstance(other, list) else other)
        return Compare(value, _OPERATORS[word], other)

    def _join(self, path: Path, parts: list[Any], scope: _Scope, kind: type[Both] | type[Either]) -> Condition:
        joined, *rest = [self._read_condition((*path, index), part, scope) for index, part in enumerate(parts)]
        for condition in rest:
            joined = kind(joined, condition)
        return joined

    # Values

    def _read_with(self, path: Path, data: Mapping[str, Any], scope: _Scope) -> dict[str, object]:
        given = cast(Mapping[str, JSON], data.get("with", {}))
        return {name: self._value((*path, "with", name), value, scope) for name, value in given.items()}

    def _value(self, path: Path, value: JSON, scope: _Scope) -> object:
        """A value with its expressions as references; `$${{` stands for a text's own `${{`."""
        if isinstance(value, dict):
            return {key: self._value((*path, key), item, scope) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value((*path, index), item, scope) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${{" not in value:
            return value
        if "${{" not in value.replace("$${{", ""):
            return value.replace("$${{", "${{")
        try:
            names = parse_expression(value)
        except GraphError as error:
            self._fail(path, str(error))
        return value if names is None else self._reference(path, names, scope)

    def _reference(self, path: Path, names: Path, scope: _Scope) -> Reference:
        root, *rest = names
        match root, rest:
            case "inputs", _:
                problem = find_problem(self._inputs, tuple(rest))
                if problem is not None:
                    self._fail(path, f"inputs: {problem}")
                return Reference(INPUTS, tuple(rest))
            case "item", _ if scope.eaches():
                return Reference(item_id(scope.eaches()[0]), tuple(rest))
            case "items", [str() as name, *inner]:
                step = self._find_step(path, name, scope)
                if step not in scope.eaches():
                    self._fail(path, f"{name!r} isn't an each around this place")
                return Reference(item_id(step), tuple(inner))
            case "steps", [str() as name, *inner]:
                return self._step_reference(path, name, tuple(inner), scope)
            case _:
                roots = ["inputs.name", "steps.name"] + (["item"] if scope.eaches() else [])
                found = ".".join(map(str, names))
                return self._fail(path, f"a reference begins with {', '.join(roots)}; found {found!r}")

    def _step_reference(self, path: Path, name: str, inner: Path, scope: _Scope) -> Reference:
        step = self._find_step(path, name, scope)
        schema = self._schema_of(step)
        problem = None if schema is None else find_problem(schema, inner)
        if problem is not None:
            self._fail(path, f"steps.{name}: {problem}")
        return Reference(step, inner)

    def _check_types(self, path: Path, parameters: Mapping[str, JSON], arguments: Mapping[str, object]) -> None:
        """Refuse a reference to a value of a type that its parameter never takes."""
        for name, value in arguments.items():
            if not isinstance(value, Reference):
                continue
            schema = self._inputs if value.call_id == INPUTS else self._schema_of(value.call_id)
            found = frozenset[str]() if schema is None else types_at(schema, value.path)
            expected = types_at(parameters, (name,))
            if found and expected and not may_fit(found, expected):
                problem = f"expected {' or '.join(sorted(expected))}; this is {' or '.join(sorted(found))}"
                self._fail((*path, "with", name), problem)

    def _schema_of(self, step: str) -> Mapping[str, JSON] | None:
        """The schema of a step's result where its tool tells; found in the file, since the step may come later."""
        steps = cast(Mapping[str, Any], {**self._data["steps"], **self._data.get("finally", {})})
        data: Mapping[str, Any] = steps.get(step, {})
        if "fallback" in data or data.get("optional"):
            return None
        match data:
            case {"tool": str() as name} if name in self._known.tools:
                return self._known.tools[name].result_schema
            case {"recipe": str() as name} if name in self._known.recipes:
                return self._known.recipes[name].plan.output.schema
            case _:
                return None

    def _find_step(self, path: Path, name: str, scope: _Scope) -> str:
        found = scope.find_step(name)
        if found is None:
            self._fail(path, f"there is no step {name!r} here; {nearest(name, scope.all_names())}")
        return found

    def _at(self, path: Path) -> JSON:
        value: Any = self._data
        for key in path:
            value = value[key]
        return value

    def _fail_arguments(self, path: Path, arguments: Mapping[str, object], error: ToolArgumentsError) -> NoReturn:
        """Point at the argument that a problem is about, where it names one."""
        problem = error.problems[0]
        named = next((name for name in arguments if repr(name) in problem), None)
        if named is None:
            self._fail((*path, "with"), "; ".join(error.problems), at_key=True)
        self._fail((*path, "with", named), "; ".join(error.problems))

    def _fail(self, path: Path, problem: str, *, at_key: bool = False) -> NoReturn:
        self._source.fail(path, f"{_dotted(path)}: {problem}", at_key=at_key)


def _never_run(arguments: dict[str, JSON]) -> None:
    """Stands where a recipe's interface, being a tool, has a function."""


def _type_of_schema(schema: Mapping[str, JSON]) -> Any:
    """A type that pydantic checks by a JSON Schema."""
    validator = Draft202012Validator(cast(Any, schema))

    def check(value: object) -> object:
        for error in cast(Any, validator).iter_errors(value):
            raise ValueError(error.message)
        return value

    return Annotated[Any, AfterValidator(check), WithJsonSchema(dict(schema))]


def _default_name(data: Mapping[str, Any]) -> str:
    """The name of a step that stands alone in a block."""
    for key in ("tool", "recipe"):
        if key in data:
            return str(data[key]).replace("/", "_")
    return next(key for key in ("ask", "each", "when") if key in data)


def _with_after(node: Node, after: tuple[str, ...]) -> Node:
    return replace(cast(Step, node), after=after) if after else node


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
