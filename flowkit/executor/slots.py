"""Limits on running calls: one for all calls, and others for named resources such as a database.

A call takes its named slot first and keeps it while it waits for a general one, so calls that queue for the database
never block others. Slots are granted in order of request. A call that runs outside this process takes only its named
slot.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

from flowkit.errors import ConfigurationError

T = TypeVar("T")

ALL = "all"
"""The key of the general limit in `slots={"all": 16, "db": 4}`."""

DEFAULT_LIMIT = 16
NO_LIMITS: Mapping[str, int] = {}


class SlotWaiter:
    """A task that waits for a slot."""

    __slots__ = ("future", "slot")

    def __init__(self, slot: str | None) -> None:
        self.slot = slot
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Slots(Generic[T]):
    """Counts the slots in use; `T` is the type of the waiters.

    A cancelled waiter stays in the queue, and returns the slot when it gets one. So cancelling ten thousand waiting
    calls needs no search.
    """

    def __init__(self, limits: int | Mapping[str, int] = DEFAULT_LIMIT, alone: Mapping[str, int] = NO_LIMITS) -> None:
        """Set the limits; a slot in `alone` is used without a general one, and has this limit unless `limits` has another."""
        named = dict(limits) if isinstance(limits, Mapping) else {ALL: limits}
        self._alone = alone
        for name, limit in alone.items():
            named.setdefault(name, limit)
        for name, limit in named.items():
            if limit < 1:
                raise ConfigurationError(f"slots: {name!r} is {limit}, at least 1")
        self.limit = named.pop(ALL, DEFAULT_LIMIT)
        self._free = self.limit
        # Queues are made when somebody waits in them: an empty one takes 760 bytes, in each run, and most stay empty.
        self._queue: deque[T] | None = None
        self._named_free = named
        self._named_queues: dict[str, deque[T]] = {}

    def take(self, item: T, name: str | None = None, first: bool = False) -> bool:
        """Return whether `item` has its slot now.

        If not, `release` assigns it later. `first` puts it before other waiters.
        """
        if name is not None and name in self._named_free:
            if not self._named_free[name]:
                queue = self._named_queues.setdefault(name, deque())
                queue.appendleft(item) if first else queue.append(item)
                return False
            self._named_free[name] -= 1
            if name in self._alone:
                return True
        if self._free:
            self._free -= 1
            return True
        if self._queue is None:
            self._queue = deque()
        self._queue.appendleft(item) if first else self._queue.append(item)
        return False

    def release(self, name: str | None = None) -> T | None:
        """Release a slot; return the item that has one from now on."""
        if name is not None and name in self._named_free:
            waiting = self._named_queues.get(name)
            if name in self._alone:
                if waiting:
                    return waiting.popleft()
                self._named_free[name] += 1
                return None
            if waiting:
                # Pass on the named slot; the general one goes to the longest waiter, which may be this one.
                if self._queue is None:
                    self._queue = deque()
                self._queue.append(waiting.popleft())
            else:
                self._named_free[name] += 1
        if self._queue:
            return self._queue.popleft()
        self._free += 1
        return None
