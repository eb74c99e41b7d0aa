"""A turn with three calls over real HTTP, against the same done by hand over the openai package.

    python -m tests.bench.turn [--json]

By hand means: read the stream, start each tool when its arguments have closed, send the results, read the answer.
The limit is that program with nothing else in it. `after the stream` is what most programs do: tools when the turn
has ended; so do the other frameworks, which are asked the same where they are installed (`tests/bench/peers`).
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from openai import AsyncOpenAI

from flowkit import Agent, OpenAIModel, tool
from tests.bench.peers.found import AgentPeer, find_agents
from tests.bench.report import Report
from tests.server import Reply, ScriptedServer, ToolCall, chat

ROUNDS = 5
GOAL = 1.02

Way = Callable[[str], Coroutine[Any, Any, float]]
"""Asks the server at an address, and tells the seconds."""


@dataclass(frozen=True)
class Case:
    """A turn: how long each tool takes, and how long the model writes text after its calls."""

    name: str
    tools_s: tuple[float, ...]
    text_after_s: float

    def replies(self) -> list[Reply]:
        calls: list[Any] = ["One moment. "]
        for number, seconds in enumerate(self.tools_s):
            arguments = json.dumps({"number": number, "seconds": seconds})
            calls += [0.15, ToolCall("work", arguments, id=f"call_{number}")]
        text = [piece for _ in range(10) for piece in (self.text_after_s / 10, "text ")] if self.text_after_s else []
        return [chat(*calls, *text), chat(0.05, "All done.")]


CASES = (
    Case("text, three calls, text for 0.5 s", (0.3, 0.3, 0.3), 0.5),
    Case("nothing after the calls", (0.3, 0.3, 0.3), 0.0),
    Case("unequal tools, the slowest first", (0.9, 0.3, 0.1), 0.2),
)


@tool(effect="read")
async def work(number: int, seconds: float) -> str:
    """Work for so many seconds."""
    await asyncio.sleep(seconds)
    return f"done {number}"


async def with_flowkit(base_url: str) -> float:
    """The turn and its answer, by an agent."""
    model = OpenAIModel("any", base_url=base_url, api_key="any")
    agent = Agent(model, tools=[work], cache=False)
    began = time.perf_counter()
    result = await agent.run("go")
    seconds = time.perf_counter() - began
    await model.aclose()
    assert result.output == "All done."
    return seconds


async def with_peer(base_url: str, peer: AgentPeer) -> float:
    """The turn and its answer, by another framework."""
    async with peer.open_agent(base_url, work.function) as ask:
        began = time.perf_counter()
        answer = await ask("go")
        seconds = time.perf_counter() - began
    assert answer == "All done."
    return seconds


async def by_hand(base_url: str, *, early: bool) -> float:
    """The turn and its answer, with as little code as it takes."""
    async with AsyncOpenAI(base_url=base_url, api_key="any") as client:
        messages: list[Any] = [{"role": "user", "content": "go"}]
        parameters = {"type": "object", "properties": {"number": {"type": "integer"}, "seconds": {"type": "number"}}}
        tools: Any = [{"type": "function", "function": {"name": "work", "parameters": parameters}}]
        began = time.perf_counter()
        while True:
            stream: Any = await client.chat.completions.create(model="any", messages=messages, tools=tools, stream=True)
            calls, text = await _read(stream, early)
            if not calls:
                assert text == "All done."
                return time.perf_counter() - began
            asked = [call for call, _ in calls]
            results = await asyncio.gather(*(task for _, task in calls))
            messages.append({"role": "assistant", "content": text, "tool_calls": asked})
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": result}
                for call, result in zip(asked, results, strict=True)
            ]


async def _read(stream: Any, early: bool) -> tuple[list[tuple[dict[str, Any], Awaitable[str]]], str]:
    text = ""
    found: dict[int, dict[str, Any]] = {}
    tasks: dict[int, asyncio.Task[str]] = {}

    def start(index: int) -> None:
        arguments = json.loads(found[index]["function"]["arguments"])
        tasks[index] = asyncio.create_task(_work(**arguments))

    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for part in choice.delta.tool_calls or ():
                call = found.setdefault(
                    part.index, {"id": part.id, "type": "function", "function": {"name": "work", "arguments": ""}}
                )
                call["function"]["arguments"] += part.function.arguments or ""
                if early and call["function"]["arguments"].endswith("}"):
                    start(part.index)
    for index in found.keys() - tasks.keys():
        start(index)
    return [(found[index], tasks[index]) for index in sorted(found)], text


async def _work(number: int, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"done {number}"


def measure(case: Case, ways: Mapping[str, Way]) -> dict[str, float]:
    """The median seconds of each way, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with ScriptedServer(case.replies(), cycle=True) as server:
        for turn in range(ROUNDS + 1):
            for name, way in ways.items():
                seconds = asyncio.run(way(server.base_url))
                if turn:  # the first round warms up
                    taken[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    """Print the table."""
    report = Report("turn", json="--json" in sys.argv)
    peers = find_agents(report)
    ways: dict[str, Way] = {
        "flowkit": with_flowkit,
        "by_hand": partial(by_hand, early=True),
        "after_the_stream": partial(by_hand, early=False),
        **{name: partial(with_peer, peer=peer) for name, peer in peers.items()},
    }
    for case in CASES:
        seconds = measure(case, ways)
        ours = seconds["flowkit"]
        figures = {f"{name}_s": round(seconds[name], 3) for name in ("flowkit", "by_hand", "after_the_stream")}
        report.row(case.name, ours / seconds["by_hand"], GOAL, **figures)
        for name in peers:
            figures = {"flowkit_s": round(ours, 3), f"{name}_s": round(seconds[name], 3)}
            report.row(f"{case.name}: {name}", ours / seconds[name], None, **figures)
    report.print()


if __name__ == "__main__":
    main()
