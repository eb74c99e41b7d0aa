"""Seals: a write waits for the end of the turn that its outermost call belongs to.

A read may run before its model has completed the turn. The read may make a write, by `ctx.call` or in a nested run,
while the turn may still break off or the call's arguments may still change. So a write waits, wherever it is made,
until every enclosing call is sealed and its turn is complete: a server may report an error behind the calls, a filter may
refuse them, and the journal must have the turn first. A call that is never sealed is stopped, and the wait ends with it.
"""

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from functools import partial

from flowkit.errors import ToolError
from flowkit.executor.entries import Entry


class Seal:
    """The seal of one early call, which writes wait for; `around` is the seal of the enclosing run."""

    __slots__ = ("_around", "_entry")

    def __init__(self, entry: Entry, around: "Seal | None") -> None:
        self._entry = entry
        self._around = around

    @property
    def is_open(self) -> bool:
        """Return whether one of the enclosing calls may not write yet."""
        return not self._entry.may_write or (self._around is not None and self._around.is_open)

    @property
    def _is_broken(self) -> bool:
        """Return whether it will never be sealed, or its turn failed."""
        entry = self._entry
        is_disowned = entry.extra is not None and entry.extra.is_disowned
        return is_disowned or (entry.has_ended and entry.state != "finished")

    async def wait(self) -> None:
        """Wait until all are sealed and their turns are complete; raises `ToolError` if that can't happen any more."""
        if self._around is not None:
            await self._around.wait()
        while not self._entry.may_write:
            if self._is_broken:
                raise ToolError("not run: the call around it was never complete")
            sealed = asyncio.Event()
            self._entry.more.tell_seal(partial(_wake, asyncio.get_running_loop(), sealed))
            # The other thread may have sealed it since the check above, and woken the waiters it knew.
            if not (self._entry.may_write or self._is_broken):
                await sealed.wait()


def _wake(loop: asyncio.AbstractEventLoop, sealed: asyncio.Event) -> None:
    """Set the event in its own loop: a blocking tool's thread, which runs an agent of its own, has another one."""
    with suppress(RuntimeError):  # that loop is closed, so no waiter is left
        loop.call_soon_threadsafe(sealed.set)


INSIDE: ContextVar[Seal | None] = ContextVar("flowkit_inside_an_early_call", default=None)
"""The early call that this task is a part of, if it isn't sealed yet."""


def find_unsealed(entry: Entry) -> Entry | None:
    """Return the outermost call around this one, or itself, that may not write yet."""
    found: Entry | None = None
    above: Entry | None = entry
    while above is not None:
        if not above.may_write:
            found = above
        above = above.parent
    return found
