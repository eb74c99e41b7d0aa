"""What `import flowkit` costs over a bare interpreter, against importing pydantic and making one model class.

    python -m tests.bench.imports [--json]

Imports that wait until they are used come due later, so a whole program is measured as well: one question to a server,
streamed, against the same with the `openai` package alone. Other frameworks do it too, where they are installed
(`tests/bench/peers`). CPU time, of fresh interpreters. The server is on this machine, so the table of prices isn't
loaded; for a server elsewhere, with the extra `prices`, that is 20 ms more.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping

from tests.bench.peers.found import find_agents
from tests.bench.report import Report
from tests.server import ScriptedServer, chat

PROGRAMS = {
    "bare": "pass",
    "pydantic": "import pydantic\nclass M(pydantic.BaseModel):\n    name: str\n    size: int = 0",
    "flowkit": "import flowkit",
    "tools": "from flowkit import tool\n@tool\ndef get(name: str, size: int = 0) -> str:\n    'Get it.'\n    return name",
    "agent": "from flowkit import Agent, Needs, Recorder, ScriptedModel, tool",
}
PEER_PROGRAMS = {
    "pydantic_ai": "from pydantic_ai import Agent, Tool",
    "openai_agents": "from agents import Agent, Runner, function_tool",
    "langchain": "from langchain.agents import create_agent\nfrom langchain.tools import tool",
}
"""As the `agent` program: the names with which one begins."""
GOAL = 1.5

ASK = """
import asyncio
from flowkit import Agent, OpenAIModel
async def main():
    result = await Agent(OpenAIModel("any", base_url={base_url!r}, api_key="any"), cache=False).run("go")
    assert result.output == "Fine."
asyncio.run(main())
"""
ASK_BY_HAND = """
import asyncio
from openai import AsyncOpenAI
async def main():
    async with AsyncOpenAI(base_url={base_url!r}, api_key="any") as client:
        messages = [{{"role": "user", "content": "go"}}]
        text = ""
        async for chunk in await client.chat.completions.create(model="any", messages=messages, stream=True):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text == "Fine."
asyncio.run(main())
"""
ASK_PEER = """
import asyncio
from tests.bench.peers.with_{name} import open_agent
async def main():
    async with open_agent({base_url!r}) as ask:
        assert await ask("go") == "Fine."
asyncio.run(main())
"""


def measure(programs: Mapping[str, str], rounds: int = 15) -> dict[str, float]:
    """Seconds of CPU for each program over a bare interpreter, the median of runs by turns."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            times[name].append(_run(program))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: seconds - medians["bare"] for name, seconds in medians.items()}


def _run(program: str) -> float:
    command = [sys.executable, "-c", f"{program}\nimport time; print(time.process_time())"]
    # As after an install: nothing is compiled anew. The first round writes what is missing, and medians leave it out.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return float(printed)


def add_row(report: Report, case: str, costs: Mapping[str, float], ours: str, other: str, goal: float | None) -> None:
    shown = {f"{name}_ms": round(costs[name] * 1000, 1) for name in (ours, other)}
    report.row(case, costs[ours] / costs[other], goal, **shown)


def main() -> None:
    report = Report("imports", "--json" in sys.argv)
    peers = find_agents(report)
    costs = measure(PROGRAMS | {name: PEER_PROGRAMS[name] for name in peers})
    add_row(report, "import flowkit", costs, "flowkit", "pydantic", GOAL)
    add_row(report, "one tool made", costs, "tools", "pydantic", None)
    add_row(report, "agent's names used", costs, "agent", "pydantic", None)
    for name in peers:
        add_row(report, f"agent's names used: {name}", costs, "agent", name, None)
    with ScriptedServer([chat("Fine.")], cycle=True) as server:
        programs = {"flowkit": ASK, "by_hand": ASK_BY_HAND, **dict.fromkeys(peers, ASK_PEER)}
        filled = {name: text.format(name=name, base_url=server.base_url) for name, text in programs.items()}
        costs = measure({"bare": "pass", **filled})
    for name in ("by_hand", *peers):
        add_row(report, f"a program that asks once: {name}", costs, "flowkit", name, None)
    report.print()


if __name__ == "__main__":
    main()
