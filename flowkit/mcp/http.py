"""MCP over HTTP: the server as an ASGI app, behind the guard."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowkit.errors import ConfigurationError
from flowkit.journal import Journal, default_journal
from flowkit.mcp.offers import make_offers
from flowkit.mcp.server import McpServer
from flowkit.web.endpoints import RequestRefused
from flowkit.web.request_guard import Token, check_head, check_host, check_origin, read_body
from flowkit.web.served import Bounds, Servable, Target, make_served


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
    stateless: bool = False,
    json_response: bool = False,
) -> Starlette:
    """Offer agents, recipes and named `tools` to MCP hosts, as an ASGI app with its own lifespan.

    Mount it at `/` and pass its `path`: a mount at the path itself answers with a redirect, which hosts don't follow.
    Enter its lifespan from yours, since Starlette starts no lifespan of a mount. `get_user` returns the user of a
    request's context (`mcp`'s `ServerRequestContext`, its HTTP request in `.request`). `allowed_hosts` are the accepted values
    of the `Host` header (`shop.example`, `localhost:*`), by default those of this machine;
    `token` is a bearer token that hosts must send. `stateless` stores no sessions of the handshake era, so any of
    several processes can answer a request, and hosts of that era can't be asked; `json_response` answers with JSON
    instead of a stream, without progress. A journal that is given as a path is
    closed when the lifespan ends.

    Raises `ConfigurationError` if the app has no agent and no recipe.
    """
    if find_spec("mcp") is None:
        raise ConfigurationError("mcp_app needs one more package: pip install 'flowkit-agents[mcp]'")
    if not callable(get_user):
        raise ConfigurationError("mcp_app(…, get_user=…) takes a function that returns a request's user")
    if not path.startswith("/"):
        raise ConfigurationError(f"mcp_app(…, path={path!r}): a path begins with a slash, such as '/mcp'")
    served = make_served(app, data)
    offers = make_offers(served, tools)
    owns = not isinstance(journal, Journal)
    opened = Journal(journal or default_journal()) if not isinstance(journal, Journal) else journal
    server = McpServer(served, offers, opened, get_user).make()
    return make_http_app(
        server,
        token=token,
        allowed_hosts=allowed_hosts,
        path=path,
        stateless=stateless,
        json_response=json_response,
        on_end=opened.close if owns else None,
    )


def make_http_app(
    server: Any,
    *,
    token: str | None = None,
    allowed_hosts: Sequence[str] | None = None,
    path: str = "/mcp",
    stateless: bool = False,
    json_response: bool = False,
    on_end: Callable[[], None] | None = None,
) -> Starlette:
    """Make the ASGI app of a server of the `mcp` package; `on_end` is called when its lifespan ends."""
    from mcp.server.transport_security import TransportSecuritySettings

    hosts = list(LOOPBACK_HOSTS if allowed_hosts is None else allowed_hosts)
    # Given always, since the package chooses by itself what it checks; Host and Origin are the guard's.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app: Starlette = server.streamable_http_app(
        streamable_http_path=path,
        transport_security=security,
        max_request_body_size=BOUNDS.body_bytes,
        stateless_http=stateless,
        json_response=json_response,
    )
    if on_end is not None:
        app.router.lifespan_context = _end_with(app.router.lifespan_context, on_end)
    app.add_middleware(HttpGuard, hosts=hosts, token=token, bounds=BOUNDS)
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


LOOPBACK_HOSTS = ("127.0.0.1:*", "localhost:*", "localhost.:*", "[::1]:*")
_OWN_NAMES = tuple(host.removesuffix("*") for host in LOOPBACK_HOSTS)
BOUNDS = Bounds(body_bytes=4 * 1024 * 1024)


class HttpGuard:
    """Pass on requests for one of `hosts` that carry the token; refuse all others.

    A host is a value of the `Host` header; a trailing `:*` matches any port, or none. Pages from one
    of these hosts are allowed; on this machine only from the same port.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: str | None, bounds: Bounds) -> None:
        self._app = app
        self._fits = re.compile("|".join(map(_write_pattern, hosts)) or r"(?!)").fullmatch
        # Pages of an own name, which may be reached with TLS; those of this machine only by the origin itself.
        named = [host.removesuffix(":*") for host in hosts if not host.startswith(_OWN_NAMES)]
        self._origins = frozenset(f"{scheme}://{name}" for name in named for scheme in ("http", "https"))
        self._token = None if token is None else Token(token, None)
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                try:
                    receive = await self._admit(scope, receive)
                except RequestRefused as refused:
                    await refused.answer()(scope, receive, send)
                else:
                    await self._app(scope, receive, send)
            case "lifespan":
                await self._app(scope, receive, send)
            case _:
                await send({"type": "websocket.close", "code": 1008})

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Check a request; return the callable that reads its body."""
        headers = Headers(scope=scope)
        check_head(scope, self._bounds)
        host = check_host(scope, headers, lambda host: self._fits(host) is not None)
        check_origin(scope, headers, host, self._origins, is_api=True)
        if self._token is not None:
            self._token.find(headers)
        if scope["method"] != "POST":
            return receive
        # Read whole, since the package waits for a body for ever: one that trickles would hold a place.
        body = await read_body(headers, receive, self._bounds)
        rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_read() -> Message:
            return rest.pop() if rest else await receive()

        return receive_read


def _write_pattern(host: str) -> str:
    name, star, _ = host.lower().partition(":*")
    return re.escape(name) + r"(:\d+)?" * bool(star)
