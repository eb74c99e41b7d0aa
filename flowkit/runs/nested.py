"""A run inside another one's call: where it belongs, and its events under the call's name."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from flowkit import events
from flowkit.codec import JSON
from flowkit.events import Event, EventLog
from flowkit.executor.current import JOURNAL, find_call
from flowkit.identity import RunIdentity
from flowkit.journal import RunJournal
from flowkit.runs.options import RunOptions
from flowkit.runs.results import RunResult
from flowkit.runs.run import Run, make_run_id

ResultT = TypeVar("ResultT", bound=RunResult[Any])


@dataclass(frozen=True, slots=True)
class NewRun:
    """The identity of a run that starts, and the journal of the run around it where that records it, too."""

    identity: RunIdentity
    around: RunJournal | None = None


def place_run(options: RunOptions, name: str, inputs: Callable[[], JSON], *, has_journal: bool) -> NewRun:
    """Find the place of a run that starts without a `run_id`: a new one, unless a call's function starts it.

    Then its id is derived from the call and its inputs, so that it is the same run when the call runs again. The run
    around it records it, unless it has a journal or a user of its own; without a user, it belongs to that run's.
    """
    user, session = options.get("user"), options.get("session")
    call = find_call()
    if call is None:
        return NewRun(RunIdentity(user, session, make_run_id()))
    run_id, outer, around = call.name_run(name, inputs()), call.identity, JOURNAL.get()
    if has_journal:
        return NewRun(RunIdentity(user, session, run_id))
    if user is None and session is None:
        user, session = outer.user, outer.session
    is_recorded = around is not None and around.run_id == outer.run_id and user == outer.user
    return NewRun(RunIdentity(user, session, run_id), around if is_recorded else None)


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
