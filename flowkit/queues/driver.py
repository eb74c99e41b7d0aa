"""`drive` runs a run by its id, even if a queue calls it late, twice or never; `submit` records a run for it.

A driver claims the run in the journal, and drives it until it ends or waits for a person. A second driver finds that
the run has one, which counts as success, since nothing has to be repeated.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import EllipsisType
from typing import Any, Literal

from flowkit.errors import ConfigurationError, FlowkitError, RunBusy, RunError, StoreError
from flowkit.events import RunStatus
from flowkit.identity import RunIdentity
from flowkit.journal import Journal, RunDetails, default_journal
from flowkit.journal.store import OVER
from flowkit.runs.requests import Requests, end_stopped, identify
from flowkit.runs.run import Run, make_run_id
from flowkit.stores.waiting import wait_in_thread
from flowkit.web.served import Servable, Served, StartRequest, Target, go_on_with, make_served

logger = logging.getLogger("flowkit.queues")

DriveStatus = RunStatus | Literal["running", "stopped"]
"""How a run ended or waits; `running` where another drives it, `stopped` where somebody else has to go on with it."""
TRIES = 5
"""How often a run is tried whose data can't be opened, before it counts as failed."""
LET_GO_S = 5.0
"""How long a write has to end when whoever drives its run is cancelled."""
KEPT_AT_MOST = 10_000


class Driver:
    """Drives the runs of a journal with an app's agents and recipes; used by one event loop."""

    def __init__(self, served: Served, journal: Journal) -> None:
        self.served = served
        self.journal = journal
        self.requests = Requests(journal)
        self.is_leaving = False
        self._tries: OrderedDict[RunIdentity, int] = OrderedDict()

    async def drive(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> DriveStatus:
        """Drive the run until it finishes or waits; raises the errors of `drive`."""
        while True:
            details = await wait_in_thread(self.journal.show, run_id, user=user, session=session)
            if details is None:
                raise RunError(f"there is no run {run_id!r} in {self.journal.name!r}")
            summary = details.summary
            if summary.name not in self.served.targets:
                raise ConfigurationError(f"run {run_id!r} is of {summary.name!r}, which this app doesn't have")
            if not details.can_go_on:
                return _say_status(details)
            if self.is_leaving:
                return "stopped"
            user, session = summary.user, summary.session
            try:
                if summary.status == "cancelling":
                    await end_stopped(self.journal, details, "cancelled", "it was cancelled")
                elif not await self._go_on(details):
                    return "stopped"
            except RunBusy:
                return "running"

    async def leave(self, grace_s: float) -> None:
        """Release every run, for others to resume; a write in flight has `grace_s` to finish."""
        self.is_leaving = True
        await self.requests.let_go(grace_s)

    async def _go_on(self, details: RunDetails) -> bool:
        """Drive it on; whether it came to an end, or to where it waits. Raises `RunBusy`."""
        identity = identify(details.summary)
        run = None
        try:
            async with self.served.open(identity.user) as data:
                if self.is_leaving:
                    return False
                try:
                    run = self.served.start(go_on_with(details), data, self.journal)
                except FlowkitError as refused:
                    await end_stopped(self.journal, details, "failed", str(refused))
                    return True
                async with self.requests.attend(identity, run):
                    return await self._wait(identity, run)
        except (RunBusy, StoreError):
            raise
        except Exception as error:  # an app's own functions can raise anything
            if run is not None:
                logger.exception(
                    "run %s failed in the app's own code", identity.run_id, extra={"run_id": identity.run_id}
                )
                return True
            return await self._count_try(details, error)

    async def _wait(self, identity: RunIdentity, run: Run[Any]) -> bool:
        try:
            result = await run.wait()
        except asyncio.CancelledError:
            # Whoever called may call again: the run hasn't been cancelled, only this drive of it.
            await self.requests.let_go(LET_GO_S, only=[identity])
            raise
        self._tries.pop(identity, None)
        if isinstance(result.error, RunBusy):
            raise result.error
        if result.status == "failed":
            logger.error("run %s failed: %s", identity.run_id, result.error, extra={"run_id": identity.run_id})
        found = await wait_in_thread(self.journal.find, identity.run_id, user=identity.user, session=identity.session)
        if found is None or found.status in (*OVER, "cancelling"):
            return True
        # Else it is changed code, a full disk, or a process that leaves: the journal says that it hasn't ended.
        return result.status in ("waiting", "in_doubt")

    async def _count_try(self, details: RunDetails, error: Exception) -> bool:
        identity = identify(details.summary)
        tries = self._tries[identity] = self._tries.pop(identity, 0) + 1
        while len(self._tries) > KEPT_AT_MOST:
            self._tries.popitem(last=False)
        logger.warning(
            "run %s can't be started: %s: %s",
            identity.run_id,
            type(error).__name__,
            error,
            extra={"run_id": identity.run_id},
        )
        if tries < TRIES:
            return False
        del self._tries[identity]
        await end_stopped(self.journal, details, "failed", f"it can't be started: {error}")
        return True


async def drive(
    run_id: str,
    app: Servable | Iterable[Target],
    *,
    journal: Journal | str | Path | None = None,
    user: str | EllipsisType | None = ...,
    session: str | EllipsisType | None = ...,
    data: Mapping[str, str] | None = None,
) -> DriveStatus:
    """Drive a run of the journal until it finishes or waits for a person; return its status.

    Calling it repeatedly is safe: a finished run stays as it is, and for a run that another process drives it
    returns `running`. If it is cancelled, it releases the run, and the next call resumes it. `app` is an agent,
    a recipe, several of them, or a file with them, whose `open_data` takes the run's user and `data`. `user` and
    `session` identify the run if several have its id.

    Raises `RunError` if there is no such run, `ConfigurationError` if the app has no agent or recipe of its name,
    `StoreError` if the journal can't be used.
    """
    served = make_served(app, data)
    async with _opened(journal) as opened:
        return await Driver(served, opened).drive(run_id, user=user, session=session)


async def submit(
    app: Servable | Iterable[Target],
    message: str | None = None,
    *,
    name: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    journal: Journal | str | Path | None = None,
    user: str | None = None,
    session: str | None = None,
    run_id: str | None = None,
) -> str:
    """Record a run in the journal, for a worker or a queue to `drive`; return its id.

    An agent takes a `message`, a recipe its `inputs`; `name` selects one of the app's. The same `run_id` again, with
    the same inputs, is the same run. Raises `ToolArgumentsError` for invalid inputs, `RunError` for a run that
    started with other inputs, `ConfigurationError` for a name that the app doesn't have.
    """
    served = make_served(app)
    try:
        target = served.choose(name)
    except KeyError:
        raise ConfigurationError(f"there is no {name!r}; there are {', '.join(served.targets)}") from None
    wanted = StartRequest(target, user, run_id or make_run_id(), message, inputs or {}, session)
    async with _opened(journal) as opened:
        await served.record(wanted, opened)
    return wanted.run_id


@asynccontextmanager
async def _opened(journal: Journal | str | Path | None) -> AsyncGenerator[Journal]:
    if isinstance(journal, Journal):
        yield journal
        return
    opened = await wait_in_thread(Journal, journal or default_journal())
    try:
        yield opened
    finally:
        await wait_in_thread(opened.close)


def _say_status(details: RunDetails) -> DriveStatus:
    status = details.summary.status
    return "running" if status in ("queued", "running", "cancelling") else status
