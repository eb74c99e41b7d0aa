"""Caches and journals that tests open, and close again whatever happens."""

import os
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
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
