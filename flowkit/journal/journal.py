"""The log of runs: what a process that was killed left behind, so that another goes on.

A journal is one SQLite file, with a folder of large results beside it. Runs, conversations and approvals are views of
it. `open_run` starts a run or goes on with it; the other methods are for people and other processes: they block, and
may be used while somebody drives a run. A run is known by its user, its session and its id together; where only an id is
given and several have it, the error says so.
"""

import asyncio
import os
import sqlite3
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from types import EllipsisType
from typing import Literal

from flowkit.clock import Clock, SystemClock
from flowkit.codec import JSON
from flowkit.errors import RunBusy, RunError
from flowkit.journal.driver_lease import RunLease
from flowkit.journal.log import RUN_LEASE_S, Commits, JournalLog
from flowkit.journal.records import (
    Decision,
    JournalStats,
    Recorded,
    Resolution,
    RunDetails,
    RunSummary,
    explain_running,
)
from flowkit.journal.rows import (
    SUMMARY_COLUMNS,
    encode_value,
    from_text,
    read_summaries,
    write_decision,
    write_node,
)
from flowkit.journal.run import RunJournal, open_run
from flowkit.journal.schema import UNFINISHED
from flowkit.journal.takeover import Wanted, find_run
from flowkit.journal.upkeep import delete_run, get_stats, prune
from flowkit.journal.views import read_conversation, read_details, show_run


class Journal:
    """Runs that survive the process; raises `StoreError` when the file can't be opened.

    In a running event loop nothing waits here for another process: the first use does, in a thread. The file and its
    blobs are readable for their owner only. Arguments arrive with their secrets masked.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        lease_s: float = RUN_LEASE_S,
        allow_network: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._log = JournalLog(
            Path(path).expanduser().absolute(),
            SystemClock() if clock is None else clock,
            lease_s=lease_s,
            allow_network=allow_network,
        )

    @property
    def path(self) -> Path:
        """The file."""
        return self._log.path

    @property
    def commits(self) -> Commits:
        """How many commits this process made, and how many of them waited for the disk."""
        return self._log.commits

    async def open_run(
        self,
        run_id: str,
        *,
        name: str,
        code: str = "",
        inputs: JSON = None,
        user: str | None = None,
        session: str | None = None,
        allow_changed: bool = False,
        only_read: Collection[str] = ("done",),
        must_exist: bool = False,
        ignores_inputs: bool = False,
    ) -> RunJournal:
        """Start this run, or resume it, as its only driver.

        A run that ended in one of the states `only_read` is opened to be read, and stays as it is. Without a
        `session` it is this user's run of that id in whatever session it began. Raises `RunBusy` while another process
        (or another open `RunJournal`) drives it, `CodeChanged` when it began with other code and isn't over,
        `RunError` when it began with other inputs (None means "whatever it began with", as does `ignores_inputs`) or
        `must_exist` and doesn't.
        """

        wanted = Wanted(
            run_id,
            name,
            code,
            inputs,
            user,
            session,
            allow_changed,
            only_read=only_read,
            must_exist=must_exist,
            ignores_inputs=ignores_inputs,
        )
        opening = asyncio.ensure_future(open_run(self._log, wanted))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The writer takes hold of the run all the same, and nobody would let go of it.
            while not opening.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([opening])
            if opening.exception() is None:
                await opening.result().close()
            raise

    def runs(
        self,
        *,
        status: str | None = None,
        session: str | None = None,
        user: str | EllipsisType | None = ...,
        limit: int = 100,
        cursor: str | None = None,
        inner: bool = False,
    ) -> list[RunSummary]:
        """List the latest runs, newest first; with a `cursor`, a summary's, those that began before that one.

        `user=None` lists the runs without a user, leaving it out those of everybody. `inner` lists also the runs that
        calls of other runs made.
        """
        if cursor is not None and not cursor.isdecimal():
            raise ValueError(f"cursor={cursor!r}: expected the `cursor` of a summary that `runs` gave")

        def read(connection: sqlite3.Connection) -> list[RunSummary]:
            rows = connection.execute(
                f"SELECT {SUMMARY_COLUMNS} FROM run WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR session = ?2)"
                " AND (?3 OR user IS ?4) AND (?5 IS NULL OR id < ?5) AND (?6 OR parent IS NULL)"
                " ORDER BY id DESC LIMIT ?7",
                (
                    status,
                    session,
                    isinstance(user, EllipsisType),
                    None if isinstance(user, EllipsisType) else user,
                    None if cursor is None else int(cursor),
                    inner,
                    limit,
                ),
            )
            return read_summaries(rows, self._log.is_held)

        return self._log.read(read)

    def show(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> RunDetails | None:
        """Return a run in full; None if there is no such run. A claimed write that nobody drives shows as in doubt."""

        def read(connection: sqlite3.Connection) -> RunDetails | None:
            number = find_run(connection, run_id, user=user, session=session)
            return None if number is None else show_run(connection, number, self._log)

        return self._log.read(read)

    def events(
        self,
        run_id: str,
        after: int = -1,
        *,
        user: str | EllipsisType | None = ...,
        session: str | EllipsisType | None = ...,
    ) -> list[JSON]:
        """The events of a run with a `seq` above `after`, as `Event.to_json` wrote them."""

        def read(connection: sqlite3.Connection) -> list[JSON]:
            number = find_run(connection, run_id, user=user, session=session)
            rows = connection.execute("SELECT body FROM event WHERE run = ? AND seq > ? ORDER BY seq", (number, after))
            return [from_text(body) for (body,) in rows]

        return self._log.read(read)

    def find(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> RunSummary | None:
        """Return a run as `runs` lists it; None if there is no such run."""

        def read(connection: sqlite3.Connection) -> list[RunSummary]:
            number = find_run(connection, run_id, user=user, session=session)
            rows = connection.execute(f"SELECT {SUMMARY_COLUMNS} FROM run WHERE id = ?", (number,))
            return read_summaries(rows, self._log.is_held)

        found = self._log.read(read)
        return found[0] if found else None

    def last_seq(self, run_id: str, *, user: str | EllipsisType | None = ...) -> int:
        """The number of a run's last event; -1 where it has none."""

        def read(connection: sqlite3.Connection) -> int | None:
            number = find_run(connection, run_id, user=user)
            return connection.execute("SELECT MAX(seq) FROM event WHERE run = ?", (number,)).fetchone()[0]

        last = self._log.read(read)
        return -1 if last is None else last

    def event_rows(
        self,
        run_id: str,
        after: int = -1,
        before: int | None = None,
        limit: int = 1000,
        *,
        user: str | EllipsisType | None = ...,
        session: str | EllipsisType | None = ...,
    ) -> list[tuple[int, str]]:
        """The next events of a run after one of them, each with its JSON as it was written, its type first."""

        def read(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            number = find_run(connection, run_id, user=user, session=session)
            return connection.execute(
                "SELECT seq, body FROM event WHERE run = ?1 AND seq > ?2 AND (?3 IS NULL OR seq < ?3)"
                " ORDER BY seq LIMIT ?4",
                (number, after, before, limit),
            ).fetchall()

        return self._log.read(read)

    def conversation(
        self, session: str, *, user: str | None = None, before: str | None = None, limit: int = 1000
    ) -> list[JSON]:
        """Return the messages of this user's session so far, oldest first; with `before`, those of the runs before that one.

        Of a run that was killed, or that still goes on, it is what its journal knows of it.
        """

        def read(connection: sqlite3.Connection) -> list[JSON]:
            last = None if before is None else find_run(connection, before, user=user, session=session)
            if before is not None and last is None:
                return []
            return read_conversation(connection, session, self._log, user=user, before=last, limit=limit)

        return self._log.read(read)

    def decide(
        self,
        run_id: str,
        node: str,
        *,
        approved: bool,
        by: str,
        reason: str = "",
        arguments: JSON = None,
        user: str | EllipsisType | None = ...,
        session: str | EllipsisType | None = ...,
    ) -> Decision:
        """Decide on a waiting call, from any process; its driver reads the decision when the run resumes.

        Raises `RunError` when nothing is asked there, or when it was decided already.
        """
        decision = Decision(approved, by, self._log.clock.wall(), reason, arguments)

        def write(connection: sqlite3.Connection) -> bool:
            number = find_run(connection, run_id, user=user, session=session)
            return number is not None and write_decision(connection, number, node, decision)

        if not self._log.write_now(write):
            raise RunError(f"run {run_id!r}: nothing is asked about {node!r}, or it was decided already")
        return decision

    def resolve(
        self,
        run_id: str,
        node: str,
        resolution: Resolution,
        *,
        by: str,
        user: str | EllipsisType | None = ...,
        session: str | EllipsisType | None = ...,
    ) -> Recorded:
        """Resolve a write in doubt, from any process, while nobody drives the run; returns it as it is now.

        Raises `RunBusy` when somebody drives it, or when the call may still be running, `RunError` when the node
        isn't in doubt. The cached reads on its `resources` stay as they are: `cache.bump(…)` ends them.
        """

        def write(connection: sqlite3.Connection) -> Recorded:
            number = find_run(connection, run_id, user=user, session=session)
            details = None if number is None else read_details(connection, number, self._log)
            before = None if details is None else details.nodes.get(node)
            if details is None or before is None or before.state not in ("in_doubt", "claimed"):
                raise RunError(f"run {run_id!r}: {node!r} isn't in doubt")
            if details.summary.is_held:
                raise RunBusy(f"run {run_id!r} is driven by another process")
            if before.lease.may_run(self._log.clock):
                raise RunBusy(f"run {run_id!r}: {explain_running(before)}")
            record = before.settle(resolution, by)
            data = encode_value(record.value, node)
            number = details.summary.number
            # A driver that was thought dead must not write over this.
            connection.execute("UPDATE run SET fence = fence + 1 WHERE id = ?", (number,))
            position = connection.execute("SELECT MAX(position) FROM node WHERE run = ?", (number,)).fetchone()[0]
            write_node(connection, number, record, data, position + 1, self._log.blobs, self._log.clock)
            return record

        return self._log.write_now(write)

    def stopped(self, limit: int = 100) -> list[RunSummary]:
        """List runs that should go on and that nobody drives: queued, let go of, or their process has ended; oldest first."""

        def read(connection: sqlite3.Connection) -> list[RunSummary]:
            rows = connection.execute(
                f"SELECT {SUMMARY_COLUMNS} FROM run WHERE {UNFINISHED} AND parent IS NULL ORDER BY id"
            )
            free = (row for row in rows if not self._log.is_held(row[0], RunLease(*row[-4:])))
            return read_summaries(islice(free, limit), self._log.is_held)

        return self._log.read(read)

    def requeue(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> bool:
        """Queue a run that waits or is in doubt, for whoever drives it next; False where it does neither."""
        return self._ask(run_id, "queued", ("waiting", "in_doubt"), user, session)

    def request_cancel(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> bool:
        """Ask whoever drives this run, in any process, to cancel it; False where it is over.

        Its driver sees it within about a second. Of a run that nobody drives, whoever takes it next writes the end.
        """
        return self._ask(
            run_id, "cancelling", ("queued", "running", "waiting", "in_doubt", "cancelling"), user, session
        )

    def _ask(
        self,
        run_id: str,
        state: Literal["queued", "cancelling"],
        of: Collection[str],
        user: str | EllipsisType | None,
        session: str | EllipsisType | None,
    ) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            number = find_run(connection, run_id, user=user, session=session)
            changed = connection.execute(
                f"UPDATE run SET status = ?, changed = ? WHERE id = ? AND status IN ({', '.join('?' * len(of))})",
                (state, self._log.clock.wall(), number, *of),
            )
            return changed.rowcount == 1

        return self._log.write_now(write)

    def get_stats(self) -> JournalStats:
        """Count the runs, and measure the journal's size."""
        return get_stats(self._log)

    def delete(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> bool:
        """Remove a run that nobody drives, and large results that nothing names any more."""
        return delete_run(self._log, run_id, user=user, session=session)

    def prune(self, older_than: float | timedelta, *, unfinished: bool = False) -> int:
        """Remove the runs that ended that long ago, in seconds or as a `timedelta`; returns how many.

        With `unfinished` also those that were stopped, wait for a person, or are in doubt. What was said in a run
        is gone from its session.
        """
        older_than_s = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        return prune(self._log, older_than_s, unfinished=unfinished)

    def leave(self) -> None:
        """Say that this process ends: runs that are cancelled from now on are only let go of, and can go on elsewhere."""
        self._log.is_leaving = True

    def close(self) -> None:
        """Write what was given and close the file; blocks for as long as that takes."""
        self._log.close()


def default_journal_path() -> Path:
    """`FLOWKIT_JOURNAL`, or a file in the user's folder for states."""
    import platformdirs

    named = os.environ.get("FLOWKIT_JOURNAL")
    return Path(named).expanduser() if named else Path(platformdirs.user_state_dir("flowkit")) / "journal.sqlite3"
