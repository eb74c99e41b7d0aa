"""Results under keys that are valid only in this process: kept in memory, in the same bytes, and never stored."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from flowkit.cache.entries import Hit, HitError, Label, ToolStats, decode_entry, read_stamp
from flowkit.clock import Clock
from flowkit.resource_names import overlap

SIZE_LIMIT_BYTES = 64 * 2**20
"""The size limit; the least recently used entry is dropped first."""


@dataclass(frozen=True, slots=True)
class MemoryEntry:
    """One entry, in the form that is stored on the disk."""

    label: Label
    data: bytes


class Memory:
    """The entries of one cache that stay in its process; for the loops of any threads."""

    def __init__(self, clock: Clock, *, size_limit: int = SIZE_LIMIT_BYTES) -> None:
        self._clock = clock
        self._size_limit = size_limit
        self._size_bytes = 0
        self._kept: OrderedDict[str, MemoryEntry] = OrderedDict()
        self._owners: dict[str, str] = {}
        self._lock = Lock()

    def get(self, key: str) -> Hit | HitError | None:
        """Return the result under this key, if it is fresh."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            found = decode_entry(kept.data, self._clock)
            if found is None:
                self._drop(key)
            else:
                self._kept.move_to_end(key)
            return found

    def set(self, key: str, label: Label, data: bytes) -> None:
        """Keep an entry, and drop the oldest while there are too many."""
        with self._lock:
            if key in self._kept:
                self._drop(key)
            self._kept[key] = MemoryEntry(label, data)
            self._size_bytes += len(data)
            while self._size_bytes > self._size_limit:
                self._drop(next(iter(self._kept)))

    def take_lease(self, key: str, owner: str) -> bool:
        """Return whether it is this caller's to compute; another thread's loop may be computing it."""
        return self._owners.setdefault(key, owner) == owner

    def release_lease(self, key: str, owner: str) -> None:
        """Release it, where it is still this owner's."""
        if self._owners.get(key) == owner:
            del self._owners[key]

    def is_leased(self, key: str) -> bool:
        """Return whether it is being computed now."""
        return key in self._owners

    def clear(self, tool: str | None, resource: str | None, user: str | None) -> int:
        """Drop the entries that match every given filter; return how many."""
        with self._lock:
            keys = [key for key, kept in self._kept.items() if fits(kept.label, tool, resource, user)]
            for key in keys:
                self._drop(key)
            return len(keys)

    def add_to(self, tools: dict[str, ToolStats]) -> dict[str, ToolStats]:
        """Add the fresh entries kept here to these totals."""
        for kept in list(self._kept.values()):
            stamp = read_stamp(kept.data)
            age_s = None if stamp is None else stamp.age(self._clock)
            if stamp is None or age_s is None or age_s >= stamp.ttl_s:
                continue
            before = tools.get(kept.label.tool, ToolStats())
            ages = [age for age in (before.youngest_s, before.oldest_s, age_s) if age is not None]
            tools[kept.label.tool] = ToolStats(
                before.hits,
                before.misses,
                (before.entries or 0) + 1,
                (before.size_bytes or 0) + len(kept.data),
                min(ages),
                max(ages),
            )
        return tools

    def _drop(self, key: str) -> None:
        self._size_bytes -= len(self._kept.pop(key).data)


def fits(label: Label, tool: str | None, resource: str | None, user: str | None) -> bool:
    """Return whether an entry matches the filters of `clear`: the tool, the resource or its family, the user."""
    return (
        (tool is None or label.tool == tool)
        and (user is None or label.user == user)
        and (resource is None or any(overlap(resource, found) for found in label.resources))
    )
