"""How long the event loop stands still: `python -m tests.bench.stalls [--json]`.

A heartbeat of one millisecond runs beside work that was once done on the loop, each in a process of its own, so that
what is done at the first use counts. The figure is the longest time between two beats, by the goal of 10 ms; the limit
is the same heartbeat beside nothing. On a machine that others use, too, the loop also waits for a processor: so the
second figure is what its own thread computed between two beats.
"""

import asyncio
import gzip
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.bench.report import Report, wants_json

GOAL_S = 0.01
BEAT_S = 0.001
ROUNDS = 3
IMPORTED = (
    *(
        "flowkit.agent",
        "flowkit.cache",
        "flowkit.models.openai",
        "flowkit.models.scripted",
        "flowkit.models.wire.transport",
    ),
    *("flowkit.testing", "jsonschema", "diskcache"),
)
"""What a program that serves has imported before its loop begins; an import holds the loop wherever it stands."""


def nothing(given: dict[str, Any]) -> str:
    """Handle a call of a tool that has a schema."""
    return ""


async def rest() -> None:
    """Do nothing: what the machine itself costs."""
    await asyncio.sleep(0.2)


async def open_cache() -> None:
    """Look into a cache for the first time."""
    from flowkit import Agent, DiskCache, ScriptedModel, tool
    from flowkit.testing import call

    @tool(ttl=60)
    async def look(name: str) -> str:
        """Look something up.

        Args:
            name: What to look up.
        """
        return name

    with tempfile.TemporaryDirectory() as folder:
        cache = DiskCache(Path(folder) / "cache")
        agent = Agent(ScriptedModel([[call("look", name="a")], "done"]), tools=[look], cache=cache)
        await agent.run("go")
        await cache.close()


async def load_prices() -> None:
    """Load the table of prices, as the first request of a process does."""
    from flowkit import OpenAIModel
    from flowkit.models.pricing import load_prices as load

    model = OpenAIModel("gpt-4.1-mini", api_key="none")
    await load(model)
    await model.aclose()


async def match_pattern() -> None:
    """Match a foreign pattern that tries many ways, on an argument that almost fits."""
    from flowkit import Tool

    schema: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(a+)+$"}}}
    tool = Tool.from_schema("look", "Look.", schema, nothing, effect="read")
    try:
        await tool.run({"name": "a" * 28 + "!"})
    except Exception:  # noqa: BLE001  # refused, as it should be; only the time counts
        return


async def build_schema() -> None:
    """Build a tool of 9 kB of schema."""
    from flowkit import Tool

    properties = {f"field_{number}": {"type": "string", "description": "x" * 60} for number in range(85)}
    Tool.from_schema("look", "Look.", {"type": "object", "properties": properties}, nothing, effect="read")


async def unpack_comments() -> None:
    """Read a packed answer of 50 MB of comment lines, which is refused."""
    from flowkit import Agent, OpenAIModel

    packed = await asyncio.to_thread(gzip.compress, b": nothing\n" * 5_000_000)
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(packed)
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + packed)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    model = OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    run = Agent(model, attempts=1).start("go")
    await run.wait()
    await model.aclose()
    server.close()


CASES: dict[str, Callable[[], Awaitable[None]]] = {
    "nothing": rest,
    "first look into a cache": open_cache,
    "prices": load_prices,
    "a foreign pattern": match_pattern,
    "a schema of 9 kB": build_schema,
    "50 MB of packed comments": unpack_comments,
}


async def measure(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """The longest time between two beats while the work goes on, in seconds, and the most that the loop computed in one."""
    longest = busiest = 0.0

    async def beat() -> None:
        nonlocal longest, busiest
        last, computed = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(BEAT_S)
            now, spent = time.perf_counter(), time.thread_time()
            longest, busiest = max(longest, now - last - BEAT_S), max(busiest, spent - computed)
            last, computed = now, spent

    heart = asyncio.create_task(beat())
    await asyncio.sleep(10 * BEAT_S)
    longest = busiest = 0.0
    await work()
    await asyncio.sleep(2 * BEAT_S)
    heart.cancel()
    return longest, busiest


def main() -> None:
    """Print the longest stall of each case; with a case's name, measure it in this process."""
    named = [argument for argument in sys.argv[1:] if argument in CASES]
    if named:
        for module in IMPORTED:
            import_module(module)
        print(*asyncio.run(measure(CASES[named[0]])))
        return
    report = Report("stalls", wants_json(sys.argv))
    for case in CASES:
        command = [sys.executable, "-m", "tests.bench.stalls", case]
        rounds = [
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
            for _ in range(ROUNDS)
        ]
        stalls, busy = zip(*((float(longest), float(busiest)) for longest, busiest in rounds), strict=True)
        goal = None if case == "nothing" else 1.0
        figures = {
            "ms": f"{min(stalls) * 1e3:.1f} (at most {max(stalls) * 1e3:.1f})",
            "computing_ms": f"{min(busy) * 1e3:.1f}",
        }
        report.row(case, min(stalls) / GOAL_S, goal, **figures)
    report.print()


if __name__ == "__main__":
    main()
