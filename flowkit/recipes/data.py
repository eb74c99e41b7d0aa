"""A recipe as plain data: the content of a recipe file.

References are written as a reader of the file would: `${{ steps.order.city }}` for the nearest step of that name
around the place, `${{ item }}` for the item of the nearest `each`, `${{ items.name }}` for that of another one around
it. A step that a nearer one of the same name hides is written with its whole id: `${{ steps["/order"] }}`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never, cast

from flowkit.codec import JSON, dump_sorted
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
    ToolCall,
    When,
    get_after,
    item_id,
)
from flowkit.graph.conditions import Both, Compare, Condition, Either, IsIn, IsNone, IsTrue, Not
from flowkit.recipes.model_steps import DEFAULT_RETRIES, AskRequest
from flowkit.recipes.plan import RecipePlan
from flowkit.references import Reference, format_expression

COMPARISONS = {
    "==": "equals",
    "!=": "not_equals",
    "<": "less_than",
    "<=": "at_most",
    ">": "more_than",
    ">=": "at_least",
}
"""The words of a recipe file for the operators of conditions."""


def write_recipe(plan: RecipePlan[Any]) -> dict[str, JSON]:
    """Write the recipe in the file's form; everything but the code of its tools and models."""
    schema = plan.parameters
    names = _Names({node.id: node.id for node in plan.body.nodes})
    writer = _Writer(plan)
    data: dict[str, JSON] = {"recipe": plan.name}
    if plan.description:
        data["description"] = plan.description
    if inputs := cast(Mapping[str, Mapping[str, JSON]], schema.get("properties", {})):
        data["inputs"] = {name: _short(held) for name, held in inputs.items()}
    main = [node for node in plan.body.nodes if node.id not in plan.final_ids]
    final = [node for node in plan.body.nodes if node.id in plan.final_ids]
    if main:
        data["steps"] = {node.id: writer.step(node, names) for node in main}
    if final:
        hidden = frozenset(node.id for node in main)
        data["finally"] = {node.id: writer.step(node, names, hidden) for node in final}
    data["output"] = writer.value(plan.body.value, names)
    if plan.output.schema is not None:
        data["returns"] = _short(plan.output.schema)
    if "$defs" in schema:
        data["$defs"] = schema["$defs"]
    return data


def hash_recipe(plan: RecipePlan[Any]) -> str:
    """Hash graph, inputs, output, tools and their code: equal for recipes that do the same."""
    nested = {name: hash_recipe(nesting.plan) for name, nesting in plan.nestings.items()}
    code = {name: tool.code() for name, tool in plan.tools.items()}
    return hashlib.sha256(dump_sorted([write_recipe(plan), nested, code])).hexdigest()


def default_name(node: Node) -> str:
    """Return the name of a step that wasn't given one."""
    match node:
        case ToolCall() | Group():
            return node.name.replace("/", "_")
        case ModelStep():
            return "ask"
        case Each():
            return "each"
        case When():
            return "when"
        case Fallback():
            return default_name(node.tries[0].nodes[0])
        case _:
            assert_never(node)


@dataclass(frozen=True, slots=True)
class _Names:
    """The names that a step may refer to: local names to ids, from the outermost; `items` are the enclosing `each`."""

    steps: Mapping[str, str]
    items: tuple[str, ...] = ()

    def enter(self, nodes: Sequence[Node], prefix: str, each: str | None = None) -> "_Names":
        local = {**self.steps, **{node.id.removeprefix(prefix): node.id for node in nodes}}
        return _Names(local, self.items if each is None else (*self.items, each))

    def step(self, call_id: str) -> str:
        local = call_id.rsplit("/", 1)[-1]
        return local if self.steps.get(local) == call_id else f"/{call_id}"

    def path(self, reference: Reference) -> tuple[str | int, ...]:
        if reference.call_id == INPUTS:
            return (INPUTS, *reference.path)
        for depth, each in enumerate(reversed(self.items)):
            if reference.call_id == item_id(each):
                return ("item", *reference.path) if depth == 0 else ("items", self.step(each), *reference.path)
        return ("steps", self.step(reference.call_id), *reference.path)


@dataclass(frozen=True, slots=True)
class _Writer:
    plan: RecipePlan[Any]

    def value(self, value: object, names: _Names) -> JSON:
        """Write a value with its references as expressions; a text that looks like one gets a further `$`."""
        if isinstance(value, Reference):
            return format_expression(names.path(value))
        if isinstance(value, str):
            return value.replace("${{", "$${{")
        if isinstance(value, dict):
            return {key: self.value(item, names) for key, item in cast(dict[str, object], value).items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, names) for item in cast(Sequence[object], value)]
        return cast(JSON, value)

    def step(self, node: Node, names: _Names, hidden: frozenset[str] = frozenset()) -> JSON:
        """Write one step; `hidden` are ids in its `after` that are implied."""
        data = self._kind(node, names)
        after = [names.step(name) for name in get_after(node) if name not in hidden]
        if after:
            data["after"] = cast(JSON, after)
        return data

    def _kind(self, node: Node, names: _Names) -> dict[str, JSON]:
        match node:
            case ToolCall():
                return self._call(node, names)
            case ModelStep():
                return self._ask(node, names)
            case Group():
                inputs = self.plan.nestings[node.id].inputs
                return {"recipe": node.name, **self._with(inputs, names)}
            case Each():
                return self._each(node, names)
            case When():
                return self._when(node, names)
            case Fallback():
                (inner,) = node.tries[0].nodes
                data = self._kind(inner, names)
                if len(node.tries) > 1:
                    data["fallback"] = self.block(node.tries[1], f"{node.id}/2/", names)
                if node.optional:
                    data["optional"] = True
                return data
            case _:
                assert_never(node)

    def _with(self, arguments: Mapping[str, object], names: _Names) -> dict[str, JSON]:
        return {"with": self.value(dict(arguments), names)} if arguments else {}

    def _call(self, node: ToolCall, names: _Names) -> dict[str, JSON]:
        data: dict[str, JSON] = {"tool": node.name, **self._with(node.arguments, names)}
        if isinstance(node, Step):
            if node.retries is not None:
                data["retries"] = node.retries
            if node.timeout_s is not None:
                data["timeout"] = node.timeout_s
            if node.optional:
                data["optional"] = True
        return data

    def _ask(self, node: ModelStep, names: _Names) -> dict[str, JSON]:
        request = cast(AskRequest, node.request)
        data: dict[str, JSON] = {"ask": request.name, "prompt": request.prompt, **self._with(node.arguments, names)}
        if request.schema is not None:
            data["returns"] = _short(request.schema)
        if request.retries not in (None, DEFAULT_RETRIES):
            data["retries"] = request.retries
        if node.timeout_s is not None:
            data["timeout"] = node.timeout_s
        return data

    def _each(self, node: Each, names: _Names) -> dict[str, JSON]:
        inside = names.enter(node.body.nodes, f"{node.id}/", node.id)
        data: dict[str, JSON] = {
            "each": self.value(node.over, names),
            "do": self._body(node.body, f"{node.id}/", inside),
        }
        if node.at_once is not None:
            data["at_once"] = node.at_once
        if node.at_most != AT_MOST:
            data["at_most"] = node.at_most
        if node.key is not None:
            data["key"] = self.value(node.key, inside)
        if node.on_error != "fail":
            data["on_error"] = node.on_error
        return data

    def _when(self, node: When, names: _Names) -> dict[str, JSON]:
        data: dict[str, JSON] = {
            "when": self.condition(node.condition, names),
            "then": self.block(node.then, f"{node.id}/then/", names),
        }
        if node.otherwise is not None:
            data["otherwise"] = self.block(node.otherwise, f"{node.id}/otherwise/", names)
        return data

    def block(self, body: Body, prefix: str, names: _Names) -> JSON:
        """Write a body in the file's form: a value, one step, or several with an output."""
        return self._body(body, prefix, names.enter(body.nodes, prefix))

    def _body(self, body: Body, prefix: str, inside: _Names) -> JSON:
        if not body.nodes:
            return {"value": self.value(body.value, inside)}
        first = body.nodes[0]
        is_one = len(body.nodes) == 1 and body.value == Reference(first.id)
        if is_one and first.id == prefix + default_name(first):
            return self.step(first, inside)
        steps: dict[str, JSON] = {node.id.removeprefix(prefix): self.step(node, inside) for node in body.nodes}
        return {"steps": steps, "output": self.value(body.value, inside)}

    def condition(self, condition: Condition, names: _Names) -> dict[str, JSON]:
        """Write a condition in the words of a file."""
        match condition:
            case Compare(left, operator, right):
                return {"value": self.value(left, names), COMPARISONS[operator]: self.value(right, names)}
            case IsIn(value, options):
                return {"value": self.value(value, names), "is_in": self.value(options, names)}
            case IsNone(value):
                return {"value": self.value(value, names), "is_none": True}
            case IsTrue(value):
                return {"value": self.value(value, names), "is_true": True}
            case Not(inner):
                return {"not": self.condition(inner, names)}
            case Both(left, right):
                return {"all": [*self._joined(left, "all", Both, names), self.condition(right, names)]}
            case Either(left, right):
                return {"any": [*self._joined(left, "any", Either, names), self.condition(right, names)]}
            case _:
                assert_never(condition)

    def _joined(self, left: Condition, word: str, kind: type[Condition], names: _Names) -> list[JSON]:
        """Join the parts on the left into one list: a and b and c."""
        written = self.condition(left, names)
        return cast(list[JSON], written[word]) if isinstance(left, kind) else [written]


def _short(schema: Mapping[str, JSON]) -> JSON:
    """Shorten a schema of a plain type to its name."""
    return schema["type"] if list(schema) == ["type"] and isinstance(schema["type"], str) else dict(schema)
