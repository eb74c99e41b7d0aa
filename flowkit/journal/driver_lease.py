"""Who drives a run, and whether that process still lives.

A lease is held by a process and renewed while it lives. After a kill nobody need wait for it to run out: on the same
machine the system knows whether the process is there. Where it can't be asked (another machine, another container)
the lease's time decides.
"""

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from secrets import token_hex

from flowkit.clock import Clock


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, told apart from every other that had its number; `token` tells two journals in it apart."""

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
        """Certainly dead; False also when that can't be known here."""
        here = _place()
        if self.host != here[0]:
            return False
        if self.boot != here[1]:
            return bool(self.boot and here[1])
        return self.namespace == here[2] and _start_of(self.pid) != self.started


def this_process() -> Holder:
    """This process, as a new holder."""
    pid = os.getpid()
    return Holder(*_place(), pid, _start_of(pid), token_hex(4))


def read_holder(text: str) -> Holder | None:
    """The holder that `to_text` wrote."""
    parts = text.split("|")
    if len(parts) != 6 or not parts[3].isdigit():
        return None
    return Holder(parts[0], parts[1], parts[2], int(parts[3]), parts[4], parts[5])


@dataclass(frozen=True, slots=True)
class RunLease:
    """The columns that say until when a run is held: by the boot clock and, for other boots, by the wall clock."""

    holder: str | None = None
    boot: str | None = None
    until: float | None = None
    until_wall: float | None = None

    def is_held(self, clock: Clock) -> bool:
        """Whether a process that may be alive drives the run."""
        if self.holder is None or self.until is None or self.until_wall is None:
            return False
        known = read_holder(self.holder)
        if known is not None and known.is_gone:
            return False
        boot = clock.boot()
        if boot is not None and boot[0] == self.boot:
            return boot[1] < self.until
        return clock.wall() < self.until_wall


def lease_until(clock: Clock, lease_s: float) -> tuple[str, float, float]:
    """The columns `boot`, `until` and `until_wall` of a lease that begins now."""
    boot, now = clock.boot() or ("", 0.0)
    return boot, now + lease_s, clock.wall() + lease_s


@cache
def _place() -> tuple[str, str, str]:
    """The machine, its boot, and the namespace in which process numbers mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = namespace = ""
    return socket.gethostname().replace("|", "-"), boot, namespace


def _start_of(pid: int) -> str:
    """When the process with this number began, in the system's own words; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _is_running(pid)
    # Its name is in brackets and may hold spaces; the 20th field after it is the start in ticks since the boot. A
    # zombie (state Z) has ended, whoever has yet to wait for it.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _is_running(pid: int) -> str:
    if os.name != "posix":
        return "unknown"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"
