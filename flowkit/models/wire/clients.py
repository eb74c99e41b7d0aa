"""HTTP clients of the `openai` package: one for each server, shared by all models behind it.

A client belongs to an event loop, since its connections do. It stays open between requests, so that the next turn
needs no handshake, and is closed when its loop ends: an asynchronous generator holds it, and `asyncio.run` closes the
generators of its loop before the loop itself. `close_clients` closes them sooner.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from weakref import WeakKeyDictionary

import httpx2
import openai

from flowkit.errors import ConfigurationError
from flowkit.models.wire.settings import PLACEHOLDER_KEY, Server


@dataclass(slots=True)
class _Held:
    """An open client and the generator that closes it."""

    client: openai.AsyncOpenAI
    holder: AsyncGenerator[openai.AsyncOpenAI, None]


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Server, _Held]] = WeakKeyDictionary()


async def get_client(server: Server) -> openai.AsyncOpenAI:
    """Return the running loop's client for this server."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    held = clients.get(server)
    if held is None:
        client = _make_client(server)
        held = clients[server] = _Held(client, _hold(client, clients, server))
        await anext(held.holder)  # from its first step on the loop knows the generator
    return held.client


async def close_clients(server: Server | None = None) -> None:
    """Close the running loop's client for this server, or all of them; the next request opens a new one."""
    clients = _clients.get(asyncio.get_running_loop(), {})
    for held in [held for key, held in clients.items() if server in (None, key)]:
        await held.holder.aclose()


async def _hold(
    client: openai.AsyncOpenAI, clients: dict[Server, _Held], server: Server
) -> AsyncGenerator[openai.AsyncOpenAI, None]:
    try:
        yield client
    finally:
        clients.pop(server, None)
        if not isinstance(server.http_client, httpx2.AsyncClient):  # else it is its owner's to close
            await client.close()


def _make_client(server: Server) -> openai.AsyncOpenAI:
    timeout = httpx2.Timeout(server.timeout.first_byte, connect=server.timeout.connect)
    headers = dict(server.headers)
    # A function gives the key with each request, so that a new one needs no new connection.
    api_key = server.api_key if isinstance(server.api_key, str) else PLACEHOLDER_KEY
    http_client = _make_http_client(server, timeout)
    if server.api_version is not None:
        return openai.AsyncAzureOpenAI(
            azure_endpoint=server.base_url,
            api_version=server.api_version,
            api_key=api_key,
            default_headers=headers,
            timeout=timeout,
            max_retries=0,  # repeats are the run's: it tells of each wait
            http_client=http_client,
        )
    return openai.AsyncOpenAI(
        base_url=server.base_url,
        api_key=api_key,
        default_headers=headers,
        timeout=timeout,
        max_retries=0,  # repeats are the run's: it tells of each wait
        http_client=http_client,
    )


def _make_http_client(server: Server, timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    given = server.http_client
    if given is None:
        return openai.DefaultAsyncHttpxClient(
            timeout=timeout, verify=_tls(), event_hooks={"request": [_keep_at_home(server)]}
        )
    made = given if isinstance(given, httpx2.AsyncClient) else given() if callable(given) else given
    if not isinstance(made, httpx2.AsyncClient):
        raise ConfigurationError(
            f"http_client is {type(made).__name__}, expected an httpx2.AsyncClient or a function that makes one"
        )
    return made


def _keep_at_home(server: Server) -> Callable[[httpx2.Request], Awaitable[None]]:
    """Make a hook that removes the keys from a request which a redirect sends to another origin.

    httpx does so with `Authorization` alone.
    """
    home = _origin(httpx2.URL(server.base_url))
    private = {"authorization", "api-key", "x-api-key", "cookie", server.auth, *(name for name, _ in server.headers)}

    async def strip(request: httpx2.Request) -> None:
        if _origin(request.url) != home:
            for name in private:
                request.headers.pop(name, None)

    return strip


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


@cache
def _tls() -> ssl.SSLContext:
    """Load the trusted certificates once; reading them takes 16 ms, which each `run_sync` would pay again."""
    return httpx2.create_ssl_context()
