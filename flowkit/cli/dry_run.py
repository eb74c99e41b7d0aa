"""Predict what a run of a recipe would do, as far as that can be known without running anything.

If a step's arguments are known, it is looked up in the cache. A cached result is known too, so the walk continues from
there. After a step that would have to run, arguments are unknown, and the output says so.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flowkit.cache import Cache, Hit, open_default_cache
from flowkit.codec import JSON
from flowkit.display.words import say_arguments
from flowkit.errors import FlowkitError, ResolutionError
from flowkit.graph import INPUTS, Node, describe, find_own_references, get_bodies
from flowkit.graph.pictures.timeline import format_seconds
from flowkit.identity import RunIdentity
from flowkit.recipes import Recipe
from flowkit.references import ToolCall, resolve
from flowkit.tools import Tool


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
