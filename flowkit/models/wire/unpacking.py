"""The bytes of a body, unpacked a piece at a time.

A few bytes of gzip may hold a thousand times as many, and who unpacks them at one go holds the event loop, and the
memory, for as long as that takes.
"""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator

import httpx2

PIECE_BYTES = 16 * 1024
"""The longest piece that is given at once; reading one takes about a millisecond, whatever is in it."""

ACCEPTED = "gzip, deflate"
"""What is asked for: those that can be unpacked in pieces."""

_EITHER = 32 + zlib.MAX_WBITS
"""The header tells whether it is gzip or zlib."""


def read_pieces(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield the unpacked body, in pieces of bounded length where it was packed.

    Raises `DecodingError` when it isn't what its headers say.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):
        return unpack(response.aiter_raw(), is_raw=encoding == "deflate")
    # The package's own reader asks a decoder for each chunk, also where nothing was packed.
    return response.aiter_raw() if encoding in ("", "identity") else response.aiter_bytes()


async def unpack(chunks: AsyncIterator[bytes], *, is_raw: bool = False) -> AsyncGenerator[bytes, None]:
    """Unpack chunks of gzip or zlib; with `is_raw` the header may be missing, as some servers send it."""
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
