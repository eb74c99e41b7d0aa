"""The cache in Redis, where only a server can be at fault: evicted, flushed, restarted, stopped, replaced, tampered with."""

import asyncio
import inspect
import logging
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from flowkit.cache import Cache, Hit, Lease, RedisCache, open_default_cache
from flowkit.cache.redis.place import OPTIONS, OUTAGE_S
from flowkit.clock import ManualClock
from flowkit.errors import ConfigurationError, StoreError
from flowkit.executor import Executor
from flowkit.references import ToolCall
from flowkit.tools import tool
from tests.cache_places import PATIENCE_S, RedisPlace, find, opened_in, read_generations
from tests.command import SHOP, Command
from tests.servers.processes import find_free_port, server_folder
from tests.servers.redis import RedisServer, start_redis, start_redis_cluster
from tests.servers.tcp_proxy import TcpProxy
from tests.small_disk import resize_disk, small_disk

ORDER = ["order:1"]


def key_of(generations: Sequence[int]) -> str:
    return f"read {list(generations)}"


async def store(cache: Cache, value: int, resources: Sequence[str] = ORDER) -> None:
    """Store a read as the executor does."""
    look = await cache.look(resources, key_of, tool="t")
    assert look.key is not None
    await cache.set(look.key, value, 60, tool="t", resources=resources)


async def read(cache: Cache, resources: Sequence[str] = ORDER) -> object:
    """The value that a read finds; None for a miss."""
    found = (await cache.look(resources, key_of, tool="t")).found
    return found.value if isinstance(found, Hit) else None


@pytest.fixture
def server() -> Generator[RedisServer]:
    """A server of the test's own, which may be killed."""
    with start_redis() as server:
        yield server


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bumps that failed are told to other processes."""
    monkeypatch.setenv("FLOWKIT_CACHE_DIR", str(tmp_path / "marks"))


@pytest.fixture
def place(redis_server: RedisServer) -> RedisPlace:
    return RedisPlace(redis_server, redis_server.create_database())


# Addresses


@pytest.mark.parametrize(
    "url", ["http://host", "host:6379", "redis//host", "", "redis://host:port", "redis://host/shop"]
)
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        RedisCache(url)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("redis://:secret@host:6379/0?socket_timeout=soon", "'socket_timeout' is 'soon', expected seconds"),
        ("redis://:secret@host:6379/0?nonsense=1", "'nonsense' is no option"),
        ("redis://:secret@host:6379/0?client_nam=shop", "did you mean 'client_name'"),
        ("redis://:secret@host:6379/0?db=first", "'db' is 'first', expected a number"),
        ("redis://:secret@host:6379/0?ssl_ca_certs=/etc/ca.pem", "begins with rediss://"),
        ("rediss://:secret@host:6379/0?ssl_cert_reqs=maybe", "expected none, optional or required"),
    ],
)
def test_an_option_of_an_address_that_isnt_right_is_told_by_its_name_at_opening(address: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        RedisCache(address)
    assert "secret" not in str(caught.value)


def test_every_option_that_is_taken_is_one_of_redis_py(redis_server: RedisServer) -> None:
    """The names are written down, since redis-py is loaded only when the first question is asked."""
    import redis.asyncio.connection as connections

    def list_arguments(kind: Any) -> set[str]:
        return {name for base in kind.__mro__ for name in inspect.signature(base.__init__).parameters}

    of_pools = list_arguments(connections.BlockingConnectionPool)
    assert list_arguments(connections.SSLConnection) | of_pools >= OPTIONS

    async def main() -> None:
        cache = RedisCache(
            f"redis://127.0.0.1:{redis_server.port}/0?socket_timeout=2.5&client_name=shop&socket_keepalive=yes"
        )
        await cache.set("key", 1, 60, tool="t", user=None, resources=())
        assert isinstance(await find(cache, "key"), Hit)
        await cache.close()

    asyncio.run(main())


@pytest.mark.parametrize("named", ["of", "redis//cache:6379", "cache.example:6379", "./cache"])
def test_a_cache_of_the_environment_that_is_neither_is_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_CACHE", named)
    with pytest.raises(ConfigurationError, match="FLOWKIT_CACHE is"):
        open_default_cache()


def test_the_environment_names_a_cache_for_several_machines(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_CACHE", redis_server.address())

    async def main() -> None:
        cache = open_default_cache()
        assert isinstance(cache, RedisCache)
        await cache.set("key", 1, 60, tool="t", user=None, resources=())
        assert isinstance(await find(cache, "key"), Hit)
        await cache.close()

    asyncio.run(main())


def test_a_password_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        cache = RedisCache(f"redis://app:s3cret@127.0.0.1:{find_free_port()}/0?password=s3cret")
        assert "s3cret" not in repr(cache) + cache.url
        assert "app" in cache.url
        assert await find(cache, "key") is None
        with pytest.raises(StoreError) as raised:
            await cache.clear()
        assert "s3cret" not in str(raised.value)
        await cache.close()

    asyncio.run(main())
    assert "is in trouble" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_wrong_password_costs_a_run_nothing_but_the_cache_and_is_said_once(
    server: RedisServer, flowkit: Command
) -> None:
    server.execute("CONFIG", "SET", "requirepass", "right")
    address = f"redis://:s3cr3t@127.0.0.1:{server.port}"
    ended = flowkit("run", SHOP, "order_id=ORD-1002", "--cache", address)
    assert "invalid username-password pair" in ended.err
    assert ended.err.count("in trouble") == 1
    assert ended.code == 0
    stats = flowkit("cache", "stats", "--cache", address)
    assert stats.code == 1
    assert "s3cr3t" not in ended.err + stats.err + stats.out


def test_valkey_is_an_address_too(place: RedisPlace) -> None:
    async def main() -> None:
        async with opened_in(place) as cache:
            await cache.set("key", 1, 60, tool="t")
        other = RedisCache(place.address.replace("redis://", "valkey://"), timeout_s=PATIENCE_S)
        assert await find(other, "key") is not None
        await other.close()

    asyncio.run(main())


def test_a_socket_of_this_machine_is_an_address_too() -> None:
    with server_folder("redis-socket") as folder:
        socket = folder / "redis.sock"
        with start_redis("--unixsocket", str(socket)) as server:

            async def main() -> None:
                cache = RedisCache(f"unix://{socket}?db=1", timeout_s=PATIENCE_S)
                await cache.set("key", 1, 60, tool="t")
                assert await find(cache, "key") is not None
                await cache.close()

            asyncio.run(main())
            assert server.execute("DBSIZE", database=1) > 0


# What happens to what it holds


def test_after_everything_was_flushed_or_evicted_nothing_stale_is_found(place: RedisPlace) -> None:
    async def main() -> None:
        async with opened_in(place) as one, opened_in(place) as other:
            for _ in range(3):
                await store(one, 1)
                assert await read(other) == 1
                await other.bump(ORDER)
                assert await read(one) is None
                await store(one, 2)
                database = int(place.address.rpartition("/")[2])
                # The tokens alone, as when they were evicted; then all of it.
                for name in place.server.execute("KEYS", "*", database=database):
                    if not name.endswith((b":v", b":l")):
                        place.server.execute("DEL", name, database=database)
                assert await read(one) is None
                assert await read(other) is None
                await store(one, 3)
                place.server.execute("FLUSHDB", database=database)
                assert await read(one) is None
                assert await read(other) is None

    asyncio.run(main())


@pytest.mark.slow
def test_under_real_eviction_no_read_is_older_than_its_write() -> None:
    with start_redis("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru") as server:

        async def main() -> None:
            one = RedisCache(server.address(), timeout_s=PATIENCE_S)
            other = RedisCache(server.address(), timeout_s=PATIENCE_S)
            hits = 0
            for number in range(600):
                await store(one, number)
                await other.bump(["order:*" if number % 2 else "order:1"])
                assert await read(one) is None
                await store(one, -number)
                await one.set(f"filler {number}", "x" * 20_000, 60, tool="t")
                found = await read(other)
                assert found in (None, -number)
                hits += found is not None
            assert hits > 300
            assert server.execute("INFO", "stats")["evicted_keys"] > 0
            assert one.get_stats().policy == "allkeys-lru"
            await one.close()
            await other.close()

        asyncio.run(main())


def test_a_full_server_that_evicts_nothing_costs_misses_and_still_takes_bumps() -> None:
    with start_redis("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server:

        async def main() -> None:
            cache = RedisCache(server.address(), strict=True, timeout_s=PATIENCE_S)
            await store(cache, 1)
            for number in range(200):
                await cache.set(f"filler {number}", "x" * 50_000, 60, tool="t")
            assert cache.get_stats().errors > 0
            assert await read(cache) == 1
            await cache.bump(ORDER)
            assert await read(cache) is None
            lease = await cache.lease("new")
            assert isinstance(lease, Lease), "everybody may compute"
            await lease.release()
            await cache.close()

        asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "is_still_up"),
    [
        pytest.param(("--appendonly", "yes", "--appendfsync", "always"), False, id="ends"),
        pytest.param(("--appendonly", "yes", "--appendfsync", "everysec"), True, id="refuses"),
        pytest.param(("--save", "1 1"), True, id="snapshots"),
    ],
)
def test_a_full_disk_under_redis_costs_misses_and_no_read_is_old(options: Sequence[str], is_still_up: bool) -> None:
    """It ends, or refuses to write and still answers; then what was read before a write is still in it."""
    with (
        server_folder("full") as folder,
        small_disk(folder / "disk", "2m") as disk,
        start_redis("--dir", str(disk), *options) as server,
    ):
        refusals: list[str] = []

        def takes_writes() -> bool:
            import redis

            try:
                server.execute("SET", "a", "b")
            except (redis.ConnectionError, redis.ResponseError) as error:
                refusals.append(str(error))
            return not refusals

        async def main() -> None:
            one = RedisCache(server.address(), timeout_s=PATIENCE_S)
            other = RedisCache(server.address(), timeout_s=PATIENCE_S)
            await store(one, 1)
            assert await read(other) == 1
            filler = 0
            async with asyncio.timeout(120):
                while takes_writes():
                    await one.set(f"filler {filler}", token_hex(50_000), 60, tool="t")
                    filler += 1
            assert ("MISCONF" in refusals[0]) == is_still_up
            assert await write(other) == ("finished", None)
            assert await read(one) is None
            assert await read(other) is None
            resize_disk(disk, "200m")
            if is_still_up:
                await wait_until_found(one)
                assert await read(other) in (None, 2), "nobody has the old one"
            await one.close()
            await other.close()

        asyncio.run(main())


def test_a_restart_finds_nothing_old_even_where_the_disk_has_it() -> None:
    with start_redis("--appendonly", "yes", "--appendfsync", "always") as server:

        async def main() -> None:
            cache = RedisCache(server.address(), timeout_s=PATIENCE_S)
            await store(cache, 1)
            before = await read_generations(cache, ORDER)
            server.restart()
            assert await read_generations(cache, ORDER) != before, "its id is another"
            assert await read(cache) is None
            await store(cache, 2)
            assert await read(cache) == 2
            assert cache.get_stats().errors == 0, "a connection that was closed is noticed before it is used"
            await cache.close()

        asyncio.run(main())


def test_a_replica_that_missed_the_last_write_gives_nothing_old(server: RedisServer) -> None:
    async def main() -> None:
        with server.replica() as replica:
            one = RedisCache(server.address(), timeout_s=PATIENCE_S)
            await store(one, 1)
            assert server.execute("WAIT", 1, 10_000) == 1
            replica.pause()
            await one.bump(ORDER)
            server.stop()
            replica.go_on()
            replica.execute("REPLICAOF", "NO", "ONE")
            other = RedisCache(replica.address(), timeout_s=PATIENCE_S)
            assert len(replica.execute("KEYS", "*")) >= 4, "it has the old token and the old value"
            assert await read(other) is None
            await one.close()
            await other.close()

    asyncio.run(main())


def test_a_replica_is_not_read(server: RedisServer) -> None:
    async def main() -> None:
        with server.replica() as replica:
            cache = RedisCache(replica.address(), timeout_s=PATIENCE_S)
            assert await find(cache, "key") is None
            assert cache.get_stats().errors > 0
            await cache.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "value",
    [b"", b"fk2\n", b"fk2\n" + b"\xff" * 40, b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"{}", b"fk1\n" + b"\0" * 60],
)
def test_a_tampered_value_is_a_miss(place: RedisPlace, value: bytes) -> None:
    async def main() -> None:
        async with opened_in(place) as cache:
            await cache.set("key", 1, 60, tool="t")
            database = int(place.address.rpartition("/")[2])
            [name] = place.server.execute("KEYS", "*:v", database=database)
            place.server.execute("SET", name, value, "PX", 60_000, database=database)
            assert await find(cache, "key") is None
            lease = await cache.lease("key")
            assert isinstance(lease, Lease)
            await cache.set("key", 2, 60, tool="t")
            assert await find(cache, "key") is not None

    asyncio.run(main())


def test_a_value_put_under_another_key_or_of_another_kind_is_a_miss(place: RedisPlace) -> None:
    async def main() -> None:
        async with opened_in(place) as cache:
            database = int(place.address.rpartition("/")[2])

            def run(*words: Any) -> Any:
                return place.server.execute(*words, database=database)

            await cache.set("ann", "of ann", 60, tool="t", user="ann")
            [of_ann] = run("KEYS", "*:v")
            await cache.set("bob", "of bob", 60, tool="t", user="bob")
            [of_bob] = [name for name in run("KEYS", "*:v") if name != of_ann]
            run("SET", of_bob, run("GET", of_ann), "PX", 60_000)
            assert await find(cache, "bob") is None
            run("PERSIST", of_ann)
            assert await find(cache, "ann") is None, "one that never ends isn't ours"
            run("DEL", of_ann)
            run("LPUSH", of_ann, "x")
            assert await find(cache, "ann") is None
            assert isinstance(await cache.lease("ann"), Lease)
            for name in run("KEYS", "*"):
                run("DEL", name)
            await store(cache, 1)
            for name in run("KEYS", "*"):
                if not name.endswith(b":v"):
                    run("DEL", name)
                    run("LPUSH", name, "x")
            assert await read(cache) is None
            await cache.bump(ORDER)
            assert await read(cache) is None

    asyncio.run(main())


# Trouble


def test_a_stopped_server_holds_one_look_and_then_none_for_half_a_minute(server: RedisServer) -> None:
    clock = ManualClock()

    async def main() -> None:
        cache = RedisCache(server.address(), clock=clock, timeout_s=0.5)
        await cache.open()
        for _ in range(50):  # a busy machine may be late
            if await cache.set("key", 1, 600, tool="t") or await find(cache, "key"):
                break
            clock.advance(OUTAGE_S)
        errors = cache.get_stats().errors
        server.pause()
        assert await find(cache, "key") is None
        assert isinstance(await cache.lease("key"), Lease)
        await cache.set("key", 2, 600, tool="t")
        for _ in range(100):
            assert await find(cache, "key") is None
        assert cache.get_stats().errors <= errors + 2, "one wait of the calls, and one of the thread"
        server.go_on()
        assert await find(cache, "key") is None
        clock.advance(OUTAGE_S)
        assert await find(cache, "key") is not None
        await cache.close()

    asyncio.run(main())


def test_a_loop_that_is_held_doesnt_count_as_a_slow_server(place: RedisPlace) -> None:
    async def main() -> None:
        async with opened_in(place, timeout_s=0.2) as cache:
            await cache.open()
            looking = asyncio.create_task(find(cache, "key"))
            for _ in range(4):  # until it has been sent
                await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251  # a blocking function, which holds the loop
            await looking
            assert cache.get_stats().errors == 0

    asyncio.run(main())


FIRST_READS = """
import asyncio, sys
from flowkit.cache import RedisCache

async def read(cache, number):
    await asyncio.sleep(number / 1000)  # while others still load redis-py
    return (await cache.look((), lambda _: "key", tool="t")).found

async def main():
    cache = RedisCache(sys.argv[1], timeout_s=30)
    await asyncio.gather(*(read(cache, number) for number in range(100)))
    await cache.close()

asyncio.run(main())
"""


def test_the_first_reads_of_a_process_may_come_while_the_client_is_loaded(place: RedisPlace) -> None:
    subprocess.run([sys.executable, "-c", FIRST_READS, place.address], check=True, timeout=PATIENCE_S)


def test_two_thousand_reads_at_once_are_no_trouble(place: RedisPlace) -> None:
    async def main() -> None:
        async with opened_in(place) as cache:
            assert isinstance(cache, RedisCache)
            await store(cache, 7)
            assert await asyncio.gather(*(read(cache) for _ in range(2000))) == [7] * 2000
            assert cache.get_stats().errors == 0
            database = int(place.address.rpartition("/")[2])
            clients = place.server.execute("CLIENT", "LIST", database=database).decode().splitlines()
            assert sum(f" db={database} " in client for client in clients) <= 8 + 1 + 1, "its own, the keeper's, ours"

    asyncio.run(main())


def test_cancelled_reads_never_get_or_leave_another_answer(place: RedisPlace) -> None:
    async def main() -> None:
        async with opened_in(place) as cache:
            for number in range(50):
                await cache.set(f"key {number}", number, 60, tool="t")
            for turn in range(20):
                tasks = [asyncio.create_task(find(cache, f"key {number}")) for number in range(50)]
                for _ in range(turn % 5):
                    await asyncio.sleep(0)
                for task in tasks[turn % 3 :: 3]:
                    task.cancel()
                for number, found in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                    assert isinstance(found, asyncio.CancelledError) or (
                        isinstance(found, Hit) and found.value == number
                    )
            assert cache.get_stats().errors == 0

    asyncio.run(main())


def test_a_holder_that_died_loses_its_lease(place: RedisPlace) -> None:
    async def main() -> None:
        async with opened_in(place, lease_s=0.3) as dead, opened_in(place) as other:
            lease = await dead.lease("key")
            assert isinstance(lease, Lease)
            assert isinstance(dead, RedisCache)
            waiting = asyncio.create_task(other.lease("key"))
            await asyncio.sleep(1)
            assert not waiting.done(), "a living holder renews it"
            dead._keeper.let_go("key", lease.owner)  # pyright: ignore[reportPrivateUsage]  # as dead as can be in here
            taken = await waiting
            assert isinstance(taken, Lease)
            assert taken.owner

    asyncio.run(main())


# Bumps that fail


@tool(resource="order:{name}")
async def write_order(name: str) -> str:
    """Write an order."""
    written.append(name)
    return "written"


written: list[str] = []


async def write(cache: Cache) -> tuple[str, str | None]:
    async with Executor([write_order], cache=cache, user="ada") as graph:
        graph.add(ToolCall("w", "write_order", {"name": "1"}))
        await graph.wait()
    return graph.outcomes["w"].state, graph.outcomes["w"].error


async def wait_until_found(cache: Cache) -> None:
    """Store and read until reads are looked up again; the test's own time-out ends it otherwise."""
    async with asyncio.timeout(60):
        while await read(cache) is None:
            await store(cache, 2)
            await asyncio.sleep(0.05)


def test_a_bump_that_failed_is_repeated_and_nothing_old_is_read_meanwhile(redis_server: RedisServer) -> None:
    async def main() -> None:
        database = redis_server.create_database().rpartition("/")[2]
        async with TcpProxy(redis_server.port) as proxy:
            address = f"redis://127.0.0.1:{proxy.port}/{database}"
            near = RedisCache(redis_server.address(int(database)), timeout_s=PATIENCE_S)
            cut = RedisCache(address, timeout_s=PATIENCE_S)
            beside = RedisCache(address, timeout_s=PATIENCE_S)
            await store(near, 1)
            assert await read(cut) == await read(beside) == 1
            proxy.refuse()
            written.clear()
            assert await write(cut) == ("finished", None)
            assert written == ["1"]
            assert await read(cut) is None
            proxy.let_through()
            assert await read(cut) is None, "until the bump has been repeated"
            await wait_until_found(cut)
            assert await read(near) == 2, "nobody has the old one"
            await wait_until_found(beside)
            for cache in (near, cut, beside):
                await cache.close()

    asyncio.run(main())


@pytest.mark.slow
def test_another_process_of_the_machine_doesnt_look_up_what_a_failed_bump_should_have_ended(
    place: RedisPlace,
) -> None:
    async def main() -> None:
        async with opened_in(place) as near:
            assert isinstance(near, RedisCache)
            await store(near, 1)
            # A cache of the same address that can't reach it.
            unreachable = RedisCache(place.address, timeout_s=0.000_001)
            await unreachable.bump(ORDER)
            await unreachable.close()  # it has told by then, and is gone
            assert await read(near) is None
            await wait_until_found(near)

    asyncio.run(main())


def test_a_folder_of_marks_that_is_empty_keeps_nobody_from_reading(place: RedisPlace, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened_in(place) as cache:
            [folder] = (tmp_path / "marks" / "redis").iterdir()
            (folder / "unfinished").mkdir()
            await wait_until_found(cache)
            assert not (folder / "unfinished").exists()

    async def leave_mark() -> None:
        unreachable = RedisCache(place.address, timeout_s=0.000_001)
        await unreachable.bump(ORDER)
        await unreachable.close()

    asyncio.run(leave_mark())
    for mark in (tmp_path / "marks").rglob("unfinished/*"):
        mark.unlink()
    for folder in (tmp_path / "marks").rglob("unfinished"):
        folder.rmdir()
    asyncio.run(main())


def test_with_strict_a_write_whose_reads_cant_be_ended_is_not_started() -> None:
    async def main() -> None:
        cache = RedisCache(f"redis://127.0.0.1:{find_free_port()}", strict=True)
        written.clear()
        state, error = await write(cache)
        assert (state, written) == ("failed", [])
        assert error is not None
        assert "not run: the cached reads of order:1 can't be invalidated now" in error
        await cache.close()

    asyncio.run(main())


# Clusters, rights, TLS


@pytest.fixture(scope="module")
def cluster() -> Generator[RedisServer]:
    with start_redis_cluster() as server:
        yield server


def test_a_cluster_refuses_no_command_for_its_slots(cluster: RedisServer) -> None:
    async def main() -> None:
        cache = RedisCache(cluster.address(), timeout_s=PATIENCE_S)
        resources = ["order:1", "order:*", "shop:a:order:7", "*", "stock:1"]
        await store(cache, 1, resources)
        assert await read(cache, resources) == 1
        await cache.bump(["shop:a:order:7", "order:2"])
        assert await read(cache, resources) is None
        lease = await cache.lease("key")
        assert isinstance(lease, Lease)
        await cache.set("key", 1, 60, tool="t", user="ada", resources=resources)
        await lease.release()
        assert await find(cache, "key") is not None
        assert await cache.clear(user="ada") == 1
        assert cache.get_stats().errors == 0
        await cache.close()

    asyncio.run(main())


def test_the_rights_that_the_page_names_suffice(server: RedisServer) -> None:
    """The page's own command, as a shell takes it apart."""
    page = Path(__file__).parent.parent / "docs" / "how-to" / "redis-cache.md"
    command = re.search(r"^redis-cli (ACL SETUSER .*?)\n```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert command is not None
    server.execute(*shlex.split(command[1].replace("\\\n", " ").replace("PASSWORD", "secret")))

    async def main() -> None:
        cache = RedisCache(f"redis://app:secret@127.0.0.1:{server.port}", timeout_s=PATIENCE_S)
        await store(cache, 1)
        assert await read(cache) == 1
        await cache.bump(ORDER)
        lease = await cache.lease("key", tool="t")
        assert isinstance(lease, Lease)
        await cache.set("key", 1, 60, tool="t")
        await lease.release()
        stats = cache.get_stats()
        assert (stats.errors, stats.policy) == (0, "noeviction")
        assert await cache.clear() >= 1
        wrong = RedisCache(f"redis://app:wrong@127.0.0.1:{server.port}")
        assert await find(wrong, "key") is None
        await wrong.close()
        await cache.close()

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl isn't installed")
def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_certificates(tmp_path), f"/tmp/flowkit-tls-{tmp_path.name}-{find_free_port()}"))
    try:
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        port = find_free_port()
        options = ("--tls-port", str(port), "--tls-cert-file", str(folder / "server.crt"), "--tls-auth-clients", "no")
        keys = ("--tls-key-file", str(folder / "server.key"), "--tls-ca-cert-file", str(folder / "ca.crt"))
        with start_redis(*options, *keys):

            async def main() -> None:
                authority = f"?ssl_ca_certs={folder / 'ca.crt'}"
                cache = RedisCache(f"rediss://localhost:{port}/0{authority}", timeout_s=PATIENCE_S)
                await cache.set("key", 1, 60, tool="t")
                assert await find(cache, "key") is not None
                stranger = RedisCache(f"rediss://localhost:{port}/0", timeout_s=PATIENCE_S)
                assert await find(stranger, "key") is None
                assert stranger.get_stats().errors > 0
                await cache.close()
                await stranger.close()

            asyncio.run(main())
    finally:
        shutil.rmtree(folder)


def make_certificates(folder: Path) -> Path:
    made = folder / "certificates"
    made.mkdir()
    (made / "names").write_text("subjectAltName=DNS:localhost")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names",
    ):
        subprocess.run(["openssl", *command.split()], cwd=made, check=True, capture_output=True)
    return made


def test_one_cache_serves_loops_one_after_another(place: RedisPlace, caplog: pytest.LogCaptureFixture) -> None:
    cache = RedisCache(place.address, timeout_s=PATIENCE_S)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            asyncio.run(cache.set("key", number, 60, tool="t"))
            assert asyncio.run(find(cache, "key")) is not None
        asyncio.run(cache.close())
    assert caplog.text == ""
