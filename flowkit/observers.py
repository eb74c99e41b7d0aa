"""Who looks at every run of this process, nested ones too: each is shown a run's log before its first event."""

from collections.abc import Callable
from contextvars import ContextVar

from flowkit.events import EventLog

Observer = Callable[[EventLog, EventLog | None], None]
"""Called with the log of a starting run, and with the log of the run that called it, if any.

The id of an inner run is the outer run's id, a slash, and the call's id.
"""

RUN_AROUND: ContextVar[EventLog | None] = ContextVar("flowkit_run_around", default=None)
"""The log of the run with the call that this task belongs to."""

_observers: tuple[Observer, ...] = ()


def observe(callback: Observer) -> Callable[[], None]:
    """Call `callback` for each run that starts from now on; return a function that stops it.

    It is called in the run's own task, and may listen to the log. It must be quick and must not raise.
    """
    global _observers
    # A new function each time, so that an observer added twice is removed once.
    held: Observer = lambda log, outer: callback(log, outer)  # noqa: E731
    _observers = (*_observers, held)

    def stop() -> None:
        global _observers
        _observers = tuple(other for other in _observers if other is not held)

    return stop


def tell_observers(log: EventLog) -> None:
    """Pass the log of a starting run to all observers."""
    for observer in _observers:
        observer(log, RUN_AROUND.get())
