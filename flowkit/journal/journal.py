"""The log of runs, from which another process can resume a run after a crash.

A journal is one SQLite file with a folder of large results, or a PostgreSQL database. Runs, conversations and
approvals are views of it. `open_run` starts or resumes a run; the other methods are for people and other processes:
they block, and may be used while a process drives a run. A run is identified by its user, its session and its id
together. If a caller passes only an id and several runs have it, the error says so.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import EllipsisType

from flowkit.clock import Clock, SystemClock
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, RunError, StoreError
from flowkit.identity import RunIdentity
from flowkit.journal.enclosing import check_runs_again
from flowkit.journal.location import check_address, is_url
from flowkit.journal.log import RUN_LEASE_S, JournalLog, KeptEvents
from flowkit.journal.records import Decision, JournalStats, Recorded, Resolution, Retry, RunDetails, RunSummary
from flowkit.journal.rows import from_text
from flowkit.journal.run import RunJournal, open_run
from flowkit.journal.sqlite.store import SqliteStore
from flowkit.journal.store import Commits, Filter, HeldRuns, JournalStore, RunPlace, WantedRun
from flowkit.stores.waiting import wait_in_thread

FOLLOW_POLL_S = 1.0
"""How often a follower polls, in addition to notifications."""
FOLLOW_ROWS = 1000


class Journal:
    """Runs that survive the process; raises `StoreError` when the file or the database can't be opened.

    `path` is a file, for the processes of one machine, or `postgresql://user@host:5432/database`, for those of many;
    the database has the tables that `flowkit journal migrate` makes. In a running event loop the constructor never
    waits for another process: the first use does, in a thread. The file and its blobs are readable for their owner only.
    Secrets in arguments are masked before the journal receives them.

    `events` selects the events to keep: all, all but the pieces of texts, arguments and progress (`"calls"`), or
    `"none"`. They are four fifths of what a journal stores. A follower in another process sees only the events that are
    kept. Resuming after a crash needs none of them.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        lease_s: float = RUN_LEASE_S,
        allow_network: bool = False,
        clock: Clock | None = None,
        events: KeptEvents = "all",
    ) -> None:
        if events not in ("all", "calls", "none"):
            raise ConfigurationError(f"events={events!r}: expected 'all', 'calls' or 'none'")
        clock, held = SystemClock() if clock is None else clock, HeldRuns()
        self._store = _open_store(path, clock, held, lease_s=lease_s, allow_network=allow_network)
        self._log = JournalLog(self._store, held, clock, lease_s=lease_s, events=events)

    def __repr__(self) -> str:
        return f"Journal({self.name!r})"

    @property
    def name(self) -> str:
        """The location for people to read: the file, or the database without its password."""
        return self._store.name

    @property
    def is_shared(self) -> bool:
        """Return whether it is in a database, which other machines may use too."""
        return self._store.is_shared

    @property
    def path(self) -> Path:
        """The file; raises `StoreError` for a journal in a database."""
        if not isinstance(self._store, SqliteStore):
            raise StoreError(f"the journal {self.name!r} is a database, no file")
        return self._store.path

    @property
    def commits(self) -> Commits:
        """The number of commits by this process, and of those that waited for the disk."""
        return self._store.commits

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
        kept: Mapping[str, str] | None = None,
    ) -> RunJournal:
        """Start this run, or resume it, as its only driver.

        A run that ended in one of the states `only_read` is opened for reading, and stays as it is. Without a
        `session` the run is found by user and id, in any session. Raises:

        - `RunBusy` while another process, or another open `RunJournal`, drives it.
        - `CodeChanged` when it began with other code and isn't over.
        - `RunError` when it began with other inputs, or when it `must_exist` and doesn't. `inputs=None` and
          `ignores_inputs` accept any inputs.

        `kept` are arguments that the inputs hide; they are removed when the run is over.
        """

        wanted = WantedRun(
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
            kept=kept,
        )
        return await open_run(self._log, wanted)

    async def add_spent(self, key: str, usd: float) -> float:
        """Add to the amount spent from a budget, atomically across processes; return the sum."""
        return await self._log.run(lambda: self._store.add_spent(key, usd))

    async def read_spent(self, key: str) -> float:
        """Return the amount spent from a budget."""
        return await self._log.run(lambda: self._store.read_spent(key))

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

        `user=None` lists the runs without a user; without the argument, the runs of all users are listed. `inner`
        includes the runs that calls of other runs started.
        """
        if cursor is not None and not cursor.isdecimal():
            raise ValueError(f"cursor={cursor!r}: expected the `cursor` of a summary that `runs` gave")

        before = None if cursor is None else int(cursor)
        return self._store.runs(Filter(status, session, user, before, inner, limit))

    def show(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> RunDetails | None:
        """Return a run in full; None if there is no such run. A claimed write without a driver is shown as in doubt."""
        return self._store.show(RunPlace(run_id, user, session))

    def events(
        self,
        run_id: str,
        after: int = -1,
        *,
        user: str | EllipsisType | None = ...,
        session: str | EllipsisType | None = ...,
    ) -> list[JSON]:
        """Return the events of a run with a `seq` above `after`, as `Event.to_json` wrote them."""
        rows = self._store.event_rows(RunPlace(run_id, user, session), after, None, None)
        return [from_text(body) for _, body in rows]

    def find(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> RunSummary | None:
        """Return a run as `runs` lists it; None if there is no such run."""
        return self._store.find(RunPlace(run_id, user, session))

    def last_seq(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> int:
        """Return the number of a run's last event; -1 where it has none."""
        last = self._store.last_seq(RunPlace(run_id, user, session))
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
        """Return the next events of a run after one of them, each with its JSON as it was written, its type first."""
        return self._store.event_rows(RunPlace(run_id, user, session), after, before, limit)

    def conversation(
        self, session: str, *, user: str | None = None, before: str | None = None, limit: int = 1000
    ) -> list[JSON]:
        """Return the messages of this user's session so far, oldest first; with `before`, those of the runs before that one.

        For a run that was killed or is in progress, the messages are rebuilt from its records.
        """
        last = None if before is None else RunPlace(before, user, session)
        return self._store.conversation(session, user, last, limit)

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

        Raises `RunError` when the call waits for no decision, or when it was already decided.
        """
        decision = Decision(approved, by, self._log.clock.wall(), reason, arguments)
        place = RunPlace(run_id, user, session)
        if not self._log.run_now(lambda: self._store.decide(place, node, decision)):
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
        """Resolve a write in doubt, from any process, while the run has no driver; return the updated record.

        Raises `RunBusy` when the run is driven, or when the call may still be running, `RunError` when the node isn't
        in doubt, or for `Retry` inside a call that has ended: nothing would run it again. The cached reads on its
        `resources` stay as they are: `cache.bump(…)` invalidates them.
        """
        place = RunPlace(run_id, user, session)
        if isinstance(resolution, Retry):
            check_runs_again(self._store, place, node)
        return self._log.run_now(lambda: self._store.settle(place, node, resolution, by))

    def stopped(self, limit: int = 100) -> list[RunSummary]:
        """List the runs to resume, oldest first: those that are queued or released, or whose process has died."""
        return self._store.stopped(limit)

    def requeue(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> bool:
        """Queue a run that waits or is in doubt, for the next driver; False where it does neither."""
        place = RunPlace(run_id, user, session)
        return self._log.run_now(lambda: self._store.change_status(place, "queued", ("waiting", "in_doubt")))

    def request_cancel(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> bool:
        """Request cancellation of this run from its driver, in any process; return False if it is over.

        The driver notices within about a second. A run without a driver is cancelled by the next process that opens it.
        """
        place = RunPlace(run_id, user, session)
        of = ("queued", "running", "waiting", "in_doubt", "cancelling")
        return self._log.run_now(lambda: self._store.change_status(place, "cancelling", of))

    def get_stats(self) -> JournalStats:
        """Count the runs, and measure the journal's size."""
        return self._store.stats()

    def delete(
        self, run_id: str, *, user: str | EllipsisType | None = ..., session: str | EllipsisType | None = ...
    ) -> bool:
        """Remove a run without a driver, and large results that are no longer referenced."""
        place = RunPlace(run_id, user, session)
        is_removed = self._log.run_now(lambda: self._store.delete(place))
        self._run_steps(self._store.tidy())
        return is_removed

    async def follow(
        self,
        run_id: str,
        after: int = -1,
        *,
        user: str | EllipsisType | None = ...,
        session: str | EllipsisType | None = ...,
    ) -> AsyncGenerator[JSON]:
        """Yield the events of a run with a `seq` above `after`, each once, as any process writes them.

        The generator stops after the last event of a run that has ended or waits, or if there is no such run. A run
        without a driver is waited for. Close the generator if you stop reading early.
        """
        loop, wanted = asyncio.get_running_loop(), RunPlace(run_id, user, session)
        news = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(news.set)

        stop: Callable[[], None] | None = None
        try:
            while True:
                news.clear()
                # Read the state first: events written between the two queries are then read now or in the next round.
                found = await wait_in_thread(self._store.find, wanted)
                if found is None:
                    return
                if stop is None:
                    stop = self._store.listen(found.number, wake)
                rows = await wait_in_thread(self._store.event_rows, wanted, after, None, FOLLOW_ROWS)
                for seq, body in rows:
                    after = seq
                    yield from_text(body)
                if not rows and found.status not in ("queued", "running", "cancelling"):
                    return
                if not rows:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), FOLLOW_POLL_S)
        finally:
            if stop is not None:
                stop()

    def listen(self, run: RunSummary, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake`, in any thread, soon after events of this run were written; call the returned function to stop.

        A journal in a file never calls it, and one in PostgreSQL not behind every pooler, so poll as well.
        """
        return self._store.listen(run.number, wake)

    def prune_events(self, older_than: float | timedelta) -> int:
        """Remove the events of runs that began that long ago; the runs, their results and messages stay.

        Events take most of a journal's space. On PostgreSQL whole days are dropped together, and partitions for the
        next days are added. Call it once a day, as a role that owns the tables.
        """
        older_than_s = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        count = self._run_steps(self._store.prune_events(older_than_s))
        self._run_steps(self._store.tidy())
        return count

    def prune(self, older_than: float | timedelta, *, unfinished: bool = False) -> int:
        """Remove the runs that ended that long ago, in seconds or as a `timedelta`; return how many.

        `unfinished` includes runs that were stopped, wait for a person, or are in doubt. The run's messages are removed
        from its session.
        """
        older_than_s = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        count = self._run_steps(self._store.prune(older_than_s, unfinished=unfinished))
        self._run_steps(self._store.tidy())
        return count

    def _run_steps(self, steps: Iterator[int]) -> int:
        """Run each step apart in the writer's thread: a driver then waits for none of them long."""
        count = 0
        while (step := self._log.run_now(lambda: next(steps, None))) is not None:
            count += step
        return count

    def leave(self) -> None:
        """Announce that this process stops: runs cancelled from now on are released, to be resumed elsewhere."""
        self._log.is_leaving = True

    @contextmanager
    def letting_go_of(self, run: RunIdentity) -> Generator[None]:
        """Release this one run if it is cancelled while the block lasts."""
        self._log.let_go_of.add(run)
        try:
            yield
        finally:
            self._log.let_go_of.discard(run)

    def close(self) -> None:
        """Write all pending changes and close the journal; blocks for as long as that takes."""
        self._log.close()


def migrate(url: str) -> str:
    """Create or update the tables of a journal in PostgreSQL, as `flowkit journal migrate` does; return the steps taken.

    Any number of processes may do so at once, while others write. Raises `StoreError` where the role may not.
    """
    if not is_url(url):
        raise ConfigurationError(f"the journal {url!r} is a file, which needs no migration")
    from flowkit.journal.postgres.schema import migrate as migrate_tables

    return migrate_tables(url)


def _open_store(path: str | Path, clock: Clock, held: HeldRuns, *, lease_s: float, allow_network: bool) -> JournalStore:
    """Open the store of a file, or of the database that a URL names."""
    text = str(path)
    if not is_url(path):
        check_address(path)
        return SqliteStore(
            Path(path).expanduser().absolute(), clock, held, lease_s=lease_s, allow_network=allow_network
        )
    if not text.startswith(("postgresql://", "postgres://")):
        scheme = text.partition("://")[0]
        raise ConfigurationError(f"a journal at {scheme}://: expected a file, or postgresql://user@host:5432/database")
    from flowkit.journal.postgres.store import PostgresStore

    return PostgresStore(text, clock, held, lease_s=lease_s)
