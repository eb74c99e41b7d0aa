"""`flowkit mcp`: offer an app's agents, recipes and tools to MCP hosts."""

import asyncio
import sys
from collections.abc import Collection
from importlib.util import find_spec
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from flowkit.apps import load_app
from flowkit.cache import open_default_cache
from flowkit.cli.journals import open_journal
from flowkit.cli.model_choice import choose_model, close_models
from flowkit.cli.options import (
    AppTarget,
    BaseUrl,
    CacheAddress,
    Data,
    JournalAddress,
    Model,
    ToolsFile,
    User,
    read_pairs,
)
from flowkit.cli.output import note
from flowkit.errors import ConfigurationError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def mcp(
    app: AppTarget,
    http: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="Serve over HTTP on this port; without it, over stdio."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; other machines are served only with a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(envvar="FLOWKIT_TOKEN", help="The bearer token that hosts must send over HTTP.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A host name under which this server is reached; repeatable."),
    ] = None,
    tool: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Offer this tool as well; repeatable.")] = None,
    user: User = None,
    tools: ToolsFile = None,
    model: Model = None,
    base_url: BaseUrl = None,
    data: Data = None,
    journal: JournalAddress = None,
    cache: CacheAddress = None,
) -> None:
    """Offer an app's agents and recipes to MCP hosts, over stdio or HTTP."""
    if find_spec("mcp") is None:
        raise ConfigurationError("mcp needs one more package: pip install 'flowkit-agents[mcp]'")
    if http is not None and host not in LOOPBACK and (token is None or not allow_host):
        raise ConfigurationError(f"--host {host} can be reached from other machines: give --token and --allow-host")
    if token is not None and len(token) < 16:
        raise ConfigurationError("--token is too short to be a secret: use at least 16 characters")
    from flowkit.mcp.offers import make_offers
    from flowkit.mcp.server import McpServer
    from flowkit.web.served import Served, make_served

    output = sys.stdout
    # Standard output belongs to the protocol: what the app prints must not break a message in two.
    sys.stdout = sys.stderr
    served = make_served(load_app(app, tools=tools), read_pairs(data, "--data"))
    is_named = model is not None or base_url is not None
    with open_journal(journal) as opened, choose_model(served.models, model, base_url) as chosen:
        served = Served(served.targets, served.app, served.options, chosen, is_named)
        offers = make_offers(served, tool or ())
        person = served.find_user(user)
        server = McpServer(served, offers, opened, lambda _: person).make()

        async def serve() -> None:
            if http is None:
                await _serve_stdio(server, output)
            else:
                await _serve_http(server, host, http, token, allow_host or ())
            await close_models(*served.models, *([] if chosen is None else [chosen]))
            await open_default_cache().close()

        try:
            asyncio.run(serve())
        except KeyboardInterrupt:
            note("stopped")


async def _serve_stdio(server: Any, output: Any) -> None:
    import anyio
    from mcp.server.stdio import stdio_server

    writing = anyio.wrap_file(TextIOWrapper(output.buffer, encoding="utf-8"))
    async with stdio_server(stdout=writing) as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def _serve_http(server: Any, host: str, port: int, token: str | None, names: Collection[str]) -> None:
    import uvicorn

    from flowkit.mcp.http import make_http_app

    allowed = [f"{name}:*" for name in names] or None
    app = make_http_app(server, token=token, allowed_hosts=[*(allowed or ()), *names] if names else None)
    shown = f"[{host}]" if ":" in host else host
    note(f"serving MCP at http://{shown}:{port}/mcp; press Ctrl-C to stop")
    config = uvicorn.Config(
        app, host=host, port=port, http="h11", ws="none", log_level="warning", proxy_headers=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    await uvicorn.Server(config).serve()
