"""Convert a server's bytes to deltas, for every model over HTTP and for recordings.

Rewrite a request when the server refuses its form.

Some refusals concern a form that every such request will have: consecutive messages of one role, or tools together
with a schema for the answer. The request is rewritten in a form that the server accepts, once for each form. What was
learned about a model is kept for the life of the process.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, Protocol

from flowkit.codec import JSON
from flowkit.errors import ModelError, StreamError
from flowkit.models.base import Delta, ErrorDelta, ModelRequest
from flowkit.models.wire.anthropic_answer import AnthropicAnswer
from flowkit.models.wire.call_formats import read_text_calls
from flowkit.models.wire.chat import ChatReader
from flowkit.models.wire.chat_request import build_chat_body
from flowkit.models.wire.reading import WireReader
from flowkit.models.wire.responses import ResponsesReader
from flowkit.models.wire.responses_request import build_responses_body
from flowkit.models.wire.sent_keys import AnswerBytes, mask_error, mask_errors
from flowkit.models.wire.settings import Settings, Timeout

MAX_LEARNED = 1000
"""Of how many models it is remembered; a process asks a few."""

logger = logging.getLogger("flowkit.models")

_ALTERNATE = re.compile(
    r"roles? must (be )?alternat|must alternate between|alternat\w+ (between )?(user|roles?)|consecutive \w+ messages?|"
    r"after the optional system message",
    re.IGNORECASE,
)
_TOOLS = r"\b(tools?|function.?call\w*)\b"
_FORMAT = r"\b(response.?format|response.?schema|response.?mime.?type|json.?schema|json mode|structured output)"
_PAIR = re.compile(f"{_TOOLS}.{{0,80}}{_FORMAT}|{_FORMAT}.{{0,80}}{_TOOLS}", re.IGNORECASE | re.DOTALL)

_learned: dict[str, Settings] = {}


def recall(settings: Settings) -> Settings:
    """Add the rewrites learned for this model to the settings."""
    learned = _learned.get(settings.source)
    return settings if learned is None else _join(settings, learned)


def adapt(settings: Settings, request: ModelRequest, error: ModelError) -> Settings | None:
    """Adapt the settings to a server that refused a request in these words; None when the words don't help."""
    if error.status in (None, 401, 403, 404, 429):
        return None
    said = f"{error} {error.body}"
    if not settings.alternate_roles and _ALTERNATE.search(said):
        return replace(settings, alternate_roles=True)
    has_pair = bool(request.tools) and request.output_schema is not None
    if has_pair and settings.schema_with_tools and _PAIR.search(said):
        return replace(settings, schema_with_tools=False)
    return None


def learn(settings: Settings) -> None:
    """Remember the form in which a server took a request that it had refused in another."""
    logger.info(
        "%s refuses requests as they were made; from now on: alternate_roles=%s, schema_with_tools=%s",
        settings.source,
        settings.alternate_roles,
        settings.schema_with_tools,
    )
    if len(_learned) < MAX_LEARNED:
        _learned[settings.source] = settings


def _join(settings: Settings, learned: Settings) -> Settings:
    return replace(
        settings,
        alternate_roles=settings.alternate_roles or learned.alternate_roles,
        schema_with_tools=settings.schema_with_tools and learned.schema_with_tools,
    )


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
    """Stream the answer of a byte source as deltas; `patience` limits the time without new data."""
    settings = source.settings
    opened = await (_open_anthropic if settings.api == "anthropic" else _open)(source, request, patience)
    async with opened.body:
        try:
            if settings.text_calls and request.tools and request.tool_choice != "none":
                async with aclosing(read_text_calls(opened.deltas, request)) as deltas:
                    yield deltas
            else:
                yield opened.deltas
        finally:
            await opened.deltas.aclose()


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
            short_way = answer.short_way
            async for chunk in chunks:
                deltas = reader.feed(chunk)
                mask_errors(deltas, keys)
                if watch.check(chunk, deltas):
                    await asyncio.sleep(0)
                for delta in deltas:
                    if type(delta) in short_way:
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
    deltas: Sequence[Delta]
    async for chunk in chunks:
        deltas = reader.feed(chunk)
        if watch.check(chunk, deltas):
            await asyncio.sleep(0)
        for delta in deltas:
            if type(delta) is ErrorDelta:
                mask_error(delta.error, keys)
            yield delta
        deltas = ()  # the next chunk may take minutes to come
    deltas = reader.end()
    mask_errors(deltas, keys)
    for delta in deltas:
        yield delta


def _keys_of(chunks: AsyncIterator[bytes]) -> Sequence[str]:
    return chunks.keys if isinstance(chunks, AnswerBytes) else ()


class _Watch:
    """How long a body is, how long it has said nothing, and when others on the event loop should have their turn."""

    __slots__ = ("_clock", "_heard_s", "_patience", "_silence_s", "_size_bytes", "_turn_bytes")

    def __init__(self, patience: Timeout) -> None:
        now = asyncio.get_running_loop().time
        # Asyncio's own clock is this function behind a method; it is asked for every chunk.
        self._clock = time.monotonic if getattr(now, "__func__", None) is asyncio.BaseEventLoop.time else now
        self._patience = patience
        self._silence_s = patience.first_byte
        self._heard_s = self._clock()
        self._size_bytes = 0
        self._turn_bytes = TURN_BYTES

    def check(self, chunk: bytes, deltas: Sequence[Delta]) -> bool:
        """Return True if the event loop should run other tasks: buffered bytes arrive without a pause.

        Raises `StreamError` for a body that is too long, or that continues without content.
        """
        size_bytes = self._size_bytes = self._size_bytes + len(chunk)
        if size_bytes > MAX_BODY_BYTES:
            raise StreamError(f"the answer is longer than {MAX_BODY_BYTES} bytes")
        # Gateways send comments while they wait, which keep a connection's own time-out from ever passing.
        # A local first: Python 3.11 remembers where an attribute is, but looks anew for one that is called at once.
        clock = self._clock
        if deltas:
            self._heard_s = clock()
            self._silence_s = self._patience.between
        elif clock() - self._heard_s > self._silence_s:
            silence = f"the server said nothing for {self._silence_s:g} s but kept the line open"
            raise StreamError(silence, retryable=True)
        if size_bytes < self._turn_bytes:
            return False
        self._turn_bytes = size_bytes + TURN_BYTES
        return True
