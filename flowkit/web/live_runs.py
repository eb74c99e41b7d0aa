"""The runs that this process drives for its users, each in its own task, independent of viewers.

A run holds its app's data from before its first event until after its last. Starting a live run again joins it.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flowkit.errors import FlowkitError, RunBusy
from flowkit.events import EventLog
from flowkit.executor import Decision
from flowkit.identity import RunIdentity
from flowkit.journal import Journal, RunDetails
from flowkit.runs.queue import RunQueue
from flowkit.runs.requests import Requests, end_if_asked, identify
from flowkit.runs.run import Run
from flowkit.stores.waiting import wait_in_thread
from flowkit.web.endpoints import RequestRefused
from flowkit.web.served import Served, StartRequest, go_on_with

logger = logging.getLogger("flowkit.web")
Key = tuple[str | None, str]
AnyRun = Run[Any]


@dataclass(eq=False, slots=True)
class Live:
    """A run from the moment of its request; `started` resolves to its handle, or to the error that prevented it."""

    started: asyncio.Future[AnyRun]
    task: asyncio.Task[None] | None = None
    viewers: int = 0
    decided: dict[str, Decision] = field(default_factory=dict[str, Decision])

    @property
    def handle(self) -> AnyRun | None:
        """The run, once it has started."""
        is_there = self.started.done() and not self.started.cancelled() and self.started.exception() is None
        return self.started.result() if is_there else None


class LiveRuns:
    """Start runs, find them, and release them when the server stops.

    With a `queue` it drives only forks: other runs are recorded in the journal, and workers drive them.
    """

    def __init__(self, served: Served, journal: Journal, most: int, queue: RunQueue | None = None) -> None:
        self._served = served
        self._journal = journal
        self._most = most
        self.queue = queue
        self._requests = Requests(journal)
        self._runs: dict[Key, Live] = {}
        self.is_leaving = False

    def find(self, user: str | None, run_id: str) -> Live | None:
        """Find this user's run, if it is live here."""
        return self._runs.get((user, run_id))

    def find_log(self, user: str | None, run_id: str) -> EventLog | None:
        """Find its event log, once it has started."""
        live = self.find(user, run_id)
        handle = None if live is None else live.handle
        return None if handle is None else handle.log

    async def hand_over(self, wanted: StartRequest, queue: RunQueue) -> None:
        """Record the run for workers; raises the error if it can't be started."""
        self._check_leaving()
        if await self._served.record(wanted, self._journal):
            await queue.put(RunIdentity(wanted.user, wanted.session, wanted.run_id), wanted.target)

    async def go_on(self, details: RunDetails) -> None:
        """Resume a run of the journal, here or in a worker; raises the error if it can't be resumed."""
        if self.queue is None:
            await self.start(go_on_with(details))
            return
        summary = details.summary
        await wait_in_thread(self._journal.requeue, summary.run_id, user=summary.user, session=summary.session)
        await self.queue.put(identify(summary), summary.name)

    async def start(self, wanted: StartRequest) -> Live:
        """Start or join the run and wait until it has started; raises the error that prevented it."""
        live = self._runs.get((wanted.user, wanted.run_id))
        if live is None:
            self._check_room(wanted.user)
            live = self._begin(wanted)
        await asyncio.shield(live.started)
        return live

    def _begin(self, wanted: StartRequest) -> Live:
        key = (wanted.user, wanted.run_id)
        live = self._runs[key] = Live(asyncio.get_running_loop().create_future())
        # Nobody may be left who asks for the reason.
        live.started.add_done_callback(lambda started: started.cancelled() or started.exception())
        live.task = asyncio.create_task(self._drive(wanted, live), name=f"serve {wanted.run_id}")

        def forget(_: asyncio.Task[None]) -> None:
            if self._runs.get(key) is live:  # else it went on as another
                del self._runs[key]

        live.task.add_done_callback(forget)
        return live

    async def leave(self, grace_s: float) -> None:
        """Wait at most `grace_s` for runs to finish; release the others, so that another process can resume them."""
        self.is_leaving = True
        tasks = [live.task for live in self._runs.values() if live.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=grace_s)
        for live in self._runs.values():
            if live.handle is None and live.task is not None:
                live.task.cancel()
        await self._requests.let_go(grace_s)
        await asyncio.wait(tasks, timeout=grace_s)

    def watch(self, live: Live, unwatched_s: float | None) -> Callable[[], None]:
        """Count a viewer and return a function to call when it leaves. Without viewers, the run is cancelled after a time."""
        live.viewers += 1

        def leave() -> None:
            live.viewers -= 1
            if unwatched_s is not None and not self.is_leaving:
                asyncio.get_running_loop().call_later(unwatched_s, _cancel_unwatched, live)

        return leave

    def _check_room(self, user: str | None) -> None:
        self._check_leaving()
        if sum(1 for owner, _ in self._runs if owner == user) >= self._most:
            raise RequestRefused(429, f"{self._most} runs are live; wait for one to end", headers={"retry-after": "5"})

    def _check_leaving(self) -> None:
        if self.is_leaving:
            raise RequestRefused(503, "the server is ending", headers={"retry-after": "2"})

    async def _drive(self, wanted: StartRequest, live: Live) -> None:
        try:
            async with self._served.open(wanted.user) as data:
                handle = self._served.start(wanted, data, self._journal)
                live.started.set_result(handle)
                identity = RunIdentity(wanted.user, wanted.session, wanted.run_id)
                async with self._requests.attend(identity, handle):
                    result = await handle.wait()
                if result.status == "cancelled" and not self.is_leaving:
                    await end_if_asked(self._journal, identity)
                if result.status == "failed" and not isinstance(result.error, RunBusy):
                    logger.error("run %s failed: %s", wanted.run_id, result.error, extra={"run_id": wanted.run_id})
            if result.status in ("waiting", "in_doubt") and not self.is_leaving:
                await self._look_again(identity)
        except (Exception, asyncio.CancelledError) as error:  # an app's own functions can raise anything
            if not live.started.done():
                live.started.set_exception(
                    error if isinstance(error, Exception) else RequestRefused(503, "the server is ending")
                )
                return
            if isinstance(error, FlowkitError):
                logger.warning("run %s: %s", wanted.run_id, error, extra={"run_id": wanted.run_id})
            elif isinstance(error, Exception):
                logger.exception("run %s failed in the app's own code", wanted.run_id, extra={"run_id": wanted.run_id})

    async def _look_again(self, run: RunIdentity) -> None:
        """Handle a request that arrived just as the run stopped to wait.

        Later requests see that no process drives the run, and resume it themselves.
        """
        session = run.session or ...  # without one, the run went on in the session in which it began
        details = await wait_in_thread(self._journal.show, run.run_id, user=run.user, session=session)
        if details is None or not details.can_go_on or self.is_leaving:
            return
        if details.summary.status == "cancelling":
            await end_if_asked(self._journal, identify(details.summary))
        else:
            self._begin(go_on_with(details))


def _cancel_unwatched(live: Live) -> None:
    if live.viewers == 0 and live.handle is not None:
        live.handle.cancel()
