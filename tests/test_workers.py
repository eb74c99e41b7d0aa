"""Workers as processes: killed, stopped, replaced; each write once, or in doubt and said so; no run lost."""

import asyncio
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from flowkit import Journal, submit
from flowkit.identity import RunIdentity
from flowkit.journal import Done, Resolution, Retry, migrate
from flowkit.queues.procrastinate import open_queue
from tests.fleet import APP, FLOWKIT, LIMIT_S, Fleet, start_fleet, wait_a_moment
from tests.servers.postgres import PostgresServer
from tests.stores import journal_at

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("FLOWKIT_TEST_KILLS", "20"))
"""How many processes the sweep kills or stops."""
FAILS_SOON = ("--lease", "2")
"""For a worker that is killed or stopped: in a database its runs are waited for that long."""
SWEEP_LEASE = ("--lease", "5")
"""The same where each worker may be the one, and has to keep its lease on a busy machine until then."""


@pytest.fixture
def fleet(tmp_path: Path, journal_store: str) -> Generator[Fleet]:
    with start_fleet(tmp_path, str(journal_at(tmp_path / "j.sqlite3"))) as fleet:
        yield fleet


def submit_orders(fleet: Fleet, journal: Journal, *orders: str, name: str = "serve_order") -> None:
    served = fleet.load()
    assert served.app is not None
    app = served.app

    async def go() -> None:
        for order in orders:
            await submit(app, name=name, inputs={"order": order}, journal=journal, user="ann", run_id=order)

    asyncio.run(go())


def test_killed_in_a_read_the_run_goes_on_in_another_worker(fleet: Fleet) -> None:
    with closing(Journal(fleet.journal)) as journal:
        fleet.hold("look_up")
        submit_orders(fleet, journal, "o1")
        fleet.start(*FAILS_SOON)
        fleet.wait_until(lambda: bool(fleet.read("seen")))
        [(_, _, pid, _)] = fleet.read("seen")
        fleet.start()
        fleet.find_worker(pid).kill()
        fleet.wait_until(lambda: len(fleet.read("seen")) == 2)
        assert fleet.read("seen")[1][2] != pid
        fleet.release("look_up")
        fleet.wait_for_statuses(journal, "done")
        assert fleet.count_effects() == {("pay", "o1"): 1, ("ship", "o1"): 1}


def test_killed_in_a_write_it_is_in_doubt_until_a_person_says_that_it_did_not_happen(fleet: Fleet) -> None:
    with closing(Journal(fleet.journal)) as journal:
        fleet.hold("pay")
        submit_orders(fleet, journal, "o1")
        fleet.start(*FAILS_SOON)
        fleet.wait_until(lambda: len(fleet.read("seen")) == 2)
        fleet.start()
        fleet.find_worker(fleet.read("seen")[1][2]).kill()
        fleet.wait_for_statuses(journal, "in_doubt")
        assert fleet.count_effects() == {}
        fleet.release("pay")
        # Refused while the call that was claimed could still begin.
        fleet.wait_until(lambda: decide(fleet, "resolve", "o1", "pay", "--retry"))
        fleet.wait_for_statuses(journal, "done")
        assert fleet.count_effects() == {("pay", "o1"): 1, ("ship", "o1"): 1}


def decide(fleet: Fleet, *words: str) -> bool:
    """Run a command of `flowkit runs` as a person would, in another process; whether it is done."""
    done = subprocess.run(
        [*FLOWKIT, "runs", *words, "--journal", fleet.journal], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0 or "may still be running" in done.stderr, done.stderr
    return done.returncode == 0


def test_a_decision_on_the_command_line_lets_a_worker_go_on(fleet: Fleet) -> None:
    with closing(Journal(fleet.journal)) as journal:
        submit_orders(fleet, journal, "o1", "o2", name="refund_order")
        fleet.start()
        fleet.wait_for_statuses(journal, "waiting")
        assert decide(fleet, "approve", "o1", "refund")
        assert decide(fleet, "approve", "o2", "refund", "--deny", "--reason", "too late")
        fleet.wait_for_statuses(journal, "done", "failed")
        assert fleet.count_effects() == {("refund", "o1"): 1}


@pytest.mark.sqlite_only
def test_stopped_worker_keeps_its_run_on_one_machine_and_ends_it_when_it_wakes(fleet: Fleet) -> None:
    with closing(Journal(fleet.journal)) as journal:
        fleet.hold("pay")
        submit_orders(fleet, journal, "o1")
        fleet.start(*FAILS_SOON)
        fleet.wait_until(lambda: len(fleet.read("seen")) == 2)
        worker = fleet.find_worker(fleet.read("seen")[1][2])
        worker.send_signal(signal.SIGSTOP)
        submit_orders(fleet, journal, "o2")
        fleet.start()
        fleet.release("pay")
        fleet.wait_until(lambda: fleet.count_effects().get(("ship", "o2")) == 1)
        assert fleet.count_effects() == {("pay", "o2"): 1, ("ship", "o2"): 1}
        worker.send_signal(signal.SIGCONT)
        fleet.wait_for_statuses(journal, "done")
        assert set(fleet.count_effects().values()) == {1}
        assert len(fleet.count_effects()) == 4


def test_stopped_in_a_write_elsewhere_it_is_in_doubt_and_done_once_when_it_wakes(
    tmp_path: Path, postgres_journal: str
) -> None:
    with start_fleet(tmp_path, postgres_journal) as fleet, closing(Journal(fleet.journal)) as journal:
        fleet.hold("pay")
        submit_orders(fleet, journal, "o1")
        fleet.start()
        fleet.wait_until(lambda: len(fleet.read("seen")) == 2)
        worker = fleet.find_worker(fleet.read("seen")[1][2])
        worker.send_signal(signal.SIGSTOP)
        fleet.start()
        fleet.wait_for_statuses(journal, "in_doubt")
        fleet.release("pay")
        worker.send_signal(signal.SIGCONT)
        fleet.wait_until(lambda: bool(fleet.count_effects()))
        journal.resolve("o1", "pay", Done("o1"), by="ann")
        journal.requeue("o1")
        fleet.wait_for_statuses(journal, "done")
        assert fleet.count_effects() == {("pay", "o1"): 1, ("ship", "o1"): 1}


def test_worker_told_to_end_lets_go_behind_its_write_and_another_goes_on(fleet: Fleet) -> None:
    with closing(Journal(fleet.journal)) as journal:
        fleet.hold("pay")
        submit_orders(fleet, journal, "o1")
        first = fleet.start("--grace", "120")
        fleet.wait_until(lambda: len(fleet.read("seen")) == 2)
        first.send_signal(signal.SIGTERM)
        fleet.start()
        submit_orders(fleet, journal, "o2")
        fleet.wait_until(lambda: any(order == "o2" for _, order, _, _ in fleet.read("seen")))
        assert first.poll() is None
        fleet.release("pay")
        assert first.wait(60) == 0
        fleet.wait_for_statuses(journal, "done")
        assert set(fleet.count_effects().values()) == {1}
        pids = {(place, order): pid for place, order, pid, _ in fleet.read("effects")}
        assert pids["pay", "o1"] == first.pid
        assert pids["ship", "o1"] != first.pid


def test_rolling_deploy_loses_no_run_and_does_none_twice(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Journal(fleet.journal)) as journal:
        workers = [fleet.start() for _ in range(3)]
        fleet.wait_until(lambda: fleet.count_ready() == 3)
        orders = [f"o{number}" for number in range(100)]
        is_over = threading.Event()

        def keep_asking() -> None:
            for order in orders:
                submit_orders(fleet, journal, order)
                if is_over.wait(0.05):
                    return

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            for number, worker in enumerate(workers):
                fleet.start()
                fleet.wait_until(lambda number=number: fleet.count_ready() == 4 + number)
                seen = len(fleet.read("seen"))
                fleet.wait_until(lambda seen=seen: len(fleet.read("seen")) > seen or not asking.is_alive())
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(120) == 0, fleet.read_log()
        finally:
            asking.join()
            is_over.set()
        fleet.wait_until(lambda: len(journal.runs(limit=1000)) == len(orders))
        fleet.wait_for_statuses(journal, "done")
        assert fleet.count_effects() == {(place, order): 1 for place in ("pay", "ship") for order in orders}
        with capsys.disabled():
            print(f"\nrolling deploy: {len(orders)} runs, the longest pause of one {find_longest_pause(fleet):.2f} s")


def find_longest_pause(fleet: Fleet) -> float:
    """The longest time in which nothing happened in a run that had begun."""
    times: dict[str, list[float]] = {}
    for _, order, _, at in sorted((*fleet.read("seen"), *fleet.read("effects")), key=lambda told: told[3]):
        times.setdefault(order, []).append(at)
    return max(later - earlier for told in times.values() for earlier, later in pairwise(told))


@pytest.mark.timeout(300 + 10 * KILLS)
def test_for_every_kill_each_write_is_done_once_or_in_doubt(
    fleet: Fleet, journal_store: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three workers share a journal; at random moments one is killed, or stopped for a while, or the database is."""

    def say(order: str, place: str) -> Resolution:
        return Done(order) if fleet.count_effects().get((place, order)) else Retry()

    server = request.getfixturevalue("postgres_server") if journal_store == "postgres" else None
    chance = random.Random(KILLS)
    began = time.monotonic()
    doubts = 0
    with closing(Journal(fleet.journal)) as journal:
        running = [fleet.start(*SWEEP_LEASE) for _ in range(3)]
        orders: list[str] = []
        for number in range(KILLS):
            more = [f"o{number}-{index}" for index in range(3)]
            submit_orders(fleet, journal, *more)
            orders += more
            seen = len(fleet.read("seen"))
            fleet.wait_until(lambda seen=seen: len(fleet.read("seen")) > seen)
            threading.Event().wait(chance.uniform(0, 0.15))
            if server is not None and number % 5 == 4:
                server.restart("immediate")
                continue
            victim = running.pop(0)
            if chance.random() < 0.25:
                victim.send_signal(signal.SIGSTOP)
                threading.Event().wait(chance.uniform(0, 0.5))
                victim.send_signal(signal.SIGCONT)
                running.append(victim)
            else:
                victim.kill()
                victim.wait()
                running.append(fleet.start(*SWEEP_LEASE))
        fleet.wait_for_statuses(journal, "done", "in_doubt")
        while found := journal.runs(status="in_doubt", limit=1000):
            for run in found:
                details = journal.show(run.run_id)
                assert details is not None
                for node in details.nodes.values():
                    if node.state == "in_doubt":
                        doubts += 1
                        fleet.settle(
                            journal, run.run_id, node.node, lambda run=run, node=node: say(run.run_id, node.node)
                        )
                journal.requeue(run.run_id)
            fleet.wait_for_statuses(journal, "done", "in_doubt")
        assert {run.run_id for run in journal.runs(status="done", limit=10_000)} == set(orders)
        assert fleet.count_effects() == {(place, order): 1 for place in ("pay", "ship") for order in orders}
    took_s = time.monotonic() - began
    with capsys.disabled():
        print(
            f"\n{KILLS} kills in {took_s:.0f} s: {len(orders)} runs done, each of {2 * len(orders)} writes once;"
            f" {doubts} were in doubt, and settled by what the log outside says"
        )


# A queue


@pytest.fixture
def queued(tmp_path: Path, postgres_journal: str) -> Generator[tuple[Fleet, str]]:
    """A queue in the journal's database."""
    options = ("--queue", postgres_journal, "--make-tables")
    with start_fleet(tmp_path, postgres_journal, options=options) as fleet:
        yield fleet, postgres_journal


def test_queue_that_delivers_twice_late_or_never_has_each_run_driven_once(queued: tuple[Fleet, str]) -> None:
    from flowkit.queues.procrastinate import TASK, open_queue

    fleet, url = queued

    async def put(order: str, *, times: int, has_lock: bool = True) -> None:
        async with open_queue(url, makes_tables=True) as queue:
            for _ in range(times):
                if has_lock:
                    await queue.put(RunIdentity("ann", None, order), "serve_order")
                else:
                    job = queue.app.configure_task(TASK, queue="flowkit/serve_order")
                    await job.defer_async(run_id=order, user="ann", session=None)

    with closing(Journal(fleet.journal)) as journal:
        submit_orders(fleet, journal, "twice", "often", "late", "never")
        asyncio.run(put("twice", times=2))
        asyncio.run(put("often", times=5, has_lock=False))
        fleet.start()
        fleet.start()
        fleet.wait_for_statuses(journal, "done")
        asyncio.run(put("late", times=3))
        fleet.wait_until(lambda: count_jobs(url) == 0)
        assert set(fleet.count_effects().values()) == {1}
        assert len(fleet.count_effects()) == 8


def test_runs_let_go_of_are_passed_on_by_the_queue(queued: tuple[Fleet, str]) -> None:
    fleet, _ = queued
    with closing(Journal(fleet.journal)) as journal:
        fleet.hold("look_up")
        submit_orders(fleet, journal, "o1")
        first = fleet.start("--grace", "120")
        fleet.wait_until(lambda: bool(fleet.read("seen")))
        fleet.start()
        fleet.wait_until(lambda: fleet.count_ready() == 2)
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
        fleet.release("look_up")
        fleet.wait_for_statuses(journal, "done")
        assert set(fleet.count_effects().values()) == {1}


def test_queue_that_crashes_is_used_again_when_it_is_back(
    tmp_path: Path, postgres_server: PostgresServer, postgres: str
) -> None:
    from flowkit.queues.procrastinate import open_queue

    async def put(order: str) -> None:
        async with open_queue(postgres) as queue:
            await queue.put(RunIdentity("ann", None, order), "serve_order")

    options = ("--queue", postgres, "--make-tables")
    path = str(tmp_path / "j.sqlite3")
    with start_fleet(tmp_path, path, options=options) as fleet, closing(Journal(path)) as journal:
        fleet.start()
        fleet.wait_until(lambda: fleet.count_ready() == 1)
        postgres_server.restart("immediate")
        # Whether the worker notices it depends on the moment: a connection that nobody uses is replaced in silence.
        submit_orders(fleet, journal, "o1")
        asyncio.run(put("o1"))
        fleet.wait_until(lambda: count_jobs(postgres) == 0)
        fleet.wait_for_statuses(journal, "done")
        assert set(fleet.count_effects().values()) == {1}


def test_queue_that_was_down_is_listened_to_again(
    tmp_path: Path, postgres_server: PostgresServer, postgres: str
) -> None:
    """Else the worker would find its runs by polling, until it is started anew."""

    def count_listeners() -> int:
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND datname = %s"
        [(found,)] = postgres_server.execute(listening, parameters=[postgres.rpartition("/")[2]])
        return int(found)

    with start_fleet(tmp_path, str(tmp_path / "j"), options=("--queue", postgres, "--make-tables")) as fleet:
        fleet.start()
        fleet.wait_until(lambda: count_listeners() == 1)
        postgres_server.stop("immediate")
        fleet.wait_until(lambda: "the queue is lost for a moment" in fleet.read_log())
        postgres_server.start()
        fleet.wait_until(lambda: count_listeners() == 1)


@pytest.mark.parametrize("command", ["worker", "serve"])
@pytest.mark.parametrize(
    ("url", "said", "code"),
    [
        ("postgresql://app:secret@127.0.0.1:1/x", "the queue 'postgresql://app@127.0.0.1:1/x' can't be reached", 1),
        ("postgresql://app:secret@127.0.0.1:1/x?nonsense=1", "the queue", 2),
        ("localhost:5432/x", "postgresql://", 2),
    ],
)
def test_queue_that_is_not_there_is_said_in_one_line(
    command: str, url: str, said: str, code: int, tmp_path: Path
) -> None:
    app = tmp_path / "orders_app.py"
    app.write_text(APP)
    words = (*FLOWKIT, command, str(app), "--queue", url, "--journal", str(tmp_path / "j.sqlite3"), "--wait", "0")
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_role_that_may_not_make_the_tables_of_a_queue_is_told_why(
    tmp_path: Path, postgres: str, postgres_server: PostgresServer
) -> None:
    app = tmp_path / "orders_app.py"
    app.write_text(APP)
    postgres_server.execute("CREATE ROLE poor LOGIN")
    words = (*FLOWKIT, "worker", str(app), "--queue", postgres.replace("flowkit@", "poor@"), "--make-tables")
    done = subprocess.run(
        [*words, "--journal", str(tmp_path / "j.sqlite3")], capture_output=True, text=True, timeout=200
    )
    postgres_server.execute("DROP ROLE poor")
    assert done.returncode == 1
    assert "the tables of the queue" in done.stderr
    assert "permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_role_that_may_not_use_the_tables_of_a_queue_is_told_which_rights_it_needs(
    tmp_path: Path, postgres: str, postgres_server: PostgresServer
) -> None:
    async def make_tables() -> None:
        async with open_queue(postgres, makes_tables=True):
            pass

    asyncio.run(make_tables())
    app, role, database = tmp_path / "orders_app.py", "poorer", postgres.rpartition("/")[2]
    app.write_text(APP)
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    words = [*FLOWKIT, "worker", str(app), "--queue", postgres.replace("flowkit@", f"{role}@")]
    done = subprocess.run([*words, "--journal", str(tmp_path / "j")], capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "the role has no rights on procrastinate_" in done.stderr
    assert done.stderr.count("\n") == 1
    for kind, rights in (("TABLES", "SELECT, INSERT, UPDATE, DELETE"), ("SEQUENCES", "USAGE")):
        postgres_server.execute(f"GRANT {rights} ON ALL {kind} IN SCHEMA public TO {role}", database=database)
    with start_fleet(tmp_path, str(tmp_path / "j"), options=words[-2:]) as fleet:
        worker = fleet.start()
        fleet.wait_until(lambda: fleet.count_ready() == 1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(LIMIT_S) == 0
        assert fleet.read_log().count("\n") == 1, "nothing was lost, and its end is quiet"
    postgres_server.execute(f"DROP OWNED BY {role}", database=database)
    postgres_server.execute(f"DROP ROLE {role}")


def count_jobs(url: str) -> int:
    import psycopg

    wait_a_moment()
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchone()
        assert row is not None
        return int(row[0])


# A database that isn't up yet


def test_worker_waits_for_a_database_that_starts_and_says_so(postgres_server: PostgresServer, tmp_path: Path) -> None:
    from psycopg import pq

    class Recovering(PostgresServer):
        """A standby that takes no connections, as a server that is starting up."""

        def _is_ready(self) -> bool:
            return pq.PGconn.ping(self.address().encode()) == pq.Ping.REJECT

    database = postgres_server.create_database()
    migrate(postgres_server.address(database))
    with postgres_server.standby("starting") as standby:
        standby.stop()
        server = Recovering(standby.folder, {"hot_standby": "off"})
        with start_fleet(tmp_path, server.address(database), options=["--wait", str(LIMIT_S)]) as fleet:
            fleet.start()
            fleet.wait_until(lambda: "doesn't answer; waiting for up to" in fleet.read_log())
            server.start()
            try:
                fleet.start()
                fleet.wait_until(lambda: "is starting up, or ending; waiting for up to" in fleet.read_log())
                assert fleet.count_ready() == 0
                server.promote()
                fleet.wait_until(lambda: fleet.count_ready() == 2)
            finally:
                server.stop("immediate")


@pytest.mark.parametrize("command", [("worker",), ("serve", "--port", "0")])
@pytest.mark.parametrize("option", ["--journal", "--queue"])
def test_told_to_end_while_it_waits_for_a_database_it_ends_at_once(
    command: tuple[str, ...], option: str, tmp_path: Path
) -> None:
    app = tmp_path / "orders_app.py"
    app.write_text(APP)
    words = [*FLOWKIT, *command, str(app), "--wait", "300", option, "postgresql://app@127.0.0.1:1/x"]
    environment = {**os.environ, "FLOWKIT_JOURNAL": str(tmp_path / "j.sqlite3")}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as waiting:
        assert waiting.stderr is not None
        try:
            assert "waiting for up to 300 s" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGTERM)
            assert waiting.wait(200) == 0
            assert waiting.stderr.read() == ""
        finally:
            waiting.kill()


def test_worker_whose_database_does_not_come_ends_with_the_cause(tmp_path: Path) -> None:
    app = tmp_path / "orders_app.py"
    app.write_text(APP)
    words = (*FLOWKIT, "worker", str(app), "--journal", "postgresql://app:secret@127.0.0.1:1/x", "--wait", "0.5")
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "doesn't answer; waiting for up to 0.5 s" in done.stderr
    assert "can't be read" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
