"""What every test has: Hypothesis without deadlines, all its examples on the build machine, nothing left behind."""

import asyncio
import asyncio.runners
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import settings

from tests.cache_places import CachePlace, DiskPlace, RedisPlace
from tests.command import Command, make_command
from tests.example_counts import IS_THOROUGH, examples
from tests.servers.pgbouncer import PgBouncer, start_pgbouncer
from tests.servers.postgres import PostgresServer, start_postgres
from tests.servers.redis import RedisServer, start_redis
from tests.stores import databases_for_paths

# Where no byte code may be written, each of the hundreds of processes that tests start compiles the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("default", deadline=None, max_examples=examples(100))
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if IS_THOROUGH else "default")

GRACE_S = 2.0
"""How long a thread that was told to end may take to do so on a busy machine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=1, help="how often each test marked `timing` runs")


_cancel_all_tasks = cast(Callable[[asyncio.AbstractEventLoop], None], vars(asyncio.runners)["_cancel_all_tasks"])


collect_ignore = ["mcp_raw_server.py"]
"""Programs that the tests start: they read their arguments at once."""


@pytest.fixture
def flowkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `flowkit …` in an empty folder."""
    return make_command(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """A PostgreSQL server that the tests of this process share; skips where there is none."""
    with start_postgres() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Generator[str]:
    """The address of an empty database of this test's own."""
    name = postgres_server.create_database()
    yield postgres_server.address(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def journal_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the tables of a journal, which journals of tests are copies of."""
    from flowkit.journal.postgres.schema import migrate

    name = postgres_server.create_database()
    migrate(postgres_server.address(name))
    return name


@pytest.fixture
def postgres_journal(postgres_server: PostgresServer, journal_template: str) -> Generator[str]:
    """The address of an empty journal in PostgreSQL, of this test's own."""
    name = postgres_server.create_database(journal_template)
    yield postgres_server.address(name)
    postgres_server.drop_database(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses `journal_store` over every store of the journal, unless it is about files.

    What depends on the moment runs as often as was asked.
    """
    times = cast(int, metafunc.config.getoption("--times", 1))
    if times > 1 and metafunc.definition.get_closest_marker("timing") is not None:
        metafunc.fixturenames.append("round_number")
        metafunc.parametrize("round_number", range(times))
    if "journal_store" in metafunc.fixturenames:
        is_of_files = metafunc.definition.get_closest_marker("sqlite_only") is not None
        pooled = pytest.param("pgbouncer", marks=pytest.mark.slow)
        kinds = ["sqlite"] if is_of_files else ["sqlite", "postgres", pooled]
        metafunc.parametrize("journal_store", kinds, indirect=True)


@pytest.fixture
def journal_store(request: pytest.FixtureRequest) -> Generator[str]:
    """Which store `opened_journal` opens for a path: the file there, or a database that stands for it.

    A database is reached directly, or through a pooler that gives each transaction another connection.
    """
    kind: str = request.param
    if kind == "sqlite":
        yield kind
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    pooler: PgBouncer | None = request.getfixturevalue("pgbouncer") if kind == "pgbouncer" else None
    with databases_for_paths(server, request.getfixturevalue("journal_template"), pooler):
        yield kind


@pytest.fixture
def postgres_paths(postgres_server: PostgresServer, journal_template: str) -> Generator[None]:
    """Lets `journal_at` give a database for each path."""
    with databases_for_paths(postgres_server, journal_template):
        yield


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Generator[PgBouncer]:
    """A PgBouncer in transaction mode before that server; skips where there is none."""
    with start_pgbouncer(postgres_server) as bouncer:
        yield bouncer


@pytest.fixture(scope="session")
def redis_server() -> Generator[RedisServer]:
    """A Redis server that the tests of this process share; skips where there is none."""
    with start_redis() as server:
        yield server


@pytest.fixture(params=["disk", "redis"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> CachePlace:
    """A place for caches, one of each kind: every test of it is run on the disk and in Redis."""
    if request.param == "disk":
        return DiskPlace(tmp_path / "c")
    server: RedisServer = request.getfixturevalue("redis_server")
    return RedisPlace(server, server.create_database())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector: what it would look through again and again stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a test that passed but left a thread running, or a task for the end of its loop to cancel.

    Fixtures that live longer than the test were set up before, so their threads are known by then.
    """
    threads = set(threading.enumerate())
    tasks: list[str] = []

    def cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
        tasks.extend(str(task.get_coro()) for task in asyncio.all_tasks(loop))
        _cancel_all_tasks(loop)

    with pytest.MonkeyPatch.context() as patch:
        # `asyncio.run` cancels what is left without a word, so this is the only place where it can be seen.
        patch.setattr("asyncio.runners._cancel_all_tasks", cancel_all_tasks)
        yield
    assert not tasks, f"{item.name} left tasks: {', '.join(tasks)}"
    left = [thread for thread in threading.enumerate() if thread not in threads]
    for thread in left:
        thread.join(GRACE_S)
    alive = [thread.name for thread in left if thread.is_alive()]
    assert not alive, f"{item.name} left threads: {', '.join(alive)}"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Generator[None]:
    """Give flowkit's loggers back what a command of the test has set: `-v` speaks of the whole process."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "flowkit"]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in map(logging.getLogger, names)]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate
