"""For every tree of calls and every schedule of two drivers of its run: each write happens at most once.

A tree is made of tools, needs, calls, agents, recipes and items. Each driver has a journal of its own, on the same file,
and waits before and after each of its operations until the schedule lets it go on. Leases expire meanwhile, a driver
may die, and a run in progress may be started a second time. A person settles what is in doubt; then the run ends, and
every call has happened. Outside of flowkit a list notes each effect.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowkit import Agent, Run, ScriptedModel
from flowkit.agent import AgentResult
from flowkit.clock import Clock, ManualClock
from flowkit.errors import FlowkitError, RunError, StoreError
from flowkit.identity import RunIdentity
from flowkit.journal import Done, Fail, Journal, Retry
from flowkit.journal.driver_lease import read_holder
from flowkit.journal.log import RUN_LEASE_S, JournalLog
from flowkit.journal.run import START_WITHIN_S
from flowkit.journal.store import Changes
from flowkit.models.base import ModelRequest
from flowkit.stores.thread import Tell
from flowkit.testing import call
from flowkit.testing.loop import run_virtual
from tests.example_counts import examples
from tests.stores import fast_folder, pretend_another_machine
from tests.test_trees_and_crashes import BOOK, DEEP, PAY, TREES, Builder, Inner, Leaf, Tree, World, live

T = TypeVar("T")
DRIVERS = 2
STEP_S = 0.4
"""What passes in the drivers' loop in each step: less than a slow tool takes, so that some stop in the middle of it."""
ROUNDS = 12
"""In how many rounds of a driver and a person every run comes to its end."""


class Go(NamedTuple):
    """A driver takes some steps; it starts the run if it isn't at work."""

    driver: int
    steps: int


class Pause(NamedTuple):
    """Time passes, and nobody does anything."""

    seconds: float


class Die(NamedTuple):
    """The process of a driver is killed; another one takes its place when it is its turn."""

    driver: int


class Join(NamedTuple):
    """A driver starts the run that it has in progress a second time."""

    driver: int


class Look(NamedTuple):
    """A person settles what is in doubt by what really happened, as far as flowkit allows it."""


Act = Go | Pause | Die | Join | Look
WHO = st.integers(0, DRIVERS - 1)
SCHEDULES: st.SearchStrategy[list[Act]] = st.lists(
    st.builds(Go, WHO, st.integers(1, 8))
    | st.builds(Go, WHO, st.integers(1, 8))
    | st.builds(Pause, st.sampled_from([1.0, START_WITHIN_S + 0.5, RUN_LEASE_S + 1.0, 1000.0]))
    | st.builds(Die, WHO)
    | st.builds(Join, WHO)
    | st.builds(Look),
    min_size=2,
    max_size=25,
)


@dataclass
class Effects:
    """What happened outside of flowkit: the leaf's name and the call's key, in order, and how each leaf acts."""

    log: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    failing: set[str] = field(default_factory=set[str])


class Gate:
    """Holds one driver before and after each operation of its journal, until it is let through."""

    def __init__(self) -> None:
        self.is_dead = False
        self._is_open = False
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait until the schedule lets it go on; raises `StoreError` in a process that has died."""
        if not self._is_open:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        if self.is_dead:
            raise StoreError("this process has died")

    def let_one_through(self) -> None:
        while self._waiting:
            future = self._waiting.pop(0)
            if not future.done():  # its waiter may have been cancelled
                future.set_result(None)
                return

    def open(self) -> None:
        self._is_open = True
        while self._waiting:
            self.let_one_through()


class SteppedLog(JournalLog):
    """A journal's writer whose every operation passes the gate of its driver."""

    gate: Gate

    async def write(self, changes: Changes | Callable[[], Changes | None], *, is_durable: bool = False) -> None:
        await self.gate.wait()
        await super().write(changes, is_durable=is_durable)
        await self.gate.wait()

    async def run(self, operation: Callable[[], T]) -> T:
        await self.gate.wait()
        result = await super().run(operation)
        await self.gate.wait()
        return result

    def post(self, changes: Changes | Callable[[], Changes | None], tell: Tell | None = None) -> None:
        if not self.gate.is_dead:
            super().post(changes, tell)

    def _renew(self) -> None:
        """Renew nothing: whoever is stopped doesn't, and here everyone is, nearly always."""


class SteppedJournal(Journal):
    """The journal of one driver."""

    def __init__(self, path: Path, clock: Clock, gate: Gate) -> None:
        super().__init__(path, clock=clock)
        self._log = SteppedLog(self._store, self._log.held, clock, lease_s=RUN_LEASE_S)
        self._log.gate = gate

    def leave_traces_of_a_death(self) -> None:
        """Let what this process holds be held by one that doesn't exist any more."""
        alive = read_holder(self._store.holder)
        assert alive is not None
        dead = replace(alive, started="0").to_text()
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for table in ("run", "node"):
                connection.execute(f"UPDATE {table} SET holder = ? WHERE holder = ?", (dead, alive.to_text()))


class Driver(World):
    """One process that drives the run; as `World` it notes the effects of its tools."""

    def __init__(self, path: Path, clock: Clock, trees: Sequence[Tree], effects: Effects) -> None:
        super().__init__(path)
        self._effects = effects
        self._gate = Gate()
        self._run: Run[AgentResult[str]] | None = None
        self.journal_in_use = SteppedJournal(path, clock, self._gate)
        builder = Builder(self)
        tools = [builder.build(tree) for tree in trees]

        def answer(request: ModelRequest) -> Any:
            return "Done." if request.turn > 1 else [call(made.name, n=1) for made in tools]

        self._agent = Agent(ScriptedModel(answer), tools=tools, cache=False, journal=self.journal_in_use)

    def act(self, name: str, key: str) -> None:
        self._effects.log.append((name, key))

    async def go(self, steps: int) -> None:
        """Take so many steps, one after the other."""
        if self._run is None or self._run.is_done:
            self._run = self._start()
            await asyncio.sleep(STEP_S)
        for _ in range(steps):
            self._gate.let_one_through()
            await asyncio.sleep(STEP_S)

    def join(self) -> None:
        """Start the run once more; one in progress is the same run."""
        if self._run is not None and not self._run.is_done:
            assert self._start() is self._run

    async def finish(self) -> str:
        """Take all steps that are left, of a new run if none is in progress; return the status."""
        if self._run is None or self._run.is_done:
            self._run = self._start()
        self._gate.open()
        with suppress(FlowkitError):
            await self._run.wait()
        return self._run.status

    async def die(self, *, can_be_asked: bool) -> None:
        """Be killed: nothing is written and nothing acts any more."""
        self.died.set()
        self._gate.is_dead = True
        if can_be_asked:
            self.journal_in_use.leave_traces_of_a_death()
        if self._run is not None:
            self._run.cancel()
            self._gate.open()
            with suppress(FlowkitError):
                await self._run.wait()

    def _start(self) -> Run[AgentResult[str]]:
        return self._agent.start("Go.", user="ann", run_id="r")


def settle(journal: Journal, effects: Effects) -> None:
    """Look at what is in doubt in the run and those inside it, as a person who asks the bank."""
    for summary in journal.runs(inner=True):
        shown = journal.show(summary.run_id, user=summary.user, session=summary.session)
        identity = RunIdentity(summary.user, summary.session, summary.run_id)
        for node, found in shown.nodes.items() if shown is not None else ():
            if found.state != "in_doubt":
                continue
            key = identity.idempotency_key(node)
            names = [name for name, other in effects.log if other == key]
            failed = Fail("failed, as it was told") if names and names[0] in effects.failing else None
            resolution = Retry() if not names else failed or Done(names[0])
            with suppress(RunError):  # it may still be running
                journal.resolve(summary.run_id, node, resolution, by="kim", user=summary.user, session=summary.session)


async def play(
    path: Path, trees: Sequence[Tree], effects: Effects, schedule: Sequence[Act], *, can_be_asked: bool
) -> str:
    """Let the drivers take their steps, and at last all that are left; then others that finish it. Return the status."""
    clock = ManualClock()
    person = Journal(path, clock=clock)
    person.runs()  # makes the tables
    drivers = [Driver(path, clock, trees, effects) for _ in range(DRIVERS)]
    every = list(drivers)

    def replace_driver(number: int) -> None:
        drivers[number] = Driver(path, clock, trees, effects)
        every.append(drivers[number])

    try:
        for act in schedule:
            match act:
                case Go(number, steps):
                    await drivers[number].go(steps)
                case Join(number):
                    drivers[number].join()
                case Die(number):
                    await drivers[number].die(can_be_asked=can_be_asked)
                    replace_driver(number)
                case Pause(seconds):
                    clock.advance(seconds)
                case Look():
                    settle(person, effects)
            if not can_be_asked:
                pretend_another_machine(path)
        await asyncio.gather(*(driver.finish() for driver in drivers))
        status = "running"
        for _ in range(ROUNDS):
            clock.advance(1000.0)
            settle(person, effects)
            replace_driver(0)
            status = await drivers[0].finish()
            if status == "done":
                break
        settle(person, effects)
        before = list(effects.log)
        replace_driver(1)
        assert await drivers[1].finish() == status or status != "done"
        assert effects.log == before or status != "done", "a finished run does nothing again"
        return status
    finally:
        for driver in every:
            driver.journal_in_use.close()
        person.close()


def find_failing(trees: Sequence[Tree], names: Sequence[str]) -> set[str]:
    """Return the names of the leaves that fail, in the order in which `Builder` numbers them."""
    leaves: list[Leaf] = []

    def walk(tree: Tree) -> None:
        if isinstance(tree, Leaf):
            leaves.append(tree)
        else:
            for part in tree.parts:
                walk(part)

    for tree in trees:
        walk(tree)
    return {name for name, leaf in zip(names, leaves, strict=True) if leaf.fails}


def check(trees: Sequence[Tree], schedule: Sequence[Act], *, can_be_asked: bool) -> None:
    with fast_folder() as folder:
        whole = World(folder / "whole")
        assert run_virtual(live(trees, whole, is_first=True)) in ("done", "in_doubt")
        effects = Effects(failing=find_failing(trees, list(whole.kinds)))
        status = run_virtual(play(folder / "j", trees, effects, schedule, can_be_asked=can_be_asked))
    wanted = {effect for effect in whole.effects if whole.kinds[effect[0]] != "read"}
    for (name, key), number in Counter(effects.log).items():
        if whole.kinds[name] == "write":
            assert number == 1, f"{name} was written {number} times"
        if whole.kinds[name] != "read":
            assert (name, key) in wanted or name in whole.uncertain, (
                f"{name} has a key that it hasn't in a run that lives on"
            )
    assert status == "done", f"after all was settled the run is {status}"
    missing = {(name, key) for name, key in wanted - set(effects.log) if name not in whole.uncertain}
    assert not missing, f"{missing} never happened"


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees=st.lists(TREES, min_size=1, max_size=2), schedule=SCHEDULES, can_be_asked=st.booleans())
@example(trees=[Inner("recipe", (BOOK, PAY), "idempotent")], schedule=[Go(0, 8), Die(0)], can_be_asked=True)
def test_for_every_tree_and_schedule_of_two_drivers_each_write_happens_at_most_once(
    trees: list[Tree], schedule: list[Act], can_be_asked: bool
) -> None:
    check(trees, schedule, can_be_asked=can_be_asked)


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees=st.lists(TREES, min_size=1, max_size=2), schedule=SCHEDULES, can_be_asked=st.booleans())
@example(trees=[DEEP], schedule=[Go(0, 8), Pause(1000.0), Go(1, 8), Die(0), Go(0, 3)], can_be_asked=False)
@example(trees=[Inner("recipe", (BOOK, PAY), "idempotent")], schedule=[Go(0, 8), Die(0)], can_be_asked=True)
def test_for_every_of_many_trees_and_schedules_each_write_happens_at_most_once(
    trees: list[Tree], schedule: list[Act], can_be_asked: bool
) -> None:
    check(trees, schedule, can_be_asked=can_be_asked)
