"""Whoever can write into the cache's folder can spoil results, but runs no code and touches no file outside.

The first tests show that each attack works on diskcache as it comes (CVE-2025-69872), so that the others can fail.
"""

import asyncio
import os
import pickle
import sqlite3
from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import Any, cast

import diskcache  # pyright: ignore[reportMissingTypeStubs]
import pytest

from flowkit.cache import DiskCache, Hit
from tests.example_counts import share
from tests.stores import opened

stock = cast(Any, diskcache)

INSERT = (
    "INSERT OR REPLACE INTO Cache (key, raw, store_time, expire_time, access_time, tag, size, mode, filename, value)"
    " VALUES (?, ?, 1, ?, 1, NULL, 0, ?, ?, ?)"
)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def write_row(
    folder: Path,
    key: object,
    *,
    raw: int = 1,
    mode: int = 1,
    expires: float | None = None,
    filename: str | None = None,
    value: bytes | str | None = None,
) -> None:
    connection = sqlite3.connect(folder / "cache.db")
    connection.execute(INSERT, (key, raw, expires, mode, filename, value))
    connection.commit()
    connection.close()


async def use_everything(cache: DiskCache) -> None:
    """Every way in which the cache looks at rows, and a check that it still works."""
    for key in ("target", "x"):
        cache.get(key)
        cache.show(key)
    cache.get_stats()
    await cache.clear(tool="t")
    await cache.clear(resource="order:*")
    for number in range(300):
        await cache.set(f"key-{number}", "x" * 4000, 60, tool="t")
    await cache.set("target", 1, 60, tool="t")
    assert isinstance(cache.get("target"), Hit)
    await cache.clear()


async def attack(folder: Path, write: Callable[[], None]) -> None:
    """Let `write` spoil a cache that was used before, then use it; its size limit makes it cull."""
    async with opened(folder) as cache:
        await cache.set("key", 1, 60, tool="t")
    write()
    async with opened(folder, size_limit=500_000) as cache:
        await use_everything(cache)


@pytest.mark.parametrize("disk", ["Disk", "JSONDisk"])
def test_diskcache_runs_a_pickled_value(tmp_path: Path, disk: str) -> None:
    with stock.Cache(str(tmp_path / "c"), disk=getattr(stock, disk)) as cache:
        cache["target"] = 1
        connection = sqlite3.connect(tmp_path / "c" / "cache.db")
        connection.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Bomb(tmp_path / "boom")),))
        connection.commit()
        connection.close()
        with pytest.raises(Exception):  # noqa: B017  # JSONDisk stumbles over what the code returned
            assert cache.get("target") is not None
    assert (tmp_path / "boom").exists()


def test_diskcache_deletes_a_file_that_a_row_names(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    with stock.Cache(str(tmp_path / "c"), disk=stock.JSONDisk) as cache:
        write_row(tmp_path / "c", "target", mode=2, expires=1, filename=str(outside))
        cache.expire()
    assert not outside.exists()


@pytest.mark.parametrize("expires", [None, 1])
@pytest.mark.parametrize("raw", [0, 1])
def test_a_pickled_value_never_runs(tmp_path: Path, expires: float | None, raw: int) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "boom"))
    asyncio.run(
        attack(
            tmp_path / "c",
            lambda: write_row(tmp_path / "c", "target", raw=raw, mode=4, expires=expires, value=bomb),
        )
    )
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("raw", [0, 1])
def test_a_pickled_key_never_runs(tmp_path: Path, raw: int) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "boom"))
    asyncio.run(attack(tmp_path / "c", lambda: write_row(tmp_path / "c", bomb, raw=raw, value=b"{}")))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("mode", "expires", "is_absolute"), share([*product([1, 2, 3, 4], [None, 1, 4e9], [True, False])], every=5)
)
def test_a_file_that_a_row_names_is_neither_read_nor_deleted(
    tmp_path: Path, mode: int, expires: float | None, is_absolute: bool
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    os.utime(outside, (1, 1))
    name = str(outside) if is_absolute else "../outside.txt"

    async def look(act: Callable[[DiskCache], Awaitable[object]]) -> None:
        async with opened(tmp_path / "c") as cache:
            await cache.set("key", 1, 60, tool="t")
            write_row(tmp_path / "c", "target", mode=mode, expires=expires, filename=name)
            await act(cache)

    async def read(cache: DiskCache) -> None:
        assert cache.get("target") is None
        assert cache.show("target") is None

    asyncio.run(look(read))
    asyncio.run(look(use_everything))
    asyncio.run(
        attack(tmp_path / "c", lambda: write_row(tmp_path / "c", "x", mode=mode, expires=expires, filename=name))
    )
    assert outside.exists()
    assert outside.stat().st_atime == 1, "nobody read it"
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("disk_min_file_size", 0),
        ("disk_pickle_protocol", 4),
        ("disk_fetch", "x"),
        ("disk_compress_level", 1),
        ("get", "x"),
        ("sqlite_writable_schema", 1),
        ("sqlite_journal_mode", "off"),
        ("statistics", 1),
        ("eviction_policy", "least-recently-used"),
        ("cull_limit", 1_000_000),
    ],
)
def test_settings_in_the_database_change_nothing(tmp_path: Path, name: str, value: object) -> None:
    def write() -> None:
        connection = sqlite3.connect(tmp_path / "c" / "cache.db")
        connection.execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (name, value))
        connection.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Bomb(tmp_path / "boom")),))
        connection.commit()
        connection.close()

    asyncio.run(attack(tmp_path / "c", write))
    assert not (tmp_path / "boom").exists()
    connection = sqlite3.connect(tmp_path / "c" / "cache.db")
    assert connection.execute("SELECT value FROM Settings WHERE key = ?", (name,)).fetchone() != (value,)
    connection.close()
    names = {path.name for path in (tmp_path / "c").iterdir() if ".broken" not in path.name}
    assert names <= {"cache.db", "cache.db-wal", "cache.db-shm"}, "no value went to a file"


def test_a_broken_counter_among_the_settings_raises_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "c", size_limit=100_000) as cache:
            await cache.set("key", 1, 60, tool="t")
            connection = sqlite3.connect(tmp_path / "c" / "cache.db")
            connection.execute("UPDATE Settings SET value = NULL WHERE key IN ('size', 'count')")
            connection.commit()
            connection.close()
            for number in range(300):
                await cache.set(f"key-{number}", "x" * 4000, 60, tool="t")
            assert cache.get_stats().errors > 0

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_a_link_in_place_of_the_database_is_not_followed(tmp_path: Path, ending: str) -> None:
    outside = tmp_path / "outside.db"
    connection = sqlite3.connect(outside)
    connection.execute("CREATE TABLE precious (x)")
    connection.commit()
    connection.close()
    before = outside.read_bytes()
    (tmp_path / "c").mkdir(mode=0o700)
    (tmp_path / "c" / f"cache.db{ending}").symlink_to(outside)

    async def main() -> None:
        async with opened(tmp_path / "c") as cache:
            await use_everything(cache)

    asyncio.run(main())
    assert outside.read_bytes() == before


@pytest.mark.parametrize(
    "value", [b"", b"fk1", b"fk1\n" + b"\xff" * 33 + b"1", b"fk1\n" + b"\0" * 33 + b"[" * 100_000, "text", None]
)
def test_bytes_that_are_no_entry_are_a_miss(tmp_path: Path, value: bytes | str | None) -> None:
    async def main() -> None:
        async with opened(tmp_path / "c") as cache:
            await cache.set("key", 1, 60, tool="t")
            write_row(tmp_path / "c", "target", value=value)
            assert cache.get("target") is None
            assert cache.show("target") is None or value not in (b"", b"fk1", "text", None)
            await use_everything(cache)

    asyncio.run(main())
