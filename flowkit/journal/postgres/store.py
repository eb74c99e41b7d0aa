"""`JournalStore` over a PostgreSQL database.

A process has two connections: one for the writer, one for readers. The server's clock and tokens decide who drives a
run: each process sends one heartbeat for all of its runs, and each opening of a run gives it a random token, which all
of its writes must present. A counter would suffice for a single server, but after a failover to a lagging standby two
drivers could get the same number.

A tool's write waits for two durable commits. A crash of the server may lose other commits, so those are written again
when it is back.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from secrets import token_hex
from typing import TypeVar

import psycopg

from flowkit.clock import Clock, SystemClock
from flowkit.codec import JSON
from flowkit.errors import FlowkitError, RunBusy, StoreError
from flowkit.journal.postgres import settling
from flowkit.journal.postgres.address import read_address, warn_if_unchecked
from flowkit.journal.postgres.link import PostgresLink
from flowkit.journal.postgres.listening import Bell, Listener
from flowkit.journal.postgres.reading import RunReader, approvals_of, choose, find_runs, read_asked
from flowkit.journal.postgres.schema import check_version, read_version
from flowkit.journal.postgres.session import Session, explain_fault
from flowkit.journal.postgres.settling import Applier
from flowkit.journal.postgres.taking import LeaseHolder, Taking
from flowkit.journal.postgres.texts import Times, bind
from flowkit.journal.postgres.upkeep import PostgresUpkeep
from flowkit.journal.postgres.writing import begin, key_of, make_statements
from flowkit.journal.records import (
    Approval,
    Decision,
    JournalStats,
    Recorded,
    Resolution,
    RunDetails,
    RunState,
    RunSummary,
)
from flowkit.journal.store import DOUBT_INSIDE, Changes, Commits, Filter, HeldRuns, RunPlace, Taken, WantedRun

T = TypeVar("T")
DAYS_KNOWN = 10_000
logger = logging.getLogger("flowkit.journal")


class PostgresStore:
    """The database, as one process uses it."""

    is_shared = True

    def __init__(self, url: str, clock: Clock, held: HeldRuns, *, lease_s: float) -> None:
        self._address = read_address(url)
        self._clock = clock
        self._held = held
        self._lease_s = lease_s
        self._times = Times(clock)
        self._holder, self._pid = _name_process(), os.getpid()
        # A clock of a test is written into the statements.
        statements = make_statements(self._times.now) if isinstance(clock, SystemClock) else ()
        self._writing = Session(self._address, what="written", statements=statements)
        self._reading = Session(self._address, what="read")
        self._listener = Listener(self._address)
        self._days: dict[int, str] = {}
        """The partition of each run's events."""
        self._lock = threading.Lock()
        """Of the reader's connection."""
        self._opening = threading.Lock()
        self._is_open = False
        self._applier = Applier(self._writing, self._times)
        self._bell = Bell(self._writing)

    @property
    def name(self) -> str:
        return self._address.name

    @property
    def commits(self) -> Commits:
        return self._writing.commits

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def holder(self) -> str:
        self._notice_fork()
        return self._holder

    def try_open(self) -> bool:
        return False

    def open(self) -> None:
        if self._is_open:
            return
        self._notice_fork()
        with self._opening:
            if not self._is_open:
                warn_if_unchecked(self._address)
                try:
                    self._read(self._check, is_opening=True)
                except StoreError:
                    self._reading.close()
                    raise
                self._is_open = True

    # From the writer's thread

    def take(self, wanted: WantedRun) -> Taken:
        taking = Taking(wanted, token_hex(16), self._reader, self._driver)
        taken = self._write(taking.run)
        if taken.token is not None:
            self._held.tokens[taken.details.summary.number] = taken.token
            self._writing.count(durable=False)
            if taking.replay:
                self._writing.keep(lambda _: taking.replay, len(taking.replay))
        return taken

    def apply(self, batch: Sequence[Changes], *, durable: bool) -> list[FlowkitError | None]:
        self.open()
        errors = self._applier.apply(batch, durable=durable)
        self._bell.add(changes for changes, error in zip(batch, errors, strict=True) if error is None)
        return errors

    def ask(self, run: int, run_id: str, token: str, question: Approval, *, anew: bool) -> dict[str, Approval]:
        asked = self._write(lambda link: settling.ask(link, run, run_id, token, question, anew=anew))
        self._writing.count(durable=True)
        return asked

    def decide(self, run: int | RunPlace, node: str, decision: Decision) -> bool:
        is_decided = self._write(lambda link: settling.decide(link, run, node, decision))
        self._writing.count(durable=True)
        return is_decided

    def settle(self, place: RunPlace, node: str, resolution: Resolution, by: str) -> Recorded:
        one = settling.Settling(place, node, resolution, by, token_hex(16))
        record = self._write(lambda link: one.run(link, self._reader, self._times))
        self._writing.count(durable=True)
        return record

    def change_status(self, place: RunPlace, status: RunState, of: Collection[RunState]) -> bool:
        listed = ", ".join(bind("%s", state) for state in of)
        # Change the token if the run has no driver: its last driver must not repeat its writes over this one.
        change = bind(
            "UPDATE flowkit.run SET status = %s, token = CASE WHEN holder IS NULL THEN %s ELSE token END,"
            f" changed = {self._times.now} WHERE status IN ({listed})",
            status,
            token_hex(16),
        )

        def write(link: PostgresLink) -> bool:
            number = self._reader.find(link, place)
            rows = link.run(f"{begin(durable=True)}; {change}{bind(' AND id = %s', number)} RETURNING id; COMMIT", 30.0)
            return bool(rows[0])

        is_changed = self._write(write)
        self._writing.count(durable=True)
        return is_changed

    def add_spent(self, key: str, usd: float) -> float:
        added = bind(
            f"INSERT INTO flowkit.spent AS old (key, budget, usd, changed) VALUES (%s, %s, %s, {self._times.now})"
            " ON CONFLICT (key) DO UPDATE SET usd = old.usd + excluded.usd, changed = excluded.changed RETURNING usd",
            key_of(key),
            key,
            usd,
        )
        rows = self._write(lambda link: link.run(f"{begin(durable=False)}; {added}; COMMIT", 30.0))
        self._writing.count(durable=False)
        return rows[0][0][0]

    def read_spent(self, key: str) -> float:
        found = bind("SELECT usd FROM flowkit.spent WHERE key = %s", key_of(key))
        rows = self._read(lambda link: link.run(found, 30.0))
        return rows[0][0][0] if rows[0] else 0.0

    def announce(self) -> None:
        self._bell.ring_if_due()

    def renew(self) -> None:
        self._bell.ring()
        held, unreleased = self._held.tokens, dict(self._held.unreleased)
        if not held and not unreleased:
            return
        statements = [begin(durable=False)]
        if held:
            statements.append(self._driver.sign_of_life)
        # Not NULL: it tells the next driver that some events of the run may be lost.
        statements += [
            bind("UPDATE flowkit.run SET holder = '' WHERE id = %s AND token = %s", run, token)
            for run, token in sorted(unreleased.items())
        ]
        try:
            self._writing.once(lambda link: link.run("; ".join([*statements, "COMMIT"]), 10.0))
        except psycopg.Error as error:
            logger.warning("%s", explain_fault(error, self._address, "written (a sign of life)"))
            return
        for run in unreleased:
            self._held.unreleased.pop(run, None)

    def delete(self, place: RunPlace) -> bool:
        number = self._read(lambda link: self._reader.find(link, place))
        if number is None:
            return False
        is_removed = self._write(lambda link: self._upkeep.remove(link, f"id = {number}")) == 1
        if not is_removed and self._read(lambda link: self._reader.find(link, place)) is not None:
            raise RunBusy(f"run {place.run_id!r} is driven by another process")
        return is_removed

    def prune(self, older_than_s: float, *, unfinished: bool) -> Iterator[int]:
        return self._upkeep.prune(older_than_s, unfinished=unfinished)

    def prune_events(self, older_than_s: float) -> Iterator[int]:
        return self._upkeep.prune_events(older_than_s)

    def tidy(self) -> Iterator[int]:
        return self._upkeep.tidy()

    def close_writer(self) -> None:
        self._writing.close()

    def close(self) -> None:
        self._listener.close()
        with self._lock:
            self._reading.close()

    # From any thread

    def approvals(self, run: int) -> dict[str, Approval]:
        return self._read(lambda link: read_asked(self._reader.read(link, approvals_of(run))[0]))

    def show(self, place: RunPlace) -> RunDetails | None:
        def read(link: PostgresLink) -> RunDetails | None:
            number = self._reader.find(link, place)
            return None if number is None else self._reader.show(link, number)

        return self._read(read)

    def find(self, place: RunPlace) -> RunSummary | None:
        def read(link: PostgresLink) -> RunSummary | None:
            (rows,) = self._reader.read(link, find_runs(place, self._reader.summary_columns))
            number = choose(place, [(row[0], row[5], row[6]) for row in rows])
            return None if number is None else self._reader.summaries(rows)[0]

        return self._read(read)

    def has_doubt_inside(self, run: int) -> bool:
        query = DOUBT_INSIDE.format(run="flowkit.run", node="flowkit.node", number=run)
        return bool(self._read(lambda link: self._reader.read(link, query)[0]))

    def runs(self, chosen: Filter) -> list[RunSummary]:
        return self._read(
            lambda link: self._reader.summaries(self._reader.read(link, self._reader.list_runs(chosen))[0])
        )

    def stopped(self, limit: int) -> list[RunSummary]:
        return self._read(
            lambda link: self._reader.summaries(self._reader.read(link, self._reader.list_stopped(limit))[0])
        )

    def event_rows(self, place: RunPlace, after: int, before: int | None, limit: int | None) -> list[tuple[int, str]]:
        until = "" if before is None else f" AND e.seq < {before}"
        at_most = "" if limit is None else f" LIMIT {limit}"

        def read(link: PostgresLink) -> list[tuple[int, str]]:
            number = self._reader.find(link, place)
            if number is None:
                return []
            if number not in self._days:
                (days,) = self._reader.read(link, f"SELECT day::text FROM flowkit.run WHERE id = {number}")
                if len(self._days) >= DAYS_KNOWN:
                    self._days.clear()
                if not days:
                    return []
                self._days[number] = days[0][0]
            # With the day as a constant one partition is looked at, and only that one is locked.
            (rows,) = self._reader.read(
                link,
                f"SELECT e.seq, e.body FROM flowkit.event e WHERE e.run = {number} AND e.day = '{self._days[number]}'"
                f" AND e.seq > {after}{until} ORDER BY e.seq{at_most}",
            )
            return [(seq, body) for seq, body in rows]

        return self._read(read)

    def last_seq(self, place: RunPlace) -> int | None:
        def read(link: PostgresLink) -> int | None:
            number = self._reader.find(link, place)
            (rows,) = self._reader.read(
                link,
                "SELECT max(e.seq) FROM flowkit.event e JOIN flowkit.run r ON e.run = r.id AND e.day = r.day"
                + bind(" WHERE r.id = %s", number),
            )
            return rows[0][0]

        return self._read(read)

    def conversation(self, session: str, user: str | None, before: int | RunPlace | None, limit: int) -> list[JSON]:
        def read(link: PostgresLink) -> list[JSON]:
            last = self._reader.find(link, before) if isinstance(before, RunPlace) else before
            if before is not None and last is None:
                return []
            return self._reader.conversation(link, session, user, last, limit)

        return self._read(read)

    def listen(self, run: int, wake: Callable[[], None]) -> Callable[[], None]:
        return self._listener.listen(run, wake)

    def stats(self) -> JournalStats:
        return self._read(self._upkeep.stats)

    @property
    def _reader(self) -> RunReader:
        return RunReader(self._times, self.holder, self._held)

    @property
    def _driver(self) -> LeaseHolder:
        return LeaseHolder(self.holder, self._lease_s, self._times)

    @property
    def _upkeep(self) -> PostgresUpkeep:
        return PostgresUpkeep(self._writing, self._reader, self._times, self._address)

    def _read(self, operation: Callable[[PostgresLink], T], *, is_opening: bool = False) -> T:
        if not is_opening:
            self.open()
        self._notice_fork()
        with self._lock:
            return self._reading.attempt(operation)

    def _write(self, operation: Callable[[PostgresLink], T]) -> T:
        self.open()
        return self._writing.attempt(operation)

    def _check(self, link: PostgresLink) -> None:
        check_version(read_version(link, self._address), self._address)
        (encoding, standbys, names) = link.run(
            "SELECT current_setting('server_encoding'), (SELECT count(*) FROM pg_stat_replication),"
            " current_setting('synchronous_standby_names')",
            30.0,
        )[0][0]
        if encoding != "UTF8":
            raise StoreError(f"the journal {self.name!r} is in the encoding {encoding}, and must be in UTF8")
        if standbys and not names:
            logger.warning(
                "the journal %s has a standby that it doesn't wait for: after a fail-over to it, what was claimed since"
                " the last that it got is lost, and such a write may run again; synchronous_standby_names prevents that",
                self.name,
            )

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._holder = os.getpid(), _name_process()
            self._held.notice_fork()
            self._lock, self._opening = threading.Lock(), threading.Lock()
            self._bell = Bell(self._writing)


def _name_process() -> str:
    """Name this process as a holder: the random part makes it unique, the rest is for people."""
    return f"{socket.gethostname()}:{os.getpid()}:{token_hex(8)}"
