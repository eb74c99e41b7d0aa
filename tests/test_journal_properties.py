"""The journal behaves as a log with fencing: one driver writes, and nothing that it was told is written gets lost."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flowkit.clock import ManualClock
from flowkit.codec import JSON
from flowkit.errors import InDoubt, RunBusy, RunError
from flowkit.journal import Done, Fail, Journal, Recorded, Resolution, Retry, RunJournal
from flowkit.journal.records import NodeEffect, NodeState
from flowkit.journal.run import START_WITHIN_S
from tests.example_counts import examples
from tests.stores import fast_folder, journal_at, pretend_another_machine

LEASE_S = 1000.0
"""So long that no lease is renewed by itself during a test."""

drivers = st.integers(0, 1)
nodes = st.sampled_from(["a", "b"])
effects: st.SearchStrategy[NodeEffect] = st.sampled_from(["read", "idempotent", "write"])
ends: st.SearchStrategy[NodeState] = st.sampled_from(["finished", "failed", "in_doubt", "cancelled"])
resolutions: st.SearchStrategy[Resolution] = st.sampled_from([Done(5), Retry(), Fail("no")])


@dataclass
class Driver:
    """One process: its journal, and the run as it believes to hold it."""

    journal: Journal
    run: RunJournal | None = None


class JournalMachine(RuleBasedStateMachine):
    """Two processes on one journal, each on a machine of its own; either may crash, come back late, and try to write.

    Neither can ask whether the other lives, so the times of the leases decide, by one clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open_things = ExitStack()
        self.path = self.open_things.enter_context(fast_folder()) / "j"
        self.runner = asyncio.Runner()
        self.log: dict[str, Recorded] = {}
        self.turns: dict[int, JSON] = {}
        self.holder: int | None = None
        self.until_s = 0.0
        self.running_until_s: dict[str, float] = {}
        """Until when each claimed node may still run."""

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.drivers = [Driver(Journal(journal_at(self.path), clock=self.clock, lease_s=LEASE_S)) for _ in range(2)]

    def is_held(self) -> bool:
        return self.holder is not None and self.clock.elapsed < self.until_s

    def may_run(self, node: str) -> bool:
        return self.clock.elapsed < self.running_until_s.get(node, 0.0)

    def is_current(self, which: int) -> bool:
        """Whether this driver's fence is the run's: nobody opened the run after it."""
        return self.holder == which

    @rule(which=drivers)
    def open(self, which: int) -> None:
        driver = self.drivers[which]
        if self.is_held():
            with pytest.raises(RunBusy):
                self.runner.run(driver.journal.open_run("r", name="n"))
            return
        driver.run = self.runner.run(driver.journal.open_run("r", name="n"))
        pretend_another_machine(self.path)
        self.holder, self.until_s = which, self.clock.elapsed + LEASE_S
        self.log = {
            node: replace(record, state="in_doubt")
            if record.state == "claimed" and record.effect == "write"
            else record
            for node, record in self.log.items()
        }
        assert driver.run.nodes == self.log
        assert {turn.turn: turn.message for turn in driver.run.turns} == self.turns

    @rule(which=drivers)
    def close(self, which: int) -> None:
        driver = self.drivers[which]
        if driver.run is not None:
            self.runner.run(driver.run.close())
            driver.run = None
            if self.is_current(which):
                self.holder = None
                self.running_until_s.clear()  # it waited for all that it claimed

    @rule(which=drivers)
    def crash(self, which: int) -> None:
        self.drivers[which].run = None

    @rule()
    def outlive_the_lease(self) -> None:
        self.clock.advance(LEASE_S)

    @rule()
    def outlive_a_claim(self) -> None:
        self.clock.advance(START_WITHIN_S)

    @rule(jump_s=st.sampled_from([-3600, 3600]))
    def set_the_wall_clock(self, jump_s: float) -> None:
        self.clock.jump(jump_s)

    @rule(which=drivers, node=nodes, effect=effects)
    def claim(self, which: int, node: str, effect: NodeEffect) -> None:
        run = self.drivers[which].run
        if run is None:
            return
        claiming = run.claim(node, tool="t", code="c", effect=effect, arguments={"by": which})
        if not self.is_current(which):
            if effect != "read":
                with pytest.raises((RunBusy, InDoubt)):
                    self.runner.run(claiming)
            else:
                claiming.close()
            return
        before = self.log.get(node)
        if before is not None and (
            before.state == "in_doubt"
            or (before.state == "claimed" and (before.effect == "write" or self.may_run(node)))
        ):
            with pytest.raises(InDoubt):
                self.runner.run(claiming)
            return
        attempt = 1 if before is None else before.attempt + 1
        assert self.runner.run(claiming) == attempt
        if effect != "read":
            pretend_another_machine(self.path)
            self.running_until_s[node] = self.clock.elapsed + START_WITHIN_S
            self.log[node] = Recorded(node, "claimed", None, None, attempt, effect, {"by": which}, "t", "c")

    @rule(which=drivers, node=nodes, effect=effects, state=ends, value=st.integers(), attempt=st.integers(1, 3))
    def record(self, which: int, node: str, effect: NodeEffect, state: NodeState, value: int, attempt: int) -> None:
        run = self.drivers[which].run
        if run is None:
            return
        recording = run.record(
            node, state=state, value=value, effect=effect, attempt=attempt, arguments={}, tool="t", code="c"
        )
        if self.is_current(which):
            self.runner.run(recording)
            self.log[node] = Recorded(node, state, value, None, attempt, effect, {}, "t", "c")
            self.running_until_s.pop(node, None)
        elif effect == "read":
            self.runner.run(recording)
        else:
            with pytest.raises(RunBusy):
                self.runner.run(recording)

    @rule(which=drivers, turn=st.integers(1, 3), node=nodes, value=st.integers())
    def record_turn(self, which: int, turn: int, node: str, value: int) -> None:
        run = self.drivers[which].run
        if run is None:
            return
        read = Recorded(node, "finished", value)
        if self.is_current(which):
            self.runner.run(run.record_turn(turn, {"by": which}, [read]))
            self.turns[turn] = {"by": which}
            self.log[node] = read
            self.running_until_s.pop(node, None)
        else:
            with pytest.raises(RunBusy):
                self.runner.run(run.record_turn(turn, {"by": which}, [read]))

    @rule(which=drivers, node=nodes, resolution=resolutions)
    def resolve_from_outside(self, which: int, node: str, resolution: Resolution) -> None:
        before = self.log.get(node)
        journal = self.drivers[which].journal
        is_open = before is not None and before.state in ("in_doubt", "claimed")
        if before is None or not is_open or self.is_held() or self.may_run(node):
            with pytest.raises(RunError):
                journal.resolve("r", node, resolution, by="ada")
            return
        journal.resolve("r", node, resolution, by="ada")
        self.holder = None if self.holder is None else -1  # whoever had it is fenced off
        match resolution:
            case Done(value):
                self.log[node] = replace(before, state="finished", value=value, error=None, by="ada")
            case Retry():
                self.log[node] = replace(before, state="retry", by="ada")
            case Fail(error):
                self.log[node] = replace(before, state="failed", error=error, by="ada")

    @invariant()
    def everybody_reads_the_same(self) -> None:
        for which, driver in enumerate(getattr(self, "drivers", [])):
            if driver.run is not None:
                self.runner.run(driver.run.refresh())  # what was posted before is written by then
                if self.is_current(which):
                    assert driver.run.nodes == self.log
        for driver in getattr(self, "drivers", []):
            shown = driver.journal.show("r")
            expected = {
                node: replace(record, state="in_doubt")
                if record.state == "claimed" and record.effect == "write" and not self.is_held()
                else record
                for node, record in self.log.items()
            }
            assert (shown.nodes if shown is not None else {}) == expected

    def teardown(self) -> None:
        for driver in getattr(self, "drivers", []):
            driver.journal.close()
        self.runner.close()
        self.open_things.close()


JournalMachine.TestCase.settings = settings(max_examples=examples(50), stateful_step_count=25, deadline=None)


class TestJournal(JournalMachine.TestCase):
    """Collected by pytest."""


class PostgresMachine(JournalMachine):
    """The same over PostgreSQL, whose one clock is the server's: nobody sets it."""

    set_the_wall_clock = None  # pyright: ignore[reportAssignmentType]  # no rule here


PostgresMachine.TestCase.settings = settings(max_examples=examples(15), stateful_step_count=25, deadline=None)


@pytest.mark.slow
@pytest.mark.usefixtures("postgres_paths")
class TestPostgresJournal(PostgresMachine.TestCase):
    """Collected by pytest."""
