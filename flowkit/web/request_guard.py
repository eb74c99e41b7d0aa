"""Access control: every request is checked here before a route sees it.

The order is host, origin, route and method, user, type, body: the first checks are the cheapest and reveal the least.
A page of another site, or on another port of this machine, can make a browser send requests here. `Origin` and the
`Sec-Fetch-` headers identify such requests, and no page can forge them (W3C, Fetch Metadata). A missing `Origin`
proves nothing: a browser sends none with a GET to its own site.
"""

import asyncio
import hmac
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from flowkit import codec
from flowkit.web.endpoints import Answer, Asked, Endpoint, RequestRefused
from flowkit.web.served import Bounds

GetUser = Callable[[Request], "str | Awaitable[str | None] | None"]
"""Gives the user of a request, None where nobody is logged in."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Token:
    """A user identified by a token in `Authorization: Bearer`. Cookies aren't used, since all ports of a host share them."""

    token: str
    user: str | None

    def find(self, headers: Headers) -> str | None:
        """Find the user; raises `RequestRefused` for a wrong or missing token."""
        given = headers.getlist("authorization")
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(), f"Bearer {self.token}".encode()):
            raise _not_known()
        return self.user


class Guard:
    """Find the route of a request, and refuse requests that fail a check.

    `hosts` are the accepted values of `Host`, None for any. `origins` are other sites whose pages
    are allowed to send requests, such as `https://shop.example`.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        access: Token | GetUser,
        bounds: Bounds,
        *,
        hosts: Collection[str] | None,
        origins: Collection[str] = (),
    ) -> None:
        self._routes = [(compile_path(endpoint.path)[0], endpoint) for endpoint in endpoints]
        self._access = access
        self._bounds = bounds
        self._hosts = hosts
        self._origins = frozenset(origins)

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> Answer:
        """Check a request and call its route; raises `RequestRefused`."""
        headers = Headers(scope=scope)
        check_head(scope, self._bounds)
        host = check_host(scope, headers, self._fits)
        path = _get_path(scope)
        is_api = path == "/api" or path.startswith("/api/")
        check_origin(scope, headers, host, self._origins, is_api=is_api)
        endpoint, found = self._find(scope["method"], path)
        user = None if endpoint.is_page else await self._find_user(scope, headers)
        body = None if endpoint.body is None else await self._read_body(endpoint.body, headers, receive)
        return await endpoint.answer(Asked(user, found, QueryParams(scope["query_string"]), headers, body))

    def _fits(self, host: str) -> bool:
        return self._hosts is None or host in self._hosts

    def _find(self, method: str, path: str) -> tuple[Endpoint, Mapping[str, str]]:
        allowed: set[str] = set()
        for pattern, endpoint in self._routes:
            match = pattern.match(path)
            if match is None:
                continue
            if endpoint.method == method or (endpoint.is_page and method == "HEAD"):
                return endpoint, match.groupdict()
            allowed.add(endpoint.method)
        if allowed:
            raise RequestRefused(405, "that method isn't allowed here", headers={"allow": ", ".join(sorted(allowed))})
        raise RequestRefused(404, "there is nothing here")

    async def _find_user(self, scope: Scope, headers: Headers) -> str | None:
        if isinstance(self._access, Token):
            return self._access.find(headers)
        try:
            user = self._access(Request(scope))
            if inspect.isawaitable(user):
                user = await user
        except HTTPException as error:
            raise RequestRefused(error.status_code, str(error.detail), headers=error.headers) from error
        if not user:
            raise _not_known()
        return user

    async def _read_body(self, kind: type[BaseModel], headers: Headers, receive: Receive) -> BaseModel:
        _check_type(headers)
        data = await read_body(headers, receive, self._bounds)
        try:
            value = codec.loads(data)
        except ValueError:
            raise RequestRefused(400, "the body isn't JSON") from None
        if not isinstance(value, dict):
            raise RequestRefused(422, "the body must be a JSON object")
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise RequestRefused(422, f"{where}: {problem['msg']}" if where else problem["msg"]) from None


def check_head(scope: Scope, bounds: Bounds) -> None:
    """Refuse request headers that are too large."""
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if size > bounds.head_bytes:
        raise _refuse(431, "the head of the request is too long")


def check_host(scope: Scope, headers: Headers, fits: Callable[[str], bool]) -> str:
    """Return the request's `Host` in lower case; refuse a missing, a repeated and an unaccepted one."""
    given = headers.getlist("host")
    if len(given) != 1 or not given[0] or not scope["path"].startswith("/"):
        raise _refuse(421, "one Host is expected, and a path")
    host = given[0].lower()
    if not fits(host):
        raise _refuse(421, "this server doesn't answer for that Host")
    return host


def check_origin(scope: Scope, headers: Headers, host: str, origins: Collection[str], *, is_api: bool) -> None:
    """Refuse requests from pages of other sites, and requests to show the page in a frame."""
    given = headers.getlist("origin")
    if len(given) == 1 and given[0] in origins:
        return
    if given and given != [f"{scope['scheme']}://{host}"]:
        raise _refuse(403, "pages of another origin may not ask this server")
    mode, target = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    if target in ("iframe", "frame", "embed", "object") or (is_api and mode == "navigate"):
        raise _refuse(403, "this is not for looking at in a browser's window")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not (
        mode == "navigate" and target == "document"
    ):
        raise _refuse(403, "pages of another site may not ask this server")


async def read_body(headers: Headers, receive: Receive, bounds: Bounds) -> bytes:
    """Read a body within its limits, counting bytes as they arrive: a chunked body declares no length."""
    declared = headers.get("content-length")
    if declared is not None and int(declared) > bounds.body_bytes:
        raise _too_large(bounds)
    data = bytearray()
    try:
        async with asyncio.timeout(bounds.body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestRefused(400, "the client has left")
                data += cast(bytes, message.get("body", b""))
                if len(data) > bounds.body_bytes:
                    raise _too_large(bounds)
                if not message.get("more_body", False):
                    return bytes(data)
    except TimeoutError:
        raise _refuse(408, "the body took too long") from None


def _too_large(bounds: Bounds) -> RequestRefused:
    return _refuse(413, f"a body may have {bounds.body_bytes} bytes")


def _get_path(scope: Scope) -> str:
    """Return the path relative to the app's mount point."""
    path, root = cast(str, scope["path"]), cast(str, scope.get("root_path", ""))
    return (path.removeprefix(root) if root and path.startswith(root) else path) or "/"


def _check_type(headers: Headers) -> None:
    """Accept JSON only: a page can send forms and plain text to another site without a preflight request."""
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise _refuse(415, "the body must be application/json")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _refuse(415, "a compressed body isn't read")


def _refuse(status: int, error: str) -> RequestRefused:
    """Create a refusal that also closes the connection, since the rest of the request isn't read."""
    return RequestRefused(status, error, headers={"connection": "close"})


def _not_known() -> RequestRefused:
    return RequestRefused(HTTPStatus.UNAUTHORIZED, "log in first", headers={"www-authenticate": "Bearer"})
