"""One request through a client of the `anthropic` package, which signs it, and the bytes of its answer.

For Bedrock and Vertex: the client knows where a model is there, and whose key it takes. The package is an extra, and is
imported by whoever made the client.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, cast

from flowkit.codec import JSON
from flowkit.models.wire.aws_events import CONTENT_TYPE, AwsEventDecoder
from flowkit.models.wire.sent_keys import AnswerBytes, SentRequest, find_keys
from flowkit.models.wire.settings import ModelServer


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
    """Open the body of the answer as it arrives, as server-sent events whatever the cloud makes of them."""
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
