"""A recipe as a value: its graph, what it takes and what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from flowkit.codec import JSON
from flowkit.graph import INPUTS, Body, Graph, Group, nest
from flowkit.recipes.model_steps import AskRequest
from flowkit.recipes.output import RecipeOutput
from flowkit.tools import Tool
from flowkit.tools.options import Effect, Scope, narrowest, strongest
from flowkit.tools.schema.arguments_schema import Schema

AnyTool = Tool[..., Any]
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Nesting:
    """A recipe inside another: its plan, and the inputs it was given there, which may hold references."""

    plan: "RecipePlan[Any]"
    inputs: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RecipePlan(Generic[R_co]):
    """All that a recipe is; frozen.

    `interface` takes the recipe's inputs as a tool takes arguments, and is never run. `body.nodes` stand in an order
    in which each comes after those it refers to; those of `final_ids` come last, and wait for all others. `tools` and
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
        """Its nodes as one node of another recipe; inputs that aren't given have their defaults."""
        body = nest(self.body, group_id, {**self.defaults, **inputs})
        return Group(group_id, replace(body, finish=self.output.check), name=self.name)
