"""A run from its first step to its result, the same for every kind of work.

After every outcome, be it a limit, a cancellation or an error before the start, there is a result and a complete log:
the log starts with `run.started` and ends with `run.finished`, and each call in it has an outcome.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from flowkit.codec import JSON
from flowkit.errors import FlowkitError, RunError
from flowkit.events import EventLog, RunStatus
from flowkit.executor import Decision
from flowkit.observers import tell_observers
from flowkit.run_reports import report_end, report_start
from flowkit.runs.limits import METER, LimitReached, Meter
from flowkit.runs.results import Pending, RunResult

ResultT_co = TypeVar("ResultT_co", bound=RunResult[object], covariant=True)
ResultT = TypeVar("ResultT", bound=RunResult[object])


class Stopped(Exception):
    """The work can't continue; `status` is the reason."""

    def __init__(self, status: RunStatus, error: FlowkitError | None = None) -> None:
        self.status: RunStatus = status
        self.error = error


class Work(Protocol[ResultT_co]):
    """One run of any kind; `drive` calls `begin`, `tell_start`, `go` and `finish`, once each."""

    @property
    def log(self) -> EventLog:
        """The log of the run's events."""
        ...

    @property
    def name(self) -> str:
        """Return the name of the agent or recipe."""
        ...

    @property
    def meter(self) -> Meter:
        """The run's spending, and its limits."""
        ...

    async def begin(self) -> None:
        """Open its resources, such as its journal."""
        ...

    def tell_start(self) -> None:
        """Emit `run.started`, even if `begin` has failed."""
        ...

    async def go(self) -> None:
        """Do the work; raise `Stopped`, `LimitReached` or another `FlowkitError` if it isn't done."""
        ...

    async def finish(self, status: RunStatus, error: FlowkitError | None) -> ResultT_co:
        """Close all resources, emit `run.finished`, record it, and return the result."""
        ...

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The calls that wait for a person now."""
        ...

    @property
    def partial(self) -> JSON:
        """The answer so far; None while nothing of it has come, and for work without one."""
        ...

    def decide(self, call: str, decision: Decision) -> None:
        """Answer a call that waits; raises `NoSuchNode` when it doesn't."""
        ...

    def add_decisions(self, decisions: Mapping[str, Decision]) -> None:
        """Keep decisions on calls that wait now or later."""
        ...


async def drive(work: Work[ResultT]) -> ResultT:
    """Run the work to its end and return its result; every outcome is a status.

    Raises only exceptions of the user's own functions, after the log is complete.
    """
    METER.set(work.meter)
    tell_observers(work.log)
    report_start(work.log, work.name)
    status: RunStatus = "failed"
    error: FlowkitError | None = None
    limit = asyncio.timeout(work.meter.limits.seconds)
    try:
        try:
            await work.begin()
        finally:
            work.tell_start()
        async with limit:
            await work.go()
        status = "done"
    except Stopped as stopped:
        status, error = stopped.status, stopped.error
    except LimitReached as reached:
        status, error = "limit", reached
    except asyncio.CancelledError:
        status = "cancelled"
    except FlowkitError as failure:
        error = failure
    except BaseException as failure:  # a run has exactly one end in its log
        if not (isinstance(failure, TimeoutError) and limit.expired()):
            # An error of the user's own functions (instructions, hooks, sources of tools): theirs to see.
            await _finish(work, "failed", RunError(f"{type(failure).__name__}: {failure}"))
            raise
        status, error = "limit", LimitReached(f"the limit of {work.meter.limits.seconds:g} seconds is reached")
    return await _finish(work, status, error)


async def _finish(work: Work[ResultT], status: RunStatus, error: FlowkitError | None) -> ResultT:
    """Finish the run even if it is stopped meanwhile: its last steps are few, and its result always comes."""
    ending = asyncio.ensure_future(work.finish(status, error))
    while not ending.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(ending)
    result = ending.result()
    report_end(work.log, work.name, result.status)
    if result.error is not None:
        result.error.result = result
    return result
