"""The interface between the executor and the workers that run a tool's function. Provisional: names may still change.

The executor decides what runs, and when; it claims, retries, records and reports. A worker only runs a function on
arguments and returns its result as JSON. A call of an async tool has no worker and needs no extra object: it is
awaited in the loop. A `Job` is created for each call that leaves the loop.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import ToolResultError
from flowkit.executor.plan import AnyTool
from flowkit.executor.threads import ThreadJob, Threads
from flowkit.journal import RunJournal
from flowkit.pools.calls import Unshown
from flowkit.tools.schema.arguments import Arguments


class TooLate(Exception):
    """A job came to its function when its claim was over: another driver may have the run by now."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claim of a call that changes something, in its run's journal."""

    journal: RunJournal
    call_id: str

    def check(self) -> None:
        """Raise `TooLate` unless the call may start at this moment."""
        if not self.journal.may_start(self.call_id):
            raise TooLate("this process was stopped before the call began")


@dataclass(frozen=True, slots=True)
class Job:
    """One call that leaves the loop.

    `arguments.shown` is their JSON with secrets masked, `arguments.given` is unmasked. `context` is set for tools that
    take one. Its `user`, `session`, `run_id`, `call_id`, `attempt` and `idempotency_key` are plain values; everything
    else in it works in this process only. `claim` is checked immediately before the function starts.
    """

    tool: AnyTool
    arguments: Arguments
    context: Context[Any] | None = None
    claim: "Claimed | None" = None


class Running(Protocol):
    """A job at work."""

    @property
    def result(self) -> Awaitable[JSON]:
        """Return its result, dumped by the worker; raises the function's exception, and `Unshown`."""
        ...

    @property
    def raw(self) -> object:
        """The function's own result, for a caller in this process; None where only JSON came back."""
        ...

    @property
    def is_busy(self) -> bool:
        """Return whether it may still be working although nobody awaits its result; its slot and resources stay taken."""
        ...

    @property
    def on_free(self) -> list[Callable[[], None]]:
        """Called in the loop when it isn't busy any more, if it was when it was stopped."""
        ...

    def stop(self) -> None:
        """Request that it stops; its result is no longer awaited."""
        ...


class Worker(Protocol):
    """Somewhere to run jobs."""

    def run(self, job: Job) -> Running:
        """Start it without waiting."""
        ...


class InLoop:
    """Runs the functions of async tools in the executor's own loop, each in a task of its own."""

    def run(self, job: Job) -> Running:
        return _InTask(job)


class _InTask:
    is_busy = False  # a stopped task has ended once its result is set

    def __init__(self, job: Job) -> None:
        self.raw: object = None
        self.on_free: list[Callable[[], None]] = []
        self.result = asyncio.get_running_loop().create_task(self._run(job), context=copy_context())

    async def _run(self, job: Job) -> JSON:
        if job.claim is not None:
            job.claim.check()
        self.raw = await job.tool.invoke(job.arguments, job.context)
        return _dump(job.tool, self.raw)

    def stop(self) -> None:
        self.result.cancel()


class InThread:
    """Runs the functions of blocking tools in threads. A thread can't be stopped: its job is busy until it returns."""

    def __init__(self) -> None:
        self._threads = Threads()

    def run(self, job: Job) -> Running:
        return _Threaded(job, self._threads)

    def close(self) -> None:
        """Stop the free threads."""
        self._threads.close()


class _Threaded:
    def __init__(self, job: Job, threads: Threads) -> None:
        self.raw: object = None
        self._context = job.context
        self._thread: ThreadJob[JSON] = threads.run(partial(self._run, job))

    def _run(self, job: Job) -> JSON:
        if job.claim is not None:
            job.claim.check()
        self.raw = job.tool.invoke(job.arguments, job.context)
        return _dump(job.tool, self.raw)

    @property
    def result(self) -> Awaitable[JSON]:
        return self._thread.future

    @property
    def is_busy(self) -> bool:
        return self._thread.is_busy

    @property
    def on_free(self) -> list[Callable[[], None]]:
        return self._thread.on_free

    def stop(self) -> None:
        if self._context is not None:
            self._context.cancelled.set()


def _dump(tool: AnyTool, result: object) -> JSON:
    try:
        return tool.dump(result)
    except ToolResultError as error:
        raise Unshown(error) from error
