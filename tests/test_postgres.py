"""A journal on a real PostgreSQL: who may write, what is kept, and what is told when something is wrong.

Every test of the journal runs over PostgreSQL as well; these are those that a file can't have.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowkit.clock import ManualClock, SystemClock
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, FlowkitError, InDoubt, RunBusy, RunError, StoreError
from flowkit.events import CallFinished, CallStarted, EventLog, TextDelta
from flowkit.journal import Journal, Retry, RunJournal, migrate
from flowkit.journal.postgres.address import read_address
from flowkit.journal.postgres.link import PostgresLink
from flowkit.journal.postgres.listening import Bell
from flowkit.journal.postgres.schema import VERSION
from flowkit.journal.postgres.session import Session, may_pass
from flowkit.journal.postgres.texts import MANY, array, bind, literal
from flowkit.journal.postgres.writing import PLANS, begin, make_statements
from flowkit.web.following import follow
from tests.command import SHOP, Command
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer

KINDS = ("bigint[]", "text[]", "int[]", "float8[]")
ISOLATIONS = ["read committed", "repeatable read", "serializable"]


@contextmanager
def opened(address: str, **options: Any) -> Generator[Journal]:
    journal = Journal(address, **options)
    try:
        yield journal
    finally:
        journal.close()


async def claim(run: RunJournal, node: str, timeout_s: float | None = None) -> int:
    return await run.claim(node, tool="pay", code="", effect="write", arguments={}, timeout_s=timeout_s)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process or thread does, by asking."""
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  # what is waited for is elsewhere
            await asyncio.sleep(0.01)


def ask(address: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(address, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def is_waiting_for_a_lock(address: str) -> bool:
    found = ask(
        address,
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    return bool(found)


def set_default_isolation(address: str, isolation: str) -> None:
    name = address.rpartition("/")[2]
    ask(address, f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")


# Who may write


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_who_takes_a_run_over_waits_for_a_claim_that_is_being_written_and_sees_it(
    postgres_journal: str, isolation: str
) -> None:
    """Its driver has locked the run for its claim; whatever isolation the server has by default."""
    set_default_isolation(postgres_journal, isolation)
    clock = ManualClock()

    async def main() -> None:
        with opened(postgres_journal, clock=clock) as one, opened(postgres_journal, clock=clock) as other:
            run = await one.open_run("r", name="n")
            await claim(run, "earlier")
            clock.advance(60)
            # What the driver's batch does, held open in the middle.
            with psycopg.connect(postgres_journal) as batch:
                batch.execute("SELECT id FROM flowkit.run FOR SHARE")
                batch.execute(
                    "INSERT INTO flowkit.node SELECT run, 'w', 'w', state, effect, tool, code, attempt, arguments, value,"
                    " blob, error, by, resources, changed, position + 1, deadline FROM flowkit.node"
                )
                taking = asyncio.create_task(other.open_run("r", name="n"))
                await until(lambda: is_waiting_for_a_lock(postgres_journal))
                batch.commit()
            taken = await taking
            assert {node: found.state for node, found in taken.nodes.items()} == {
                "earlier": "in_doubt",
                "w": "in_doubt",
            }
            with pytest.raises(RunBusy):
                await claim(run, "late")
            await taken.close()

    asyncio.run(main())


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_claim_that_meets_a_take_over_waits_for_it_and_is_refused(postgres_journal: str, isolation: str) -> None:
    set_default_isolation(postgres_journal, isolation)

    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run("r", name="n")
            with psycopg.connect(postgres_journal) as taker:
                taker.execute("UPDATE flowkit.run SET token = 'another', holder = 'another'")
                claiming = asyncio.create_task(claim(run, "w"))
                await until(lambda: is_waiting_for_a_lock(postgres_journal))
                taker.commit()
            with pytest.raises(RunBusy, match="took over"):
                await claiming
            assert ask(postgres_journal, "SELECT count(*) FROM flowkit.node") == [(0,)]

    asyncio.run(main())


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_of_many_that_take_a_run_at_once_one_gets_it(postgres_journal: str, isolation: str) -> None:
    set_default_isolation(postgres_journal, isolation)
    takers, rounds = 6, 10
    journals = [Journal(postgres_journal) for _ in range(takers)]
    barrier = threading.Barrier(takers)

    def take(journal: Journal, run_id: str) -> RunJournal | None:
        async def open_run() -> RunJournal | None:
            with suppress(RunBusy):
                return await journal.open_run(run_id, name="n")
            return None

        barrier.wait()
        return asyncio.run(open_run())

    with ThreadPoolExecutor(takers) as threads:
        for number in range(rounds):
            is_new = number % 2 == 0
            run_id = f"r{number - number % 2}"
            got = [run for run in threads.map(take, journals, [run_id] * takers) if run]
            assert len(got) == 1
            assert got[0].is_new == is_new
            asyncio.run(got[0].close())
    for journal in journals:
        journal.close()


def test_two_with_the_same_number_are_told_apart_by_their_tokens(postgres_journal: str) -> None:
    """After a fail-over to a standby that lagged, the next driver has the number that the last one had."""

    async def main() -> None:
        with (
            opened(postgres_journal, clock=(clock := ManualClock())) as one,
            opened(postgres_journal, clock=clock) as other,
        ):
            old = await one.open_run("r", name="n")
            clock.advance(60)
            new = await other.open_run("r", name="n")
            ask(postgres_journal, "UPDATE flowkit.run SET fence = 1")
            with pytest.raises(RunBusy):
                await claim(old, "w")
            assert await claim(new, "w") == 1

    asyncio.run(main())


def test_a_live_run_is_kept_whatever_the_machine_that_asks_is_called(
    postgres_journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers have one host name, and each its own process numbers: nobody is asked, time decides."""

    async def main() -> None:
        with opened(postgres_journal) as one:
            run = await one.open_run("r", name="n")
            monkeypatch.setattr("flowkit.journal.driver_lease._place", lambda: ("same", "another boot", "pid:[2]"))
            with opened(postgres_journal) as other:
                with pytest.raises(RunBusy):
                    await other.open_run("r", name="n")
                assert other.stopped() == []
            await claim(run, "w")

    asyncio.run(main())


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
def test_machines_whose_clocks_differ_agree_on_a_lease(
    postgres_journal: str, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    """The server grants a lease by its clock, and checks by it whether the lease is over."""

    class Off(SystemClock):
        def wall(self) -> float:
            return super().wall() + off_s

    async def main() -> None:
        with opened(postgres_journal, lease_s=600) as one:
            late = await one.open_run("r", name="n")
            monkeypatch.setattr("flowkit.journal.driver_lease._place", lambda: ("elsewhere", "another boot", ""))
            with opened(postgres_journal, lease_s=600, clock=Off()) as other:
                with pytest.raises(RunBusy):
                    await other.open_run("r", name="n")
                assert other.stopped() == []
                ask(postgres_journal, "UPDATE flowkit.driver SET until = clock_timestamp()")
                await claim(await other.open_run("r", name="n"), "w")
                with pytest.raises(RunBusy):
                    await claim(late, "w")

    asyncio.run(main())


def test_a_lease_that_was_granted_after_a_wait_is_whole(postgres_journal: str) -> None:
    async def main() -> None:
        with opened(postgres_journal, lease_s=600) as journal:
            await (await journal.open_run("r", name="n")).close()
            with psycopg.connect(postgres_journal) as other:
                other.execute("SELECT 1 FROM flowkit.run FOR UPDATE")
                taking = asyncio.create_task(journal.open_run("r", name="n"))
                await until(lambda: is_waiting_for_a_lock(postgres_journal))
                released = ask(postgres_journal, "SELECT clock_timestamp()")[0][0]
                other.commit()
            await taking
            (lease_s,) = ask(
                postgres_journal, f"SELECT extract(epoch FROM until - '{released.isoformat()}') FROM flowkit.driver"
            )[0]
            assert lease_s >= 600

    asyncio.run(main())


def test_batches_of_many_runs_never_wait_for_each_other_in_a_circle(postgres_journal: str) -> None:
    """They lock runs in one order, and meet renewals, decisions and settlements of others."""
    runs = 60

    async def main() -> None:
        with (
            opened(postgres_journal, lease_s=0.3) as one,
            opened(postgres_journal, lease_s=0.3) as other,
            opened(postgres_journal) as third,
        ):
            held = [
                await journal.open_run(f"r{number}", name="n")
                for number in range(runs)
                for journal in ((one, other)[number % 2],)
            ]
            for run in held:
                await run.ask("q", name="q", arguments={})

            async def drive(run: RunJournal, seed: int) -> None:
                for number in range(3):
                    await claim(run, f"w{number}")
                    await run.record(f"w{number}", state="finished", value=seed, effect="write")

            async def interfere(run: RunJournal) -> None:
                with suppress(RunBusy, RunError):
                    await asyncio.to_thread(third.decide, run.run_id, "q", approved=True, by="ann")
                    await asyncio.to_thread(third.resolve, run.run_id, "w0", Retry(), by="ann")

            shuffled = sorted(held, key=lambda run: hash(run.run_id))
            await asyncio.gather(*map(drive, shuffled, range(runs)), *map(interfere, reversed(held)))
            for run in held:
                await run.close()
        assert ask(postgres_journal, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [
            (0,)
        ]

    asyncio.run(main())


# What is kept


def test_what_postgres_text_cant_hold_is_read_back_as_it_was(postgres_journal: str) -> None:
    strange = "a\x00b\ud83dc\ue000d 'quote' \\ {} \"x\" %s é 환불"

    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run(strange, name=strange, user=strange, session=strange, code=strange)
            await run.claim(strange, tool=strange, code=strange, effect="write", arguments={strange: 1})
            await run.record(strange, state="failed", error=strange, effect="write")
            await run.ask(strange + "q", name=strange, arguments={"a": strange})
            journal.decide(strange, strange + "q", approved=False, by=strange, reason=strange)
            await run.refresh()
            await run.finish("failed", error=strange)
            shown = journal.show(strange, user=strange, session=strange)
            assert shown is not None
            assert (shown.summary.user, shown.summary.session, shown.summary.error) == (strange, strange, strange)
            node = shown.nodes[strange]
            assert (node.tool, node.code, node.error) == (strange, strange, strange)
            decision = shown.approvals[strange + "q"].decision
            assert decision is not None
            assert (decision.by, decision.reason) == (strange, strange)
            assert [found.run_id for found in journal.runs(user=strange, session=strange)] == [strange]
            assert journal.delete(strange, user=strange)

    asyncio.run(main())


def test_texts_longer_than_an_index_takes_are_kept_and_found(postgres_journal: str) -> None:
    long = "".join(chr(0xAC00 + number % 11_000) for number in range(8000))

    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run(long + "r", name="n", user=long + "u", session=long + "s")
            await claim(run, long + "1")
            await claim(run, long + "2")
            await run.ask(long, name="n", arguments={})
            await run.finish("waiting")
            assert journal.find(long + "r", user=long + "u") is not None
            assert journal.find(long + "r", user=long) is None
            assert len(journal.runs(session=long + "s")) == 1
            shown = journal.show(long + "r")
            assert shown is not None
            assert list(shown.nodes) == [long + "1", long + "2"]

    asyncio.run(main())


def test_a_large_result_is_stored_once_and_goes_with_the_last_run_that_names_it(postgres_journal: str) -> None:
    large = os.urandom(800_000).hex()
    clock = ManualClock()

    async def main() -> None:
        with opened(postgres_journal, clock=clock) as journal:
            for run_id in ("one", "two"):
                run = await journal.open_run(run_id, name="n")
                await claim(run, "w")
                await run.record("w", state="finished", value=large, effect="write")
                await run.finish("done")
            assert ask(postgres_journal, "SELECT count(*) FROM flowkit.blob") == [(1,)]
            clock.advance(7200)
            journal.delete("one")
            again = journal.show("two")
            assert again is not None
            assert again.nodes["w"].value == large
            journal.delete("two")
            assert ask(postgres_journal, "SELECT count(*) FROM flowkit.blob") == [(0,)]

    asyncio.run(main())


@pytest.mark.parametrize(
    "setting",
    [
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "datestyle = 'German'",
        "extra_float_digits = -5",
        "timezone = 'Asia/Kolkata'",
        "default_transaction_isolation = 'serializable'",
        "search_path = 'nowhere'",
        "array_nulls = off",
        "lock_timeout = 1",
        "idle_in_transaction_session_timeout = 1",
        "default_transaction_deferrable = on",
        "client_min_messages = 'error'",
        "transform_null_equals = on",
        "enable_indexscan = off",
        "plan_cache_mode = 'force_custom_plan'",
        "row_security = off",
    ],
)
def test_settings_of_the_role_change_nothing(postgres_journal: str, setting: str) -> None:
    role = f"role_{token_hex(4)}"
    ask(postgres_journal, f"CREATE ROLE {role} LOGIN")
    ask(postgres_journal, f"ALTER ROLE {role} SET {setting}")
    ask(postgres_journal, f"GRANT USAGE ON SCHEMA flowkit TO {role}")
    ask(postgres_journal, f"GRANT ALL ON ALL TABLES IN SCHEMA flowkit TO {role}")
    value: JSON = {"long": "\\x'\"" * 500_000, "sum": 0.1 + 0.2}

    async def main() -> None:
        with opened(postgres_journal.replace("flowkit@", f"{role}@")) as journal:
            run = await journal.open_run("r", name="n", user="{\"\\'NULL}")
            await claim(run, "w")
            await run.record("w", state="finished", value=value, effect="write")
            await run.finish("done")
            details = journal.show("r")
            assert details is not None
            assert details.nodes["w"].value == value
            assert details.nodes["w"].error is None
            assert details.summary.user == "{\"\\'NULL}"
            assert abs(details.summary.changed_at - time.time()) < 3600

    asyncio.run(main())
    ask(postgres_journal, f"DROP OWNED BY {role}")
    ask(postgres_journal, f"DROP ROLE {role}")


def test_a_result_that_is_too_large_is_refused_alone(postgres_journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.journal.postgres.writing.BLOB_AT_MOST", 1000)

    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run("r", name="n")
            await claim(run, "w")
            results = await asyncio.gather(
                run.record("w", state="finished", value="x" * 2000, effect="write"),
                claim(run, "other"),
                return_exceptions=True,
            )
            assert isinstance(results[0], StoreError)
            assert "at most 1000" in str(results[0])
            assert results[1] == 1

    asyncio.run(main())


@pytest.mark.parametrize(("events", "types"), [("all", 3), ("calls", 2), ("none", 0)])
def test_a_journal_keeps_the_events_that_it_is_told_to(postgres_journal: str, events: Any, types: int) -> None:
    async def main() -> None:
        with opened(postgres_journal, events=events) as journal:
            run = await journal.open_run("r", name="n")
            log = EventLog("r", lambda: 0.0)
            log.listen(run.append_event)
            log.emit(CallStarted, "a", 1, early=False)
            log.emit(TextDelta, "text")
            log.emit(CallFinished, "a", 7)
            await run.finish("done")
            assert len(journal.events("r")) == types

    asyncio.run(main())


def test_days_of_events_go_at_once_and_the_runs_stay(postgres_journal: str) -> None:
    clock = ManualClock()

    async def add(journal: Journal, run_id: str) -> RunJournal:
        run = await journal.open_run(run_id, name="n")
        log = EventLog(
            run_id,
            lambda: 0.0,
        )
        log.listen(run.append_event)
        log.emit(CallFinished, "a", 7)
        await run.refresh()
        return run

    async def main() -> None:
        with opened(postgres_journal) as now:
            await (await add(now, "young")).finish("done")
            driven = await add(now, "driven")
            tables = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'flowkit.event'::regclass"
            before = ask(postgres_journal, tables)[0][0]
            with opened(postgres_journal, clock=clock) as then:
                await (await add(then, "old")).finish("done")
            assert now.prune_events(7 * 86_400) == 1, "of a day without a partition of its own"
            assert (now.events("old"), len(now.events("young"))) == ([], 1)
            ask(postgres_journal, "UPDATE flowkit.event SET day = day - 1 WHERE FALSE")
            assert now.prune_events(-3 * 86_400) == 2, "whole days, of which one is driven"
            assert ask(postgres_journal, tables)[0][0] <= before
            assert now.events("young") == []
            log = EventLog("driven", lambda: 0.0)
            log.first_seq = 1
            log.listen(driven.append_event)
            log.emit(CallFinished, "b", 7)
            await driven.finish("done")
            assert len(now.events("driven")) == 1
            assert {found.run_id for found in now.runs()} == {"young", "driven", "old"}

    asyncio.run(main())


# Following


async def follow_to_the_end(journal: Journal, run_id: str, after: int = -1) -> list[int]:
    return [event["seq"] async for event in journal.follow(run_id, after) if isinstance(event, dict)]  # pyright: ignore[reportReturnType]


def test_a_run_of_another_process_is_followed_without_a_gap(
    postgres_journal: str, postgres_server: PostgresServer
) -> None:
    """Also when the follower's connection is cut in between, and when the run changes its driver."""
    pieces = 50

    async def main() -> None:
        clock = ManualClock()
        with (
            opened(postgres_journal, clock=clock) as one,
            opened(postgres_journal, clock=clock) as two,
            opened(postgres_journal) as watching,
        ):
            run = await one.open_run("r" * 8000, name="n")
            following = asyncio.create_task(follow_to_the_end(watching, run.run_id))
            log = EventLog(run.run_id, lambda: 0.0)
            log.listen(run.append_event)
            for number in range(pieces):
                log.emit(CallFinished, f"c{number}", number)
                if number == pieces // 2:
                    ask(
                        postgres_journal,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'",
                    )
                if number % 10 == 0:
                    await run.refresh()
            await run.refresh()
            clock.advance(60)
            other = await two.open_run(run.run_id, name="n")
            again = EventLog(run.run_id, lambda: 0.0)
            again.first_seq = other.first_seq
            again.listen(other.append_event)
            again.emit(CallFinished, "last", 1)
            await other.finish("done")
            assert await following == [*range(pieces), other.first_seq]
            assert await follow_to_the_end(watching, run.run_id, pieces - 1) == [other.first_seq]

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("is_closed_early", [False, True])
def test_a_page_that_follows_is_woken_by_the_database(postgres_journal: str, is_closed_early: bool) -> None:
    """It would ask again after an hour; its place in the database is given back."""

    async def main() -> None:
        with opened(postgres_journal) as driving, opened(postgres_journal) as watching:
            run = await driving.open_run("r", name="n")
            log = EventLog("r", lambda: 0.0)
            log.listen(run.append_event)
            log.emit(CallFinished, "a", 1)
            await run.refresh()
            follower = follow("r", journal=watching, poll_s=3600, keep_alive_s=3600)
            seen: list[int] = []
            async with asyncio.timeout(120):
                while len(seen) < 5:
                    batch = await follower.read()
                    assert batch is not None
                    seen += [int(str(event["seq"])) for event in batch.read()]
                    log.emit(CallFinished, "a", len(seen))
                if is_closed_early:
                    reading = asyncio.create_task(follower.read())
                    await asyncio.sleep(0)
                    follower.close()
                    await reading
                else:
                    await run.finish("done")
                    while (batch := await follower.read()) is not None:
                        seen += [int(str(event["seq"])) for event in batch.read()]
            assert seen == list(range(len(seen)))
            await run.close()

    asyncio.run(main())


def test_who_writes_doesnt_wait_until_those_who_follow_are_told(
    postgres_journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_written = threading.Event()
    told: list[bool] = []
    ring = Bell.ring_if_due

    def ring_late(bell: Bell) -> None:
        told.append(is_written.wait(60))
        ring(bell)

    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run("r", name="n")
            await run.finish("done")
            is_written.set()

    monkeypatch.setattr(Bell, "ring_if_due", ring_late)
    asyncio.run(main())
    assert told == [True]


def test_who_stops_following_leaves_nothing_behind(postgres_journal: str) -> None:
    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run("r", name="n")
            log = EventLog("r", lambda: 0.0)
            log.listen(run.append_event)
            log.emit(CallFinished, "a", 7)
            await run.refresh()
            followed: AsyncGenerator[JSON] = journal.follow("r")
            async with aclosing(followed) as events:
                async for _ in events:
                    break
            assert [event async for event in journal.follow("nobody's")] == []

    asyncio.run(main())


# Setting it up


def test_a_database_without_tables_says_what_to_do(postgres: str) -> None:
    with pytest.raises(StoreError, match="has no tables yet: run `flowkit journal migrate"):
        Journal(postgres)


def test_the_command_makes_the_tables_once(postgres: str, flowkit: Command) -> None:
    first = flowkit("journal", "migrate", "--journal", postgres)
    assert "made the tables" in first.out
    assert "the tables are those of version 1" in flowkit("journal", "migrate", "--journal", postgres).out
    listed = flowkit("runs", "list", "--journal", postgres)
    assert (listed.code, "no runs yet" in listed.out) == (0, True)
    for command in (("stats",), ("prune", "--older-than", "1d", "--events-older-than", "1d")):
        ended = flowkit("runs", *command, "--journal", postgres)
        assert (ended.code, ended.err) == (0, "")
    unknown = flowkit("runs", "show", "r", "--journal", postgres)
    assert (unknown.code, f"no run 'r' in {postgres!r}" in unknown.err) == (2, True)


def test_the_environment_names_a_database(
    postgres_journal: str, flowkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with opened(postgres_journal) as journal:
            await (await journal.open_run("there", name="n")).finish("done")

    asyncio.run(main())
    monkeypatch.setenv("FLOWKIT_JOURNAL", postgres_journal)
    assert "there" in flowkit("runs", "list").out


def test_many_may_migrate_at_once(postgres: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(migrate, [postgres] * 8))
    assert len([text for text in done if "made the tables" in text]) == 1
    with opened(postgres) as journal:
        assert journal.runs() == []


def test_migrating_never_makes_others_wait_for_a_long_reader(postgres_journal: str) -> None:
    ask(
        postgres_journal,
        "DROP TABLE flowkit.event_" + ask(postgres_journal, "SELECT to_char(now() + '9 days', 'YYYYMMDD')")[0][0],
    )

    async def main() -> None:
        with opened(postgres_journal) as journal, psycopg.connect(postgres_journal) as reader:
            run = await journal.open_run("r", name="n")
            reader.execute("SELECT count(*) FROM flowkit.event")
            migrating = asyncio.create_task(asyncio.to_thread(migrate, postgres_journal))
            await until(lambda: is_waiting_for_a_lock(postgres_journal) or migrating.done())
            assert await claim(run, "w") == 1
            reader.rollback()
            assert "1 days for events added" in await migrating

    asyncio.run(main())


def make_role(address: str, name: str, *grants: str) -> str:
    ask(address, f"DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    for grant in grants:
        ask(address, f"GRANT {grant} TO {name}")
    return address.replace("flowkit@", f"{name}@")


def test_a_role_without_rights_is_told_which_it_needs(postgres: str, postgres_journal: str) -> None:
    with pytest.raises(StoreError, match="may make a schema and tables"):
        migrate(make_role(postgres, "nobody_here"))
    with pytest.raises(StoreError, match="SELECT, INSERT, UPDATE and DELETE"):
        Journal(make_role(postgres_journal, "nobody_here"))


def test_a_service_needs_no_right_to_make_tables(postgres_journal: str) -> None:
    address = make_role(
        postgres_journal,
        "service_here",
        "USAGE ON SCHEMA flowkit",
        "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA flowkit",
    )

    async def main() -> None:
        with opened(address) as journal:
            run = await journal.open_run("r", name="n")
            await claim(run, "w")
            await run.finish("done")
            assert journal.prune(-60) == 1
            with pytest.raises(StoreError, match="by the role that owns the tables"):
                journal.prune_events(-3 * 86_400)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE flowkit.meta SET version = 0", "has tables of version 0, 1 is needed: run `flowkit journal migrate"),
        ("UPDATE flowkit.meta SET version = 9, writes_from = 9", "was changed by a newer flowkit"),
        ("DROP SCHEMA flowkit CASCADE", "has no tables yet: run `flowkit journal migrate"),
        ("REVOKE ALL ON SCHEMA flowkit FROM PUBLIC; DROP TABLE flowkit.node", "`flowkit journal migrate` makes its"),
    ],
)
def test_a_run_of_a_recipe_says_in_a_sentence_what_is_wrong_with_its_journal(
    change: str, said: str, postgres_journal: str, flowkit: Command
) -> None:
    ask(postgres_journal, change)
    ended = flowkit("run", SHOP, "order_id=ORD-1001", "--journal", postgres_journal)
    assert ended.code == 1
    assert said in ended.err


def test_tables_of_somebody_else_are_left_alone(postgres: str) -> None:
    ask(postgres, "CREATE SCHEMA flowkit")
    ask(postgres, "CREATE TABLE flowkit.meta (other text)")
    for use in (Journal, migrate):
        with pytest.raises(StoreError, match="isn't one that `flowkit journal migrate` made"):
            use(postgres)


def test_emptied_tables_are_an_error_that_says_so(postgres_journal: str) -> None:
    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run("r", name="n")
            ask(postgres_journal, "TRUNCATE flowkit.meta, flowkit.run, flowkit.node")
            with pytest.raises(RunBusy):
                await claim(run, "w")

    asyncio.run(main())
    with pytest.raises(StoreError, match="was emptied"):
        Journal(postgres_journal)


def test_two_versions_share_a_database(postgres_journal: str) -> None:
    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run("r", name="n", session="s")
            for table in ("run", "node", "turn", "approval", "event", "blob", "driver"):
                ask(postgres_journal, f"ALTER TABLE flowkit.{table} ADD COLUMN something_new text DEFAULT 'x'")
            ask(postgres_journal, f"UPDATE flowkit.meta SET version = {VERSION + 1}")
            await claim(run, "w")
            await run.record("w", state="finished", value=1, effect="write")
            await run.record_turn(1, {})
            await run.ask("q", name="q", arguments={})
            assert journal.show("r") is not None
            with opened(postgres_journal) as older:
                older.decide("r", "q", approved=True, by="kim")
            await run.finish("done")
            ask(postgres_journal, f"UPDATE flowkit.meta SET writes_from = {VERSION + 1}")
            with pytest.raises(StoreError, match="newer flowkit"):
                await asyncio.to_thread(Journal, postgres_journal)

    asyncio.run(main())


# Passwords


def test_a_password_is_in_no_error_no_log_and_no_repr(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "s3cr3t%21x"
    caplog.set_level(logging.DEBUG)
    addresses = [
        f"postgresql://me:{secret}@127.0.0.1:1/db",
        f"postgresql://me:{secret}@127.0.0.1:{postgres_server.port}/nowhere",
        f"postgresql://me:{secret}@127.0.0.1:port/db",
        f"postgresql://127.0.0.1:1/db?password={secret}&nonsense=1",
        f"mysql://me:{secret}@127.0.0.1/db",
    ]
    for address in addresses:
        with pytest.raises((StoreError, ConfigurationError)) as raised:
            Journal(address)
        texts = [
            str(raised.value),
            repr(raised.value),
            str(raised.value.__cause__),
            str(raised.value.__context__ if not raised.value.__suppress_context__ else ""),
        ]
        assert not [text for text in texts if "s3cr3t" in text], address
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize(
    ("options", "kind", "code", "said"),
    [
        ("?nonsense=1", ConfigurationError, 2, "'nonsense' is no option of PostgreSQL's client"),
        ("?sslmode=prefer&conect_timeout=3", ConfigurationError, 2, "'conect_timeout' is no option"),
        ("?sslmode=maybe", StoreError, 1, "sslmode"),
        ("?connect_timeout=soon", StoreError, 1, "connect_timeout"),
    ],
)
def test_an_option_of_a_url_that_isnt_right_is_told_by_its_name(
    options: str, kind: type[FlowkitError], code: int, said: str, postgres_journal: str, flowkit: Command
) -> None:
    with pytest.raises(kind, match=said):
        Journal(postgres_journal + options)
    result = flowkit("runs", "list", "--journal", postgres_journal + options)
    assert result.code == code
    assert said in result.err


def test_the_name_of_a_journal_is_its_address_without_the_password(postgres_journal: str) -> None:
    with opened(postgres_journal.replace("flowkit@", "flowkit:s3cr3t@")) as journal:
        assert repr(journal) == f"Journal({postgres_journal!r})"
        with pytest.raises(StoreError, match="is a database, no file"):
            _ = journal.path


@pytest.mark.parametrize(
    "password", ["s3cr3t/t0p", "s3cr3t@t0p", "s3cr3t?t0p=1", "s3cr3t#t0p", "s3cr3t%t0p", "s3cr3t:t0p?@/"]
)
def test_a_password_that_should_have_been_encoded_is_not_shown(password: str) -> None:
    with pytest.raises(FlowkitError) as caught, opened(f"postgresql://me:{password}@127.0.0.1:1/db") as journal:
        journal.runs()
    assert "s3cr3t" not in str(caught.value)
    assert "t0p" not in str(caught.value)
    assert "%40" in str(caught.value) or "refused" in str(caught.value), "it is taken as it stands, or said"


def test_a_database_may_have_an_odd_name(postgres_server: PostgresServer, journal_template: str) -> None:
    name = "a@b/c?d#e%41 '\"é"
    quoted = '"' + name.replace('"', '""') + '"'
    postgres_server.execute(f"CREATE DATABASE {quoted} TEMPLATE {journal_template}")
    with opened(postgres_server.address(quote(name, safe=""))) as journal:
        assert journal.runs() == []
        assert journal.name.endswith(name)
    postgres_server.drop_database(quoted)


def test_a_standby_that_was_named_by_mistake_is_said(postgres_journal: str) -> None:
    role = f"role_{token_hex(4)}"
    ask(postgres_journal, f"CREATE ROLE {role} LOGIN SUPERUSER")
    ask(postgres_journal, f"ALTER ROLE {role} SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="name the primary: this is a standby, or default_transaction_read_only is on"):
        Journal(postgres_journal.replace("flowkit@", f"{role}@"))


def test_a_time_out_of_the_role_reaches_no_statement_and_stays_for_others(postgres_journal: str) -> None:
    role = f"role_{token_hex(4)}"
    ask(postgres_journal, f"CREATE ROLE {role} LOGIN")
    ask(postgres_journal, f"ALTER ROLE {role} SET statement_timeout = '7s'")
    link = PostgresLink(read_address(postgres_journal.replace("flowkit@", f"{role}@")))
    found = "SELECT current_setting('statement_timeout')"
    assert link.run(found, 30.0) == [[("30s",)]]
    assert link.run(f"BEGIN; {found}; COMMIT", 30.0) == [[("7s",)]]
    link.close()


@pytest.mark.slow
def test_a_process_that_stops_while_it_takes_a_run_keeps_it_from_nobody(postgres_journal: str) -> None:
    """Its connection lives as long as the process; the server ends the transaction."""
    stopped = PostgresLink(read_address(postgres_journal))

    async def main() -> None:
        with opened(postgres_journal) as journal:
            await (await journal.open_run("r", name="n")).close()
            stopped.run(f"{begin(durable=False)}; SELECT 1 FROM flowkit.run WHERE run_id = 'r' FOR UPDATE", 30.0)
            run = await journal.open_run("r", name="n")
            await claim(run, "w")
            await run.finish("done")

    asyncio.run(main())
    with pytest.raises(psycopg.Error) as caught:
        stopped.run("COMMIT", 30.0)
    assert may_pass(caught.value), "it begins anew"
    stopped.close()


def test_a_url_is_no_path() -> None:
    with pytest.raises(ConfigurationError, match="lost a slash"):
        Journal(Path("postgresql://localhost/db"))
    with pytest.raises(ConfigurationError, match="expected a file, or postgresql://"):
        Journal("redis://localhost")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:5432/x", "for a database write postgresql://localhost:5432/x"),
        ("db.example:5432/app?sslmode=require", "write postgresql://db.example:5432/app?sslmode=require"),
        ("app@db.example/app", "write postgresql://app@db.example/app"),
        ("app:s3cr3t@db.example:5432/app", "write postgresql://app:***@db.example:5432/app"),
        ("host=db.example dbname=app password=s3cr3t", "expected postgresql://user@host:5432/database"),
    ],
)
def test_a_database_that_is_named_without_postgresql_is_no_path(
    address: str, said: str, flowkit: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWKIT_JOURNAL", address)
    for words in (("runs", "list"), ("run", SHOP, "order_id=ORD-1001"), ("journal", "migrate")):
        ended = flowkit(*words)
        assert ended.code == 2
        assert said in ended.err
        assert "s3cr3t" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_named_like_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me@home").mkdir()
    Journal("me@home/runs").close()
    Journal("me@work/runs.sqlite3").close()
    assert (tmp_path / "me@home" / "runs").is_file()


def test_a_day_that_nobody_added_in_time_keeps_no_other_from_being_added(postgres_journal: str) -> None:
    """As after a month without `flowkit journal migrate` or a prune: the events of today stand with the rest."""
    days = ask(postgres_journal, "SELECT to_char(current_date + n, 'YYYYMMDD') FROM generate_series(0, 3) AS n")
    for (day,) in days:
        ask(postgres_journal, f"DROP TABLE flowkit.event_{day}")

    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run("r", name="n")
            log = EventLog("r", lambda: 0.0)
            log.listen(run.append_event)
            log.emit(CallFinished, "a", 7)
            await run.finish("done")
            assert "3 days for events added" in migrate(postgres_journal)
            assert journal.prune_events(7 * 86_400) == 0
            assert len(journal.events("r")) == 1
            assert journal.prune_events(-86_400) == 1
            assert "1 days for events added" not in migrate(postgres_journal)

    asyncio.run(main())


@pytest.mark.slow
def test_what_is_old_is_removed_while_runs_are_driven(postgres_journal: str, caplog: pytest.LogCaptureFixture) -> None:
    """Runs that ended, days of events under runs that write to them, and the partitions that come after."""
    steps = 15

    async def main() -> None:
        with opened(postgres_journal) as journal, opened(postgres_journal) as keeper:

            async def drive(run_id: str) -> None:
                run = await journal.open_run(run_id, name="n")
                log = EventLog(run_id, lambda: 0.0)
                log.listen(run.append_event)
                for step in range(steps):
                    assert await claim(run, f"w{step}") == 1
                    await run.record(f"w{step}", state="finished", value=step, effect="write")
                    log.emit(CallFinished, f"w{step}", step)
                found = await asyncio.to_thread(journal.show, run_id)
                assert found is not None
                assert {node: kept.value for node, kept in found.nodes.items()} == {f"w{n}": n for n in range(steps)}
                await run.finish("done")

            def remove() -> tuple[int, int]:
                return keeper.prune(-60), keeper.prune_events(-3 * 86_400)

            async def drive_all() -> None:
                for turn in range(3):
                    await asyncio.gather(*(drive(f"{turn}-{number}") for number in range(8)))

            driving = asyncio.create_task(drive_all())
            runs = events = 0
            while not driving.done():
                removed = await asyncio.to_thread(remove)
                runs, events = runs + removed[0], events + removed[1]
            await driving
            runs += (await asyncio.to_thread(remove))[0]
            assert runs == 24
            assert events > 0
            assert journal.runs() == []
            await drive("last")
            assert len(journal.events("last")) == steps

    asyncio.run(main())
    assert not caplog.records, "a record that nobody waited for was lost"


# Processes


def test_a_forked_process_has_a_connection_and_a_name_of_its_own(postgres_journal: str) -> None:
    async def drive(journal: Journal, run_id: str) -> None:
        run = await journal.open_run(run_id, name="n")
        await claim(run, "w")
        await run.finish("done")

    with opened(postgres_journal) as journal:
        asyncio.run(drive(journal, "parent's"))
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(drive(journal, "child's"))
                journal.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        asyncio.run(drive(journal, "parent's second"))
        assert {run.run_id for run in journal.runs()} == {"parent's", "child's", "parent's second"}


def test_a_journal_has_two_connections(postgres_journal: str) -> None:
    async def main() -> None:
        with opened(postgres_journal) as journal:
            runs = [await journal.open_run(f"r{number}", name="n") for number in range(20)]
            await asyncio.gather(
                *(claim(run, "w") for run in runs), *(asyncio.to_thread(journal.runs) for _ in range(20))
            )
            found = ask(
                postgres_journal,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'flowkit'",
            )
            assert found == [(2,)]
            for run in runs:
                await run.close()

    asyncio.run(main())


# Statements


def test_values_come_back_as_they_were_put_into_a_statement(postgres: str) -> None:
    texts = ["a", "", "it's", 'b"c', "\\", "\\\\'", "{a,b}", "NULL", "x\ny", "é환", "%s", "$1", "--", "/*"]
    with psycopg.connect(postgres) as connection:
        for text in texts:
            assert connection.execute(bind("SELECT %s", text).replace("%", "%%").encode(), ()).fetchone() == (text,)
        found = connection.execute(f"SELECT {array([*texts, None], 'text')}".replace("%", "%%").encode(), ()).fetchone()
        assert found == ([*texts, None],)
        data = b"\x00\xff"
        assert connection.execute(f"SELECT {literal(data)}".encode()).fetchone() == (data,)
        assert connection.execute(f"SELECT {array(texts, 'text')}".replace("%", "%%").encode(), ()).fetchone() == (
            texts,
        )
    with pytest.raises(ValueError):
        literal("a\0b")
    for others in ([], [None], ["x"]):
        with pytest.raises(ValueError):
            array(["a\0b", *others], "text")


PARTS = ["$", "$flowkit", "$flowkit$", "'", '"', "\\", "\x01", ",", "NULL", "{", "\n", "환", "a"]
"""Of the values whose ends a text has to show."""


def test_many_texts_come_back_whatever_they_hold(postgres: str) -> None:
    """Each way to write them, with what could end a text or the list too soon."""
    link = PostgresLink(read_address(postgres))
    written: set[str] = set()

    @given(st.lists(st.lists(st.sampled_from(PARTS), max_size=4).map("".join), min_size=MANY, max_size=MANY + 2))
    @settings(max_examples=150, deadline=None)
    @example([*["a"] * MANY, "$flowkit"])
    @example([*["a"] * MANY, "$flowkit$"])
    @example([*["a"] * MANY, "$"])
    @example([""] * MANY)
    def check(texts: list[str]) -> None:
        text = array(texts, "text")
        written.add(text[:8])
        assert link.run(f"SELECT i.at, i.one FROM unnest({text}) WITH ORDINALITY AS i (one, at)", 30.0) == [
            list(enumerate(texts, 1))
        ]

    try:
        check()
    finally:
        link.close()
    assert "string_t" in written
    assert len(written) > 1


def test_events_that_are_there_already_are_written_over(postgres_journal: str) -> None:
    """As when a batch was committed and another process's driver numbers its events from before it."""

    async def main() -> None:
        with opened(postgres_journal) as journal:
            run = await journal.open_run("r", name="n")
            for text in ("one", "two"):
                for seq, call in ((0, "a"), (1 if text == "one" else 2, "b")):
                    run.append_event(TextDelta("r", seq, 0.0, text, call=call))
                await claim(run, text)
            await run.finish("done")
            found: Any = journal.events("r")
            assert [(event["seq"], event["text"]) for event in found] == [(0, "two"), (1, "one"), (2, "two")]

    asyncio.run(main())


def find_prepared(link: PostgresLink) -> set[str]:
    rows: Any = link.run("SELECT name FROM pg_prepared_statements", 30.0)[0]
    return {name for (name,) in rows}


def test_what_every_batch_repeats_is_prepared_where_the_session_is_ours(postgres_journal: str) -> None:
    statements = make_statements("clock_timestamp()")
    session = Session(read_address(postgres_journal), what="written", statements=statements)
    assert session.attempt(find_prepared) == {statement.name for statement in statements}
    session.close()


def test_through_a_pooler_nothing_is_prepared(pgbouncer: PgBouncer, postgres_journal: str) -> None:
    """Another client would get the session with it."""
    address = read_address(pgbouncer.address(postgres_journal.rpartition("/")[2]))
    session = Session(address, what="written", statements=make_statements("clock_timestamp()"))
    assert session.attempt(find_prepared) == set()
    session.close()


def test_a_plan_that_was_kept_suits_the_tables_when_they_have_grown(postgres_journal: str) -> None:
    statements = make_statements("clock_timestamp()")
    values = {kind: array([1] if kind != "text[]" else ["a"], kind.removesuffix("[]")) for kind in KINDS}
    session = Session(read_address(postgres_journal), what="written", statements=statements)
    for statement in statements:
        call = statement.call([values[kind] for kind in statement.kinds], is_prepared=True)
        explain = f"BEGIN; {PLANS}; EXPLAIN {call}; ROLLBACK"
        rows: Any = session.attempt(lambda link, explain=explain: link.run(explain, 30.0)[0])
        plan = "\n".join(line for (line,) in rows)
        assert not [word for word in ("Seq Scan", "Hash Join", "Merge Join") if word in plan], plan
    session.close()


def test_statements_that_a_session_lost_are_sent_in_full(postgres_journal: str) -> None:
    """As by a pooler that isn't known as one."""
    statements = make_statements("clock_timestamp()")
    session = Session(read_address(postgres_journal), what="written", statements=statements)
    session.attempt(lambda link: link.run("DEALLOCATE ALL", 30.0))
    lock = statements.lock

    def make(is_prepared: bool) -> str:
        return f"BEGIN; {lock.call([array([1], 'bigint')], is_prepared=is_prepared)}; COMMIT"

    assert session.attempt(lambda _: session.write(make, durable=True)) == [[]]
    session.close()


def test_a_claim_that_may_still_run_elsewhere_is_nobodys_to_settle(postgres_journal: str) -> None:
    """By the server's clock, whatever this machine's says."""

    async def main() -> None:
        with opened(postgres_journal, lease_s=0.3) as one, opened(postgres_journal) as other:
            run = await one.open_run("r", name="n")
            await claim(run, "w", timeout_s=600)
            ask(postgres_journal, "UPDATE flowkit.run SET holder = 'gone'")
            taken = await other.open_run("r", name="n")
            assert taken.may_still_run("w")
            with pytest.raises(InDoubt, match="may still be running"):
                await taken.resolve("w", Retry())
            ask(postgres_journal, "UPDATE flowkit.node SET deadline = clock_timestamp()")
            await taken.close()
            again = await other.open_run("r", name="n")
            assert not again.may_still_run("w")
            await again.resolve("w", Retry())
            await again.close()

    asyncio.run(main())
