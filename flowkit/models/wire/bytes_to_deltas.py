"""From a server's bytes to deltas: what every model over HTTP does, be its bytes fresh or recorded."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol, assert_never

from flowkit.codec import JSON
from flowkit.errors import StreamError
from flowkit.models.base import Delta, ModelRequest
from flowkit.models.wire.chat import ChatReader
from flowkit.models.wire.chat_request import build_chat_body
from flowkit.models.wire.reading import Reader
from flowkit.models.wire.responses import ResponsesReader
from flowkit.models.wire.responses_request import build_responses_body
from flowkit.models.wire.settings import Settings
from flowkit.models.wire.text_calls import read_text_calls
from flowkit.models.wire.thinking import Api

MAX_BODY_BYTES = 512 * 1024 * 1024
"""The longest answer that is read; a model with a runaway loop is stopped long before by its limit of tokens."""


class ByteSource(Protocol):
    """Anything that answers a request's body with the bytes of a stream."""

    @property
    def settings(self) -> Settings: ...

    def open(self, body: Mapping[str, JSON]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The answer's body as it arrives; leaving the context closes it.

        Raises `ModelError` on entering when there is no answer, and `StreamError` while iterating when it breaks off.
        """
        ...


def build_body(request: ModelRequest, settings: Settings) -> dict[str, JSON]:
    """The body of a request in the words of the interface that the settings name."""
    match settings.api:
        case "chat":
            return build_chat_body(request, settings)
        case "responses":
            return build_responses_body(request, settings)
        case _:
            assert_never(settings.api)


@asynccontextmanager
async def stream_deltas(
    source: ByteSource, request: ModelRequest, silence_s: float = math.inf
) -> AsyncGenerator[AsyncGenerator[Delta, None], None]:
    """The answer of a byte source as deltas; `silence_s` is how long a body may go on without saying anything."""
    settings = source.settings
    async with (
        source.open(build_body(request, settings)) as chunks,
        aclosing(_read(chunks, _make_reader(settings.api), silence_s)) as deltas,
    ):
        if settings.text_calls and request.tools and request.tool_choice != "none":
            async with aclosing(read_text_calls(deltas, request)) as told:
                yield told
        else:
            yield deltas


async def _read(chunks: AsyncIterator[bytes], reader: Reader, silence_s: float) -> AsyncGenerator[Delta, None]:
    clock = asyncio.get_running_loop().time
    heard_s = clock()
    size_bytes = 0
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > MAX_BODY_BYTES:
            raise StreamError(f"the answer is longer than {MAX_BODY_BYTES} bytes")
        deltas = reader.feed(chunk)
        # Gateways send comments while they wait, which keep a connection's own time-out from ever passing.
        if deltas:
            heard_s = clock()
        elif clock() - heard_s > silence_s:
            raise StreamError(f"the server said nothing for {silence_s:g} s but kept the line open", retryable=True)
        for delta in deltas:
            yield delta
    for delta in reader.end():
        yield delta


def _make_reader(api: Api) -> Reader:
    match api:
        case "chat":
            return ChatReader()
        case "responses":
            return ResponsesReader()
        case _:
            assert_never(api)
