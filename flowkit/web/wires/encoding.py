"""Encode a run as a stream of another protocol. The encoder reads the whole log, whichever part is sent."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal

from flowkit import codec
from flowkit.codec import JSON
from flowkit.journal import Journal
from flowkit.web.following import KEEP_ALIVE, KEEP_ALIVE_S, Followed, Follower, follow
from flowkit.web.wires.ag_ui import AGUIEncoder
from flowkit.web.wires.ai_sdk import AISDKEncoder, Version
from flowkit.web.wires.calls import Encoder

Wire = Literal["ai-sdk", "ag-ui"]
HEADERS: Mapping[Wire, Mapping[str, str]] = {"ai-sdk": {"x-vercel-ai-ui-message-stream": "v1"}, "ag-ui": {}}
"""What the response of each wire says beside its type, `text/event-stream`."""
STOPPED = "the server stopped; the run can be resumed"


class EncodedStream(AsyncIterator[bytes]):
    """The bytes of one client's response; owns no task. Frames up to `after` are encoded and dropped."""

    def __init__(self, follower: Follower, encoder: Encoder, *, after: int = -1, last: bytes = b"") -> None:
        self._follower = follower
        self._encoder = encoder
        self._after = after
        self._last: bytes | None = last

    async def __anext__(self) -> bytes:
        while (batch := await self._follower.read()) is not None:
            chunk = b"".join(map(self._write, batch.read()))
            if chunk:
                return chunk
            if batch.last > self._after and not batch.read():
                return KEEP_ALIVE
        last, self._last = self._last, None
        if last is None:
            raise StopAsyncIteration
        # Neither client tells a stream that was cut from one that has ended.
        end = b"".join(map(_write_frame, self._encoder.close(STOPPED))) + last
        if not end:
            raise StopAsyncIteration
        return end

    async def aclose(self) -> None:
        """Send the remaining frames and end; further calls do nothing."""
        self._follower.close()

    def _write(self, event: Mapping[str, JSON]) -> bytes:
        frames = self._encoder.feed(event)
        seq = event.get("seq")
        return b"" if isinstance(seq, int) and seq <= self._after else b"".join(map(_write_frame, frames))


def encode(
    run: Followed,
    wire: Wire,
    *,
    journal: Journal | None = None,
    after: int = -1,
    version: Version = 7,
    thread: str = "",
    run_id: str = "",
    messages: Sequence[Mapping[str, JSON]] = (),
    keep_alive: float = KEEP_ALIVE_S,
) -> EncodedStream:
    """Encode the run in another protocol, for any ASGI response of type `text/event-stream`.

    `ai-sdk` is the UI message stream of `useChat`, of `version` 5, 6 or 7 of the package `ai`; `ag-ui` is AG-UI 1.0,
    with the client's `thread`, `run_id` and `messages`. With a `journal` the log is complete, also of a run that was resumed
    or that another process drives; `after` is the number of the last event whose frames the client has.
    """
    follower = follow(run, journal=journal, keep_alive_s=keep_alive)
    return make_stream(follower, wire, after=after, version=version, thread=thread, run_id=run_id, messages=messages)


def make_stream(
    follower: Follower,
    wire: Wire,
    *,
    after: int = -1,
    version: Version = 7,
    thread: str = "",
    run_id: str = "",
    messages: Sequence[Mapping[str, JSON]] = (),
) -> EncodedStream:
    """Create the stream of a reader that starts at the run's first event."""
    if wire == "ai-sdk":
        return EncodedStream(follower, AISDKEncoder(version), after=after, last=b"data: [DONE]\n\n")
    return EncodedStream(follower, AGUIEncoder(thread, run_id, messages), after=after)


def _write_frame(frame: Mapping[str, JSON]) -> bytes:
    return b"data: " + codec.dumps(frame) + b"\n\n"
