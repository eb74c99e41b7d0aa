"""Record a real run in a file and replay it: the requests, the bytes of each answer, and their times.

The file is JSON lines: a header with the settings, then one line for each request. It holds no key and no header. A
text that was named as secret is left out of requests, and of answers where one piece holds all of it: a model that says
it again in several pieces isn't seen through. A replay asks no network: it answers a request that is equal to the
recorded one, and fails with the difference when it isn't, since an answer to another question proves nothing.
"""

import asyncio
import base64
import difflib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, cast

from flowkit.codec import JSON, dumps, loads
from flowkit.errors import ConfigurationError, ModelError, StreamTruncated
from flowkit.models.base import Delta, Model, ModelRequest
from flowkit.models.pricing import Price, Priced
from flowkit.models.wire.bytes_to_deltas import ByteSource, stream_deltas
from flowkit.models.wire.sent_keys import SHORTEST_KEY, AnswerBytes
from flowkit.models.wire.settings import NO_HEADERS, PLACEHOLDER_KEY, ModelServer, Settings, plain_url

Compared = Literal["request", "conversation"]
VERSION = 1
HIDDEN = "[hidden]"
_DIFF_LINES = 40
"""How much of a difference an error shows."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer: pieces of the body with the seconds since the request, and how it ended badly.

    With `refused` there was no answer at all; otherwise an error means that the body broke off.
    """

    request: dict[str, JSON]
    pieces: tuple[tuple[float, bytes], ...]
    error: ModelError | None = None
    refused: bool = False

    def to_json(self) -> JSON:
        error = self.error
        return {
            "request": self.request,
            "pieces": [[round(at_s, 6), _pack(data)] for at_s, data in self.pieces],
            "error": None if error is None else _pack_error(error),
            "refused": self.refused,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, JSON]) -> "Exchange":
        pieces = cast(list[tuple[float, JSON]], data["pieces"])
        error = data.get("error")
        return cls(
            request=cast(dict[str, JSON], data["request"]),
            pieces=tuple((at_s, _unpack(packed)) for at_s, packed in pieces),
            error=_unpack_error(error) if isinstance(error, dict) else None,
            refused=bool(data.get("refused")),
        )


class Recordable(Model, Priced, ByteSource, Protocol):
    """A model over HTTP: its bytes pass through one place."""

    @property
    def server(self) -> ModelServer: ...


class Recorder:
    """Record the requests and answers of a model; each answer is appended to the file when it is complete.

    The model's key and each text in `hide` are left out. An existing file is appended to. `about` is written to
    the file's header, for use at replay.
    """

    def __init__(
        self,
        model: Recordable,
        path: str | Path,
        *,
        hide: Iterable[str] = (),
        about: Mapping[str, JSON] | None = None,
    ) -> None:
        self.model = model
        self.path = Path(path)
        self.price = model.price
        self.base_url = model.base_url
        key = model.server.api_key
        is_secret = isinstance(key, str) and key != PLACEHOLDER_KEY and len(key) >= SHORTEST_KEY
        keys = (key,) if isinstance(key, str) and is_secret else ()
        self._hidden = tuple(text for text in (*keys, *hide) if text)
        if not self.path.exists() or not self.path.stat().st_size:
            settings = replace(model.settings, base_url=plain_url(model.settings.base_url))
            header: dict[str, JSON] = {"flowkit_recording": VERSION, "settings": settings.to_json()}
            self._write(header if about is None else {**header, "about": dict(about)})

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def source(self) -> str:
        return self.model.source

    @property
    def settings(self) -> Settings:
        return self.model.settings

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the model's answer, recorded as it passes."""
        return stream_deltas(self, request, self.model.server.timeout)

    async def make_headers(self, request: ModelRequest) -> Mapping[str, str]:
        """Return the model's own headers; they aren't recorded."""
        return await self.model.make_headers(request)

    @asynccontextmanager
    async def open(
        self, body: Mapping[str, JSON], headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncGenerator[AnswerBytes, None]:
        """Open the bytes of the model's answer, recorded as they pass."""
        clock = asyncio.get_running_loop().time
        began = clock()
        pieces: list[tuple[float, bytes]] = []
        error: ModelError | None = None

        async def tee(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
            nonlocal error
            try:
                async for chunk in chunks:
                    pieces.append((clock() - began, chunk))
                    yield chunk
            except ModelError as broken:
                error = broken
                raise

        is_open = False
        try:
            async with self.model.open(body, headers) as chunks:
                is_open = True
                recorded = tee(chunks)
                try:
                    yield AnswerBytes(recorded, chunks.keys if isinstance(chunks, AnswerBytes) else ())
                finally:
                    await recorded.aclose()
        except ModelError as refused:
            if not is_open:
                error = refused
            raise
        finally:
            if is_open or error is not None:
                self._write(Exchange(dict(body), self._hide(pieces), error, refused=not is_open).to_json())

    def _hide(self, pieces: Sequence[tuple[float, bytes]]) -> tuple[tuple[float, bytes], ...]:
        """The pieces without what is hidden; they become one where it was cut by their border."""
        shown = tuple((at_s, _hide(piece, self._hidden)) for at_s, piece in pieces)
        whole = _hide(b"".join(piece for _, piece in pieces), self._hidden)
        return shown if whole == b"".join(piece for _, piece in shown) else ((pieces[-1][0], whole),)

    def _write(self, value: JSON) -> None:
        # One short line for each answer, written at once: a recording of a run that crashed holds what was answered.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(_hide(dumps(value), self._hidden) + b"\n")


class Replayer:
    """Answer from a recording, without network and key; each recorded answer is used once.

    With `timing=True` the bytes arrive with the recorded timing, otherwise immediately. `hide` are the texts that were hidden
    when it was recorded. With `compare="conversation"` a request is the recorded one if the user, the model and the
    tools said the same in it: instructions, and what tools and settings there are, may be others.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        timing: bool = False,
        hide: Iterable[str] = (),
        price: Price | None = None,
        compare: Compared = "request",
    ) -> None:
        self.path = Path(path)
        self.compare: Compared = compare
        self.timing = timing
        self.price = price
        self.settings, exchanges = load_recording(self.path)
        self.base_url: str | None = self.settings.base_url
        self._waiting = list(exchanges)
        self._count = len(exchanges)
        self._hidden = tuple(hide)

    @property
    def name(self) -> str:
        return self.settings.model

    @property
    def source(self) -> str:
        return self.settings.source

    @property
    def unused(self) -> int:
        """The number of recorded answers that no request has used yet."""
        return len(self._waiting)

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the recorded answer to this request.

        Raises `ModelError` with the difference when the request isn't one of those recorded.
        """
        return stream_deltas(self, request)

    async def make_headers(self, request: ModelRequest) -> Mapping[str, str]:
        """Return no headers: no request leaves the process."""
        return NO_HEADERS

    @asynccontextmanager
    async def open(
        self, body: Mapping[str, JSON], headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
        """Open the recorded bytes."""
        exchange = self._take(cast(dict[str, JSON], loads(_hide(dumps(dict(body)), self._hidden))))
        if exchange.refused and exchange.error is not None:
            raise exchange.error
        chunks = self._play(exchange)
        try:
            yield chunks
        finally:
            await chunks.aclose()

    async def _play(self, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        began = clock()
        for at_s, data in exchange.pieces:
            if self.timing:
                await asyncio.sleep(max(0.0, began + at_s - clock()))
            yield data
        if exchange.error is not None:
            raise exchange.error

    def _take(self, body: dict[str, JSON]) -> Exchange:
        """Take the first answer to an equal request; requests may come in another order than they were recorded in."""
        asked = _choose_compared(body, self.compare)
        for exchange in self._waiting:
            if _choose_compared(exchange.request, self.compare) == asked:
                self._waiting.remove(exchange)
                return exchange
        if not self._waiting:
            raise ModelError(
                f"{self.path}: all {self._count} recorded answers have been given, and another was asked for"
            )
        nearest = self._waiting[0]
        raise ModelError(
            f"{self.path}: request {self._count - len(self._waiting) + 1} isn't the one that was recorded:\n"
            + _difference(_choose_compared(nearest.request, self.compare), asked)
        )


def load_recording(path: Path) -> tuple[Settings, tuple[Exchange, ...]]:
    """Load a recording's settings and exchanges.

    Raises `ConfigurationError` when the file can't be read or isn't a recording.
    """
    try:
        lines = [loads(line) for line in path.read_bytes().splitlines() if line]
        header = cast(dict[str, JSON], lines[0])
        if header["flowkit_recording"] != VERSION:
            raise ConfigurationError(
                f"{path}: a recording of version {header['flowkit_recording']}, expected {VERSION}"
            )
        settings = Settings.from_json(cast(dict[str, JSON], header["settings"]))
        return settings, tuple(Exchange.from_json(cast(dict[str, JSON], line)) for line in lines[1:])
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigurationError(f"{path}: not a recording of flowkit") from error


def _hide(data: bytes, hidden: Iterable[str]) -> bytes:
    """Hide these texts in JSON."""
    for text in hidden:
        data = data.replace(dumps(text)[1:-1], HIDDEN.encode())
    return data


def _choose_compared(body: dict[str, JSON], compared: Compared) -> JSON:
    """Choose the parts of a request that have to be equal."""
    if compared == "request":
        return body
    said = body.get("messages", body.get("input"))
    if not isinstance(said, list):
        return said
    instructions = ("system", "developer")
    return [one for one in said if not (isinstance(one, dict) and one.get("role") in instructions)]


def _difference(recorded: JSON, asked: JSON) -> str:
    before, after = (json.dumps(value, indent=1, ensure_ascii=False).splitlines() for value in (recorded, asked))
    lines = list(difflib.unified_diff(before, after, "recorded", "asked", lineterm="", n=2))
    more = [] if len(lines) <= _DIFF_LINES else [f"… {len(lines) - _DIFF_LINES} more lines"]
    return "\n".join([*lines[:_DIFF_LINES], *more])


def _pack(data: bytes) -> JSON:
    """Pack bytes as text where they are text, so that a recording can be read and compared; else as base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _unpack(packed: JSON) -> bytes:
    if isinstance(packed, str):
        return packed.encode()
    assert isinstance(packed, dict)
    return base64.b64decode(str(packed["base64"]))


def _pack_error(error: ModelError) -> JSON:
    return {
        "message": str(error),
        "truncated": isinstance(error, StreamTruncated),
        "status": error.status,
        "retryable": error.retryable,
        "retry_after_s": error.retry_after_s,
    }


def _unpack_error(data: Mapping[str, JSON]) -> ModelError:
    kind = StreamTruncated if data.get("truncated") else ModelError
    status, wait = data.get("status"), data.get("retry_after_s")
    return kind(
        str(data.get("message", "")),
        status=status if isinstance(status, int) else None,
        retryable=bool(data.get("retryable")),
        retry_after_s=float(wait) if isinstance(wait, int | float) else None,
    )
