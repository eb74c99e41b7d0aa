"""What a PostgreSQL server does for a fleet, in processor time of all its processes: `measure_costs`.

The statements are the journal's in kind: rows by `unnest`, of runs whose rows are locked for sharing, so many at a time.
"""

import asyncio
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flowkit.identity import RunIdentity
from tests.bench.fleet import Costs
from tests.servers.postgres import PostgresServer, start_postgres

ROUNDS = 1500
ROWS = 100
JOBS = 300
TABLES = """
CREATE TABLE run (run_id text PRIMARY KEY, token text, changed timestamptz);
CREATE TABLE event (run_id text, seq bigint, body text NOT NULL, PRIMARY KEY (run_id, seq));
INSERT INTO run SELECT 'run-' || n, 't', now() FROM generate_series(1, 5000) n;
"""
WRITE = """
WITH i AS (SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS i(run_id, seq, body)),
f AS (SELECT run_id FROM run WHERE run_id = ANY(%s) AND token = 't' ORDER BY run_id FOR SHARE),
s AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO event SELECT i.run_id, i.seq, i.body FROM i JOIN f USING (run_id), s
"""
POLL = "SELECT seq, body FROM event WHERE run_id = %s AND seq > %s ORDER BY seq LIMIT 1000"
BODY = '{"type":"text.delta","run":"run-1","seq":1,"t":1.5,"text":"' + "x" * 180 + '"}'


def measure_costs(stated: Costs) -> Costs:
    """The costs on a server of this machine; what only the disk and the network know stays as it is stated."""
    import psycopg

    with start_postgres({"checkpoint_timeout": "1h", "max_wal_size": "4GB"}) as server:
        url = server.address(server.create_database())
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in TABLES.split(";"):
                if statement.strip():
                    connection.execute(statement.encode())
            seqs = iter(range(10**9))

            def write(rows: int) -> None:
                runs = [f"run-{secrets.randbelow(5000) + 1}" for _ in range(rows)]
                values = (runs, [next(seqs) for _ in runs], [BODY] * rows, runs)
                connection.execute(WRITE, values)

            def poll() -> None:
                connection.execute(POLL, (f"run-{secrets.randbelow(5000) + 1}", 10**8)).fetchall()

            for _ in range(200):
                write(ROWS)  # the tables are of some size, and their pages are in the log
            single = _measure(server, lambda: write(1))
            before = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
            many = _measure(server, lambda: write(ROWS), rounds=ROUNDS // 5)
            after = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
            assert before is not None
            assert after is not None
            row_s = (many - single) / (ROWS - 1)
            log_bytes = float(after[0] - before[0]) / (ROUNDS // 5 * ROWS)
            poll_s = _measure(server, poll)
        job_s = asyncio.run(_measure_jobs(server, url))
    return replace(stated, statement_s=single - row_s, row_s=row_s, row_log_bytes=log_bytes, poll_s=poll_s, job_s=job_s)


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


def _measure(server: PostgresServer, act: Callable[[], None], rounds: int = ROUNDS) -> float:
    began = _read_cpu(server)
    for _ in range(rounds):
        act()
    return (_read_cpu(server) - began) / rounds


def _read_cpu(server: PostgresServer) -> float:
    """The processor time so far of the server and of all its processes that live, in seconds."""
    ticks = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if str(server.pid) in (place.parent.name, fields[1]):
            ticks += sum(map(int, fields[11:13])) + (
                sum(map(int, fields[13:15])) if fields[1] != str(server.pid) else 0
            )
    return ticks / os.sysconf("SC_CLK_TCK")
