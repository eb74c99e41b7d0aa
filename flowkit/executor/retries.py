"""Decide whether a failed call is retried, and after which delay."""

from collections.abc import Callable

from flowkit.executor.entries import Entry, Failure
from flowkit.executor.plan import AnyTool

RETRIES_AT_MOST = 10
FIRST_DELAY_S = 0.1
"""The wait before the first retry, doubled for each further one and shortened by up to half at random."""
LONGEST_DELAY_S = 30.0


def find_timeout(entry: Entry, tool: AnyTool) -> float | None:
    """Find the seconds that one attempt may take: the step's own, or its tool's."""
    return entry.extra.timeout_s if entry.extra is not None and entry.extra.timeout_s else tool.timeout_s


class Retries:
    """The number of retries of a call, and the pause before each."""

    __slots__ = ("_delay_s", "_left", "_made_before")

    def __init__(self, entry: Entry, tool: AnyTool) -> None:
        extra = entry.extra
        retries = extra.retries if extra is not None and extra.retries is not None else tool.retries
        self._left = min(retries, RETRIES_AT_MOST) if tool.effect != "write" else 0
        self._delay_s = FIRST_DELAY_S
        self._made_before = 0

    def begin(self, entry: Entry) -> None:
        """Record the calls that it had made before this attempt."""
        self._made_before = 0 if entry.extra is None else len(entry.extra.children)

    def pause_after(self, entry: Entry, failure: Failure, random: Callable[[], float]) -> float | None:
        """Return the seconds to wait before a retry; None when a retry can't help, or would do harm."""
        if not failure.may_pass or self._left <= 0:
            return None
        extra = entry.extra
        if extra is not None and (extra.has_doubt or extra.has_written):
            return None  # trying again would write again
        if extra is not None and any(map(_has_written, extra.children[self._made_before :])):
            return None
        self._left -= 1
        pause_s = self._delay_s * (1 - random() / 2)
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        return pause_s


def _has_written(entry: Entry) -> bool:
    """Return whether this call is a write that has begun, or made one."""
    is_write = entry.plan is not None and entry.plan.tool.effect == "write" and entry.started_s is not None
    extra = entry.extra
    return is_write or (extra is not None and (extra.has_written or any(map(_has_written, extra.children))))
