"""What a PostgreSQL server does for a fleet, in processor time of all its processes: `measure_costs`.

Runs of an agent are driven over a real journal, one at a time and sixteen at once: the difference is what a commit
costs, the rest is what the rows do. So what a run opens and reads is counted with its rows.
"""

import asyncio
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowkit import Agent, Journal, ScriptedModel, tool
from flowkit.identity import RunIdentity
from flowkit.testing import call
from tests.bench.fleet import Costs
from tests.servers.postgres import PostgresServer, start_postgres

RUNS = 100
AT_ONCE = 16
JOBS = 300
POLLS = 500


@tool(effect="read")
async def look(number: int) -> str:
    """Look something up."""
    await asyncio.sleep(0.02)
    return "x" * 200


@tool
async def change(number: int) -> str:
    """Change something."""
    await asyncio.sleep(0.02)
    return "changed"


TURNS: list[Any] = [
    ["word " * 20, *[call("look", number=index) for index in range(4)]],
    ["word " * 20, *[call("look", number=4 + index) for index in range(4)]],
    ["word " * 20, *[call("change", number=index) for index in range(2)]],
    "word " * 60,
]


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run cost, on the mean."""

    cpu_s: float
    commits: float
    rows: float
    log_bytes: float


def measure_costs(stated: Costs) -> Costs:
    """The costs on a server of this machine; what only the disk and the network know stays as it is stated."""
    from flowkit.journal.postgres.schema import migrate

    with start_postgres({"fsync": "on", "checkpoint_timeout": "1h", "max_wal_size": "4GB"}) as server:
        database = server.create_database()
        url = server.address(database)
        migrate(url)
        _measure_runs(server, database, "warm", AT_ONCE)
        alone = _measure_runs(server, database, "alone", 1)
        together = _measure_runs(server, database, "together", AT_ONCE)
        poll_s = _measure_polls(server, url)
        job_s = asyncio.run(_measure_jobs(server, url))
    commit_s = max(0.0, (alone.cpu_s - together.cpu_s) / (alone.commits - together.commits))
    row_s = max(0.0, together.cpu_s - together.commits * commit_s) / together.rows
    return replace(
        stated,
        statement_s=commit_s,
        row_s=row_s,
        row_log_bytes=together.log_bytes / together.rows,
        poll_s=poll_s,
        job_s=job_s,
    )


def _measure_runs(server: PostgresServer, database: str, name: str, at_once: int) -> Spent:
    """Drive runs, so many at once, in one process."""

    def read(statement: str) -> float:
        return float(server.execute(statement, database=database)[0][0])

    def count_rows() -> float:
        return sum(read(f"SELECT count(*) FROM flowkit.{table}") for table in ("run", "node", "turn", "event"))

    async def drive(journal: Journal) -> None:
        room = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with room:
                agent = Agent(ScriptedModel(TURNS), tools=[look, change], journal=journal, cache=False)
                await agent.run("go", run_id=f"{name}-{number}", user="ann")

        await asyncio.gather(*(one(number) for number in range(RUNS)))

    journal = Journal(server.address(database))
    try:
        rows, log = count_rows(), read("SELECT pg_current_wal_insert_lsn() - '0/0'")
        cpu_s = _measure(server, lambda: asyncio.run(drive(journal)))
        commits = journal.commits.durable + journal.commits.normal
    finally:
        journal.close()
    log_bytes = read("SELECT pg_current_wal_insert_lsn() - '0/0'") - log
    return Spent(cpu_s / RUNS, commits / RUNS, (count_rows() - rows) / RUNS, log_bytes / RUNS)


def _measure_polls(server: PostgresServer, url: str) -> float:
    """What it costs to look for new events of a run, as a follower does."""
    journal = Journal(url)

    def poll() -> None:
        for _ in range(POLLS):
            run_id = f"together-{secrets.randbelow(RUNS)}"
            journal.find(run_id, user="ann")
            journal.event_rows(run_id, 10**8, user="ann")

    try:
        return _measure(server, poll) / POLLS
    finally:
        journal.close()


async def _measure_jobs(server: PostgresServer, url: str) -> float:
    """What a run costs that goes through procrastinate, from its putting to its removal."""
    from flowkit.queues.procrastinate import TASK, open_queue

    async with open_queue(url, makes_tables=True) as queue:
        left = JOBS
        ended = asyncio.Event()

        async def take(run_id: str, user: str | None, session: str | None) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                ended.set()

        queue.app.task(name=TASK)(take)
        began = _read_cpu(server)
        for number in range(JOBS):
            await queue.put(RunIdentity(None, None, f"run-{number}"), "app")
        working = asyncio.create_task(
            queue.app.run_worker_async(queues=["flowkit/app"], install_signal_handlers=False, delete_jobs="always")
        )
        await ended.wait()
        working.cancel()
        await asyncio.wait([working])
        return (_read_cpu(server) - began) / JOBS


def _measure(server: PostgresServer, act: Callable[[], None]) -> float:
    began = _read_cpu(server)
    act()
    return _read_cpu(server) - began


def _read_cpu(server: PostgresServer) -> float:
    """The processor time so far of the server and of all its processes that live, in seconds."""
    ticks = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        is_first = place.parent.name == str(server.pid)
        if is_first or fields[1] == str(server.pid):
            # Of those that have ended, the first process knows.
            ticks += sum(map(int, fields[11 : 15 if is_first else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")
