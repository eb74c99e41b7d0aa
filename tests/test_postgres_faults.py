"""A journal on PostgreSQL when servers, connections and processes fail: no write starts that nobody knows of, none twice."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from secrets import token_hex
from typing import Any

import psycopg
import pytest

from flowkit import recipe, submit
from flowkit.errors import InDoubt, RunBusy, StoreError
from flowkit.events import CallFinished, EventLog
from flowkit.journal import Journal, Retry, RunJournal
from flowkit.journal.postgres import session
from flowkit.journal.postgres.schema import migrate
from tests.servers.postgres import PostgresServer, make_postgres, start_postgres
from tests.servers.processes import find_free_port, server_folder
from tests.small_disk import resize_disk, small_disk

pytestmark = pytest.mark.slow


@recipe
def noted() -> None:
    """Do nothing."""


@contextmanager
def opened(address: str, **options: Any) -> Generator[Journal]:
    with closing(Journal(address, **options)) as journal:
        yield journal


@contextmanager
def own_server(settings: Mapping[str, str] | None = None) -> Generator[tuple[PostgresServer, str]]:
    """A server that only this test has, and the address of a journal on it."""
    with start_postgres(settings) as server:
        address = server.address(server.create_database())
        migrate(address)
        yield server, address


async def claim(run: RunJournal, node: str, timeout_s: float | None = None) -> int:
    return await run.claim(node, tool="pay", code="", effect="write", arguments={}, timeout_s=timeout_s)


async def record(run: RunJournal, node: str, value: int) -> None:
    await run.record(node, state="finished", value=value, effect="write")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  # what is waited for is elsewhere
            await asyncio.sleep(0.01)


# The server goes and comes back


def test_what_was_acknowledged_survives_a_crash_of_the_server_and_the_runs_go_on() -> None:
    """Reads, turns and events as well: what a crash took of them is written again."""
    runs, writes = 4, 40

    async def main(server: PostgresServer, address: str) -> None:
        opened_runs = asyncio.Semaphore(0)
        with opened(address) as journal:

            async def drive(number: int) -> RunJournal:
                run = await journal.open_run(f"r{number}", name="n")
                opened_runs.release()
                log = EventLog(run.run_id, lambda: 0.0)
                log.listen(run.append_event)
                for step in range(writes):
                    await run.record(f"read{step}", state="finished", value=step, effect="read")
                    await run.record_turn(step + 1, {"turn": step})
                    await claim(run, f"w{step}")
                    await record(run, f"w{step}", step)
                    log.emit(CallFinished, f"w{step}", step)
                return run

            async def restart() -> None:
                # A database that was never reached is refused at once, so the crashes come after that.
                for _ in range(runs):
                    await opened_runs.acquire()
                for _ in range(3):
                    await until(lambda: bool(server.execute("SELECT 1")))
                    await asyncio.to_thread(server.restart, "immediate")

            *driven, _ = await asyncio.gather(*map(drive, range(runs)), restart())
            for run in driven:
                assert isinstance(run, RunJournal)
                await run.finish("done")
            for number in range(runs):
                found = journal.show(f"r{number}")
                assert found is not None
                assert found.summary.status == "done"
                written = {node: (kept.state, kept.value) for node, kept in found.nodes.items()}
                assert written == {
                    f"{kind}{step}": ("finished", step) for step in range(writes) for kind in ("read", "w")
                }
                assert len(found.turns) == writes
                assert len(journal.events(f"r{number}")) == writes

    with own_server() as (server, address):
        asyncio.run(main(server, address))


def test_while_the_server_is_away_nothing_starts_and_the_error_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY_S", 0.5)

    async def main(server: PostgresServer, address: str) -> None:
        with opened(address) as journal:
            run = await journal.open_run("r", name="n")
            await claim(run, "w")
            server.stop("immediate")
            with pytest.raises(StoreError, match="can't be written"):
                await record(run, "w", 1)
            with pytest.raises(StoreError, match="can't be written"):
                await claim(run, "x")
            assert run.lookup("x") is None
            with pytest.raises(StoreError, match="can't be read"):
                await asyncio.to_thread(journal.runs)
            server.start()
            await record(run, "w", 2)
            assert await claim(run, "x") == 1
            await run.finish("done")
            assert [found.status for found in journal.runs()] == ["done"]

    with own_server() as (server, address):
        asyncio.run(main(server, address))


def test_a_server_that_hangs_is_given_up_in_time_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY_S", 0.5)
    monkeypatch.setattr(session, "DURABLE_S", 0.5)
    monkeypatch.setattr("flowkit.journal.postgres.link.GRACE_S", 1.0)

    async def main(server: PostgresServer, address: str) -> None:
        with opened(address) as journal:
            run = await journal.open_run("r", name="n")
            server.pause()
            try:
                with pytest.raises(StoreError, match=r"doesn't answer|timeout|timed out"):
                    await claim(run, "w")
            finally:
                server.go_on()
            await until(lambda: bool(server.execute("SELECT 1")))
            assert await claim(run, "x") == 1

    with own_server() as (server, address):
        asyncio.run(main(server, address))


async def fill(run: RunJournal, size: int = 20_000) -> list[str]:
    """Write until there is no room; what was acknowledged."""
    kept: list[str] = []
    with suppress(StoreError):
        for number in range(5000):
            await claim(run, f"w{number}")
            await run.record(f"w{number}", state="finished", value=token_hex(size // 2), effect="write")
            kept.append(f"w{number}")
    assert 0 < len(kept) < 5000
    return kept


async def check_kept(journal: Journal, run_id: str, kept: Sequence[str]) -> None:
    """The run goes on, all that was acknowledged is there, and no claim of what didn't start."""
    run = await journal.open_run(run_id, name="n")
    for node in kept:
        found = run.lookup(node)
        assert found is not None
        assert found.state == "finished"
    assert run.lookup("more") is None
    assert await claim(run, "more") == 1
    await run.finish("done")


def test_on_a_full_disk_no_claim_is_granted_and_the_run_goes_on_when_there_is_room(
    postgres_server: PostgresServer,
) -> None:
    """The tables' disk is full; the server has another for its log."""
    with server_folder("full") as folder, small_disk(folder / "disk", "24m") as disk:
        name = f"full_{token_hex(4)}"
        postgres_server.execute(f"CREATE TABLESPACE {name} LOCATION '{disk}'")
        postgres_server.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        address = postgres_server.address(name)
        migrate(address)

        async def main() -> None:
            with opened(address) as journal:
                run = await journal.open_run("r", name="n")
                kept = await fill(run)
                with pytest.raises(StoreError, match="No space left on device"):
                    await run.claim("more", tool="pay", code="", effect="write", arguments=token_hex(10_000_000))
                resize_disk(disk, "200m")
                await run.close()
                await check_kept(journal, "r", kept)

        try:
            asyncio.run(main())
        finally:
            postgres_server.drop_database(name)
            postgres_server.execute(f"DROP TABLESPACE {name}")


def test_a_server_whose_log_has_no_room_is_an_error_in_time_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops, and can't start before there is room."""
    monkeypatch.setattr(session, "RETRY_S", 0.5)
    settings = {"wal_recycle": "off", "min_wal_size": "32MB", "max_wal_size": "1GB"}
    with server_folder("full") as folder, small_disk(folder / "disk", "64m") as disk:
        server = make_postgres(folder / "primary", settings)
        try:
            server.stop()
            # Its log alone is on the small disk: else it may be a table that finds no room, and a claim that does.
            subprocess.run(["cp", "-a", folder / "primary" / "pg_wal", disk / "wal"], check=True)
            shutil.rmtree(folder / "primary" / "pg_wal")
            (folder / "primary" / "pg_wal").symlink_to(disk / "wal")
            server.start()
            address = server.address(server.create_database())
            migrate(address)

            async def main() -> None:
                with opened(address, lease_s=2) as journal:
                    run = await journal.open_run("r", name="n")
                    kept = await fill(run)
                    with pytest.raises(StoreError, match=r"can't be written"):
                        await claim(run, "more")
                    resize_disk(disk, "1g")
                    await asyncio.to_thread(server.restart, "immediate")
                    with suppress(StoreError):
                        await run.close()
                    await until(lambda: bool(journal.stopped()))
                    await check_kept(journal, "r", kept)

            asyncio.run(main())
        finally:
            server.stop("immediate")


def test_too_many_clients_are_waited_for_and_then_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY_S", 0.5)

    async def main(address: str) -> None:
        with opened(address) as journal:
            run = await journal.open_run("r", name="n")
            other = address.replace("flowkit@", "somebody@")
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute("CREATE ROLE somebody LOGIN")
                connection.execute("GRANT USAGE ON SCHEMA flowkit TO somebody")
                connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA flowkit TO somebody")
            taken: list[psycopg.Connection[Any]] = []
            with suppress(psycopg.OperationalError):
                while True:
                    taken.append(psycopg.connect(other))
            with pytest.raises(StoreError, match="can't be read"):
                await asyncio.to_thread(Journal, other)
            for connection in taken:
                connection.close()
            await asyncio.to_thread(lambda: Journal(other).close())
            await claim(run, "w")

    with own_server({"max_connections": "12"}) as (_, address):
        asyncio.run(main(address))


# Answers are lost


class Proxy:
    """Passes bytes to a server; `lose_answers` passes what clients send, and cuts them off before the answer."""

    def __init__(self, port: int) -> None:
        self.to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.lose_answers = 0
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    def close(self) -> None:
        for each in (self._listening, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.to))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                self._start(self._pass_on, client, server)
                self._start(self._pass_back, server, client)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(2**16):
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(2**16):
                # The end of a transaction: the server has committed, and nobody hears of it.
                if self.lose_answers and b"COMMIT\0" in data:
                    self.lose_answers -= 1
                    break
                client.sendall(data)
        for each in (client, server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def test_whose_answer_was_lost_after_the_commit_is_done_once(
    postgres_journal: str, postgres_server: PostgresServer
) -> None:
    async def main(proxy: Proxy) -> None:
        address = postgres_journal.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with opened(address) as journal:

            def lose() -> None:
                assert proxy.lose_answers == 0, "an answer that was to be lost was none"
                proxy.lose_answers = 1

            await (await journal.open_run("warm", name="n")).finish("done")
            lose()
            run = await journal.open_run("r", name="n")
            lose()
            assert await claim(run, "w") == 1
            lose()
            await record(run, "w", 1)
            lose()
            await run.ask("q", name="q", arguments={})
            lose()
            journal.decide("r", "q", approved=True, by="ann")
            await claim(run, "doubt")
            lose()
            await run.close()
            lose()
            assert journal.resolve("r", "doubt", Retry(), by="ann").state == "retry"
            lose()
            run = await journal.open_run("r", name="n")
            assert await claim(run, "doubt") == 2
            lose()
            await run.finish("done")
            assert proxy.lose_answers == 0
            found = journal.show("r")
            assert found is not None
            assert {node: kept.attempt for node, kept in found.nodes.items()} == {"w": 1, "doubt": 2}
            lose()
            assert journal.prune(-60) in (0, 1, 2)
            assert journal.runs() == []

    with closing(Proxy(postgres_server.port)) as proxy:
        asyncio.run(main(proxy))


# Processes


DRIVER = """
import asyncio, os, sys
from flowkit.errors import RunBusy
from flowkit.journal import Journal

async def main(address):
    journal = Journal(address, lease_s=1)
    run = await journal.open_run("r", name="n")
    await run.record("read", state="finished", value=1, effect="read")
    await run.claim("w", tool="pay", code="", effect="write", arguments={}, timeout_s=600)
    print("started", flush=True)
    sys.stdin.readline()
    try:
        await run.record("w", state="finished", value="late", effect="write")
    except RunBusy:
        print("refused", flush=True)
    journal.close()

asyncio.run(main(sys.argv[1]))
"""


@contextmanager
def driver(address: str) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", DRIVER, address]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "started\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_driver_that_was_stopped_past_its_lease_loses_the_run_and_nobody_repeats_its_write(
    postgres_journal: str,
) -> None:
    async def main() -> None:
        with driver(postgres_journal) as stopped, opened(postgres_journal) as journal:
            os.kill(stopped.pid, signal.SIGSTOP)
            await until(lambda: bool(journal.stopped()))
            run = await journal.open_run("r", name="n")
            assert run.may_still_run("w"), "its tool has ten minutes"
            with pytest.raises(InDoubt):
                await run.resolve("w", Retry())
            with pytest.raises(InDoubt):
                await claim(run, "w")
            os.kill(stopped.pid, signal.SIGCONT)
            said, _ = stopped.communicate("\n", timeout=120)
            assert said == "refused\n"
            await run.close()

    asyncio.run(main())


def test_a_driver_that_was_killed_leaves_its_write_in_doubt_and_its_run_to_others(postgres_journal: str) -> None:
    async def main() -> None:
        with driver(postgres_journal) as killed, opened(postgres_journal) as journal:
            killed.kill()
            killed.wait()
            with pytest.raises(RunBusy):
                await journal.open_run("r", name="n")  # its lease still runs
            await until(lambda: bool(journal.stopped()))
            run = await journal.open_run("r", name="n")
            assert {node: found.state for node, found in run.nodes.items()} == {"read": "finished", "w": "in_doubt"}
            await run.close()

    asyncio.run(main())


# Standbys


def test_after_a_fail_over_to_a_standby_that_lagged_the_old_driver_can_write_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told at opening that what a standby didn't get is lost."""

    async def main(server: PostgresServer, standby: PostgresServer, address: str, proxy: Proxy) -> None:
        with opened(address.replace(f":{server.port}/", f":{proxy.port}/"), lease_s=1) as one:
            await (await one.open_run("r", name="n")).close()
            assert caplog.text.count("has a standby that it doesn't wait for") == 1
            old = await one.open_run("r", name="n")
            received = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
            await until(lambda: bool(server.execute(received)))
            standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            standby.execute("SELECT pg_reload_conf()")
            await until(lambda: not standby.execute("SELECT 1 FROM pg_stat_wal_receiver"))
            await claim(old, "lost")
            server.stop("immediate")
            standby.promote()
            with opened(standby.address(address.rpartition("/")[2])) as other:
                await until(lambda: bool(other.stopped()))
                new = await other.open_run("r", name="n")
                assert new.lookup("lost") is None, "that is what was warned of"
                proxy.to = standby.port  # the address leads to the new primary
                with pytest.raises(RunBusy):
                    await record(old, "lost", 1)
                with pytest.raises(RunBusy):
                    await claim(old, "more")
                assert await claim(new, "w") == 1
                await new.close()

    with own_server() as (server, address), server.standby() as standby, closing(Proxy(server.port)) as proxy:
        asyncio.run(main(server, standby, address, proxy))


def test_numbers_that_a_promoted_standby_gives_again_are_passed_over() -> None:
    """Its sequence lacks what the primary gave last, while the runs' drivers have written their rows again."""

    async def main(server: PostgresServer, address: str) -> None:
        database = address.rpartition("/")[2]
        with opened(address) as journal:
            for number in range(40):
                await (await journal.open_run(f"r{number}", name="n")).close()
            server.execute("ALTER TABLE flowkit.run ALTER COLUMN id RESTART WITH 5", database=database)
            outer = await journal.open_run("outer", name="n", user="ann")
            server.execute("ALTER TABLE flowkit.run ALTER COLUMN id RESTART WITH 5", database=database)
            inner = await outer.open_inside("inner", name="n")
            server.execute("ALTER TABLE flowkit.run ALTER COLUMN id RESTART WITH 5", database=database)
            assert await submit(noted, run_id="submitted", journal=journal) == "submitted"
            await inner.close()
            await outer.close()
            names = {f"r{number}" for number in range(40)} | {"outer", "submitted"}
            assert {run.run_id for run in journal.runs(limit=100)} == names

    with own_server() as (server, address):
        asyncio.run(main(server, address))


def test_a_submitted_run_survives_a_crash_of_the_server_after_its_process_has_ended() -> None:
    with own_server({"wal_writer_delay": "10s"}) as (server, address), opened(address) as journal:
        asyncio.run(submit(noted, run_id="r", journal=journal))
        server.restart("immediate")
        # What this journal would write again isn't: its process may have ended.
        with opened(address) as other:
            assert [run.run_id for run in other.runs(status="queued")] == ["r"]


@pytest.mark.parametrize("level", ["notice", "error"])
def test_a_synchronous_standby_that_is_away_stops_writes_with_an_error_and_nothing_else(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a warning says that a commit isn't on the standby; a role may have turned those off."""
    monkeypatch.setattr(session, "DURABLE_S", 1.0)

    async def main(server: PostgresServer, address: str) -> None:
        server.execute(f"ALTER ROLE flowkit SET client_min_messages = '{level}'")
        with opened(address) as journal:
            run = await journal.open_run("r", name="n")
            server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            server.execute("SELECT pg_reload_conf()")
            await until(lambda: server.execute("SHOW synchronous_standby_names") == [("nobody",)])
            with pytest.raises(StoreError, match="synchronous standby doesn't answer"):
                await claim(run, "w")
            assert run.lookup("w") is None
            # What needn't survive goes on.
            await run.record_turn(1, {"said": 1})
            await run.record("read", state="finished", value=1, effect="read")
            await run.refresh()
            server.execute("ALTER SYSTEM RESET synchronous_standby_names")
            server.execute("SELECT pg_reload_conf()")
            await until(lambda: server.execute("SHOW synchronous_standby_names") == [("",)])
            assert await claim(run, "x") == 1
            await run.close()
            run = await journal.open_run("r", name="n")
            assert run.lookup("w") is None, "it never started, and was taken back"
            assert run.lookup("read") is not None
            await run.close()

    with own_server() as (server, address):
        asyncio.run(main(server, address))


# A pooler


def test_a_journal_behind_a_pooler_in_transaction_mode(pgbouncer: Any, postgres_journal: str) -> None:
    """Many clients share few connections of the server; nothing of one is seen by another."""
    address = pgbouncer.address(postgres_journal.rpartition("/")[2])

    async def drive(journal: Journal, number: int) -> None:
        run = await journal.open_run(f"r{number}", name="n")
        for step in range(10):
            await run.record(f"read{step}", state="finished", value=step, effect="read")
            await claim(run, f"w{step}")
            await record(run, f"w{step}", step)
        await run.ask("q", name="q", arguments={})
        await asyncio.to_thread(journal.decide, run.run_id, "q", approved=True, by="ann")
        assert (await run.refresh())["q"].decision is not None
        await run.finish("done")

    async def main() -> None:
        journals = [Journal(address) for _ in range(12)]
        try:
            await asyncio.gather(*(drive(journal, number) for number, journal in enumerate(journals)))
            assert len(journals[0].runs()) == 12
            assert [event async for event in journals[0].follow("r1")] == []
        finally:
            for journal in journals:
                journal.close()

    asyncio.run(main())


def test_a_port_where_nobody_listens_is_an_error_at_once() -> None:
    with pytest.raises(StoreError, match="can't be read"):
        Journal(f"postgresql://flowkit@127.0.0.1:{find_free_port()}/db")
