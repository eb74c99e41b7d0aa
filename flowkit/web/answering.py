"""The bytes of a stream to one client, until it ends or the client has left."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from starlette.types import Receive, Scope, Send

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold the events back
}


class ByteStream(Protocol):
    """Bytes that may be closed while another task waits for them."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class StreamAnswer:
    """An ASGI response; a client that leaves ends it at once, and `on_end` is called in any case."""

    def __init__(
        self, stream: ByteStream, headers: Mapping[str, str], on_end: Callable[[], None], status: int = 200
    ) -> None:
        self.status = status
        self._stream = stream
        self._headers = {**HEADERS, **headers}
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.create_task(self._watch_client(receive))
        try:
            headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            async for chunk in self._stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if not leaving.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._on_end()
            await self._stream.aclose()
            leaving.cancel()

    async def _watch_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await self._stream.aclose()
