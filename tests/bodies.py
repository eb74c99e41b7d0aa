"""Bodies of Chat Completions and of the Responses API, written by hand, for tests."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from flowkit.assemble import Turn
from flowkit.models.base import Delta, ErrorDelta
from flowkit.models.wire.reading import WireReader
from flowkit.testing.streams import read_turn

DONE = b"data: [DONE]\n\n"


def event(value: Any, event_type: str = "") -> bytes:
    """One server-sent event."""
    line = f"event: {event_type}\n" if event_type else ""
    return f"{line}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """A chunk of Chat Completions with one choice; `more` goes to the top level."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return event({"object": "chat.completion.chunk", "choices": [choice], **more})


def chat(*deltas: dict[str, Any] | bytes, finish: str | None = "tool_calls", done: bool = True) -> bytes:
    """A whole body: a chunk for each delta (bytes stand as they are), the finish reason, the end mark."""
    chunks = [delta if isinstance(delta, bytes) else chunk(delta) for delta in deltas]
    if finish is not None:
        chunks.append(chunk({}, finish))
    return b"".join(chunks) + (DONE if done else b"")


def call(arguments: Any = None, /, **fields: Any) -> dict[str, Any]:
    """A fragment of a call as the wire spells it; `name` goes into its function, the rest beside it.

    `index` is 0 unless it is given; `index=...` leaves it out.
    """
    function: dict[str, Any] = {}
    if "name" in fields:
        function["name"] = fields.pop("name")
    if arguments is not None:
        function["arguments"] = arguments
    fields = {"index": 0, "type": "function", **fields, "function": function}
    return {name: value for name, value in fields.items() if value is not ...}


def calls(*fragments: dict[str, Any]) -> dict[str, Any]:
    """A delta that holds these fragments."""
    return {"tool_calls": list(fragments)}


def responses(*events: tuple[str, dict[str, Any]], end: str | None = "completed", **response: Any) -> bytes:
    """A body of the Responses API; each event is its type, without `response.`, and its fields."""
    sent = [event({"type": f"response.{kind}", **fields}) for kind, fields in events]
    if end is not None:
        sent.append(event({"type": f"response.{end}", "response": {"status": end, "output": [], **response}}))
    return b"".join(sent)


def anthropic(
    *deltas: dict[str, Any], stop: str | None = "end_turn", start: dict[str, Any] | None = None, typed: bool = False
) -> bytes:
    """A body of the Messages API with one block: text, or what `start` says; `typed` events name their type before."""
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    block = start or {"type": "text", "text": ""}
    sent: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "usage": {"input_tokens": 9}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
    ]
    if stop is not None:
        sent.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}})
        sent.append({"type": "message_stop"})
    return b"".join(event(value, value["type"] if typed else "") for value in sent)


def read_chat(*deltas: dict[str, Any] | bytes, finish: str | None = "tool_calls", done: bool = True) -> Turn:
    """The turn of `chat` with the same arguments."""
    return read_turn(chat(*deltas, finish=finish, done=done), api="chat")


def shown(turn: Turn) -> list[tuple[str, Any, str]]:
    """Name, arguments and state of each call."""
    return [(call.name, call.arguments, call.state) for call in turn.calls]


def read_deltas(reader: WireReader, body: bytes, cuts: Iterable[int] = ()) -> list[Delta | str]:
    """What the reader makes of the body when it is cut at these places; errors as their text, which compares."""
    places = [0, *sorted(cuts), len(body)]
    deltas = [delta for start, end in pairwise(places) for delta in reader.feed(body[start:end])]
    return [
        f"{type(delta.error).__name__}: {delta.error}" if isinstance(delta, ErrorDelta) else delta
        for delta in (*deltas, *reader.end())
    ]
