"""HTTP clients of the `openai` package: one for each server, shared by all models behind it.

A client belongs to an event loop, since its connections do. It stays open between requests, so that the next turn
needs no handshake, and is closed when its loop ends: an asynchronous generator holds it, and `asyncio.run` closes the
generators of its loop before the loop itself. `close_clients` closes them sooner.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cache
from weakref import WeakKeyDictionary

import httpx2
import openai

from flowkit.models.wire.settings import Server

CONNECT_TIMEOUT_S = 10.0
"""How long a connection may take to open; a server that listens answers at once."""


@dataclass(slots=True)
class _Held:
    """An open client and the generator that closes it."""

    client: openai.AsyncOpenAI
    holder: AsyncGenerator[openai.AsyncOpenAI, None]


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Server, _Held]] = WeakKeyDictionary()


async def get_client(server: Server) -> openai.AsyncOpenAI:
    """The running loop's client for this server."""
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
        await client.close()


def _make_client(server: Server) -> openai.AsyncOpenAI:
    timeout = httpx2.Timeout(server.timeout_s, connect=min(CONNECT_TIMEOUT_S, server.timeout_s))
    headers = dict(server.headers)
    http_client = openai.DefaultAsyncHttpxClient(timeout=timeout, verify=_tls())
    if server.api_version is not None:
        return openai.AsyncAzureOpenAI(
            azure_endpoint=server.base_url,
            api_version=server.api_version,
            api_key=server.api_key,
            default_headers=headers,
            timeout=timeout,
            max_retries=0,  # repeats are the run's: it tells of each wait
            http_client=http_client,
        )
    return openai.AsyncOpenAI(
        base_url=server.base_url,
        api_key=server.api_key,
        default_headers=headers,
        timeout=timeout,
        max_retries=0,  # repeats are the run's: it tells of each wait
        http_client=http_client,
    )


@cache
def _tls() -> ssl.SSLContext:
    """The trusted certificates; reading them takes 16 ms, which each `run_sync` would pay again."""
    return httpx2.create_ssl_context()
