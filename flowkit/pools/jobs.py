"""A call in a pool as it is known here: its future in the loop, and what the pool's threads say of it.

It is queued, then taken, then begun, then over; a job that was stopped before it began never begins. The lock makes
that one order for the loop, which stops it, and for the thread that begins it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

from flowkit.codec import JSON
from flowkit.pools.calls import AnyTool, Late, PoolCall, PoolOutcome

Told = Callable[[], None]


class PoolJob:
    """One call in a pool. Create it in the event loop that waits for `result`."""

    def __init__(
        self,
        tool: AnyTool,
        call: PoolCall,
        *,
        key: str = "",
        has_timeout: bool = False,
        check: Told | None = None,
        over: Told | None = None,
    ) -> None:
        self.tool = tool
        self.call = call
        self.key = key
        self.has_timeout = has_timeout
        self.raw: object = None
        self.is_busy = True
        self.on_free: list[Told] = []
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[JSON] = self._loop.create_future()
        self.begun: asyncio.Future[None] = self._loop.create_future()
        """Done when the function starts, or never will: from there its time-out counts."""
        self.has_begun = False
        self.is_stopped = False
        self._check = check
        self._over = over
        self._no: BaseException | None = None
        self._kill: Told | None = None
        self._lock = Lock()

    def stop(self) -> None:
        """Stop it; a job that hasn't started never starts."""
        self.result.cancel()
        with self._lock:
            self.is_stopped = True
            kill = self._kill
            if kill is not None:
                kill()

    # What the pool's threads say

    def take(self, kill: Told) -> bool:
        """Take it from the queue; False if it was stopped. From now on, `stop` calls `kill`."""
        with self._lock:
            if self.is_stopped:
                return False
            self._kill = kill
            return True

    def let_go(self) -> None:
        """Clear the `kill` callback."""
        with self._lock:
            self._kill = None

    def begin(self, *, tells: bool = True) -> bool:
        """Return True if the function can start; then it must start immediately."""
        with self._lock:
            if self.is_stopped:
                return False
            try:
                if self._check is not None:
                    self._check()
            except Exception as error:  # noqa: BLE001  # its claim is over, and the executor knows why
                self._no = error
                return False
            self.has_begun = True
        if tells:
            self.tell_begun()
        return True

    def tell_begun(self) -> None:
        """Report to the loop that the function has started."""
        self._call_in_loop(self._set_begun)

    def end(self, outcome: "PoolOutcome | BaseException") -> None:
        """Report the outcome to the event loop."""
        result: JSON | BaseException
        try:
            # Read here, and not in the loop: a result may be large.
            result = outcome if isinstance(outcome, BaseException) else outcome.read(self.tool)
        except Late as late:
            result = self._no or late
        except BaseException as error:  # noqa: BLE001  # carried over to the loop, where the executor judges it
            result = error
        self._call_in_loop(self._finish, result)
        if self._over is not None:
            self._over()

    def _call_in_loop(self, call: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *arguments)

    # In the loop

    def _set_begun(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def _finish(self, result: JSON | BaseException) -> None:
        self.is_busy = False
        self._set_begun()
        if not self.result.done():
            if isinstance(result, BaseException):
                self.result.set_exception(result)
            else:
                self.result.set_result(result)
        for call in self.on_free:
            call()
