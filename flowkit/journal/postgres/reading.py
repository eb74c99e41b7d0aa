"""A journal in PostgreSQL as its readers see it; statements, and their rows as values."""

from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Any

from flowkit.codec import JSON
from flowkit.journal.postgres.link import PostgresLink, Rows
from flowkit.journal.postgres.texts import Times, bind
from flowkit.journal.records import Approval, RecordedTurn, RunDetails, RunSummary
from flowkit.journal.rows import (
    APPROVAL_COLUMNS,
    RECORD_COLUMNS,
    from_column,
    from_optional_column,
    from_text,
    read_approval_rows,
    read_list,
    read_record,
    show_doubt,
    to_column,
    to_optional_column,
)
from flowkit.journal.store import UNFINISHED, Filter, HeldRuns, RunPlace, describe_several
from flowkit.journal.unfinished_messages import recall

READ_S = 40.0
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '30s'"
"""Statements in one transaction read the same snapshot."""


class RunReader:
    """Reads runs through a connection; `holder` is this process, and `held` are the runs that it holds."""

    def __init__(self, times: Times, holder: str, held: HeldRuns) -> None:
        self._times = times
        self._holder = holder
        self._held = held

    def read(self, link: PostgresLink, *statements: str) -> list[Rows]:
        """Run statements on one state of the journal."""
        return link.run("; ".join([BEGIN, *statements, "COMMIT"]), READ_S)

    def find(self, link: PostgresLink, place: RunPlace) -> int | None:
        """Find the number of the run at this place.

        None when there is none. Raises `RunError` when there are several.
        """
        return choose(place, self.read(link, find_runs(place))[0])

    @property
    def summary_columns(self) -> str:
        """A run as a list shows it, and whether a driver that may be alive has it."""
        return (
            "id, parent, run_id, name, status, owner, session, extract(epoch FROM began)::float8,"
            f" extract(epoch FROM changed)::float8, error, holder, {self.is_driven}"
        )

    @property
    def is_driven(self) -> str:
        """Return whether the lease of the process that holds the run in this row is still valid."""
        return f"EXISTS (SELECT 1 FROM flowkit.driver d WHERE d.holder = run.holder AND d.until > {self._times.now})"

    def is_held(self, run: int, holder: str | None, *, is_driven: bool) -> bool:
        """Return whether a driver has the run: not one that this process released, even if that isn't written yet."""
        return is_driven and not (holder == self._holder and run not in self._held.tokens)

    def summaries(self, rows: Iterable[tuple[Any, ...]]) -> list[RunSummary]:
        """Read runs from rows of `summary_columns`."""
        return [
            RunSummary(
                run_id=from_column(run_id),
                name=from_column(name),
                status=status,
                user=from_optional_column(owner),
                session=from_optional_column(session),
                began_at=began,
                changed_at=changed,
                error=from_optional_column(error),
                is_held=self.is_held(number, holder, is_driven=is_driven),
                number=number,
                parent=parent,
            )
            for number, parent, run_id, name, status, owner, session, began, changed, error, holder, is_driven in rows
        ]

    def list_runs(self, chosen: Filter) -> str:
        """Return the statement for a list of runs, newest first."""
        conditions = ["TRUE"]
        if chosen.status is not None:
            conditions.append(bind("status = %s", chosen.status))
        if chosen.session is not None:
            conditions.append(is_text("session", chosen.session))
        if not isinstance(chosen.user, EllipsisType):
            conditions.append(is_text("owner", chosen.user))
        if chosen.before is not None:
            conditions.append(bind("id < %s", chosen.before))
        if not chosen.inner:
            conditions.append("parent IS NULL")
        return (
            f"SELECT {self.summary_columns} FROM flowkit.run WHERE {' AND '.join(conditions)}"
            f" ORDER BY id DESC LIMIT {chosen.limit}"
        )

    def list_stopped(self, limit: int) -> str:
        """Return the statement for the runs to resume that have no driver, oldest first."""
        mine = bind("holder = %s", self._holder)
        held = ", ".join(map(str, list(self._held.tokens))) or "0"
        return (
            f"SELECT {self.summary_columns} FROM flowkit.run WHERE {UNFINISHED} AND parent IS NULL"
            f" AND (NOT {self.is_driven} OR ({mine} AND id NOT IN ({held}))) ORDER BY id LIMIT {limit}"
        )

    def details_of(self, run: int) -> Sequence[str]:
        """Return the statements that `details` reads."""
        records = ", ".join(f"n.{name}" for name in RECORD_COLUMNS.split(", "))
        return (
            f"SELECT {self.summary_columns}, code, inputs, output, messages FROM flowkit.run WHERE id = {run}",
            f"SELECT extract(epoch FROM n.deadline - {self._times.now})::float8, b.data, {records} FROM flowkit.node n"
            f" LEFT JOIN flowkit.blob b ON b.name = n.blob WHERE n.run = {run} ORDER BY n.position",
            f"SELECT turn, message FROM flowkit.turn WHERE run = {run} ORDER BY turn",
            approvals_of(run),
        )

    def details(self, rows: Sequence[Rows]) -> RunDetails | None:
        """Read a run in full, from the rows of `details_of`."""
        (runs, nodes, turns, approvals) = rows
        if not runs:
            return None
        *summary, code, inputs, output, messages = runs[0]
        found = (
            read_record(columns, self._times.read_lease(remaining_s), lambda _, data=data: data)
            for remaining_s, data, *columns in nodes
        )
        return RunDetails(
            summary=self.summaries([tuple(summary)])[0],
            code=from_column(code),
            inputs=from_text(inputs),
            output=from_text(output),
            messages=tuple(read_list(messages)),
            nodes={record.node: record for record in found if record is not None},
            turns=tuple(RecordedTurn(turn, from_text(message)) for turn, message in turns),
            approvals=read_approval_rows(approvals),
        )

    def show(self, link: PostgresLink, run: int) -> RunDetails | None:
        """Return a run in full, with a claimed write without a driver shown as in doubt."""
        found = self.details(self.read(link, *self.details_of(run)))
        return None if found is None else show_doubt(found)

    def conversation(
        self, link: PostgresLink, session: str, user: str | None, before: int | None, limit: int
    ) -> list[JSON]:
        """Return the messages of the session's last runs, or of the last before one of them, oldest first."""
        until = "" if before is None else f" AND id < {before}"
        (rows,) = self.read(
            link,
            f"SELECT id, messages FROM flowkit.run WHERE {is_text('session', session)} AND {is_text('owner', user)}"
            f" AND parent IS NULL{until} ORDER BY id DESC LIMIT {limit}",
        )
        messages: list[JSON] = []
        for run, said in reversed(rows):
            if said is not None:
                messages += read_list(said)
            elif (found := self.show(link, run)) is not None:
                messages += recall(found)
        return messages


def approvals_of(run: int) -> str:
    """Return the statement for the requests of a run, oldest first."""
    return f"SELECT {APPROVAL_COLUMNS} FROM flowkit.approval WHERE run = {run} ORDER BY asked"


def read_asked(rows: Rows) -> dict[str, Approval]:
    """Read the requests from the rows of `approvals_of`."""
    return read_approval_rows(rows)


def is_text(column: str, value: str | None) -> str:
    """Return the condition that a long text is this one, using the index of its first characters."""
    if value is None:
        return f"{column} IS NULL"
    text = to_column(value)
    return bind(f"left({column}, 200) = %s AND {column} = %s", text[:200], text)


def find_runs(place: RunPlace, columns: str = "id, owner, session") -> str:
    """Return the statement for the runs at this place, for `choose`."""
    conditions = [is_text("run_id", place.run_id)]
    for column, value in (("owner", place.user), ("session", place.session)):
        if not isinstance(value, EllipsisType):
            conditions.append(bind(f"{column} IS NOT DISTINCT FROM %s", to_optional_column(value)))
    return f"SELECT {columns} FROM flowkit.run WHERE {' AND '.join(conditions)}"


def choose(place: RunPlace, rows: Rows) -> int | None:
    """Choose the only run of these rows; raises `RunError` when there are several."""
    if len(rows) > 1:
        places = [(from_optional_column(owner), from_optional_column(session)) for _, owner, session in rows]
        raise describe_several(place.run_id, places)
    return rows[0][0] if rows else None
