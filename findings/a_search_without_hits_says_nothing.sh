#!/usr/bin/env bash
# mcp 2.3.0: a tool of a server that returns a list.
# Expected by most: the text that a host passes to its model is the list as JSON; without hits it is [].
# Seen: each item becomes a block of its own, and an empty list no block at all, as None does; a dict is one block of
# JSON. So a host that reads `content` can't tell "no hits" from "no answer", nor ["a, b"] from a text. Only
# `structured_content` has the list, below the key `result`.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mcp==2.3.0
"$work/venv/bin/python" - <<'PYTHON'
import asyncio

from mcp import Client
from mcp.server import MCPServer

server = MCPServer("shop")


@server.tool()
def search(words: str) -> list[str]:
    """Search the products."""
    return ["cup", "plate"] if words == "table" else []


@server.tool()
def count(words: str) -> dict[str, int]:
    """Count the products."""
    return {}


async def main() -> None:
    async with Client(server) as client:
        seen = []
        for name, words in (("search", "table"), ("search", "chair"), ("count", "chair")):
            result = await client.call_tool(name, {"words": words})
            seen.append(([block.text for block in result.content], result.structured_content))
    print(*seen, sep="\n")
    assert seen == [(["cup", "plate"], {"result": ["cup", "plate"]}), ([], {"result": []}), (["{}"], {})], seen


asyncio.run(main())
PYTHON
echo "as stated"
