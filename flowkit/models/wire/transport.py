"""One request to a server, and the bytes of its answer.

The `openai` package handles keys, headers, Azure's addresses and errors. Its own requests and stream
objects aren't used. The requests of a turn cost as much CPU as reading the answer; iterating the stream objects costs ten
times as much as reading bytes, and they fail on output of many servers.
"""

import asyncio
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from inspect import isawaitable
from types import TracebackType
from typing import Any, cast

import anyio
import httpx2
import openai

from flowkit.codec import JSON, dumps, loads
from flowkit.errors import ModelError
from flowkit.models.wire.clients import ServerClient, get_client, sending, update_headers
from flowkit.models.wire.failures import explain_body, explain_break, explain_refusal, explain_silence
from flowkit.models.wire.sent_keys import AnswerBytes, find_keys, mask_keys
from flowkit.models.wire.settings import NO_HEADERS, ModelServer
from flowkit.models.wire.thinking import Api

_PATHS: Mapping[Api, str] = {"chat": "/chat/completions", "responses": "/responses", "anthropic": "/messages"}
_PAGE_BYTES = 10_000
"""How much of a body that isn't a stream is read to tell what it was."""


class open_bytes:  # a context manager, named as the functions that make one
    """Open the body of the server's answer as it arrives.

    Raises `ModelError` on entering when there is none, and `StreamError` while iterating when it breaks off.
    """

    # No generator: its frame and what holds it take 400 bytes more for as long as the answer comes.
    __slots__ = ("_answer", "_asked", "_chunks")

    def __init__(
        self,
        server: ModelServer,
        api: Api,
        model: str,
        body: Mapping[str, JSON],
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self._asked = server, api, model, body, headers

    async def __aenter__(self) -> AnswerBytes:
        server, api, model, body, headers = self._asked
        del self._asked  # a whole conversation as objects, which would live for as long as the answer comes
        client = await get_client(server)
        sent = {"Accept-Encoding": ACCEPTED, **await make_auth_headers(server), **headers}
        clock = asyncio.get_running_loop().time
        began_s = clock()
        try:
            with sending(server):
                post = _post if server.api_version is None else _post_to_azure
                answer = await post(client, _PATHS[api], body, sent)
        except openai.OpenAIError as error:
            raise explain_refusal(error, server, model) from error
        self._answer = answer
        self._chunks = read_bytes(answer, server, clock() - began_s)
        try:
            content_type = answer.headers.get("content-type", "")
            keys = find_keys([answer.request, *(past.request for past in answer.history)], server)
            if not server.timeout.is_split:  # else its time-outs are changed while the answer is read
                answer.request = client.sent
            if "html" in content_type:
                raise explain_body(content_type, mask_keys(await _read_text(self._chunks), keys), server)
            return AnswerBytes(self._chunks, keys)
        except BaseException:
            await self._close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        try:
            await self._chunks.aclose()
        finally:
            await self._answer.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of a request, which is let go of once it has been sent.

    httpx holds a request until its answer has been read, which takes minutes, and the codec's bytes are never smaller than
    4 KB. Until then it can be sent again: a server may redirect the request.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data

    def release(self) -> None:
        """Let go of the bytes."""
        self._data = b""


async def _post(
    client: ServerClient, path: str, body: Mapping[str, JSON], sent: Mapping[str, str | openai.Omit]
) -> httpx2.Response:
    """Post a body, and return the answer when its headers have come; raises the package's errors."""
    headers = client.headers.copy()
    update_headers(headers, sent)
    data = dumps(body)
    request = client.http.build_request(
        "POST", client.url_of(path), content=data, headers=headers, timeout=client.package.timeout
    )
    request.stream = sent_body = _Body(data)
    try:
        answer = await client.http.send(request, stream=True)
        if not answer.is_success:
            await answer.aread()
    except httpx2.TimeoutException as error:
        raise openai.APITimeoutError(request=request) from error
    except (httpx2.RequestError, ssl.SSLError, anyio.EndOfStream) as error:  # httpx lets two of its layers' through
        raise openai.APIConnectionError(request=request) from error
    if not answer.is_success:
        raise _refused(answer)
    sent_body.release()
    return answer


def _refused(answer: httpx2.Response) -> openai.APIStatusError:
    try:
        body: object = loads(answer.text)
    except ValueError:
        body = answer.text.strip()
    inner = cast(dict[str, object], body).get("error", cast(object, body)) if isinstance(body, dict) else body
    return openai.APIStatusError(f"Error code: {answer.status_code}", response=answer, body=inner)


async def _post_to_azure(
    client: ServerClient, path: str, body: Mapping[str, JSON], sent: Mapping[str, str | openai.Omit]
) -> httpx2.Response:
    """Post a body as `_post` does, through the package, which knows the address of a deployment."""
    # Not by the typed methods: those walk and convert a body that is ready, and their modules take 12 ms to import.
    answer = await client.package.post(
        path,
        body=body,
        cast_to=httpx2.Response,
        stream=True,
        stream_cls=openai.AsyncStream[Any],
        options={"headers": sent},
    )
    return cast(httpx2.Response, answer)


async def connect(server: ModelServer, model: str) -> None:
    """Open a connection for the next request by listing the server's models; the answer doesn't matter.

    Raises `ModelError` if it can't be reached.
    """
    client = await get_client(server)
    headers = await make_auth_headers(server)
    try:
        with sending(server):
            await client.package.get("/models", cast_to=httpx2.Response, options={"headers": headers})
    except openai.APIStatusError:
        return  # refused, but reached
    except openai.OpenAIError as error:
        raise explain_refusal(error, server, model) from error


async def ask_json(
    server: ModelServer, path: str, model: str, body: Mapping[str, JSON], headers: Mapping[str, str]
) -> Mapping[str, JSON]:
    """Send a request and return the JSON object of the answer; raises `ModelError` if the server refuses."""
    client = await get_client(server)
    sent = {**await make_auth_headers(server), **headers}
    try:
        with sending(server):
            answer = await client.package.post(path, body=body, cast_to=httpx2.Response, options={"headers": sent})
    except openai.OpenAIError as error:
        raise explain_refusal(error, server, model) from error
    try:
        data = loads(answer.content)
    except ValueError as error:
        raise ModelError(f"{path} answered with something that isn't JSON", body=answer.text) from error
    return data if isinstance(data, dict) else {}


async def make_auth_headers(server: ModelServer) -> dict[str, str | openai.Omit]:
    """Make the headers that carry the key, where the client doesn't send it automatically."""
    key = server.api_key
    if isinstance(key, str):
        return {} if server.auth == "bearer" else {"Authorization": openai.Omit(), server.auth: key}
    try:
        found = key()
        if isawaitable(found):
            found = await found
    except ModelError:
        raise
    except Exception as error:  # the user's function
        raise ModelError(f"api_key= raised {type(error).__name__}: {error}", retryable=True) from error
    if server.api_version is not None:
        return {"api-key": found}
    return (
        {"Authorization": f"Bearer {found}"}
        if server.auth == "bearer"
        else {
            "Authorization": openai.Omit(),
            server.auth: found,
        }
    )


async def read_bytes(response: httpx2.Response, server: ModelServer, taken_s: float) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of an answer; `taken_s` is the time until its headers arrived."""
    # The package lets errors in the middle of a body through as they are.
    try:
        if not server.timeout.is_split:
            async for chunk in read_pieces(response):
                yield chunk
            return
        async with aclosing(_read_by_the_clock(response, server, taken_s)) as chunks:
            async for chunk in chunks:
                yield chunk
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise explain_break(error, server) from error


async def _read_by_the_clock(
    response: httpx2.Response, server: ModelServer, taken_s: float
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes with a separate timeout for the first; httpx has one for all of them."""
    times = server.timeout
    known: object = response.request.extensions.get("timeout")
    if isinstance(known, dict):
        cast(dict[str, float], known)["read"] = max(times.first_byte, times.between)
    # A request that was repeated has taken longer than its last attempt.
    patience_s = times.first_byte - taken_s if taken_s < times.first_byte else times.first_byte
    chunks = read_pieces(response)
    while True:
        try:
            async with asyncio.timeout(patience_s):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise explain_silence(server, is_first=patience_s != times.between) from None
        if chunk is None:
            return
        patience_s = times.between
        yield chunk


async def _read_text(chunks: AsyncGenerator[bytes, None]) -> str:
    head = b""
    try:
        async for chunk in chunks:
            head += chunk
            if len(head) >= _PAGE_BYTES:
                break
    except ModelError:
        pass  # what came before the break tells enough
    return head[:_PAGE_BYTES].decode(errors="replace")


PIECE_BYTES = 16 * 1024
"""The longest piece that is given at once; reading one takes about a millisecond, whatever is in it."""

ACCEPTED = "gzip, deflate"
"""What is asked for: those that can be unpacked in pieces."""

_EITHER = 32 + zlib.MAX_WBITS
"""The header tells whether it is gzip or zlib."""


def read_pieces(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield the decompressed body, in pieces of bounded length.

    Raises `DecodingError` if the body doesn't match its headers.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):
        return unpack(response.aiter_raw(), is_raw=encoding == "deflate")
    # The package's own reader asks a decoder for each chunk, also where nothing was packed.
    return response.aiter_raw() if encoding in ("", "identity") else response.aiter_bytes()


async def unpack(chunks: AsyncIterator[bytes], *, is_raw: bool = False) -> AsyncGenerator[bytes, None]:
    """Decompress chunks of gzip or zlib; with `is_raw` the header may be missing, as with some servers.

    A few bytes of gzip may hold a thousand times as many, and who unpacks them at one go holds the event loop, and the
    memory, for as long as that takes.
    """
    unpacker = zlib.decompressobj(_EITHER)
    is_begun = False
    head = b""  # two bytes tell what it is
    try:
        async for chunk in chunks:
            data = head + chunk
            if len(data) < 2 and not is_begun:
                head = data
                continue
            head = b""
            while data:
                try:
                    piece = unpacker.decompress(data, PIECE_BYTES)
                except zlib.error:
                    if is_begun or not is_raw:
                        raise
                    is_raw, unpacker = False, zlib.decompressobj(-zlib.MAX_WBITS)
                    continue
                is_begun = True
                while piece:
                    yield piece
                    piece = unpacker.decompress(unpacker.unconsumed_tail, PIECE_BYTES)
                data = unpacker.unused_data
                if unpacker.eof:
                    unpacker = zlib.decompressobj(_EITHER)  # another member may follow
    except zlib.error as error:
        raise httpx2.DecodingError(str(error)) from error
