"""A handle of a run: the run continues with or without followers, can be stopped, and ends once."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, RunError
from flowkit.events import Event, OutputPartial, RunStatus
from flowkit.executor import Decision
from flowkit.identity import RunIdentity
from flowkit.notebook import Bundle, show_text
from flowkit.runs.driving import Work, drive
from flowkit.runs.results import Pending, RunResult

logger = logging.getLogger("flowkit.runs")

ResultT = TypeVar("ResultT", bound=RunResult[Any])
T = TypeVar("T")


class Run(Generic[ResultT]):
    """A run of an agent or a recipe; it owns its task. Iterate over it for its events. `id` is its `run_id`."""

    def __init__(self, work: Work[ResultT], on_end: Callable[["Run[ResultT]"], object] | None = None) -> None:
        self.log = work.log
        self.id = work.log.run_id
        self._work = work
        self._is_stopping = False
        self._is_asked = False
        """Whether a caller waits for the result, and so learns of a failure."""
        self._task = asyncio.create_task(drive(work), name=f"run {self.id}")
        self._on_end = on_end
        self._task.add_done_callback(self._end)

    def __del__(self) -> None:
        # As asyncio does with an exception that nobody asked for: in a service whose viewers only see the events, a
        # failure would else be known to nobody who can mend it.
        has_begun = hasattr(self, "_task")  # it needs a running loop
        if has_begun and not self._is_asked and self.status == "failed":
            error = None if self._task.cancelled() else self._task.exception()
            cause = error if error is not None else self._task.result().error
            logger.error("run %s failed: %s", self.id, cause, extra={"run_id": self.id})

    def _end(self, task: asyncio.Task[ResultT]) -> None:
        self.log.close()
        if self._on_end is not None:
            self._on_end(self)

    def __repr__(self) -> str:
        return f"<run {self.id}: {self.status}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        """Show the run's timeline, as far as it is, in a notebook."""
        from flowkit.graph.pictures.gantt import draw_timeline

        return show_text(f"run {self.id}: {self.status}", draw_timeline(self.log.events).plain.rstrip())

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.log.watch()

    def watch(self, after: int = -1) -> AsyncIterator[Event]:
        """Yield the events with a `seq` greater than `after`, for a watcher that reconnects."""
        return self.log.watch(after)

    async def wait(self) -> ResultT:
        """Wait for the result, whatever its status; cancelling the waiter doesn't affect the run."""
        self._is_asked = True
        if self._task.done():
            return self._task.result()  # also in another event loop than its own
        return await asyncio.shield(self._task)

    async def display(self) -> ResultT:
        """Show the run under a notebook's cell in one picture, replaced while it is in progress; return its result.

        Interrupting the cell cancels the run. Outside a notebook it only waits.
        """
        from flowkit.runs.live_view import open_display, show_live

        return await show_live(self, open_display())

    def cancel(self) -> None:
        """Stop the run: cancel running tools and close a stream; `wait` then returns the result so far."""
        if not self._is_stopping and not self._task.done():  # when it is done, its loop may be closed
            self._is_stopping = True
            # Behind the task's first step: a task that is cancelled before it never begins, and has no result.
            self._task.get_loop().call_soon(self._task.cancel)

    def decide(self, call: str, decision: Decision) -> None:
        """Decide on a call that waits for approval while the run is in progress; `call` is its id in `pending` or events.

        Raises `NoSuchNode` when it doesn't wait, `ToolArgumentsError` for other arguments that its tool doesn't take.
        """
        self._work.decide(call, decision)

    def add_decisions(self, decisions: Mapping[str, Decision]) -> None:
        """Keep decisions for calls that wait now or later, by their ids."""
        self._work.add_decisions(decisions)

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The calls that wait for approval now."""
        return self._work.pending

    @property
    def partial(self) -> JSON:
        """The answer so far, as JSON; None while nothing of it has come.

        Parts that haven't arrived are missing. Parts that have arrived stay or grow: a text gets longer, a number
        appears when it is complete. For an output tool it is the arguments of its call, until the answer is there. A
        recipe has none.
        """
        return self._work.partial

    async def partials(self) -> AsyncIterator[JSON]:
        """Yield the answer so far whenever it grows; a slow reader gets the latest."""
        async for event in self.log.watch():
            if isinstance(event, OutputPartial):
                yield event.output

    @property
    def status(self) -> RunStatus | Literal["running"]:
        """`running`, or the final status."""
        if not self._task.done():
            return "running"
        has_result = not self._task.cancelled() and self._task.exception() is None
        return self._task.result().status if has_result else "failed"

    @property
    def has_changed_nothing(self) -> bool:
        """Return whether it has ended and still waits, since its decisions could not be applied."""
        if not self._task.done() or self._task.cancelled() or self._task.exception() is not None:
            return False
        result = self._task.result()
        return result.status == "waiting" and result.error is not None

    @property
    def is_done(self) -> bool:
        """Return whether the result is there."""
        return self._task.done()


class RunsAtWork(Generic[ResultT]):
    """The runs of one agent or recipe in progress in this process: a second start with the same `run_id` joins the first."""

    def __init__(self) -> None:
        self._runs: dict[RunIdentity, tuple[Run[ResultT], object]] = {}

    def find(self, identity: RunIdentity, inputs: object = None) -> Run[ResultT] | None:
        """Find the run of this identity if it is in progress; raises `RunError` for one with other inputs."""
        run, began_with = self._runs.get(identity, (None, None))
        if run is None or run.is_done:  # its end may not have been reported yet
            return None
        if inputs != began_with:
            raise RunError(f"run {identity.run_id!r} began with other inputs")
        return run

    def start(self, work: Work[ResultT], identity: RunIdentity, inputs: object = None) -> Run[ResultT]:
        """Start a run; until it has finished, others find it by its identity if the user is known to be the same."""
        if not identity.can_be_joined:
            return Run(work)
        run = Run(work, partial(self._forget, identity))
        self._runs[identity] = run, inputs
        return run

    def _forget(self, identity: RunIdentity, run: Run[ResultT]) -> None:
        if self._runs.get(identity, (None, None))[0] is run:
            del self._runs[identity]


def make_run_id() -> str:
    """Make an id that no other run has."""
    return f"run-{secrets.token_hex(8)}"


async def wait_with(run: Run[ResultT]) -> ResultT:
    """Wait for the run's result; cancel the run with its caller.

    Raises the run's error when its status is `failed`; `error.result` then holds the partial result.
    """
    try:
        result = await run.wait()
    except asyncio.CancelledError:
        run.cancel()
        await run.wait()
        raise
    if result.status == "failed" and result.error is not None:
        raise result.error
    return result


@asynccontextmanager
async def hold(start: Callable[[], Run[ResultT]]) -> AsyncGenerator[Run[ResultT]]:
    """Hold the run that `start` returns; cancel it and wait for it on leaving."""
    run = start()
    try:
        yield run
    finally:
        run.cancel()
        await run.wait()


def block_on(make: Callable[[], Coroutine[Any, Any, T]], instead: str) -> T:
    """Run a coroutine in a new event loop; inside a running loop, raise an error that says what to write instead."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass  # not `return asyncio.run(…)` here: each error of the run would be shown as one while handling this one
    else:
        raise ConfigurationError(f"run_sync would block the event loop that runs here; write `await {instead}.run(…)`")
    return asyncio.run(make())
