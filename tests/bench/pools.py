"""CPU-bound tools in pools against the bare pools: `python -m tests.bench.pools [--json] [--no-dask]`.

64 tasks of about 50 ms each, as nodes of one graph: in processes of this machine against a `ProcessPoolExecutor` (spawn)
of the same size, and on a Dask cluster of two workers against `client.map` of the same function. By turns, with every
process started before; the processor time of all processes says more than the wall time where others use the machine.
What a call costs beside its function is told in milliseconds.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from flowkit import Executor, ToolCall, tool
from flowkit.pools.opened_pools import DASK_VARIABLE, close_pools
from flowkit.pools.windows import find_size
from tests.bench.report import Report, wants_json
from tests.servers.dask import DaskCluster

TASKS = 64
TASK_S = 0.05
SMALL = 200
GOAL = 1.15

Run = Callable[[], None]
Work = Callable[[Sequence[int]], None]


def work(count: int) -> int:
    """Keep a core busy: the same steps each time, however busy the machine is."""
    total = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFFFFFF
    return total


@tool(effect="read", pool="process")
def work_here(count: int) -> int:
    """Work in a process of this machine."""
    return work(count)


@tool(effect="read", pool="dask")
def work_far(count: int) -> int:
    """Work on a Dask cluster."""
    return work(count)


def calibrate() -> int:
    """How many steps take as long as a task should."""
    count = 100_000
    best_s = min(_time(count) for _ in range(5))
    return round(count * TASK_S / best_s)


def _time(count: int) -> float:
    began = time.process_time()
    work(count)
    return time.process_time() - began


def run_graph(name: str, counts: Sequence[int]) -> None:
    """Run a node for each."""
    asyncio.run(_run_graph(name, counts))


async def _run_graph(name: str, counts: Sequence[int]) -> None:
    async with Executor(tools=[work_here, work_far]) as graph:
        for place, count in enumerate(counts):
            graph.add(ToolCall(f"task/{place}", name, {"count": count}))
        await graph.wait()
    failed = [outcome for outcome in graph.outcomes.values() if outcome.state != "finished"]
    assert not failed, failed[0]


def read_cpu_s(pids: Sequence[int]) -> float:
    """The processor time of these processes, of this one and of its children, in hundredths of a second."""
    own = os.getpid()
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == own or int(folder.name) in (own, *pids):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def compare_both(bare: Run, ours: Run, pids: Sequence[int] = (), rounds: int = 3) -> tuple[list[float], list[float]]:
    """The median wall time and processor time of both, in seconds, by turns."""
    walls: list[list[float]] = [[], []]
    cpus: list[list[float]] = [[], []]
    for _ in range(rounds):
        for place, run in enumerate((bare, ours)):
            began, began_cpu = time.perf_counter(), read_cpu_s(pids)
            run()
            cpus[place].append(read_cpu_s(pids) - began_cpu)
            walls[place].append(time.perf_counter() - began)
    return [median(one) for one in walls], [median(one) for one in cpus]


def add_rows(
    report: Report, what: str, bare: Work, ours: Work, counts: Sequence[int], pids: Sequence[int] = ()
) -> None:
    """Compare many small computations, and then the way alone."""
    bare(counts[:4])
    ours(counts[:4])
    case = f"{len(counts)} tasks of {1000 * TASK_S:.0f} ms: {what}"
    walls, cpus = compare_both(lambda: bare(counts), lambda: ours(counts), pids)
    for name, (theirs_s, ours_s) in (("processor time", cpus), ("wall time", walls)):
        report.row(f"{case}, {name}", ours_s / theirs_s, GOAL, ours=f"{ours_s:.2f} s", bare=f"{theirs_s:.2f} s")
    _, (theirs_s, ours_s) = compare_both(lambda: bare(range(SMALL)), lambda: ours(range(SMALL)), pids)
    shown: dict[str, object] = {
        "ours": f"{1000 * ours_s / SMALL:.2f} ms each",
        "bare": f"{1000 * theirs_s / SMALL:.2f} ms each",
    }
    report.row(f"{SMALL} empty tasks: {what}, processor time", ours_s / theirs_s, None, **shown)


def measure_processes(report: Report, counts: Sequence[int]) -> None:
    """Compare the pool of this machine with the standard library's."""
    size = find_size()
    with ProcessPoolExecutor(size, mp_context=get_context("spawn")) as bare:

        def run_bare(counts: Sequence[int]) -> None:
            for future in [bare.submit(work, count) for count in counts]:
                future.result()

        add_rows(
            report,
            "pool='process' / ProcessPoolExecutor",
            run_bare,
            lambda counts: run_graph("work_here", counts),
            counts,
        )


def measure_dask(report: Report, counts: Sequence[int]) -> None:
    """Compare a cluster with its own client."""
    from distributed import Client

    with DaskCluster(workers=2) as cluster:
        os.environ[DASK_VARIABLE] = cluster.address
        pids = [cluster.scheduler.pid, *(worker.pid for worker in cluster.workers)]
        with Client(cluster.address, set_as_default=False) as client:
            bare: Any = client

            def run_bare(counts: Sequence[int]) -> None:
                bare.gather(bare.map(work, counts, pure=False))

            add_rows(
                report, "pool='dask' / client.map", run_bare, lambda counts: run_graph("work_far", counts), counts, pids
            )
        close_pools()


def main(arguments: Sequence[str]) -> int:
    """Print the table; 1 when a goal is missed."""
    report = Report("pools", wants_json(arguments))
    # No two are equal: equal reads of a run would share one.
    counts = [calibrate() + place for place in range(TASKS)]
    measure_processes(report, counts)
    if "--no-dask" not in arguments:
        measure_dask(report, counts)
    report.print()
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
