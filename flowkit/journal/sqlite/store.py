"""`JournalStore` over one file; the writer's thread makes group commits.

All waiting changes are written in one transaction. If any of them must survive a power loss, the transaction uses the
connection with `synchronous = FULL`, and otherwise the one with NORMAL. So a tool's write costs two durable commits,
one before it starts and one after it has ended, and everything else costs none.
"""

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from flowkit.clock import Clock
from flowkit.codec import JSON
from flowkit.errors import FlowkitError, RunBusy, RunError, StoreError
from flowkit.journal.records import (
    Approval,
    Decision,
    JournalStats,
    Recorded,
    Resolution,
    RunDetails,
    RunState,
    RunSummary,
    explain_running,
)
from flowkit.journal.rows import encode_value, show_doubt
from flowkit.journal.sqlite.file import JournalFile, Transactions
from flowkit.journal.sqlite.holding import Holding
from flowkit.journal.sqlite.reading import (
    read_approvals,
    read_conversation,
    read_details,
    read_runs,
    read_stopped,
    read_summary,
)
from flowkit.journal.sqlite.takeover import find_run, take_run
from flowkit.journal.sqlite.upkeep import BlobFolder, SQLiteUpkeep
from flowkit.journal.sqlite.writing import (
    Fences,
    LogCleaner,
    add_spent,
    put_blob,
    read_spent,
    release,
    write_changes,
    write_decision,
    write_node,
    write_question,
)
from flowkit.journal.store import (
    DOUBT_INSIDE,
    OVER,
    Changes,
    Commits,
    Filter,
    HeldRuns,
    Put,
    RunPlace,
    Taken,
    WantedRun,
)

logger = logging.getLogger("flowkit.journal")


class SqliteStore:
    """The file, its connections and its folder of large results."""

    is_shared = False

    def __init__(self, path: Path, clock: Clock, held: HeldRuns, *, lease_s: float, allow_network: bool) -> None:
        self.path = path
        self._clock = clock
        self._holding = Holding(clock, held, lease_s)
        self._blobs = BlobFolder(path.with_name(f"{path.name}-blobs"))
        self._file = JournalFile(path, allow_network=allow_network)
        self._transactions = Transactions(self._file)
        self._upkeep = SQLiteUpkeep(self._transactions, self._holding, self._blobs)
        self._cleaner = LogCleaner()

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def commits(self) -> Commits:
        return self._transactions.commits

    @property
    def is_remote(self) -> bool:
        return False

    @property
    def holder(self) -> str:
        return self._holding.holder

    def try_open(self) -> bool:
        return self._file.try_open()

    def open(self) -> None:
        self._file.open()

    # From the writer's thread

    def take(self, wanted: WantedRun) -> Taken:
        taken = self._transactions.write(
            lambda connection: take_run(connection, wanted, self._holding, self._blobs), is_durable=False
        )
        if taken.token is not None:
            self._holding.runs.tokens[taken.details.summary.number] = taken.token
        return taken

    def apply(self, batch: Sequence[Changes], *, durable: bool) -> list[FlowkitError | None]:
        def write(connection: sqlite3.Connection) -> list[FlowkitError | None]:
            fences = Fences(connection)
            errors = [write_changes(connection, changes, fences, self._blobs, self._clock) for changes in batch]
            ended = [
                changes.run
                for changes, error in zip(batch, errors, strict=True)
                if error is None and changes.ending is not None and changes.ending.status in OVER
            ]
            if ended:
                self._cleaner.remove_kept(ended, connection)
            return errors

        try:
            written = self._transactions.write(write, is_durable=durable)
        except StoreError as error:
            return [error] * len(batch)
        self._cleaner.clean(self._file.writer(is_durable=durable))
        return written

    def ask(self, run: int, run_id: str, token: str, question: Approval, *, anew: bool) -> dict[str, Approval]:
        def write(connection: sqlite3.Connection) -> dict[str, Approval]:
            Fences(connection).check(run, run_id, token)
            return write_question(connection, run, question, anew=anew)

        return self._transactions.write(write, is_durable=False)

    def decide(self, run: int | RunPlace, node: str, decision: Decision) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            number = find_run(connection, run) if isinstance(run, RunPlace) else run
            return number is not None and write_decision(connection, number, node, decision)

        # A person's word survives a power loss; a decision of the driver's own process is as good as its next claim.
        return self._transactions.write(write, is_durable=isinstance(run, RunPlace))

    def settle(self, place: RunPlace, node: str, resolution: Resolution, by: str) -> Recorded:
        def write(connection: sqlite3.Connection) -> Recorded:
            number = find_run(connection, place)
            details = None if number is None else read_details(connection, number, self._holding, self._blobs)
            before = None if details is None else details.nodes.get(node)
            if details is None or before is None or before.state not in ("in_doubt", "claimed"):
                raise RunError(f"run {place.run_id!r}: {node!r} isn't in doubt")
            if details.summary.is_held:
                raise RunBusy(f"run {place.run_id!r} is driven by another process")
            if before.lease.may_run(self._clock):
                raise RunBusy(f"run {place.run_id!r}: {explain_running(before)}")
            record = before.settle(resolution, by)
            number = details.summary.number
            # A driver that was thought dead must not write over this.
            connection.execute("UPDATE run SET fence = fence + 1 WHERE id = ?", (number,))
            last = connection.execute("SELECT MAX(position) FROM node WHERE run = ?", (number,)).fetchone()[0]
            put = Put(record, encode_value(record.value, node), last + 1)
            write_node(connection, number, put, put_blob(put, self._blobs), self._clock)
            return record

        return self._transactions.write(write, is_durable=True)

    def change_status(self, place: RunPlace, status: RunState, of: Collection[RunState]) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            number = find_run(connection, place)
            changed = connection.execute(
                f"UPDATE run SET status = ?, changed = ? WHERE id = ? AND status IN ({', '.join('?' * len(of))})",
                (status, self._clock.wall(), number, *of),
            )
            return changed.rowcount == 1

        return self._transactions.write(write)

    def add_spent(self, key: str, usd: float) -> float:
        """Add to the amount spent from a budget; return the sum."""
        wall = self._clock.wall()
        return self._transactions.write(lambda connection: add_spent(connection, key, usd, wall), is_durable=False)

    def read_spent(self, key: str) -> float:
        """Return the amount spent from a budget."""
        return self._transactions.read(lambda connection: read_spent(connection, key))

    def announce(self) -> None:
        """Do nothing: who follows a file polls it."""

    def renew(self) -> None:
        held = list(self._holding.runs.tokens.items())
        unreleased = list(self._holding.runs.unreleased.items())
        if not held and not unreleased and not self._cleaner.is_due:
            return
        lease = self._holding.lease()
        try:
            self._file.check()
            connection = self._file.writer(is_durable=False)
            connection.executemany(
                "UPDATE run SET boot = ?, until = ?, until_wall = ? WHERE id = ? AND fence = ?",
                [(*lease, run, int(token)) for run, token in held],
            )
            release(connection, unreleased)
            self._cleaner.clean(connection)
        except (StoreError, sqlite3.Error) as error:
            logger.warning("the leases in %s could not be renewed: %s", self.path, error)
        else:
            for run, _ in unreleased:
                self._holding.runs.unreleased.pop(run, None)

    def delete(self, place: RunPlace) -> bool:
        return self._upkeep.delete(place)

    def prune(self, older_than_s: float, *, unfinished: bool) -> Iterator[int]:
        return self._upkeep.prune(older_than_s, unfinished=unfinished)

    def prune_events(self, older_than_s: float) -> Iterator[int]:
        return self._upkeep.prune_events(older_than_s)

    def tidy(self) -> Iterator[int]:
        return self._upkeep.tidy()

    def close_writer(self) -> None:
        self._file.close()

    def close(self) -> None:
        """Close nothing: only the writer's thread has something open."""

    # From any thread

    def approvals(self, run: int) -> dict[str, Approval]:
        return self._transactions.read(lambda connection: read_approvals(connection, run))

    def show(self, place: RunPlace) -> RunDetails | None:
        def read(connection: sqlite3.Connection) -> RunDetails | None:
            number = find_run(connection, place)
            found = None if number is None else read_details(connection, number, self._holding, self._blobs)
            return None if found is None else show_doubt(found)

        return self._transactions.read(read)

    def find(self, place: RunPlace) -> RunSummary | None:
        def read(connection: sqlite3.Connection) -> RunSummary | None:
            number = find_run(connection, place)
            return None if number is None else read_summary(connection, number, self._holding)

        return self._transactions.read(read)

    def has_doubt_inside(self, run: int) -> bool:
        query = DOUBT_INSIDE.format(run="run", node="node", number="?")
        return self._transactions.read(lambda connection: connection.execute(query, (run,)).fetchone() is not None)

    def runs(self, chosen: Filter) -> list[RunSummary]:
        return self._transactions.read(lambda connection: read_runs(connection, chosen, self._holding))

    def stopped(self, limit: int) -> list[RunSummary]:
        return self._transactions.read(lambda connection: read_stopped(connection, limit, self._holding))

    def event_rows(self, place: RunPlace, after: int, before: int | None, limit: int | None) -> list[tuple[int, str]]:
        def read(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            return connection.execute(
                "SELECT seq, body FROM event WHERE run = ?1 AND seq > ?2 AND (?3 IS NULL OR seq < ?3)"
                " ORDER BY seq LIMIT ?4",
                (find_run(connection, place), after, before, -1 if limit is None else limit),
            ).fetchall()

        return self._transactions.read(read)

    def last_seq(self, place: RunPlace) -> int | None:
        def read(connection: sqlite3.Connection) -> int | None:
            number = find_run(connection, place)
            return connection.execute("SELECT MAX(seq) FROM event WHERE run = ?", (number,)).fetchone()[0]

        return self._transactions.read(read)

    def conversation(self, session: str, user: str | None, before: int | RunPlace | None, limit: int) -> list[JSON]:
        def read(connection: sqlite3.Connection) -> list[JSON]:
            last = find_run(connection, before) if isinstance(before, RunPlace) else before
            if before is not None and last is None:
                return []
            return read_conversation(
                connection, session, self._holding, self._blobs, user=user, before=last, limit=limit
            )

        return self._transactions.read(read)

    def listen(self, run: int, wake: Callable[[], None]) -> Callable[[], None]:
        return lambda: None  # processes don't notify each other, so followers poll

    def stats(self) -> JournalStats:
        return self._upkeep.stats()
