"""This process's cache statistics: counted in memory, added to the database from time to time."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Hits and misses by tool since they were last stored, and errors since the process started."""

    errors: int = 0
    too_large: int = 0
    not_json: int = 0
    _fresh: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def count(self, tool: str, *, is_hit: bool) -> None:
        """Count one more look at the cache."""
        counts = self._fresh.get(tool)
        if counts is None:
            counts = self._fresh[tool] = [0, 0]
        counts[0 if is_hit else 1] += 1

    def recount(self, tool: str) -> None:
        """Count a miss as a hit: another process computed it while we waited."""
        counts = self._fresh.setdefault(tool, [0, 0])
        counts[0] += 1
        counts[1] -= 1

    def take(self) -> dict[str, tuple[int, int]]:
        """Take the counts since the last `take`, by tool."""
        taken, self._fresh = self._fresh, {}
        return {tool: (hits, misses) for tool, (hits, misses) in taken.items()}

    def add_to(self, counts: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Add the counts that weren't taken yet to these."""
        added = dict(counts)
        for tool, (hits, misses) in list(self._fresh.items()):
            before = added.get(tool, (0, 0))
            added[tool] = (before[0] + hits, before[1] + misses)
        return added
