#!/usr/bin/env bash
# Starlette 1.10.0 under uvicorn 0.54.0: a streamed answer whose reader closes the connection.
# Expected by most: the generator is cancelled once, as a task of asyncio is, and its `finally` may await: save the draft,
# release the lock.
# Seen: the first `await` in `finally` is cancelled as well, and so is each one after it; what stands behind them never
# runs. The response runs in anyio's cancel scope, which cancels by level, not by edge.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check starlette==1.10.0 uvicorn==0.54.0 httpx==0.28.1
"$work/venv/bin/python" - <<'PYTHON'
import asyncio

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

seen = []
ended = asyncio.Event()


async def stream():
    try:
        while True:
            yield b"a piece of the answer\n"
            await asyncio.sleep(0.01)
    finally:
        for step in ("save the draft", "release the lock"):
            try:
                await asyncio.sleep(0)
                seen.append(f"{step}: done")
            except asyncio.CancelledError:
                seen.append(f"{step}: cancelled")
        ended.set()


async def answer(request: Request) -> StreamingResponse:
    return StreamingResponse(stream())


async def by_asyncio_alone() -> list[str]:
    done = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            done.append("done")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return done


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/", answer)]), port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", f"http://127.0.0.1:{port}/") as response:
        async for _ in response.aiter_bytes():
            break
    await asyncio.wait_for(ended.wait(), 30)
    server.should_exit = True
    await serving
    print(seen)
    assert seen == ["save the draft: cancelled", "release the lock: cancelled"], seen
    assert await by_asyncio_alone() == ["done"]


asyncio.run(main())
PYTHON
echo "as stated"
