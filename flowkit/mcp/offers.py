"""List the agents, recipes and named tools for MCP hosts, each with its schema and hints."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, ToolArgumentsError
from flowkit.recipes import Recipe
from flowkit.suggestions import suggest
from flowkit.tools import Tool
from flowkit.tools.options import Effect, strongest
from flowkit.web.served import Served, StartRequest

_TASK: dict[str, JSON] = {
    "type": "object",
    "properties": {
        "task": {"type": "string", "description": "What to do, in words."},
        "session": {"type": "string", "description": "Names a conversation to continue."},
    },
    "required": ["task"],
}
_ANSWER: dict[str, JSON] = {
    "type": "object",
    "properties": {"output": {}, "status": {"type": "string"}, "run_id": {"type": "string"}},
    "required": ["output", "status", "run_id"],
}


@dataclass(frozen=True, slots=True)
class Offer:
    """An agent, a recipe or a tool. `is_agent` decides which arguments it takes; `tool` is set for a plain tool."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    result_schema: Mapping[str, Any] | None
    effect: Effect
    is_agent: bool = False
    tool: Tool[..., Any] | None = None

    def describe(self) -> Any:
        """Describe it as an `mcp_types.Tool`, all four hints set by its effect."""
        from mcp_types import Tool as McpTool
        from mcp_types import ToolAnnotations

        return McpTool(
            name=self.name,
            description=self.description,
            input_schema=dict(self.parameters),
            # Until 2025-11-25 an output schema has an object at its root.
            output_schema=self.output_schema,
            annotations=ToolAnnotations(
                read_only_hint=self.effect == "read",
                destructive_hint=self.effect == "write",
                idempotent_hint=self.effect != "write",
                open_world_hint=True,
            ),
        )

    def want(self, arguments: Mapping[str, JSON], user: str | None, run_id: str) -> StartRequest:
        """Make the run for a call; raises `ToolArgumentsError`."""
        if not self.is_agent:
            return StartRequest(self.name, user, run_id, inputs=arguments)
        task, session = arguments.get("task"), arguments.get("session")
        if not isinstance(task, str) or not task.strip():
            raise ToolArgumentsError(self.name, ["'task' is missing: say what to do, in words"])
        if session is not None and not isinstance(session, str):
            raise ToolArgumentsError(self.name, [f"'session' is {session!r}, expected a text"])
        return StartRequest(self.name, user, run_id, message=task, session=session)

    def wrap(self, output: JSON, status: str, run_id: str) -> dict[str, JSON]:
        """Wrap the output as a result's structured content: an object, as its schema says."""
        if self.is_agent:
            return {"output": output, "status": status, "run_id": run_id}
        return output if self._is_object and isinstance(output, dict) else {"result": output}

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The schema of the structured content; None if unknown."""
        schema = self.result_schema
        if schema is None or self._is_object:
            return None if schema is None else dict(schema)
        definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
        inner = {name: value for name, value in schema.items() if name != "$defs"}
        return {"type": "object", "properties": {"result": inner}, "required": ["result"], **definitions}

    @property
    def _is_object(self) -> bool:
        return self.result_schema is not None and self.result_schema.get("type") == "object"


def make_offers(served: Served, tools: Iterable[str]) -> dict[str, Offer]:
    """Offer the agents and recipes of an app, and the tools that are named; raises `ConfigurationError` for unknown ones."""
    offers: dict[str, Offer] = {}
    for name, target in served.targets.items():
        if isinstance(target, Recipe):
            schema = target.plan.output.schema
            offers[name] = Offer(name, target.description or name, target.parameters, schema, target.effect)
        else:
            effect = strongest(["read", *(tool.effect for tool in target.tools)])
            if target.tools.is_dynamic:
                effect = "write"  # what its tools may do is known only in a run
            offers[name] = Offer(name, target.description, _TASK, _ANSWER, effect, is_agent=True)
    known = find_tools(served)
    for name in tools:
        tool = known.get(name)
        if tool is None:
            raise ConfigurationError(f"there is no tool {name!r}; {suggest(name, sorted(known))}")
        if name in offers:
            raise ConfigurationError(f"tool {name!r} has the name of an agent or a recipe")
        offers[name] = Offer(name, tool.description, _mark_secrets(tool), tool.result_schema, tool.effect, tool=tool)
    return offers


def _mark_secrets(tool: Tool[..., Any]) -> Mapping[str, Any]:
    """Return the schema of the arguments with a mark on those that the tool names as secrets, so that hosts mask them, too."""
    fields: dict[str, Any] = {**tool.parameters.get("properties", {})}
    for name in tool.secrets.names & fields.keys():
        fields[name] = {**fields[name], "writeOnly": True}
    return {**tool.parameters, "properties": fields} if tool.secrets.names else tool.parameters


def find_tools(served: Served) -> dict[str, Tool[..., Any]]:
    """Find all tools of an app, by name: those in its file, and those of its agents and recipes."""
    found: dict[str, Tool[..., Any]] = {}
    for target in served.targets.values():
        tools = target.plan.tools.values() if isinstance(target, Recipe) else target.tools
        found |= {tool.name: tool for tool in tools}
    return found if served.app is None else {**found, **served.app.tools}
