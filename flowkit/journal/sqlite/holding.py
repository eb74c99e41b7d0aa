"""The runs that this process holds in a file, and those that other processes may hold."""

from flowkit.clock import Clock
from flowkit.journal.driver_lease import RunLease, lease_until, this_process
from flowkit.journal.store import HeldRuns


class Holding:
    """This process as a driver."""

    def __init__(self, clock: Clock, held: HeldRuns, lease_s: float) -> None:
        self.clock = clock
        self._held = held
        self._lease_s = lease_s
        self._holder = this_process()

    @property
    def runs(self) -> HeldRuns:
        """The runs that it holds."""
        self._held.notice_fork()
        return self._held

    @property
    def holder(self) -> str:
        """This process, as a column."""
        if self._holder.pid != self.runs.pid:
            self._holder = this_process()
        return self._holder.to_text()

    def is_held(self, run: int, lease: RunLease) -> bool:
        """Return whether a driver that may be alive has this run, here or elsewhere."""
        is_let_go = lease.holder == self.holder and run not in self._held.tokens
        return not is_let_go and lease.is_held(self.clock)

    def lease(self) -> tuple[str, float, float]:
        """Return the columns `boot`, `until` and `until_wall` of a lease that begins now."""
        return lease_until(self.clock, self._lease_s)
