"""The journal's file: one thread writes it, in group commits, and renews the leases of the runs held here.

Everything that waits is written in one transaction. If any of it must survive a power loss the transaction goes
through the connection with `synchronous = FULL`, and takes the rest along; else through the NORMAL one. So a write of
a tool costs two durable commits, one before it starts and one when it has ended, and everything else costs none.
"""

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
from flowkit.journal.blobs import BlobFolder
from flowkit.journal.driver_lease import Holder, RunLease, lease_until, this_process
from flowkit.journal.schema import connect, create_tables, is_current
from flowkit.stores.folders import hold_folder, make_private_file, refuse_network
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
        if not allow_network:
            refuse_network(path)
        self.path = path
        self.clock = clock
        self.lease_s = lease_s
        self.blobs = BlobFolder(path.with_name(f"{path.name}-blobs"))
        self._holder = this_process()
        self.commits = Commits()
        self._fences: dict[str, int] = {}
        """Of each run held here."""
        self.is_leaving = False
        """Whether runs that are cancelled here are let go of, for others to go on with."""
        self.lost = 0
        """Records that nobody waited for and that could not be written."""
        self._connections: dict[tuple[int, bool], sqlite3.Connection] = {}
        self._current: sqlite3.Connection | None = None
        self._thread = StoreThread(
            "flowkit-journal", self._handle, tick=self._renew, tick_s=lease_s / 3, leave=self._leave
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_private_file(path)
            with closing(connect(path)) as connection:
                if not is_current(connection):
                    with hold_folder(path.parent):
                        create_tables(connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the journal {str(path)!r} can't be opened: {error}") from error

    @property
    def holder(self) -> Holder:
        """This process."""
        self._notice_fork()
        return self._holder

    def hold(self, run_id: str, fence: int) -> None:
        """Renew the lease of this run until `let_go`."""
        self._fences[run_id] = fence

    def let_go(self, run_id: str, fence: int) -> None:
        """Renew its lease no more."""
        if self._fences.get(run_id) == fence:
            del self._fences[run_id]

    def is_held(self, run_id: str, lease: RunLease) -> bool:
        """Whether a driver that may be alive has this run, here or elsewhere."""
        is_let_go = lease.holder == self.holder.to_text() and run_id not in self._fences
        return not is_let_go and lease.is_held(self.clock)

    async def write(self, operation: Callable[[sqlite3.Connection], T], *, is_durable: bool = False) -> T:
        """Run `operation` inside a transaction and wait until it is committed; cancelling the wait undoes nothing."""
        return await self._thread.submit(lambda: operation(self._writer), is_durable=is_durable)

    def write_now(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """The same, durable, for a caller without a loop."""
        return self._thread.call(lambda: operation(self._writer), is_durable=True)

    def post(self, operation: Callable[[sqlite3.Connection], object]) -> None:
        """The same, soon; nobody waits. What can't be written is logged and counted."""
        self._thread.post(lambda: operation(self._writer), self._count_lost)

    def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation` here and now on a connection of its own; sees what is committed."""
        try:
            with closing(connect(self.path)) as connection:
                return operation(connection)
        except sqlite3.Error as error:
            raise StoreError(f"the journal {str(self.path)!r} can't be read: {error}") from error

    def close(self) -> None:
        """Write what was given and close the file; blocks for as long as that takes."""
        self._thread.close()

    @property
    def _writer(self) -> sqlite3.Connection:
        assert self._current is not None, "only inside a batch"
        return self._current

    def _handle(self, batch: Sequence[Job]) -> None:
        is_durable = any(job.is_durable for job in batch)
        try:
            self._transact(batch, is_durable)
        except sqlite3.Error as error:
            failure = StoreError(f"the journal {str(self.path)!r} can't be written: {error}")
            failure.__cause__ = error
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
        connection = self._connection(is_durable)
        connection.execute("BEGIN IMMEDIATE")
        self._current = connection
        try:
            for job in batch:
                job.run(passing=sqlite3.Error)
            connection.execute("COMMIT")
        except sqlite3.Error:
            # SQLite has rolled back by itself after some errors, such as a full disk.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            self._current = None

    def _connection(self, is_durable: bool) -> sqlite3.Connection:
        place = (os.getpid(), is_durable)  # a forked process must not use its parent's
        if place not in self._connections:
            self._connections[place] = connect(self.path, synchronous="FULL" if is_durable else "NORMAL")
        return self._connections[place]

    def _renew(self) -> None:
        self._notice_fork()
        held = list(self._fences.items())
        if not held:
            return
        until = lease_until(self.clock, self.lease_s)
        try:
            self._connection(False).executemany(
                "UPDATE run SET boot = ?, until = ?, until_wall = ? WHERE run_id = ? AND fence = ?",
                [(*until, run_id, fence) for run_id, fence in held],
            )
        except sqlite3.Error as error:
            logger.warning("the leases in %s could not be renewed: %s", self.path, error)

    def _notice_fork(self) -> None:
        """What the parent of a forked process holds is the parent's."""
        if self._holder.pid != os.getpid():
            self._holder, self._fences = this_process(), {}

    def _leave(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _count_lost(self, _: object, error: BaseException | None) -> None:
        if error is not None:
            self.lost += 1
            if self.lost == 1:
                logger.warning("something could not be recorded in %s, and would be done again: %s", self.path, error)
