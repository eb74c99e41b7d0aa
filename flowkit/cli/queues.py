"""The queue that a command names."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec

from flowkit.cli.journals import await_database
from flowkit.errors import ConfigurationError
from flowkit.runs.queue import JournalQueue, RunQueue

IN_JOURNAL = "journal"


@asynccontextmanager
async def open_queue(url: str, *, makes_tables: bool = False, wait_s: float = 0.0) -> AsyncGenerator[RunQueue]:
    """Connect to the queue at this URL; for `journal` it is the journal alone, where workers find the runs.

    A database that takes no connections yet is waited for, at most `wait_s`.
    """
    if url == IN_JOURNAL:
        yield JournalQueue()
        return
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError("--queue takes postgresql://… or the word journal")
    if find_spec("procrastinate") is None:
        raise ConfigurationError("this queue needs another package: pip install 'flowkit-agents[queue]'")
    from flowkit.queues.procrastinate import open_queue as connect

    if wait_s > 0:
        await asyncio.to_thread(await_database, url, wait_s)
    async with connect(url, makes_tables=makes_tables) as queue:
        yield queue
