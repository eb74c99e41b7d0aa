"""What a call of an MCP tool costs beyond the bare client's: `python -m tests.bench.mcp [--json]`.

The server is the raw one of the tests, a process of its own without any package, so that what is measured is the
client's side. Calls are measured in processor time of this process, by turns, so that neither a busy machine nor the
server's own time counts; both would bring the ratios nearer to 1.

The goal is about what an agent pays for a tool that is on an MCP server: its runs, less the same runs with a local
tool, beside the bare client's calls. A tool's own `run` is beside it: a call without any agent. What a run's graph and
an agent's turns cost on top, for every tool, is shown without a goal.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters

from flowkit import Agent, Context, Executor, Limits, MCPTools, ScriptedModel, Tool, ToolCall
from flowkit.models.scripted import call
from flowkit.tools.toolsets import Toolset
from tests.bench.report import Report, wants_json

CALLS = 96
WIDTH = 8
"""Calls at once."""
WAIT_S = 0.0005
PEERS = ("pydantic_ai", "openai_agents")
ROUNDS = 7
SERVERS = 5
STARTS_AFTER_S = 1.0
SERVER = Path(__file__).parent.parent / "mcp_raw_server.py"
TOOL: dict[str, Any] = {
    "name": "echo",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def write_config(folder: Path, **odd: Any) -> list[str]:
    """The arguments of a server with one tool."""
    config = folder / "server.json"
    config.write_text(json.dumps({"pages": [[TOOL]], **odd}))
    return [str(SERVER), str(config)]


async def measure_calls(report: Report, folder: Path) -> None:
    """Calls one after another, and eight at once: by a run's graph, and by the client that it stands on."""
    arguments = write_config(folder)
    parameters = StdioServerParameters(command=sys.executable, args=arguments)
    tools = MCPTools.stdio(sys.executable, *arguments, name="raw", effects={"*": "read"}, mode="legacy")
    async with Client(parameters, mode="legacy") as client, tools:
        listed = await tools.tools.current(Context(None))

        async def bare_one() -> None:
            for number in range(CALLS):
                await call_bare(client, number)

        async def bare_eight() -> None:
            for first in range(0, CALLS, WIDTH):
                await asyncio.gather(*(call_bare(client, number) for number in range(first, first + WIDTH)))

        echo = next(iter(listed))

        async def run_alone() -> None:
            for number in range(CALLS):
                await echo.run({"text": str(number)}, context=Context(None))

        async def run(width: int) -> None:
            async with Executor(listed, cache=False) as graph:
                for first in range(0, CALLS, width):
                    names = [f"c{number}" for number in range(first, first + width)]
                    for name in names:
                        graph.add(ToolCall(name, "raw_echo", {"text": name}))
                    await graph.wait(*names)

        await measure_agent(report, client, tools)
        for case, bare, ours, goal in (
            ("an MCP call by its tool's `run`, without an agent / the bare client's", bare_one, run_alone, 1.15),
            ("calls one after another in a run's graph / by the bare client", bare_one, lambda: run(1), None),
            ("calls eight at once in a run's graph / by the bare client", bare_eight, lambda: run(WIDTH), None),
        ):
            theirs_s, ours_s = await compare(bare, ours, clock=time.process_time)
            each = {"ms_bare": round(theirs_s / CALLS * 1e3, 3), "ms_ours": round(ours_s / CALLS * 1e3, 3)}
            report.row(case, ours_s / theirs_s, goal, **each)
        await measure_peers(report, tools, arguments)
        await measure_quiet_turn(report, tools.tools)


def list_turns() -> list[list[Any]]:
    """The calls of a scripted model, eight a turn."""
    return [[call("raw_echo", text=str(n)) for n in range(first, first + WIDTH)] for first in range(0, CALLS, WIDTH)]


async def run_agent(used: Tool[..., Any] | Toolset) -> None:
    """Run an agent whose model makes all the calls."""
    turns = list_turns()
    limits = Limits(turns=len(turns) + 1, calls=CALLS)
    agent = Agent(ScriptedModel([*turns, "done"]), tools=[used], cache=False, limits=limits)
    assert (await agent.run("go")).status == "done"


async def measure_agent(report: Report, client: Client, tools: MCPTools) -> None:
    """Runs of an agent, less the same runs with a function of this process that waits instead of the server."""

    async def give(arguments: dict[str, Any]) -> str:
        await asyncio.sleep(WAIT_S)  # as what answers from elsewhere: each call ends for itself
        return arguments["text"]

    local = Tool.from_schema("raw_echo", "Say it back.", TOOL["inputSchema"], give, effect="read", timeout=None)

    async def bare() -> None:
        for turn in list_turns():
            await asyncio.gather(*(call_bare(client, number) for number in range(len(turn))))

    bare_s, local_s, ours_s = await compare(
        bare, lambda: run_agent(local), lambda: run_agent(tools.tools), rounds=ROUNDS * 2, clock=time.process_time
    )
    each = {"ms_bare": round(bare_s / CALLS * 1e3, 3), "ms_more": round((ours_s - local_s) / CALLS * 1e3, 3)}
    report.row(
        "an MCP call by an agent, beyond what a local tool takes / the bare client's",
        (ours_s - local_s) / bare_s,
        1.15,
        **each,
    )
    each = {"ms_agent": round(ours_s / CALLS * 1e3, 3), "ms_local": round(local_s / CALLS * 1e3, 3)}
    report.row("an agent's calls and turns / the bare client's calls", ours_s / bare_s, None, **each)


async def measure_peers(report: Report, tools: MCPTools, arguments: Sequence[str]) -> None:
    """The same agent in other frameworks."""
    turns = len(list_turns())
    for name in PEERS:
        try:
            peer = import_module(f"tests.bench.peers.mcp_with_{name}")
        except ImportError as error:
            report.note(f"{name} is left out: {error}")
            continue
        async with peer.open_mcp_agent(sys.executable, arguments) as ask:
            theirs_s, ours_s = await compare(
                lambda ask=ask: ask(turns, WIDTH), lambda: run_agent(tools.tools), clock=time.process_time
            )
        each = {"ms_peer": round(theirs_s / CALLS * 1e3, 3), "ms_agent": round(ours_s / CALLS * 1e3, 3)}
        report.row(f"an agent's calls and turns / {name}'s", ours_s / theirs_s, 1.0, **each)


async def call_bare(client: Client, number: int) -> None:
    """Call the tool as flowkit does: with a time-out, and with somebody who hears of progress."""
    await client.call_tool("echo", {"text": str(number)}, read_timeout_seconds=60, progress_callback=hear)


async def hear(progress: float, total: float | None, message: str | None) -> None:
    """Take progress."""


async def measure_quiet_turn(report: Report, tools: Toolset) -> None:
    """What is done before a turn when nothing changed."""
    context = Context[Any](None)
    first = await tools.current(context)
    began = time.perf_counter()
    for _ in range(1000):
        assert await tools.current(context) is first
    report.row("before a turn when nothing changed", None, us=round((time.perf_counter() - began) * 1e3, 1))


async def measure_connecting(report: Report, folder: Path) -> None:
    """Five servers that each take a second to be ready, and one of them."""
    arguments = write_config(folder, starts_after_s=STARTS_AFTER_S)

    async def connect(count: int) -> None:
        servers = [
            MCPTools.stdio(sys.executable, *arguments, name=f"s{n}", mode="legacy", prefix=f"s{n}_")
            for n in range(count)
        ]
        tools = Toolset(*(server.tools for server in servers))
        context = Context[Any](None, run_id="bench")
        async with tools.opened(context):
            assert len(await tools.current(context)) == count

    one_s, five_s = await compare(lambda: connect(1), lambda: connect(SERVERS), rounds=3)
    report.row(
        f"connecting {SERVERS} servers / connecting one",
        five_s / one_s,
        2.0,
        s_one=round(one_s, 2),
        s_all=round(five_s, 2),
    )


async def compare(
    *runs: Callable[[], Awaitable[None]], rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the median time of each in seconds, by turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for taken, run in zip(times, runs, strict=True):
            began = clock()
            await run()
            taken.append(clock() - began)
    return [statistics.median(taken) for taken in times]


def main() -> int:
    """Measure, and print what came of it."""
    report = Report("mcp", wants_json(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure_calls(report, Path(folder)))
        asyncio.run(measure_connecting(report, Path(folder)))
    report.print()
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
