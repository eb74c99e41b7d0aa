"""A run's events as the bytes of a `text/event-stream` response (WHATWG HTML, section 9.2)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol, cast

from flowkit import codec
from flowkit.events import Event

KEEP_ALIVE_S = 15.0
"""Proxies close a response that is silent for long; 15 s is what the WHATWG text advises."""


class Watched(Protocol):
    """A run, or anything else that tells its events from any point on."""

    def watch(self, after: int = -1) -> AsyncIterator[Event]:
        """The events with a `seq` greater than `after`."""
        ...


class EventStream(AsyncIterator[bytes]):
    """The bytes of one viewer's response; owns no task, so that it can be closed, cancelled or dropped at any moment.

    The run goes on whatever happens to its viewers.
    """

    def __init__(self, run: Watched, after: int, keep_alive_s: float) -> None:
        self._run = run
        self._after = after
        self._keep_alive_s = keep_alive_s
        self._events: AsyncIterator[Event] | None = run.watch(after)
        self._wait: asyncio.Timeout | None = None
        self._is_closed = False

    async def __anext__(self) -> bytes:
        if self._events is None:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._keep_alive_s) as self._wait:
                event = await anext(self._events)
        except TimeoutError:
            if self._is_closed:
                raise StopAsyncIteration from None
            # The time-out has ended the generator in its wait; another one goes on from the same place.
            self._events = self._run.watch(self._after)
            return b": keep-alive\n\n"
        except StopAsyncIteration:
            self._events = None
            raise
        finally:
            self._wait = None
        self._after = event.seq
        return write_event(event)

    async def aclose(self) -> None:
        """Stop watching, also while another task waits for the next event; more calls do nothing."""
        self._is_closed = True
        events, self._events = self._events, None
        if self._wait is not None:
            # A generator that waits can't be closed from outside; its wait ends now, and it with that.
            self._wait.reschedule(asyncio.get_running_loop().time())
        elif events is not None and hasattr(events, "aclose"):
            await cast(AsyncGenerator[Event], events).aclose()


def sse(run: Watched, *, after: int | str | None = None, keep_alive: float = KEEP_ALIVE_S) -> EventStream:
    """The run's events as bytes for any ASGI response: `StreamingResponse(sse(run), media_type="text/event-stream")`.

    `after` is what the viewer saw last, its `Last-Event-ID` header as it came; None, and what isn't a number, starts
    at the first event. The stream ends after `run.finished`. `keep_alive` is in seconds.
    """
    return EventStream(run, _read_event_id(after), keep_alive)


def write_event(event: Event) -> bytes:
    """One event: its `seq` as id, its type, its JSON in one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), codec.dumps(event.to_json()))


def _read_event_id(after: int | str | None) -> int:
    if after is None or isinstance(after, int):
        return -1 if after is None else after
    text = after.strip()
    return int(text) if text.isascii() and text.isdigit() else -1
