"""The server's clock in statements, or a test's clock instead.

No client's clock is used, so two machines whose clocks differ see the same leases. `clock_timestamp()` is the time of
evaluation, so a lease that is granted after a wait has its full length; `now()` is the start of the transaction.
"""

from dataclasses import dataclass

from flowkit.clock import Clock, SystemClock
from flowkit.journal.driver_lease import NO_LEASE, RunLease, lease_until

ELSEWHERE = "elsewhere"
"""The holder of a claim that was read: who it is doesn't matter, since only time and the token decide here."""


@dataclass(frozen=True, slots=True)
class Times:
    """Moments as SQL."""

    clock: Clock

    @property
    def now(self) -> str:
        """Now."""
        if isinstance(self.clock, SystemClock):
            return "clock_timestamp()"
        return f"to_timestamp({self.clock.wall()!r}::float8)"

    def after(self, seconds: str) -> str:
        """Return the time that many seconds from now."""
        return f"{self.now} + {seconds} * interval '1 second'"

    def read_lease(self, remaining_s: float | None) -> RunLease:
        """Read a claim that expires that many seconds from now, by this machine's clock."""
        return NO_LEASE if remaining_s is None else RunLease(ELSEWHERE, *lease_until(self.clock, remaining_s))
