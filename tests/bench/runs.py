"""What a whole run costs: `python -m tests.bench.runs [--json]`.

CPU time of this process for one run over HTTP: two turns of 40 chunks each, the first with three calls, the second
with the answer. The server is another process. The other side is the least code that does the same: the bytes of
the `openai` package (`with_streaming_response`, `iter_bytes`), each event parsed by orjson, the tools called, their
results sent. With a journal the other side writes, too, what a journal promises for a run of reads: the run before the
model is asked, then each turn with its reads, the last one with the run's end, in as many transactions and with rows of
the same content. By hand over the package's own objects stands beside it, and other frameworks where they are installed
(`tests/bench/peers`). Memory is the growth of the resident set of a fresh process that holds 1,000 runs at once, each in
the middle of its answer, after its calls. Its goal is 0.8 times what a run took before there were guards, budgets and
answers in pieces (commit 70e82eb), which was 1.53 times the least: both builds send the same two requests over the same
versions of the packages, with one connection for each run, and both are watched by a listener, which the least code is
not. What the connection itself takes, and the package's objects around it, is most of the least code's.
"""

import asyncio
import gc
import os
import resource
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from itertools import count
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
Rows = list[tuple[object, ...]]


def make_ours(model: OpenAIModel, journal: Journal | None = None) -> Ask:
    """A run of an agent."""
    agent = Agent(model, tools=[tool(effect="read")(work)], cache=False, journal=journal)

    async def ask() -> None:
        result = await agent.run("go")
        assert result.output.endswith(f"word {CHUNKS - 1} ")

    return ask


def make_least(
    client: openai.AsyncOpenAI,
    model: str,
    *,
    second: str | None = None,
    see: Callable[[str], None] | None = None,
    keep: Callable[[int, Any, Sequence[str]], Awaitable[None]] | None = None,
) -> Ask:
    """The same by bytes and a parse of each event.

    `see` is told the text so far after each piece, and `keep` each turn: its number, message and results.
    """

    async def ask() -> None:
        messages: list[Any] = [{"role": "user", "content": "go"}]
        turn = 0
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
            turn += 1
            if not found:
                assert text.endswith(f"word {CHUNKS - 1} ")
                if keep is not None:
                    await keep(turn, {"role": "assistant", "content": text}, ())
                return
            results = await asyncio.gather(*(work(**orjson.loads(one["function"]["arguments"])) for one in found))
            messages.append({"role": "assistant", "content": text or None, "tool_calls": found})
            if keep is not None:
                await keep(turn, messages[-1], results)
            messages += [
                {"role": "tool", "tool_call_id": one["id"], "content": result}
                for one, result in zip(found, results, strict=True)
            ]

    return ask


def make_least_kept(client: openai.AsyncOpenAI, model: str, path: Path) -> Ask:
    """The same by bytes, with the durable work of a journal in the least code that keeps its promises.

    The loop never waits for the disk. Three transactions, none of which waits for it (a run of reads alone is promised no
    more): the run before the model is asked, a turn with its reads when it has ended, and the last turn with the run's
    end. The rows have the content of ours, the same events among them, pieces of a text joined.
    """
    writer = ThreadPoolExecutor(1)
    disk = writer.submit(open_least_journal, path).result()
    numbers = count(1)

    async def ask() -> None:
        run, seq, began = next(numbers), count(), time.monotonic()
        name = f"run-{secrets.token_hex(8)}"
        loop = asyncio.get_running_loop()
        events: Rows = []

        def tell(kind: str, **fields: object) -> None:
            number = next(seq)
            told = {"type": kind, "run": name, "seq": number, "t": time.monotonic() - began, **fields}
            events.append((run, number, orjson.dumps(told)))

        def write(*statements: tuple[str, Rows]) -> None:
            disk.execute("BEGIN IMMEDIATE")
            for statement, rows in statements:
                disk.executemany(statement, rows)
            disk.execute("COMMIT")

        history: list[Any] = [{"role": "user", "content": "go"}]
        wall = time.time()
        begun: Rows = [
            (run, name, None, None, "agent", orjson.dumps(history), "running", wall, wall, 1, "holder", wall + 15)
        ]
        await loop.run_in_executor(writer, write, (PUT_RUN, begun))
        tell("run.started", name="agent", model=model, message="go", at_wall=wall)

        async def keep(turn: int, message: Any, results: Sequence[str]) -> None:
            """Write a turn, with what its calls found, or with the end of the run."""
            tell("turn.started", turn=turn, model=model, attempt=1)
            nodes: Rows = []
            for index, (asked, result) in enumerate(zip(message.get("tool_calls", ()), results, strict=True)):
                node = f"turn/{turn}/call/{index}"
                arguments = asked["function"]["arguments"]
                tell("call.new", call=node, name="work", parent=None)
                tell("call.arguments", call=node, fragment=arguments)
                tell("call.sealed", call=node, arguments=orjson.loads(arguments), repaired=[])
                tell("call.started", call=node, attempt=1, early=True, effect="read")
                tell("call.finished", call=node, value=result, source="run", age_s=None, ended_s=None)
                nodes.append((run, node, "finished", "read", "work", 1, orjson.dumps(result), time.time(), index))
            if message["content"]:
                tell("text.delta", text=message["content"], turn=turn, call=None, at=0)
            tell("usage", turn=turn, usage={}, cost_usd=None, call=None)
            tell("turn.finished", turn=turn, reason="stop", error=None, model=model)
            statements: list[tuple[str, Rows]] = [(PUT_TURN, [(run, turn, orjson.dumps(message))]), (PUT_NODE, nodes)]
            if not results:
                tell("run.finished", status="done", output=message["content"], error=None, tips=[], notice=None)
                output, messages = orjson.dumps(message["content"]), orjson.dumps([*history, message])
                statements.append((END_RUN, [("done", output, messages, time.time(), run)]))
            statements.append((PUT_EVENT, list(events)))
            events.clear()
            written = loop.run_in_executor(writer, write, *statements)
            if not results:
                await written

        await make_least(client, model, keep=keep)()

    return ask


PUT_RUN = "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)"
END_RUN = "UPDATE run SET status = ?, output = ?, messages = ?, changed = ?, holder = NULL WHERE id = ?"
PUT_TURN = "INSERT OR REPLACE INTO turn VALUES (?, ?, ?)"
PUT_NODE = "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_EVENT = "INSERT OR REPLACE INTO event VALUES (?, ?, ?)"
LEAST_TABLES = """
CREATE TABLE run (id INTEGER PRIMARY KEY, run_id, user, session, name, inputs, status, began, changed, fence, holder,
    until, output, messages);
CREATE TABLE turn (run, turn, message, PRIMARY KEY (run, turn)) WITHOUT ROWID;
CREATE TABLE node (run, node, state, effect, tool, attempt, value, changed, position, PRIMARY KEY (run, node))
    WITHOUT ROWID;
CREATE TABLE event (run, seq, body, PRIMARY KEY (run, seq)) WITHOUT ROWID;
CREATE INDEX run_name ON run (run_id); CREATE INDEX run_user ON run (user);
CREATE INDEX run_session ON run (session, user); CREATE INDEX run_changed ON run (changed);
"""


def open_least_journal(path: Path) -> sqlite3.Connection:
    """Make a file as a journal's is set: a write-ahead log that a crash of the process doesn't harm."""
    disk = sqlite3.connect(path, isolation_level=None)
    disk.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {LEAST_TABLES}")
    return disk


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
                run(make_least_kept(client, name, Path(folder) / f"least {name}.sqlite3")),
                run(make_by_hand(client, name)),
            ]
            for way in ways:
                way()  # opens connections and imports
            ours_s, least_s, kept_s, least_kept_s, hand_s = compare(*ways)
            figures = {"ours_ms": _a_run_ms(ours_s), "least_ms": _a_run_ms(least_s)}
            report.row(f"CPU of a run, {name}", ours_s / least_s, 1.08, **figures)
            figures = {"ours_ms": _a_run_ms(kept_s), "least_ms": _a_run_ms(least_kept_s)}
            report.row(f"CPU of a run with a journal, {name}", kept_s / least_kept_s, 1.2, **figures)
            report.row(f"that, against the least that keeps nothing, {name}", kept_s / least_s, None)
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
    report.row(f"memory of {HELD} runs at once", found["ours"] / found["least"], 0.8 * 1.53, **figures)


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

    def note_arrival(wanted: int) -> None:
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
                run.log.listen(lambda event: note_arrival(number) if _is_last(event) else None)
                kept.append(run)
            else:
                kept.append(asyncio.ensure_future(_hold_least(base_url, lambda: note_arrival(number))))
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
