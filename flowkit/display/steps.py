"""How far a long run is: steps done, running, failed, and when it may be ready."""

from dataclasses import dataclass, field

from flowkit.events import CallFinished, CallNew, CallStarted, Event
from flowkit.timeline import format_seconds

_FAILED = frozenset(("call.failed", "call.denied", "call.in_doubt"))
_LEFT_OUT = frozenset(("call.skipped", "call.cancelled", "call.void"))


@dataclass(slots=True)
class Steps:
    """Counts of calls by state; `expected` grows with the run when it wasn't given or was too small."""

    expected: int | None = None
    opened: int = 0
    done: int = 0
    recorded: int = 0
    from_cache: int = 0
    failed: int = 0
    left_out: int = 0
    running: set[str] = field(default_factory=set[str])

    def apply(self, event: Event) -> None:
        """Count this event."""
        call = str(getattr(event, "call", ""))
        match event:
            case CallNew():
                self.opened += 1
                return
            case CallStarted():
                self.running.add(call)
                return
            case CallFinished(source=source):
                self.done += 1
                self.recorded += source == "journal"
                self.from_cache += source == "cache"
            case _:
                self.failed += event.type in _FAILED
                self.left_out += event.type in _LEFT_OUT
                if event.type not in _FAILED | _LEFT_OUT:
                    return
        self.running.discard(call)

    def say(self, now: float) -> str:
        """One line: `57 of 203 steps done, 8 running, about 12 s left`.

        The time left assumes that the rest goes at the pace of what this run has done itself so far.
        """
        total = max(self.expected or 0, self.opened)
        ended = self.done + self.failed + self.left_out
        parts = [f"{self.done} of {total} steps done"]
        if self.recorded:
            parts[0] += f" ({self.recorded} recorded before)"
        if self.from_cache:
            parts.append(f"{self.from_cache} from the cache")
        if self.running:
            parts.append(f"{len(self.running)} running")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.left_out:
            parts.append(f"{self.left_out} left out")
        worked = ended - self.recorded - self.from_cache
        if worked >= 3 and total > ended:
            parts.append(f"about {format_seconds(now / worked * (total - ended))} left")
        return ", ".join(parts)
