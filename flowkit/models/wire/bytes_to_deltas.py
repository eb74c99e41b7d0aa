"""From a server's bytes to deltas: what every model over HTTP does, be its bytes fresh or recorded."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Protocol

from flowkit.codec import JSON
from flowkit.errors import ModelError, StreamError
from flowkit.models.base import CallDelta, Delta, ModelRequest, TextDelta, ThinkingDelta
from flowkit.models.wire.adapting import adapt, learn, recall
from flowkit.models.wire.anthropic_answer import AnthropicAnswer
from flowkit.models.wire.chat import ChatReader
from flowkit.models.wire.chat_request import build_chat_body
from flowkit.models.wire.reading import WireReader
from flowkit.models.wire.responses import ResponsesReader
from flowkit.models.wire.responses_request import build_responses_body
from flowkit.models.wire.sent_keys import AnswerBytes, mask_errors
from flowkit.models.wire.settings import Settings, Timeout
from flowkit.models.wire.text_calls import read_text_calls

MAX_BODY_BYTES = 512 * 1024 * 1024
"""The longest answer that is read; a model with a runaway loop is stopped long before by its limit of tokens."""

TURN_BYTES = 32 * 1024
"""How many bytes are read before others on the event loop have their turn; the shortest lines of that take 3 ms."""

FOREVER = Timeout(math.inf, math.inf, math.inf)


class ByteSource(Protocol):
    """Anything that answers a request's body with the bytes of a stream."""

    @property
    def settings(self) -> Settings: ...

    async def make_headers(self, request: ModelRequest) -> Mapping[str, str]:
        """Make the headers that only this request has."""
        ...

    def open(
        self, body: Mapping[str, JSON], headers: Mapping[str, str] = ...
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the answer's body as it arrives; leaving the context closes it.

        Raises `ModelError` on entering when there is no answer, and `StreamError` while iterating when it breaks off.
        """
        ...


@asynccontextmanager
async def stream_deltas(
    source: ByteSource, request: ModelRequest, patience: Timeout = FOREVER
) -> AsyncGenerator[AsyncGenerator[Delta, None], None]:
    """Stream the answer of a byte source as deltas; `patience` limits how long a body may send nothing new."""
    settings = source.settings
    opened = await (_open_anthropic if settings.api == "anthropic" else _open)(source, request, patience)
    async with opened.body, aclosing(opened.deltas) as deltas:
        if settings.text_calls and request.tools and request.tool_choice != "none":
            async with aclosing(read_text_calls(deltas, request)) as deltas:
                yield deltas
        else:
            yield deltas


class _Body:
    """The open body of an answer, closed by the first block that is left.

    It is opened outside of a block, where another request may follow a refusal. An `AsyncExitStack` would do the same and
    take a kilobyte for as long as the answer comes.
    """

    __slots__ = ("_opening", "chunks")

    def __init__(
        self, opening: AbstractAsyncContextManager[AsyncIterator[bytes]], chunks: AsyncIterator[bytes]
    ) -> None:
        self._opening: AbstractAsyncContextManager[AsyncIterator[bytes]] | None = opening
        self.chunks = chunks

    @classmethod
    async def open(cls, source: ByteSource, body: Mapping[str, JSON], headers: Mapping[str, str]) -> "_Body":
        opening = source.open(body, headers)
        return cls(opening, await opening.__aenter__())

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self.chunks

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            await opening.__aexit__(kind, error, traceback)


class _Opened(NamedTuple):
    """A body, and its deltas."""

    body: _Body
    deltas: AsyncGenerator[Delta, None]


async def _open(source: ByteSource, request: ModelRequest, patience: Timeout) -> _Opened:
    settings = known = recall(source.settings)
    is_chat = settings.api == "chat"
    headers = await source.make_headers(request)
    while True:
        body = build_chat_body(request, settings) if is_chat else build_responses_body(request, settings)
        try:
            opened = await _Body.open(source, body, headers)
        except ModelError as error:
            # Each round takes one form out, so they end.
            adapted = adapt(settings, request, error)
            if adapted is None:
                raise
            settings = adapted
        else:
            if settings is not known:
                learn(settings)
            return _Opened(opened, _read(opened.chunks, ChatReader() if is_chat else ResponsesReader(), patience))


async def _open_anthropic(source: ByteSource, request: ModelRequest, patience: Timeout) -> _Opened:
    answer = AnthropicAnswer(source.settings, request)
    headers = await source.make_headers(request)
    try:
        opened = await _Body.open(source, answer.make_body(), headers)
    except ModelError as error:
        body = answer.make_body_without_thinking(error)
        if body is None:
            raise
        opened = await _Body.open(source, body, headers)
    return _Opened(opened, _read_on(source, answer, opened, headers, patience))


async def _read_on(
    source: ByteSource, answer: AnthropicAnswer, opened: _Body, headers: Mapping[str, str], patience: Timeout
) -> AsyncGenerator[Delta, None]:
    """Read the answer across the pauses that the server makes in it."""
    while True:
        async with opened as chunks:
            reader, watch, keys = answer.make_reader(), _Watch(patience), _keys_of(chunks)
            async for chunk in chunks:
                deltas = reader.feed(chunk)
                mask_errors(deltas, keys)
                if watch.check(chunk, deltas):
                    await asyncio.sleep(0)
                for delta in deltas:
                    if type(delta) in _WORDS:  # nearly all: the short way
                        yield delta
                    else:
                        for told in answer.take(delta):
                            yield told
                deltas.clear()  # the next chunk may take minutes to come
            deltas = reader.end()
            mask_errors(deltas, keys)
            for delta in deltas:
                for told in answer.take(delta):
                    yield told
        body = answer.make_next_body()
        if body is None:
            return
        opened = await _Body.open(source, body, headers)


async def _read(chunks: AsyncIterator[bytes], reader: WireReader, patience: Timeout) -> AsyncGenerator[Delta, None]:
    watch, keys = _Watch(patience), _keys_of(chunks)
    async for chunk in chunks:
        deltas = reader.feed(chunk)
        mask_errors(deltas, keys)
        if watch.check(chunk, deltas):
            await asyncio.sleep(0)
        for delta in deltas:
            yield delta
        deltas.clear()  # the next chunk may take minutes to come
    deltas = reader.end()
    mask_errors(deltas, keys)
    for delta in deltas:
        yield delta


def _keys_of(chunks: AsyncIterator[bytes]) -> Sequence[str]:
    return chunks.keys if isinstance(chunks, AnswerBytes) else ()


_WORDS = (TextDelta, CallDelta, ThinkingDelta)


class _Watch:
    """How long a body is, how long it has said nothing, and when others on the event loop should have their turn."""

    __slots__ = ("_clock", "_heard_s", "_patience", "_silence_s", "_size_bytes", "_turn_bytes")

    def __init__(self, patience: Timeout) -> None:
        self._clock = asyncio.get_running_loop().time
        self._patience = patience
        self._silence_s = patience.first_byte
        self._heard_s = self._clock()
        self._size_bytes = 0
        self._turn_bytes = TURN_BYTES

    def check(self, chunk: bytes, deltas: Sequence[Delta]) -> bool:
        """Return whether to let others have their turn: bytes that have arrived already come without a pause.

        Raises `StreamError` for a body that is too long, or goes on without saying anything.
        """
        self._size_bytes += len(chunk)
        if self._size_bytes > MAX_BODY_BYTES:
            raise StreamError(f"the answer is longer than {MAX_BODY_BYTES} bytes")
        # Gateways send comments while they wait, which keep a connection's own time-out from ever passing.
        if deltas:
            self._heard_s = self._clock()
            self._silence_s = self._patience.between
        elif self._clock() - self._heard_s > self._silence_s:
            silence = f"the server said nothing for {self._silence_s:g} s but kept the line open"
            raise StreamError(silence, retryable=True)
        if self._size_bytes < self._turn_bytes:
            return False
        self._turn_bytes = self._size_bytes + TURN_BYTES
        return True
