"""A read that a write has ended is found by no process: whatever happens to the cache's files, and where a bump fails."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from forking import Child, Forks, say
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.cache import DiskCache
from flowkit.cache.unfinished import Unfinished
from flowkit.tools import tool
from tests.example_counts import examples
from tests.stores import opened

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks")


@tool(ttl=300, resource="stock:{item}", scope="all")
async def stock(item: str) -> int:
    """Count what is there."""
    return 0


@pytest.fixture(scope="module")
def forks() -> Generator[Forks]:
    with Forks(["test_cache_trust", "flowkit.cache.safe_disk"]) as forks:
        yield forks


def key_of(cache: DiskCache, item: str) -> str:
    """The key of a read now, as the executor makes it."""
    arguments = stock.validate({"item": item})
    key = stock.key(arguments, "", [cache.generation(name) for name in stock.resources(arguments)])
    assert key is not None
    return key


async def store(cache: DiskCache, item: str, value: int) -> None:
    await cache.open()
    await cache.set(key_of(cache, item), value, 60, tool="stock")


def is_found(cache: DiskCache, item: str) -> bool:
    return cache.get(key_of(cache, item), tool="stock") is not None


def read_twice(folder: str, item: str) -> None:
    """A process that goes on with what it has open, after a stop in which anything may happen."""

    async def main() -> None:
        async with opened(Path(folder)) as cache:
            await store(cache, item, 5)
            say(str(is_found(cache, item)))
            os.kill(os.getpid(), signal.SIGSTOP)
            say(str(is_found(cache, item)))
            os.kill(os.getpid(), signal.SIGSTOP)
            found = False
            for _ in range(5):  # what it had begun to make good before the stop may end one more read
                await store(cache, item, 6)
                found = found or is_found(cache, item)
            say(str(found))

    asyncio.run(main())


def stopped_reader(forks: Forks, folder: Path, item: str = "tea") -> Child:
    child = forks.start("test_cache_trust:read_twice", folder, item)
    assert child.hear() == "True"
    assert child.has_stopped()
    return child


def remove(folder: Path, endings: Sequence[str]) -> None:
    for ending in endings:
        (folder / f"cache.db{ending}").unlink()


def replace_by_another(folder: Path) -> None:
    for path in folder.iterdir():
        path.replace(path.with_name(f"{path.name}.old"))


def distrust(folder: Path) -> None:
    remove(folder, ["-wal"])
    (folder / "cache.db-wal").symlink_to("/nowhere")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "all files removed": partial(remove, endings=("", "-wal", "-shm")),
    "the database removed": partial(remove, endings=("",)),
    "the log removed": partial(remove, endings=("-wal", "-shm")),
    "the log's index removed": partial(remove, endings=("-shm",)),
    "the folder removed": partial(shutil.rmtree),
    "all files renamed": replace_by_another,
    "distrusted": distrust,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_after_its_files_are_gone_no_process_finds_what_a_write_in_another_ended(
    tmp_path: Path, forks: Forks, damage: str
) -> None:
    folder = tmp_path / "c"
    reader = stopped_reader(forks, folder)
    DAMAGES[damage](folder)

    async def write() -> None:
        async with opened(folder) as cache:
            await cache.bump(["stock:tea"])

    asyncio.run(write())
    reader.go_on()
    assert reader.hear() == "False"
    assert reader.has_stopped()
    reader.go_on()
    assert reader.hear() == "True", "it goes on with the file that is there now"
    assert reader.wait() == 0


def test_a_writer_whose_files_are_gone_ends_reads_in_the_files_that_are_there_now(tmp_path: Path, forks: Forks) -> None:
    folder = tmp_path / "c"

    async def main() -> None:
        async with opened(folder) as writer:
            await writer.bump(["stock:tea"])
            remove(folder, ["", "-wal", "-shm"])
            reader = stopped_reader(forks, folder)  # has made new ones
            await writer.bump(["stock:*"])
            reader.go_on()
            assert reader.hear() == "False"
            reader.kill()

    asyncio.run(main())


@contextmanager
def small_disk(place: Path, options: str) -> Generator[Path]:
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(path: Path) -> None:
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


async def fail_to_bump(cache: DiskCache, resource: str) -> None:
    """Bump until the full disk takes no more: the log may have had some room left."""
    for _ in range(200):
        errors = cache.get_stats().errors
        await cache.bump([resource])
        if cache.get_stats().errors > errors:
            return
    raise AssertionError("the disk was never full")


def test_a_bump_that_a_full_disk_refuses_keeps_all_processes_from_reads_until_it_has_succeeded(
    tmp_path: Path, forks: Forks
) -> None:
    with small_disk(tmp_path / "disk", "size=600k") as disk:

        async def main() -> None:
            async with opened(disk / "c", lease_s=60.0) as writer:
                await writer.bump(["stock:milk"])
                reader = stopped_reader(forks, disk / "c")
                fill(disk / "filler")
                await fail_to_bump(writer, "stock:tea")
                assert not is_found(writer, "tea")
                reader.go_on()
                assert reader.hear() == "False"
                assert reader.has_stopped()
                (disk / "filler").unlink()
                while Unfinished(disk / "c").is_any():
                    is_found(writer, "tea")  # whoever looks has it made good
                    await asyncio.sleep(0.01)
                reader.go_on()
                assert reader.hear() == "True", "cached again"
                assert reader.wait() == 0

        asyncio.run(main())


def fail_and_die(folder: str, filler: str) -> None:
    async def main() -> None:
        async with opened(Path(folder)) as cache:
            await cache.open()
            fill(Path(filler))
            await fail_to_bump(cache, "stock:tea")
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())


def test_what_a_killed_process_could_not_bump_is_made_good_by_another(tmp_path: Path, forks: Forks) -> None:
    with small_disk(tmp_path / "disk", "size=600k") as disk:

        async def main() -> None:
            async with opened(disk / "c", lease_s=60.0) as cache:
                await store(cache, "tea", 5)
                assert is_found(cache, "tea")
                assert forks.start("test_cache_trust:fail_and_die", disk / "c", disk / "filler").wait() == -9
                assert not is_found(cache, "tea")
                (disk / "filler").unlink()
                while Unfinished(disk / "c").is_any():
                    assert not is_found(cache, "tea")
                    await asyncio.sleep(0.01)
                assert not is_found(cache, "tea")
                await store(cache, "tea", 6)
                assert is_found(cache, "tea")

        asyncio.run(main())


def test_where_no_mark_can_be_written_the_database_goes(tmp_path: Path, forks: Forks) -> None:
    with small_disk(tmp_path / "disk", "size=600k,nr_inodes=8") as disk:

        async def main() -> None:
            async with opened(disk / "c", lease_s=60.0) as writer:
                await writer.bump(["stock:milk"])
                reader = stopped_reader(forks, disk / "c")
                fill(disk / "filler")
                with suppress(OSError):
                    for number in range(9):
                        (disk / f"empty{number}").touch()
                await fail_to_bump(writer, "stock:tea")
                reader.go_on()
                assert reader.hear() == "False"
                assert not is_found(writer, "tea")
                reader.kill()

        asyncio.run(main())


@settings(max_examples=examples(200), deadline=None)
@given(steps=st.lists(st.sampled_from(["add", "list", "remove", "rmdir"]), max_size=12))
def test_for_every_order_of_steps_a_mark_stays_until_it_was_seen_before_a_bump(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("c")
    writer, mender = Unfinished(folder), Unfinished(folder)
    seen: set[str] = set()
    open_marks: set[str] = set()
    for step in steps:
        if step == "add":
            before = set(mender.list_names())
            writer.add()
            open_marks |= set(mender.list_names()) - before
        elif step == "list":
            seen = set(mender.list_names())
        elif step == "remove":
            mender.remove(sorted(seen))
            open_marks -= seen
        else:
            mender.remove(())
        assert writer.is_any() == mender.is_any()
        assert mender.is_any() >= bool(open_marks)
        assert set(mender.list_names()) == open_marks
