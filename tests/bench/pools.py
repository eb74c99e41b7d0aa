"""CPU-bound tools in pools against the bare pools: `python -m tests.bench.pools [--json] [--no-dask]`.

64 tasks of about 50 ms each, as nodes of one graph: in processes of this machine against a `ProcessPoolExecutor` (spawn)
of the same size, and on a Dask cluster of two workers against `client.map` of the same function. Wall time, by turns,
with every process started before. What a call costs beside its function is told in milliseconds.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from flowkit import Executor, ToolCall, tool
from flowkit.pools.opened_pools import DASK_VARIABLE, close_pools
from flowkit.pools.windows import find_size
from tests.bench.report import Report, compare, wants_json
from tests.servers.dask import DaskCluster

TASKS = 64
TASK_S = 0.05
SMALL = 200
GOAL = 1.15


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
    began = time.perf_counter()
    work(count)
    return time.perf_counter() - began


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


def measure_processes(report: Report, counts: Sequence[int]) -> None:
    """Compare the pool of this machine with the standard library's."""
    size = find_size()
    with ProcessPoolExecutor(size, mp_context=get_context("spawn")) as bare:

        def run_bare(counts: Sequence[int]) -> None:
            for future in [bare.submit(work, count) for count in counts]:
                future.result()

        run_bare(counts[: 2 * size])
        run_graph("work_here", counts[: 2 * size])
        bare_s, ours_s = compare(
            lambda: run_bare(counts), lambda: run_graph("work_here", counts), clock=time.perf_counter
        )
        small_bare_s, small_s = compare(
            lambda: run_bare(range(SMALL)), lambda: run_graph("work_here", range(SMALL)), clock=time.perf_counter
        )
    report.row(
        f"{TASKS} tasks of {1000 * TASK_S:.0f} ms, {size} processes: pool='process' / ProcessPoolExecutor",
        ours_s / bare_s,
        GOAL,
        ours=f"{ours_s:.2f} s",
        bare=f"{bare_s:.2f} s",
    )
    report.row(
        f"{SMALL} empty tasks: pool='process' / ProcessPoolExecutor",
        small_s / small_bare_s,
        ours=f"{1000 * small_s / SMALL:.2f} ms each",
        bare=f"{1000 * small_bare_s / SMALL:.2f} ms each",
    )


def measure_dask(report: Report, counts: Sequence[int]) -> None:
    """Compare a cluster with its own client."""
    from distributed import Client

    with DaskCluster(workers=2) as cluster:
        os.environ[DASK_VARIABLE] = cluster.address
        with Client(cluster.address, set_as_default=False) as client:
            bare: Any = client

            def run_bare(counts: Sequence[int]) -> None:
                bare.gather(bare.map(work, counts, pure=False))

            run_bare(counts[:4])
            run_graph("work_far", counts[:4])
            bare_s, ours_s = compare(
                lambda: run_bare(counts), lambda: run_graph("work_far", counts), clock=time.perf_counter
            )
            small_bare_s, small_s = compare(
                lambda: run_bare(range(SMALL)), lambda: run_graph("work_far", range(SMALL)), clock=time.perf_counter
            )
        close_pools()
    report.row(
        f"{TASKS} tasks of {1000 * TASK_S:.0f} ms, 2 workers: pool='dask' / client.map",
        ours_s / bare_s,
        GOAL,
        ours=f"{ours_s:.2f} s",
        bare=f"{bare_s:.2f} s",
    )
    report.row(
        f"{SMALL} empty tasks: pool='dask' / client.map",
        small_s / small_bare_s,
        ours=f"{1000 * small_s / SMALL:.2f} ms each",
        bare=f"{1000 * small_bare_s / SMALL:.2f} ms each",
    )


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
