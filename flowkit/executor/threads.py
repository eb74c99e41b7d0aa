"""Daemon threads for blocking tools.

The standard library's pool joins its threads at interpreter exit, so one stuck tool would hang the program; these
threads don't. A thread can't be stopped: the waiter may give up, and the thread continues until its function returns.
Idle threads are reused; `close` ends them.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar, cast

T = TypeVar("T")
Work = Callable[[], None]

_busy = 0
_busy_lock = threading.Lock()


def count_busy() -> int:
    """Count the functions of this process that run now in these threads, or in other processes."""
    return _busy


class ThreadJob(Generic[T]):
    """A function in a thread: `future` completes with it, `is_busy` is True while the thread runs it."""

    __slots__ = ("future", "is_busy", "on_free")

    def __init__(self, future: "asyncio.Future[T]") -> None:
        self.future = future
        self.is_busy = True
        self.on_free: list[Callable[[], None]] = []
        """Called on the loop when the thread finishes an abandoned function."""

    def finish(self, result: T, error: BaseException | None) -> None:
        self.is_busy = False
        if not self.future.done():
            if error is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)
        for call in self.on_free:
            call()


class Threads:
    """Threads of one owner; the caller of `run` bounds their number (each call of a tool holds a slot)."""

    def __init__(self) -> None:
        self._free: list[SimpleQueue[Work | None]] = []
        self._threads: dict[SimpleQueue[Work | None], threading.Thread] = {}
        self._is_closed = False

    def run(self, function: Callable[[], T]) -> ThreadJob[T]:
        """Start `function` in a thread, with a copy of the caller's context variables.

        Cancelling the job's future doesn't stop the function; it only drops the result.
        """
        loop = asyncio.get_running_loop()
        job = ThreadJob[T](loop.create_future())
        context = contextvars.copy_context()
        inbox = self._free.pop() if self._free else self._start()

        def give_back(result: object, error: BaseException | None) -> None:
            if self._is_closed:
                self._threads.pop(inbox).join()  # `close` has stopped it
            else:
                self._free.append(inbox)
            job.finish(cast(T, result), error)

        def work() -> None:
            result: object = None
            caught: BaseException | None = None
            try:
                result = context.run(function)
            except BaseException as error:  # noqa: BLE001  # carried over to the loop, where the executor judges it
                caught = _for_future(error)
            try:
                loop.call_soon_threadsafe(give_back, result, caught)
            except RuntimeError:  # the loop is closed, so no waiter is left
                inbox.put(None)
            # After the loop was woken: a virtual loop takes "nothing is busy" for "nothing more will come".
            count(-1)

        count(+1)
        inbox.put(work)
        return job

    def close(self) -> None:
        """Stop the free threads, and wait for them; a busy one stops automatically when its function returns."""
        self._is_closed = True
        # Busy threads as well: the loop may be closed before it handles a thread's last result.
        for inbox in self._threads:
            inbox.put(None)
        for inbox in self._free:
            self._threads.pop(inbox).join()  # it is waiting for its inbox, so it exits immediately
        self._free.clear()

    def _start(self) -> "SimpleQueue[Work | None]":
        inbox: SimpleQueue[Work | None] = SimpleQueue()
        thread = threading.Thread(target=_serve, args=(inbox,), name="flowkit-tool", daemon=True)
        self._threads[inbox] = thread
        thread.start()
        return inbox


async def run_apart(function: Callable[[], T]) -> T:
    """Call a function that blocks, such as one that imports much, in a thread of its own."""
    threads = Threads()
    try:
        return await threads.run(function).future
    finally:
        threads.close()


def _serve(inbox: "SimpleQueue[Work | None]") -> None:
    while (job := inbox.get()) is not None:
        job()


def _for_future(error: BaseException) -> BaseException:
    # A future refuses StopIteration, since raising it inside a coroutine would look like a return.
    return RuntimeError(f"the tool raised {error!r}") if isinstance(error, StopIteration) else error


def count(change: int) -> None:
    """Count a start or an end of work that will call into a loop from outside."""
    global _busy
    with _busy_lock:
        _busy += change
