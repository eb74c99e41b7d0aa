"""Who may speak MCP over HTTP: the checks of `flowkit serve`, in its order, before a byte reaches the `mcp` package."""

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowkit.web.bounds import Bounds
from flowkit.web.endpoints import RequestRefused
from flowkit.web.request_guard import Token, check_head, check_host, check_origin, read_body

LOOPBACK_HOSTS = ("127.0.0.1:*", "localhost:*", "localhost.:*", "[::1]:*")
_OWN_NAMES = tuple(host.removesuffix("*") for host in LOOPBACK_HOSTS)
BOUNDS = Bounds(body_bytes=4 * 1024 * 1024)


class HttpGuard:
    """Passes on requests for one of `hosts` that carry the token, whole; refuses all others.

    A host is a value of the `Host` header; `:*` at its end is any port, or none. A page may ask that was opened at one
    of these hosts, and at this machine only at the very port.
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
        """Check a request; return what its body is read from."""
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
