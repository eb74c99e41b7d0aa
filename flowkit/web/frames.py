"""Events as the bytes of `text/event-stream` (WHATWG HTML, section 9.2), encoded once for all readers.

Viewers of a live run are mostly at the same position, so encoded events are cached briefly and shared. A viewer
that is behind reads in blocks with fixed boundaries, which are the same for all viewers.
"""

from collections import OrderedDict
from weakref import WeakKeyDictionary

from flowkit.events import Event, EventLog, dump_event, merge

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
