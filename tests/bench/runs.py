"""What a whole run costs: `python -m tests.bench.runs [--json]`.

CPU time of this process for one run over HTTP: two turns of 40 chunks each, the first with three calls, the second
with the answer. The server is another process. The other side is the least code that does the same: the bytes of
the `openai` package (`with_streaming_response`, `iter_bytes`), each event parsed by orjson, the tools called, their
results sent. By hand over the package's own objects stands beside it, and other frameworks where they are installed
(`tests/bench/peers`). Memory is the growth of the resident set of a fresh process that holds 1,000 runs at once, each in
the middle of its answer, after its calls.
"""

import asyncio
import gc
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import openai
import orjson

from flowkit import Agent, Delta, Journal, ModelRequest, OpenAIModel, tool
from flowkit.events import TextDelta
from tests.bench.peers.found import AgentPeer, find_agents
from tests.bench.report import Report, compare, wants_json
from tests.bodies import call, calls, chat, chunk
from tests.server import Reply, ScriptedServer, replay

CHUNKS = 40
CALLS = 3
RUNS = 20
"""In one measurement; a single run is too short for the clock."""
HELD = 1_000

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "work",
            "description": "Give the words back.",
            "parameters": {
                "type": "object",
                "properties": {"words": {"type": "string"}},
                "required": ["words"],
            },
        },
    }
]

ASKING = chat(
    *(
        delta
        for index in range(CALLS)
        for delta in (
            calls(call('{"words": "', index=index, id=f"call_{index}", name="work")),
            *(
                calls({"index": index, "function": {"arguments": f"word {number} "}})
                for number in range(CHUNKS // CALLS - 2)
            ),
            calls({"index": index, "function": {"arguments": '"}'}}),
        )
    )
)
ANSWER = chat(*({"content": f"word {number} "} for number in range(CHUNKS)), finish="stop")
MIDDLE = b"".join(chunk({"content": f"word {number} "}) for number in range(CHUNKS // 2))


async def work(words: str) -> str:
    """Give the words back."""
    return words


Ask = Callable[[], Awaitable[object]]


def make_ours(model: OpenAIModel, journal: Journal | None = None) -> Ask:
    """A run of an agent."""
    agent = Agent(model, tools=[tool(effect="read")(work)], cache=False, journal=journal)

    async def ask() -> None:
        result = await agent.run("go")
        assert result.output.endswith(f"word {CHUNKS - 1} ")

    return ask


def make_least(
    client: openai.AsyncOpenAI, model: str, *, second: str | None = None, see: Callable[[str], None] | None = None
) -> Ask:
    """The same by bytes and a parse of each event; `see` is told the text so far after each piece."""

    async def ask() -> None:
        messages: list[Any] = [{"role": "user", "content": "go"}]
        while True:
            found: list[dict[str, Any]] = []
            text, rest = "", b""
            asked = model if second is None or len(messages) == 1 else second
            request = client.chat.completions.with_streaming_response.create(
                model=asked, messages=messages, tools=TOOLS, stream=True
            )
            async with request as response:
                async for data in response.iter_bytes():
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        if not event.startswith(b"data: {"):
                            continue
                        for choice in orjson.loads(event[6:])["choices"]:
                            delta = choice["delta"]
                            text += delta.get("content") or ""
                            for part in delta.get("tool_calls") or ():
                                if part["index"] == len(found):
                                    function = {"name": part["function"]["name"], "arguments": ""}
                                    found.append({"id": part["id"], "type": "function", "function": function})
                                found[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
                    if see is not None:
                        see(text)
            if not found:
                assert text.endswith(f"word {CHUNKS - 1} ")
                return
            results = await asyncio.gather(*(work(**orjson.loads(one["function"]["arguments"])) for one in found))
            messages.append({"role": "assistant", "content": text or None, "tool_calls": found})
            messages += [
                {"role": "tool", "tool_call_id": one["id"], "content": result}
                for one, result in zip(found, results, strict=True)
            ]

    return ask


def make_by_hand(client: openai.AsyncOpenAI, model: str) -> Ask:
    """The same over the package's own objects."""

    async def ask() -> None:
        messages: list[Any] = [{"role": "user", "content": "go"}]
        while True:
            found: list[Any] = []
            text = ""
            stream = await client.chat.completions.create(model=model, messages=messages, tools=TOOLS, stream=True)
            async for piece in stream:
                for choice in piece.choices:
                    text += choice.delta.content or ""
                    for part in choice.delta.tool_calls or ():
                        assert part.function is not None
                        if part.index == len(found):
                            function = {"name": part.function.name, "arguments": ""}
                            found.append({"id": part.id, "type": "function", "function": function})
                        found[part.index]["function"]["arguments"] += part.function.arguments or ""
            if not found:
                return
            results = await asyncio.gather(*(work(**orjson.loads(one["function"]["arguments"])) for one in found))
            messages.append({"role": "assistant", "content": text or None, "tool_calls": found})
            messages += [
                {"role": "tool", "tool_call_id": one["id"], "content": result}
                for one, result in zip(found, results, strict=True)
            ]

    return ask


def bench_cpu(report: Report) -> None:
    """A run against the least code, without and with a journal."""
    peers = find_agents(report)
    script = {
        "at once": [replay(ASKING), replay(ANSWER)],
        "as it streams": [replay(ASKING, pause=0.0004), replay(ANSWER, pause=0.0004)],
        "": [replay(ASKING), replay(ANSWER)],  # the peers' model
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedServer(script, cycle=True) as server,
        asyncio.Runner() as runner,
    ):
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="none")

        def run(ask: Ask) -> Callable[[], None]:
            async def many() -> None:
                for _ in range(RUNS):
                    await ask()

            return lambda: runner.run(many())

        journal = Journal(Path(folder) / "journal.sqlite3")
        for name in filter(None, script):
            model = OpenAIModel(name, base_url=server.base_url, api_key="none")
            ways = [
                run(make_ours(model)),
                run(make_least(client, name)),
                run(make_ours(model, journal)),
                run(make_by_hand(client, name)),
            ]
            for way in ways:
                way()  # opens connections and imports
            ours_s, least_s, kept_s, hand_s = compare(*ways)
            figures = {"ours_ms": _a_run_ms(ours_s), "least_ms": _a_run_ms(least_s)}
            report.row(f"CPU of a run, {name}", ours_s / least_s, 1.08, **figures)
            figures = {"ours_ms": _a_run_ms(kept_s), "least_ms": _a_run_ms(least_s)}
            report.row(f"CPU of a run with a journal, {name}", kept_s / least_s, 1.2, **figures)
            report.row(f"by hand over the package's objects, {name}", hand_s / least_s, None)
        model = OpenAIModel("any", base_url=server.base_url, api_key="none")
        ours = run(make_ours(model))
        for peer, adapter in peers.items():
            theirs = _run_peer(runner, adapter, server.base_url)
            for way in (ours, theirs):
                way()
            ours_s, theirs_s = compare(ours, theirs)
            figures = {"ours_ms": _a_run_ms(ours_s), f"{peer}_ms": _a_run_ms(theirs_s)}
            report.row(f"CPU of a run: {peer}", ours_s / theirs_s, None, **figures)
        runner.run(client.close())
        journal.close()


def _run_peer(runner: asyncio.Runner, peer: AgentPeer, base_url: str) -> Callable[[], None]:
    async def many() -> None:
        async with peer.open_agent(base_url, work) as ask:
            for _ in range(RUNS):
                await ask("go")

    return lambda: runner.run(many())


def bench_memory(report: Report) -> None:
    """What a run holds in the middle of its answer."""
    middle = Reply((MIDDLE, 600.0))
    script = {"first": [replay(ASKING)], "held": [middle], "": [replay(ASKING)]}
    with ScriptedServer(script, cycle=True) as server:
        found = {
            kind: float(
                subprocess.run(
                    [sys.executable, "-m", "tests.bench.runs", "--memory", kind, server.base_url],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for kind in ("ours", "least")
        }
    figures = {f"{kind}_kb": round(size, 1) for kind, size in found.items()}
    report.row(f"memory of {HELD} runs at once", found["ours"] / found["least"], None, **figures)


class _TwoModels:
    """Asks one model for the first turn and another for the second, so that a server may answer each in its way."""

    price = None
    base_url = None
    name = "two"

    def __init__(self, first: OpenAIModel, second: OpenAIModel) -> None:
        self._first, self._second = first, second
        self.source = first.source

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        return (self._first if request.turn == 1 else self._second).stream(request)


async def hold_runs(kind: str, base_url: str) -> None:
    """Print the kilobytes of each run."""
    first, held = (OpenAIModel(name, base_url=base_url, api_key="none") for name in ("first", "held"))
    agent = Agent(_TwoModels(first, held), tools=[tool(effect="read")(work)], cache=False)
    kept: list[object] = []
    arrived = 0
    all_there = asyncio.Event()

    def count(wanted: int) -> None:
        nonlocal arrived
        arrived += 1
        if arrived >= wanted:
            all_there.set()

    async def start(number: int) -> None:
        nonlocal arrived
        arrived = 0
        all_there.clear()
        for _ in range(number):
            if kind == "ours":
                run = agent.start("go")
                run.log.listen(lambda event: count(number) if _is_last(event) else None)
                kept.append(run)
            else:
                kept.append(asyncio.ensure_future(_hold_least(base_url, lambda: count(number))))
        await all_there.wait()

    await start(20)  # code, pools and caches that are there once
    gc.collect()
    before = _resident_kb()
    for _ in range((HELD - 20) // 70):
        await start(70)  # not all at once: a server takes so many connections in a moment, not more
    gc.collect()
    print((_resident_kb() - before) / ((HELD - 20) // 70 * 70), flush=True)
    os._exit(0)  # closing a thousand streams in order only takes time


def _is_last(event: object) -> bool:
    return isinstance(event, TextDelta) and event.text == f"word {CHUNKS // 2 - 1} "


_clients: list[openai.AsyncOpenAI] = []


async def _hold_least(base_url: str, tell: Callable[[], None]) -> None:
    if not _clients:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        client = httpx2.AsyncClient(limits=limits, timeout=900)
        _clients.append(openai.AsyncOpenAI(base_url=base_url, api_key="none", http_client=client))

    def see(text: str) -> None:
        if text.endswith(f"word {CHUNKS // 2 - 1} "):
            tell()

    await make_least(_clients[0], "first", second="held", see=see)()


def _resident_kb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


def _a_run_ms(seconds: float) -> float:
    return round(seconds / RUNS * 1e3, 2)


def main() -> int:
    """Measure, and print what came of it."""
    report = Report("runs", wants_json(sys.argv[1:]))
    bench_cpu(report)
    bench_memory(report)
    report.print()
    return 0 if report.is_met else 1


if __name__ == "__main__":
    if "--memory" in sys.argv:
        asyncio.run(hold_runs(*sys.argv[-2:]))
    sys.exit(main())
