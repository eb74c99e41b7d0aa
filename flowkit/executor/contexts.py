"""The context of a running tool: the data of its run, and its requests to it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from flowkit import events
from flowkit.context import Context
from flowkit.events import EventLog
from flowkit.executor.entries import Entry
from flowkit.identity import RunIdentity
from flowkit.known_secrets import KnownSecrets
from flowkit.masking import mask_text


class Progress:
    """`ctx.progress` of one call; may be called from the loop's thread or any other."""

    def __init__(self, log: EventLog, entry: Entry, known: KnownSecrets) -> None:
        self._log = log
        self._entry = entry
        self._known = known
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
            said = self._known.mask_text(mask_text(note, self._entry.find_secrets()))
            self._log.note(events.CallProgress, self._entry.id, done, total, said)


def make_context(
    entry: Entry,
    identity: RunIdentity,
    data: object,
    log: EventLog,
    known: KnownSecrets,
    call: Callable[..., Awaitable[Any]],
    open_group: Callable[..., Awaitable[Any]],
) -> Context[Any]:
    """Make the context of one attempt; the tool may use `call` and `open_group`."""
    lasting_id = entry.lasting_id
    context: Context[Any] = Context(
        data,
        user=identity.user,
        session=identity.session,
        run_id=identity.run_id,
        call_id=entry.id,
        attempt=max(1, entry.attempt),
        attempts_before=0 if entry.extra is None else entry.extra.attempts_before,
        idempotency_key=identity.idempotency_key(lasting_id),
        lasting_id=lasting_id,
        log=log,
        _progress=Progress(log, entry, known),
        _call=call,
        _open=open_group,
    )
    entry.more.context = context
    return context
