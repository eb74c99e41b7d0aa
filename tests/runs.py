"""Logs of runs written by hand, for tests of what is made of them."""

from collections.abc import Mapping

from flowkit import events
from flowkit.events import EventLog


class Script:
    """A log written by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log = EventLog("r", lambda: self.now)

    def at(self, t: float, kind: type[events.Event], *values: object) -> None:
        self.now = t
        self.log.emit(kind, *values)

    def call(
        self,
        name: str,
        new: float,
        started: float,
        ended: float,
        source: str = "run",
        *,
        parent: str | None = None,
        waits: Mapping[events.WaitingFor, tuple[str, ...]] = {},
    ) -> None:
        """A call that ended; `waits` is what it waited for from its making."""
        self.at(new, events.CallNew, name, name.rpartition("/")[2], parent)
        self.at(new, events.CallSealed, name, {})
        for waiting_for, on in waits.items():
            self.at(new, events.CallWaiting, name, waiting_for, on)
        if source == "run":
            self.at(started, events.CallStarted, name, 1, started < 2)
        self.at(ended, events.CallFinished, name, None, source, None if source == "run" else 3.0)


def two_turns() -> EventLog:
    """A turn of 2 s with a call of 3 s that starts in it and one of 1 s, then a turn of 1 s."""
    script = Script()
    script.at(0, events.RunStarted, "shop", "gpt")
    script.at(0, events.TurnStarted, 1, "gpt")
    script.at(0.5, events.TextDelta, "hm")
    script.call("turn/1/call/0", 1, 1, 4)
    script.call("turn/1/call/1", 1.5, 1.5, 2.5)
    script.call("turn/1/call/2", 1.5, 1.5, 1.5, "cache")
    script.at(2, events.TurnFinished, 1, "tool_calls")
    script.at(4, events.TurnStarted, 2, "gpt")
    script.at(5, events.TurnFinished, 2, "stop")
    script.at(5, events.RunFinished, "done")
    return script.log
