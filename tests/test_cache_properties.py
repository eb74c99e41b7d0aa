"""The cache behaves as a dictionary with a clock, whatever happens in which order."""

import asyncio
import tempfile
from dataclasses import dataclass
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flowkit.cache import DiskCache, Hit, HitError, Look
from flowkit.clock import ManualClock
from flowkit.codec import JSON
from tests.cache_places import CachePlace
from tests.example_counts import examples

whiches = st.integers(0, 1)
keys = st.sampled_from(["a", "b", "c"])
tools = st.sampled_from(["get", "list"])
users = st.sampled_from([None, "ada", "bob"])
resources = st.sampled_from(["order:1", "order:2", "order:*", "stock:1"])
seconds = st.sampled_from([0.5, 1, 10, 29, 30, 60, 3600])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@dataclass(frozen=True)
class Kept:
    """What the dictionary holds."""

    value: JSON
    error: str | None
    boot: str | None
    stored_s: float
    stored_wall: float
    ttl_s: float
    tool: str
    user: str | None
    resource: str


def meets(one: str, other: str) -> bool:
    """Whether a write on one resource ends a read of the other."""
    return one == other or (one.split(":")[0] == other.split(":")[0] and "*" in one + other)


class CacheMachine(RuleBasedStateMachine):
    """Two caches on one folder and one clock; either may write, both must agree with the dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.kept: dict[str, Kept] = {}
        self.written: dict[str, int] = {}

    @initialize(has_boot=st.booleans())
    def begin(self, has_boot: bool) -> None:
        self.clock = ManualClock(boot_id="boot-1" if has_boot else None)
        self.caches = [self.open(), self.open()]

    def open(self) -> DiskCache:
        return DiskCache(f"{self.folder.name}/c", clock=self.clock)

    def now(self) -> float:
        return self.clock.elapsed if self.clock.boot_id else self.clock.now

    def keep(self, key: str, ttl_s: float, tool: str, user: str | None, resource: str, value: JSON, error: str | None):
        boot, wall = self.clock.boot_id, self.clock.wall()
        self.kept[key] = Kept(value, error, boot, self.now(), wall, ttl_s, tool, user, resource)

    def age(self, kept: Kept) -> float | None:
        """By the clock of the boot, or by the wall clock as long as that agrees that it was stored before the boot."""
        if kept.boot == self.clock.boot_id:
            return self.now() - kept.stored_s
        age_s = self.clock.wall() - kept.stored_wall
        return None if age_s < self.clock.elapsed - 5 else max(age_s, self.clock.elapsed)

    @rule(which=st.integers(0, 1), key=keys, value=values, ttl_s=seconds, tool=tools, user=users, resource=resources)
    def set(self, which: int, key: str, value: JSON, ttl_s: float, tool: str, user: str | None, resource: str) -> None:
        cache = self.caches[which]
        self.runner.run(cache.set(key, value, ttl_s, tool=tool, user=user, resources=[resource]))
        self.keep(key, ttl_s, tool, user, resource, value, None)

    @rule(which=st.integers(0, 1), key=keys, ttl_s=seconds, tool=tools, user=users, resource=resources)
    def set_error(self, which: int, key: str, ttl_s: float, tool: str, user: str | None, resource: str) -> None:
        cache = self.caches[which]
        self.runner.run(cache.set_error(key, "no", ttl_s, tool=tool, user=user, resources=[resource]))
        self.keep(key, min(ttl_s, 30), tool, user, resource, None, "no")

    @rule(which=st.integers(0, 1), key=keys)
    def get(self, which: int, key: str) -> None:
        found = self.caches[which].get(key)
        kept = self.kept.get(key)
        age_s = None if kept is None else self.age(kept)
        if kept is None or age_s is None or age_s >= kept.ttl_s:
            assert found is None
            return
        match found:
            case Hit(value):
                assert (value, None) == (kept.value, kept.error)
                assert type(value) is type(kept.value)
            case HitError(error):
                assert error == kept.error
            case None:
                raise AssertionError(f"{key!r} is lost")
        assert found.age_s == age_s

    @rule(passed_s=seconds)
    def wait(self, passed_s: float) -> None:
        self.clock.advance(passed_s)

    @precondition(lambda self: self.clock.boot_id is not None)
    @rule(jump_s=st.sampled_from([-3600, -1, 1, 3600]))
    def set_the_wall_clock(self, jump_s: float) -> None:
        self.clock.jump(jump_s)

    @precondition(lambda self: self.clock.boot_id is not None)
    @rule()
    def reboot(self) -> None:
        self.clock.reboot()

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.runner.run(self.caches[which].close())
        self.caches[which] = self.open()

    @rule(which=st.integers(0, 1), resource=resources)
    def write_on(self, which: int, resource: str) -> None:
        names = ("order:1", "order:2", "order:*", "stock:1", "stock:*")
        before = {name: self.caches[0].generation(name) for name in names}
        self.runner.run(self.caches[which].bump([resource]))
        for cache in self.caches:
            for name in names:
                grown = cache.generation(name) - before[name]
                assert grown > 0 if meets(resource, name) else grown == 0

    @rule(
        which=st.integers(0, 1),
        tool=st.none() | tools,
        user=users,
        resource=st.none() | resources,
    )
    def clear(self, which: int, tool: str | None, user: str | None, resource: str | None) -> None:
        count = self.runner.run(self.caches[which].clear(tool=tool, user=user, resource=resource))
        gone = [
            key
            for key, kept in self.kept.items()
            if (tool is None or kept.tool == tool)
            and (user is None or kept.user == user)
            and (resource is None or meets(resource, kept.resource))
        ]
        assert count == len(gone)
        for key in gone:
            del self.kept[key]

    def teardown(self) -> None:
        for cache in getattr(self, "caches", []):
            self.runner.run(cache.close())
        self.runner.close()
        self.folder.cleanup()


CacheMachine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)


class TestCache(CacheMachine.TestCase):
    """Collected by pytest."""


# The same on the disk and in Redis


class SharedMachine(RuleBasedStateMachine):
    """Two caches in one place, of whatever kind: what one stored the other finds, unless a write or time ended it."""

    numbers = count()

    def __init__(self, place: CachePlace) -> None:
        super().__init__()
        self.place = place
        self.runner = asyncio.Runner()
        self.caches = [place.make(), place.make()]
        self.mark = f"example{next(self.numbers)}"
        """Tells this example's keys from those of others in the same place."""
        self.stored: dict[tuple[str, str], tuple[JSON, float, str, str | None]] = {}
        self.now = 0.0

    def look(self, which: int, key: str, resource: str) -> Look:
        """Look a read up as the executor does: its key holds the generations of its resources."""
        names = [f"{self.mark}{resource}"]
        return self.runner.run(
            self.caches[which].look(names, lambda found: f"{self.mark} {key} {resource} {list(found)}", tool="get")
        )

    def expect(self, key: str, resource: str) -> tuple[JSON] | None:
        found = self.stored.get((key, resource))
        return None if found is None or self.now >= found[1] else (found[0],)

    @rule(which=whiches, key=keys, resource=resources, value=values, ttl_s=st.sampled_from([100, 1000]), user=users)
    def read(self, which: int, key: str, resource: str, value: JSON, ttl_s: float, user: str | None) -> None:
        """Find it, or compute and store it; then the other finds it, too."""
        expected, look = self.expect(key, resource), self.look(which, key, resource)
        if look.found is not None:
            assert isinstance(look.found, Hit)
            assert (look.found.value,) == expected, "a value that a write or time had ended, or another's"
            return
        assert expected is None, f"{key!r} of {resource!r} is lost"
        assert look.key is not None
        names = [f"{self.mark}{resource}"]
        self.runner.run(self.caches[which].set(look.key, value, ttl_s, tool="get", user=user, resources=names))
        self.stored[key, resource] = value, self.now + ttl_s, "get", user
        found = self.look(1 - which, key, resource).found
        assert isinstance(found, Hit)
        assert found.value == value

    @rule(which=whiches, resource=resources)
    def write_on(self, which: int, resource: str) -> None:
        self.runner.run(self.caches[which].bump([f"{self.mark}{resource}"]))
        self.stored = {(key, name): kept for (key, name), kept in self.stored.items() if not meets(resource, name)}

    @rule(passed_s=st.sampled_from([60, 500]))
    def wait(self, passed_s: float) -> None:
        self.place.pass_time(passed_s)
        self.now += passed_s

    @rule(which=whiches)
    def reopen(self, which: int) -> None:
        self.runner.run(self.caches[which].close())
        self.caches[which] = self.place.make()

    @rule(which=whiches, user=st.none() | st.sampled_from(["ada", "bob"]), resource=resources)
    def clear(self, which: int, user: str | None, resource: str) -> None:
        self.runner.run(self.caches[which].clear(user=user, resource=f"{self.mark}{resource}"))
        self.stored = {
            (key, name): kept
            for (key, name), kept in self.stored.items()
            if not (meets(resource, name) and user in (None, kept[3]))
        }

    def teardown(self) -> None:
        for cache in self.caches:
            self.runner.run(cache.close())
        self.runner.close()


def test_for_every_order_of_reads_and_writes_two_caches_agree(places: CachePlace) -> None:
    class Machine(SharedMachine):
        def __init__(self) -> None:
            super().__init__(places)

    chosen = settings(
        max_examples=examples(30), stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(Machine, settings=chosen)
