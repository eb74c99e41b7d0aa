"""Where runs go that other processes shall drive."""

from typing import Protocol

from flowkit.identity import RunIdentity


class RunQueue(Protocol):
    """Tells workers of runs that are in the journal; it may lose them, deliver them twice, or late."""

    async def put(self, run: RunIdentity, name: str) -> None:
        """Tell of a run of the agent or recipe of this name; what can't be told is logged, and found in the journal."""
        ...


class JournalQueue:
    """No queue: workers find the runs in the journal."""

    async def put(self, run: RunIdentity, name: str) -> None:
        """Do nothing."""
