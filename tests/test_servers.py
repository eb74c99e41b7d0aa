"""The servers that tests start themselves answer, and restart on the port that they had."""

import pytest

from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer, start_postgres


def test_each_test_has_an_empty_database_of_its_own(postgres: str, postgres_server: PostgresServer) -> None:
    name = postgres.rpartition("/")[2]
    postgres_server.execute("CREATE TABLE here (a int)", database=name)

    assert postgres_server.execute("SELECT count(*) FROM here", database=name) == [(0,)]
    other = postgres_server.create_database()
    assert postgres_server.execute("SELECT to_regclass('here')", database=other) == [(None,)]
    postgres_server.drop_database(other)


def test_pooler_reaches_the_server(pgbouncer: PgBouncer, postgres: str) -> None:
    import psycopg

    with psycopg.connect(pgbouncer.address(postgres.rpartition("/")[2])) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.slow
def test_server_keeps_its_port_and_what_was_committed_over_a_crash() -> None:
    with start_postgres() as server:
        server.execute("CREATE TABLE kept (a int)")
        before = server.address()
        server.restart("immediate")

        assert server.address() == before
        assert server.execute("SELECT count(*) FROM kept") == [(0,)]


@pytest.mark.slow
def test_standby_follows_and_is_promoted() -> None:
    with start_postgres() as server:
        server.execute("CREATE TABLE kept (a int)")
        with server.standby() as standby:
            server.stop("immediate")
            standby.promote()
            standby.execute("INSERT INTO kept VALUES (1)")
            assert standby.execute("SELECT a FROM kept") == [(1,)]
