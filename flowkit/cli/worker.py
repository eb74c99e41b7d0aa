"""`flowkit worker`: drive the runs of a journal that other processes started.

Open the queue that a command names.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Annotated

import typer

from flowkit.apps import load_app
from flowkit.cache import open_default_cache
from flowkit.cli.ending import end_at_sigterm, leave, stop_by_signals
from flowkit.cli.journals import await_database, open_journal
from flowkit.cli.model_choice import choose_model, close_models
from flowkit.cli.options import (
    WAIT_S,
    AppTarget,
    BaseUrl,
    CacheAddress,
    Data,
    JournalAddress,
    Model,
    ToolsFile,
    Wait,
    read_pairs,
)
from flowkit.cli.output import note
from flowkit.errors import ConfigurationError
from flowkit.journal.log import RUN_LEASE_S
from flowkit.queues import Driver, QueueWorker
from flowkit.runs.queue import JournalQueue, RunQueue

IN_JOURNAL = "journal"


def await_queue(url: str | None, wait_s: float) -> None:
    """Check the address of a queue, and wait at most `wait_s` for its database. `journal` needs no waiting."""
    if url is None or url == IN_JOURNAL:
        return
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError("--queue takes postgresql://… or the word journal")
    if find_spec("procrastinate") is None:
        raise ConfigurationError("this queue needs another package: pip install 'flowkit-agents[queue]'")
    await_database(url, wait_s, what="queue")


@asynccontextmanager
async def open_queue(url: str, *, makes_tables: bool = False) -> AsyncGenerator[RunQueue]:
    """Connect to the queue at this URL. For `journal`, workers find the runs in the journal itself."""
    if url == IN_JOURNAL:
        yield JournalQueue()
        return
    from flowkit.queues.procrastinate import open_queue as connect

    async with connect(url, makes_tables=makes_tables) as queue:
        yield queue


GRACE_S = 10.0
LEASE_AT_LEAST_S = 1.0
"""It is renewed three times in a lease, and a busy machine may be late."""


def worker(
    app: AppTarget,
    queue: Annotated[
        str, typer.Option(metavar="URL", help="The queue that announces runs, postgresql://…; by default the journal.")
    ] = IN_JOURNAL,
    concurrency: Annotated[int, typer.Option(min=1, help="How many runs to drive in parallel.")] = 16,
    grace: Annotated[
        float, typer.Option(min=0, help="How many seconds a write has to finish when the worker is stopped.")
    ] = GRACE_S,
    lease: Annotated[
        float,
        typer.Option(
            min=LEASE_AT_LEAST_S,
            metavar="SECONDS",
            help="After how many seconds others take over its runs if this worker's machine dies.",
        ),
    ] = RUN_LEASE_S,
    make_tables: Annotated[
        bool, typer.Option("--make-tables", help="Make the queue's tables first if they don't exist.")
    ] = False,
    wait: Wait = WAIT_S,
    tools: ToolsFile = None,
    model: Model = None,
    base_url: BaseUrl = None,
    data: Data = None,
    journal: JournalAddress = None,
    cache: CacheAddress = None,
) -> None:
    """Drive runs that other processes started, released or left.

    Runs are left behind by a crash.
    """
    from flowkit.web.served import make_served

    end_at_sigterm()
    served = make_served(load_app(app, tools=tools), read_pairs(data, "--data"))
    is_named = model is not None or base_url is not None
    await_queue(queue, wait)
    with (
        open_journal(journal, wait_s=wait, lease_s=lease) as opened,
        choose_model(served.models, model, base_url) as chosen,
    ):
        served = replace(served, model=chosen, replaces_all=is_named)

        async def run() -> None:
            stop = asyncio.Event()
            stop_by_signals(stop)
            for name in ("psycopg", "psycopg.pool"):  # they warn of what the stop breaks off
                logging.getLogger(name).addFilter(lambda record: not stop.is_set())
            async with open_queue(queue, makes_tables=make_tables) as tells:
                note(f"working on {', '.join(served.targets)}; press Ctrl-C to stop")
                await QueueWorker(Driver(served, opened), queue=tells, at_once=concurrency).work(stop, grace)
            await close_models(*served.models, *([] if chosen is None else [chosen]))
            await open_default_cache().close()

        runner = asyncio.Runner()
        runner.run(run())
        opened.close()
        leave(runner)
