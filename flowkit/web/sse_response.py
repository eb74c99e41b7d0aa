"""A run's events as the bytes of a `text/event-stream` response, and the response that sends them to one client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from starlette.types import Receive, Scope, Send

from flowkit.journal import Journal
from flowkit.web.following import KEEP_ALIVE_S, Followed, Follower, follow


class EventStream(AsyncIterator[bytes]):
    """The bytes of one viewer's response; owns no task, so that it can be closed, cancelled or dropped at any moment.

    Each chunk holds all that was ready. The run goes on whatever happens to its viewers.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    async def __anext__(self) -> bytes:
        batch = await self._follower.read()
        if batch is None:
            raise StopAsyncIteration
        return batch.write()

    async def aclose(self) -> None:
        """Stop watching, also while another task waits for the next event; more calls do nothing."""
        self._follower.close()


def sse(
    run: Followed,
    *,
    after: int | str | None = None,
    journal: Journal | None = None,
    keep_alive: float = KEEP_ALIVE_S,
) -> EventStream:
    """Stream the run's events as bytes: `StreamingResponse(sse(run), media_type="text/event-stream")`.

    `after` is what the viewer saw last, its `Last-Event-ID` header as it came; None, and what isn't a number, starts
    at the first event. With a `journal` that is the first of the whole run, also of one that goes on after a crash, and
    `run` may be the id of one that another process drives. The stream ends after `run.finished`. `keep_alive` is in
    seconds.
    """
    return EventStream(follow(run, journal=journal, after=read_event_id(after), keep_alive_s=keep_alive))


def read_event_id(after: int | str | None) -> int:
    """Read the `seq` in a `Last-Event-ID` header; -1 where there is none."""
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
