"""Server-sent events: bytes in, events out, however the bytes are cut.

Follows https://html.spec.whatwg.org/multipage/server-sent-events.html, with two exceptions. An event whose
empty line never came is given at the end, for servers leave it out behind the one that holds their finish reason. A line
`error: …` (llama.cpp) is an event of the type `error`; so is the type `error` alone. Lines that belong to no field, in the
middle of a stream, are an event of the type `STRAY`: a gateway that breaks off writes what went wrong as it is.
A body of JSON lines (`application/x-ndjson`) is read as it arrives, too: each line is an event of the type `LINE`.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from flowkit.errors import StreamError
from flowkit.models.wire.reasons import says_error

MAX_EVENT_BYTES = 24 * 1024 * 1024
"""The longest event that is read; a generated image in base64 takes some megabytes."""

MAX_EVENT_COMMAS = 250_000
"""The most commas in an event, which is parsed at one go: an image has hardly any, a text of a million words fewer."""

MAX_SKIPPED_BYTES = 8 * 1024 * 1024
"""The most comments and empty lines between two events; a gateway that sends one a second needs days for as many."""

_LINE_BYTES = 32
"""What a line that says nothing counts for besides its length: reading it takes as long as these."""

HEAD_BYTES = 2_000
"""How much of a body is kept to say what it was, when it isn't an event stream; one that begins as JSON is kept whole."""

STRAY = b" stray"
"""The type of what stands in the middle of a stream and is no field of an event; no server can name one so."""

LINE = b" line"
"""The type of a line of JSON that is an event without the fields of one."""

_MOST_STRAY_LINES = 100
"""How many lines of it are kept; a page of an error has fewer."""

_ERROR_FIELDS = (b"error", b"exception")
_MARK = b"\xef\xbb\xbf"
_FIELDS = (b"data", b"event", b"id", b"retry", b"error", b":")
_EVENT_KEYS = ("type", "object", "choices", "content", "output", "done")
"""One of these is in each event, and in each answer at one go, of the interfaces that are read."""

_FIELDS_OF_NO_DATA = (b"", b"id", b"retry")


class ServerSentEvent(NamedTuple):
    """One event: its data, lines joined by a line feed, and its type, empty when none was named."""

    data: bytes
    type: bytes


_make_event: Callable[[type[ServerSentEvent], tuple[bytes, bytes]], ServerSentEvent] = cast(Any, tuple).__new__
"""Makes an event of its values without a call between: one is made for each chunk."""


class EventDecoder:
    """Cuts a body into events; each byte is looked at a bounded number of times.

    `head` is the beginning of the body until the first event has come, or all of a body that begins as JSON.
    """

    __slots__ = (
        "_data",
        "_head",
        "_head_bytes",
        "_idle",
        "_is_json",
        "_is_lines",
        "_partial",
        "_size",
        "_skip_line_feed",
        "_skipped",
        "_started",
        "_stray",
        "_type",
        "is_stream",
    )

    def __init__(self) -> None:
        self._head: list[bytes] = []
        self._head_bytes = 0
        self._is_json: bool | None = None
        self._is_lines: bool | None = None  # unknown until the first line has ended
        self.is_stream = False
        self._partial: list[bytes] = []  # pieces of a line whose end hasn't come
        self._data: list[bytes] = []  # data lines of the event that is being read
        self._type = b""
        self._stray: list[bytes] = []  # lines of no field
        self._size = 0
        self._skipped = 0  # bytes of lines that say nothing, since the last event
        self._skip_line_feed = False  # the last chunk ended with CR: an LF that follows belongs to it
        self._started = False  # the byte-order mark is behind us
        self._idle = False  # an event has just ended, and nothing has come since

    @property
    def head(self) -> bytes:
        """The beginning of the body, before any event."""
        head = b"".join(self._head)
        return head if self._is_json else head[:HEAD_BYTES]

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that these bytes complete.

        Raises `StreamError` when an event is longer than `MAX_EVENT_BYTES` or has more values than `MAX_EVENT_COMMAS`
        allows, or when content without events is longer than `MAX_SKIPPED_BYTES`.
        """
        # One write, one event: what nearly every server does, so it is the short way.
        # Its parts are compared where that takes no call.
        if self._idle and chunk[-2:] == b"\n\n" and b"\r" not in chunk and len(chunk) <= MAX_EVENT_COMMAS:
            begin = chunk.find(b"\n") + 1 if chunk[:7] == b"event: " else 0
            if chunk[begin : begin + 6] == b"data: " and b"\n" not in (data := chunk[begin + 6 : -2]):
                self._skipped = 0
                return [_make_event(ServerSentEvent, (data, chunk[7 : begin - 1] if begin else b""))]
        return self._read(chunk)

    def end(self) -> ServerSentEvent | None:
        """Return the last event if the body ended without its empty line."""
        events: list[ServerSentEvent] = []
        self._is_lines = self._is_lines is True  # a body of one line may be an answer, or a refusal: all of it says
        if self._partial:
            line = b"".join(self._partial)
            self._partial = []
            self._read_line(line.removeprefix(_MARK) if not self._started else line, events)
        self._dispatch(events)
        if not events and self._type == b"error":
            events.append(ServerSentEvent(b"", b"error"))
        return events[-1] if events else None

    def _read(self, chunk: bytes) -> list[ServerSentEvent]:
        if not self.is_stream and (self._is_json or self._head_bytes < HEAD_BYTES):
            self._keep(chunk)
        if not self._started:
            chunk = b"".join((*self._partial, chunk))
            self._partial = []
            if len(chunk) < len(_MARK) and _MARK.startswith(chunk):
                self._partial.append(chunk)
                return []
            self._started = True
            chunk = chunk.removeprefix(_MARK)
        if self._skip_line_feed and chunk:
            self._skip_line_feed = False
            if chunk[0] == 10:
                chunk = chunk[1:]
        self._size += len(chunk)
        if self._size > MAX_EVENT_BYTES:
            raise StreamError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        if b"\n" not in chunk and b"\r" not in chunk:
            if chunk:
                self._idle = False
                self._partial.append(chunk)
            return []
        self._skip_line_feed = chunk[-1] == 13
        if self._partial:
            self._partial.append(chunk)
            chunk = b"".join(self._partial)
            self._partial = []
        lines = chunk.splitlines()  # of bytes: ends a line at LF, CR and CRLF, and nowhere else
        if chunk[-1] not in b"\r\n":
            self._partial.append(lines.pop())
        events: list[ServerSentEvent] = []
        for line in lines:
            if not line:
                self._dispatch(events)
            elif line.startswith(b"data: "):
                self._data.append(line[6:])
            elif line.startswith(b"event: "):
                self._type = line[7:]
            else:
                self._read_line(line, events)
        if self._skipped > MAX_SKIPPED_BYTES:
            raise StreamError(f"more than {MAX_SKIPPED_BYTES} bytes of comments and empty lines between two events")
        self._idle = self.is_stream and not (self._partial or self._data or self._type or self._skip_line_feed)
        return events

    def _keep(self, chunk: bytes) -> None:
        """Keep text that may turn out to be a whole JSON answer from a server that doesn't stream."""
        self._head.append(chunk)
        self._head_bytes += len(chunk)
        if self._is_json is None:
            start = b"".join(self._head).removeprefix(_MARK).lstrip()
            if start and not _MARK.startswith(start):
                self._is_json = start[:1] in b"{["

    def _read_line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value[1:] if value[:1] == b" " else value)
        elif field == b"event":
            self._type = value[1:] if value[:1] == b" " else value
        elif value and field.lower() in _ERROR_FIELDS:
            self._dispatch(events)
            self._data, self._type = [value], b"error"
            self._dispatch(events)
        elif line[:1] in (b"{", b"[") and self._holds_lines(line):
            self._data, self._type = [line], LINE
            self._dispatch(events)
        else:
            self._skipped += len(line) + _LINE_BYTES
            if self.is_stream and field not in _FIELDS_OF_NO_DATA and len(self._stray) < _MOST_STRAY_LINES:
                self._stray.append(line)

    def _holds_lines(self, line: bytes) -> bool:
        """Return whether the body holds an event a line, as its first line shows."""
        if self._is_lines is None:
            self._is_lines = not self.is_stream and _is_event(line)
        return self._is_lines

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        """Add the event that has been read, if it holds data."""
        self._size = 0
        event_type, self._type = self._type, b""
        if self._stray:
            events.append(ServerSentEvent(b"\n".join(self._stray), STRAY))
            self._stray = []
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            if len(data) > MAX_EVENT_COMMAS and data.count(b",") > MAX_EVENT_COMMAS:
                raise StreamError(f"an event holds more than {MAX_EVENT_COMMAS} values")
            events.append(_make_event(ServerSentEvent, (data, event_type)))
            self._skipped = 0 if data else self._skipped + _LINE_BYTES
            self._data = []
            if not self.is_stream:
                self.is_stream = True
                self._head = []
        else:
            self._skipped += _LINE_BYTES
            if event_type == b"error":
                self._type = event_type  # what went wrong comes in the next event, or never


def _is_event(line: bytes) -> bool:
    """Return True if a line is JSON that could be an event or a whole answer; an error is reported with its body."""
    try:
        value = json.loads(line, strict=False)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not value.keys().isdisjoint(_EVENT_KEYS) and not says_error(value)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def looks_like_events(head: bytes) -> bool:
    """Return whether a body that begins so could be an event stream; an empty one could."""
    start = head.removeprefix(_MARK).lstrip()
    return any(start.startswith(field) or field.startswith(start) for field in _FIELDS)
