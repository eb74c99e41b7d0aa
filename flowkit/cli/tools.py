"""`flowkit tools`: show an app's tools as a model sees them."""

import asyncio
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from flowkit import codec
from flowkit.apps import App, load_app
from flowkit.cli.options import AppTarget, AsJson
from flowkit.cli.output import make_console, note, print_json
from flowkit.context import Context
from flowkit.errors import ConfigurationError, FlowkitError
from flowkit.graph.pictures.timeline import format_seconds
from flowkit.mcp_client import MCPTools
from flowkit.schema_words import read_properties, say_schema
from flowkit.targets import TARGETS
from flowkit.tools import Tool
from flowkit.tools.toolsets import Toolset

INDENT = (0, 0, 0, 2)

Lint = Annotated[
    bool,
    typer.Option(
        "--lint", help="Report what an API would change or reject in each tool's schema, and what the tool costs."
    ),
]
For = Annotated[str, typer.Option("--target", help=f"The API that --lint checks for: {', '.join(TARGETS)}.")]


def list_tools(app: AppTarget, as_json: AsJson = False, lint: Lint = False, target: For = "openai-strict") -> None:
    """Show an app's tools and their parameters.

    With --json, show their schemas.
    """
    found = _find_tools(load_app(app))
    if lint:
        _lint(found, target, as_json)
        return
    if as_json:
        print_json([_to_json(tool) for tool in found])
        return
    console = make_console()
    for tool in found:
        console.print(Text(tool.name, style="bold"), Text(_say_promises(tool), style="dim"))
        if tool.description:
            console.print(Padding(Text(tool.description), INDENT))
        for property in read_properties(tool.parameters).values():
            mark = "" if property.is_required else "?"
            console.print(Padding(Text(f"{property.name}{mark}: {say_schema(property.schema)}"), INDENT))


def _lint(found: list[Tool[..., object]], target: str, as_json: bool) -> None:
    try:
        findings = [(tool.name, tool.lint(target)) for tool in found]
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if as_json:
        rows: list[codec.JSON] = [
            {"tool": name, "level": each.level, "code": each.code, "path": each.path, "text": each.text}
            for name, told in findings
            for each in told
        ]
        print_json(rows)
    else:
        console = make_console()
        for name, told in findings:
            console.print(Text(name, style="bold"))
            for each in told:
                console.print(Text(f"  {each}"), soft_wrap=True)
    if any(each.level == "error" for _, told in findings for each in told):
        raise typer.Exit(1)


def _find_tools(app: App) -> list[Tool[..., object]]:
    """Find the named tool or the named agent's tools, else the tools of all agents; without an agent, the tools of the file.

    The tools of a dynamic set are known only during a run, so the file's tools are listed instead. MCP servers are queried.
    """
    if app.selected is None:
        agents = list(app.agents.values())
    elif app.selected in app.agents:
        agents = [app.agents[app.selected]]
    elif app.selected in app.tools:
        return [app.tools[app.selected]]
    else:
        names = ", ".join([*app.agents, *app.tools])
        raise ConfigurationError(f"{app.path} has no agent and no tool {app.selected!r}; it has {names or 'none'}")
    found = [tool for agent in agents for tool in _ask_servers(agent.tools)]
    if not agents or any(None in MCPTools.find(agent.tools) for agent in agents):
        found += app.tools.values()
        found += [tool for recipe in app.recipes.values() for tool in recipe.plan.tools.values()]
    return list({(tool.name, tool.identity): tool for tool in found}.values())


def _ask_servers(tools: Toolset) -> list[Tool[..., object]]:
    """List the tools of a set and of its MCP servers; a note names each unreachable server."""
    servers = MCPTools.find(tools)
    if None not in servers and servers:
        try:
            return asyncio.run(_list_current(tools))
        except FlowkitError as error:
            note(f"flowkit: {error}")
            return list(tools)
    found = list(tools)
    for server in servers:
        try:
            found += [] if server is None else server.load()
        except FlowkitError as error:
            note(f"flowkit: {error}")
    return found


async def _list_current(tools: Toolset) -> list[Tool[..., object]]:
    context = Context[Any](None, run_id="flowkit-tools")
    async with tools.opened(context):
        return list(await tools.current(context))


def _say_promises(tool: Tool[..., object]) -> str:
    """Describe effect, scope, TTL and approval, leaving out defaults."""
    parts: list[str] = [tool.effect if tool.declared_effect else f"{tool.effect} (not declared)"]
    if tool.ttl_s is not None:
        parts.append(
            f"cached {format_seconds(tool.ttl_s)} per {tool.scope}"
            if tool.scope != "all"
            else f"cached {format_seconds(tool.ttl_s)} for everyone"
        )
    if tool.needs:
        parts.append("needs " + ", ".join(need.tool.name for need in tool.needs))
    if tool.approval is not False:
        parts.append("needs approval" if tool.approval is True else "may need approval")
    if tool.origin:
        parts.append(f"from {tool.origin}")
    return ", ".join(parts)


def _to_json(tool: Tool[..., object]) -> codec.JSON:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "result": tool.result_schema,
        "effect": tool.effect,
        "scope": tool.scope,
        "ttl_s": tool.ttl_s,
        "needs": [need.tool.name for need in tool.needs],
        "approval": tool.approval is not False,
        "origin": tool.origin or None,
    }
