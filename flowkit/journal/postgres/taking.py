"""Take over a run in PostgreSQL, in one transaction.

The run's token decides: the statement that sets a new token names the old one, so exactly one of several competing
takeovers succeeds. It waits until a batch of the run's driver has committed, because that batch has locked the row. A
separate statement then reads what the driver wrote, so that it sees the committed rows.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

from flowkit.errors import CodeChanged, RunBusy, RunError
from flowkit.journal.driver_lease import describe_holder
from flowkit.journal.postgres.link import PostgresLink, Rows
from flowkit.journal.postgres.reading import RunReader, choose, find_runs
from flowkit.journal.postgres.session import ANSWER_S
from flowkit.journal.postgres.texts import Times, bind
from flowkit.journal.postgres.writing import begin
from flowkit.journal.rows import from_text, place_text, to_column, to_optional_column, to_text
from flowkit.journal.store import OVER, SEQ_GAP, Taken, WantedRun

_COLUMNS = (
    "place, run_id, owner, session, parent, name, code, inputs, status, fence, token, holder, began, changed, day"
)
NUMBERS = 1000
"""More than what runs begin in the last 0.6 s of a server that crashes, on one journal that isn't overloaded."""


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """This process as a driver: its name, and how long its runs stay held after its last heartbeat."""

    holder: str
    lease_s: float
    times: Times

    @property
    def sign_of_life(self) -> str:
        """The statement that renews the lease. After a wait, so that the new lease is whole."""
        until = self.times.after(f"{self.lease_s!r}::float8")
        return bind(f"INSERT INTO flowkit.driver (holder, until) VALUES (%s, {until})", self.holder) + (
            f" ON CONFLICT (holder) DO UPDATE SET until = {until}"
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as it was before it was taken."""

    number: int
    code: str
    inputs: str
    status: str
    token: str | None
    holder: str | None
    is_held: bool


class Taking:
    """One attempt after another to take a run, with one new token."""

    def __init__(self, wanted: WantedRun, token: str, reader: RunReader, driver: LeaseHolder) -> None:
        self._wanted = wanted
        self._token = token
        self._reader = reader
        self._driver = driver
        self._replay = ""

    @property
    def replay(self) -> str:
        """A transaction that repeats the takeover if the server loses it in a crash; empty where nothing was written."""
        return self._replay

    def run(self, link: PostgresLink) -> Taken:
        """Take it. Raises `psycopg.Error` when a retry may help, else the errors of `Journal.open_run`."""
        is_done = False
        try:
            taken = self._take(link)
            link.run("COMMIT", ANSWER_S)
            is_done = True
        finally:
            if not is_done:
                link.roll_back()
        return taken

    def _take(self, link: PostgresLink) -> Taken:
        wanted = self._wanted
        seen = self._look(link)
        if seen is None:
            if wanted.must_exist:
                raise RunError(f"there is no run {wanted.run_id!r} to resume; pass a message to start one")
            number = self._begin(link)
            if number is None and (seen := self._look(link)) is None:
                # A server that crashed, or a promoted standby, may give numbers again that it gave before.
                number = self._begin(link, numbers=NUMBERS)
            if number is not None:
                return self._read(link, number, token=self._token, is_new=True, was_held=False)
            seen = seen or self._look(link)
            if seen is None:
                raise RunBusy(f"run {wanted.run_id!r} was begun and removed by another process at this moment")
        if seen.token == self._token:
            # The answer to an earlier attempt was lost.
            return self._read(link, seen.number, token=self._token, is_new=False, was_held=False)
        return self._take_over(link, seen)

    def _look(self, link: PostgresLink) -> Seen | None:
        columns = f"id, owner, session, code, inputs, status, token, holder, {self._reader.is_driven}"
        find = find_runs(self._wanted.place, columns)
        rows: Rows = link.run(f"{begin(durable=False)}; {find}" if not link.is_in_transaction else find, ANSWER_S)[0]
        number = choose(self._wanted.place, [(row[0], row[1], row[2]) for row in rows])
        if number is None:
            return None
        _, _, _, code, inputs, status, token, holder, is_driven = rows[0]
        is_held = self._reader.is_held(number, holder, is_driven=is_driven)
        return Seen(number, code, inputs, status, token, holder, is_held)

    def _begin(self, link: PostgresLink, *, numbers: int = 1) -> int | None:
        """Insert the run under the first free one of the sequence's next `numbers`; None if there is none."""
        wanted, now = self._wanted, self._driver.times.now
        place = place_text(wanted.user, wanted.session, wanted.run_id)
        values = bind(
            "%s, %s, %s, %s, %s, %s, %s, %s, 'running', 1, %s, %s",
            sha256(place.encode()).hexdigest(),
            to_column(wanted.run_id),
            to_optional_column(wanted.user),
            to_optional_column(wanted.session),
            wanted.parent,
            to_column(wanted.name),
            to_column(wanted.code),
            to_text(wanted.inputs),
            self._token,
            self._driver.holder,
        )
        values = f"{values}, {now}, {now}, ({now} AT TIME ZONE 'UTC')::date"
        found = f"VALUES ({values})" if numbers == 1 else f"SELECT {values} FROM generate_series(1, {numbers})"
        rows = link.run(
            f"INSERT INTO flowkit.run ({_COLUMNS}) {found} ON CONFLICT DO NOTHING RETURNING id;"
            f" {self._driver.sign_of_life}",
            ANSWER_S,
        )[0]
        if not rows:
            return None
        number: int = rows[0][0]
        keep = ""
        if wanted.kept:
            kept = bind("(%s, 0, %s)", number, to_text(dict(wanted.kept)))
            keep = f" INSERT INTO flowkit.kept (run, turn, arguments) VALUES {kept} ON CONFLICT DO NOTHING;"
            link.run(keep, ANSWER_S)
        self._replay = (
            f"{begin(durable=False)};"
            f" INSERT INTO flowkit.run (id, {_COLUMNS}) VALUES ({number}, {values}) ON CONFLICT DO NOTHING;"
            f"{keep} {self._driver.sign_of_life}; COMMIT"
        )
        return number

    def _take_over(self, link: PostgresLink, seen: Seen) -> Taken:
        wanted = self._wanted
        if seen.is_held:
            raise RunBusy(f"run {wanted.run_id!r} is driven by another process: {describe_holder(seen.holder)}")
        is_over = seen.status in OVER
        if seen.code != to_column(wanted.code) and not is_over and not wanted.allow_changed:
            raise CodeChanged(f"run {wanted.run_id!r} began with other code; pass allow_changed=True to resume it")
        if not wanted.ignores_inputs and wanted.inputs is not None and from_text(seen.inputs) != wanted.inputs:
            raise RunError(f"run {wanted.run_id!r} began with other inputs")
        if seen.status in wanted.only_read:
            return self._read(link, seen.number, token=None, is_new=False, was_held=seen.holder is not None)
        again = ""
        if not is_over:
            # The messages recorded when it started waiting are no longer complete.
            again = bind(
                ", status = CASE status WHEN 'cancelling' THEN status ELSE 'running' END, messages = NULL, code = %s,"
                f" changed = {self._driver.times.now}",
                to_column(wanted.code),
            )
        change = bind(
            "UPDATE flowkit.run SET token = %s, holder = %s, fence = fence + 1", self._token, self._driver.holder
        )
        where = bind(" WHERE id = %s AND token IS NOT DISTINCT FROM %s", seen.number, seen.token)
        # A process that had the run, and gave a sign of life since it was looked at, has it still.
        is_free = f" AND (NOT {self._reader.is_driven} OR {bind('holder = %s', self._driver.holder)})"
        rows = link.run(f"{change}{again}{where}{is_free} RETURNING id", ANSWER_S)[0]
        if not rows:
            raise RunBusy(f"run {wanted.run_id!r} is driven by another process, which took it just now")
        doubt = bind(
            "UPDATE flowkit.node SET state = 'in_doubt' WHERE run = %s AND state = 'claimed' AND effect = 'write'"
            " AND EXISTS (SELECT 1 FROM flowkit.run WHERE id = %s AND token = %s)",
            seen.number,
            seen.number,
            self._token,
        )
        link.run(f"{doubt}; {self._driver.sign_of_life}", ANSWER_S)
        self._replay = f"{begin(durable=False)}; {change}{again}{where}; {doubt}; {self._driver.sign_of_life}; COMMIT"
        return self._read(link, seen.number, token=self._token, is_new=False, was_held=seen.holder is not None)

    def _read(self, link: PostgresLink, number: int, *, token: str | None, is_new: bool, was_held: bool) -> Taken:
        statements = (
            *self._reader.details_of(number),
            f"SELECT (SELECT max(e.seq) FROM flowkit.event e WHERE e.run = r.id AND e.day = r.day),"
            f" (SELECT max(position) FROM flowkit.node WHERE run = r.id) FROM flowkit.run r WHERE r.id = {number}",
            f"SELECT turn, arguments FROM flowkit.kept WHERE run = {number}",
        )
        *rows, [(last_seq, position)], kept = link.run("; ".join(statements), ANSWER_S)
        details = self._reader.details(rows)
        assert details is not None, "its row was found or written above"
        first_seq = (-1 if last_seq is None else last_seq) + 1 + (SEQ_GAP if was_held else 0)
        hidden: dict[int, Any] = {turn: cast("dict[str, str]", from_text(arguments)) for turn, arguments in kept}
        return Taken(details, token, first_seq, position or 0, is_new, hidden)
