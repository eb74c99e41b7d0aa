"""The lease of the process that drives a run, and whether that process is still alive.

A process holds a lease and renews it while it lives. On the same machine the operating system knows whether the
process exists: after a kill the lease needn't expire first, and a process that was only suspended keeps its run. Where
the process can't be checked (another machine, another container, before the last boot), the lease's expiry decides.
"""

import os
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from secrets import token_hex

from flowkit.clock import Clock


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, distinguished from earlier ones with the same number; `token` distinguishes two journals in it."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    token: str

    def to_text(self) -> str:
        return "|".join((self.host, self.boot, self.namespace, str(self.pid), self.started, self.token))

    @property
    def is_gone(self) -> bool:
        """Return whether it is certainly dead; False if this can't be determined here."""
        return self._is_of_this_system and _start_of(self.pid) != self.started

    @property
    def is_alive(self) -> bool:
        """Return whether it certainly exists, even if it is suspended; False if this can't be determined here."""
        return self._is_of_this_system and _start_of(self.pid) == self.started

    @property
    def _is_of_this_system(self) -> bool:
        """Return whether its process number is valid on this machine and boot.

        Two machines may share a name, and copies of an image a machine id, but the random id of a boot is unique. So a
        process of another boot counts as unknown, even if it ran on this machine.
        """
        _, boot, namespace = _place()
        return bool(boot) and (self.boot, self.namespace) == (boot, namespace)


def this_process() -> Holder:
    """Return this process as a new holder."""
    pid = os.getpid()
    return Holder(*_place(), pid, _start_of(pid), token_hex(4))


def read_holder(text: str) -> Holder | None:
    """Read the holder that `to_text` wrote."""
    parts = text.split("|")
    if len(parts) != 6 or not parts[3].isdigit():
        return None
    return Holder(parts[0], parts[1], parts[2], int(parts[3]), parts[4], parts[5])


def describe_holder(text: str | None) -> str:
    """Describe the process that `to_text`, or a journal in a database, wrote, for people.

    >>> describe_holder("box|boot|ns|4711|99|t")
    "process 4711 on machine 'box'"
    >>> describe_holder("box:4711:random")
    "process 4711 on machine 'box'"
    """
    plain = re.fullmatch(r"([^|]+):(\d+):\w+", text or "")
    if plain is not None:
        return f"process {plain[2]} on machine {plain[1]!r}"
    holder = None if text is None else read_holder(text)
    if holder is None:
        return "one that can't be identified"
    return f"process {holder.pid} on machine {holder.host!r}"


@dataclass(frozen=True, slots=True)
class RunLease:
    """The columns that say until when a run is held, or a call may run: by the boot clock and, for other boots, by the wall clock."""

    holder: str | None = None
    boot: str | None = None
    until: float | None = None
    until_wall: float | None = None

    def is_held(self, clock: Clock) -> bool:
        """Return whether a process that may be alive drives the run.

        A process that certainly exists keeps its run, however old its last heartbeat is: it may be suspended, and would
        continue in the middle of a call.
        """
        known = self._find_holder()
        return known is not None and (known.is_alive or (not known.is_gone and self.is_in_time(clock)))

    def may_run(self, clock: Clock) -> bool:
        """Return whether the claimed call may still run: its process may be alive, and its time isn't over."""
        known = self._find_holder()
        return known is not None and not known.is_gone and self.is_in_time(clock)

    def is_in_time(self, clock: Clock) -> bool:
        """Return whether its time isn't over."""
        if self.until is None or self.until_wall is None:
            return False
        boot = clock.boot()
        if boot is not None and boot[0] == self.boot:
            return boot[1] < self.until
        return clock.wall() < self.until_wall

    def describe(self, clock: Clock) -> str:
        """Describe for people the process that holds it, and how long it counts as alive."""
        known = self._find_holder()
        if known is not None and known.is_alive:
            return f"{describe_holder(self.holder)}, which is alive"
        until = datetime.fromtimestamp(clock.wall() + (self.remaining_s(clock) or 0.0), UTC)
        return (
            f"{describe_holder(self.holder)}, which can't be checked; its lease ends at {until:%Y-%m-%d %H:%M:%S} UTC"
        )

    def remaining_s(self, clock: Clock) -> float | None:
        """Return how much of its time is left; None where it isn't held."""
        if not self.holder or self.until is None or self.until_wall is None:
            return None
        boot = clock.boot()
        if boot is not None and boot[0] == self.boot:
            return self.until - boot[1]
        return self.until_wall - clock.wall()

    def _find_holder(self) -> Holder | None:
        if not self.holder or self.until is None or self.until_wall is None:
            return None
        return read_holder(self.holder) or _UNKNOWN


NO_LEASE = RunLease()
"""The lease of no process."""


def lease_until(clock: Clock, lease_s: float) -> tuple[str, float, float]:
    """Return the columns `boot`, `until` and `until_wall` of a lease that begins now."""
    boot, now = clock.boot() or ("", 0.0)
    return boot, now + lease_s, clock.wall() + lease_s


_UNKNOWN = Holder("", "", "", 0, "", "")
"""A holder of whom nothing can be read."""


@cache
def _place() -> tuple[str, str, str]:
    """Return the machine, its boot, and the namespace in which process numbers mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = namespace = ""
    return socket.gethostname().replace("|", "-"), boot, namespace


def _start_of(pid: int) -> str:
    """Return the start time of the process with this number, in the system's format; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # Its name is in brackets and may hold spaces; the 20th field after it is the start in ticks since the boot. A
    # zombie (state Z) has ended, even if its parent hasn't waited for it yet.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
