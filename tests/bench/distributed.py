"""What a journal on PostgreSQL costs beside one in a file: `python -m tests.bench.distributed [--json]`.

Both write to the same disk, in turns, so that the ratios hold on a busy machine. The peer is what a service would write
with an asynchronous pool: 16 connections, a statement for each operation.

What can be reached depends on the disk. A run waits for 24 durable commits one after the other, whoever writes them;
`floor` is their time alone. A pool of 16 serves 64 runs in four turns, so where only the disk counts and each sync takes
along all 16, ours takes a quarter of its time (0.25); where the pool's syncs take along half of them, an eighth. Where
the processor counts, it is the work of an operation: a statement each, or a row of one statement. Other work on the
machine is against us, since a pool's 16 servers get 16 shares of the processor.

One run's claim is one round trip and one sync of the disk. A server is another process, which has to be woken, and which
has to wake the client: on a busy machine each costs some milliseconds, and a file in the own process costs none. So the
least that any client can reach, one prepared INSERT by bare psycopg, stands beside it; where that is over the goal, the
machine decides. Hits in Redis are measured by
`tests.bench.distributed_cache`, pools by `tests.bench.pools`.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from flowkit.executor import run_graph
from flowkit.graph import Graph
from flowkit.journal import Journal
from flowkit.journal.postgres.schema import migrate
from flowkit.references import ToolCall
from flowkit.tools import tool
from tests.bench.report import Report, wants_json
from tests.servers.postgres import start_postgres

RUNS = 64
WRITES = 12
"""Of each run; each is claimed and recorded."""
ROUNDS = 5
READS = 1000
POOL = 16
EVENTS = 600_000
"""Of a quarter of an hour at 10 runs a second; a DROP costs the same whatever is in it, two syncs of the disk or so."""
ARGUMENTS = {"order_id": "ORD-2026-0042", "amount": "12.50", "reason": "damaged on arrival"}


@tool(effect="read")
async def look(number: int) -> dict[str, int]:
    """Look something up."""
    return {"number": number}


async def write_runs(journal: Journal, name: str) -> float:
    """Claim and record the writes of many runs at once; the seconds that it took."""
    runs = [await journal.open_run(f"{name}-{number}", name="bench") for number in range(RUNS)]

    async def drive(number: int) -> None:
        run = runs[number]
        for step in range(WRITES):
            node = f"w{step}"
            await run.claim(node, tool="pay", code="c", effect="write", arguments=dict(ARGUMENTS))
            await run.record(node, state="finished", value=dict(ARGUMENTS), effect="write")

    began_s = time.perf_counter()
    await asyncio.gather(*map(drive, range(RUNS)))
    took_s = time.perf_counter() - began_s
    for run in runs:
        await run.finish("done")
    return took_s


async def write_by_pool(address: str, name: str) -> float:
    """The same operations, each a statement of its own, durable and committed at once, on one of psycopg's own pool."""
    async with AsyncConnectionPool(
        address,
        connection_class=psycopg.AsyncConnection[Any],
        min_size=POOL,
        max_size=POOL,
        kwargs={"autocommit": True},
        open=False,
    ) as pool:
        await pool.wait()
        return await write_in_pool(pool, name)


async def write_in_pool(pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]], name: str) -> float:
    runs: list[int] = []
    for number in range(RUNS):
        async with pool.connection() as connection:
            cursor = await connection.execute(
                "INSERT INTO flowkit.run (place, run_id, name, code, inputs, status, began, changed, day, fence, token)"
                " VALUES (%s, %s, 'bench', '', 'null', 'running', now(), now(), current_date, 1, 'mine') RETURNING id",
                (f"{name}-{number}", f"{name}-{number}"),
            )
            found = await cursor.fetchone()
        assert found is not None
        runs.append(found[0])
    put = (
        "WITH f AS (SELECT id FROM flowkit.run WHERE id = %s AND token = 'mine' FOR SHARE)"
        " INSERT INTO flowkit.node (run, key, node, state, effect, tool, code, attempt, arguments, value, changed, position)"
        " SELECT f.id, %s, %s, %s, 'write', 'pay', 'c', 1, %s, %s, clock_timestamp(), %s FROM f"
        " ON CONFLICT (run, key) DO UPDATE SET state = excluded.state, value = excluded.value, changed = excluded.changed"
    )
    text = '{"order_id": "ORD-2026-0042", "amount": "12.50", "reason": "damaged on arrival"}'

    async def write(run: int, step: int, state: str) -> None:
        async with pool.connection() as connection:
            await connection.execute(put, (run, f"w{step}", f"w{step}", state, text, text, step))

    async def drive(run: int) -> None:
        for step in range(WRITES):
            await write(run, step, "claimed")
            await write(run, step, "finished")

    began_s = time.perf_counter()
    await asyncio.gather(*map(drive, runs))
    return time.perf_counter() - began_s


def commit_in_series(address: str) -> float:
    """The seconds of as many durable commits as each run has to wait for, one after the other, of one row each.

    No run can be faster: it starts a call when its claim is on the disk, and goes on when its result is.
    """
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS flowkit.bench (number int)")
        began_s = time.perf_counter()
        for number in range(2 * WRITES):
            connection.execute("INSERT INTO flowkit.bench VALUES (%s)", (number,))
        return time.perf_counter() - began_s


async def claim_alone(journal: Journal, name: str) -> float:
    """The median of a claim's seconds, when nothing else is written."""
    run = await journal.open_run(name, name="bench")
    took: list[float] = []
    for step in range(40):
        began_s = time.perf_counter()
        await run.claim(f"w{step}", tool="pay", code="c", effect="write", arguments=dict(ARGUMENTS))
        took.append(time.perf_counter() - began_s)
    await run.finish("done")
    return statistics.median(took)


async def insert_alone(address: str, name: str) -> float:
    """The median of the seconds of one row's durable INSERT by bare psycopg, prepared: what no claim can be under."""
    with psycopg.connect(address, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS flowkit.bare (name text, step int, arguments text)")
        took: list[float] = []
        for step in range(40):
            began_s = time.perf_counter()
            connection.execute("INSERT INTO flowkit.bare VALUES (%s, %s, %s)", (name, step, str(ARGUMENTS)))
            took.append(time.perf_counter() - began_s)
    return statistics.median(took)


async def read_graph(journal: Journal, name: str) -> float:
    """The seconds of a graph of many reads, with the journal written."""
    graph = Graph(ToolCall(f"c{number}", "look", {"number": number}) for number in range(READS))
    began_s = time.perf_counter()
    await run_graph(graph, tools=[look], journal=journal, run_id=name, cache=False)
    return time.perf_counter() - began_s


async def in_turns(
    ours: Callable[[str], Awaitable[float]], other: Callable[[str], Awaitable[float]]
) -> tuple[float, float]:
    """The best seconds of each, measured one after the other several times: what else the machine did isn't in them."""
    times: list[tuple[float, float]] = [(await ours(f"a{turn}"), await other(f"b{turn}")) for turn in range(ROUNDS)]
    return min(our for our, _ in times), min(their for _, their in times)


async def measure_writes(report: Report, address: str, folder: Path) -> None:
    with closing(await asyncio.to_thread(Journal, address)) as shared, closing(Journal(folder / "journal")) as file:
        operations = RUNS * WRITES * 2
        ours, theirs = await in_turns(lambda name: write_runs(shared, name), lambda name: write_runs(file, name))
        report.row(
            "claims and records of 64 runs: time, by SQLite's",
            ours / theirs,
            1 / 0.7,
            per_s=round(operations / ours),
            sqlite_per_s=round(operations / theirs),
        )
        floors: list[float] = []

        async def by_pool(name: str) -> float:
            floors.append(await asyncio.to_thread(commit_in_series, address))
            return await write_by_pool(address, f"p{name}")

        ours, theirs = await in_turns(lambda name: write_runs(shared, f"p{name}"), by_pool)
        report.row(
            "the same: time, by a pool of 16 with a statement each",
            ours / theirs,
            1 / 5,
            per_s=round(operations / ours),
            pool_per_s=round(operations / theirs),
            floor=round(min(floors) / theirs, 3),
        )
        ours, theirs = await in_turns(
            lambda name: claim_alone(shared, f"c{name}"), lambda name: claim_alone(file, f"c{name}")
        )
        report.row(
            "one run's claim, by SQLite's",
            ours / theirs,
            2.0,
            ms=round(ours * 1e3, 2),
            sqlite_ms=round(theirs * 1e3, 2),
        )
        bare, theirs = await in_turns(
            lambda name: insert_alone(address, name), lambda name: claim_alone(file, f"b{name}")
        )
        report.row(
            "the limit of that: an INSERT by bare psycopg, by SQLite's claim",
            bare / theirs,
            bare_ms=round(bare * 1e3, 2),
            claim_by_bare=round(ours / bare, 2),
        )
        ours, theirs = await in_turns(
            lambda name: read_graph(shared, f"g{name}"), lambda name: read_graph(file, f"g{name}")
        )
        report.row(
            "a graph of 1,000 reads, by SQLite's", ours / theirs, 1.2, s=round(ours, 3), sqlite_s=round(theirs, 3)
        )


def measure_removal(report: Report, address: str) -> None:
    """A day's events dropped with their partition, beside the same number deleted and vacuumed away.

    A DELETE alone leaves the files as large as they were, and the work to VACUUM.
    """
    dropped: list[float] = []
    deleted: list[float] = []
    left: list[float] = []
    with psycopg.connect(address, autocommit=True) as connection:

        def timed(statement: str) -> float:
            began_s = time.perf_counter()
            connection.execute(statement.encode())
            return time.perf_counter() - began_s

        def ask(statement: str) -> Any:
            found = connection.execute(statement.encode()).fetchone()
            assert found is not None
            return found[0]

        def name_day(day: str) -> str:
            return str(ask(f"SELECT to_char({day}, 'YYYYMMDD')"))

        for turn in range(3):
            first, second = (f"current_date + {2 * turn + 1 + which}" for which in range(2))
            for day in (first, second):
                timed(
                    f"INSERT INTO flowkit.event (day, run, seq, body) SELECT {day}, i % 5000, i,"
                    f" repeat(md5(i::text), 8) FROM generate_series(1, {EVENTS}) AS i"
                )
            timed("CHECKPOINT")
            dropped.append(timed(f"DROP TABLE flowkit.event_{name_day(first)}"))
            table = f"flowkit.event_{name_day(second)}"
            size = f"SELECT pg_total_relation_size('{table}')"
            before = ask(size)
            took_s = timed(f"DELETE FROM flowkit.event WHERE day = {second}")
            left.append(ask(size) / before)
            deleted.append(took_s + timed(f"VACUUM {table}"))
    report.row(
        f"removing a day's {EVENTS:,} events: DROP, by DELETE and VACUUM",
        min(dropped) / min(deleted),
        0.1,
        drop_ms=round(min(dropped) * 1e3, 1),
        delete_ms=round(min(deleted) * 1e3, 1),
        left_by_delete=round(min(left), 2),
    )


def main() -> int:
    report = Report("distributed", json=wants_json(sys.argv))
    with start_postgres({"fsync": "on"}) as server, tempfile.TemporaryDirectory() as folder:
        address = server.address(server.create_database())
        migrate(address)
        asyncio.run(measure_writes(report, address, Path(folder)))
        measure_removal(report, address)
    report.print()
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
