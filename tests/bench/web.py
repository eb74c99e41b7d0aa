"""What a run costs on its way to browsers: one viewer, fifty viewers, and the wires of other front ends.

    python -m tests.bench.web [--json]

The limit of one viewer is each event's JSON alone, `dumps(event.to_json())`. Fifty viewers of one run are compared with
fifty tasks that are only woken as often. A wire is compared with `sse`.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from flowkit import codec
from flowkit.events import (
    CallArguments,
    CallFinished,
    CallNew,
    CallSealed,
    CallStarted,
    EventLog,
    RunFinished,
    RunStarted,
    TextDelta,
    TurnFinished,
    TurnStarted,
)
from flowkit.web.sse_response import sse
from flowkit.web.wires import encode
from tests.bench.report import Report

EVENTS = 30_000
ROUNDS = 5
VIEWERS = 50
LIVE_EVENTS = 2_000


def make_log(count: int) -> EventLog:
    """A run that has ended, of turns with text and two calls each."""
    log = EventLog("run-1", time.monotonic)
    log.emit(RunStarted, "bench", "m")
    turn = 0
    while len(log.events) < count:
        turn += 1
        log.emit(TurnStarted, turn, "m")
        log.emit(TextDelta, "I look that up for you. ", turn)
        for index in range(2):
            name = f"turn/{turn}/call/{index}"
            log.emit(CallNew, name, "get_order")
            log.emit(CallArguments, name, '{"order_id": "ORD-1001"}')
            log.emit(CallSealed, name, {"order_id": "ORD-1001"})
            log.emit(CallStarted, name)
            log.emit(CallFinished, name, {"id": "ORD-1001", "status": "shipped", "items": ["tea", "cups"]})
        log.emit(TurnFinished, turn, "tool_calls")
    log.emit(RunFinished, "done", "x")
    log.close()
    return log


async def read(chunks: AsyncIterator[bytes]) -> int:
    return sum([len(chunk) async for chunk in chunks])


async def time_of(way: Callable[[EventLog], Awaitable[object]]) -> float:
    """Seconds of CPU for a log that nobody has read; the median of some rounds."""
    times: list[float] = []
    for _ in range(ROUNDS):
        log = make_log(EVENTS)
        began = time.process_time()
        await way(log)
        times.append(time.process_time() - began)
    return statistics.median(times)


async def dump(log: EventLog) -> None:
    for event in log.events:
        codec.dumps(event.to_json())


async def watch_live() -> float:
    """Deliveries per second of CPU: 50 viewers of a run that tells one event after the other."""
    log = EventLog("run-1", time.monotonic)
    viewers = [asyncio.create_task(read(sse(log))) for _ in range(VIEWERS)]
    await asyncio.sleep(0)
    began = time.process_time()
    for index in range(LIVE_EVENTS):
        log.emit(CallNew, f"turn/1/call/{index}", "get_order")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    log.close()
    await asyncio.gather(*viewers)
    return VIEWERS * LIVE_EVENTS / (time.process_time() - began)


async def wake_alone() -> float:
    """Wakings per second of CPU: the same with tasks that wait for a future and do nothing else."""
    wakers: list[asyncio.Future[None]] = []

    async def wait() -> None:
        for _ in range(LIVE_EVENTS):
            waker = asyncio.get_running_loop().create_future()
            wakers.append(waker)
            await waker

    tasks = [asyncio.create_task(wait()) for _ in range(VIEWERS)]
    await asyncio.sleep(0)
    began = time.process_time()
    for _ in range(LIVE_EVENTS):
        woken, wakers[:] = wakers[:], []
        for waker in woken:
            waker.set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return VIEWERS * LIVE_EVENTS / (time.process_time() - began)


async def measure(report: Report) -> None:
    alone = await time_of(dump)
    served = await time_of(lambda log: read(sse(log)))
    report.row("sse, by the JSON alone", served / alone, 1.5, events_per_s=round(EVENTS / served))
    deliveries = await watch_live()
    woken = await wake_alone()
    report.row("50 viewers, by waking 50 tasks alone", woken / deliveries, None, deliveries_per_cpu_s=round(deliveries))
    for wire in ("ai-sdk", "ag-ui"):
        took = await time_of(lambda log, wire=wire: read(encode(log, wire)))
        report.row(f"{wire}, by sse", took / served, None, events_per_s=round(EVENTS / took))


def main() -> None:
    report = Report("web", json="--json" in sys.argv)
    asyncio.run(measure(report))
    report.print()


if __name__ == "__main__":
    main()
