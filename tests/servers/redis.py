"""A Redis server of the tests' own: databases on demand, restarts, replicas, TLS, a cluster of one node.

with start_redis() as server:
    server.address()        # redis://127.0.0.1:…/0
"""

import itertools
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.processes import ServerProcess, find_free_port, require_program, server_folder

READY_S = 60.0
"""How long a server may take to answer on a busy machine."""


class RedisServer:
    """A server in this folder, that keeps nothing on the disk unless its options say so."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = find_free_port()
        self._options = options
        self._databases = itertools.count(1)
        self._process: ServerProcess | None = None

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it answers."""
        self._process = ServerProcess(
            [
                require_program("redis-server", "redis-server"),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--save", "", "--appendonly", "no", "--databases", "1000"),
                *self._options,
            ],
            self.folder / f"redis-{self.port}.log",
        )
        until = time.monotonic() + READY_S
        while not self._is_ready():
            self._process.check()
            assert time.monotonic() < until, self._process.read_log()
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it: what it had is gone, as after a crash."""
        if self._process is not None:
            self._process.end(signal.SIGKILL)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again, on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it where it is, as a machine that hangs; `go_on` lets it go on."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send(signal.SIGCONT)

    def address(self, database: int = 0) -> str:
        """The address of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """The address of a database that no other test has."""
        return self.address(next(self._databases))

    def execute(self, *words: Any, database: int = 0) -> Any:
        """Run one command."""
        import redis

        make: Any = redis.Redis  # its types have gaps
        with make(port=self.port, db=database, socket_timeout=READY_S, single_connection_client=True) as client:
            return client.execute_command(*words)

    @contextmanager
    def replica(self) -> "Generator[RedisServer]":
        """A second server that follows this one."""
        with start_redis() as other:
            other.execute("REPLICAOF", "127.0.0.1", self.port)
            self.execute("CONFIG", "SET", "repl-diskless-sync-delay", 0)
            until = time.monotonic() + READY_S
            while other.execute("INFO", "replication")["master_link_status"] != "up":
                assert time.monotonic() < until
                time.sleep(0.02)
            yield other

    def _is_ready(self) -> bool:
        import socket

        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=READY_S) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(1) == b"+"  # not while it loads what it had
        except OSError:
            return False


@contextmanager
def start_redis(*options: str) -> Generator[RedisServer]:
    """A new server; skips the test where Redis, or the package that speaks to it, isn't installed."""
    pytest.importorskip("redis", reason="redis-py isn't installed (the extra `redis`)")
    require_program("redis-server", "redis-server")
    with server_folder("redis") as folder:
        server = RedisServer(folder, options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def start_redis_cluster() -> Generator[RedisServer]:
    """A cluster of one node, which has every slot and refuses what isn't in one."""
    # Its nodes' own port is 10,000 above by default, which may be none.
    own_port = ("--cluster-port", str(find_free_port()))
    with start_redis("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", *own_port) as server:
        server.execute("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until = time.monotonic() + READY_S
        while b"cluster_state:ok" not in server.execute("CLUSTER", "INFO"):
            assert time.monotonic() < until
            time.sleep(0.02)
        yield server
