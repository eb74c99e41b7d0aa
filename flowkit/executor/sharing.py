"""The gate at which a read takes an existing result: from the cache, from an identical call, or from one in flight."""

import logging
from collections.abc import Hashable
from functools import cache as once
from functools import partial
from secrets import token_hex

from flowkit import events
from flowkit.cache import Cache, Hit, HitError, Look, NullCache
from flowkit.errors import CycleError
from flowkit.events import EventLog
from flowkit.executor import phases
from flowkit.executor.circles import find_circle
from flowkit.executor.entries import Entry
from flowkit.executor.plan import AnyTool, Plan
from flowkit.executor.settling import Settler
from flowkit.executor.table import Table
from flowkit.identity import SCOPES, RunIdentity
from flowkit.tools.schema.arguments import Arguments

logger = logging.getLogger("flowkit.executor")


class ShareGate:
    """Lets a read on when it has to run itself; others of its key then share its result."""

    def __init__(
        self, table: Table, log: EventLog, settler: Settler, cache: Cache, identity: RunIdentity, *, is_shared: bool
    ) -> None:
        self._table = table
        self._log = log
        self._settler = settler
        self._cache = cache
        self._is_local = cache.is_local
        # With a shared journal another machine may write, which doesn't invalidate reads in this machine's cache.
        self._keeps_touching = not is_shared or not cache.is_local or isinstance(cache, NullCache)
        # Results are shared among those of one identity; None where the run doesn't have it.
        self._scope_keys = {scope: identity.scope_key(scope) for scope in SCOPES}
        if not identity.can_be_joined:
            # Another run with this id may belong to another person.
            self._scope_keys["run"] = token_hex(16)

    def applies(self, plan: Plan) -> bool:
        """Return whether calls of this tool pass this gate: a write shares nothing, since each of two has to happen."""
        return plan.is_read

    def enter(self, entry: Entry) -> bool:
        """Let the call run, finish it with an available result, or let it wait for one in flight."""
        plan, arguments = entry.plan, entry.arguments
        assert plan is not None
        assert arguments is not None
        if (
            entry.extra is not None
            and entry.extra.leader is not None
            and self._take_followed(entry, entry.extra.leader)
        ):
            return False
        tool = plan.tool
        scope_key = self._scope_keys[tool.scope]
        is_kept = tool.ttl_s is not None and scope_key is not None
        if is_kept and plan.touches and not self._keeps_touching:
            _warn_not_kept()
            is_kept = False
        if is_kept and scope_key is not None:
            look = None if entry.extra is None else entry.extra.look
            if look is not None or not (self._is_local and self._cache.is_ready):
                return self._enter_later(entry, tool, arguments, scope_key, look)
        # A key contains the generation of each resource. A write raises it, which invalidates all earlier keys.
        generations = (
            [self._cache.generation(resource) for resource in tool.resources(arguments)] if plan.touches else ()
        )
        stored: str | None = None
        if is_kept and scope_key is not None:
            key = stored = tool.key(arguments, scope_key, generations)
        else:
            key = tool.process_key(arguments, scope_key or "", generations)
        if key is None:
            return True
        if stored is not None and self._take(entry, self._cache.get(stored, tool=entry.node.name)):
            return False
        return self._share(entry, key, stored)

    def _enter_later(
        self, entry: Entry, tool: AnyTool, arguments: Arguments, scope_key: str, look: Look | None
    ) -> bool:
        """Look in a cache that answers asynchronously; continue as with any other once it has answered."""
        if look is None:
            entry.phase = phases.LOOKUP
            entry.more.key_of = partial(tool.key, arguments, scope_key)
            self._table.apart.append(entry)
            return False
        entry.more.look = None
        if look.key is None:
            return True
        return not self._take(entry, look.found) and self._share(entry, look.key, look.key)

    def _share(self, entry: Entry, key: Hashable, stored: str | None) -> bool:
        """Let it lead the calls of its key, unless another does."""
        leader = self._table.shared.get(key)
        if leader is not None and leader.state == "finished" and not _may_know(entry, leader):
            entry.value, entry.more.source, entry.more.has_doubt = leader.value, "flight", leader.has_doubt
            self._settler.end(entry, "finished")
            return False
        if leader is not None and not leader.has_ended:
            self._follow(entry, leader)
            return False
        self._table.shared[key] = entry
        entry.key = key
        if stored is None:
            return True
        # Other runs and processes may want it, too: it gets a task, since it may wait for the flight of one of them.
        entry.phase = phases.FLIGHT
        entry.more.flight = stored
        self._table.apart.append(entry)
        return False

    def _follow(self, entry: Entry, leader: Entry) -> None:
        entry.phase = phases.FLIGHT
        entry.key = leader.key
        circle = find_circle(self._table, entry)
        if circle:
            self._settler.end(entry, "failed", error=f"not run: {CycleError(circle)}")
            return
        entry.more.leader = leader
        leader.more.add_follower(entry)
        self._settler.take_guess(entry)
        self._log.note(events.CallWaiting, entry.id, "calls", (leader.id,))

    def _take_followed(self, entry: Entry, leader: Entry) -> bool:
        """Take the result of the call that this one waited for, or its failure; without either, look it up again."""
        entry.more.leader = None
        if leader.state not in ("finished", "failed"):
            return False
        entry.value, entry.more.source, entry.more.has_doubt = leader.value, "flight", leader.has_doubt
        self._settler.end(entry, leader.state, error=leader.error)
        return True

    def _take(self, entry: Entry, hit: Hit | HitError | None) -> bool:
        """Finish it with the cached result."""
        if hit is None:
            return False
        entry.more.source, entry.more.age_s = "cache", hit.age_s
        if isinstance(hit, HitError):
            self._settler.end(entry, "failed", error=hit.error)
        else:
            entry.value = hit.value
            self._settler.end(entry, "finished")
        return True


@once
def _warn_not_kept() -> None:
    """Log once why results aren't kept: a set TTL suggests that they are."""
    logger.warning(
        "the journal is shared by several machines and the cache is this one's: results of tools with a resource aren't"
        " cached, since a write on another machine couldn't invalidate them; FLOWKIT_CACHE=redis://… is shared, too"
    )


def _may_know(entry: Entry, ended: Entry) -> bool:
    """Return True if a running tool may have seen that result before it made this call, and so needs a new one.

    Two calls of a model's turn are made together, so one result serves both. A tool that polls makes one call after
    another. It may have seen the result if that call ended after the tool started and before it made this call. The
    same holds for each enclosing tool, at the time of the call through which it made this one.
    """
    made = entry
    while (caller := made.parent) is not None:
        if caller.phase == phases.RUNNING and caller.plan is not None:
            assert caller.started_s is not None
            assert ended.ended_s is not None
            assert made.sealed_s is not None
            # A result from before the tool started is meant to be shared. One from after this call can't be the reason
            # for it. A result in between may be.
            if caller.started_s <= ended.ended_s <= made.sealed_s:
                return True
        made = caller
    return False
