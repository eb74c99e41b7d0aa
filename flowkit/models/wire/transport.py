"""One request through the `openai` package, and the bytes of its answer.

The package's own stream objects are left aside: iterating them costs ten times as much as the bytes, and they stumble
over what many servers send.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import httpx2
import openai

from flowkit.codec import JSON
from flowkit.errors import ModelError
from flowkit.models.wire.clients import get_client
from flowkit.models.wire.failures import explain_body, explain_break, explain_refusal
from flowkit.models.wire.settings import Server
from flowkit.models.wire.thinking import Api

_PATHS: Mapping[Api, str] = {"chat": "/chat/completions", "responses": "/responses"}
_PAGE_BYTES = 10_000
"""How much of a body that isn't a stream is read to tell what it was."""


@asynccontextmanager
async def open_bytes(
    server: Server, api: Api, model: str, body: Mapping[str, JSON]
) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
    """The body of the server's answer as it arrives.

    Raises `ModelError` on entering when there is none, and `StreamError` while iterating when it breaks off.
    """
    client = await get_client(server)
    try:
        # Not by the typed methods: those walk and convert a body that is ready, and their modules take 12 ms to import.
        answer = cast(
            httpx2.Response,
            await client.post(
                _PATHS[api], body=body, cast_to=httpx2.Response, stream=True, stream_cls=openai.AsyncStream[Any]
            ),
        )
    except openai.OpenAIError as error:
        raise explain_refusal(error, server, model) from error
    try:
        content_type = answer.headers.get("content-type", "")
        async with aclosing(_read(answer, server)) as chunks:
            if "html" in content_type:
                raise explain_body(content_type, await _read_text(chunks), server)
            yield chunks
    finally:
        await answer.aclose()


async def _read(response: httpx2.Response, server: Server) -> AsyncGenerator[bytes, None]:
    # The package lets errors in the middle of a body through as they are.
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise explain_break(error, server) from error


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
