"""Where runs go that other processes shall drive."""

from typing import Protocol

from flowkit.identity import RunIdentity


class RunQueue(Protocol):
    """Notifies workers of runs in the journal; notifications may be lost, repeated or late."""

    async def put(self, run: RunIdentity, name: str) -> None:
        """Announce a run of the agent or recipe of this name.

        A failure is logged, and the journal still has the run.
        """
        ...


class JournalQueue:
    """No queue: workers find the runs in the journal."""

    async def put(self, run: RunIdentity, name: str) -> None:
        """Do nothing."""
