"""An event loop in virtual time: when nothing can run, the clock jumps to the next timer.

A test that waits for a second takes no time and has the same result on every machine. Work in threads is real, so
while one of flowkit's own threads is busy, or a socket is open, time passes as it really does.
"""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from flowkit.executor.threads import count_busy
from flowkit.stores.thread import count_waiting

T = TypeVar("T")

STALL_S = 10.0
"""How long a loop with no timer waits for a thread before it says that nothing will ever happen."""

LOOK_S = 0.02
"""How often a waiting loop looks whether threads are still busy."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose `time` starts at 0 and moves only when there is nothing to do."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        self._selector_in_use = _JumpingSelector(self)
        super().__init__(cast(selectors.BaseSelector, self._selector_in_use))
        # asyncio's own wake-up socket is registered by now: only sockets beyond it are the test's.
        self._selector_in_use.own_files = len(self._selector_in_use.get_map())

    def time(self) -> float:
        return self._virtual_s

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._virtual_s += seconds


class _JumpingSelector(selectors.DefaultSelector):
    """Where asyncio would sleep until its next timer, the clock is moved instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self.own_files = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            ready = self._wait(STALL_S)
            if not ready and not self._others_work():
                # what ended between the two looks has woken the loop by now
                ready = super().select(0)
            if not ready and not self._others_work():
                raise RuntimeError("nothing is left that could wake this loop: a task waits for ever")
            return ready
        if self._others_work():
            began_s = time.monotonic()
            ready = self._wait(timeout)
            self._loop.advance(min(timeout, time.monotonic() - began_s) if ready else timeout)
            return ready
        self._loop.advance(timeout)
        return []

    def _wait(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait in real time, at most while others work: a thread may wake the loop just before it counts as idle."""
        until_s = time.monotonic() + timeout
        while self._others_work() and (left_s := until_s - time.monotonic()) > 0:
            if ready := super().select(min(left_s, LOOK_S)):
                return ready
        return super().select(0)

    def _others_work(self) -> bool:
        return count_busy() > 0 or count_waiting() > 0 or len(self.get_map()) > self.own_files


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time, as `asyncio.run` would.

    >>> async def nap() -> float:
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time()
    >>> run_virtual(nap())
    3600.0
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
