"""Journals that are kept for years: old runs go, pages are given back, files of older versions are read on."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from flowkit.agent import Agent
from flowkit.clock import ManualClock
from flowkit.events import RunStatus
from flowkit.journal import Journal
from flowkit.journal.sqlite.schema import OF_A_RUN, VERSION
from flowkit.models.scripted import ScriptedModel
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool
from tests.command import Command
from tests.stores import fast_folder, journal_at, opened_journal

pytestmark = pytest.mark.usefixtures("journal_store")

DATA = Path(__file__).parent / "data"
DAY_S = 86_400.0


async def add_run(journal: Journal, run_id: str, status: RunStatus | None = "done", *, size: int = 10) -> None:
    """A run with a turn, a result, an approval and a message; one without a status is only let go of."""
    run = await journal.open_run(run_id, name="n", session="s")
    await run.record_turn(1, {"text": "x" * size})
    await run.record("read", state="finished", value="y" * size, effect="read")
    await run.ask("pay", name="pay", arguments={"won": 1})
    if status is None:
        await run.close()
    else:
        await run.finish(status, messages=[{"role": "user", "content": run_id}])


def run_ids(journal: Journal) -> list[str]:
    return sorted(run.run_id for run in journal.runs())


def count_rows(path: Path) -> int:
    address = journal_at(path)
    if isinstance(address, str):
        tables = ", ".join(f"(SELECT count(*) FROM flowkit.{table})" for table in ("run", *OF_A_RUN))
        with psycopg.connect(address) as other:
            return sum(other.execute(f"SELECT {tables}".encode()).fetchone() or ())
    with closing(sqlite3.connect(path)) as connection:
        tables = ("run", *OF_A_RUN)
        return sum(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables)


@pytest.mark.parametrize("older_than", [3 * DAY_S, timedelta(days=3)])
def test_runs_that_ended_long_ago_are_removed_with_all_that_is_theirs(
    tmp_path: Path, older_than: float | timedelta
) -> None:
    clock = ManualClock()

    async def main() -> None:
        with opened_journal(tmp_path / "j", clock=clock) as journal:
            await add_run(journal, "old")
            rows = count_rows(tmp_path / "j")
            clock.advance(2 * DAY_S)
            await add_run(journal, "young", "failed")
            clock.advance(2 * DAY_S)
            assert journal.prune(older_than) == 1
            assert run_ids(journal) == ["young"]
            assert count_rows(tmp_path / "j") == rows
            assert journal.conversation("s") == [{"role": "user", "content": "young"}]

    asyncio.run(main())


def test_what_somebody_may_go_on_with_stays_unless_it_is_asked_for(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        with opened_journal(tmp_path / "j", clock=clock) as journal:
            for status in ("waiting", "in_doubt"):
                await add_run(journal, status, status)
            await add_run(journal, "stopped", None)
            clock.advance(DAY_S)
            await journal.open_run("driven", name="n")
            assert journal.get_stats().runs == {"in_doubt": 1, "running": 1, "stopped": 1, "waiting": 1}
            assert journal.prune(0) == 0
            assert journal.prune(3600, unfinished=True) == 3
            assert run_ids(journal) == ["driven"]
            clock.advance(10)
            assert journal.prune(0, unfinished=True) == 0, "its driver lives"

    asyncio.run(main())


@pytest.mark.sqlite_only
def test_many_runs_go_in_several_steps_and_the_file_shrinks(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        with opened_journal(tmp_path / "j", clock=clock) as journal:
            for number in range(250):
                await add_run(journal, f"r{number}", size=5_000)
            await add_run(journal, "large", size=100_000)
            for path in (tmp_path / "j-blobs").rglob("*"):
                os.utime(path, (clock.now, clock.now))
            full = journal.get_stats()
            assert full.runs == {"done": 251}
            assert full.blob_bytes > 100_000
            clock.advance(DAY_S)
            await add_run(journal, "waits", "waiting")
            commits = journal.commits.durable
            assert journal.prune(3600) == 251
            assert journal.commits.durable - commits >= 3
            stats = journal.get_stats()
            assert stats.runs == {"waiting": 1}
            assert stats.oldest_began_at == clock.now
            assert stats.blob_bytes == 0
            assert stats.size_bytes < 200_000 < full.size_bytes

    asyncio.run(main())


@tool(approval=True)
def refund(won: int) -> str:
    """Give money back."""
    return f"refunded {won}"


def make_old_journal(path: Path, version: int = 1) -> None:
    """The file that an older flowkit wrote: one run is done, one waits for approval."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / "journal_version_1.sql").read_text())
        if version == 2:
            connection.execute("CREATE INDEX run_began ON run (began)")
        connection.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.sqlite_only
def test_runs_in_a_journal_of_an_older_version_go_on(tmp_path: Path, version: int) -> None:
    make_old_journal(tmp_path / "j", version)

    async def go() -> None:
        with opened_journal(tmp_path / "j") as journal:
            assert run_ids(journal) == ["paid", "waits"]
            journal.decide("waits", "turn/3/call/0", approved=True, by="kim")
            agent = Agent(ScriptedModel(["It is back."]), tools=[refund], cache=False, journal=journal)
            result = await agent.run(run_id="waits", user="ann")
            assert result.output == "It is back."
            assert [outcome.value for outcome in result.calls] == ["refunded 5"]
            assert journal.prune(-3600) == 2, "pages of such a file can't be given back, and that is no error"

    run_virtual(go())
    with closing(sqlite3.connect(tmp_path / "j")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        plan: Sequence[tuple[object, ...]] = connection.execute(
            "EXPLAIN QUERY PLAN SELECT run_id FROM run ORDER BY id DESC LIMIT 20"
        ).fetchall()
        assert "TEMP B-TREE" not in str(plan)


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.sqlite_only
def test_several_may_open_a_journal_that_is_new_or_old_at_once(is_new: bool) -> None:
    with fast_folder() as place, ThreadPoolExecutor(12) as threads:
        for number in range(20):
            path = place / str(number)
            if not is_new:
                make_old_journal(path)
            journals = list(threads.map(Journal, [path] * 12))
            assert {len(journal.runs()) for journal in journals} == {0 if is_new else 2}


@pytest.mark.sqlite_only
def test_the_command_line_shows_the_size_and_prunes(flowkit: Command, tmp_path: Path) -> None:
    make_old_journal(tmp_path / "journal.sqlite3")
    shown = flowkit("runs", "stats").out
    assert "2 runs" in shown
    assert "kB" in shown
    assert "1 done" in shown
    assert json.loads(flowkit("runs", "stats", "--json").out)["runs"] == {"done": 1, "waiting": 1}
    with closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as connection, connection:
        connection.execute("UPDATE run SET changed = changed - ?", (400 * DAY_S,))
    assert flowkit("runs", "prune", "--older-than", "9000d").out.startswith("0 runs removed; left: 2, ")
    assert flowkit("runs", "prune", "--older-than", "30d").out.startswith("1 run removed; left: 1, ")
    assert flowkit("runs", "prune", "--older-than", "30d", "--unfinished").out.startswith("1 run removed; left: 0, ")
    assert "0 runs" in flowkit("runs", "stats").out


@pytest.mark.parametrize("text", ["soon", "30", "d", "", "-3d", "nand"])
@pytest.mark.sqlite_only
def test_an_age_that_is_none_removes_nothing(flowkit: Command, tmp_path: Path, text: str) -> None:
    make_old_journal(tmp_path / "journal.sqlite3")
    refused = flowkit("runs", "prune", f"--older-than={text}")
    assert refused.code == 2
    assert "as in 30d" in refused.err
    assert "2 runs" in flowkit("runs", "stats").out
