"""Keep a journal in PostgreSQL small, in transactions of bounded size.

Four fifths of the rows are events. Each day has a partition for the events of the runs that started on it. Dropping a
partition is immediate; deleting the rows would take ten times as long and wouldn't free the space.
"""

from collections.abc import Iterator
from datetime import date, timedelta

import psycopg

from flowkit.errors import StoreError
from flowkit.journal.postgres.address import Address
from flowkit.journal.postgres.link import PostgresLink
from flowkit.journal.postgres.reading import RunReader
from flowkit.journal.postgres.schema import MIGRATE_S, add_partitions, list_partitions, patiently
from flowkit.journal.postgres.session import ANSWER_S, Session
from flowkit.journal.postgres.texts import Times
from flowkit.journal.postgres.writing import begin
from flowkit.journal.records import JournalStats
from flowkit.journal.store import OVER

RUNS_AT_ONCE = 500
BLOBS_AT_ONCE = 500
UNUSED_BLOB_S = 3600
UNUSED_DRIVER_S = 86_400
OF_A_RUN = ("node", "turn", "kept", "approval")


class PostgresUpkeep:
    """Counts and removes runs."""

    def __init__(self, session: Session, reader: RunReader, times: Times, address: Address) -> None:
        self._session = session
        self._reader = reader
        self._times = times
        self._address = address

    def stats(self, link: PostgresLink) -> JournalStats:
        """Return the size of the journal."""
        stopped = f"status = 'running' AND NOT {self._reader.is_driven}"
        counts, [(oldest, size, blobs)] = self._reader.read(
            link,
            f"SELECT CASE WHEN {stopped} THEN 'stopped' ELSE status END AS state, count(*) FROM flowkit.run"
            " WHERE parent IS NULL GROUP BY state ORDER BY state",
            "SELECT (SELECT extract(epoch FROM min(began))::float8 FROM flowkit.run),"
            " (SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
            " WHERE relnamespace = 'flowkit'::regnamespace AND relkind = 'r')::bigint,"
            " (SELECT coalesce(sum(length(data)), 0) FROM flowkit.blob)::bigint",
        )
        return JournalStats(dict(counts), oldest, size, blobs)

    def remove(self, link: PostgresLink, condition: str) -> int:
        """Remove the runs matching this condition that have no driver, and the runs that their calls started; return how many."""
        try:
            return self._remove(link, condition)
        finally:
            link.roll_back()

    def _remove(self, link: PostgresLink, condition: str) -> int:
        (rows,) = link.run(
            f"{begin(durable=True)}; SELECT id FROM flowkit.run WHERE {condition} AND NOT {self._reader.is_driven}"
            f" ORDER BY id LIMIT {RUNS_AT_ONCE} FOR UPDATE SKIP LOCKED",
            ANSWER_S,
        )
        runs = [run for (run,) in rows]
        pending = runs
        while pending:
            listed = ", ".join(map(str, pending))
            statements = [f"DELETE FROM flowkit.{table} WHERE run IN ({listed})" for table in OF_A_RUN]
            statements.append(
                f"DELETE FROM flowkit.event e USING flowkit.run r WHERE r.id IN ({listed}) AND e.run = r.id AND e.day = r.day"
            )
            statements.append(f"DELETE FROM flowkit.run WHERE id IN ({listed})")
            statements.append(f"SELECT id FROM flowkit.run WHERE parent IN ({listed})")
            pending = [run for (run,) in link.run("; ".join(statements), ANSWER_S)[0]]
        link.run("COMMIT", ANSWER_S)
        return len(runs)

    def prune(self, older_than_s: float, *, unfinished: bool) -> Iterator[int]:
        """Remove the runs unchanged for that long; unfinished ones only with `unfinished`."""
        condition = f"changed < {self._times.after(f'{-older_than_s!r}::float8')} AND parent IS NULL"
        if not unfinished:
            condition += f" AND status IN {OVER}"
        count = RUNS_AT_ONCE
        while count == RUNS_AT_ONCE:
            count = self._session.attempt(lambda link: self.remove(link, condition))
            yield count

    def prune_events(self, older_than_s: float) -> Iterator[int]:
        """Drop the days whose events all belong to runs that began that long ago, and add partitions for the next days."""
        session = self._session
        (last,) = session.attempt(
            lambda link: link.run(
                f"SELECT (({self._times.after(f'{-older_than_s!r}::float8')}) AT TIME ZONE 'UTC')::date::text",
                MIGRATE_S,
            )
        )[0][0]
        before = date.fromisoformat(last)
        for day, name in sorted(session.attempt(list_partitions).items()):
            if day + timedelta(days=1) <= before:
                (count,) = session.attempt(
                    lambda link, name=name: link.run(f"SELECT count(*) FROM flowkit.{name}", ANSWER_S)
                )[0][0]
                session.attempt(lambda link, name=name: self._drop(link, name))
                yield count
        rest = f"DELETE FROM flowkit.event_rest WHERE day < '{before}' RETURNING 1"
        yield len(session.attempt(lambda link: link.run(rest, ANSWER_S))[0])
        session.attempt(lambda link: add_partitions(link, self._address))

    def tidy(self) -> Iterator[int]:
        """Remove large results that no run names, and processes that are gone."""
        now = self._times.now
        self._session.attempt(
            lambda link: link.run(
                f"DELETE FROM flowkit.driver WHERE until < {now} - interval '{UNUSED_DRIVER_S} s'", ANSWER_S
            )
        )
        count = BLOBS_AT_ONCE
        while count == BLOBS_AT_ONCE:
            count = len(
                self._session.attempt(
                    lambda link: link.run(
                        "DELETE FROM flowkit.blob WHERE name IN (SELECT b.name FROM flowkit.blob b"
                        f" WHERE b.used < {now} - interval '{UNUSED_BLOB_S} s'"
                        " AND NOT EXISTS (SELECT 1 FROM flowkit.node n WHERE n.blob = b.name)"
                        f" ORDER BY b.name LIMIT {BLOBS_AT_ONCE} FOR UPDATE SKIP LOCKED) RETURNING name",
                        ANSWER_S,
                    )
                )[0]
            )
            yield 0

    def _drop(self, link: PostgresLink, table: str) -> bool:
        try:
            return patiently(link, self._address, f"DROP TABLE IF EXISTS flowkit.{table}")
        except psycopg.errors.InsufficientPrivilege:
            raise StoreError(
                f"the journal {self._address.name!r}: days of events are removed by the role that owns the tables, which"
                " is the one that ran `flowkit journal migrate`"
            ) from None
