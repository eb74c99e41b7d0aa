"""PgBouncer in front of a PostgreSQL server: few connections shared by many clients, a transaction each."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.servers.postgres import READY_S, PostgresServer
from tests.servers.processes import ServerProcess, find_free_port, require_program, server_folder


@dataclass(frozen=True)
class PgBouncer:
    """A pooler that listens at this port."""

    port: int

    def address(self, database: str, user: str = "flowkit") -> str:
        """The address of a database, by way of the pooler."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"


@contextmanager
def start_pgbouncer(server: PostgresServer, *, pool_size: int = 4) -> Generator[PgBouncer]:
    """A pooler in transaction mode; skips the test where PgBouncer isn't installed."""
    import psycopg

    program = require_program("pgbouncer", "pgbouncer")
    with server_folder("pgbouncer") as folder:
        bouncer = PgBouncer(find_free_port())
        users = folder / "users.txt"
        users.write_text('"flowkit" ""\n')
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            # `auth_type = any` logs everybody in as one user, who is named with the database.
            f"[databases]\n* = host=127.0.0.1 port={server.port} user=flowkit\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {bouncer.port}\nunix_socket_dir =\n"
            f"auth_type = any\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {pool_size}\nmax_client_conn = 200\n"
        )
        for path in (users, settings):
            path.chmod(0o644)
        process = ServerProcess([program, str(settings)], folder / "pgbouncer.log", end="QUIT")
        try:
            until = time.monotonic() + READY_S
            while True:
                process.check()
                try:
                    psycopg.connect(bouncer.address("postgres"), connect_timeout=10).close()
                    break
                except psycopg.OperationalError:
                    assert time.monotonic() < until, process.read_log()
                    time.sleep(0.02)
            yield bouncer
        finally:
            process.end()
