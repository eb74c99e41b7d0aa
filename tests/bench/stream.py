"""What reading a stream costs: `python -m tests.bench.stream [--json]`.

CPU time of a process that reads from a server in another process, for each streamed chunk. The other side is the least
code: the bytes of the `openai` package (`with_streaming_response`, `iter_bytes`) and a parse of each event by orjson.
The package's own iteration stands beside it, and so do other frameworks where they are installed
(`tests/bench/peers`): one answer of a model by their own streaming, without an agent. For Anthropic's API the objects of
the vendor's package stand beside. Memory is the growth of the
resident set of a fresh process that holds 1,000 streams open in the middle, each with its assembler. A call with a
megabyte of arguments is read in its three hardest shapes, at one size and at four times that: linear is a ratio of 4,
and 5 is met.
"""

import asyncio
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.util import find_spec

import openai
import orjson

from flowkit.assemble import Assembler, CallReady, SealedCall
from flowkit.messages import UserMessage
from flowkit.models.anthropic import AnthropicModel
from flowkit.models.base import Model, ModelRequest
from flowkit.models.openai import OpenAIModel
from flowkit.models.wire.chat import ChatReader
from flowkit.models.wire.responses import ResponsesReader
from tests.bench.peers.found import AgentPeer, find_agents, load_agent
from tests.bench.report import Report, compare, measure, wants_json
from tests.bodies import anthropic, call, calls, chat, chunk
from tests.data_folder import recorded_bodies
from tests.server import Reply, ScriptedServer, replay

CHUNKS = 2_000
STREAMS = 1_000
REQUEST = ModelRequest((UserMessage("go"),))

TEXT = chat(*({"content": f"word {number} "} for number in range(CHUNKS)), finish="stop")
ARGUMENTS = chat(
    calls(call('{"text": "', id="a", name="write")),
    *(calls({"index": 0, "function": {"arguments": f"word {number} "}}) for number in range(CHUNKS)),
    calls(call('"}')),
)
CLAUDE_TEXT = anthropic(*({"type": "text_delta", "text": f"word {number} "} for number in range(CHUNKS)), typed=True)
CLAUDE_ARGUMENTS = anthropic(
    {"type": "input_json_delta", "partial_json": '{"text": "'},
    *({"type": "input_json_delta", "partial_json": f"word {number} "} for number in range(CHUNKS)),
    {"type": "input_json_delta", "partial_json": '"}'},
    start={"type": "tool_use", "id": "a", "name": "write", "input": {}},
    stop="tool_use",
    typed=True,
)
OPEN_STREAM = b"".join(chunk({"content": f"word {number} "}) for number in range(50))


async def read_turn(source: Model) -> None:
    """As a turn reads it: bytes, deltas, parts."""
    assembler = Assembler()
    async with source.stream(REQUEST) as deltas:
        async for delta in deltas:
            assembler.feed(delta)
    assembler.end()
    assert assembler.turn.complete


async def read_ours(base_url: str, model: str) -> None:
    """Read an answer of Chat."""
    await read_turn(OpenAIModel(model, base_url=base_url, api_key="none"))


async def read_bytes(base_url: str, model: str, client: openai.AsyncOpenAI) -> None:
    """The least code."""
    rest = b""
    count = 0
    request = client.chat.completions.with_streaming_response.create(model=model, messages=[], stream=True)
    async with request as response:
        async for data in response.iter_bytes():
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if event.startswith(b"data: {"):
                    count += bool(orjson.loads(event[6:]))
    assert count > CHUNKS


async def read_package(base_url: str, model: str, client: openai.AsyncOpenAI) -> None:
    """The package's own objects."""
    count = 0
    async for _ in await client.chat.completions.create(model=model, messages=[], stream=True):
        count += 1
    assert count > CHUNKS


async def read_claude(base_url: str, model: str) -> None:
    """Read an answer of Anthropic's API."""
    await read_turn(AnthropicModel(model, base_url=base_url, api_key="none"))


async def read_claude_bytes(base_url: str, model: str, client: openai.AsyncOpenAI) -> None:
    """The least code for events that name their type in a line of their own."""
    rest = b""
    count = 0
    request = client.chat.completions.with_streaming_response.create(model=model, messages=[], stream=True)
    async with request as response:
        async for data in response.iter_bytes():
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                count += bool(orjson.loads(event[event.index(b"data: ") + 6 :]))
    assert count > CHUNKS


async def read_claude_package(base_url: str, model: str) -> None:
    """The objects of the `anthropic` package."""
    import anthropic

    count = 0
    async with anthropic.AsyncAnthropic(base_url=base_url.removesuffix("/v1"), api_key="none") as client:
        async for _ in await client.messages.create(model=model, max_tokens=1, messages=[], stream=True):
            count += 1
    assert count > CHUNKS


async def read_peer(_base_url: str, model: str, client: openai.AsyncOpenAI, peer: AgentPeer) -> None:
    """As another framework reads it."""
    count = 0
    async for _ in peer.stream(peer.make_model(client, model)):
        count += 1
    assert count > CHUNKS


def bench_cpu(report: Report) -> None:
    peers = find_agents(report)
    bodies = {"text": TEXT, "arguments": ARGUMENTS}
    script = {name: [replay(body)] for name, body in bodies.items()}
    script |= {f"{name}, paced": [_paced(body)] for name, body in bodies.items()}
    with ScriptedServer(script, cycle=True) as server, asyncio.Runner() as runner:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="none")

        def run(reader: Callable[..., Awaitable[None]], *arguments: object) -> Callable[[], None]:
            async def read() -> None:
                await reader(server.base_url, *arguments)

            return lambda: runner.run(read())

        for name in script:
            ours = run(read_ours, name)
            least = run(read_bytes, name, client)
            package = run(read_package, name, client)
            others = [run(read_peer, name, client, peer) for peer in peers.values()]
            for reads in (ours, *others):
                reads()  # opens connections and imports
            ours_s, least_s, package_s, *others_s = compare(ours, least, package, *others)
            report.row(
                f"CPU for each chunk, {name}",
                ours_s / least_s,
                1.5,
                ours_us=_per_chunk_us(ours_s),
                least_us=_per_chunk_us(least_s),
                package_us=_per_chunk_us(package_s),
            )
            for peer, peer_s in zip(peers, others_s, strict=True):
                figures = {"ours_us": _per_chunk_us(ours_s), f"{peer}_us": _per_chunk_us(peer_s)}
                report.row(f"CPU for each chunk, {name}: {peer}", ours_s / peer_s, None, **figures)
        runner.run(client.close())


def bench_claude_cpu(report: Report) -> None:
    bodies = {"text": CLAUDE_TEXT, "arguments": CLAUDE_ARGUMENTS}
    script = {name: [replay(body)] for name, body in bodies.items()}
    script |= {f"{name}, paced": [_paced(body)] for name, body in bodies.items()}
    has_package = find_spec("anthropic") is not None
    with ScriptedServer(script, cycle=True) as server, asyncio.Runner() as runner:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="none")
        for name in script:
            reads = [
                lambda name=name: runner.run(read_claude(server.base_url, name)),
                lambda name=name: runner.run(read_claude_bytes(server.base_url, name, client)),
            ]
            if has_package:
                reads.append(lambda name=name: runner.run(read_claude_package(server.base_url, name)))
            for read in reads:
                read()  # opens connections and imports
            ours_s, least_s, *package_s = compare(*reads)
            figures = {"ours_us": _per_chunk_us(ours_s), "least_us": _per_chunk_us(least_s)}
            if package_s:
                figures["package_us"] = _per_chunk_us(package_s[0])
            report.row(f"CPU for each chunk, Anthropic, {name}", ours_s / least_s, 1.5, **figures)
        runner.run(client.close())


def _paced(body: bytes) -> Reply:
    """One chunk a write, and time for the reader to take it before the next."""
    return replay(body, pause=0.0005)


def _per_chunk_us(seconds: float) -> float:
    return round(seconds / CHUNKS * 1e6, 1)


def bench_memory(report: Report) -> None:
    peers = find_agents(report)
    with ScriptedServer([Reply((OPEN_STREAM, 600.0))], cycle=True) as server:
        found = {
            kind: float(
                subprocess.run(
                    [sys.executable, "-m", "tests.bench.stream", "--memory", kind, server.base_url],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for kind in ("ours", "bytes", "package", *peers)
        }
    kilobytes = {kind: round(size, 1) for kind, size in found.items()}
    figures = {f"{kind}_kb": kilobytes[kind] for kind in ("ours", "bytes", "package")}
    report.row(f"memory of {STREAMS} open streams, each by 65 KB", found["ours"] / 65, 1.0, **figures)
    for peer in peers:
        figures = {"ours_kb": kilobytes["ours"], f"{peer}_kb": kilobytes[peer]}
        report.row(f"memory of {STREAMS} open streams: {peer}", found["ours"] / found[peer], None, **figures)


async def hold_open(kind: str, base_url: str) -> float:
    """Kilobytes for each open stream."""
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none")
    model = OpenAIModel("any", base_url=base_url, api_key="none")
    kept: list[object] = []

    async def open_one(stack: AsyncExitStack) -> None:
        match kind:
            case "ours":
                assembler = Assembler()
                deltas = await stack.enter_async_context(model.stream(REQUEST))
                for _ in range(50):
                    assembler.feed(await anext(deltas))
                kept.append(assembler)
            case "bytes":
                request = client.chat.completions.with_streaming_response.create(model="any", messages=[], stream=True)
                response = await stack.enter_async_context(request)
                data = response.iter_bytes()
                kept.append((data, await anext(data)))
            case "package":
                stream = await client.chat.completions.create(model="any", messages=[], stream=True)
                kept.append([stream, *[await anext(stream) for _ in range(50)]])
            case _:
                peer = load_agent(kind)
                events = peer.stream(peer.make_model(client, "any"))
                for _ in range(50):
                    await anext(events)
                kept.append(events)

    async with AsyncExitStack() as stack:
        for _ in range(20):  # code, pools and caches that are there once
            await open_one(stack)
        before = _resident_kb()
        for _ in range(STREAMS - 20):
            await open_one(stack)
        grown = _resident_kb() - before
        print(grown / (STREAMS - 20), flush=True)
        os._exit(0)  # closing a thousand streams in order only takes time


def _resident_kb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


def bench_megabyte(report: Report) -> None:
    shapes: dict[str, Callable[[int], list[str]]] = {
        "plain text": lambda size: ['{"x":"', *["word"] * (size // 4), '"}'],
        "a brace ends each fragment": lambda size: ['{"x":"', *["abc}"] * (size // 4), '"}'],
        "an object ends each fragment": lambda size: ['{"x":[{}', *[",{}"] * (size // 3), "]}"],
        "quotes and backslashes": lambda size: ['{"x":"', *['\\"\\\\'] * (size // 4), '"}'],
        "cumulative": lambda size: ['{"x":"', '{"x":"' + "a" * (size // 2), '{"x":"' + "a" * (size // 2) + '"}'],
        "sent twice": lambda size: ['{"x":"', "a" * (size // 2), '"}', '{"x":"' + "a" * (size // 2) + '"}'],
    }
    for shape, make in shapes.items():
        times = [_read_call_s(make(size)) for size in (250_000, 1_000_000)]
        report.row(
            f"a megabyte of arguments: {shape}, by a quarter of it",
            times[1] / times[0],
            5.0,
            megabyte_ms=round(times[1] * 1e3, 1),
        )


def _read_call_s(fragments: list[str]) -> float:
    body = chat(
        calls(call("", id="a", name="write")),
        *(calls({"index": 0, "function": {"arguments": fragment}}) for fragment in fragments),
    )
    pieces = [piece + b"\n\n" for piece in body.split(b"\n\n")]

    def read() -> None:
        reader, assembler = ChatReader(), Assembler()
        for piece in pieces:
            for delta in reader.feed(piece):
                assembler.feed(delta)
        assembler.end()
        assert [made.state for made in assembler.turn.calls] == ["sealed"]

    return min(measure(read) for _ in range(3))


def bench_lead(report: Report) -> None:
    """How many events before its seal a call was ready: what starting early can win, in the recorded bodies."""
    leads: dict[str, list[int]] = {"a turn's only call": [], "the first of several": [], "the last of several": []}
    for body in recorded_bodies("gold", "reviewed", "silver"):
        reader = ChatReader() if body.api == "chat" else ResponsesReader()
        assembler = Assembler()
        ready: dict[int, int] = {}
        sealed: dict[int, int] = {}
        number = 0
        for piece in body.body.splitlines(keepends=True):
            number += not piece.strip()
            for delta in reader.feed(piece):
                for part in assembler.feed(delta):
                    if isinstance(part, CallReady):
                        ready[part.index] = number
                    elif isinstance(part, SealedCall):
                        sealed[part.index] = number
        lead = [sealed[index] - ready[index] for index in sorted(sealed) if index in ready]
        if len(sealed) == 1:
            leads["a turn's only call"] += lead
        elif lead:
            leads["the first of several"].append(lead[0])
            leads["the last of several"].append(lead[-1])
    for case, events in leads.items():
        if events:
            figures = {"calls": len(events), "median": statistics.median(events), "most": max(events)}
            report.row(f"events from ready to sealed, {case}", None, None, **figures)


def main(arguments: list[str]) -> None:
    """Run all, or hold streams open for the part that measures memory."""
    if "--memory" in arguments:
        asyncio.run(hold_open(*arguments[arguments.index("--memory") + 1 :][:2]))
        return
    report = Report("stream", json=wants_json(arguments))
    bench_cpu(report)
    bench_claude_cpu(report)
    bench_memory(report)
    bench_megabyte(report)
    bench_lead(report)
    report.print()


if __name__ == "__main__":
    main(sys.argv[1:])
