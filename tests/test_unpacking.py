"""Bytes that arrive, unpack or are skipped: bounded in size, and in how long they hold the event loop."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Agent, Limits, ModelError, OpenAIModel
from flowkit.errors import StreamError
from flowkit.models.wire.sse import MAX_SKIPPED_BYTES, EventDecoder
from flowkit.models.wire.transport import PIECE_BYTES, unpack
from tests.server import Reply, ScriptedServer, chat

PACKED = {"content-type": "text/event-stream", "content-encoding": "gzip"}


async def collect(chunks: Sequence[bytes], *, is_raw: bool = False) -> list[bytes]:
    async def give() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [piece async for piece in unpack(give(), is_raw=is_raw)]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[:9]) + gzip.compress(data[9:])


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "raw": raw_deflate,
    "two": two_members,
}


@given(
    st.binary(max_size=300) | st.integers(0, 200_000).map(bytes),
    st.lists(st.integers(0, 400), max_size=5),
    st.sampled_from(sorted(PACKERS)),
)
def test_for_every_body_and_cut_what_was_packed_comes_back_in_bounded_pieces(
    data: bytes, cuts: list[int], form: str
) -> None:
    packed = PACKERS[form](data)
    places = [0, *sorted(cut for cut in cuts if cut < len(packed)), len(packed)]
    chunks = [packed[start:end] for start, end in pairwise(places)]
    pieces = asyncio.run(collect(chunks, is_raw=form in ("raw", "zlib")))
    assert b"".join(pieces) == data
    assert all(len(piece) <= PIECE_BYTES for piece in pieces)


def test_what_is_not_packed_is_an_error() -> None:
    with pytest.raises(httpx2.DecodingError):
        asyncio.run(collect([b"data: hello\n\n"]))


@pytest.mark.parametrize(
    "line", [b": waiting\n", b"\n", b"\r\n", b":\n\n", b"id: 1\n", b"retry: 5\n\n", b"what: ever\n", b"data:\n\n"]
)
def test_lines_that_say_nothing_are_bounded(line: bytes) -> None:
    def feed_on() -> None:
        decoder = EventDecoder()
        for _ in range(2 * MAX_SKIPPED_BYTES // 10_000):
            decoder.feed(line * (10_000 // len(line) + 1))

    with pytest.raises(StreamError, match="comments and empty lines"):
        feed_on()


def test_lines_between_events_count_anew() -> None:
    decoder = EventDecoder()
    for _ in range(4):
        decoder.feed(b": waiting\n" * (MAX_SKIPPED_BYTES // 60))
        assert len(decoder.feed(b"data: 1\n\n")) == 1


def test_bomb_of_comments_is_refused_and_others_go_on_meanwhile() -> None:
    """60 MB of comments in 60 kB of gzip."""
    packer = zlib.compressobj(9, wbits=31)
    piece = b": still waiting for a free place\n" * 32_000
    bomb = b"".join(packer.compress(piece) for _ in range(60)) + packer.flush()
    beats = 0

    async def go(url: str) -> None:
        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        beating = asyncio.create_task(beat())
        with pytest.raises(ModelError, match="comments and empty lines"):
            await Agent(OpenAIModel("m", base_url=url, api_key="any"), attempts=1, limits=Limits(seconds=60)).run("hi")
        beating.cancel()

    with ScriptedServer([Reply((bomb,), 200, PACKED)]) as server:
        asyncio.run(go(server.base_url))
    assert beats > 5


def test_packed_answer_is_read() -> None:
    body = b"".join(piece for piece in chat("Grüße, ", "서울").pieces if isinstance(piece, bytes))
    with ScriptedServer([Reply((gzip.compress(body),), 200, PACKED)]) as server:
        assert Agent(OpenAIModel("m", base_url=server.base_url, api_key="any")).run_sync("hi").output == "Grüße, 서울"
        assert server.requests[0].headers["accept-encoding"] == "gzip, deflate"
