"""The journal's file taken away, replaced, changed by a newer flowkit, locked or full: nothing starts that nobody would know of."""

import asyncio
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from flowkit.clock import ManualClock
from flowkit.errors import InDoubt, RunBusy, RunError, StoreError
from flowkit.events import CallFinished, EventLog
from flowkit.journal import Journal, Retry, RunJournal
from flowkit.journal.run import START_WITHIN_S
from flowkit.journal.sqlite import file as journal_file
from tests.small_disk import small_disk
from tests.stores import opened_journal, pretend_another_machine

pytestmark = pytest.mark.usefixtures("journal_store")

posix_only = pytest.mark.skipif(os.name != "posix", reason="removing open files, and flock, are POSIX's")


async def claim(run: RunJournal, node: str, *, effect: str = "write", timeout_s: float | None = None) -> int:
    assert effect in ("read", "idempotent", "write")
    return await run.claim(node, tool="pay", code="", effect=effect, arguments={}, timeout_s=timeout_s)


# The file is gone


def remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def remove_database_alone(path: Path) -> None:
    path.unlink()


def remove_log_alone(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def replace_by_a_new_one(path: Path) -> None:
    remove(path)
    with opened_journal(path):
        pass


def put_a_copy_in_its_place(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def move_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def empty(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xa5" * size)


def overwrite_log(path: Path) -> None:
    overwrite(path.with_name(f"{path.name}-wal"))


def overwrite_with_another_text(path: Path) -> None:
    path.write_text("Not a journal any more.", encoding="utf-8")


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@posix_only
@pytest.mark.parametrize(
    "trouble",
    [
        remove,
        remove_database_alone,
        remove_log_alone,
        replace_by_a_new_one,
        put_a_copy_in_its_place,
        move_the_folder,
        empty,
        overwrite,
        overwrite_log,
        overwrite_with_another_text,
        make_newer,
    ],
)
@pytest.mark.sqlite_only
def test_a_journal_that_was_taken_away_refuses_the_next_record_and_every_claim(
    tmp_path: Path, trouble: Callable[[Path], None]
) -> None:
    path = tmp_path / "folder" / "j"

    async def main() -> None:
        with opened_journal(path) as journal:
            run = await journal.open_run("r", name="n")
            await claim(run, "a")
            trouble(path)
            with pytest.raises(StoreError, match="can't be written"):
                await run.record("a", state="finished", value=1, effect="write")
            for node in ("b", "c"):
                with pytest.raises(StoreError, match="can't be written"):
                    await claim(run, node)
            with pytest.raises(StoreError):
                await run.record_turn(1, {})
            with pytest.raises(StoreError):
                await run.finish("done")

    asyncio.run(main())


@posix_only
@pytest.mark.sqlite_only
def test_a_file_that_comes_back_is_not_written_again_by_who_lost_it(tmp_path: Path) -> None:
    path = tmp_path / "j"

    async def main() -> None:
        with opened_journal(path) as journal:
            run = await journal.open_run("r", name="n")
            path.rename(tmp_path / "aside")
            with pytest.raises(StoreError, match="it was removed"):
                await claim(run, "a")
            (tmp_path / "aside").rename(path)
            with pytest.raises(StoreError, match="it was removed"):
                await claim(run, "a")

    asyncio.run(main())


@pytest.mark.sqlite_only
def test_a_journal_that_was_removed_is_not_made_again_by_reading_it(tmp_path: Path) -> None:
    with opened_journal(tmp_path / "j") as journal:
        remove(tmp_path / "j")
        with pytest.raises(StoreError, match="can't be read"):
            journal.runs()
        assert not (tmp_path / "j").exists()


@pytest.mark.sqlite_only
def test_on_a_disk_that_is_really_full_no_claim_is_granted_and_all_that_was_recorded_is_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "400k") as disk:

        async def fill() -> list[str]:
            kept: list[str] = []
            with opened_journal(disk / "j") as journal:
                run = await journal.open_run("r", name="n")
                with suppress(StoreError):
                    for number in range(200):
                        await claim(run, f"w{number}")
                        await run.record(f"w{number}", state="finished", value="x" * 5000, effect="write")
                        kept.append(f"w{number}")
                assert len(kept) < 200, "the disk was never full"
                with suppress(StoreError):  # the first few may fit where the last record didn't
                    for number in range(200, 400):
                        await claim(run, "x" * 2000 + str(number))
                with pytest.raises(StoreError, match="full"):
                    await claim(run, "x" * 2000 + "more")
                with pytest.raises(StoreError, match="full"):
                    await run.finish("done")
            return kept

        kept = asyncio.run(fill())
        shutil.copytree(disk, tmp_path / "larger")
    with opened_journal(tmp_path / "larger" / "j") as journal:
        shown = journal.show("r")
        assert shown is not None
        assert [node for node, found in shown.nodes.items() if found.state == "finished"] == kept


# Locks of others


@posix_only
@pytest.mark.sqlite_only
def test_a_folder_that_another_process_holds_does_not_hold_the_loop(tmp_path: Path) -> None:
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)

    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            opening = asyncio.create_task(journal.open_run("r", name="n"))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not opening.done(), "the file is new, so its tables can't be made yet"
            os.close(holder)
            await (await opening).finish("done")

    asyncio.run(main())


@posix_only
@pytest.mark.sqlite_only
def test_waiting_for_a_folder_has_an_end_that_says_what_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "OPEN_TIMEOUT_S", 0.05)
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        with pytest.raises(StoreError, match="another process holds the folder"):
            Journal(tmp_path / "j")

        async def main() -> None:
            journal = Journal(tmp_path / "j")
            with pytest.raises(StoreError, match="another process holds the folder"):
                await journal.open_run("r", name="n")
            journal.close()

        asyncio.run(main())
    finally:
        os.close(holder)


@posix_only
@pytest.mark.sqlite_only
def test_a_held_folder_is_no_matter_once_the_journal_is_there(tmp_path: Path) -> None:
    with opened_journal(tmp_path / "j"):
        pass
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        with opened_journal(tmp_path / "j") as journal:
            assert journal.runs() == []
    finally:
        os.close(holder)


@pytest.mark.sqlite_only
def test_a_transaction_of_another_process_does_not_hold_the_loop(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                claiming = asyncio.create_task(claim(run, "a"))
                for _ in range(20):
                    await asyncio.sleep(0.001)
                assert not claiming.done()
                with opened_journal(tmp_path / "j") as second:
                    assert [found.run_id for found in second.runs()] == ["r"]
                other.execute("ROLLBACK")
            assert await claiming == 1

    asyncio.run(main())


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("holds", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("over", flush=True)
"""


@pytest.mark.slow
@posix_only
@pytest.mark.sqlite_only
def test_a_writer_that_is_suspended_in_a_commit_holds_others_for_a_bounded_time_and_loses_nothing(
    tmp_path: Path,
) -> None:
    with opened_journal(tmp_path / "j") as journal:
        run = asyncio.run(journal.open_run("r", name="n"))
        command = [sys.executable, "-c", HOLDER, str(tmp_path / "j")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == "holds\n"
            holder.send_signal(signal.SIGSTOP)
            with pytest.raises(StoreError, match="locked"):
                asyncio.run(claim(run, "meanwhile"))
            holder.send_signal(signal.SIGCONT)
            holder.stdin.write("go on\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "over\n"
        assert asyncio.run(claim(run, "after")) == 1
        shown = journal.show("r")
        assert shown is not None
        assert list(shown.nodes) == ["after"]


# Two versions share a file


@pytest.mark.sqlite_only
def test_a_newer_flowkit_that_added_columns_can_share_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            assert journal.runs() == []
            with closing(sqlite3.connect(tmp_path / "j")) as connection:
                for table in ("run", "node", "turn", "approval", "event"):
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN something_new TEXT")
            run = await journal.open_run("r", name="n", session="s")
            log = EventLog("r", lambda: 0.0)
            log.listen(run.append_event)
            log.emit(CallFinished, "a", 7)
            await claim(run, "a")
            await run.record("a", state="finished", value=1, effect="write")
            await run.record_turn(1, {})
            await run.ask("b", name="b", arguments={})
            journal.decide("r", "b", approved=True, by="kim")
            await run.finish("done")
            shown = journal.show("r")
            assert shown is not None
            assert shown.nodes["a"].value == 1
            assert len(journal.events("r")) == 1
            assert journal.delete("r")

    asyncio.run(main())


# Claims and their time


def test_nobody_settles_or_repeats_a_call_while_it_may_still_be_running(tmp_path: Path) -> None:
    """Its driver can't be asked; its lease is over, but its tool has a minute."""
    clock = ManualClock()
    path = tmp_path / "j"

    async def main() -> None:
        with (
            opened_journal(path, clock=clock, lease_s=10) as one,
            opened_journal(path, clock=clock, lease_s=10) as other,
        ):
            old = await one.open_run("r", name="n")
            await claim(old, "w", timeout_s=60)
            await claim(old, "i", effect="idempotent", timeout_s=60)
            pretend_another_machine(path)
            clock.advance(11)
            new = await other.open_run("r", name="n")
            for node, effect in (("w", "write"), ("i", "idempotent")):
                assert new.may_still_run(node)
                with pytest.raises(InDoubt, match="may still be running"):
                    await claim(new, node, effect=effect)
            with pytest.raises(InDoubt, match="may still be running"):
                await new.resolve("w", Retry())
            await new.close()
            with pytest.raises(RunBusy, match="may still be running in another process, until 2023-"):
                other.resolve("r", "w", Retry(), by="ada")
            clock.advance(60)
            other.resolve("r", "w", Retry(), by="ada")
            new = await other.open_run("r", name="n")
            assert await claim(new, "w") == 2
            assert await claim(new, "i", effect="idempotent") == 2
            with pytest.raises(RunBusy):
                await old.record("w", state="finished", value=1, effect="write")

    asyncio.run(main())


def test_a_driver_that_wakes_too_late_after_its_claim_may_not_start(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "j"

    async def main() -> None:
        with (
            opened_journal(path, clock=clock, lease_s=10) as one,
            opened_journal(path, clock=clock, lease_s=10) as other,
        ):
            old = await one.open_run("r", name="n")
            await claim(old, "w", timeout_s=1)
            assert old.may_start("w")
            clock.advance(START_WITHIN_S)
            assert not old.may_start("w")
            await old.reclaim("w", timeout_s=1)
            assert old.may_start("w"), "nobody took over meanwhile"
            pretend_another_machine(path)
            clock.advance(START_WITHIN_S + 11)
            new = await other.open_run("r", name="n")
            await new.resolve("w", Retry())
            await claim(new, "w")
            assert not old.may_start("w")
            with pytest.raises(RunBusy, match="took over"):
                await old.reclaim("w")

    asyncio.run(main())


@pytest.mark.parametrize(("lease_s", "start_within_s"), [(60.0, START_WITHIN_S), (2.0, 2.0), (0.1, 1.0)])
def test_a_claim_waits_for_its_start_no_longer_than_its_driver_is_waited_for(
    tmp_path: Path, lease_s: float, start_within_s: float
) -> None:
    """Whoever took the run over of a dead driver may settle its write then, instead of seconds later."""
    path, clock = tmp_path / "j", ManualClock()

    async def main() -> None:
        with closing(Journal(path, clock=clock, lease_s=lease_s)) as journal:
            run = await journal.open_run("r", name="n")
            await claim(run, "w")
            clock.advance(start_within_s - 0.01)
            assert [run.may_start("w"), run.nodes["w"].lease.is_in_time(clock)] == [True, True]
            clock.advance(0.02)
            assert [run.may_start("w"), run.nodes["w"].lease.is_in_time(clock)] == [False, False]
            await run.close()

    asyncio.run(main())


def test_a_run_that_was_deleted_and_began_anew_is_out_of_reach_of_its_old_driver(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "j"

    async def main() -> None:
        with (
            opened_journal(path, clock=clock, lease_s=10) as one,
            opened_journal(path, clock=clock, lease_s=10) as other,
        ):
            old = await one.open_run("r", name="n")
            pretend_another_machine(path)
            clock.advance(11)
            assert other.delete("r")
            new = await other.open_run("r", name="n")
            for _ in range(2):
                with pytest.raises(RunBusy):
                    await claim(old, "w")
                with pytest.raises(RunBusy):
                    await old.finish("failed")
                await old.close()
                await claim(new, "w")
                await new.record("w", state="finished", value=1, effect="write")
                await new.finish("done")
                assert other.delete("r")
                new = await other.open_run("r", name="n")

    asyncio.run(main())


def test_closing_a_journal_lets_go_of_the_runs_that_it_holds(tmp_path: Path) -> None:
    """This process lives on: by its lease alone the run would be held for as long."""

    async def main() -> None:
        with opened_journal(tmp_path / "j") as one:
            await one.open_run("r", name="n")
        with opened_journal(tmp_path / "j") as other:
            await (await other.open_run("r", name="n")).finish("done")

    asyncio.run(main())


@pytest.mark.timing
@pytest.mark.sqlite_only
def test_a_run_whose_end_could_not_be_written_is_free_for_others_once_the_disk_is(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j", lease_s=0.03) as one, opened_journal(tmp_path / "j") as other:
            run = await one.open_run("r", name="n")
            with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as trouble:
                full = "CREATE TRIGGER full BEFORE UPDATE OF holder ON run BEGIN SELECT RAISE(ABORT, 'no space'); END"
                trouble.execute(full)
                with pytest.raises(StoreError, match="no space"):
                    await run.finish("done")
                with pytest.raises(RunBusy):
                    await other.open_run("r", name="n", must_exist=True)
                trouble.execute("DROP TRIGGER full")
            give_up_at = time.monotonic() + 60
            while other.runs()[0].is_held:
                assert time.monotonic() < give_up_at
                await asyncio.to_thread(time.sleep, 0.01)
            await (await other.open_run("r", name="n")).finish("done")

    asyncio.run(main())


# Order, pages, and reading


def test_a_session_stays_in_order_when_the_clock_is_set_back(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        with opened_journal(tmp_path / "j", clock=clock) as journal:
            for number in range(5):
                run = await journal.open_run(f"r{number}", name="n", session="s")
                before = [message["content"] for message in await run.conversation() if isinstance(message, dict)]
                assert before == [f"m{earlier}" for earlier in range(number)]
                await run.finish("done", messages=[{"role": "user", "content": f"m{number}"}])
                clock.jump(-1000 if number % 2 else 3)
            assert [run.run_id for run in journal.runs()] == ["r4", "r3", "r2", "r1", "r0"]
            assert [m["content"] for m in journal.conversation("s", before="r2") if isinstance(m, dict)] == ["m0", "m1"]

    asyncio.run(main())


def test_runs_come_in_pages_for_each_user(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            for number in range(10):
                run = await journal.open_run(f"r{number}", name="n", user=("ann", "bob", None)[number % 3])
                await run.finish("done")
            seen: list[str] = []
            cursor: str | None = None
            while page := journal.runs(user="ann", limit=3, cursor=cursor):
                assert len(page) <= 3
                seen += [run.run_id for run in page]
                cursor = page[-1].cursor
                await (await journal.open_run(f"late{len(seen)}", name="n", user="ann")).finish("done")
            assert seen == ["r9", "r6", "r3", "r0"], "what began meanwhile moves nothing"
            assert [run.run_id for run in journal.runs(user=None)] == ["r8", "r5", "r2"]
            with pytest.raises(ValueError, match="expected the `cursor` of a summary"):
                journal.runs(cursor="r3")

    asyncio.run(main())


@pytest.mark.sqlite_only
def test_reading_a_run_that_is_over_writes_nothing(tmp_path: Path) -> None:
    def dump() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "j")) as connection:
            return list(connection.iterdump())

    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            await run.record("a", state="finished", value=1, effect="read")
            await run.finish("done")
            before = dump()
            readers = [await journal.open_run("r", name="n") for _ in range(2)]
            for run in readers:
                assert run.is_over
                log = EventLog("r", lambda: 0.0)
                log.listen(run.append_event)
                log.emit(CallFinished, "a", 7)
                await run.record("b", state="finished", value=1, effect="read")
                await run.record_turn(1, {})
                with pytest.raises(RunError, match="is over"):
                    await claim(run, "c")
                await run.finish("failed")
                await run.close()
            assert dump() == before

    asyncio.run(main())


@pytest.mark.sqlite_only
def test_a_driver_killed_on_this_machine_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    code = """
import asyncio, os, signal, sys
from flowkit.journal import Journal
async def main():
    run = await Journal(sys.argv[1]).open_run("r", name="n")
    await run.claim("w", tool="t", code="", effect="write", arguments={}, timeout_s=3600)
    await run.claim("i", tool="t", code="", effect="idempotent", arguments={}, timeout_s=3600)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "j")], check=False)

    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            assert not run.may_still_run("w")
            await run.resolve("w", Retry())
            assert await run.claim("w", tool="t", code="", effect="write", arguments={}) == 2
            assert await run.claim("i", tool="t", code="", effect="idempotent", arguments={}) == 2
            await run.close()

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.sqlite_only
def test_twenty_five_thousand_runs_are_removed_in_few_transactions_and_the_file_shrinks(tmp_path: Path) -> None:
    with opened_journal(tmp_path / "j") as journal:
        with closing(sqlite3.connect(tmp_path / "j")) as connection, connection:
            connection.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000)"
                " INSERT INTO run (place, run_id, name, code, inputs, status, began, changed, fence)"
                " SELECT i, i, 'n', '', 'null', 'done', 1, 1, 1 FROM n"
            )
            connection.execute(
                "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9)"
                " INSERT INTO event (run, seq, body) SELECT run.id, i, zeroblob(400) FROM run, n"
            )
        assert (tmp_path / "j").stat().st_size > 1e8
        before = journal.commits.durable + journal.commits.normal
        assert journal.prune(3600) == 25_000
        # A transaction for each page was what took minutes.
        assert journal.commits.durable + journal.commits.normal - before < 400
        assert (tmp_path / "j").stat().st_size < 1e6


# A damaged file


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("run", "inputs"),
        ("run", "code"),
        ("node", "value"),
        ("node", "arguments"),
        ("turn", "message"),
        ("kept", "arguments"),
    ],
)
@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe"], ids=["no JSON", "no text"])
def test_a_damaged_column_is_an_error_that_names_file_run_and_way_out(
    tmp_path: Path, table: str, column: str, damage: bytes
) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n", inputs={"a": 1}, kept={"call": "{}"})
            await run.record_turn(1, {"role": "assistant"})
            await run.record("read", state="finished", value="x", effect="read", arguments={"a": 1})
            await run.close()
        with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as connection:
            connection.execute(f"UPDATE {table} SET {column} = CAST(? AS TEXT)", (damage,))
        if column == "code" and damage == b"{":
            return  # it is text, and as good as any
        with opened_journal(tmp_path / "j") as journal:
            with pytest.raises(StoreError, match="is damaged: run 'r' can't be read") as told:
                await journal.open_run("r", name="n", allow_changed=True, must_exist=True)
            assert str(tmp_path / "j") in str(told.value)
            assert "restore the file from a copy, or remove the run" in str(told.value)
            if table != "kept":
                with pytest.raises(StoreError, match="is damaged: run 'r' can't be read"):
                    journal.show("r")
            assert journal.delete("r")
            await (await journal.open_run("r", name="n")).close()

    asyncio.run(main())
