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
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer


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


class Databases:
    """Databases that stand for the paths of journals."""

    def __init__(self, server: PostgresServer, template: str, pooler: PgBouncer | None) -> None:
        self.server = server
        self._template = template
        self._pooler = pooler
        self.names: dict[Path, str] = {}

    def address(self, path: Path) -> str:
        """The journal that stands for this path; made when it is first asked for."""
        if path not in self.names:
            self.names[path] = self.server.create_database(self._template)
        return (self._pooler or self.server).address(self.names[path])


_databases: list[Databases] = []


@contextmanager
def databases_for_paths(server: PostgresServer, template: str, pooler: PgBouncer | None = None) -> Generator[None]:
    """In this block journals are databases; each a copy of this one."""
    databases = Databases(server, template, pooler)
    _databases.append(databases)
    try:
        yield
    finally:
        _databases.remove(databases)
        for name in databases.names.values():
            server.drop_database(name)


def journal_at(path: Path) -> str | Path:
    """What `Journal` takes for the journal that a test calls by this path."""
    return _databases[-1].address(path) if _databases else path


@contextmanager
def opened_journal(path: Path, *, clock: Clock | None = None, **options: Any) -> Generator[Journal]:
    """The journal in this file, or in the database that stands for it."""
    journal = Journal(journal_at(path), clock=clock, **options)
    try:
        yield journal
    finally:
        journal.close()


def pretend_another_machine(path: Path) -> None:
    """Let who drives or has claimed anything in this journal be a process that can't be asked from here."""
    if _databases:
        return  # nobody asks there: time decides
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("run", "node"):
            connection.execute(
                f"UPDATE {table} SET holder = 'elsewhere|another-boot|pid:[1]|17|4711|00' WHERE holder IS NOT NULL"
            )
