"""Real processes, real `kill -9`: what a run promises after each fault, judged by a log of effects outside flowkit.

Row numbers are those of the fault matrix in `docs/explanation/faults.md`.
"""

import asyncio
import inspect
import itertools
import json
import os
import random
import resource
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from forking import Child, Forks, say

from flowkit.clock import ManualClock, SystemClock
from flowkit.context import CONTEXT, Context
from flowkit.errors import RunBusy, StoreError
from flowkit.events import EventLog
from flowkit.executor import Executor
from flowkit.identity import RunIdentity
from flowkit.journal import Done, Journal, Recorded, Retry, RunJournal
from flowkit.journal import run as journal_run
from flowkit.references import Reference, ToolCall
from flowkit.tools import tool
from flowkit.tools.toolsets import Toolset
from tests.example_counts import IS_THOROUGH, share
from tests.servers.postgres import PostgresServer
from tests.stores import fast_folder, opened_journal, pretend_another_machine

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks, and kills")

KILLS = 100


# What the children run


@dataclass
class World:
    """What is outside of flowkit: a file of effects, and the point at which the process dies."""

    effects: str
    die_at: int | None = None
    stop_at: int | None = None
    dies_in: str | None = None
    points: int = 0
    journal_calls: int = 0

    def point(self) -> None:
        """One more moment at which a process may be killed."""
        self.points += 1
        if self.points == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def stop(self) -> None:
        """Stop this process, but not inside a transaction: others would wait for its lock until it goes on."""
        with closing(sqlite3.connect(Path(self.effects).with_name("j"), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            os.kill(os.getpid(), signal.SIGSTOP)

    def act(self, kind: str, context: Context["World"], value: int) -> int:
        """Change the world, between two moments at which the process may be killed."""
        self.point()
        line = {"node": context.call_id, "kind": kind, "key": context.idempotency_key, "value": value}
        handle = os.open(self.effects, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(handle, json.dumps(line).encode() + b"\n")
        os.close(handle)
        self.point()
        if kind == self.dies_in:
            os.kill(os.getpid(), signal.SIGKILL)
        return value


@tool(effect="read")
async def look(number: int, before: int = 0, ctx: Context[World] = CONTEXT) -> int:
    """Read something."""
    await asyncio.sleep(0.0005)
    return ctx.data.act("read", ctx, 3 * before + number)


@tool(effect="read")
def look_in_a_thread(number: int, before: int = 0, ctx: Context[World] = CONTEXT) -> int:
    """Read something, blocking."""
    time.sleep(0.0005)
    return ctx.data.act("read", ctx, 5 * before + number)


@tool(effect="idempotent")
async def put(number: int, before: int = 0, ctx: Context[World] = CONTEXT) -> int:
    """Set something; again with the same key changes nothing more."""
    await asyncio.sleep(0.0005)
    return ctx.data.act("idempotent", ctx, 7 * before + number)


@tool(effect="write")
async def pay(number: int, before: int = 0, ctx: Context[World] = CONTEXT) -> int:
    """Change something, each time."""
    await asyncio.sleep(0.0005)
    return ctx.data.act("write", ctx, 11 * before + number)


def ask_the_bank(number: int, before: int = 0) -> object:
    """Whether that payment happened."""
    for effect in read_effects(Path(os.environ["EFFECTS"])):
        if effect["kind"] == "probed" and effect["value"] == 11 * before + number:
            return Done(effect["value"])
    return Retry()


@tool(effect="write", probe=ask_the_bank)
async def pay_and_tell(number: int, before: int = 0, ctx: Context[World] = CONTEXT) -> int:
    """Change something that can be looked up later."""
    return ctx.data.act("probed", ctx, 11 * before + number)


TOOLS = Toolset(look, look_in_a_thread, put, pay, pay_and_tell)


@tool(name="put", effect="idempotent")
async def put_otherwise(number: int, before: int = 0, ctx: Context[World] = CONTEXT) -> int:
    """Set something, by other code."""
    return ctx.data.act("idempotent", ctx, 7 * before + number)


CHANGED_TOOLS = Toolset(look, look_in_a_thread, put_otherwise, pay, pay_and_tell)


def make_calls(count: int, names: Sequence[str]) -> list[ToolCall]:
    """A graph: each call needs the one three before it."""
    return [
        ToolCall(
            f"step-{number}",
            names[number % len(names)],
            {"number": number} | ({"before": Reference(f"step-{number - 3}")} if number >= 3 else {}),
        )
        for number in range(count)
    ]


class DyingJournal:
    """A run's journal with a moment to die before and after each of its methods."""

    def __init__(self, run: RunJournal, world: World) -> None:
        self._run = run
        self._world = world

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._run, name)
        if name == "post_read":
            return self._surround(found)
        if not inspect.iscoroutinefunction(found):
            return found

        async def between_two_points(*args: Any, **named: Any) -> Any:
            self._before()
            result = await found(*args, **named)
            self._world.point()
            return result

        return between_two_points

    def _surround(self, post: Callable[[Recorded], None]) -> Callable[[Recorded], None]:
        def between_two_points(record: Recorded) -> None:
            self._before()
            post(record)
            self._world.point()

        return between_two_points

    def _before(self) -> None:
        self._world.point()
        self._world.journal_calls += 1
        if self._world.journal_calls == self._world.stop_at:
            self._world.stop()


def drive(folder: str, count: int, die_at: int | None, names: Sequence[str], **options: Any) -> None:
    """Start the run or go on with it, and say how it ended.

    Options: `stop_at` which call of the journal it stops itself (SIGSTOP), `dies_in` which kind of effect it dies in,
    `lease_s` of the run, `start_within_s` of a claim, `disk_bytes` how large a file may grow from then on, `tools` which version of them.
    """
    path = Path(folder)
    os.environ["EFFECTS"] = str(path / "effects")
    world = World(str(path / "effects"), die_at, options.get("stop_at"), options.get("dies_in"))
    calls = make_calls(count, names)
    journal_run.START_WITHIN_S = options.get("start_within_s", journal_run.START_WITHIN_S)
    tools = CHANGED_TOOLS if options.get("tools") == "changed" else TOOLS

    async def main() -> None:
        with closing(Journal(options.get("address", path / "j"), lease_s=options.get("lease_s", 15.0))) as journal:
            try:
                run = await journal.open_run("r", name="n", inputs={"count": count})
            except RunBusy:
                say("busy")
                return
            say("driving")
            if "disk_bytes" in options:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (options["disk_bytes"], resource.RLIM_INFINITY))
            dying = cast(RunJournal, DyingJournal(run, world))
            log = EventLog("r", time.monotonic)
            log.first_seq = run.first_seq
            log.listen(run.append_event)
            try:
                async with Executor(
                    tools, log, data=world, identity=RunIdentity(run_id="r"), journal=dying, slots=2
                ) as executor:
                    for call in calls:
                        executor.add(call)
                    await executor.wait()
                    outcomes = {call.id: executor.outcome(call.id) for call in calls}
                states = {node: "none" if outcome is None else outcome.state for node, outcome in outcomes.items()}
                values = {node: None if outcome is None else outcome.value for node, outcome in outcomes.items()}
                await dying.finish("done" if set(states.values()) == {"finished"} else "in_doubt", dict(values))
            except (RunBusy, StoreError) as error:
                say(f"stopped: {error}")
            else:
                say(json.dumps({"states": states, "values": values, "points": world.points}))

    asyncio.run(main())


# What the tests do with them


@pytest.fixture
def place() -> Generator[Path]:
    with fast_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def forks() -> Generator[Forks]:
    with Forks(["test_faults"]) as forks:
        yield forks


def read_effects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def expected_values(count: int, names: Sequence[str]) -> dict[str, int]:
    factors = {"look": 3, "look_in_a_thread": 5, "put": 7, "pay": 11, "pay_and_tell": 11}
    values: list[int] = []
    for number in range(count):
        before = values[number - 3] if number >= 3 else 0
        values.append(factors[names[number % len(names)]] * before + number)
    return {f"step-{number}": value for number, value in enumerate(values)}


NAMES = ("look", "pay", "look_in_a_thread", "put", "pay")


@dataclass
class Story:
    """One run through kills, resumes and decisions, and what must hold at every stop."""

    forks: Forks
    folder: Path
    count: int
    names: Sequence[str] = NAMES
    doubts: int = 0
    address: str | None = None
    """A database in place of the file."""

    def start(self, die_at: int | None = None, **options: object) -> Child:
        self.recorded = self.read_recorded()
        self.effects_before = Counter(effect["node"] for effect in read_effects(self.folder / "effects"))
        if self.address is not None:
            # Nobody can be asked there whether a process lives, so what was killed has to run out of its time.
            options = {"address": self.address, "lease_s": 0.5, "start_within_s": 1.0, **options}
            self.wait_until_free()
        return self.forks.start("test_faults:drive", self.folder, self.count, die_at, self.names, **options)

    def open_journal(self) -> AbstractContextManager[Journal]:
        return closing(Journal(self.folder / "j" if self.address is None else self.address))

    def wait_until_free(self) -> None:
        with self.open_journal() as journal:
            while (found := journal.find("r")) is not None and found.is_held:
                time.sleep(0.02)
            while (shown := journal.show("r")) is not None and any(
                not node.is_ended and node.lease.may_run(SystemClock()) for node in shown.nodes.values()
            ):
                time.sleep(0.02)

    def read_recorded(self) -> set[str]:
        if self.address is None and not (self.folder / "j").exists():
            return set()
        with self.open_journal() as journal:
            shown = journal.show("r")
        return set() if shown is None else {node for node, found in shown.nodes.items() if found.state == "finished"}

    def check(self) -> None:
        """No write twice, no recorded step again, one key for each idempotent step."""
        effects = read_effects(self.folder / "effects")
        counts = Counter(effect["node"] for effect in effects)
        assert all(counts[effect["node"]] == 1 for effect in effects if effect["kind"] in ("write", "probed")), counts
        assert all(counts[node] == self.effects_before[node] for node in self.recorded), "a recorded step ran again"
        keys: dict[str, set[str]] = {}
        for effect in effects:
            keys.setdefault(effect["node"], set()).add(effect["key"])
        assert all(len(found) == 1 for found in keys.values()), "an attempt had another idempotency key"

    def hear_end(self, child: Child) -> dict[str, Any] | None:
        """How the run ended; None when its process was killed before."""
        assert child.hear() in ("driving", "")
        said = child.hear()
        child.wait()
        self.check()
        return json.loads(said) if said else None

    def decide(self) -> int:
        """Be the person who looks at the world and says what happened to each write in doubt."""
        decided = 0
        if self.address is not None:
            self.wait_until_free()
        with self.open_journal() as journal:
            shown = journal.show("r")
            for node, found in shown.nodes.items() if shown is not None else ():
                if found.state == "in_doubt":
                    happened = [e for e in read_effects(self.folder / "effects") if e["node"] == node]
                    journal.resolve("r", node, Done(happened[0]["value"]) if happened else Retry(), by="ada")
                    decided += 1
        self.doubts += decided
        return decided

    def finish(self) -> None:
        """Go on until the end, deciding what is in doubt, and compare the answer."""
        ended = self.hear_end(self.start())
        while ended is not None and "in_doubt" in ended["states"].values():
            assert self.decide() > 0, "nothing would change"
            ended = self.hear_end(self.start())
        assert ended is not None
        assert ended["values"] == expected_values(self.count, self.names)
        assert set(ended["states"].values()) == {"finished"}


def count_points(forks: Forks, folder: Path, count: int, names: Sequence[str]) -> int:
    """How many moments to die there are in a run that nothing disturbs."""
    story = Story(forks, folder, count, names)
    ended = story.hear_end(story.start())
    assert ended is not None
    assert ended["values"] == expected_values(count, names)
    return ended["points"]


@pytest.mark.slow
def test_rows_1_to_3_killed_at_every_point_a_run_goes_on(place: Path, forks: Forks) -> None:
    """Before and after each call of the journal and each effect, in tasks and in threads."""
    (place / "whole").mkdir()
    points = count_points(forks, place / "whole", 7, NAMES)
    assert points > 35
    doubts = 0
    for die_at in share(range(1, points + 1)):
        story = Story(forks, place / str(die_at), 7)
        story.folder.mkdir()
        assert story.hear_end(story.start(die_at)) is None
        story.finish()
        doubts += story.doubts
    assert doubts > 0 or not IS_THOROUGH, "some of these kills must hit a write in the middle"


@pytest.mark.slow
def test_killed_at_points_of_a_run_whose_journal_is_in_postgres(
    place: Path, forks: Forks, postgres_server: PostgresServer, journal_template: str
) -> None:
    points = count_points(forks, place, 7, NAMES)
    doubts = 0
    for die_at in range(1, points + 1, 2):
        name = postgres_server.create_database(journal_template)
        story = Story(forks, place / str(die_at), 7, address=postgres_server.address(name))
        story.folder.mkdir()
        assert story.hear_end(story.start(die_at)) is None
        story.finish()
        doubts += story.doubts
        postgres_server.drop_database(name)
    assert doubts > 0, "some of these kills must hit a write in the middle"


@pytest.mark.slow
def test_row_8_a_probe_decides_on_a_write_that_may_have_happened(place: Path, forks: Forks) -> None:
    names = ("pay_and_tell", "look")
    (place / "whole").mkdir()
    points = count_points(forks, place / "whole", 4, names)
    for die_at in share(range(1, points + 1)):
        story = Story(forks, place / str(die_at), 4, names)
        story.folder.mkdir()
        assert story.hear_end(story.start(die_at)) is None
        ended = story.hear_end(story.start())
        assert ended is not None
        assert ended["values"] == expected_values(4, names)
        assert story.doubts == 0, "nobody had to decide"


def test_row_8_without_a_probe_the_run_stops_and_says_so(place: Path, forks: Forks) -> None:
    in_doubt = 0
    for die_at in range(1, 7):
        story = Story(forks, place / str(die_at), 1, ("pay",))
        story.folder.mkdir()
        assert story.hear_end(story.start(die_at)) is None
        happened = len(read_effects(story.folder / "effects"))
        ended = story.hear_end(story.start())
        assert ended is not None
        if ended["states"] == {"step-0": "in_doubt"}:
            in_doubt += 1
            assert len(read_effects(story.folder / "effects")) == happened, "it was not started again"
            with opened_journal(story.folder / "j") as journal:
                assert journal.runs()[0].status == "in_doubt"
    assert in_doubt >= 3, "after the claim, before and after the effect, before the record"


@pytest.mark.slow
def test_twenty_steps_killed_at_a_random_moment_a_hundred_times(place: Path, forks: Forks) -> None:
    """Each write happens exactly once, or is in doubt and says so; the answer is the same in the end."""
    numbers = random.Random(11)
    (place / "whole").mkdir()
    whole = Story(forks, place / "whole", 20).start()
    assert whole.hear() == "driving"
    began_s = time.monotonic()
    assert whole.hear()
    whole_s = time.monotonic() - began_s
    whole.wait()
    kills = runs = 0
    while kills < KILLS:
        story = Story(forks, place / str(runs), 20)
        story.folder.mkdir()
        if runs == 0:
            # Chance may never hit a write in the middle; one kill is sure to.
            assert story.hear_end(story.start(dies_in="write")) is None
            assert story.decide() > 0
        for _ in range(numbers.randint(1, 6)):
            child = story.start()
            assert child.hear() == "driving"
            time.sleep(numbers.uniform(0, whole_s))  # the moment is nobody's choice
            child.kill()
            story.check()
            story.decide()
            kills += 1
        story.finish()
        writes = [e for e in read_effects(story.folder / "effects") if e["kind"] == "write"]
        assert Counter(e["node"] for e in writes) == {f"step-{n}": 1 for n in range(20) if NAMES[n % 5] == "pay"}
        runs += 1


def test_row_7_a_second_driver_is_refused(place: Path, forks: Forks) -> None:
    story = Story(forks, place, 20)
    first = story.start(stop_at=10)
    assert first.hear() == "driving"
    assert first.has_stopped()
    others = [story.start() for _ in range(3)]
    assert [other.hear() for other in others] == ["busy"] * 3
    assert [other.wait() for other in others] == [0] * 3
    first.go_on()
    assert json.loads(first.hear())["values"] == expected_values(20, NAMES)
    first.wait()
    story.check()


@pytest.mark.slow
@pytest.mark.parametrize("is_known", [True, False])
def test_row_6_a_driver_that_was_stopped_past_its_lease_starts_nothing_and_repeats_nothing(
    place: Path, forks: Forks, is_known: bool
) -> None:
    """Stopped before a call of the journal, as when a machine sleeps or swaps.

    Where it is known to live it keeps its run; where it can't be asked, as on another machine, it wakes when another
    has taken over.
    """
    for stop_at in itertools.count(1):
        story = Story(forks, place / str(stop_at), 5)
        story.folder.mkdir()
        first = story.start(stop_at=stop_at, lease_s=0.02, start_within_s=0.02)
        assert first.hear() == "driving"
        if not first.has_stopped():
            assert stop_at > 8, "there are more calls of the journal than that"
            break
        if not is_known:
            pretend_another_machine(story.folder / "j")
        time.sleep(0.05)  # its lease runs out, and what it claimed is over
        second = story.start()
        if is_known:
            assert second.hear() == "busy"
            second.wait()
            first.go_on()
            assert json.loads(first.hear())["values"] == expected_values(5, NAMES)
            first.wait()
            story.check()
            continue
        ended = story.hear_end(second)
        assert ended is not None
        first.go_on()
        assert first.hear().startswith("stopped: run 'r': another process took over")
        first.wait()
        story.check()
        if "in_doubt" in ended["states"].values():
            story.decide()
        story.finish()


@pytest.mark.slow
def test_row_9_an_unfinished_step_with_other_code_is_refused(place: Path, forks: Forks) -> None:
    names = ("look", "put", "put")
    (place / "whole").mkdir()
    points = count_points(forks, place / "whole", 4, names)
    refused = 0
    for die_at in range(1, points + 1):
        story = Story(forks, place / str(die_at), 4, names)
        story.folder.mkdir()
        assert story.hear_end(story.start(die_at)) is None
        ended = story.hear_end(story.start(tools="changed"))
        assert ended is not None
        refused += "failed" in ended["states"].values()
        story.finish()
    assert refused > 0, "some of these kills must hit a claimed step"


def test_row_11_on_a_full_disk_no_step_starts_unrecorded_and_nothing_is_lost(place: Path, forks: Forks) -> None:
    stopped = 0
    for kilobytes in range(40, 200, 20):
        story = Story(forks, place / str(kilobytes), 20)
        story.folder.mkdir()
        child = story.start(disk_bytes=kilobytes * 1000)
        assert child.hear() == "driving"
        said = child.hear()
        child.wait()
        story.check()
        if said.startswith("stopped"):
            stopped += 1
            assert "can't be written" in said
        story.decide()
        story.finish()
    assert stopped > 0, "the disk was never full"


def fork_while_driving(folder: str) -> None:
    """Drive a run, and fork a child that wants it too and then dies with one of its own."""
    clock = ManualClock()
    with opened_journal(Path(folder) / "j", clock=clock) as journal, asyncio.Runner() as runner:
        mine = runner.run(journal.open_run("parent's", name="n"))
        pid = os.fork()
        if pid == 0:
            with asyncio.Runner() as other:
                try:
                    other.run(journal.open_run("parent's", name="n"))
                except RunBusy:
                    say("busy")
                other.run(journal.open_run("child's", name="n"))
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        say(" ".join(sorted(run.run_id for run in journal.runs() if run.is_held)))
        runner.run(runner.run(journal.open_run("child's", name="n")).finish("done"))
        runner.run(mine.finish("done"))
        say("both done")


def test_a_forked_process_is_another_driver(place: Path, forks: Forks) -> None:
    child = forks.start("test_faults:fork_while_driving", place)
    assert [child.hear() for _ in range(3)] == ["busy", "parent's", "both done"]
    assert child.wait() == 0


def list_runs(folder: str) -> None:
    """What a command at a terminal does: open the journal, look, close it."""
    with opened_journal(Path(folder) / "j") as journal:
        say(" ".join(run.run_id for run in journal.runs()))


@pytest.mark.slow
def test_a_second_journal_on_the_file_costs_the_first_nothing(place: Path, forks: Forks) -> None:
    """Closing any handle of a file ends the locks that its process has on it: others would take SQLite's log away."""

    async def main() -> None:
        with opened_journal(place / "j") as first:
            run = await first.open_run("r", name="n")
            await run.claim("w", tool="t", code="", effect="write", arguments={})
            with opened_journal(place / "j"):
                looking = forks.start("test_faults:list_runs", place)
                assert looking.hear() == "r"
                assert looking.wait() == 0
                await run.record("w", state="finished", value=7, effect="write")
                with closing(sqlite3.connect(place / "j")) as other:
                    assert other.execute("SELECT state, value FROM node").fetchall() == [("finished", "7")]

    asyncio.run(main())
