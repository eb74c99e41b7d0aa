"""Waiters for the end of calls: of certain calls, or of all."""

import asyncio
from collections.abc import Iterable

from flowkit.executor import phases
from flowkit.executor.entries import Entry


class CallsWaiter:
    """Waits for some calls; `left` are the unfinished ones."""

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
        """Wake the waiter."""
        if not self.future.done():
            self.future.set_result(None)


class AllWaiter:
    """Waits for all current calls that no other entry made; `left` is the number of unfinished ones.

    It counts them, since the ids of a million calls would add a twentieth to the memory of the calls.
    """

    __slots__ = ("future", "left", "newest")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = 0
        self.newest: float = 0
        """The position of the last one in the order; later entries follow it."""
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
        """Return whether these unfinished calls are all that it waits for."""
        return self.left == sum(1 for entry in stuck if entry.parent is None and entry.order <= self.newest)

    def release(self) -> None:
        """Wake the waiter."""
        if not self.future.done():
            self.future.set_result(None)


Waiter = CallsWaiter | AllWaiter
