"""Caches and journals that tests open, and close again whatever happens."""

import os
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from flowkit.cache import DiskCache
from flowkit.clock import Clock
from flowkit.journal import Journal


@asynccontextmanager
async def opened(path: Path, *, clock: Clock | None = None, **options: Any) -> AsyncGenerator[DiskCache]:
    """A cache in this folder."""
    cache = DiskCache(path, clock=clock, **options)
    try:
        yield cache
    finally:
        await cache.close()


@contextmanager
def fast_folder() -> Generator[Path]:
    """A folder in memory where the system has one: a kill loses nothing there, and nobody waits for the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@contextmanager
def opened_journal(path: Path, *, clock: Clock | None = None, **options: Any) -> Generator[Journal]:
    """The journal in this file."""
    journal = Journal(path, clock=clock, **options)
    try:
        yield journal
    finally:
        journal.close()


def pretend_another_machine(path: Path) -> None:
    """Let who drives or has claimed anything in this journal be a process that can't be asked from here."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("run", "node"):
            connection.execute(
                f"UPDATE {table} SET holder = 'elsewhere|another-boot|pid:[1]|17|4711|00' WHERE holder IS NOT NULL"
            )
