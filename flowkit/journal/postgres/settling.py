"""Decisions and resolutions by people in PostgreSQL, from any process; each may run twice if its answer is lost.

Changes of many runs are written together where possible.
An invalid change must not become an error of other runs. So a transaction that the server rejects for its data is
repeated with each change separately, and so is one that waits for a run during a takeover.
"""

import itertools
from collections.abc import Sequence

import psycopg

from flowkit.errors import FlowkitError, RunBusy, RunError, StoreError
from flowkit.journal.postgres.link import PostgresLink, Rows
from flowkit.journal.postgres.reading import RunReader, approvals_of, choose, find_runs
from flowkit.journal.postgres.session import DURABLE_S, Session, Text, may_pass
from flowkit.journal.postgres.texts import Times, bind
from flowkit.journal.postgres.writing import Batch, begin, key_of
from flowkit.journal.records import Approval, Decision, Recorded, Resolution, explain_running
from flowkit.journal.rows import decision_values, encode_value, read_approval_rows, to_column, to_text
from flowkit.journal.store import Changes, Put, RunPlace


def ask(
    link: PostgresLink, run: int, run_id: str, token: str, question: Approval, *, anew: bool
) -> dict[str, Approval]:
    """Record a request for a person's decision, unless the same one exists; return all requests of the run."""
    key, node, name = key_of(to_column(question.node)), to_column(question.node), to_column(question.name)
    arguments = to_text(question.arguments)
    other = "TRUE" if anew else "(a.arguments, a.name) IS DISTINCT FROM (excluded.arguments, excluded.name)"
    rows = link.run(
        begin(durable=True)
        + bind("; SELECT 1 FROM flowkit.run WHERE id = %s AND token = %s FOR SHARE; ", run, token)
        + bind(
            "INSERT INTO flowkit.approval AS a (run, key, node, name, arguments, asked)"
            " SELECT r.id, %s, %s, %s, %s, %s FROM flowkit.run r WHERE r.id = %s AND r.token = %s"
            " ON CONFLICT (run, key) DO UPDATE SET name = excluded.name, arguments = excluded.arguments,"
            " asked = excluded.asked, approved = NULL, by = NULL, at = NULL, reason = NULL, changed_arguments = NULL"
            f" WHERE {other}",
            key,
            node,
            name,
            arguments,
            question.asked_at,
            run,
            token,
        )
        + f"; {approvals_of(run)}; COMMIT",
        DURABLE_S,
    )
    if not rows[0]:
        raise explain_refused(run_id)
    return read_approval_rows(rows[1])


def decide(link: PostgresLink, run: int | RunPlace, node: str, decision: Decision) -> bool:
    """Decide a pending request; return False if there is no such request, or it was already decided."""
    number = choose(run, link.run(find_runs(run), DURABLE_S)[0]) if isinstance(run, RunPlace) else run
    if number is None:
        return False
    where = bind("run = %s AND key = %s", number, key_of(to_column(node)))
    values = decision_values(decision)
    change = bind("approved = %s, by = %s, at = %s, reason = %s, changed_arguments = %s", *values)
    changed, now = link.run(
        f"{begin(durable=True)}; UPDATE flowkit.approval SET {change} WHERE {where} AND approved IS NULL RETURNING run;"
        f" SELECT approved, by, at, reason, changed_arguments FROM flowkit.approval WHERE {where}; COMMIT",
        DURABLE_S,
    )
    # An earlier attempt decided it, but its answer was lost.
    return bool(changed) or now == [values]


class Settling:
    """Resolves one node, with one new token for the run."""

    def __init__(self, place: RunPlace, node: str, resolution: Resolution, by: str, token: str) -> None:
        self._place = place
        self._node = node
        self._resolution = resolution
        self._by = by
        self._token = token

    def run(self, link: PostgresLink, reader: RunReader, times: Times) -> Recorded:
        """Resolve it. Raises `psycopg.Error` when a retry may help, else the errors of `Journal.resolve`."""
        is_done = False
        try:
            record = self._settle(link, reader, times)
            is_done = True
        finally:
            if not is_done:
                link.roll_back()
        return record

    def _settle(self, link: PostgresLink, reader: RunReader, times: Times) -> Recorded:
        run_id, node = self._place.run_id, self._node
        number = choose(self._place, link.run(f"{begin(durable=True)}; {find_runs(self._place)}", DURABLE_S)[0])
        if number is None:
            raise RunError(f"run {run_id!r}: {node!r} isn't in doubt")
        # The driver locks the row while it writes; the next statement reads the result.
        locked = link.run(f"SELECT token FROM flowkit.run WHERE id = {number} FOR UPDATE", DURABLE_S)[0]
        *rows, last = link.run(
            "; ".join([*reader.details_of(number), f"SELECT max(position) FROM flowkit.node WHERE run = {number}"]),
            DURABLE_S,
        )
        details = reader.details(rows)
        before = None if details is None else details.nodes.get(node)
        if before is not None and locked == [(self._token,)]:
            return before  # the answer to an earlier attempt was lost
        if details is None or before is None or before.state not in ("in_doubt", "claimed"):
            raise RunError(f"run {run_id!r}: {node!r} isn't in doubt")
        if details.summary.is_held:
            raise RunBusy(f"run {run_id!r} is driven by another process")
        if before.lease.may_run(times.clock):
            raise RunBusy(f"run {run_id!r}: {explain_running(before)}")
        record = before.settle(self._resolution, self._by)
        batch = Batch(times)
        put = Put(record, encode_value(record.value, node), last[0][0] + 1)
        batch.add(Changes(number, run_id, self._token, nodes=(put,)))
        # A driver that was thought dead must not write over this.
        change = bind("UPDATE flowkit.run SET token = %s, fence = fence + 1 WHERE id = %s", self._token, number)
        link.run(f"{change}; {batch.to_text()}; COMMIT", DURABLE_S)
        return record


def explain_refused(run_id: str) -> RunBusy:
    """Make the error of a driver that has lost the run."""
    return RunBusy(f"run {run_id!r}: another process took over; nothing more is recorded from here")


BATCH_BYTES = 16 * 2**20
"""How much goes into one transaction."""


class Applier:
    """Writes changes through the writer's connection."""

    def __init__(self, session: Session, times: Times) -> None:
        self._writing = session
        self._times = times

    def apply(self, batch: Sequence[Changes], *, durable: bool) -> list[FlowkitError | None]:
        """Write them in their order; returns the error of each."""
        errors: list[FlowkitError | None] = [None] * len(batch)
        together, indexes = Batch(self._times), list[int]()
        for index, changes in enumerate(batch):
            if not together.takes(changes) or together.size > BATCH_BYTES:
                self._apply_together(batch, together, indexes, errors, durable=durable)
                together, indexes = Batch(self._times), []
            try:
                together.add(changes)
                indexes.append(index)
            except StoreError as error:
                errors[index] = error
        self._apply_together(batch, together, indexes, errors, durable=durable)
        return errors

    def _apply_together(
        self,
        batch: Sequence[Changes],
        together: Batch,
        indexes: Sequence[int],
        errors: list[FlowkitError | None],
        *,
        durable: bool,
    ) -> None:
        """Write a transaction, and note the errors of the changes in it; one that is refused for its data, each alone."""
        if not indexes:
            return

        times_made = itertools.count()

        def make(is_prepared: bool) -> str:
            # Made again, it may have been committed: the answer was lost, or the server crashed after it.
            text = together.to_text(is_prepared=is_prepared, is_repeated=next(times_made) > 0)
            return f"{begin(durable=durable)}; {text}; COMMIT"

        is_alone = len(indexes) == 1
        try:
            if is_alone:
                rows = self._writing.attempt(lambda _: self._writing.write(make, durable=durable))
            else:
                rows = self._writing.attempt(lambda _: self._write_or_split(make, durable=durable))
        except StoreError as error:
            for index in indexes:
                errors[index] = error
            return
        if rows is None:
            for index in indexes:
                one = Batch(self._times)
                one.add(batch[index])
                self._apply_together(batch, one, [index], errors, durable=durable)
            return
        ours: dict[int, str] = dict(rows[0])
        for index in indexes:
            changes = batch[index]
            if ours.get(changes.run) != changes.token:
                errors[index] = explain_refused(changes.run_id)

    def _write_or_split(self, make: Text, *, durable: bool) -> list[Rows] | None:
        """Write a transaction of several changes; None where a part of it is refused, or waits for another process."""
        try:
            return self._writing.write(make, durable=durable)
        except psycopg.errors.LockNotAvailable:
            return None
        except psycopg.Error as error:
            if may_pass(error) or error.sqlstate is None:
                raise
            return None
