"""The server of `flowkit serve`: uvicorn with more limits, and a shutdown that doesn't wait for viewers."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""How long a request's head may take; uvicorn waits for ever (Kludex/uvicorn#157)."""
HEAD_BYTES = 2**17
"""What the parser takes before it gives up; the guard refuses half of it, and says why."""
SHUTDOWN_S = 2.2
"""How long the end waits for runs and streams."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for request headers, on a new connection and between requests."""

    head_s = HEAD_S
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, and start the timer for its request headers."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read more data; stop the timer once the request headers are complete."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._disarm()

    def on_response_complete(self) -> None:
        """Start the timer for the next request's headers."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.loop.call_later(self.head_s, self.transport.close)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class GracefulServer(uvicorn.Server):
    """uvicorn's server. On shutdown it first releases the runs and ends the streams, since uvicorn waits for both."""

    def __init__(self, config: uvicorn.Config, aclose: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._aclose = aclose
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Future[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully; at the second signal, immediately."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            # From a signal's handler: the loop may be asleep.
            self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._aclose())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the last frames, then for the connections."""
        if self._leaving is not None:
            await asyncio.wait([self._leaving], timeout=SHUTDOWN_S)
        await super().shutdown(sockets)


def make_server(
    app: ASGIApp,
    aclose: Callable[[], Awaitable[None]],
    *,
    log_level: str = "warning",
    forwarded: Sequence[str] = (),
) -> GracefulServer:
    """Create a server for this app. `aclose` stops the app's runs and streams on shutdown.

    `forwarded` lists the proxies that are trusted to set `X-Forwarded-` headers.
    """
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_level=log_level,
        access_log=False,
        server_header=False,
        date_header=True,
        # By default uvicorn believes whoever connects from 127.0.0.1.
        proxy_headers=bool(forwarded),
        forwarded_allow_ips=list(forwarded) or None,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=0.5,  # pyright: ignore[reportArgumentType]  # asyncio takes it
    )
    return GracefulServer(config, aclose)


def bind(host: str, port: int) -> socket.socket:
    """Bind a listening socket; port 0 picks a free one. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError:
        listening.close()
        raise
    return listening
