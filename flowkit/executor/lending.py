"""The transfer of slots: a finished call releases its slot, and a call that only waits lends it.

The table's `ready` lists the calls that get a slot; the caller of a function here starts a task for them
(`Workers.drain`).
"""

import asyncio

from flowkit.executor import phases
from flowkit.executor.entries import Entry, Failure
from flowkit.executor.slots import Slots, SlotWaiter
from flowkit.executor.table import Table


class Lending:
    """Returns slots while a tool waits, and takes them again."""

    def __init__(self, table: Table, slots: Slots[Entry | SlotWaiter]) -> None:
        self._ready = table.ready
        self.slots = slots

    def release(self, entry: Entry, failure: Failure | None) -> Entry | None:
        """Release the slot of a call if it holds one and nothing of it runs any more; return as `pass_on` does."""
        if entry.extra is not None and entry.extra.is_lent:
            return None
        if failure is not None and failure.running is not None and failure.running.is_busy:
            # A thread continues after its call was stopped, so its slot isn't free.
            failure.running.on_free.append(lambda: self.give_back(entry.slot))
            return None
        return self.pass_on(self.slots.release(entry.slot))

    def pass_on(self, item: Entry | SlotWaiter | None) -> Entry | None:
        """Wake the receiver of a slot; an entry that has it is returned, for the caller to run."""
        while item is not None:
            if isinstance(item, SlotWaiter):
                if not item.future.done():
                    item.future.set_result(None)
                    return None
            elif item.phase == phases.SLOT:
                return item
            # The waiter was cancelled meanwhile, so its slot goes to the next one.
            item = self.slots.release(item.slot)
        return None

    def give_back(self, slot: str | None) -> None:
        """Release a slot; an entry that gets it is ready."""
        following = self.pass_on(self.slots.release(slot))
        if following is not None:
            self._ready.append(following)

    def lend(self, entry: Entry) -> None:
        """Lend the slot of a running call to others while it waits.

        A tool may wait for many calls in parallel: its slot is lent with the first, and taken again after the last.
        """
        more = entry.more
        more.waits += 1
        if not more.is_lent:
            more.is_lent = True
            self.give_back(entry.slot)

    async def take_again(self, entry: Entry) -> None:
        """Take the slot again after the last wait; the call gets one before those that never ran."""
        more = entry.more
        more.waits -= 1
        # A stopped call only has to finish, and must not queue for a slot.
        if more.waits or entry.stop is not None:
            return
        waiter = SlotWaiter(entry.slot)
        if not self.slots.take(waiter, entry.slot, first=True):
            await self.wait_for(waiter)
        # Meanwhile another task of the tool may have started waiting or got the slot, or the tool may have ended.
        if more.waits or not more.is_lent or entry.has_ended:
            self.give_back(entry.slot)
        else:
            more.is_lent = False

    def has_taken(self, waiter: SlotWaiter) -> bool:
        """Take a slot for a call that isn't running yet; without a free one, queue the call."""
        return self.slots.take(waiter, waiter.slot)

    async def wait_for(self, waiter: SlotWaiter) -> None:
        """Wait for a slot in the queue."""
        try:
            await waiter.future
        except asyncio.CancelledError:
            if not waiter.future.cancelled():
                self.give_back(waiter.slot)  # it came at the same moment
            raise
