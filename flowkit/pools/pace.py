"""Whether the way to another process pays: what the functions take there, against what the way takes."""

import logging
from threading import Lock

logger = logging.getLogger("flowkit.pools")

CALLS_AT_LEAST = 20
"""From how many calls on a mean says something."""
WORTH_TIMES = 10
"""How many times the way's own time a function should take."""


class Pace:
    """The times of one pool's calls, by tool; says once for each tool that it is too small to be worth the way."""

    def __init__(self, pool: str, way_s: float | None = None) -> None:
        self._pool = pool
        self.way_s = way_s
        """The time of the way alone: given, or the shortest that was seen."""
        self._is_given = way_s is not None
        self._calls: dict[str, tuple[int, float]] = {}
        self._told: set[str] = set()
        self._lock = Lock()

    def note(self, tool: str, took_s: float, way_s: float | None = None) -> None:
        """Take note of one call: the function's own time, and the time beside it."""
        with self._lock:
            if way_s is not None and not self._is_given:
                self.way_s = way_s if self.way_s is None else min(self.way_s, way_s)
            count, sum_s = self._calls.get(tool, (0, 0.0))
            self._calls[tool] = count + 1, sum_s + took_s
            tip = self._find_tip(tool)
        if tip is not None:
            logger.warning("%s", tip, extra={"tool": tool})

    def _find_tip(self, tool: str) -> str | None:
        count, sum_s = self._calls[tool]
        if count < CALLS_AT_LEAST or tool in self._told or self.way_s is None:
            return None
        if sum_s / count >= WORTH_TIMES * self.way_s:
            return None
        self._told.add(tool)
        return (
            f"tip: {tool!r} takes {1000 * sum_s / count:.2g} ms on average, and the way to pool={self._pool!r} and back"
            f" {1000 * self.way_s:.2g} ms: give each call more to do, or leave the pool out"
        )
