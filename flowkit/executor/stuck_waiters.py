"""Wake those who wait for calls that only a person holds up: a run that waits for an approval has nothing to do."""

import asyncio
from collections.abc import Container

from flowkit.executor import phases
from flowkit.executor.entries import Entry
from flowkit.executor.table import Table


class StuckWaiters:
    """Finds the table's waiters that wait only for calls behind an approval."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._is_looking = False

    def look(self) -> None:
        """Schedule a check for waiters that only a person holds up: a tool or a control may soon make more calls."""
        if self._table.waiters and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        """Release the waiters that wait only for calls that wait for a person."""
        self._is_looking = False
        # One that is still being looked up in the journal may have been decided in another process.
        asking = self._table.asking
        stack = [entry for entry in self._table.pending.values() if entry.id not in asking]
        stuck = {entry.id: entry for entry in stack}
        while stack:
            entry = stack.pop()
            behind = list(entry.dependents or ())
            if entry.extra is not None:
                behind += entry.extra.followers
                if entry.extra.ticket is not None:
                    behind += [self._table.entries[ticket.owner] for ticket in entry.extra.ticket.followers]
            above = entry.parent
            if (
                above is not None
                and above.phase == phases.RUNNING
                and above.id not in stuck
                and _is_stuck(above, stuck)
            ):
                behind.append(above)
            for other in behind:
                if other.id not in stuck and not other.has_ended:
                    stuck[other.id] = other
                    stack.append(other)
        for waiter in self._table.waiters:
            if waiter.waits_only_for(stuck.values()):
                waiter.release()


def _is_stuck(entry: Entry, stuck: Container[str]) -> bool:
    """Return whether all its unfinished children are among these."""
    # Backwards: the first ones have most likely ended.
    children = () if entry.extra is None else reversed(entry.extra.children)
    return all(child.has_ended or child.id in stuck for child in children)
