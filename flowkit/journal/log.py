"""The journal's only writer: a thread that writes collected changes to a store and renews this process's leases.

All waiting changes are written together, so many runs share a commit. A tool's write costs two durable commits, one
before it starts and one after it has ended. A durable commit includes everything written before it; nothing else waits
for the disk.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from flowkit.clock import Clock
from flowkit.errors import FlowkitError
from flowkit.events import CallArguments, CallProgress, Event, TextDelta, ThinkingDelta
from flowkit.identity import RunIdentity
from flowkit.journal.records import RunSummary
from flowkit.journal.store import Changes, HeldRuns, JournalStore
from flowkit.stores.thread import StoreThread, Tell, WriteJob

T = TypeVar("T")

RUN_LEASE_S = 15.0
"""How long a run stays held after the last sign of life of a driver on another machine."""
KeptEvents = Literal["all", "calls", "none"]
"""Which events are kept: all, all but the pieces of texts, arguments and progress, or none."""
_PIECES = (TextDelta, ThinkingDelta, CallArguments, CallProgress)
logger = logging.getLogger("flowkit.journal")


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """Collects a driver's changes when the writer reaches them, so later additions are included. None means no changes."""

    make: Callable[[], Changes | None]

    def __call__(self) -> Changes | None:
        return self.make()


class JournalLog:
    """A store and its writer. Changes are written in the order in which they are added."""

    def __init__(
        self, store: JournalStore, held: HeldRuns, clock: Clock, *, lease_s: float, events: KeptEvents = "all"
    ) -> None:
        self.store = store
        self.clock = clock
        self.lease_s = lease_s
        self._held = held
        self._events: KeptEvents = events
        self.is_leaving = False
        """Whether runs that are cancelled here are released, for others to resume."""
        self.let_go_of: set[RunIdentity] = set()
        """Of single runs, the same."""
        self.lost = 0
        """Records that nobody waited for and that could not be written."""
        self._thread = StoreThread(
            "flowkit-journal",
            self._handle,
            tick=self._renew,
            tick_s=lease_s / 3,
            leave=store.close_writer,
            gathers=store.is_remote,
        )
        if not store.try_open():
            if _is_loop_running():
                # An event loop must not wait for another process; the first use raises the error.
                self._thread.post(store.open, lambda _, error: None)
            else:
                store.open()

    @property
    def held(self) -> HeldRuns:
        """The runs that are held here."""
        self._held.notice_fork()
        return self._held

    def lets_go(self, run: RunSummary) -> bool:
        """Return whether this run is released when it is cancelled here."""
        if self.is_leaving or not self.let_go_of:
            return self.is_leaving
        return RunIdentity(run.user, run.session, run.run_id) in self.let_go_of

    def keeps(self, kind: type[Event]) -> bool:
        """Return whether events of this kind are recorded."""
        return self._events == "all" or (self._events == "calls" and kind not in _PIECES)

    async def write(self, changes: Changes | Callable[[], Changes | None], *, is_durable: bool = False) -> None:
        """Write it and wait until it is committed; cancelling the wait undoes nothing."""
        await self._thread.submit(_as_write(changes), is_durable=is_durable)

    def post(self, changes: Changes | Callable[[], Changes | None], tell: Tell | None = None) -> None:
        """Write it soon, without waiting. A failure is logged and counted, unless a callback takes it."""
        self._thread.post(_as_write(changes), tell or self.count_lost)

    async def run(self, operation: Callable[[], T]) -> T:
        """Run an operation of the store in the writer's thread, after all earlier changes, and wait for it."""
        return await self._thread.submit(operation)

    def run_now(self, operation: Callable[[], T]) -> T:
        """Run it for a caller without a loop."""
        return self._thread.call(operation)

    def close(self) -> None:
        """Write all pending changes, release every run, and close the store; blocks for as long as that takes."""
        if self.held.tokens:
            self._thread.post(self._let_go_of_all, lambda _, error: None)
        self._thread.close()
        self.store.close()

    def _let_go_of_all(self) -> None:
        self._held.let_go_of_all()
        self.store.renew()

    def _handle(self, batch: Sequence[WriteJob]) -> None:
        for are_changes, jobs in itertools.groupby(batch, lambda job: isinstance(job.operation, Write)):
            if are_changes:
                self._apply(list(jobs))
            else:
                for job in jobs:
                    job.run()
                    job.settle()

    def _apply(self, jobs: Sequence[WriteJob]) -> None:
        for job in jobs:
            job.run()
        written = [job for job in jobs if not job.has_failed and job.result is not None]
        errors: Sequence[FlowkitError | None] = ()
        if written:
            is_durable = any(job.is_durable for job in written)
            errors = self.store.apply([job.result for job in written], durable=is_durable)
        for job, error in zip(written, errors, strict=True):
            if error is not None:
                job.fail(error)
        for job in jobs:
            job.settle()
        if written:
            # Only now: nobody who writes waits for those who follow.
            self.store.announce()

    def _renew(self) -> None:
        self._held.notice_fork()
        self.store.renew()

    def count_lost(self, _: object, error: BaseException | None) -> None:
        """Count something that could not be written, and log the first."""
        if error is not None:
            self.lost += 1
            if self.lost == 1:
                logger.warning(
                    "something could not be recorded in %s, and would be done again: %s", self.store.name, error
                )


def _as_write(changes: Changes | Callable[[], Changes | None]) -> Write:
    return Write((lambda: changes) if isinstance(changes, Changes) else changes)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
