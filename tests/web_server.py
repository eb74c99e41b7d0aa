"""A real server in the test's own event loop, and a client that can be as rude as a test needs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from socket import socket

from starlette.types import ASGIApp

from flowkit import codec
from flowkit.codec import JSON
from flowkit.web.server import BoundedProtocol, bind, make_server
from flowkit.web.serving import WebApp

TOKEN = "0123456789abcdef0123456789abcdef"
RUN = "run-" + "0123456789abcdef" * 2
Headers = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` is whole, but of a stream only what was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def json(self) -> Mapping[str, JSON]:
        value = codec.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def events(self) -> list[Mapping[str, JSON]]:
        """The events of a stream."""
        lines = self.body.decode().split("\n")
        told = [codec.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        return [event for event in told if isinstance(event, dict)]


class Client:
    """Speaks HTTP by hand, since a library wouldn't let it be wrong."""

    def __init__(self, port: int, token: str | None = TOKEN, host: str | None = None) -> None:
        self.port = port
        self.token = token
        self.host = host or f"127.0.0.1:{port}"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def ask(
        self,
        method: str,
        path: str,
        json: Mapping[str, object] | None = None,
        *,
        headers: Headers | None = None,
        body: bytes | None = None,
        lines: Iterable[str] = (),
        until: bytes = b"",
        limit_s: float = 30,
    ) -> Answer:
        """One request and its answer; a header of None is left out, `until` ends the reading of a stream."""
        async with (
            asyncio.timeout(limit_s),
            self.open(method, path, json, headers=headers, body=body, lines=lines) as (
                answer,
                reader,
            ),
        ):
            data = b""
            while not (until and until in data):
                try:
                    piece = await reader.read(2**16)
                except ConnectionResetError:
                    break  # it was refused before all of it was read
                if not piece:
                    break
                data += piece
            is_chunked = answer.headers.get("transfer-encoding") == "chunked"
            return replace(answer, body=_join_chunks(data) if is_chunked else data)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        json: Mapping[str, object] | None = None,
        *,
        headers: Headers | None = None,
        body: bytes | None = None,
        lines: Iterable[str] = (),
    ) -> AsyncGenerator[tuple[Answer, asyncio.StreamReader]]:
        """The head of the answer, and what comes after it; closed on leaving, as by a closed tab."""
        content = codec.dumps(json) if json is not None else body
        chosen: dict[str, str | None] = {"host": self.host, "connection": "close"}
        if self.token is not None:
            chosen["authorization"] = f"Bearer {self.token}"
        if content is not None:
            chosen |= {"content-type": "application/json", "content-length": str(len(content))}
        chosen |= headers or {}
        head = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in chosen.items() if value is not None),
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write("\r\n".join([*head, *lines, "", ""]).encode() + (content or b""))
            yield await _read_head(reader), reader
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _read_head(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    named = (line.partition(":") for line in lines)
    return Answer(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in named})


def _join_chunks(data: bytes) -> bytes:
    joined = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        joined += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return joined


@asynccontextmanager
async def serving(
    app: ASGIApp, aclose: Callable[[], Awaitable[None]] | None = None, listening: socket | None = None
) -> AsyncGenerator[Client]:
    """A client of the app, which is served until the test leaves; `aclose` is called first."""
    listening = listening or bind("127.0.0.1", 0)
    close = app.aclose if isinstance(app, WebApp) else aclose
    assert close is not None
    server = make_server(app, close)
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield Client(listening.getsockname()[1])
    finally:
        server.should_exit = True
        await close()
        await task


class Hasty(BoundedProtocol):
    """The server's protocol with less patience."""

    head_s = 0.2
