"""MCP over HTTP: the server as an ASGI app, behind a token and a check of the Host and Origin headers."""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from flowkit.errors import ConfigurationError
from flowkit.journal import Journal, default_journal
from flowkit.mcp.offers import make_offers
from flowkit.mcp.server import McpServer
from flowkit.web.served import Servable, Target, make_served

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_HOSTS = ("127.0.0.1:*", "localhost:*", "[::1]:*")
BODY_BYTES_AT_MOST = 4 * 1024 * 1024


def mcp_app(
    app: Servable | Iterable[Target],
    *,
    get_user: Callable[[Any], str | None],
    tools: Sequence[str] = (),
    journal: Journal | str | Path | None = None,
    data: Mapping[str, str] | None = None,
    token: str | None = None,
    allowed_hosts: Sequence[str] | None = None,
    path: str = "/mcp",
) -> Starlette:
    """Offer agents, recipes and named `tools` to MCP hosts, as an ASGI app with its own lifespan.

    Mount it at `/` and give its `path`: a mount at the path itself answers with a redirect, which hosts don't follow.
    Enter its lifespan from yours, since Starlette starts no lifespan of a mount. `get_user` gives the user of a
    request's context (`mcp`'s `ServerRequestContext`, its HTTP request in `.request`). `allowed_hosts` are the values
    of the `Host` header that are answered (`shop.example`, `localhost:*`), those of this machine where left out;
    `token` is a bearer token that hosts must send. A journal that is named by its path is
    closed when the lifespan ends.

    Raises `ConfigurationError` for an app with nothing to serve.
    """
    if not callable(get_user):
        raise ConfigurationError("mcp_app(…, get_user=…) takes a function that returns a request's user")
    served = make_served(app, data)
    offers = make_offers(served, tools)
    owns = not isinstance(journal, Journal)
    opened = Journal(journal or default_journal()) if not isinstance(journal, Journal) else journal
    server = McpServer(served, offers, opened, get_user).make()
    return make_http_app(
        server, token=token, allowed_hosts=allowed_hosts, path=path, on_end=opened.close if owns else None
    )


def make_http_app(
    server: Any,
    *,
    token: str | None = None,
    allowed_hosts: Sequence[str] | None = None,
    path: str = "/mcp",
    on_end: Callable[[], None] | None = None,
) -> Starlette:
    """Make the ASGI app of a server of the `mcp` package; `on_end` is called when its lifespan ends."""
    from mcp.server.transport_security import TransportSecuritySettings

    hosts = list(LOOPBACK_HOSTS if allowed_hosts is None else allowed_hosts)
    # Given always: the package checks nothing by itself once it is told to listen beyond this machine.
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=hosts,
        allowed_origins=[f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")],
    )
    app: Starlette = server.streamable_http_app(
        streamable_http_path=path, transport_security=security, max_request_body_size=BODY_BYTES_AT_MOST
    )
    if on_end is not None:
        app.router.lifespan_context = _end_with(app.router.lifespan_context, on_end)
    if token is not None:
        app.add_middleware(_Guard, token=token)
    return app


def _end_with(lifespan: Callable[[Any], Any], on_end: Callable[[], None]) -> Callable[[Any], Any]:
    @asynccontextmanager
    async def live(app: Any) -> AsyncGenerator[Any]:
        try:
            async with lifespan(app) as state:
                yield state
        finally:
            # After the sessions, whose runs write to it until they have stopped; its thread is waited for.
            await asyncio.to_thread(on_end)

    return live


class _Guard:
    """Answers 401 before a body is read, where the bearer token is missing or wrong."""

    def __init__(self, app: AsgiApp, token: str) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if not hmac.compare_digest(headers.get(b"authorization", b""), self._wanted):
                body = b'{"error": "a bearer token is needed"}'
                challenge = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
                await send({"type": "http.response.start", "status": 401, "headers": challenge})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)
