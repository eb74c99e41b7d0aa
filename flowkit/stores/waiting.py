"""Threads for what a store makes its caller wait for, apart from the loop's own.

An app's blocking calls may take all threads of the loop, six of them on two processors. A process must even then see
that a run of its is to be cancelled, and show its page.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 8
"""How many of a loop's calls are in threads; the others wait."""
_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def wait_in_thread(function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
    """Call a store's blocking function in a thread of its own; cancelling the wait doesn't stop it."""
    loop = asyncio.get_running_loop()
    room = _rooms.setdefault(loop, asyncio.Semaphore(AT_ONCE))
    done: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            finish = partial(done.set_result, context.run(function, *args, **options))
        except BaseException as error:  # noqa: BLE001  # whoever waits gets it
            finish = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(end, finish)

    def end(finish: Callable[[], None]) -> None:
        room.release()
        if not done.done():  # else its waiter was cancelled
            finish()

    await room.acquire()
    try:
        threading.Thread(target=work, name="flowkit-store", daemon=True).start()
    except RuntimeError:  # the process is ending, or has no more threads
        room.release()
        raise
    return await done
