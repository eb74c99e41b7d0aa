"""The cache against raw diskcache, and what a journal costs: `python -m tests.bench.cache [--json]`.

Reads are compared in CPU time on the loop's thread, key included on both sides; the throughput of four processes by
the wall clock. A ratio is ours by raw diskcache's, for throughput the time that the same number of operations takes.
No other framework stands here: raw diskcache is what one would take beside any of them.
"""

import asyncio
import multiprocessing
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import diskcache  # pyright: ignore[reportMissingTypeStubs]  # it has none

from flowkit.cache import DiskCache
from flowkit.codec import JSON, dump_sorted
from flowkit.events import CallFinished, CallNew, CallSealed, CallStarted, Event, EventLog
from flowkit.journal import Journal
from flowkit.tools import tool
from tests.bench.report import Report, compare, wants_json

READS = 1_000
READ_ROUNDS = 60
"""Short rounds by turns: whatever else the machine does then falls on both sides alike."""
STEPS = 5_000
STEPS_AT_ONCE = 50
"""How many steps one transaction by hand keeps: about what our batches do."""
ROUNDS = 3
WRITES = 200
PROCESSES = 4
OPERATIONS = 2_000
AT_ONCE = 16
"""How many calls of one process are in flight: the executor's slots."""
KEYS = 500
VALUE: JSON = {"items": [{"id": f"ORD-{number}", "total": number * 1000} for number in range(30)]}
"""About a kilobyte."""
ARGUMENTS = {"customer_id": "c-17", "status": "open", "limit": 50}

stock = cast(Any, diskcache)


@tool(ttl=300, effect="read")
async def list_orders(customer_id: str, status: str = "open", limit: int = 10) -> list[int]:
    """List orders."""
    return []


def plain_key() -> str:
    """What one writes by hand: arguments as sorted JSON, hashed."""
    return sha256(dump_sorted(["list_orders", "1", ARGUMENTS])).hexdigest()


def measure_hits(report: Report, folder: Path) -> None:
    raw = stock.Cache(str(folder / "raw"))
    raw[plain_key()] = dump_sorted(VALUE)
    cache = DiskCache(folder / "ours")
    arguments = list_orders.validate(ARGUMENTS)
    key = list_orders.key(arguments, "")
    assert key is not None
    asyncio.run(cache.set(key, VALUE, 3600, tool="list_orders"))

    def hit() -> None:
        for _ in range(READS):
            plain_key()
            assert cache.get(key, tool="list_orders") is not None

    def hit_with_tool_key() -> None:
        for _ in range(READS):
            assert cache.get(list_orders.key(arguments, "") or "", tool="list_orders") is not None

    def read_raw() -> None:
        for _ in range(READS):
            assert raw.get(plain_key()) is not None

    for case, ours in (("a hit", hit), ("a hit, key by Tool.key", hit_with_tool_key)):
        ours_s, raw_s = compare(ours, read_raw, rounds=READ_ROUNDS)
        report.row(
            case,
            ours_s / raw_s,
            1.8 if ours is hit else 2.5,
            ours_us=round(ours_s / READS * 1e6, 1),
            raw_us=round(raw_s / READS * 1e6, 1),
        )
    raw.close()
    asyncio.run(cache.close())


def work_with_ours(folder: str, seed: int, barrier: Any) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        cache = DiskCache(folder)
        cache.get("")

        async def one() -> None:
            while left:
                left.pop()
                key = f"key-{chance.randrange(KEYS)}"
                if chance.random() < 0.3:
                    await cache.set(key, VALUE, 3600, tool="t")
                else:
                    cache.get(key, tool="t")

        left = list(range(OPERATIONS))
        barrier.wait()
        await asyncio.gather(*(one() for _ in range(AT_ONCE)))
        barrier.wait()
        await cache.close()

    asyncio.run(main())


def work_with_raw(folder: str, seed: int, barrier: Any) -> None:
    chance = random.Random(seed)
    with stock.Cache(folder) as cache:
        barrier.wait()
        for _ in range(OPERATIONS):
            key = f"key-{chance.randrange(KEYS)}"
            if chance.random() < 0.3:
                cache.set(key, dump_sorted(VALUE), expire=3600)
            else:
                cache.get(key)
        barrier.wait()


def measure_processes(work: Callable[[str, int, Any], None], folder: Path) -> float:
    """The seconds that all processes took for their operations, without their start."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES + 1)
    processes = [
        context.Process(target=work, args=(str(folder), seed, barrier), daemon=True) for seed in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    began_s = time.monotonic()
    barrier.wait()
    took_s = time.monotonic() - began_s
    for process in processes:
        process.join()
    return took_s


def measure_throughput(report: Report, folder: Path) -> None:
    ours: list[float] = []
    raws: list[float] = []
    for attempt in range(5):
        ours.append(measure_processes(work_with_ours, folder / f"ours-{attempt}"))
        raws.append(measure_processes(work_with_raw, folder / f"raw-{attempt}"))
    ours_s, raw_s = statistics.median(ours), statistics.median(raws)
    count = PROCESSES * OPERATIONS
    report.row(
        "4 processes, 30 % writes: time",
        ours_s / raw_s,
        1 / 0.8,
        ours_per_s=round(count / ours_s),
        raw_per_s=round(count / raw_s),
    )


def write_for(folder: str, seconds: float, ready: Any) -> None:
    async def main() -> None:
        cache = DiskCache(folder)
        cache.get("")
        ready.wait()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            await asyncio.gather(*(cache.set(f"key-{n}", VALUE, 3600, tool="t") for n in range(AT_ONCE)))
        await cache.close()

    asyncio.run(main())


async def find_longest_stall(cache: DiskCache | None, seconds: float) -> tuple[float, int]:
    """The longest time in seconds that the loop was busy with one thing, while 16 tasks read and one writes."""
    reads = 0

    async def read() -> None:
        nonlocal reads
        while not is_over:
            if cache is not None:
                cache.get(f"key-{reads % AT_ONCE}", tool="t")
            reads += 1
            await asyncio.sleep(0)

    async def write() -> None:
        while not is_over and cache is not None:
            await cache.set("mine", VALUE, 3600, tool="t")

    is_over = False
    tasks = [asyncio.create_task(read()) for _ in range(AT_ONCE)] + [asyncio.create_task(write())]
    longest_s = 0.0
    end_s = time.monotonic() + seconds
    last_s = time.monotonic()
    while last_s < end_s:
        await asyncio.sleep(0)
        now_s = time.monotonic()
        longest_s = max(longest_s, now_s - last_s)
        last_s = now_s
    is_over = True
    await asyncio.gather(*tasks)
    return longest_s, reads


def measure_stall(report: Report, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(PROCESSES + 1)
    seconds = 1.5
    writers = [
        context.Process(target=write_for, args=(str(folder), 2 * seconds + 0.5, ready), daemon=True)
        for _ in range(PROCESSES)
    ]
    for writer in writers:
        writer.start()

    async def main() -> None:
        cache = DiskCache(folder)
        cache.get("")
        ready.wait()
        alone_s, _ = await find_longest_stall(None, seconds)
        stall_s, reads = await find_longest_stall(cache, seconds)
        await cache.close()
        # Two cores and five busy processes: the system itself takes the loop's thread off for some milliseconds.
        report.row(
            "the loop's longest stall, 4 writers",
            None,
            stall_ms=round(stall_s * 1e3, 1),
            without_cache_ms=round(alone_s * 1e3, 1),
            reads=reads,
        )

    asyncio.run(main())
    for writer in writers:
        writer.join()


def write_steps_by_hand(path: Path) -> float:
    """Write what the read steps keep, a result and four events each, and return the CPU seconds it took."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
        "CREATE TABLE node (run TEXT, node TEXT, state TEXT, effect TEXT, arguments TEXT, value TEXT, "
        "PRIMARY KEY (run, node)) WITHOUT ROWID;"
        "CREATE TABLE event (run TEXT, seq INTEGER, event TEXT, PRIMARY KEY (run, seq)) WITHOUT ROWID;"
    )
    log = EventLog("r", time.monotonic)
    events: list[Event] = []
    log.listen(events.append)
    began_s = time.process_time()
    for first in range(0, STEPS, STEPS_AT_ONCE):
        database.execute("BEGIN")
        for number in range(first, min(STEPS, first + STEPS_AT_ONCE)):
            node = f"step-{number}"
            log.emit(CallNew, node, "list_orders")
            log.emit(CallSealed, node, dict(ARGUMENTS))
            log.emit(CallStarted, node)
            log.emit(CallFinished, node, VALUE)
            kept = ("r", node, "finished", "read", dump_sorted(ARGUMENTS), dump_sorted(VALUE))
            database.execute("INSERT INTO node VALUES (?, ?, ?, ?, ?, ?)", kept)
            rows = [("r", event.seq, dump_sorted(event.to_json())) for event in events]
            database.executemany("INSERT INTO event VALUES (?, ?, ?)", rows)
            events.clear()
        database.execute("COMMIT")
    took_s = time.process_time() - began_s
    database.close()
    return took_s


def measure_journal(report: Report, folder: Path) -> None:
    async def main() -> None:
        journal = Journal(folder / "journal")
        run = await journal.open_run("r", name="bench")
        log = EventLog("r", time.monotonic)
        log.listen(run.append_event)

        async def step(number: int) -> None:
            node = f"step-{number}"
            log.emit(CallNew, node, "list_orders")
            log.emit(CallSealed, node, dict(ARGUMENTS))
            log.emit(CallStarted, node)
            log.emit(CallFinished, node, VALUE)
            await run.record(node, state="finished", value=VALUE, effect="read", arguments=dict(ARGUMENTS))
            await asyncio.sleep(0)

        ratios: list[float] = []
        for round_number in range(ROUNDS):
            began_s = time.process_time()
            for number in range(STEPS):
                await step(round_number * STEPS + number)
            await run.refresh()  # everything is written by then
            ours_s = time.process_time() - began_s
            ratios.append(ours_s / write_steps_by_hand(folder / f"by-hand-{round_number}"))
        report.row(
            "a journal's CPU for a read step, by its rows in bare sqlite3",
            statistics.median(ratios),
            events=4,
            bytes=len(dump_sorted(VALUE)),
        )

        before = journal.commits.durable
        began_s, wall_s = time.process_time(), time.monotonic()
        for number in range(WRITES):
            await run.claim(f"w-{number}", tool="pay", code="c", effect="write", arguments=dict(ARGUMENTS))
            await run.record(f"w-{number}", state="finished", value=VALUE, effect="write")
        commits = (journal.commits.durable - before) / WRITES
        report.row(
            "durable commits for a write step",
            commits,
            2.0,
            cpu_ms=round((time.process_time() - began_s) / WRITES * 1e3, 3),
            wall_ms=round((time.monotonic() - wall_s) / WRITES * 1e3, 2),
        )
        await run.finish("done")
        journal.close()

    asyncio.run(main())


def main() -> int:
    report = Report("cache", json=wants_json(sys.argv))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_hits(report, folder)
        measure_throughput(report, folder)
        measure_stall(report, folder / "stall")
        measure_journal(report, folder)
    report.print()
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
