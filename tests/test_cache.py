"""The cache: what it keeps, for how long, what ends it, and what trouble does to it."""

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from flowkit.cache import DiskCache, Hit, HitError, Lease, NullCache, open_default_cache
from flowkit.cache.marks import MAX_GENERATIONS
from flowkit.clock import ManualClock
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.stores.folders import find_file_system, refuse_network
from tests.stores import opened

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX's")


def value_of(found: Hit | HitError | None) -> JSON:
    assert isinstance(found, Hit)
    return found.value


# What it keeps


def test_the_oldest_go_when_the_folder_is_full(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "c", size_limit=1_000_000) as cache:
            for number in range(60):
                await cache.set(f"key-{number}", "x" * 50_000, 60, tool="t")
            assert cache.get("key-59") is not None
            assert cache.get("key-0") is None
        size = sum(path.stat().st_size for path in (tmp_path / "c").iterdir())
        assert size < 1_500_000

    asyncio.run(main())


# For how long


def test_it_is_found_until_its_time_is_over(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with opened(tmp_path / "c", clock=clock) as cache:
            await cache.set("key", 1, 60, tool="t")
            clock.advance(59.5)
            assert cache.get("key") == Hit(1, 59.5)
            clock.advance(0.5)
            assert cache.get("key") is None

    asyncio.run(main())


@pytest.mark.parametrize("jump_s", [-3600, -61, 3600])
def test_a_wall_clock_that_jumps_changes_nothing_on_the_same_boot(tmp_path: Path, jump_s: float) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with opened(tmp_path / "c", clock=clock) as cache:
            await cache.set("before", 1, 60, tool="t")
            clock.jump(jump_s)
            await cache.set("after", 2, 60, tool="t")
            clock.jump(-jump_s)
            clock.advance(59)
            assert value_of(cache.get("before")) == 1
            assert value_of(cache.get("after")) == 2
            clock.advance(1)
            assert cache.get("before") is None
            assert cache.get("after") is None

    asyncio.run(main())


def test_the_entry_says_how_long_it_counts_and_not_the_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "c", clock=ManualClock()) as cache:
            await cache.set("key", 1, 60, tool="t")
            with closing(sqlite3.connect(tmp_path / "c" / "cache.db")) as database, database:
                database.execute("UPDATE Cache SET expire_time = 1")  # by a wall clock that somebody has set
            assert value_of(cache.get("key")) == 1

    asyncio.run(main())


def test_what_another_boot_stored_is_as_old_as_the_wall_clock_says(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with opened(tmp_path / "c", clock=clock) as cache:
            await cache.set("key", 1, 86_400, tool="t")
            clock.advance(3600)
            clock.reboot()
            clock.jump(8 * 3600)  # the night, in which it was off
            assert cache.get("key") == Hit(1, 9 * 3600)
            clock.advance(15 * 3600 - 1)
            assert value_of(cache.get("key")) == 1
            clock.advance(1)
            assert cache.get("key") is None

    asyncio.run(main())


@pytest.mark.parametrize("back_s", [3600 + 6, 86_400])
def test_after_a_reboot_a_wall_clock_that_was_set_back_finds_nothing(tmp_path: Path, back_s: float) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with opened(tmp_path / "c", clock=clock) as cache:
            await cache.set("key", 1, 100_000, tool="t")
            clock.reboot()
            clock.advance(3600)
            assert cache.get("key") == Hit(1, 3600)
            clock.jump(-6)
            assert cache.get("key") is None, "this boot began after it was stored, whatever the clock says"
            clock.jump(6 - back_s)
            assert cache.get("key") is None
            clock.jump(back_s)
            assert value_of(cache.get("key")) == 1

    asyncio.run(main())


def test_a_reboot_ends_the_reads_of_every_resource(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with opened(tmp_path / "c", clock=clock) as cache:
            await cache.bump(["order:1"])
            before = {name: cache.generation(name) for name in ("order:1", "order:2")}
            assert {name: cache.generation(name) for name in before} == before
            clock.reboot()
            assert {cache.generation(name) for name in before}.isdisjoint(before.values())

    asyncio.run(main())


def test_without_a_boot_clock_the_wall_clock_decides_and_the_future_is_a_miss(tmp_path: Path) -> None:
    clock = ManualClock(boot_id=None)

    async def main() -> None:
        async with opened(tmp_path / "c", clock=clock) as cache:
            await cache.set("key", 1, 60, tool="t")
            clock.jump(-3)
            assert cache.get("key") == Hit(1, 0.0), "a few seconds of skew are forgiven"
            clock.jump(-3)
            assert cache.get("key") is None
            clock.jump(6 + 59)
            assert value_of(cache.get("key")) == 1
            clock.jump(1)
            assert cache.get("key") is None

    asyncio.run(main())


# What ends it


# Managing it


def test_stats_tell_what_each_tool_has_and_did(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with opened(tmp_path / "c", clock=clock) as cache:
            await cache.set("a", "x", 60, tool="search")
            clock.advance(5)
            await cache.set("b", "y", 60, tool="search")
            cache.get("a", tool="search")
            cache.get("c", tool="search")
            cache.get("d", tool="other")
            stats = cache.get_stats()
            assert (stats.hits, stats.misses, stats.entries) == (1, 2, 2)
            search = stats.tools["search"]
            assert (search.hits, search.misses, search.entries) == (1, 1, 2)
            assert (search.youngest_s, search.oldest_s) == (0, 5)
            assert search.size_bytes == stats.size_bytes != 0
            assert (stats.tools["other"].misses, stats.tools["other"].oldest_s) == (1, None)

    asyncio.run(main())


def test_show_gives_an_entry_by_the_beginning_of_its_key(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "c") as cache:
            await cache.set("v1:abc", {"n": 1}, 60, tool="t", user="ada", resources=["order:1"])
            await cache.set_error("v1:abd", "no", tool="t")
            shown = cache.show("v1:abc")
            assert shown is not None
            assert (shown.value, shown.error, shown.ttl_s, shown.is_fresh) == ({"n": 1}, None, 60, True)
            assert (shown.label.tool, shown.label.user, shown.label.resources) == ("t", "ada", ("order:1",))
            error = cache.show("v1:abd")
            assert error is not None
            assert (error.value, error.error) == (None, "no")
            assert cache.show("v1:a") is None, "two begin so"
            assert cache.show("nothing") is None

    asyncio.run(main())


# Leases


def test_a_cache_without_room_holds_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, size_limit=0) as cache:
            await cache.set("key", 7, 60, tool="t")
            assert cache.get("key") is None
            assert cache.get_stats().errors == 0

    asyncio.run(main())


# Trouble


def test_a_malformed_database_is_a_miss_and_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "c"

    async def main() -> None:
        async with opened(folder) as cache:
            for number in range(50):
                await cache.set(f"key-{number}", "x" * 1000, 60, tool="t")
        database = folder / "cache.db"
        size = database.stat().st_size
        with database.open("r+b") as file:
            file.seek(4096)
            file.write(b"\x5a" * (size - 4096))
        async with opened(folder) as cache:
            assert cache.get("key-7") is None
            await cache.set("key", 1, 60, tool="t")
            assert value_of(cache.get("key")) == 1
        assert (folder / "cache.db.broken").exists()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert "renamed aside" in caplog.text


def test_pages_that_break_while_it_is_open_are_a_miss_and_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "c"

    async def main() -> None:
        async with opened(folder) as cache:
            for number in range(300):
                await cache.set(f"key-{number}", "x" * 1000, 60, tool="t")
        async with opened(folder) as cache:
            assert cache.get("nothing") is None
            size = (folder / "cache.db").stat().st_size
            with (folder / "cache.db").open("r+b") as file:
                file.seek(4096)
                file.write(b"\x5a" * (size - 4096))
            found = [cache.get(f"key-{number}") for number in range(300)]
            assert None in found
            assert all(hit is None or value_of(hit) == "x" * 1000 for hit in found)
            await cache.set("key", 1, 60, tool="t")
            await cache.set("key", 1, 60, tool="t")
            assert value_of(cache.get("key")) == 1
            assert cache.get_stats().errors > 0

    asyncio.run(main())


def test_a_file_that_is_no_database_is_renamed_aside(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir(mode=0o700)
    (folder / "cache.db").write_bytes(b"not a database at all" * 1000)

    async def main() -> None:
        async with opened(folder) as cache:
            await cache.set("key", 1, 60, tool="t")
            assert value_of(cache.get("key")) == 1

    asyncio.run(main())
    assert (folder / "cache.db.broken").read_bytes().startswith(b"not a database")


def test_a_locked_database_makes_reads_no_slower(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "c") as cache:
            await cache.set("key", 1, 60, tool="t")
            generation = cache.generation("order:1")
            connection = sqlite3.connect(tmp_path / "c" / "cache.db", isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            try:
                assert value_of(cache.get("key")) == 1
                assert cache.generation("order:1") == generation
            finally:
                connection.close()

    asyncio.run(main())


def test_a_folder_that_cannot_be_made_is_misses_and_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def main() -> None:
        async with opened(tmp_path / "file" / "c") as cache:
            await cache.set("key", 1, 60, tool="t")
            assert cache.get("key") is None
            assert isinstance(await cache.lease("key"), Lease)
            await cache.bump(["order:1"])
            assert await cache.clear() == 0
            assert cache.show("key") is None
            assert cache.get_stats().errors > 0

    asyncio.run(main())


READ_ONLY = """
import asyncio, os, sys
import flowkit.cache.safe_disk  # before the rights to read the packages are given up
from flowkit.cache import DiskCache

async def main(folder):
    cache = DiskCache(folder)
    await cache.set("key", 1, 60, tool="t")
    assert cache.get("key") is None
    await cache.bump(["order:1"])
    assert cache.get_stats().errors > 0
    print("missed")

if os.getuid() == 0:
    os.setuid(65534)
os.makedirs(sys.argv[1], 0o700)
os.chmod(sys.argv[1], 0o500)
asyncio.run(main(sys.argv[1]))
"""


@posix_only
def test_a_read_only_folder_is_misses_and_counted() -> None:
    # Not below `tmp_path`, whose folders the user without rights can't enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        run = subprocess.run(
            [sys.executable, "-c", READ_ONLY, f"{folder}/c"], capture_output=True, text=True, check=False
        )
        assert run.stdout == "missed\n", run.stderr


FULL_DISK = """
import asyncio, resource, signal, sys
from flowkit.cache import DiskCache

async def main(folder):
    cache = DiskCache(folder)
    await cache.set("before", 1, 60, tool="t")
    generation = cache.generation("order:1")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for number in range(200):
        await cache.set(f"key-{number}", "x" * 10_000, 60, tool="t")
    assert cache.get("before").value == 1
    assert cache.get("key-199") is None
    await cache.bump(["order:1"])
    assert cache.generation("order:1") != generation, "here at least, nothing stale is found"
    assert cache.get_stats().errors > 0
    await cache.close()
    print("missed")

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.timing
@posix_only
def test_a_full_disk_is_misses_and_counted(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "c")], capture_output=True, text=True, check=False
    )
    assert run.stdout == "missed\n", run.stderr


# Where it lies


@posix_only
def test_a_relative_folder_is_found_again_also_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with opened(Path("c")) as cache:
            await cache.set("key", 1, 60, tool="t")
        async with opened(Path("c")) as cache:
            monkeypatch.chdir("elsewhere")
            assert value_of(cache.get("key")) == 1
            assert cache.get_stats().entries == 1

    asyncio.run(main())
    assert not Path("c").exists()


def test_the_folder_is_ours_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "deep" / "c"):
            assert stat.S_IMODE((tmp_path / "deep" / "c").stat().st_mode) == 0o700

    asyncio.run(main())


@posix_only
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(mode)
    with pytest.raises(ConfigurationError, match="others can write"):
        DiskCache(tmp_path / "c")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir(mode=0o700)
    os.chown(tmp_path / "c", 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to user 65534"):
        DiskCache(tmp_path / "c")


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw,relatime shared:2 - nfs4 server:/home rw
31 30 8:2 / /home/ada/local\\040disk rw,relatime - ext4 /dev/sdb rw
32 22 0:41 / /mnt/c rw - 9p drvfs rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [("/var/x", "ext4"), ("/home/ada/x", "nfs4"), ("/home/ada/local disk/x", "ext4"), ("/homes", "ext4")],
)
def test_the_file_system_of_a_folder_is_that_of_its_nearest_mount(place: str, kind: str) -> None:
    assert find_file_system(Path(place), MOUNTS) == kind


def test_a_network_disk_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lies on nfs4"):
        refuse_network(Path("/home/ada/cache"), mounts=MOUNTS)
    with pytest.raises(ConfigurationError, match="lies on 9p"):
        refuse_network(Path("/mnt/c/cache"), mounts=MOUNTS)
    refuse_network(Path("/home/ada/local disk/cache"), mounts=MOUNTS)
    refuse_network(Path("/home/ada/cache"), mounts="")


# Which one a program gets


def test_the_environment_turns_the_cache_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_CACHE", "off")
    assert isinstance(open_default_cache(), NullCache)


def test_the_environment_names_the_folder_and_the_same_folder_gives_the_same_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FLOWKIT_CACHE", raising=False)
    monkeypatch.setenv("FLOWKIT_CACHE_DIR", str(tmp_path / "c"))
    cache = open_default_cache()
    assert isinstance(cache, DiskCache)
    assert cache.path == tmp_path / "c"
    assert open_default_cache() is cache


def test_no_cache_stores_nothing_and_lets_everybody_compute() -> None:
    async def main() -> None:
        cache = NullCache()
        await cache.set("key", 1, 60, tool="t")
        await cache.bump(["order:1"])
        assert cache.get("key") is None
        assert cache.generation("order:1") == 0
        assert isinstance(await cache.lease("key"), Lease)
        assert cache.get_stats().entries == await cache.clear() == 0

    asyncio.run(main())


def test_diskcache_is_imported_when_a_cache_is_first_used() -> None:
    program = "import sys, flowkit.cache; assert 'diskcache' not in sys.modules; assert 'pickle' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


# What only many, or only few, ever see


def test_leases_that_ran_out_are_forgotten(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with opened(tmp_path / "c", clock=clock) as one:
            await one.lease("key")
            clock.advance(100)
        async with opened(tmp_path / "c", clock=clock) as other:
            await other.set("other", 7, 60, tool="t")

    asyncio.run(main())
    with closing(sqlite3.connect(tmp_path / "c" / "cache.db")) as database:
        assert database.execute("SELECT key FROM flowkit_lease").fetchall() == []


def test_generations_that_are_forgotten_end_the_reads_of_every_resource(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "c") as cache:
            await cache.bump([f"order:{number}" for number in range(MAX_GENERATIONS)])
            before = [cache.generation(name) for name in ("order:7", "user:1")]
            await cache.bump(["rate:usd"])
            after = [cache.generation(name) for name in ("order:7", "user:1")]
            assert all(new > old for old, new in zip(before, after, strict=True))

    asyncio.run(main())
    with closing(sqlite3.connect(tmp_path / "c" / "cache.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM flowkit_generation").fetchone()[0] < 10


def test_a_write_that_could_not_be_told_ends_what_was_read_here_before(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "c") as cache:
            before = cache.generation("order:1")
            with closing(sqlite3.connect(tmp_path / "c" / "cache.db")) as database:
                database.execute("DROP TABLE flowkit_generation")
                await cache.bump(["order:1"])
                database.execute("CREATE TABLE flowkit_generation (resource TEXT PRIMARY KEY, number INTEGER)")
            assert cache.generation("order:1") != before

    asyncio.run(main())
