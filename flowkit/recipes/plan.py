"""A recipe as a value: its graph, its inputs, and its output, checked and read as its declared type."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, cast

from jsonschema import Draft202012Validator
from pydantic import ValidationError

from flowkit.codec import JSON, dumps
from flowkit.errors import DefinitionError, ToolResultError
from flowkit.graph import INPUTS, Body, Graph, Group, nest
from flowkit.recipes.model_steps import AskRequest
from flowkit.tools import Tool
from flowkit.tools.options import Effect, Scope, narrowest, strongest
from flowkit.tools.schema.arguments_schema import Schema
from flowkit.tools.schema.results import ResultType, find_table
from flowkit.tools.schema.signatures import MISSING

AnyTool = Tool[..., Any]
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RecipeOutput(Generic[R_co]):
    """Converts a recipe's output from JSON to its value; `schema` is None if the output may be anything."""

    read: Callable[[JSON], R_co]
    schema: Mapping[str, JSON] | None = None

    def check(self, value: object) -> JSON:
        """Return the output unchanged; raises `ToolResultError` if it doesn't have the declared type."""
        self.read(cast(JSON, value))
        return cast(JSON, value)


@dataclass(frozen=True, slots=True)
class Nesting:
    """A recipe inside another: its plan and its inputs, which may contain references."""

    plan: "RecipePlan[Any]"
    inputs: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RecipePlan(Generic[R_co]):
    """The definition of a recipe; frozen.

    `interface` takes the recipe's inputs as a tool takes arguments, and is never run. Each of `body.nodes` comes after
    those it refers to; those of `final_ids` come last, and wait for all others. `tools` and
    `requests` are those of all its steps, by name; `nestings` are the recipes inside it, by their group's id.
    `annotations` are the Python types of its inputs, and of its output as `return`; a recipe from a file has none.
    """

    name: str
    description: str
    interface: AnyTool
    output: RecipeOutput[R_co]
    body: Body
    defaults: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    final_ids: tuple[str, ...] = ()
    tools: Mapping[str, AnyTool] = field(default_factory=dict[str, AnyTool])
    requests: Mapping[str, AskRequest] = field(default_factory=dict[str, AskRequest])
    nestings: Mapping[str, Nesting] = field(default_factory=dict[str, Nesting])
    annotations: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def parameters(self) -> Schema:
        """The JSON Schema of its inputs."""
        return self.interface.parameters

    @property
    def effect(self) -> Effect:
        """The strongest effect of its steps; an agent's tools count, a model alone only reads."""
        asked = [tool for request in self.requests.values() for tool in request.tools]
        return strongest(["read", *(tool.effect for tool in (*self.tools.values(), *asked))])

    @property
    def scope(self) -> Scope | None:
        """The narrowest scope of its steps; None without any."""
        return narrowest([tool.scope for tool in self.tools.values()]) if self.tools else None

    @property
    def graph(self) -> Graph:
        """Its nodes, checked."""
        return Graph(self.body.nodes, inputs=(INPUTS,))

    def nest(self, group_id: str, inputs: Mapping[str, object]) -> Group:
        """Make one node of another recipe from its nodes; omitted inputs have their defaults."""
        body = nest(self.body, group_id, {**self.defaults, **inputs})
        return Group(group_id, replace(body, finish=self.output.check), name=self.name)


def output_of_type(recipe: str, annotation: Any) -> RecipeOutput[Any]:
    """Make the output of a return annotation; raises `DefinitionError` for one that can't be JSON."""
    if annotation is MISSING or annotation is Any:
        return RecipeOutput(lambda value: value)
    problem = find_table(annotation)
    if problem is not None:
        raise DefinitionError(f"recipe {recipe!r}: {problem}")
    result = ResultType(annotation)
    adapter = result.adapter
    if adapter is None:
        raise DefinitionError(f"recipe {recipe!r}: its output, {annotation!r}, can't be JSON")

    def read(value: JSON) -> Any:
        try:
            return adapter.validate_json(dumps(value))
        except ValidationError as error:
            first = error.errors()[0]
            raise _misfit(recipe, first["loc"], first["msg"], len(error.errors())) from None
        except Exception as error:  # a validator of the author's may raise anything
            problem = f"a check of its type failed: {type(error).__name__}: {error}"
            raise ToolResultError(f"recipe {recipe!r}: its output doesn't fit: {problem}") from error

    return RecipeOutput(read, result.schema)


def output_of_schema(recipe: str, schema: Mapping[str, JSON] | None) -> RecipeOutput[JSON]:
    """Make the output of a recipe file."""
    if schema is None:
        return RecipeOutput(lambda value: value)
    validator = Draft202012Validator(cast(Any, schema))

    def read(value: JSON) -> JSON:
        errors = list(cast(Any, validator).iter_errors(value))
        if errors:
            raise _misfit(recipe, tuple(errors[0].absolute_path), errors[0].message, len(errors))
        return value

    return RecipeOutput(read, schema)


def _misfit(recipe: str, path: tuple[object, ...], problem: str, count: int) -> ToolResultError:
    where = ".".join(map(str, path))
    more = f" (and {count - 1} more)" if count > 1 else ""
    return ToolResultError(
        f"recipe {recipe!r}: its output{f' at {where}' if where else ''} doesn't fit: {problem}{more}"
    )
