"""One request through a client of the `anthropic` package, which signs it, and the bytes of its answer.

For Bedrock and Vertex: the client knows a model's address and credentials. The package is an extra, and is
imported by the code that made the client.

Bedrock streams a Claude's answer as the binary event stream of AWS: bytes in, server-sent events out.
Each message is its length, the length of its headers, a checksum of these two, headers, payload, and a checksum of all
of it. The payload of a chunk holds an event of the Messages API in base64.
https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import base64
import struct
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, cast

from flowkit.codec import JSON, dumps, loads
from flowkit.errors import StreamError
from flowkit.models.wire.sent_keys import AnswerBytes, SentRequest, find_keys
from flowkit.models.wire.settings import ModelServer

CONTENT_TYPE = "application/vnd.amazon.eventstream"
MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""The longest message that the format allows."""

_PRELUDE = struct.Struct(">III")
_FIXED_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""How long a header's value is, by its type; types 6 and 7, bytes and text, say it themselves."""

_ERRORS = {"throttlingException": "rate_limit_error", "validationException": "invalid_request_error"}


class AwsEventDecoder:
    """Cuts a body into messages, however its bytes are cut."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Return the server-sent events that these bytes complete.

        Raises `StreamError` for bytes that aren't such a stream, or arrived changed.
        """
        self._rest += chunk
        return b"".join(self._read())

    def _read(self) -> Iterator[bytes]:
        while len(self._rest) >= _PRELUDE.size:
            total, headers, checksum = _PRELUDE.unpack_from(self._rest)
            if zlib.crc32(self._rest[:8]) != checksum or not 16 + headers <= total <= MAX_MESSAGE_BYTES:
                raise StreamError("a message of the AWS event stream is damaged", retryable=True)
            if len(self._rest) < total:
                return
            message = bytes(self._rest[:total])
            del self._rest[:total]
            if zlib.crc32(message[:-4]) != int.from_bytes(message[-4:]):
                raise StreamError("a message of the AWS event stream is damaged", retryable=True)
            split = _PRELUDE.size + headers
            event = _write(_read_headers(message[_PRELUDE.size : split]), message[split:-4])
            if event is not None:
                yield b"data: " + event + b"\n\n"


def _read_headers(data: bytes) -> dict[str, str]:
    """Read the headers that are text."""
    headers: dict[str, str] = {}
    position = 0
    while position < len(data):
        name_end = position + 1 + data[position]
        name, kind = data[position + 1 : name_end].decode(errors="replace"), data[name_end]
        position = name_end + 1
        if kind in (6, 7):
            length = int.from_bytes(data[position : position + 2])
            headers[name] = data[position + 2 : position + 2 + length].decode(errors="replace")
            position += 2 + length
        elif kind in _FIXED_BYTES:
            position += _FIXED_BYTES[kind]
        else:
            raise StreamError(f"a header of the AWS event stream has the unknown type {kind}")
    return headers


def _write(headers: dict[str, str], payload: bytes) -> bytes | None:
    try:
        data = loads(payload) if payload else {}
    except ValueError:
        data = {"message": payload.decode(errors="replace")}
    said = data if isinstance(data, dict) else {}
    if headers.get(":message-type", "event") != "event":
        kind = headers.get(":exception-type") or headers.get(":error-code") or "error"
        message = said.get("message") or headers.get(":error-message") or kind
        return dumps(
            {"type": "error", "error": {"type": _ERRORS.get(kind, "api_error"), "message": f"{kind}: {message}"}}
        )
    packed = said.get("bytes")
    return base64.b64decode(packed) if isinstance(packed, str) else None


class VendorClient(Protocol):
    """`AsyncAnthropicBedrock`, `AsyncAnthropicVertex` and their like."""

    @property
    def base_url(self) -> object: ...

    @property
    def post(self) -> Callable[..., Awaitable[Any]]: ...


@asynccontextmanager
async def open_vendor_bytes(
    client: VendorClient, server: ModelServer, model: str, body: Mapping[str, JSON], headers: Mapping[str, str]
) -> AsyncGenerator[AsyncIterator[bytes], None]:
    """Open the body of the answer as it arrives, as server-sent events for every cloud."""
    import anthropic
    import httpx2
    import openai

    from flowkit.models.wire.failures import explain_refusal
    from flowkit.models.wire.transport import read_bytes

    try:
        response = cast(
            httpx2.Response,
            await client.post(
                "/v1/messages",
                body=dict(body),  # the package takes the model's name out, and puts it into the address
                cast_to=httpx2.Response,
                options={"headers": dict(headers)},
                stream=True,
                stream_cls=anthropic.AsyncStream[Any],
            ),
        )
    except anthropic.APIStatusError as error:
        inner = _unwrap(error.body)
        same = openai.APIStatusError(str(error), response=cast(Any, error.response), body=inner)
        raise explain_refusal(same, server, model) from error
    except anthropic.APITimeoutError as error:
        raise explain_refusal(openai.APITimeoutError(request=cast(Any, error.request)), server, model) from error
    except anthropic.APIConnectionError as error:
        same_connection = openai.APIConnectionError(message=str(error), request=cast(Any, error.request))
        raise explain_refusal(same_connection, server, model) from error
    keys = find_keys([cast(SentRequest, response.request)], server)
    try:
        async with aclosing(read_bytes(response, server, 0.0)) as chunks:
            if CONTENT_TYPE in response.headers.get("content-type", ""):
                async with aclosing(_decode(chunks, AwsEventDecoder())) as events:
                    yield AnswerBytes(events, keys)
            else:
                yield AnswerBytes(chunks, keys)
    finally:
        await response.aclose()


def _unwrap(body: object) -> object:
    """Return the content of a refusal without its envelope, which the `openai` package removes automatically."""
    return cast(dict[str, object], body).get("error", cast(object, body)) if isinstance(body, dict) else body


async def _decode(chunks: AsyncIterator[bytes], decoder: AwsEventDecoder) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        yield decoder.feed(chunk)
