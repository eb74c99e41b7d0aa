"""The journal's file: one thread writes it, in group commits, and renews the leases of the runs held here.

Everything that waits is written in one transaction. If any of it must survive a power loss the transaction goes
through the connection with `synchronous = FULL`, and takes the rest along; else through the NORMAL one. So a write of
a tool costs two durable commits, one before it starts and one when it has ended, and everything else costs none.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flowkit.clock import Clock
from flowkit.errors import StoreError
from flowkit.identity import RunIdentity
from flowkit.journal.blobs import BlobFolder
from flowkit.journal.driver_lease import Holder, RunLease, lease_until, this_process
from flowkit.journal.file import JournalFile
from flowkit.journal.records import RunSummary
from flowkit.stores.thread import Job, StoreThread

T = TypeVar("T")

RUN_LEASE_S = 15.0
"""How long a run whose driver can't be asked stays held after its last sign of life."""
logger = logging.getLogger("flowkit.journal")


@dataclass(slots=True)
class Commits:
    """How many transactions were committed; `durable` ones waited for the disk."""

    durable: int = 0
    normal: int = 0


class JournalLog:
    """The file and its writer. `write`, `write_now` and `post` run operations in the thread, on its connection."""

    def __init__(self, path: Path, clock: Clock, *, lease_s: float, allow_network: bool) -> None:
        self.path = path
        self.clock = clock
        self.lease_s = lease_s
        self.blobs = BlobFolder(path.with_name(f"{path.name}-blobs"))
        self._holder = this_process()
        self.commits = Commits()
        self._fences: dict[int, int] = {}
        """Of each run held here, by its number."""
        self._unreleased: dict[int, int] = {}
        """Of each run that was let go of when that couldn't be written."""
        self.is_leaving = False
        """Whether runs that are cancelled here are let go of, for others to go on with."""
        self.let_go_of: set[RunIdentity] = set()
        """Of single runs, the same."""
        self.lost = 0
        """Records that nobody waited for and that could not be written."""
        self._current: sqlite3.Connection | None = None
        self._file = JournalFile(path, allow_network=allow_network)
        self._thread = StoreThread(
            "flowkit-journal", self._handle, tick=self._renew, tick_s=lease_s / 3, leave=self._leave
        )
        if not self._file.try_open():
            if _is_loop_running():
                # A loop must not wait for another process; the first use tells what is wrong.
                self._thread.post(self._file.open, lambda _, error: None)
            else:
                self._file.open()

    @property
    def holder(self) -> Holder:
        """This process."""
        self._notice_fork()
        return self._holder

    def hold(self, run: int, fence: int) -> None:
        """Renew the lease of this run until `let_go`."""
        self._fences[run] = fence

    def let_go(self, run: int, fence: int, *, is_written: bool = True) -> None:
        """Renew its lease no more; one that still stands in the file is taken out there as soon as that is possible."""
        if self._fences.get(run) == fence:
            del self._fences[run]
            if not is_written:
                # This process lives, so for every other one it holds the run until the file says otherwise.
                self._unreleased[run] = fence

    def lets_go(self, run: RunSummary) -> bool:
        """Whether this run is let go of when it is cancelled here."""
        return self.is_leaving or RunIdentity(run.user, run.session, run.run_id) in self.let_go_of

    def is_held(self, run: int, lease: RunLease) -> bool:
        """Whether a driver that may be alive has this run, here or elsewhere."""
        is_let_go = lease.holder == self.holder.to_text() and run not in self._fences
        return not is_let_go and lease.is_held(self.clock)

    async def write(self, operation: Callable[[sqlite3.Connection], T], *, is_durable: bool = False) -> T:
        """Run `operation` inside a transaction and wait until it is committed; cancelling the wait undoes nothing."""
        return await self._thread.submit(lambda: operation(self._writer), is_durable=is_durable)

    def write_now(self, operation: Callable[[sqlite3.Connection], T], *, is_durable: bool = True) -> T:
        """The same, for a caller without a loop."""
        return self._thread.call(lambda: operation(self._writer), is_durable=is_durable)

    def post(self, operation: Callable[[sqlite3.Connection], object]) -> None:
        """The same, soon; nobody waits. What can't be written is logged and counted."""
        self._thread.post(lambda: operation(self._writer), self._count_lost)

    def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation` here and now on a connection of its own; sees what is committed."""
        try:
            with closing(self._file.reader()) as connection:
                return operation(connection)
        except sqlite3.Error as error:
            raise StoreError(f"the journal {str(self.path)!r} can't be read: {error}") from error

    def close(self) -> None:
        """Write what was given, let go of every run, and close the file; blocks for as long as that takes."""
        if self._fences:
            self.post(self._release_all)
        self._thread.close()

    def _release_all(self, connection: sqlite3.Connection) -> None:
        self._unreleased |= self._fences
        self._fences.clear()
        self._release(connection)

    @property
    def _writer(self) -> sqlite3.Connection:
        assert self._current is not None, "only inside a batch"
        return self._current

    def _handle(self, batch: Sequence[Job]) -> None:
        is_durable = any(job.is_durable for job in batch)
        try:
            self._transact(batch, is_durable)
        except (StoreError, sqlite3.Error) as error:
            failure = error if isinstance(error, StoreError) else self._explain_unwritten(error)
            for job in batch:
                job.fail(failure)
        else:
            if is_durable:
                self.commits.durable += 1
            else:
                self.commits.normal += 1
            for job in batch:
                job.settle()

    def _transact(self, batch: Sequence[Job], is_durable: bool) -> None:
        self._file.open()
        self._file.check()
        connection = self._file.writer(is_durable=is_durable)
        connection.execute("BEGIN IMMEDIATE")
        self._file.note()
        self._current = connection
        try:
            self._file.check_version(connection)
            for job in batch:
                job.run(passing=sqlite3.Error)
            connection.execute("COMMIT")
        except (StoreError, sqlite3.Error):
            # SQLite has rolled back by itself after some errors, such as a full disk.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            self._current = None
        # It may have been taken away while this was written: then nobody will ever read it.
        self._file.check()

    def _explain_unwritten(self, error: sqlite3.Error) -> StoreError:
        failure = StoreError(f"the journal {str(self.path)!r} can't be written: {error}")
        failure.__cause__ = error
        return failure

    def _renew(self) -> None:
        self._notice_fork()
        held = list(self._fences.items())
        if not held and not self._unreleased:
            return
        until = lease_until(self.clock, self.lease_s)
        try:
            self._file.check()
            connection = self._file.writer(is_durable=False)
            connection.executemany(
                "UPDATE run SET boot = ?, until = ?, until_wall = ? WHERE id = ? AND fence = ?",
                [(*until, run, fence) for run, fence in held],
            )
            self._release(connection)
        except (StoreError, sqlite3.Error) as error:
            logger.warning("the leases in %s could not be renewed: %s", self.path, error)

    def _release(self, connection: sqlite3.Connection) -> None:
        # Not NULL: who goes on with it knows by this that some of its events may be lost.
        connection.executemany("UPDATE run SET holder = '' WHERE id = ? AND fence = ?", list(self._unreleased.items()))
        self._unreleased.clear()

    def _notice_fork(self) -> None:
        """What the parent of a forked process holds is the parent's."""
        if self._holder.pid != os.getpid():
            self._holder, self._fences, self._unreleased = this_process(), {}, {}

    def _leave(self) -> None:
        self._file.close()

    def _count_lost(self, _: object, error: BaseException | None) -> None:
        if error is not None:
            self.lost += 1
            if self.lost == 1:
                logger.warning("something could not be recorded in %s, and would be done again: %s", self.path, error)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
