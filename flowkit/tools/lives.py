"""Resources that tools hold during a run, such as a connection: entered at its start, left at its end.

Each is entered and left in its own task, as task groups and cancel scopes require. So several are opened in parallel,
which takes as long as the slowest, and closed in parallel.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from flowkit.context import Context
from flowkit.errors import ConfigurationError, ToolError

Life = Callable[[Context[Any]], AbstractAsyncContextManager[None]]
"""Holds what tools need, such as a connection, from a run's start to its end."""


def open_lives(lives: Iterable[Life | None], context: Context[Any]) -> AbstractAsyncContextManager[None]:
    """Open each of these once for one run; if one can't be opened, close the others."""
    distinct = [life for life in dict.fromkeys(lives) if life is not None]
    return _open_all(distinct, context) if distinct else _NO_LIVES


_NO_LIVES = nullcontext()


@asynccontextmanager
async def _open_all(distinct: Sequence[Life], context: Context[Any]) -> AsyncGenerator[None]:
    held = [_Held(life, context) for life in distinct]
    try:
        await asyncio.gather(*(one.opened for one in held))
        yield
    except BaseException:  # cancelled, too: what is open has to be closed
        await _close(held)
        raise  # the first error stays, whatever closing says
    failed = await _close(held)
    if failed:
        raise failed[0]


class Lives:
    """The resources of one run's tools, opened at first use, since it isn't known before which of them are needed."""

    def __init__(self, context: Context[Any]) -> None:
        self._context = context
        self._held: dict[Life, _Held] = {}

    async def open(self, life: Life) -> None:
        """Open this one, or wait until it is open; raises `ToolError` when it can't be, and the next call tries again."""
        held = self._held.get(life)
        if held is None or (held.opened.done() and (held.opened.cancelled() or held.opened.exception() is not None)):
            held = self._held[life] = _Held(life, self._context)
        try:
            await asyncio.shield(held.opened)  # others may wait for it when this call is stopped
        except ConfigurationError as error:
            raise ToolError(f"not run: {error}") from error

    async def close(self) -> None:
        """Leave all at once; raises the first error of those that were open."""
        held, self._held = [*self._held.values()], {}
        failed = await _close(held)
        if failed:
            raise failed[0]


class _Held:
    """One life and the task that enters and leaves it."""

    def __init__(self, life: Life, context: Context[Any]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self._leave = asyncio.Event()
        self._is_entered = False
        self.task = loop.create_task(self._hold(life, context), name="life of a run's tools")

    async def _hold(self, life: Life, context: Context[Any]) -> None:
        try:
            async with life(context):
                self._is_entered = True
                if not self.opened.done():
                    self.opened.set_result(None)
                await self._leave.wait()
        except BaseException as error:  # carried to whoever waits for the opening
            if self.opened.done():
                raise
            if isinstance(error, asyncio.CancelledError):
                self.opened.cancel()
            else:
                self.opened.set_exception(error)

    def leave(self) -> None:
        """Let the task leave; cancel one that is still opening."""
        self._leave.set()
        # Not by `opened`: who waited for it and was cancelled has cancelled it, too.
        if not self._is_entered:
            self.task.cancel()


async def _close(held: list[_Held]) -> list[BaseException]:
    """Leave all at once and wait for them, also when cancelled meanwhile; return what they raised."""
    for one in held:
        one.leave()
    cancelled: asyncio.CancelledError | None = None
    while waiting := [one.task for one in held if not one.task.done()]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as stopped:
            cancelled = stopped
    for one in held:
        if one.opened.done() and not one.opened.cancelled():
            one.opened.exception()  # looked at: who waited for the first failure didn't see a second
    raised = [error for one in held if not one.task.cancelled() and (error := one.task.exception()) is not None]
    if cancelled is not None:
        raise cancelled
    return raised
