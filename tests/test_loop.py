"""The loop in virtual time, the threads that it knows of, and the slots of the executor."""

import asyncio
import threading
import time
from contextlib import suppress

import pytest

from flowkit.errors import ConfigurationError
from flowkit.executor.slots import Slots
from flowkit.executor.threads import Threads, count_busy
from flowkit.testing.loop import VirtualLoop, run_virtual


def test_time_jumps_to_the_next_timer() -> None:
    async def nap() -> float:
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(7200))
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run_virtual(nap()) == 7200
    assert time.monotonic() - began < 5


def test_waiting_for_ever_is_an_error() -> None:
    loop = VirtualLoop()
    task = loop.create_task(asyncio.Event().wait())
    with pytest.raises(RuntimeError, match="waits for ever"):
        loop.run_until_complete(task)
    task.cancel()
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


@pytest.mark.timing
def test_time_stands_while_a_thread_works() -> None:
    async def wait() -> float:
        threads = Threads()
        release = threading.Event()
        asyncio.get_running_loop().call_soon(release.set)
        async with asyncio.timeout(3600):
            await threads.run(lambda: release.wait(10)).future
        threads.close()
        return asyncio.get_running_loop().time()

    assert run_virtual(wait()) < 60


def test_free_threads_are_used_again_and_end_with_their_owner() -> None:
    async def go() -> None:
        threads = Threads()
        first = await threads.run(threading.get_ident).future
        assert await threads.run(threading.get_ident).future == first
        threads.close()

    before = threading.active_count()
    run_virtual(go())
    assert threading.active_count() == before
    assert count_busy() == 0


def test_error_in_a_thread_reaches_who_waits() -> None:
    def stop() -> None:
        raise StopIteration("odd")

    async def go() -> None:
        threads = Threads()
        try:
            await threads.run(stop).future
        finally:
            threads.close()

    with pytest.raises(RuntimeError, match="odd"):
        run_virtual(go())


def test_slots_are_given_in_the_order_of_asking() -> None:
    slots = Slots[str](1)
    assert slots.take("a")
    assert not slots.take("b")
    assert not slots.take("c")
    assert not slots.take("urgent", first=True)
    assert [slots.release() for _ in range(4)] == ["urgent", "b", "c", None]


def test_named_slot_passes_on_without_holding_up_the_others() -> None:
    slots = Slots[str]({"all": 2, "db": 1})
    assert slots.take("a", "db")
    assert not slots.take("b", "db")
    assert slots.take("c")
    assert slots.release("db") == "b"
    assert slots.release(None) is None
    assert slots.release("db") is None
    assert slots.take("d", "db")


def test_slots_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'db' is 0, at least 1"):
        Slots[str]({"db": 0})
