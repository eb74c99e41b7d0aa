"""Two drivers of one run, stopped and let go on between any two of their steps: each write happens at most once.

Hypothesis draws the schedule: which driver takes how many steps, how much time passes, when a person looks at what is in
doubt. A step is all that a driver does between two calls of its journal. Outside of flowkit a list notes each effect, as
a bank would.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.clock import ManualClock
from flowkit.journal import Journal
from flowkit.journal.run import START_WITHIN_S
from tests.stores import fast_folder, opened_journal, pretend_another_machine
from tests.two_drivers import NAMES, World, drive

DRIVERS = 2
TURNS_OF_THE_LOOP = 40
"""After so many in which nothing came, a driver has come to its next step: its tools wait for nothing."""


class Go(NamedTuple):
    """A driver takes some steps; it begins anew if it isn't at work."""

    driver: int
    steps: int


class Pause(NamedTuple):
    """Time passes, for both."""

    seconds: float


class Look(NamedTuple):
    """A person settles what is in doubt by what really happened, as far as flowkit lets them."""


Act = Go | Pause | Look
SCHEDULES = st.lists(
    st.builds(Go, st.integers(0, DRIVERS - 1), st.integers(1, 6))
    | st.builds(Pause, st.sampled_from([1.0, START_WITHIN_S + 0.5, 16.0, 40.0, 1000.0]))
    | st.builds(Look),
    min_size=2,
    max_size=25,
)


class Driver:
    """One process that drives the run, and waits before and after each call of its journal until it is let go on."""

    def __init__(self, world: World, journal: Journal) -> None:
        self._world = world
        self._journal = journal
        self._waiting: list[asyncio.Future[None]] = []
        self._in_flight = 0
        self._is_free = False
        self._task: asyncio.Task[None] | None = None

    async def go(self, steps: int) -> None:
        """Take so many steps, one after the other."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(drive(self._world, self._journal, self.call))
            await self._come_to_rest()
        for _ in range(steps):
            if self._waiting:
                self._waiting.pop(0).set_result(None)
            await self._come_to_rest()

    async def finish(self) -> None:
        """Take all the steps that are left."""
        self._is_free = True
        while self._waiting:
            self._waiting.pop(0).set_result(None)
        if self._task is not None:
            await self._task

    async def step(self) -> None:
        """Wait here until the schedule says so."""
        if not self._is_free:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    async def call(self, method: Any, *args: Any, **named: Any) -> Any:
        """Call the journal, with a step before and one behind."""
        await self.step()
        self._in_flight += 1
        try:
            return await method(*args, **named)
        finally:
            self._in_flight -= 1
            await self.step()

    async def _come_to_rest(self) -> None:
        quiet = 0
        while quiet < TURNS_OF_THE_LOOP:
            before = len(self._waiting)
            await asyncio.sleep(0.0005 if self._in_flight else 0)
            quiet = 0 if self._in_flight or len(self._waiting) != before else quiet + 1


async def play(path: Path, world: World, schedule: Sequence[Act], *, can_be_asked: bool) -> None:
    """Let the drivers take their steps, and at last all that are left; then one that finishes what it finds."""
    clock = ManualClock()
    with opened_journal(path, clock=clock) as one, opened_journal(path, clock=clock) as other:
        drivers = [Driver(world, one), Driver(world, other)]
        for act in schedule:
            match act:
                case Go(driver, steps):
                    await drivers[driver].go(steps)
                    if not can_be_asked:
                        pretend_another_machine(path)
                case Pause(seconds):
                    clock.advance(seconds)
                case Look():
                    await asyncio.to_thread(world.settle, other)
        for driver in drivers:
            await driver.finish()
        world.check()
        last = Driver(world, other)
        for _ in range(2):
            clock.advance(1000.0)
            await last.go(0)
            await last.finish()
            await asyncio.to_thread(world.settle, other)


def run_schedule(schedule: Sequence[Act], names: Sequence[str], *, can_be_asked: bool, tells: bool) -> None:
    world = World(names, tells=tells)
    with fast_folder() as folder:
        asyncio.run(play(folder / "j", world, schedule, can_be_asked=can_be_asked))
    world.check(at_end=True)


@settings(max_examples=25, deadline=None)
@given(schedule=SCHEDULES, names=NAMES, can_be_asked=st.booleans(), tells=st.booleans())
def test_for_every_schedule_of_two_drivers_each_write_happens_at_most_once(
    schedule: list[Act], names: list[str], can_be_asked: bool, tells: bool
) -> None:
    run_schedule(schedule, names, can_be_asked=can_be_asked, tells=tells)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(schedule=SCHEDULES, names=NAMES, can_be_asked=st.booleans(), tells=st.booleans())
def test_for_every_of_many_schedules_of_two_drivers_each_write_happens_at_most_once(
    schedule: list[Act], names: list[str], can_be_asked: bool, tells: bool
) -> None:
    run_schedule(schedule, names, can_be_asked=can_be_asked, tells=tells)
