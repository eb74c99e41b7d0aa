"""A run inside another one's call: its events are told under the call's name, and it ends with the call."""

from contextvars import ContextVar
from dataclasses import fields
from typing import Any, TypeVar

from flowkit import events
from flowkit.events import Event, EventLog
from flowkit.journal import RunJournal
from flowkit.runs.results import RunResult
from flowkit.runs.run import Run

ResultT = TypeVar("ResultT", bound=RunResult[Any])

AROUND: ContextVar[RunJournal | None] = ContextVar("flowkit_around", default=None)
"""The journal of the run in whose call this task runs: a run that the call starts is recorded there, too."""


async def follow(run: Run[ResultT], call_id: str, log: EventLog | None) -> ResultT:
    """Return the result of the run, whose events go to `log`, if any.

    If cancelled, cancel the nested run and report how its calls ended.
    """
    seen = -1
    try:
        async for event in run:
            seen = event.seq
            if log is not None:
                _show(event, call_id, log)
        return await run.wait()
    except BaseException:  # whatever stops the caller, a cancellation above all, stops the run with it
        run.cancel()
        await run.wait()
        if log is not None:
            for event in run.log.events:
                if event.seq > seen:
                    _show(event, call_id, log)
        raise


def _show(event: Event, step: str, log: EventLog) -> None:
    """Report in `log` what the step's own run reported; its calls are named after the step."""
    match event:
        case events.TextDelta():
            log.emit(events.TextDelta, event.text, event.turn, step, event.at)
        case events.ThinkingDelta():
            log.emit(events.ThinkingDelta, event.text, event.turn, step, event.at)
        case events.UsageReported():
            log.emit(events.UsageReported, event.turn, event.usage, event.cost_usd, step)
        case events.CallNew():
            parent = step if event.parent is None else f"{step}/{event.parent}"
            log.emit(events.CallNew, f"{step}/{event.call}", event.name, parent)
        case events.RunStarted() | events.RunFinished() | events.OutputPartial():
            pass
        case events.TurnStarted():
            log.emit(events.NestedTurn, step, event.turn, "started", event.attempt, event.model)
        case events.TurnRetried():
            log.emit(events.NestedTurn, step, event.turn, "retried", event.attempt, error=event.error)
        case events.TurnFinished():
            log.emit(
                events.NestedTurn,
                step,
                event.turn,
                "finished",
                model=event.model,
                reason=event.reason,
                error=event.error,
            )
        case _:
            _copy_call_event(event, step, log)


def _copy_call_event(event: Event, step: str, log: EventLog) -> None:
    # Field by field: `to_json` cuts long values.
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    call = values.pop("call", None)
    if isinstance(call, str):
        for name in ("run", "seq", "t"):
            del values[name]
        log.emit(type(event), call=f"{step}/{call}", **values)
