"""Waiters for the end of calls: of given ones, or of all."""

import asyncio
from collections.abc import Iterable

from flowkit.executor import phases
from flowkit.executor.entries import Entry


class CallsWaiter:
    """Waits for some calls; `left` are those that haven't ended."""

    __slots__ = ("future", "left")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = {entry.id for entry in entries if not entry.is_told}

    def note_end(self, entry: Entry) -> None:
        """Take note of an end that has just been told."""
        self.left.discard(entry.id)
        if not self.left:
            self.release()

    def waits_only_for(self, stuck: Iterable[Entry]) -> bool:
        """Whether these are all that it waits for."""
        return self.left <= {entry.id for entry in stuck}

    def release(self) -> None:
        """Let it go on."""
        if not self.future.done():
            self.future.set_result(None)


class AllWaiter:
    """Waits for all that no other entry made, and that is there now; `left` is how many of them haven't ended.

    It counts, since the names of a million calls would be a twentieth of what the calls take.
    """

    __slots__ = ("future", "left", "newest")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = 0
        self.newest: float = 0
        """The place of the last one in the order; what is opened later stands behind it."""
        for entry in entries:
            # Values from outside have the order 0: there is one for each item of an `each`.
            if entry.parent is None and entry.order and (entry.phase < phases.ENDED or not entry.is_told):
                self.left += 1
            if entry.order > self.newest:
                self.newest = entry.order

    def note_end(self, entry: Entry) -> None:
        """Take note of an end that has just been told."""
        if entry.parent is None and entry.order <= self.newest:
            self.left -= 1
            if not self.left:
                self.release()

    def waits_only_for(self, stuck: Iterable[Entry]) -> bool:
        """Whether these, none of which has ended, are all that it waits for."""
        return self.left == sum(1 for entry in stuck if entry.parent is None and entry.order <= self.newest)

    def release(self) -> None:
        """Let it go on."""
        if not self.future.done():
            self.future.set_result(None)


Waiter = CallsWaiter | AllWaiter
