#!/usr/bin/env bash
# mcp 2.3.0: a tool with an optional text, `note: str | None = None`, that is called with a text that happens to be JSON.
# Expected by most: a JSON string for a parameter of type string arrives as that string, whatever stands in it, as it does
# for `note: str`.
# Seen: it is parsed first. '["tea"]' becomes a list and is refused as no string, "null" becomes None without a word, and
# "12" stays text. So a tool that keeps notes, code or messages fails on some of them, and only where the parameter is
# optional. The parsing is meant for models that write an object as text.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mcp==2.3.0
"$work/venv/bin/python" - <<'PYTHON'
import asyncio
from typing import Any

from mcp.server import MCPServer

server = MCPServer("notes")


@server.tool()
def keep(note: str | None = None, title: str = "") -> str:
    return repr((note, title))


async def ask(**arguments: Any) -> str:
    try:
        return (await server.call_tool("keep", arguments)).content[0].text
    except Exception as error:
        return "refused" if "Input should be a valid string" in str(error) else repr(error)


async def main() -> None:
    seen = {text: (await ask(note=text), await ask(title=text)) for text in ('["tea"]', '{"a": 1}', "null", "12", "tea")}
    for text, outcome in seen.items():
        print(text, outcome)
    assert [seen[text][0] for text in seen] == ["refused", "refused", "(None, '')", "('12', '')", "('tea', '')"]
    assert [seen[text][1] for text in seen] == [repr((None, text)) for text in seen]


asyncio.run(main())
PYTHON
echo "as stated"
