"""A run's events as the bytes of a `text/event-stream` response, and the response that sends them to one client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from starlette.types import Receive, Scope, Send

from flowkit.journal import Journal
from flowkit.web.following import KEEP_ALIVE_S, Followed, Follower, follow


class EventStream(AsyncIterator[bytes]):
    """The bytes of one viewer's response. It owns no task, so it can be closed, cancelled or dropped at any moment.

    Each chunk holds all events that were ready. The run continues if its viewers disconnect.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    async def __anext__(self) -> bytes:
        batch = await self._follower.read()
        if batch is None:
            raise StopAsyncIteration
        return batch.write()

    async def aclose(self) -> None:
        """Stop watching, even while another task waits for the next event; further calls do nothing."""
        self._follower.close()


def sse(
    run: Followed,
    *,
    after: int | str | None = None,
    journal: Journal | None = None,
    keep_alive: float = KEEP_ALIVE_S,
) -> EventStream:
    """Stream the run's events as bytes: `StreamingResponse(sse(run), media_type="text/event-stream")`.

    `after` is the viewer's `Last-Event-ID` header. With None or a text that isn't a number, the stream starts
    at the first event. With a `journal` it includes the events before a crash, and
    `run` can be the id of a run that another process drives. The stream ends after `run.finished`. `keep_alive` is in
    seconds.
    """
    return EventStream(follow(run, journal=journal, after=read_event_id(after), keep_alive_s=keep_alive))


def read_event_id(after: int | str | None) -> int:
    """Read the `seq` in a `Last-Event-ID` header; -1 if there is none."""
    if after is None or isinstance(after, int):
        return -1 if after is None else after
    text = after.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold the events back
}


class ByteStream(Protocol):
    """A byte stream that can be closed while another task waits for it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class StreamAnswer:
    """An ASGI response that ends as soon as the client disconnects; `on_end` is always called."""

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
