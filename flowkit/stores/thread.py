"""A store's writing thread, so that the event loop never waits for a disk or a lock.

Jobs run in order of arrival, several at a time as one batch, which makes a group commit possible. A batch ends when no
more jobs wait; jobs without a waiter linger briefly so that others can join. The thread starts with the first job, and
again in a forked process.
"""

import asyncio
import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
BATCH_JOBS = 512
"""The most jobs in one batch."""
LINGER_S = 0.005
"""How long a job that nobody waits for may wait for others."""
GATHER_SHARE = 0.3
GATHER_AT_MOST_S = 0.01
"""How long a batch that gathers waits: a part of what the last one took, and no longer than this."""
EXIT_S = 5.0
"""How long the end of the process waits for jobs that nobody waits for."""

_waiting = 0
_waiting_lock = threading.Lock()


def count_waiting() -> int:
    """Count the tasks of the whole process that wait for such a thread; a loop in virtual time must not jump then."""
    return _waiting


Tell = Callable[[Any, BaseException | None], None]
"""Told, in the thread, a job's result or error."""


class Signal:
    """A `threading.Event` for which loops can wait, too; set by a store's thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._waiting: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """Wake all waiters."""
        with self._lock:
            self._event.set()
            waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell()

    def clear(self) -> None:
        """Make later callers wait."""
        self._event.clear()

    def wait(self, timeout_s: float) -> bool:
        """Wait in a thread; False when the time was over before."""
        return self._event.wait(timeout_s)

    async def wait_async(self) -> None:
        """Wait in a loop."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_end, done, None, None)

        with self._lock:
            if self._event.is_set():
                return
            self._waiting.append(tell)
        _count_waiting(+1)
        try:
            await done
        finally:
            _count_waiting(-1)


@dataclass(slots=True)
class WriteJob:
    """A write job; `is_durable` requires a commit that survives a power loss."""

    operation: Callable[[], Any]
    tell: Tell
    is_durable: bool = False
    is_awaited: bool = True
    result: Any = None
    has_failed: bool = False

    def run(self, *, passing: type[Exception] | tuple[type[Exception], ...] = ()) -> None:
        """Run the job and keep its result for `settle`; report its error immediately, but raise those in `passing`."""
        try:
            self.result = self.operation()
        except passing:
            raise
        except Exception as error:  # noqa: BLE001  # it surfaces in whoever waits for the job
            self.fail(error)

    def settle(self) -> None:
        """Report the result after the commit."""
        if not self.has_failed:
            self.tell(self.result, None)

    def fail(self, error: BaseException) -> None:
        """Report that it could not be written."""
        if not self.has_failed:
            self.has_failed = True
            self.tell(None, error)


class _Told:
    """Results on their way to event loops: each wake-up of a loop delivers all that are ready."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = {}

    def add(
        self, loop: asyncio.AbstractEventLoop, done: "asyncio.Future[Any]", result: Any, error: BaseException | None
    ) -> None:
        """Pass a result to the future of this loop; from any thread."""
        with self._lock:
            waiting = self._waiting.setdefault(loop, [])
            waiting.append((done, result, error))
            is_first = len(waiting) == 1
        if not is_first:
            return  # the loop hasn't come to the first one yet
        try:
            loop.call_soon_threadsafe(self._end_all, loop)
        except RuntimeError:  # it has been closed: nobody waits any more
            self._take(loop)

    def _end_all(self, loop: asyncio.AbstractEventLoop) -> None:
        for done, result, error in self._take(loop):
            _end(done, result, error)

    def _take(self, loop: asyncio.AbstractEventLoop) -> "list[tuple[asyncio.Future[Any], Any, BaseException | None]]":
        with self._lock:
            return self._waiting.pop(loop, [])


class _Inbox:
    """Jobs on their way to the thread, which is woken once for all that it waits for.

    Woken by the first of them it would fight for the interpreter's lock with the loop that makes the others.
    """

    def __init__(self) -> None:
        self._jobs: deque[WriteJob] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._wanted = 1
        """The number of jobs that wakes the thread."""
        self._awaited = 0
        self._wakes_for_awaited = False
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: WriteJob) -> None:
        """Add a job; from any thread."""
        with self._changed:
            self._jobs.append(job)
            self._awaited += job.is_awaited
            if len(self._jobs) >= self._wanted or (job.is_awaited and self._wakes_for_awaited):
                self._changed.notify()

    def close(self) -> None:
        """Announce that no more jobs follow."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def wait(self, count: int, timeout_s: float | None, *, or_awaited: bool = False) -> None:
        """Wait until this many jobs are queued, or one with a waiter."""
        with self._changed:
            self._wanted, self._wakes_for_awaited = count, or_awaited
            self._changed.wait_for(
                lambda: len(self._jobs) >= count or (or_awaited and self._awaited) or self._is_closed, timeout_s
            )

    def take(self) -> tuple[list[WriteJob], bool]:
        """Take the next batch; return it, and whether another may follow."""
        with self._changed:
            batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), BATCH_JOBS))]
            self._awaited -= sum(job.is_awaited for job in batch)
            return batch, bool(self._jobs) or not self._is_closed


class StoreThread:
    """Runs jobs in batches; `handle` must settle or fail every job of a batch and not raise."""

    def __init__(
        self,
        name: str,
        handle: Callable[[Sequence[WriteJob]], None],
        *,
        tick: Callable[[], None] | None = None,
        tick_s: float = 1.0,
        leave: Callable[[], None] | None = None,
        gathers: bool = False,
    ) -> None:
        """Prepare the thread: `tick` runs in it about every `tick_s` seconds, `leave` at its end.

        With `gathers`, a batch waits for a fraction of the last batch's time until it has as many jobs as that one, since
        the callers of the last batch are about to submit more. This pays if each batch costs a round trip.
        """
        self._name = name
        self._handle = handle
        self._tick = tick
        self._tick_s = tick_s
        self._leave = leave
        self._gathers = gathers
        self._gather_s = 0.0
        self._company = 0
        """How long the next batch waits, and for how many jobs."""
        self._told = _Told()
        self._inbox = _Inbox()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._starting = threading.Lock()

    async def submit(self, operation: Callable[[], T], *, is_durable: bool = False) -> T:
        """Run `operation` in the thread and wait for its batch; cancelling the wait doesn't stop the job."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def tell(result: Any, error: BaseException | None) -> None:
            self._told.add(loop, done, result, error)

        self._put(WriteJob(operation, tell, is_durable))
        _count_waiting(+1)
        try:
            return await done
        finally:
            _count_waiting(-1)

    def call(self, operation: Callable[[], T], *, is_durable: bool = False) -> T:
        """Submit like `submit`, for callers that have no loop."""
        done: Future[T] = Future()

        def tell(result: Any, error: BaseException | None) -> None:
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        self._put(WriteJob(operation, tell, is_durable))
        return done.result()

    def post(self, operation: Callable[[], object], tell: Tell) -> None:
        """Queue `operation` without a waiter."""
        self._put(WriteJob(operation, tell, is_awaited=False))

    def close(self) -> None:
        """Run all submitted jobs and stop the thread; the next job starts it again."""
        with self._starting:
            thread, self._thread = self._thread, None
            if thread is None or self._pid != os.getpid():
                return
            self._inbox.close()
        atexit.unregister(self._close_at_exit)
        thread.join()

    def _close_at_exit(self) -> None:
        thread = self._thread
        if thread is not None and self._pid == os.getpid():
            self._inbox.close()
            thread.join(EXIT_S)

    def _put(self, job: WriteJob) -> None:
        if self._thread is None or self._pid != os.getpid():
            self._start()
        self._inbox.put(job)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None and self._pid == os.getpid():
                return
            # A fork copies the queue but not the thread: jobs of the parent are the parent's.
            self._inbox = _Inbox()
            self._told = _Told()
            self._pid = os.getpid()
            # A daemon, so that a store which nobody closed can't keep the process alive; `atexit` lets it finish.
            self._thread = threading.Thread(target=self._work, args=(self._inbox,), name=self._name, daemon=True)
            self._thread.start()
            atexit.register(self._close_at_exit)

    def _work(self, inbox: _Inbox) -> None:
        next_tick = time.monotonic() + self._tick_s
        is_open = True
        while is_open:
            self._wait(inbox, next_tick)
            batch, is_open = inbox.take()
            if batch:
                began_s = time.monotonic()
                self._handle(batch)
                self._gather_s = min((time.monotonic() - began_s) * GATHER_SHARE, GATHER_AT_MOST_S)
                self._company = len(batch) + len(inbox) if self._gathers else 0
            if self._tick is not None and time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + self._tick_s
        if self._leave is not None:
            self._leave()

    def _wait(self, inbox: _Inbox, next_tick: float) -> None:
        """Wait until the next batch is together, or it is time to tick."""
        if self._company > 1:
            inbox.wait(min(self._company, BATCH_JOBS), self._gather_s)
            self._company = 0
        inbox.wait(1, None if self._tick is None else max(0.0, next_tick - time.monotonic()))
        if len(inbox):
            inbox.wait(BATCH_JOBS, LINGER_S, or_awaited=True)


def _count_waiting(change: int) -> None:
    global _waiting
    with _waiting_lock:
        _waiting += change


def _end(done: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if done.done():
        return  # its waiter was cancelled
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
