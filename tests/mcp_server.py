"""A small MCP server on standard input and output, with faults on demand; run as a program of its own.

Arguments: a folder, where each call that runs leaves a line in `calls`; and words for what is odd about this server.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server import Server
from mcp.server.stdio import stdio_server

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
WORDS = frozenset(sys.argv[2:])
ANYTHING: dict[str, Any] = {"type": "object", "properties": {}}
TEXT: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
PIXEL = "iVBORw0KGgo="


def make_tools() -> list[types.Tool]:
    """The tools, of which one comes or goes by a file in the folder."""
    read = types.ToolAnnotations(read_only_hint=True)
    tools = [
        types.Tool(name="echo", description="Say it back.", input_schema=TEXT, annotations=read),
        types.Tool(
            name="add",
            input_schema={
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "object",
                "properties": {"pair": {"type": "array", "items": [{"type": "number"}, {"type": "number"}]}, "x": True},
                "required": ["pair"],
            },
            output_schema={"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]},
        ),
        types.Tool(name="blocks", input_schema=ANYTHING),
        types.Tool(name="fail", input_schema=ANYTHING),
        types.Tool(name="die", input_schema=ANYTHING),
        types.Tool(name="slow", input_schema=ANYTHING),
        types.Tool(name="ask", input_schema=ANYTHING),
        types.Tool(name="environment", input_schema=ANYTHING),
        types.Tool(
            name="remote", input_schema={"type": "object", "properties": {"a": {"$ref": "https://x.example/a"}}}
        ),
        types.Tool(name="a name/with things", input_schema=ANYTHING),
    ]
    if (FOLDER / "more").exists():
        tools.append(types.Tool(name="more", input_schema=ANYTHING))
    return tools


async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
    with (FOLDER / "lists").open("a") as file:
        file.write("list\n")
    return types.ListToolsResult(tools=make_tools())


async def call_tool(context: Any, params: types.CallToolRequestParams) -> Any:
    with (FOLDER / "calls").open("a") as file:
        file.write(f"{params.name} {(params.meta or {}).get('flowkit/idempotency-key', '')}".strip() + "\n")
    given = params.arguments or {}
    text = ""
    match params.name:
        case "echo":
            text = given["text"]
        case "add":
            total = sum(given["pair"])
            return types.CallToolResult(
                content=[types.TextContent(text=f"sum {total}")], structured_content={"sum": total}
            )
        case "blocks":
            return types.CallToolResult(
                content=[
                    types.TextContent(text="007"),
                    types.ImageContent(data=PIXEL, mime_type="image/png"),
                    types.ResourceLink(name="page", uri="file:///page"),
                    types.EmbeddedResource(resource=types.TextResourceContents(uri="file:///t", text="inside")),
                ]
            )
        case "fail":
            return types.CallToolResult(content=[types.TextContent(text="no such shelf")], is_error=True)
        case "die":
            if not (FOLDER / "died").exists():
                (FOLDER / "died").touch()
                os._exit(3)
            text = "alive"
        case "slow":
            await context.session.report_progress(1, 2, "half")
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                (FOLDER / "stopped").touch()
                raise
        case "ask":
            return await ask(context, params)
        case "environment":
            text = " ".join(sorted(os.environ))
        case _:
            text = params.name
    return types.CallToolResult(content=[types.TextContent(text=text)])


async def ask(context: Any, params: types.CallToolRequestParams) -> Any:
    """Ask for a name: by a request where this era has them, else by a result that is to be answered."""
    schema: Any = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    form = types.ElicitRequestFormParams(message="Who are you?", requested_schema=schema)
    answer: Any
    if context.session.can_send_request:
        answer = await context.session.elicit_form(form.message, schema, context.request_id)
    elif params.input_responses:
        answer = params.input_responses["who"]
    else:
        return types.InputRequiredResult(input_requests={"who": types.ElicitRequest(params=form)}, request_state="who")
    return types.CallToolResult(content=[types.TextContent(text=f"{answer.action} {answer.content}")])


async def main() -> None:
    """Serve until standard input ends."""
    if "noisy" in WORDS:
        print("starting up, please wait", flush=True)
        print("a word to the operator", file=sys.stderr, flush=True)
    if "mute" in WORDS:
        await asyncio.sleep(600)
    server: Server[Any] = Server("small", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    (FOLDER / f"pid-{os.getpid()}").touch()
    asyncio.run(main())
