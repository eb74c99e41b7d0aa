"""Many processes share one cache: once for all, and a kill at any moment breaks nothing."""

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path

import pytest
from forking import Forks, say

from flowkit.cache import Hit, HitError, Lease
from tests.stores import opened

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks")

LEASE_S = 1.0
KILLS = 50


@pytest.fixture(scope="module")
def forks() -> Generator[Forks]:
    with Forks(["test_cache_processes", "flowkit.cache.safe_disk"]) as forks:
        yield forks


def append(path: str, line: str) -> None:
    """One write of one line: lines of several processes never mix."""
    handle = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def compute_once(folder: str, effects: str, start_s: float) -> None:
    """What an executor does with a read that has a TTL."""

    async def main() -> None:
        async with opened(Path(folder)) as cache:
            await asyncio.sleep(start_s - time.monotonic())
            found: Hit | HitError | Lease | None = cache.get("key", tool="t")
            if found is None:
                found = await cache.lease("key", tool="t")
            if isinstance(found, Lease):
                append(effects, f"computed by {os.getpid()}")
                await asyncio.sleep(0.3)
                await cache.set("key", "result", 60, tool="t")
                say("result")
            else:
                assert isinstance(found, Hit)
                say(str(found.value))

    asyncio.run(main())


@pytest.mark.timing
def test_eight_processes_compute_a_cold_key_once(tmp_path: Path, forks: Forks) -> None:
    effects = tmp_path / "effects"
    start_s = time.monotonic() + 0.3
    children = [forks.start("test_cache_processes:compute_once", tmp_path / "c", effects, start_s) for _ in range(8)]
    assert [child.hear() for child in children] == ["result"] * 8
    assert [child.wait() for child in children] == [0] * 8
    assert len(effects.read_text().splitlines()) == 1


def hold_lease(folder: str) -> None:
    async def main() -> None:
        async with opened(Path(folder), lease_s=LEASE_S) as cache:
            assert isinstance(await cache.lease("key"), Lease)
            await asyncio.sleep(LEASE_S * 1.5)
            say("held for longer than a lease, since it renews it")
            await asyncio.sleep(3600)

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.timing
def test_a_living_holder_keeps_its_lease_and_a_killed_one_loses_it_in_time(tmp_path: Path, forks: Forks) -> None:
    holder = forks.start("test_cache_processes:hold_lease", tmp_path / "c")
    holder.hear()

    async def main() -> None:
        async with opened(tmp_path / "c", lease_s=LEASE_S) as cache:
            assert await cache.lease("key", wait_s=0) == Lease("key"), "it is held"
            holder.kill()
            began_s = time.monotonic()
            lease = await cache.lease("key")
            taken_s = time.monotonic() - began_s
            assert isinstance(lease, Lease)
            assert lease.owner
            assert taken_s < LEASE_S + 0.3

    asyncio.run(main())


def make_value(key: str, seed: int) -> dict[str, str]:
    body = str(seed) * random.Random(seed).randint(1, 4000)
    return {"body": body, "check": sha256(f"{key}:{body}".encode()).hexdigest()}


def is_right(key: str, value: object) -> bool:
    match value:
        case {"body": str(body), "check": str(check)}:
            return sha256(f"{key}:{body}".encode()).hexdigest() == check
        case _:
            return False


def write_for_ever(folder: str, seed: int) -> None:
    async def main() -> None:
        async with opened(Path(folder), size_limit=2_000_000) as cache:
            numbers = random.Random(seed)
            while True:
                key = f"key-{numbers.randint(0, 200)}"
                await cache.set(key, dict(make_value(key, numbers.randint(0, 9999))), 60, tool="t")
                say("wrote")

    asyncio.run(main())


@pytest.mark.slow
def test_fifty_kills_during_writes_leave_no_wrong_value_and_nothing_behind(tmp_path: Path, forks: Forks) -> None:
    folder = tmp_path / "c"
    numbers = random.Random(7)
    reads = 0

    async def look() -> int:
        async with opened(folder) as cache:
            found = {f"key-{number}": cache.get(f"key-{number}") for number in range(201)}
        for key, hit in found.items():
            assert hit is None or (isinstance(hit, Hit) and is_right(key, hit.value)), key
        return sum(hit is not None for hit in found.values())

    for kill in range(KILLS // 2):
        writers = [forks.start("test_cache_processes:write_for_ever", folder, 2 * kill + which) for which in (0, 1)]
        for writer in writers:
            for _ in range(numbers.randint(1, 60)):
                writer.hear()
            writer.kill()
        reads += asyncio.run(look())
        connection = sqlite3.connect(folder / "cache.db")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    assert reads > KILLS
    left = {path.name for path in folder.rglob("*")}
    assert left <= {"cache.db", "cache.db-wal", "cache.db-shm"}


def open_at_once(folder: str, start_s: float) -> None:
    async def main() -> None:
        await asyncio.sleep(start_s - time.monotonic())
        async with opened(Path(folder)) as cache:
            await cache.set(f"key-{os.getpid()}", 1, 60, tool="t")
            assert cache.get(f"key-{os.getpid()}") is not None
            assert cache.get_stats().errors == 0

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.timing
def test_twelve_processes_may_open_a_new_cache_at_once(tmp_path: Path, forks: Forks) -> None:
    for attempt in range(3):
        start_s = time.monotonic() + 0.15
        children = [
            forks.start("test_cache_processes:open_at_once", tmp_path / str(attempt), start_s) for _ in range(12)
        ]
        assert [child.wait() for child in children] == [0] * 12


def fork_and_use(folder: str) -> None:
    async def use(key: str) -> None:
        cache = caches[0]
        await cache.set(key, key, 60, tool="t")
        assert isinstance(cache.get(key), Hit)
        assert isinstance(cache.get("parent"), Hit)

    from flowkit.cache import DiskCache

    caches = [DiskCache(folder)]
    asyncio.run(use("parent"))
    pid = os.fork()
    if pid == 0:
        asyncio.run(use("child"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    asyncio.run(use("parent"))
    assert isinstance(caches[0].get("child"), Hit)
    asyncio.run(caches[0].close())


@pytest.mark.slow
def test_a_cache_goes_on_in_a_forked_process(tmp_path: Path, forks: Forks) -> None:
    assert forks.start("test_cache_processes:fork_and_use", tmp_path / "c").wait() == 0
