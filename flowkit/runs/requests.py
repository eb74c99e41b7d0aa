"""Requests of other processes to the runs that are driven here, and the release of such runs.

Any process with the journal can send them: a cancellation is the run's status, a decision is stored with its question.
One task polls for both, for all runs, twice a second. A released run stays unchanged in the journal, and the next
driver resumes it. A running write gets time to finish, because it would be in doubt if it were cut off.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Literal

from flowkit.clock import SystemClock
from flowkit.errors import FlowkitError, RunBusy, StoreError
from flowkit.events import NOTICES, CallInDoubt, RunFinished, RunStarted
from flowkit.executor.approvals import read_decision
from flowkit.identity import RunIdentity
from flowkit.journal import Approval, Journal, RunDetails, RunSummary
from flowkit.journal.store import OVER
from flowkit.journal.unfinished_messages import recall
from flowkit.runs.run import Run
from flowkit.stores.waiting import wait_in_thread

logger = logging.getLogger("flowkit.runs")

POLL_S = 0.5
"""How often the journal is asked."""
MOST = 1000
"""How many requests to cancel are looked at; later ones wait until those are done."""
LOOK_S = 0.05
"""How often a run that is let go of is looked at for a write that still runs."""


class Requests:
    """The runs that this process drives in one journal, and the requests to them."""

    def __init__(self, journal: Journal, *, poll_s: float = POLL_S) -> None:
        self._journal = journal
        self._poll_s = poll_s
        self._runs: dict[RunIdentity, Run[Any]] = {}
        self._polling: asyncio.Task[None] | None = None

    @property
    def runs(self) -> Mapping[RunIdentity, Run[Any]]:
        """Those that are attended to now."""
        return self._runs

    @asynccontextmanager
    async def attend(self, identity: RunIdentity, run: Run[Any]) -> AsyncGenerator[None]:
        """Serve requests about the run for as long as the block lasts."""
        self._runs[identity] = run
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll(), name="flowkit requests")
        try:
            yield
        finally:
            self._runs.pop(identity, None)  # two drives of one run may have joined
            if not self._runs:
                await self._end_polling()

    async def _end_polling(self) -> None:
        polling, self._polling = self._polling, None
        if polling is not None:
            polling.cancel()
            await asyncio.wait([polling])

    async def let_go(self, grace_s: float, only: Collection[RunIdentity] | None = None) -> None:
        """Release all runs, or `only` these, and wait until they have stopped; writes have `grace_s` to finish.

        Without `only` the process leaves: no write starts any more in any run of the journal.
        """
        chosen = dict(self._runs) if only is None else {one: self._runs[one] for one in only if one in self._runs}
        until = time.monotonic() + grace_s
        with ExitStack() as stack:
            if only is None:
                self._journal.leave()
            for identity in chosen:
                stack.enter_context(self._journal.letting_go_of(identity))
            waiting = {asyncio.create_task(_wait(run)): identity for identity, run in chosen.items()}
            left = set(waiting)
            try:
                while left:
                    for task in left:
                        if time.monotonic() >= until or not await self._is_writing(waiting[task]):
                            chosen[waiting[task]].cancel()
                    # A function in a thread hears no cancellation; a process that leaves can't wait for it for ever.
                    if only is None and time.monotonic() >= until + grace_s:
                        return
                    _, left = await asyncio.wait(left, timeout=LOOK_S)
            finally:
                for task in left:
                    task.cancel()

    async def _is_writing(self, identity: RunIdentity) -> bool:
        """Return whether a write of the run is in flight."""
        try:
            details = await wait_in_thread(
                self._journal.show, identity.run_id, user=identity.user, session=identity.session
            )
        except FlowkitError:
            return False
        return details is not None and any(
            node.state == "claimed" and node.effect == "write" for node in details.nodes.values()
        )

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._look()
            except StoreError as error:
                logger.warning("what is asked of the runs here can't be read: %s", error)

    async def _look(self) -> None:
        asked = await wait_in_thread(self._journal.runs, status="cancelling", limit=MOST)
        for summary in asked:
            run = self._runs.get(identify(summary))
            if run is not None:
                run.cancel()
        for identity, run in list(self._runs.items()):
            if run.pending:
                details = await wait_in_thread(
                    self._journal.show, identity.run_id, user=identity.user, session=identity.session
                )
                for approval in () if details is None else details.approvals.values():
                    _decide(run, approval)


def identify(summary: RunSummary) -> RunIdentity:
    """Return the identity of a run from its summary in the journal."""
    return RunIdentity(summary.user, summary.session, summary.run_id)


async def end_if_asked(journal: Journal, run: RunIdentity) -> None:
    """Write the end of a run that was cancelled here because of a request; a recipe's else stays open, to be resumed."""
    details = await wait_in_thread(journal.show, run.run_id, user=run.user, session=run.session)
    if details is not None and details.summary.status == "cancelling" and not details.summary.is_held:
        with suppress(RunBusy):
            await end_stopped(journal, details, "cancelled", "it was cancelled")


async def end_stopped(
    journal: Journal, details: RunDetails, status: Literal["cancelled", "failed"], error: str
) -> None:
    """Record the end of a run without a driver; a finished run stays as it is. Raises `RunBusy` if it has a driver."""
    summary = details.summary
    held = await journal.open_run(
        summary.run_id,
        name=summary.name,
        code=details.code,
        user=summary.user,
        session=summary.session,
        allow_changed=True,
        only_read=OVER,
        must_exist=True,
        ignores_inputs=True,
    )
    # As a driver that has nothing left to do: who follows the run sees its end.
    named = (summary.run_id, held.first_seq, 0.0)
    now = SystemClock().wall()
    held.append_event(RunStarted(*named, summary.name, None, summary.user, summary.session, at_wall=now))
    seq = held.first_seq + 1
    for node in details.nodes.values():
        # A write in flight when its process died may have happened.
        if node.effect == "write" and node.state in ("claimed", "in_doubt"):
            held.append_event(CallInDoubt(summary.run_id, seq, 0.0, node.node, error))
            seq += 1
    held.append_event(RunFinished(summary.run_id, seq, 0.0, status, None, error, notice=NOTICES.get(status)))
    await held.finish(status, None, error, details.messages or recall(held.details))
    await held.close()


def _decide(run: Run[Any], approval: Approval) -> None:
    """Carry a decision out that was made in another process, if the call still waits for one."""
    if approval.decision is None:
        return
    try:
        run.decide(approval.node, read_decision(approval.decision))
    except KeyError:
        pass  # it is carried out already, or asked about no more
    except FlowkitError as refused:
        extra = {"run_id": run.id, "call_id": approval.node, "tool": approval.name}
        logger.warning(
            "run %s: the decision on %s can't be carried out: %s", run.id, approval.node, refused, extra=extra
        )


async def _wait(run: Run[Any]) -> None:
    try:
        await run.wait()
    except Exception:  # what a run's own functions raise is told to who started it
        logger.debug("run %s failed", run.id, exc_info=True, extra={"run_id": run.id})
