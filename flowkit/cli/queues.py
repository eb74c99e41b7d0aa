"""Open the queue that a command names."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec

from flowkit.cli.journals import await_database
from flowkit.errors import ConfigurationError
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
