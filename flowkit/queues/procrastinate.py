"""A queue of runs by procrastinate in PostgreSQL; its tables may be in the journal's database.

A job contains only the run's identity, and ends when a worker has taken the run; the journal knows what happens to the
run then. No two jobs of one run wait in parallel (`queueing_lock`). A job has no `lock`: a killed worker would keep
it, and no other job of that run would ever start.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import procrastinate
import psycopg
from procrastinate import exceptions
from procrastinate.jobs import DeleteJobCondition, Status
from procrastinate.worker import Worker
from psycopg.conninfo import make_conninfo

from flowkit.errors import StoreError
from flowkit.identity import RunIdentity
from flowkit.journal.postgres.address import Address, read_address
from flowkit.queues.worker import QueueWorker
from flowkit.stores.waiting import wait_in_thread

logger = logging.getLogger("flowkit.queues")

TASK = "flowkit.drive"
AGAIN_S = 1.0
"""After how long a connection to the queue that broke is tried again."""
TIDY_S = 60.0
"""How often jobs are removed whose worker died while it took them."""
CONNECTIONS = 4
CONNECT_S = 5
"""How long the pool may take for a connection, and after how long it begins its attempts anew.

It waits twice as long after each, so after a long outage the queue would stay away for as long again.
"""


class ProcrastinateQueue:
    """The queue in one database; `open_queue` connects it."""

    def __init__(self, app: procrastinate.App, address: Address) -> None:
        self.app = app
        self._address = address

    async def put(self, run: RunIdentity, name: str) -> None:
        """Notify workers of a run; nothing happens where a job for it is queued already."""
        job = self.app.configure_task(TASK, queue=_name_queue(name), queueing_lock=run.key)
        try:
            with suppress(exceptions.AlreadyEnqueued):
                await job.defer_async(run_id=run.run_id, user=run.user, session=run.session)
        except (exceptions.ConnectorException, psycopg.Error) as error:
            logger.warning(
                "run %s: the queue can't be told, so a worker has to find it: %s",
                run.run_id,
                _explain(error, self._address),
                extra={"run_id": run.run_id},
            )

    async def feed(self, worker: QueueWorker, stop: asyncio.Event) -> None:
        """Feed the announced runs to the worker, until `stop` is set."""
        names = list(worker.driver.served.targets)

        async def take(run_id: str, user: str | None, session: str | None) -> None:
            run = RunIdentity(user, session, run_id)
            if not await worker.take(run):
                found = await wait_in_thread(worker.driver.journal.find, run_id, user=user, session=session)
                if found is not None:
                    await self.put(run, found.name)

        self.app.task(name=TASK)(take)
        stopping = asyncio.create_task(stop.wait())
        tidying = asyncio.create_task(self._tidy())
        feeding: asyncio.Task[None] | None = None
        try:
            while not stop.is_set():
                feeding = asyncio.create_task(self._feed_once([_name_queue(name) for name in names]))
                await asyncio.wait({feeding, stopping}, return_when=asyncio.FIRST_COMPLETED)
                feeding.cancel()
                await asyncio.wait([feeding])
                if not stop.is_set():
                    error = None if feeding.cancelled() else feeding.exception()
                    cause = "its connection broke" if error is None else _explain(error, self._address)
                    logger.warning("the queue is lost for a moment: %s", cause)
                    await asyncio.wait([stopping], timeout=AGAIN_S)
        finally:
            # Also when this is cancelled while procrastinate's worker ends: it needs the connections, which are closed next.
            left = [task for task in (stopping, tidying, feeding) if task is not None]
            for task in left:
                task.cancel()
            await asyncio.wait(left)
            if feeding is not None and not feeding.cancelled():
                feeding.exception()

    async def _feed_once(self, queues: list[str]) -> None:
        taker = _Taker(
            self.app,
            queues=queues,
            concurrency=1,
            install_signal_handlers=False,
            delete_jobs=DeleteJobCondition.ALWAYS,
        )
        await taker.run()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            with suppress(exceptions.ConnectorException, psycopg.Error):
                for job in await self.app.job_manager.get_stalled_jobs(task_name=TASK):
                    await self.app.job_manager.finish_job(job, Status.FAILED, delete_job=True)


class _Taker(Worker):
    """procrastinate's worker, made to notice that its listener or its heartbeat has failed.

    It watches both only until the first of its side tasks has ended; and the one for periodic tasks ends at once where
    there are none. Then a lost listener leaves it polling every five seconds, and a lost heartbeat makes its jobs count
    as those of a dead worker.
    """

    async def _periodic_deferrer(self) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def open_queue(url: str, *, makes_tables: bool = False) -> AsyncGenerator[ProcrastinateQueue]:
    """Connect to the queue at `postgresql://…`; raises `StoreError` where it can't be reached, or has no tables."""
    address = read_address(url, what="queue")
    conninfo = make_conninfo(**address.parameters)
    connector = procrastinate.PsycopgConnector(
        conninfo=conninfo,
        min_size=1,
        max_size=CONNECTIONS,
        timeout=CONNECT_S,
        reconnect_timeout=CONNECT_S,
    )
    app = procrastinate.App(connector=connector)
    try:
        # The pool would try for half a minute, and say only that it did.
        await (await psycopg.AsyncConnection.connect(conninfo)).close()
        await app.open_async()
        refused = await _make_tables(app) if makes_tables else None
        has_tables = await app.check_connection_async()
        forbidden = await _find_forbidden(conninfo) if has_tables else None
    except (exceptions.ConnectorException, psycopg.Error) as error:
        await app.close_async()
        raise StoreError(f"the queue {address.name!r} can't be reached: {_explain(error, address)}") from error
    try:
        if not has_tables and refused is not None:
            raise StoreError(f"the tables of the queue {address.name!r} can't be made: {_explain(refused, address)}")
        if not has_tables:
            raise StoreError(
                f"the queue {address.name!r} has no tables yet: make them once, with `flowkit worker … --make-tables`"
            )
        if forbidden is not None:
            raise StoreError(
                f"the queue {address.name!r} can't be used: the role has no rights on {forbidden}; it needs SELECT,"
                " INSERT, UPDATE and DELETE on procrastinate's tables, and USAGE on their sequences"
            )
        yield ProcrastinateQueue(app, address)
    finally:
        await app.close_async()


async def _make_tables(app: procrastinate.App) -> exceptions.ConnectorException | None:
    """Make the queue's tables unless they are there; return why that failed.

    Another process may make them in parallel: the second one fails, and finds them.
    """
    if not await app.check_connection_async():
        try:
            await app.schema_manager.apply_schema_async()
        except exceptions.ConnectorException as error:
            return error
    return None


_MAY_NOT = r"""
SELECT min(c.relname::text) FROM pg_class c, unnest(
    CASE c.relkind WHEN 'S' THEN '{USAGE}' ELSE '{SELECT,INSERT,UPDATE,DELETE}' END::text[]) AS needed
WHERE c.relname LIKE 'procrastinate\_%%' AND pg_table_is_visible(c.oid) AND NOT CASE c.relkind
    WHEN 'r' THEN has_table_privilege(c.oid, needed) WHEN 'S' THEN has_sequence_privilege(c.oid, needed) ELSE TRUE END
"""


async def _find_forbidden(conninfo: str) -> str | None:
    """Return a table that the role may not use: a worker would only find that the queue is lost."""
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        found = await (await connection.execute(_MAY_NOT, ())).fetchone()
    return None if found is None else found[0]


def _explain(error: BaseException, address: Address) -> str:
    return address.hide(" ".join(str(error.__cause__ or error).split()))


def _name_queue(name: str) -> str:
    """Name the queue for the runs of one agent or recipe: a worker without it isn't notified of them."""
    return f"flowkit/{name}"
