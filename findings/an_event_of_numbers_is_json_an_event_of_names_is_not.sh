#!/usr/bin/env bash
# sse-starlette 3.7.0: an event whose data is a dict or a list, as one yields it from a stream for a browser.
# Expected by most: what isn't text is sent as JSON, as frameworks for HTTP do with what a handler returns; or refused.
# Seen: it is sent as Python writes it, {'name': 'tea'}, which `JSON.parse` refuses. A list of numbers looks the same in
# both, so a stream that is tried with numbers works until it has its first name, None or True.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check sse-starlette==3.7.0 starlette==1.10.0 httpx==0.28.1
"$work/venv/bin/python" - <<'PYTHON'
import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


async def stream(request: Request) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, Any]]:
        yield {"data": [1, 2.5]}
        yield {"data": {"name": "tea", "in_stock": True, "note": None}}

    return EventSourceResponse(events())


async def main() -> None:
    transport = httpx.ASGITransport(Starlette(routes=[Route("/", stream)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        lines = (await client.get("/")).text.splitlines()
    numbers, names = (line.removeprefix("data: ") for line in lines if line.startswith("data: "))
    print(numbers, names)
    assert json.loads(numbers) == [1, 2.5]
    assert names == "{'name': 'tea', 'in_stock': True, 'note': None}"


asyncio.run(main())
PYTHON
echo "as stated"
