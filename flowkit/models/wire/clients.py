"""HTTP clients of the `openai` package: one for each server, shared by all models behind it.

A client belongs to an event loop, since its connections do. It stays open between requests, so that the next turn
needs no handshake, and is closed when its loop ends: an asynchronous generator holds it, and `asyncio.run` closes the
generators of its loop before the loop itself. `close_clients` closes them sooner.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, lru_cache
from urllib.parse import parse_qsl, urlencode
from weakref import WeakKeyDictionary

import httpx2
import openai

from flowkit.errors import ConfigurationError
from flowkit.models.wire.sent_keys import says_secret
from flowkit.models.wire.settings import PLACEHOLDER_KEY, ModelServer, split_query


@dataclass(slots=True)
class ServerClient:
    """An open client of the package for one server, the HTTP client below it, and the headers of each request."""

    package: openai.AsyncOpenAI
    http: httpx2.AsyncClient
    headers: httpx2.Headers
    """The package's own, the user's, and the key where it is fixed."""
    sent: httpx2.Request
    """What stands for each request of the server while its answer is read: its own headers would take 2 KB in each run."""
    _urls: dict[str, httpx2.URL] = field(default_factory=dict[str, httpx2.URL])

    def url_of(self, path: str) -> httpx2.URL:
        """Return the address of a path below the base URL; parsed once, since that costs as much as sending a header."""
        url = self._urls.get(path)
        if url is None:
            base, query = self.package.base_url, urlencode(self.package.default_query)
            raw = base.raw_path + path.removeprefix("/").encode() + (f"?{query}".encode() if query else b"")
            url = self._urls[path] = base.copy_with(raw_path=raw)
        return url


@dataclass(slots=True)
class _Held:
    """An open client and the generator that closes it."""

    client: ServerClient
    holder: AsyncGenerator[None, None]


_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=4.0)
"""Those of the package, but for the last, which is 5 s there: many servers close an idle connection after just that."""
_SENDING: ContextVar[ModelServer | None] = ContextVar("flowkit_sending", default=None)
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ModelServer, _Held]] = WeakKeyDictionary()


async def get_client(server: ModelServer) -> ServerClient:
    """Return the running loop's client for this server."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    held = clients.get(server)
    if held is None:
        client = _make_client(server)
        held = clients[server] = _Held(client, _hold(client.package, clients, server))
        await anext(held.holder)  # from its first step on the loop knows the generator
    return held.client


async def close_clients(server: ModelServer | None = None) -> None:
    """Close the running loop's client for this server, or all of them; the next request opens a new one."""
    clients = _clients.get(asyncio.get_running_loop(), {})
    for held in [held for key, held in clients.items() if server in (None, key)]:
        await held.holder.aclose()


async def _hold(
    client: openai.AsyncOpenAI, clients: dict[ModelServer, _Held], server: ModelServer
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        clients.pop(server, None)
        if not isinstance(server.http_client, httpx2.AsyncClient):  # else it is its owner's to close
            await client.close()


def _make_client(server: ModelServer) -> ServerClient:
    timeout = httpx2.Timeout(server.timeout.first_byte, connect=server.timeout.connect)
    http_client = _make_http_client(server, timeout)
    package = _make_package_client(server, timeout, http_client)
    headers = httpx2.Headers()
    update_headers(headers, package.auth_headers)
    update_headers(headers, package.default_headers)
    return ServerClient(package, http_client, headers, httpx2.Request("POST", package.base_url))


def update_headers(headers: httpx2.Headers, more: Mapping[str, str | openai.Omit]) -> None:
    """Set these headers, ignoring the case of their names; `Omit` removes one."""
    for name, value in more.items():
        if isinstance(value, openai.Omit):
            headers.pop(name, None)
        else:
            headers[name] = value


def _make_package_client(
    server: ModelServer, timeout: httpx2.Timeout, http_client: httpx2.AsyncClient
) -> openai.AsyncOpenAI:
    # A function gives the key with each request, so that a new one needs no new connection.
    api_key = server.api_key if isinstance(server.api_key, str) else PLACEHOLDER_KEY
    # The package would append a request's path to the query.
    base_url, query = split_query(server.base_url)
    default_query = dict(parse_qsl(query, keep_blank_values=True))
    if server.api_version is not None:
        return openai.AsyncAzureOpenAI(
            azure_endpoint=base_url,
            default_query=default_query,
            api_version=server.api_version,
            api_key=api_key,
            default_headers=dict(server.headers),
            timeout=timeout,
            max_retries=0,  # repeats are the run's: it tells of each wait
            http_client=http_client,
        )
    return openai.AsyncOpenAI(
        base_url=base_url,
        default_query=default_query,
        api_key=api_key,
        default_headers=dict(server.headers),
        timeout=timeout,
        max_retries=0,  # repeats are the run's: it tells of each wait
        http_client=http_client,
    )


def _make_http_client(server: ModelServer, timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    given = server.http_client
    if given is None:
        return openai.DefaultAsyncHttpxClient(
            timeout=timeout, verify=_tls(), limits=_LIMITS, event_hooks={"request": [_keep_at_home]}
        )
    made = given if isinstance(given, httpx2.AsyncClient) else given() if callable(given) else given
    if not isinstance(made, httpx2.AsyncClient):
        raise ConfigurationError(
            f"http_client is {type(made).__name__}, expected an httpx2.AsyncClient or a function that makes one"
        )
    return _watch(made)


@contextmanager
def sending(server: ModelServer) -> Generator[None]:
    """Send requests of this server in the block: its keys stay with it, whichever client sends them."""
    token = _SENDING.set(server)
    try:
        yield
    finally:
        _SENDING.reset(token)


async def _keep_at_home(request: httpx2.Request) -> None:
    """Remove the keys from a request which a redirect sends to another origin; a user's own requests stay as they are.

    httpx does so with `Authorization` alone.
    """
    server = _SENDING.get()
    if server is None or _origin(request.url) == _origin_of(server.base_url):
        return
    own = {"authorization", "api-key", "x-api-key", "cookie", server.auth, *(name for name, _ in server.headers)}
    for name in [name for name in request.headers if name in own or says_secret(name)]:
        request.headers.pop(name, None)


def _watch(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Let a client of a user keep keys at home, too."""
    hooks = client.event_hooks
    if _keep_at_home not in hooks["request"]:
        client.event_hooks = {**hooks, "request": [*hooks["request"], _keep_at_home]}
    return client


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


@lru_cache
def _origin_of(address: str) -> tuple[str, str, int | None]:
    """Parse the origin of a server's address once, which costs as much as the rest of the check of each request."""
    return _origin(httpx2.URL(address))


@cache
def _tls() -> ssl.SSLContext:
    """Load the trusted certificates once; reading them takes 16 ms, which each `run_sync` would pay again."""
    return httpx2.create_ssl_context()
