"""`flowkit mcp`: offer an app's agents, recipes and tools to MCP hosts."""

import asyncio
import os
import sys
from collections.abc import Collection
from importlib.util import find_spec
from io import TextIOWrapper
from socket import socket
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
from flowkit.cli.serve import list_hosts
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
    """Offer an app's agents and recipes to MCP hosts.

    They connect over stdio or HTTP.
    """
    if find_spec("mcp") is None:
        raise ConfigurationError("mcp needs one more package: pip install 'flowkit-agents[mcp]'")
    if http is not None and host not in LOOPBACK and (token is None or not allow_host):
        raise ConfigurationError(f"--host {host} can be reached from other machines: give --token and --allow-host")
    if token is not None and len(token) < 16:
        raise ConfigurationError("--token is too short to be a secret: use at least 16 characters")
    from flowkit.mcp.offers import make_offers
    from flowkit.mcp.server import McpServer
    from flowkit.web.served import Served, make_served

    listening = None if http is None else bind_port(host, http)
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
            if listening is None:
                await _serve_stdio(server, output)
            else:
                await _serve_http(server, listening, host, token, allow_host or ())
            await close_models(*served.models, *([] if chosen is None else [chosen]))
            await open_default_cache().close()

        try:
            asyncio.run(serve())
        except KeyboardInterrupt:
            note("stopped")


def bind_port(host: str, port: int) -> socket:
    """Bind a port to listen on; raises `ConfigurationError` if that fails."""
    from flowkit.web.server import bind

    try:
        return bind(host, port)
    except OSError as error:
        raise ConfigurationError(f"can't listen on {host}:{port}: {error.strerror or error}") from error


async def _serve_stdio(server: Any, output: Any) -> None:
    import anyio
    from mcp.server.stdio import stdio_server

    writing = anyio.wrap_file(TextIOWrapper(output.buffer, encoding="utf-8"))
    try:
        async with stdio_server(stdout=writing) as (read, write):
            await server.run(read, write, server.create_initialization_options())
    except* BrokenPipeError:
        # The host has gone, and with it whoever could be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # or the interpreter's last flush would fail


async def _serve_http(server: Any, listening: socket, host: str, token: str | None, names: Collection[str]) -> None:
    from flowkit.mcp.http import make_http_app
    from flowkit.web.server import make_server

    port = listening.getsockname()[1]
    hosts = [*list_hosts(host, port, ()), *(f"{name}:*" for name in names)]
    app = make_http_app(server, token=token, allowed_hosts=hosts)
    shown = f"[{host}]" if ":" in host else host
    note(f"serving MCP at http://{shown}:{port}/mcp; press Ctrl-C to stop")
    await make_server(app, _leave_nothing).serve([listening])


async def _leave_nothing() -> None:
    """Do nothing: the app's lifespan closes the hosts' sessions, and each run ends with its session."""
