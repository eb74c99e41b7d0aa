"""The bytes that a web client reads, and what becomes of a viewer that leaves."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import codec
from flowkit.events import EventLog, RunFinished, RunStarted, TextDelta, TurnStarted
from flowkit.web.sse_response import EventStream, sse


def make_log() -> EventLog:
    log = EventLog("run-1", lambda: 0.0)
    log.emit(RunStarted, "shop")
    log.emit(TurnStarted, 1, "m")
    log.emit(TextDelta, "It has\nshipped. 배송 중", 1)
    return log


def finish(log: EventLog) -> None:
    log.emit(RunFinished, "done", "x")
    log.close()


def split(chunks: list[bytes]) -> list[bytes]:
    """The frames, whatever chunks they came in."""
    return [frame + b"\n\n" for frame in b"".join(chunks).split(b"\n\n")[:-1]]


async def read_all(stream: EventStream) -> list[bytes]:
    return split([chunk async for chunk in stream])


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run it, and see that it leaves no task behind."""

    async def watched() -> None:
        await body()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(watched())


def test_each_event_is_an_id_a_type_and_one_line_of_json() -> None:
    log = make_log()
    finish(log)

    chunks = asyncio.run(read_all(sse(log)))

    assert [chunk.split(b"\n")[0] for chunk in chunks] == [b"id: 0", b"id: 1", b"id: 2", b"id: 3"]
    assert chunks[2].endswith(b"\n\n")
    assert chunks[2].count(b"\n") == 4
    assert codec.loads(chunks[2].split(b"\n")[2].removeprefix(b"data: ")) == log.events[2].to_json()


def test_all_that_is_ready_comes_in_one_chunk_made_once_for_all_viewers() -> None:
    async def go() -> tuple[bytes, bytes]:
        log = make_log()
        return await anext(sse(log)), await anext(sse(log))

    first, second = asyncio.run(go())

    assert first is second
    assert first.count(b"\n\n") == 3


def test_viewer_that_comes_before_a_run_goes_on_misses_nothing() -> None:
    async def go() -> list[bytes]:
        log = EventLog("run-1", lambda: 0.0)
        reading = asyncio.create_task(read_all(sse(log, after=10)))
        await asyncio.sleep(0)
        log.first_seq = 11
        log.emit(RunStarted, "shop")
        finish(log)
        return await reading

    assert [chunk.split(b"\n")[0] for chunk in asyncio.run(go())] == [b"id: 11", b"id: 12"]


@pytest.mark.parametrize(("after", "first"), [(1, 2), ("1", 2), (" 2 ", 3), (None, 0), ("x", 0), ("-5", 0), ("²", 0)])
def test_viewer_that_comes_back_goes_on_after_what_it_saw(after: int | str | None, first: int) -> None:
    log = make_log()
    finish(log)

    chunks = asyncio.run(read_all(sse(log, after=after)))

    assert chunks[0].startswith(f"id: {first}\n".encode())


@given(st.integers(min_value=-1, max_value=3))
def test_two_viewings_cut_anywhere_make_the_whole(cut: int) -> None:
    log = make_log()
    finish(log)

    whole = asyncio.run(read_all(sse(log)))

    assert whole[: cut + 1] + asyncio.run(read_all(sse(log, after=cut))) == whole


def test_silence_is_filled_with_comments_and_loses_nothing() -> None:
    async def body() -> None:
        log = make_log()
        stream = sse(log, keep_alive=0.001)
        seen = split([await anext(stream) for _ in range(3)])
        assert seen[3:] == [b": keep-alive\n\n"] * 2
        finish(log)
        rest = [chunk for chunk in await read_all(stream) if not chunk.startswith(b":")]
        assert [chunk.split(b"\n")[0] for chunk in rest] == [b"id: 3"]

    run(body)


def test_closing_a_stream_that_waits_or_has_ended_or_never_began_is_quiet() -> None:
    async def body() -> None:
        log = make_log()
        never = sse(log)
        await never.aclose()
        waiting = sse(log)
        await anext(waiting)
        await waiting.aclose()
        await waiting.aclose()
        assert await read_all(waiting) == []

    run(body)


def test_cancelled_viewer_leaves_the_log_to_the_others() -> None:
    async def body() -> None:
        log = make_log()
        leaver = asyncio.create_task(read_all(sse(log)))
        stayer = asyncio.create_task(read_all(sse(log)))
        await asyncio.sleep(0)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        finish(log)
        assert len(await stayer) == 4

    run(body)


def test_stream_can_be_closed_while_another_task_waits_for_the_next_event() -> None:
    async def body() -> None:
        stream = sse(make_log())
        reader = asyncio.create_task(read_all(stream))
        for _ in range(20):
            await asyncio.sleep(0)  # it has read what is there, and waits
        await stream.aclose()
        assert len(await reader) == 3

    run(body)
