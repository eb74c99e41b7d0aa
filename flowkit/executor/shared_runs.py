"""A read that other runs and processes may share: one of them leads the flight of its key, the others wait."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import cache as once
from typing import Any

from flowkit import events
from flowkit.cache import Cache, Hit, HitError, Lease
from flowkit.codec import JSON
from flowkit.events import EventLog
from flowkit.executor.entries import Entry, Failure
from flowkit.executor.lending import Lending
from flowkit.executor.read_scope import ReadScope, find_read_scope
from flowkit.executor.settling import Settler
from flowkit.executor.slots import SlotWaiter
from flowkit.identity import RunIdentity

logger = logging.getLogger("flowkit.executor")


class Landed:
    """The result of a flight; `age_s` is set if it came from the cache, `is_private` if only its leader may use it."""

    __slots__ = ("age_s", "failure", "is_private", "value")

    def __init__(
        self, value: JSON, failure: Failure | None, age_s: float | None = None, *, is_private: bool = False
    ) -> None:
        self.is_private = is_private
        self.value = value
        self.failure = failure
        self.age_s = age_s


class Lead:
    """The right to run a call for all calls that share its flight, with the steps before and after it."""

    def __init__(
        self, entry: Entry, lease: Lease, log: EventLog, lending: Lending, cache: Cache, identity: RunIdentity
    ):
        assert entry.plan is not None
        self._entry = entry
        self._lease = lease
        self._log = log
        self._lending = lending
        self._cache = cache
        self._identity = identity
        self._tool = entry.plan.tool
        # Read now: an ended call has no arguments any more.
        self._resources = () if entry.arguments is None else self._tool.resources(entry.arguments)

    async def begin(self) -> None:
        """Wait for the call's slot, and record its reads from then on."""
        entry = self._entry
        if entry.has_ended:
            raise asyncio.CancelledError  # dropped while it waited for the lease, and its arguments with it
        waiter = SlotWaiter(entry.slot)
        if not self._lending.has_taken(waiter):
            self._log.note(events.CallWaiting, entry.id, "slot")
            await self._lending.wait_for(waiter)
        # Not earlier: the results of its needs are part of its key.
        entry.more.reading = ReadScope(self._tool.scope, self._identity, find_read_scope(entry.parent))

    async def keep(self, failure: Failure | None) -> Landed:
        """Store the run's result, if it may be shared, and pass it to the waiting calls."""
        tool, value, narrower = self._tool, self._entry.value, self._entry.more.reading.narrower
        user = None if tool.scope == "all" else self._identity.user
        about: Any = {"tool": tool.name, "user": user, "resources": self._resources}
        if self._entry.has_doubt:
            pass  # it runs again once the call in doubt is settled
        elif narrower is not None:
            _warn_not_shared(tool.name, tool.scope, narrower)
        elif failure is None:
            assert tool.ttl_s is not None
            await self._cache.set(self._lease.key, value, tool.ttl_s, **about)
        elif failure.is_remembered(tool):
            await self._cache.set_error(self._lease.key, failure.error, **about)
        if failure is not None and failure.state == "cancelled":
            # Each waiter of this flight then leads its own.
            raise asyncio.CancelledError
        return Landed(value, failure, is_private=narrower is not None or self._entry.has_doubt)

    async def release(self) -> None:
        """Let another process run the call, if nothing was stored."""
        await self._lease.release()


class SharedRuns:
    """Lets calls join a flight, or lead one."""

    def __init__(self, log: EventLog, settler: Settler, lending: Lending, cache: Cache, identity: RunIdentity) -> None:
        self._log = log
        self._settler = settler
        self._lending = lending
        self._cache = cache
        self._identity = identity

    async def look(self, entry: Entry) -> None:
        """Look up a read's result in a cache that answers asynchronously; the gate that requested it takes the answer."""
        if entry.has_ended:
            return
        plan, arguments, more = entry.plan, entry.arguments, entry.more
        assert plan is not None
        assert arguments is not None
        assert more.key_of is not None
        resources = plan.tool.resources(arguments) if plan.touches else ()
        entry.worker = asyncio.current_task()
        try:
            more.look = await self._cache.look(resources, more.key_of, tool=plan.tool.name)
        except asyncio.CancelledError:
            if not entry.has_ended:
                self._settler.settle(entry, _stopped(entry))
        else:
            if not entry.has_ended:
                self._settler.let_go_on(entry)
        finally:
            entry.worker = None

    async def share(self, entry: Entry, lead: Callable[[], Awaitable[Landed]]) -> None:
        """Wait for the leader of the flight of its key, or `lead`; then settle the call with the result."""
        entry.worker = asyncio.current_task()
        try:
            landed, is_ours = await self._cache.flights.share(
                _find_key(entry), lead, joined=lambda: self._tell_joined(entry)
            )
            if landed.is_private and not is_ours:
                # It turned out to be another's alone: this call finds its own.
                landed, is_ours = await lead(), True
        except asyncio.CancelledError:
            if not entry.has_ended:
                self._settler.settle(entry, _stopped(entry))
            return
        finally:
            entry.worker = None
        if entry.has_ended:
            return
        if landed.age_s is not None:
            entry.more.source, entry.more.age_s = "cache", landed.age_s
        elif not is_ours:
            entry.more.source = "flight"
        entry.value = landed.value
        self._settler.settle(entry, landed.failure)

    def _tell_joined(self, entry: Entry) -> None:
        self._log.note(events.CallWaiting, entry.id, "calls")

    async def lease(self, entry: Entry) -> Landed | Lead:
        """Lead across processes, or take the result that another process has stored meanwhile."""
        found = await self._cache.lease(_find_key(entry), tool=entry.node.name)
        match found:
            case Hit():
                return Landed(found.value, None, found.age_s)
            case HitError():
                return Landed(None, Failure("failed", found.error), found.age_s)
            case Lease():
                return Lead(entry, found, self._log, self._lending, self._cache, self._identity)


def _stopped(entry: Entry) -> Failure:
    return Failure("cancelled", entry.stop or "stopped")


def _find_key(entry: Entry) -> str:
    assert entry.extra is not None
    assert entry.extra.flight is not None
    return entry.extra.flight


@once
def _warn_not_shared(tool: str, scope: str, narrower: str) -> None:
    """Log once that results of a tool aren't kept: its author expects them to be."""
    logger.warning(
        "results of %r (scope %r) are neither kept nor shared: it calls %r, whose results fewer may see",
        tool,
        scope,
        narrower,
        extra={"tool": tool},
    )
