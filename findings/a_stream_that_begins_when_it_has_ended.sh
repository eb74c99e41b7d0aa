#!/usr/bin/env bash
# httpx 0.28.1: a streamed answer of an application, read by `ASGITransport`, by which most tests of such applications run.
# Expected by most: `client.stream` gives the first piece while the application still writes, as it does over a socket.
# Seen: the application has ended before the response begins, and its pieces come as one. So no test over it sees whether
# an answer streams at all, what its first word takes, or what the application does when its reader leaves.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check httpx==0.28.1 starlette==1.10.0 uvicorn==0.54.0
"$work/venv/bin/python" - <<'PYTHON'
import asyncio
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

read = asyncio.Event()
log: list[str] = []


async def pieces() -> AsyncIterator[str]:
    yield "It is "
    try:
        async with asyncio.timeout(WAIT):
            await read.wait()
    except TimeoutError:
        pass
    log.append("written")
    yield "on its way."


def answer(request: Request) -> StreamingResponse:
    return StreamingResponse(pieces())


async def follow(client: httpx.AsyncClient) -> list[str]:
    log.clear()
    read.clear()
    async with client, client.stream("GET", "/") as response:
        async for piece in response.aiter_raw():
            log.append(f"read {piece.decode()!r}")
            read.set()
    return list(log)


async def main() -> None:
    global WAIT
    app = Starlette(routes=[Route("/", answer)])
    WAIT = 0.01
    inside = await follow(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop"))
    WAIT = 30
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    config = server.config
    sock = config.bind_socket()
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    outside = await follow(httpx.AsyncClient(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}"))
    server.should_exit = True
    await serving
    print(inside, outside)
    assert inside == ["written", "read 'It is on its way.'"], inside
    assert outside == ["read 'It is '", "written", "read 'on its way.'"], outside


asyncio.run(main())
PYTHON
echo "as stated"
