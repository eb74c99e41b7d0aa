"""Claude on Bedrock and Vertex, through clients of the vendor's package, and the binary stream of AWS."""

import asyncio
import base64
import json
import struct
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Agent, AgentResult, AnthropicModel, ConfigurationError, ModelError
from flowkit.errors import StreamError
from flowkit.messages import UserMessage
from flowkit.models.base import ModelRequest
from flowkit.models.wire.vendor_clients import CONTENT_TYPE, AwsEventDecoder
from tests.bodies import anthropic
from tests.extra_packages import NEEDS_ALL
from tests.server import Reply, ScriptedServer, replay

SAYS = anthropic({"type": "text_delta", "text": "Hello"}, {"type": "text_delta", "text": " there"})


def pack(payload: bytes, **headers: str) -> bytes:
    """A message of the AWS event stream."""
    written = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in ((f":{name.replace('_', '-')}", value) for name, value in headers.items())
    )
    prelude = struct.pack(">II", 16 + len(written) + len(payload), len(written))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + written + payload
    return message + struct.pack(">I", zlib.crc32(message))


def pack_body(body: bytes) -> bytes:
    """A body of the Messages API as Bedrock streams it."""
    events = [piece.removeprefix(b"data: ") for piece in body.split(b"\n\n") if piece]
    chunks = [json.dumps({"bytes": base64.b64encode(event).decode(), "p": "abcd"}).encode() for event in events]
    return b"".join(pack(chunk, message_type="event", event_type="chunk") for chunk in chunks)


@given(st.lists(st.integers(0, len(pack_body(SAYS))), max_size=20))
def test_for_every_cut_the_binary_stream_gives_the_same_events(cuts: list[int]) -> None:
    body, decoder = pack_body(SAYS), AwsEventDecoder()
    places = [0, *sorted(cuts), len(body)]
    events = b"".join(decoder.feed(body[start:end]) for start, end in pairwise(places))
    assert events == SAYS


@given(st.integers(0, len(pack_body(SAYS)) - 1))
def test_for_every_changed_byte_the_damage_is_seen(position: int) -> None:
    damaged = bytearray(pack_body(SAYS))
    damaged[position] ^= 0x55
    decoder = AwsEventDecoder()
    with pytest.raises(StreamError, match="damaged"):
        decoder.feed(bytes(damaged))


def test_a_fault_in_the_binary_stream_is_an_error_event() -> None:
    fault = pack(b'{"message": "Too many"}', message_type="exception", exception_type="throttlingException")
    event = json.loads(AwsEventDecoder().feed(fault).removeprefix(b"data: "))
    assert event["error"] == {"type": "rate_limit_error", "message": "throttlingException: Too many"}


def ask_bedrock(server: ScriptedServer, name: str) -> AgentResult[str]:
    package = pytest.importorskip("anthropic", reason=NEEDS_ALL)

    async def run() -> AgentResult[str]:
        address = server.base_url.removesuffix("/v1")
        async with package.AsyncAnthropicBedrock(
            aws_region="us-east-1", api_key="bedrock-key", base_url=address, max_retries=0
        ) as client:
            model = AnthropicModel(name, client=client, max_retries=0)
            with pytest.raises(ConfigurationError, match="count_tokens"):
                await model.count_tokens(ModelRequest((UserMessage("Hi"),)))
            return await Agent(model, instructions="Be brief.", attempts=1).run("Hi")

    return asyncio.run(run())


@pytest.mark.slow
def test_bedrock_answers_through_the_vendors_client() -> None:
    stream = Reply((pack_body(SAYS),), headers={"content-type": CONTENT_TYPE})
    with ScriptedServer([stream]) as server:
        result = ask_bedrock(server, "us.anthropic.claude-sonnet-4-5-20250929-v1:0")
        [request] = server.requests
    assert result.output == "Hello there"
    assert request.path.endswith("/invoke-with-response-stream")
    assert "claude-sonnet-4-5" in request.path
    assert "anthropic_version" in request.body
    assert request.body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert "model" not in request.body


@pytest.mark.parametrize(
    ("status", "words"), [(400, r"refused the request \(400\): No such"), (429, r"too many requests \(429\): No such")]
)
@pytest.mark.slow
def test_what_a_cloud_refuses_is_told_as_elsewhere(status: int, words: str) -> None:
    refusal = Reply((b'{"message": "No such"}',), status, {"content-type": "application/json"})
    with ScriptedServer([refusal]) as server, pytest.raises(ModelError, match=words) as caught:
        ask_bedrock(server, "anthropic.claude-sonnet-5")
    assert caught.value.status == status


@pytest.mark.slow
def test_bedrocks_newer_address_takes_a_bearer_key() -> None:
    with ScriptedServer([replay(SAYS)]) as server:
        model = AnthropicModel("anthropic.claude-sonnet-5", base_url=server.base_url, api_key="k", auth="bearer")
        assert Agent(model).run_sync("Hi").output == "Hello there"
        headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer k"
    assert "x-api-key" not in headers
    address = "https://bedrock-mantle.us-east-1.api.aws/anthropic"
    assert AnthropicModel("anthropic.claude-sonnet-5", base_url=address, api_key="k").server.auth == "bearer"
