"""Time as an argument: wall, monotonic and boot clock in one value.

The boot clock runs on while the machine sleeps and isn't moved when someone sets the time; it can only be compared
within one boot, so it comes with the boot's name.
"""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """The clock that flowkit uses; all times are in seconds."""

    def wall(self) -> float:
        """Return the seconds since 1970 by the machine's clock, which may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean something."""
        ...

    def boot(self) -> tuple[str, float] | None:
        """Return the boot's name and the seconds since it; None where the platform has no such clock."""
        ...


class SystemClock:
    """The machine's clocks; the boot clock is Linux's CLOCK_BOOTTIME with `/proc/sys/kernel/random/boot_id`."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def boot(self) -> tuple[str, float] | None:
        name = _boot_id()
        return None if name is None else (name, time.clock_gettime(time.CLOCK_BOOTTIME))


@dataclass
class ManualClock:
    """A clock for tests: it only moves by `advance` and `jump`."""

    now: float = 1_700_000_000.0
    elapsed: float = 1_000.0
    boot_id: str | None = "boot-1"

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.elapsed

    def boot(self) -> tuple[str, float] | None:
        return None if self.boot_id is None else (self.boot_id, self.elapsed)

    def advance(self, seconds: float) -> None:
        """Advance the time."""
        self.now += seconds
        self.elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as an administrator or NTP does; no time passes."""
        self.now += seconds

    def reboot(self) -> None:
        """Simulate a reboot: the clock starts at zero."""
        self.boot_id = f"{self.boot_id}+"
        self.elapsed = 0.0


@cache
def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() if hasattr(time, "CLOCK_BOOTTIME") else None
    except OSError:
        return None
