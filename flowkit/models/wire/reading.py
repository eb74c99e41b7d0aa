"""Code shared by the readers: events to JSON, `[DONE]`, and unreadable bodies.

The JSON of a body that should have been an event stream.

A gateway that knows no streams answers with the whole answer at one go; others write their events a line each, or as
one list.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from math import isfinite
from typing import ClassVar, cast

import orjson

from flowkit.codec import JSON
from flowkit.errors import StreamError
from flowkit.messages import Usage
from flowkit.models.base import CallDelta, CallDone, Delta, EndDelta, ErrorDelta, ProviderDelta
from flowkit.models.wire.half_characters import HalfCharacters
from flowkit.models.wire.other_interfaces import explain_interface, find_interface
from flowkit.models.wire.reasons import (
    NO_REASON,
    comes_back,
    find_names,
    find_reason,
    find_status,
    says_error,
    text_says_error,
)
from flowkit.models.wire.sse import LINE, MAX_EVENT_COMMAS, STRAY, EventDecoder, looks_like_events
from flowkit.models.wire.thinking import Api

_BLANKS = re.compile(r"\s+")


def begins_json(text: str) -> bool:
    """Return whether a body that begins so is JSON, unless it was cut."""
    return text.lstrip("\ufeff \t\r\n").startswith(("{", "["))


def read_values(body: bytes) -> list[dict[str, JSON]]:
    """Read the objects of a body of JSON, in order; none where any of it can't be read.

    >>> read_values(b'{"a": 1}\\n{"b": 2}')
    [{'a': 1}, {'b': 2}]
    >>> read_values(b'{"a": 1}\\n{"b":')
    []
    """
    if body.count(b",") > MAX_EVENT_COMMAS:
        return []
    try:
        text = body.decode().lstrip("\ufeff \t\r\n")
        return list(_read_each(text)) if begins_json(text) else []
    except (ValueError, RecursionError):
        return []


def _read_each(text: str) -> Iterator[dict[str, JSON]]:
    decoder, place = json.JSONDecoder(strict=False), 0
    while place < len(text) and not text.startswith("[DONE]", place):
        read, place = decoder.raw_decode(text, place)
        value = cast(JSON, read)
        items = value if isinstance(value, list) else [value]
        yield from (item for item in items if isinstance(item, dict))
        between = _BLANKS.match(text, place)
        place = between.end() if between else place


_PAGE = re.compile(r"(?is)\s*<(?:!doctype|html).{0,400}?<title>[^<]{0,40}\b(429|50[0234])\b")
"""The beginning of a page that reports a fault which passes."""
_SHOWN = 200
"""How many characters of something unreadable an error shows."""


FAULT_TYPES = (b"error", b"exception")
"""What the `event:` line says of a fault, whatever type its data names."""

_TEMPORARY = ("overloaded", "server_error", "rate_limit", "timeout", "unavailable", "tool_use_failed")
_PERMANENT = (
    *("invalid", "authentication", "permission", "not_found", "unsupported", "insufficient_quota", "context_length"),
    *("content_filter", "content_policy", "billing", "bad_request", "validationexception", "accessdenied"),
)
"""Words by which errors are known to programs: of those that pass, and of those that come back with the same request."""


class WireReader(ABC):
    """Bytes in, deltas out; wherever the bytes are cut, the deltas are the same.

    Unreadable data becomes an `ErrorDelta`: a reader raises nothing. Data after `[DONE]` is ignored.
    """

    _INTERFACE: ClassVar[Api] = "chat"
    _MARK_ENDS: ClassVar[bool] = True  # whether `[DONE]` says that the answer came to its end

    def __init__(self) -> None:
        self._decoder = EventDecoder()
        self._halves = HalfCharacters()
        self._ended = False
        self._is_foreign = False

    def feed(self, chunk: bytes) -> list[Delta]:
        """Return the deltas that these bytes complete."""
        if self._ended:
            return []
        deltas: list[Delta] = []
        try:
            events = self._decoder.feed(chunk)
        except StreamError as error:
            self._ended = True
            return [ErrorDelta(error)]
        for data, event_type in events:
            if self._ended:
                break
            try:
                value: JSON = orjson.loads(data)  # not by `cast`, which is a call
            except orjson.JSONDecodeError:
                self._read_unusual(data, event_type, deltas)
                continue
            if event_type and event_type[:1] == b" ":  # no event of the server's
                self._read_unusual(data, event_type, deltas)
            elif not isinstance(value, dict):
                self._read_other(value, event_type, deltas)
            elif self._halves.held:
                self._mend(value, event_type, deltas)
            else:
                self.read_event(value, event_type, deltas)
        return deltas

    def end(self) -> list[Delta]:
        """Return the deltas of a last event without its empty line; one that was cut in its middle is dropped."""
        deltas: list[Delta] = []
        head, is_stream = self._decoder.head, self._decoder.is_stream
        event = self._decoder.end()
        if self._ended:
            return deltas
        self._ended = True
        if event is not None:
            self._read_unusual(event.data, event.type, deltas, is_cut=True)
        elif not is_stream and not self._read_plain(head, deltas) and not looks_like_events(head):
            deltas.append(ErrorDelta(_explain_body(head, self.explain_error)))
        deltas += self._halves.end()
        return deltas

    @abstractmethod
    def read_event(self, event: Mapping[str, JSON], event_type: bytes, deltas: list[Delta]) -> None:
        """Process one event."""

    def refuse_foreign(self, event: Mapping[str, JSON], deltas: list[Delta]) -> bool:
        """If an event is in the form of another interface, name it and read no further."""
        interface = find_interface(event)
        if interface is None or interface == self._INTERFACE:
            return False
        if not self._is_foreign:
            deltas.append(ErrorDelta(explain_interface(self._INTERFACE, interface)))
        self._ended = self._is_foreign = True
        return True

    def explain_error(self, value: Mapping[str, JSON]) -> StreamError:
        """Read the error that came in place of a stream."""
        return read_error(dict(value))

    def read_whole(self, answer: Mapping[str, JSON], deltas: list[Delta]) -> bool:
        """If this is a whole answer that wasn't streamed, process all of it."""
        return False

    def _read_plain(self, body: bytes, deltas: list[Delta]) -> bool:
        """If the body is JSON, a whole answer or one event per line, read it: some gateways don't stream."""
        found: list[Delta] = []
        for value in read_values(body):
            said: list[Delta] = []
            if not self.read_whole(value, said):
                self.read_event(value, b"", said)
            for delta in said:
                found += self._halves.mend(delta)
        if not self._is_foreign and all(isinstance(delta, ErrorDelta) for delta in found):
            return False  # told with what the body was
        deltas += found
        return True

    def _read_unusual(self, data: bytes, event_type: bytes, deltas: list[Delta], is_cut: bool = False) -> None:
        """Read data that orjson rejected: `[DONE]`, nothing, NaN, raw control characters, half characters, broken JSON."""
        stripped = data.strip()
        if stripped == b"[DONE]":
            self._ended = True
            deltas += (*self._halves.end(), *((EndDelta(),) if self._MARK_ENDS else ()))
            return
        text = data.decode(errors="replace")
        if event_type == STRAY:
            error = _find_stray_error(text)
            if error is not None:
                deltas.append(ErrorDelta(error))
            return
        if not stripped or stripped.startswith(b":"):  # a comment in the wrong field
            if event_type in FAULT_TYPES:
                deltas.append(ErrorDelta(read_error(text)))
            return
        try:
            value = cast(JSON, json.loads(text, strict=False))
        except (ValueError, RecursionError) as unreadable:
            if event_type in FAULT_TYPES or ("{" not in text and text_says_error(text)):
                deltas.append(ErrorDelta(read_error(text)))
            elif not is_cut and ("{" in text or isinstance(unreadable, RecursionError)):
                # Without a brace it is no broken chunk: a comment in the wrong field.
                deltas.append(ErrorDelta(StreamError(f"an event isn't JSON: {text[:_SHOWN]!r}", retryable=True)))
            return
        if not isinstance(value, dict):
            self._read_other(value, event_type, deltas)
            return
        found: list[Delta] = []
        self._mend(value, event_type, found)
        if not _is_utf8(data) and any(isinstance(delta, CallDelta | CallDone | ProviderDelta) for delta in found):
            # The standard puts U+FFFD for what isn't UTF-8. In a text that is a blemish; arguments would be others.
            found = [ErrorDelta(StreamError(f"invalid UTF-8 in a tool call: {text[:_SHOWN]!r}", retryable=True))]
        deltas.extend(found)

    def _read_other(self, value: JSON, event_type: bytes, deltas: list[Delta]) -> None:
        """Read JSON that isn't an object: a list of events, or a text that may report an error.

        Other values are ignored.
        """
        if isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    self._mend(item, event_type, deltas)
        elif event_type in FAULT_TYPES or (isinstance(value, str) and text_says_error(value)):
            deltas.append(ErrorDelta(read_error(value)))

    def _mend(self, value: Mapping[str, JSON], event_type: bytes, deltas: list[Delta]) -> None:
        """Read an event that may contain half characters, or that follows one with half characters."""
        found: list[Delta] = []
        if event_type != LINE or not self.read_whole(value, found):
            self.read_event(value, event_type, found)
        for delta in found:
            deltas += self._halves.mend(delta)


def read_error(value: JSON, status: JSON = None) -> StreamError:
    """Read an error that a server sent in the middle of an answer, in any shape.

    It counts as temporary unless its status or its words say that the request itself was wrong.
    """
    number = find_status(value)
    if number is None and isinstance(status, int) and 400 <= status <= 599:
        number = status
    names = find_names(value).lower()
    reason = find_reason(value)
    if reason == NO_REASON and isinstance(value, (dict, list)) and value:
        reason = json.dumps(value)[:_SHOWN]
    if number is None:
        retryable = not comes_back(reason) and not any(word in names for word in _PERMANENT)
    else:
        retryable = number in (408, 409, 429) or number >= 500
    return StreamError(
        reason.encode(errors="replace").decode(),
        status=number,
        retryable=retryable or any(word in names for word in _TEMPORARY),
        body=value,
    )


def _find_stray_error(text: str) -> StreamError | None:
    """Find an error in text that is no event: JSON, a page, a sentence. Other text is ignored."""
    try:
        value = cast(JSON, json.loads(text, strict=False))
    except (ValueError, RecursionError):
        return read_error(text) if text_says_error(text) else None
    if isinstance(value, dict) and says_error(value):
        return read_error_event(value)
    return read_error(value) if isinstance(value, list) and _holds_error(value) else None


def _holds_error(items: list[JSON]) -> bool:
    return any(isinstance(item, dict) and says_error(item) for item in items)


def read_error_event(event: Mapping[str, JSON]) -> StreamError:
    """Read the error that an event is or contains; a single word in `error` is less specific than the other fields."""
    error = event.get("error")
    return (
        read_error(error, event.get("status")) if error and isinstance(error, (dict, list)) else read_error({**event})
    )


def read_usage(value: Mapping[str, JSON]) -> Usage:
    """Read the tokens that a server counted, in the words of either interface."""
    input_details = _object(value.get("prompt_tokens_details") or value.get("input_tokens_details"))
    output_details = _object(value.get("completion_tokens_details") or value.get("output_tokens_details"))
    input_tokens = _count(value.get("prompt_tokens", value.get("input_tokens")))
    output_tokens = _count(value.get("completion_tokens", value.get("output_tokens")))
    thinking_tokens = _count(output_details.get("reasoning_tokens") or value.get("reasoning_tokens"))
    # The server's own total tells what it counts beside the rest: xAI its thinking, Mistral the sound of a question.
    beside = _count(value.get("total_tokens")) - input_tokens - output_tokens
    if beside > 0:
        given = [
            thinking_tokens,
            _count(output_details.get("audio_tokens")),
            _count(output_details.get("image_tokens")),
        ]
        asked = [_count(input_details.get(name)) for name in ("audio_tokens", "image_tokens", "video_tokens")]
        more = _find_summands(beside, [*given, *asked])
        output_tokens += sum(more[: len(given)])
        input_tokens += sum(more[len(given) :])
    cost = value.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=_count(
            input_details.get("cached_tokens") or value.get("prompt_cache_hit_tokens") or value.get("cached_tokens")
        ),
        thinking_tokens=thinking_tokens,
        cost_usd=_number(cost),
    )


def as_arguments(value: JSON) -> str | None:
    """Return arguments as text; some servers send the object itself. NaN stays NaN, for the seal to refuse."""
    if value is None or isinstance(value, str):
        return as_text(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_text(value: JSON) -> str | None:
    """Return the text, or None when it is missing, null, empty or no text."""
    return value if isinstance(value, str) and value else None


def as_place(index: JSON) -> int | None:
    """Return an index; some servers write the number as text."""
    if isinstance(index, str) and index.isdecimal() and len(index) < 10:
        return int(index)
    return int(index) if isinstance(index, int) or (isinstance(index, float) and index.is_integer()) else None


def _object(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, dict) else {}


def _find_summands(total: int, parts: list[int]) -> list[int]:
    """Return the parts that make up the total, the fewest and first of them; zero for each other one."""
    for count in range(1, len(parts) + 1):
        for chosen in combinations(range(len(parts)), count):
            if sum(parts[place] for place in chosen) == total:
                return [part if place in chosen else 0 for place, part in enumerate(parts)]
    return [0] * len(parts)


def _count(value: JSON) -> int:
    return max(0, int(_number(value) or 0))


def _number(value: JSON) -> float | None:
    return value if isinstance(value, int) or (isinstance(value, float) and isfinite(value)) else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _explain_body(head: bytes, explain: Callable[[Mapping[str, JSON]], StreamError]) -> StreamError:
    text = head.decode(errors="replace").strip()
    try:
        value = cast(JSON, json.loads(text))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list) or (isinstance(value, dict) and says_error(value)):
        error = explain(value) if isinstance(value, dict) else read_error(value)
        return StreamError(
            f"not an event stream: {error}",
            status=error.status,
            retryable=error.retryable,
            body=error.body,
            request_id=error.request_id,
        )
    is_cut = value is None and begins_json(text)
    # A proxy's own page in place of an answer, with a status of 200: "504 Gateway Time-out".
    page = _PAGE.match(text)
    status = int(page[1]) if page else None
    return StreamError(
        f"not an event stream: {text[:_SHOWN]!r}", status=status, retryable=is_cut or page is not None, body=text
    )
