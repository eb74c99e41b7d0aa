"""A run's events as the bytes of a `text/event-stream` response."""

from collections.abc import AsyncIterator

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
