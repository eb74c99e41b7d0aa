"""Carried-out decisions of runs without a journal, so that a decision that is sent twice takes effect once.

A run that waits for a person and has no journal resumes from its result. A second request with the same decision on
the same call gets the run that the first one started, and its result.
"""

from collections import OrderedDict
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from flowkit.errors import RunError
from flowkit.runs.run import Run

KEPT_AT_MOST = 1000
"""How many are kept, the latest ones; who has more that wait at once has a journal."""


@dataclass(frozen=True, slots=True)
class _Started:
    run: Run[Any]
    calls: frozenset[str]
    of: object
    """What was decided on, kept alive: the key may be its identity."""


class Decided:
    """What decisions have started in this process, by what they were made on."""

    def __init__(self) -> None:
        self._started: OrderedDict[Hashable, _Started] = OrderedDict()
        self._lock = Lock()

    def find(self, key: Hashable, calls: Collection[str]) -> Run[Any] | None:
        """Return the run that decisions on these calls started before; None when nothing was carried out yet.

        Raises `RunError` when others than these were decided then.
        """
        with self._lock:
            before = self._started.get(key)
        if before is None or before.run.has_changed_nothing:
            return None
        if not set(calls) <= before.calls:
            named = ", ".join(sorted(before.calls))
            raise RunError(f"{named} was decided already; continue from the result of that decision")
        return before.run

    def keep(self, key: Hashable, calls: Collection[str], run: Run[Any], of: object = None) -> None:
        """Keep what these decisions have started."""
        with self._lock:
            self._started[key] = _Started(run, frozenset(calls), of)
            while len(self._started) > KEPT_AT_MOST:
                self._started.popitem(last=False)


DECIDED = Decided()
