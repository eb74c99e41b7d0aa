"""What a running tool uses of its run: progress, and the results of calls that it makes."""

import asyncio
import threading
from typing import Any

from pydantic import TypeAdapter

from flowkit import events
from flowkit.codec import JSON, dumps
from flowkit.events import EventLog
from flowkit.executor.entries import AnyTool, Entry
from flowkit.masking import mask_text


class Progress:
    """`ctx.progress` of one call; may be called from the loop's thread or any other."""

    def __init__(self, log: EventLog, entry: Entry) -> None:
        self._log = log
        self._entry = entry
        tool = None if entry.plan is None else entry.plan.tool
        given = None if entry.arguments is None else entry.arguments
        self._secrets = (
            tool.secrets.find(given.given) if tool is not None and given is not None and tool.secrets else ()
        )
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
            self._log.note(events.CallProgress, self._entry.id, done, total, mask_text(note, self._secrets))


def load_result(tool: AnyTool, value: JSON) -> Any:
    """A result that was kept as JSON, as the tool's own type where its annotation is known."""
    if tool.result_schema is None:
        return value
    return TypeAdapter[Any](tool.result_annotation).validate_json(dumps(value))
