"""A PostgreSQL server of the tests' own: databases on demand, restarts, and standbys.

with start_postgres() as server:
    address = server.create_database()      # postgresql://flowkit@127.0.0.1:…/…
    server.restart("immediate")
"""

import itertools
import os
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.servers.processes import ServerProcess, find_free_port, require_program, run_tool, server_folder

READY_S = 120.0
"""How long a server may take to answer on a busy machine."""
Mode = Literal["smart", "fast", "immediate"]
_SIGNALS: Mapping[Mode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class PostgresServer:
    """A server in this folder, which was made by `initdb` or `pg_basebackup`; it trusts whoever reaches its port."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = find_free_port()
        self._settings = dict(settings or {})
        self._names = itertools.count(1)
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int:
        """The number of its first process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it answers."""
        settings = {
            "port": str(self.port),
            "unix_socket_directories": str(self.folder.parent),
            "listen_addresses": "127.0.0.1",
            "max_connections": "100",
            # What crashes here is the server, not the machine: the system keeps what it wrote. Waiting for the disk
            # would make a crash's recovery take minutes where others write, since it syncs every file.
            "fsync": "off",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = ServerProcess(
            [require_postgres("postgres"), "-D", str(self.folder), *options],
            self.folder.parent / f"{self.folder.name}.log",
            end="QUIT",
        )
        until = time.monotonic() + READY_S
        while not self._is_ready():
            self._process.check()
            assert time.monotonic() < until, self._process.read_log()
            time.sleep(0.02)

    def stop(self, mode: Mode = "fast") -> None:
        """Stop it; `immediate` is what a crash is: nothing is written any more."""
        if self._process is not None:
            self._process.end(_SIGNALS[mode])
            self._process = None

    def restart(self, mode: Mode = "fast") -> None:
        """Stop it and start it again, on the same port."""
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """Stop all of its processes where they are, as a machine that hangs; `go_on` lets them go on."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def promote(self) -> None:
        """Make a standby the primary."""
        run_tool([require_postgres("pg_ctl"), "-D", str(self.folder), "-w", "promote"])

    def address(self, database: str = "postgres", user: str = "flowkit") -> str:
        """The address of one of its databases, as its superuser unless another is named."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, *, database: str = "postgres", parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one statement as its superuser, outside any transaction; returns its rows."""
        import psycopg

        with psycopg.connect(self.address(database), autocommit=True, connect_timeout=10) as connection:
            # The text is the test's own.
            cursor = connection.execute(statement.encode(), parameters or None)
            return [] if cursor.description is None else cursor.fetchall()

    def create_database(self, template: str | None = None) -> str:
        """Make a new database, empty or a copy of another that nobody uses; returns its name."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}{self._copy_option}")
        return name

    @cached_property
    def _copy_option(self) -> str:
        """The option that copies files; from PostgreSQL 15 on, the other way is to log each page, in four times the time."""
        ((version,),) = self.execute("SHOW server_version_num")
        return " STRATEGY FILE_COPY" if int(version) >= 150_000 else ""

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextmanager
    def standby(self, name: str = "standby", settings: Mapping[str, str] | None = None) -> "Generator[PostgresServer]":
        """A second server that follows this one, by the stream of its log."""
        folder = self.folder.parent / name
        run_tool(
            [
                require_postgres("pg_basebackup"),
                *("-h", "127.0.0.1", "-p", str(self.port), "-U", "flowkit", "-D", str(folder)),
                *("-R", "-X", "stream", "-c", "fast", "--no-sync"),
                *("-d", f"application_name={name}"),
            ]
        )
        server = PostgresServer(folder, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")

    def _is_ready(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.address(), connect_timeout=10):
                return True
        except psycopg.OperationalError:
            return False

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        for place in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = place.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self._process.pid:
                with suppress(ProcessLookupError):
                    os.kill(int(place.parent.name), number)
        self._process.send(number)


@contextmanager
def start_postgres(settings: Mapping[str, str] | None = None) -> Generator[PostgresServer]:
    """A new server; skips the test where PostgreSQL isn't installed."""
    with server_folder("postgres") as folder:
        server = make_postgres(folder / "primary", settings)
        try:
            yield server
        finally:
            server.stop("immediate")


def make_postgres(folder: Path, settings: Mapping[str, str] | None = None) -> PostgresServer:
    """Make a server in a folder of its user, and start it; the caller stops it."""
    pytest.importorskip("psycopg", reason="psycopg isn't installed (the extra `postgres`)")
    command = [require_postgres("initdb"), "-D", str(folder), "-U", "flowkit", "-A", "trust"]
    run_tool([*command, "--no-instructions", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"])
    server = PostgresServer(folder, settings)
    server.start()
    return server


def require_postgres(name: str) -> str:
    """The path of one of its programs, of the newest version that is installed; skips the test where there is none."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders = sorted(versions, key=lambda path: int(path.parent.name.partition(".")[0]), reverse=True)
    return require_program(name, "postgresql", *folders)
