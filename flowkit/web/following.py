"""Follow a run's events from any point: first the recorded ones, then new ones of this or another process.

If several processes drove a run one after another, each wrote a segment of one log. The log in memory has the
last segment; the journal has the earlier ones. A run that another process drives is read from the journal as it grows.

Events as the bytes of `text/event-stream` (WHATWG HTML, section 9.2), encoded once for all readers.

Viewers of a live run are mostly at the same position, so encoded events are cached briefly and shared. A viewer
that is behind reads in blocks with fixed boundaries, which are the same for all viewers.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import EllipsisType
from typing import Protocol, cast
from weakref import WeakKeyDictionary

from flowkit import codec
from flowkit.codec import JSON
from flowkit.events import Event, EventLog, RunFinished, dump_event, merge
from flowkit.journal import Journal
from flowkit.stores.waiting import wait_in_thread

BLOCK_EVENTS = 256
"""A chunk ends where a block of so many events does."""
KEPT_BYTES = 2**18
"""How much of each log's bytes is kept for other viewers."""
KEEP_ALIVE = b": keep-alive\n\n"

_chunks: WeakKeyDictionary[EventLog, "_Chunks"] = WeakKeyDictionary()


def write_event(event: Event) -> bytes:
    """Write one event: its `seq` as id, its type, its JSON in one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), dump_event(event))


def write_row(seq: int, body: str) -> bytes:
    """Write an event of the journal, whose JSON begins with its type."""
    kind = body[9 : body.index('"', 9)]
    return f"id: {seq}\nevent: {kind}\ndata: {body}\n\n".encode()


def write_chunk(log: EventLog, start: int, stop: int) -> bytes:
    """Write the events between two positions of a log; adjacent text deltas are merged."""
    kept = _chunks.get(log)
    if kept is None:
        kept = _chunks[log] = _Chunks()
    return kept.write(log, start, stop)


def end_block(start: int, end: int) -> int:
    """Return where a chunk from `start` on ends, of `end` events."""
    return min(end, (start // BLOCK_EVENTS + 1) * BLOCK_EVENTS)


class _Chunks:
    """A bounded cache of one log's most recent chunks."""

    def __init__(self) -> None:
        self._by_place: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._size_bytes = 0

    def write(self, log: EventLog, start: int, stop: int) -> bytes:
        chunk = self._by_place.get((start, stop))
        if chunk is None:
            chunk = self._by_place[start, stop] = b"".join(map(write_event, merge(log.events[start:stop])))
            self._size_bytes += len(chunk)
            while self._size_bytes > KEPT_BYTES:
                _, dropped = self._by_place.popitem(last=False)
                self._size_bytes -= len(dropped)
        return chunk


POLL_S = 0.25
"""How often the journal is asked for what another process wrote."""
POLL_TOLD_S = 1.0
"""How often where the journal tells of it: what is told while a connection is lost is lost."""
KEEP_ALIVE_S = 15.0
"""Proxies close a response that is silent for long; 15 s is what the WHATWG text advises."""


class HasLog(Protocol):
    """A run of an agent or a recipe."""

    @property
    def log(self) -> EventLog: ...


Followed = EventLog | HasLog | str
"""A run, its log, or the id of one in a journal."""


class EventBatch(Protocol):
    """Events that were ready together."""

    @property
    def last(self) -> int:
        """The `seq` of the last one."""
        ...

    def write(self) -> bytes:
        """Write them as `text/event-stream`."""
        ...

    def read(self) -> Sequence[Mapping[str, JSON]]:
        """Return them as `Event.to_json` does."""
        ...


@dataclass(frozen=True, slots=True)
class LiveBatch:
    """A part of the log in memory."""

    log: EventLog
    start: int
    stop: int

    @property
    def last(self) -> int:
        return self.log.first_seq + self.stop - 1

    def write(self) -> bytes:
        return write_chunk(self.log, self.start, self.stop)

    def read(self) -> Sequence[Mapping[str, JSON]]:
        return [event.to_json() for event in merge(self.log.events[self.start : self.stop])]


@dataclass(frozen=True, slots=True)
class RecordedBatch:
    """Rows of the journal."""

    rows: Sequence[tuple[int, str]]

    @property
    def last(self) -> int:
        return self.rows[-1][0]

    def write(self) -> bytes:
        return b"".join(write_row(seq, body) for seq, body in self.rows)

    def read(self) -> Sequence[Mapping[str, JSON]]:
        return [cast(Mapping[str, JSON], codec.loads(body)) for _, body in self.rows]


@dataclass(frozen=True, slots=True)
class Silence:
    """No event for the keep-alive interval: the response sends a keep-alive."""

    last: int

    def write(self) -> bytes:
        return KEEP_ALIVE

    def read(self) -> Sequence[Mapping[str, JSON]]:
        return ()


class Follower:
    """One reader's position in a run's events. It owns no task, and can be closed while another task reads."""

    def __init__(
        self,
        run_id: str,
        find_log: Callable[[], EventLog | None],
        *,
        journal: Journal | None = None,
        user: str | EllipsisType | None = ...,
        after: int = -1,
        keep_alive_s: float = KEEP_ALIVE_S,
        poll_s: float = POLL_S,
        is_leaving: Callable[[], bool] = lambda: False,
        has_workers: bool = False,
    ) -> None:
        """Prepare a reader.

        `has_workers` means that a worker resumes a run whose process has died, so keep following it.
        """
        self._is_leaving = is_leaving
        self._has_workers = has_workers
        self._run_id = run_id
        self._find_log = find_log
        self._journal = journal
        self._user = user
        self._after = after
        self._keep_alive_s = keep_alive_s
        self._poll_s = poll_s
        self._log: EventLog | None = None
        self._is_closed = False
        self._waker: asyncio.Future[None] | None = None
        self._stop_listening: Callable[[], None] | None = None
        self._has_news = False
        self._is_told = False
        """Whether the journal tells of what others write: it has done so."""
        self._silent_s = 0.0

    async def read(self) -> EventBatch | None:
        """Wait for the next batch and return it; None at the end."""
        while not self._is_closed:
            batch, is_over = await self._look()
            if batch is not None:
                self._after = batch.last
                self._silent_s = 0.0
                return batch
            if is_over or self._is_closed:
                self._listen_no_more()
                return None
            await self._wait()
            if self._silent_s >= self._keep_alive_s:
                self._silent_s = 0.0
                return Silence(self._after)
        return None

    def close(self) -> None:
        """Stop reading; a pending `read` returns None."""
        self._is_closed = True
        self._listen_no_more()
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    async def _look(self) -> tuple[EventBatch | None, bool]:
        """Return the events available now, and whether they are the last."""
        if self._log is None:
            self._log = self._find_log()
        log = self._log
        if log is None:
            return await self._look_elsewhere()
        self._listen_no_more()
        if not log.events:
            return None, log.is_closed  # its place in the run's log isn't known before its first event
        position = self._after + 1 - log.first_seq
        if position < 0 and self._journal is not None:
            earlier = await self._read_rows(self._journal, log.first_seq)
            if earlier is not None:
                return earlier, False
        position = max(0, position)
        end = len(log.events)
        if self._is_leaving() and _is_let_go(log.events[-1]):
            end -= 1  # the run hasn't ended: another process can go on with it
        if position >= end:
            return None, log.is_closed
        return LiveBatch(log, position, end_block(position, end)), False

    async def _look_elsewhere(self) -> tuple[EventBatch | None, bool]:
        if self._journal is None:
            return None, True
        self._has_news = False
        # The state first: what is written between the two questions is then read, or asked for again.
        found = await wait_in_thread(self._journal.find, self._run_id, user=self._user)
        if found is not None and self._stop_listening is None and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._stop_listening = self._journal.listen(found, lambda: _call_soon(loop, self._notice))
        rows = await self._read_rows(self._journal, None)
        goes_on = found is not None and (
            found.is_held
            or found.status in ("queued", "cancelling")
            or (found.status == "running" and self._has_workers)
        )
        return rows, not goes_on

    async def _read_rows(self, journal: Journal, before: int | None) -> RecordedBatch | None:
        rows = await wait_in_thread(journal.event_rows, self._run_id, self._after, before, user=self._user)
        return RecordedBatch(rows) if rows else None

    async def _wait(self) -> None:
        """Wait for an event, for the next journal poll, or for the keep-alive interval."""
        loop, log = asyncio.get_running_loop(), self._log
        if log is None and self._has_news:
            return
        waker = self._waker = loop.create_future() if log is None else log.make_waker()
        wait_s = self._keep_alive_s
        if log is None:
            wait_s = max(self._poll_s, POLL_TOLD_S) if self._is_told else self._poll_s
        timer = loop.call_later(wait_s, self._wake_in_silence, waker, wait_s)
        try:
            await waker
        finally:
            timer.cancel()
            self._waker = None
            if log is not None:
                log.drop_waker(waker)

    def _wake_in_silence(self, waker: asyncio.Future[None], waited_s: float) -> None:
        if not waker.done():
            self._silent_s += waited_s
            waker.set_result(None)

    def _notice(self) -> None:
        """Poll the journal now: another process has written an event of this run."""
        self._has_news = self._is_told = True
        if self._waker is not None and not self._waker.done() and self._log is None:
            self._waker.set_result(None)

    def _listen_no_more(self) -> None:
        stop, self._stop_listening = self._stop_listening, None
        if stop is not None:
            stop()


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop was closed
        loop.call_soon_threadsafe(call)


def _is_let_go(event: Event) -> bool:
    return isinstance(event, RunFinished) and event.status == "cancelled"


def follow(
    run: Followed,
    *,
    journal: Journal | None = None,
    after: int = -1,
    keep_alive_s: float = KEEP_ALIVE_S,
    poll_s: float = POLL_S,
) -> Follower:
    """Read this run's events after one of them; a run's id needs the `journal` that holds it."""
    log = run if isinstance(run, EventLog) else None if isinstance(run, str) else run.log
    run_id = run if isinstance(run, str) else run.run_id if isinstance(run, EventLog) else run.log.run_id
    return Follower(run_id, lambda: log, journal=journal, after=after, keep_alive_s=keep_alive_s, poll_s=poll_s)


async def read_events(
    run: Followed, *, journal: Journal | None = None, after: int = -1
) -> AsyncIterator[Mapping[str, JSON]]:
    """Yield a run's events after one of them, as `Event.to_json` returns them: the journal's, then new ones.

    `run` is a run, or the id of one in the `journal`, which another process may drive.
    """
    follower = follow(run, journal=journal, after=after)
    try:
        while (batch := await follower.read()) is not None:
            for event in batch.read():
                yield event
    finally:
        follower.close()
