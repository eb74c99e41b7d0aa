"""The cache's contents, for people: totals by tool, one entry in full, the keys to clear.

This reads diskcache's table directly, over a read-only connection; values stay on disk.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from flowkit.cache.entries import (
    HEADER_BYTES,
    Label,
    ShownEntry,
    Stamp,
    ToolStats,
    label_from_text,
    read_stamp,
)
from flowkit.cache.memory import fits
from flowkit.clock import Clock
from flowkit.codec import loads


@dataclass(frozen=True, slots=True)
class Item:
    """One entry without its value."""

    key: str
    label: Label
    stamp: Stamp
    size_bytes: int


def list_items(database: Path) -> Iterator[Item]:
    """Yield the entries that flowkit wrote, fresh or not."""
    with closing(_open(database)) as connection:
        for key, tag, size_bytes, header in connection.execute(
            "SELECT key, tag, length(value), substr(value, 1, ?) FROM Cache WHERE mode = 1 AND raw = 1",
            (HEADER_BYTES,),
        ):
            stamp = read_stamp(header) if isinstance(header, bytes) else None
            if isinstance(key, str) and stamp is not None:
                yield Item(key, label_from_text(tag), stamp, size_bytes)


def sum_by_tool(database: Path, clock: Clock, counts: Mapping[str, tuple[int, int]]) -> dict[str, ToolStats]:
    """Sum up the fresh entries of each tool, with the hits and misses in `counts`."""
    ages: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for item in list_items(database):
        age_s = item.stamp.age(clock)
        if age_s is not None and age_s < item.stamp.ttl_s:
            ages.setdefault(item.label.tool, []).append(age_s)
            sizes[item.label.tool] = sizes.get(item.label.tool, 0) + item.size_bytes
    return {
        tool: ToolStats(
            *counts.get(tool, (0, 0)),
            entries=len(ages.get(tool, ())),
            size_bytes=sizes.get(tool, 0),
            youngest_s=min(ages[tool]) if tool in ages else None,
            oldest_s=max(ages[tool]) if tool in ages else None,
        )
        for tool in sorted(ages.keys() | counts.keys())
    }


def read_entry(database: Path, key: str, clock: Clock) -> ShownEntry | None:
    """Read one entry in full; a unique prefix of its key is enough."""
    with closing(_open(database)) as connection:
        rows = connection.execute(
            "SELECT key, tag, value FROM Cache WHERE mode = 1 AND raw = 1 AND substr(key, 1, ?) = ? LIMIT 2",
            (len(key), key),
        ).fetchall()
    rows = [row for row in rows if row[0] == key] or rows
    if len(rows) != 1 or not isinstance(rows[0][2], bytes):
        return None
    found, tag, data = rows[0]
    stamp = read_stamp(data)
    if stamp is None:
        return None
    age_s = stamp.age(clock)
    try:
        value = loads(data[HEADER_BYTES:])
    except ValueError:
        return None
    return ShownEntry(
        key=found,
        label=label_from_text(tag),
        value=None if stamp.is_error else value,
        error=str(value) if stamp.is_error else None,
        age_s=age_s,
        ttl_s=stamp.ttl_s,
        size_bytes=len(data),
        is_fresh=stamp.is_fresh(clock),
    )


def find_keys(database: Path, tool: str | None, resource: str | None, user: str | None) -> list[str]:
    """Find the keys of the entries that match every given filter."""
    return [item.key for item in list_items(database) if fits(item.label, tool, resource, user)]


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, isolation_level=None)
