"""What a running tool is given to know of its run, and to tell it."""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from flowkit import events
from flowkit.context import Context
from flowkit.events import EventLog
from flowkit.executor.entries import Entry


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Whose run it is."""

    run_id: str = ""
    user: str | None = None
    session: str | None = None
    data: object = None


class Progress:
    """`ctx.progress` of one call; may be called from the loop's thread or any other."""

    def __init__(self, log: EventLog, entry: Entry) -> None:
        self._log = log
        self._entry = entry
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __call__(self, done: float, total: float | None, note: str) -> None:
        if threading.get_ident() == self._thread:
            self._tell(done, total, note)
        else:
            self._loop.call_soon_threadsafe(self._tell, done, total, note)

    def _tell(self, done: float, total: float | None, note: str) -> None:
        # A thread that couldn't be stopped may still report when its call has long been closed.
        if not self._entry.has_ended:
            self._log.note(events.CallProgress, self._entry.id, done, total, note)


def make_context(
    entry: Entry,
    facts: RunFacts,
    log: EventLog,
    call: Callable[..., Awaitable[Any]],
    open_group: Callable[..., Awaitable[Any]],
) -> Context[Any]:
    """Make the context of one attempt; `call` and `open_group` are what the tool may ask of its run."""
    context = Context[Any](
        facts.data,
        user=facts.user,
        session=facts.session,
        run_id=facts.run_id,
        call_id=entry.id,
        attempt=max(1, entry.attempt),
        idempotency_key=hashlib.sha256(f"{facts.run_id}\0{entry.id}".encode()).hexdigest()[:32],
        log=log,
        _progress=Progress(log, entry),
        _call=call,
        _open=open_group,
    )
    entry.more.context = context
    return context
