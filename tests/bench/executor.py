"""The executor against a scheduler written by hand: `python -m tests.bench.executor [--json]`.

The other side is what one writes in an afternoon: in-degree counts, a task for each node, nothing else. Ours checks
arguments, tells events and keeps outcomes. CPU time, a no-op async tool, no journal. Other frameworks run the same
graphs where they are installed (`tests/bench/peers`).
"""

import asyncio
import cProfile
import gc
import random
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from flowkit.events import EventLog
from flowkit.executor import Executor
from flowkit.graph import Body, Each, item_id
from flowkit.references import Reference, ToolCall
from flowkit.tools import Tool, tool
from tests.bench.peers.executing import compare_graphs
from tests.bench.report import Report, compare, wants_json
from tests.executing import Shelf

Edges = list[list[int]]
"""For each node, by its number, the earlier nodes that it waits for."""


@tool
async def noop(x: int, y: list[int] | None = None) -> int:
    """Give back what came in."""
    return x


@tool(effect="read")
async def look(x: int, y: list[int] | None = None) -> int:
    """Give back what came in."""
    return x


@tool
async def sleep(seconds: float, y: list[None] | None = None) -> None:
    """Wait."""
    await asyncio.sleep(seconds)


TOOLS: dict[str, Tool[..., Any]] = {made.name: made for made in (noop, look, sleep)}
FUNCTIONS: dict[str, Callable[..., Awaitable[object]]] = {name: made.function for name, made in TOOLS.items()}


def chain(count: int) -> Edges:
    return [[number - 1] if number else [] for number in range(count)]


def fan(count: int) -> Edges:
    return [[] for _ in range(count)]


def layers(count: int, edges: int, width: int = 100, seed: int = 7) -> Edges:
    """Random layers: each node waits for `edges / count` nodes of the layer before it, on average."""
    chance = random.Random(seed)
    waits_for: Edges = [[] for _ in range(count)]
    for _ in range(edges):
        node = chance.randrange(width, count)
        before = (node // width - 1) * width + chance.randrange(width)
        waits_for[node].append(before)
    return [sorted(set(before)) for before in waits_for]


def make_calls(edges: Edges, name: str) -> list[ToolCall]:
    return [
        ToolCall(f"n{number}", name, {"x": number, **({"y": [Reference(f"n{b}") for b in before]} if before else {})})
        for number, before in enumerate(edges)
    ]


async def run_flowkit(calls: Sequence[ToolCall], slots: int = 16) -> None:
    loop = asyncio.get_running_loop()
    executor = Executor(Shelf(TOOLS.values()), EventLog("bench", loop.time), slots=slots)
    async with executor:
        for call in calls:
            executor.add(call)
        await executor.wait()
        assert executor.outcome(calls[-1].id) is not None


async def run_by_hand(calls: Sequence[ToolCall], functions: Mapping[str, Callable[..., Awaitable[object]]]) -> None:
    """The other side: counts, and a task for each node; arguments are filled in, nothing is checked or told."""
    missing: dict[str, int] = {}
    dependents: dict[str, list[ToolCall]] = {}
    for call in calls:
        before: Any = call.arguments.get("y") or []
        missing[call.id] = len(before)
        for reference in before:
            dependents.setdefault(reference.call_id, []).append(call)
    results: dict[str, object] = {}
    done = asyncio.get_running_loop().create_future()
    tasks: set[asyncio.Task[None]] = set()

    async def work(call: ToolCall) -> None:
        arguments: dict[str, Any] = dict(call.arguments)
        if "y" in arguments:
            arguments["y"] = [results[reference.call_id] for reference in arguments["y"]]
        results[call.id] = await functions[call.name](**arguments)
        for dependent in dependents.get(call.id, ()):
            missing[dependent.id] -= 1
            if not missing[dependent.id]:
                start(dependent)
        if len(results) == len(calls):
            done.set_result(None)

    def start(call: ToolCall) -> None:
        task = asyncio.get_running_loop().create_task(work(call))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for call in calls:
        if not missing[call.id]:
            start(call)
    await done


def compare_cpu(report: Report) -> None:
    cases = {
        "chain of 1,000": (chain(1000), 1.6),
        "fan of 1,000": (fan(1000), 1.3),
        "10,000 nodes, 30,000 edges": (layers(10_000, 30_000), 1.8),
    }
    for case, (edges, wanted) in cases.items():
        for name, goal in (("noop", wanted), ("look", None)):
            calls = make_calls(edges, name)
            repeat = 1 if len(edges) > 5000 else 5

            def ours(calls: list[ToolCall] = calls, repeat: int = repeat) -> None:
                for _ in range(repeat):
                    asyncio.run(run_flowkit(calls))

            def theirs(calls: list[ToolCall] = calls, repeat: int = repeat) -> None:
                for _ in range(repeat):
                    asyncio.run(run_by_hand(calls, FUNCTIONS))

            first, second = compare(ours, theirs)
            count = len(edges) * repeat / 1e6
            title = case if name == "noop" else f"{case}, reads that are shared"
            report.row(
                title,
                first / second,
                goal,
                ours_us=f"{first / count:.1f}",
                by_hand_us=f"{second / count:.1f}",
                calls=count_calls(calls),
            )
        idle = make_calls(edges, "noop")
        compare_graphs(report, case, edges, lambda idle=idle: asyncio.run(run_flowkit(idle)))


def count_calls(calls: Sequence[ToolCall]) -> str:
    """Function calls for each node, all and in the executor: exact, however busy the machine is."""
    asyncio.run(run_flowkit(calls))
    profile = cProfile.Profile()
    profile.enable()
    asyncio.run(run_flowkit(calls))
    profile.disable()
    counts = [(entry.code, entry.callcount) for entry in profile.getstats()]
    own = sum(count for code, count in counts if "flowkit/executor" in getattr(code, "co_filename", ""))
    return f"{sum(count for _, count in counts) / len(calls):.1f}/{own / len(calls):.1f}"


async def run_items(count: int) -> None:
    item = ToolCall("e/x", "noop", {"x": Reference(item_id("e"))})
    each = Each("e", list(range(count)), Body((item,), Reference("e/x")))
    async with Executor(Shelf(TOOLS.values()), EventLog("bench", asyncio.get_running_loop().time)) as executor:
        executor.add(each)
        await executor.wait()
        outcome = executor.outcome("e")
        assert outcome is not None
        assert outcome.value == list(range(count))


def compare_items(report: Report) -> None:
    calls = make_calls(fan(1000), "noop")
    first, second = compare(
        lambda: asyncio.run(run_items(1000)),
        lambda: asyncio.run(run_flowkit(calls)),
    )
    report.row(
        "an item of each, by a plain node",
        first / second,
        2.5,
        item_us=f"{first * 1e3:.1f}",
        node_us=f"{second * 1e3:.1f}",
    )


def compare_real_time(report: Report) -> None:
    chance = random.Random(11)
    edges = layers(200, 400, width=20, seed=3)
    durations = [chance.choice((0.005, 0.05)) for _ in edges]
    calls = [
        ToolCall(f"n{n}", "sleep", {"seconds": durations[n], "y": [Reference(f"n{b}") for b in before]})
        for n, before in enumerate(edges)
    ]

    first, second = compare(
        lambda: asyncio.run(run_flowkit(calls, slots=200)),
        lambda: asyncio.run(run_by_hand(calls, FUNCTIONS)),
        clock=time.perf_counter,
    )
    ends = [0.0] * len(edges)
    for number, before in enumerate(edges):
        ends[number] = durations[number] + max((ends[other] for other in before), default=0.0)
    report.row(
        "200 nodes of 5 and 50 ms, real time",
        first / second,
        1.03,
        ours_ms=f"{first * 1000:.1f}",
        by_hand_ms=f"{second * 1000:.1f}",
        critical_path_ms=f"{max(ends) * 1000:.1f}",
    )
    compare_graphs(
        report,
        "200 nodes of 5 and 50 ms, real time",
        edges,
        lambda: asyncio.run(run_flowkit(calls, slots=200)),
        durations,
    )


def run_many(count: int) -> None:
    """Independent nodes, in a process of its own: prints seconds and bytes for each."""
    before = read_memory()
    began = time.process_time()
    calls = [ToolCall(f"n{number}", "noop", {"x": number}) for number in range(count)]
    asyncio.run(run_flowkit(calls))
    print((time.process_time() - began) / count, (read_memory(peak=True) - before) / count)


def run_sleeping(count: int) -> None:
    """Calls that all sleep at once, in a process of its own: prints bytes for each."""

    async def go() -> None:
        calls = [ToolCall(f"n{number}", "sleep", {"seconds": 3}) for number in range(count)]
        loop = asyncio.get_running_loop()
        executor = Executor(Shelf(TOOLS.values()), EventLog("bench", loop.time), slots=count)
        gc.collect()
        before = read_memory()
        async with executor:
            for call in calls:
                executor.add(call)
            await asyncio.sleep(1)
            print((read_memory() - before) / count)

    asyncio.run(go())


def read_memory(*, peak: bool = False) -> float:
    """Resident bytes of this process."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measure_apart(function: str, count: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.bench.executor import {function}; {function}({count})"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(word) for word in done.stdout.split()]


def measure_size(report: Report) -> None:
    small_s, _ = measure_apart("run_many", 100_000)
    each_s, each_bytes = measure_apart("run_many", 1_000_000)
    report.row("1,000,000 nodes, KB each", each_bytes / 1024, 1.15, us_each=f"{each_s * 1e6:.1f}")
    report.row("1,000,000 nodes, time each by that of 100,000", each_s / small_s, 1.3)
    (sleeping,) = measure_apart("run_sleeping", 10_000)
    report.row("10,000 sleeping calls, KB each", sleeping / 1024, 6.0)


def main(arguments: Sequence[str]) -> None:
    report = Report("executor", wants_json(arguments))
    compare_cpu(report)
    compare_items(report)
    compare_real_time(report)
    if "--quick" not in arguments:
        measure_size(report)
    report.print()


if __name__ == "__main__":
    main(sys.argv[1:])
