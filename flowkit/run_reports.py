"""Log runs in the process's log: one line for the start, one for the end, and at DEBUG each state in between.

Arguments, results and the texts of errors, which may quote them, are never logged.
"""

import logging
from collections.abc import Callable

from flowkit import events
from flowkit.events import Event, EventLog, RunStatus

runs = logging.getLogger("flowkit.runs")
calls = logging.getLogger("flowkit.executor")
turns = logging.getLogger("flowkit.agent")

ENDS: dict[type[Event], str] = {
    events.CallFailed: "failed",
    events.CallSkipped: "skipped",
    events.CallDenied: "denied",
    events.CallCancelled: "cancelled",
    events.CallVoid: "void",
    events.CallInDoubt: "in doubt",
}


def report_start(log: EventLog, name: str) -> None:
    """Log the start of a run; at DEBUG, log its states from now on."""
    runs.info("run %s of %s begins", log.run_id, name, extra={"run_id": log.run_id})
    if calls.isEnabledFor(logging.DEBUG) or turns.isEnabledFor(logging.DEBUG):
        log.take_notes(_States(log.run_id).list_takers())


def report_end(log: EventLog, name: str, status: RunStatus) -> None:
    """Log the outcome of a run, and its duration."""
    runs.info("run %s of %s ends: %s after %.2f s", log.run_id, name, status, log.now(), extra={"run_id": log.run_id})


class _States:
    """Logs the calls and turns of a run; each method takes the event of its name."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._names: dict[str, str] = {}

    def list_takers(self) -> dict[type[Event], Callable[..., None]]:
        """List who takes which event."""
        return {
            events.CallNew: self._take_new,
            events.CallWaiting: self._take_waiting,
            events.CallStarted: self._take_started,
            events.CallRetried: self._take_retried,
            events.CallFinished: self._take_finished,
            events.TurnStarted: self._take_turn_started,
            events.TurnFinished: self._take_turn_finished,
            **{kind: self._make_end(said) for kind, said in ENDS.items()},
        }

    def _take_new(self, t: float, call: str, name: str, parent: str | None = None) -> None:
        self._names[call] = name

    def _take_waiting(self, t: float, call: str, waiting_for: str, on: tuple[str, ...] = ()) -> None:
        self._say(call, "waits for %s", waiting_for)

    def _take_started(self, t: float, call: str, attempt: int = 1, *_: object) -> None:
        self._say(call, "starts, attempt %d", attempt)

    def _take_retried(self, t: float, call: str, error: str, delay_s: float, error_type: str | None = None) -> None:
        self._say(call, "failed by %s and is tried again in %g s", error_type or "an error", delay_s)

    def _take_finished(self, t: float, call: str, value: object = None, source: str = "run", *_: object) -> None:
        self._say(call, "finished, from %s", source)
        self._names.pop(call, None)

    def _make_end(self, said: str) -> Callable[..., None]:
        def take(t: float, call: str, *_: object) -> None:
            self._say(call, "%s", said)
            self._names.pop(call, None)

        return take

    def _take_turn_started(self, t: float, turn: int, model: str, attempt: int = 1) -> None:
        extra = {"run_id": self._run_id}
        turns.debug("turn %d of run %s asks %s, attempt %d", turn, self._run_id, model, attempt, extra=extra)

    def _take_turn_finished(self, t: float, turn: int, reason: str, *_: object) -> None:
        turns.debug("turn %d of run %s ends: %s", turn, self._run_id, reason, extra={"run_id": self._run_id})

    def _say(self, call: str, said: str, *values: object) -> None:
        name = self._names.get(call, call)
        extra = {"run_id": self._run_id, "call_id": call, "tool": name}
        calls.debug(f"call %s of %s {said}", call, name, *values, extra=extra)
