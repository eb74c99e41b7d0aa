"""Rows of the journal as values, and values as rows."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, cast

from flowkit.clock import Clock
from flowkit.codec import JSON, dumps, loads
from flowkit.errors import StoreError, ToolResultError
from flowkit.journal.blobs import BlobFolder
from flowkit.journal.driver_lease import NO_LEASE, RunLease
from flowkit.journal.records import (
    Approval,
    Decision,
    NodeEffect,
    NodeState,
    Recorded,
    RecordedTurn,
    RunSummary,
)

BLOB_BYTES = 2**16
"""Larger results go to the blob folder."""


def to_text(value: JSON) -> str:
    """JSON for a column."""
    return dumps(value).decode()


def from_text(text: str | None) -> JSON:
    """The JSON in a column; NULL is None."""
    return None if text is None else loads(text)


def encode_value(value: JSON, node: str) -> bytes:
    """A result as JSON; raises `ToolResultError` for what isn't JSON, a circle included."""
    try:
        return dumps(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise ToolResultError(f"the result of {node!r} can't be recorded: {error}") from error


NODE_COLUMNS = (
    "node, state, effect, tool, code, attempt, arguments, value, blob, error, by, resources,"
    " holder, boot, until, until_wall"
)
_PUT_NODE = (
    f"INSERT OR REPLACE INTO node (run, changed, position, {NODE_COLUMNS})"
    f" VALUES (?, ?, ?{', ?' * (NODE_COLUMNS.count(',') + 1)})"
)


def write_node(
    connection: sqlite3.Connection,
    run: int,
    record: Recorded,
    data: bytes,
    position: int,
    blobs: BlobFolder,
    clock: Clock,
) -> None:
    """Insert or replace a node; `data` is its value as JSON, `position` its place among those that changed."""
    blob = None
    if len(data) > BLOB_BYTES:
        try:
            blob = blobs.put(data)
        except OSError as error:
            raise StoreError(f"the result of {record.node!r} can't be stored beside the journal: {error}") from error
    values = (
        run,
        clock.wall(),
        position,
        record.node,
        record.state,
        record.effect,
        record.tool,
        record.code,
        record.attempt,
        to_text(record.arguments),
        None if blob is not None else data.decode(),
        blob,
        record.error,
        record.by,
        to_text(list(record.resources)) if record.resources else None,
        record.lease.holder,
        record.lease.boot,
        record.lease.until,
        record.lease.until_wall,
    )
    connection.execute(_PUT_NODE, values)


def read_nodes(connection: sqlite3.Connection, run: int, blobs: BlobFolder) -> dict[str, Recorded]:
    """Every node of a run, the last to change at the end. A result whose blob is lost is as if a `read` had never run; of others it is an error."""
    nodes: dict[str, Recorded] = {}
    rows = connection.execute(f"SELECT {NODE_COLUMNS} FROM node WHERE run = ? ORDER BY position", (run,))
    for node, state, effect, tool, code, attempt, arguments, value, blob, error, by, resources, *lease in rows:
        if blob is not None:
            data = blobs.get(blob)
            if data is None and effect == "read":
                continue
            if data is None:
                raise StoreError(f"the result of {node!r} is missing from the blob folder ({blob})")
            value = data.decode()
        nodes[node] = Recorded(
            node=node,
            state=cast(NodeState, state),
            value=from_text(value),
            error=error,
            attempt=attempt,
            effect=cast(NodeEffect, effect),
            arguments=from_text(arguments),
            tool=tool,
            code=code,
            by=by,
            resources=() if resources is None else tuple(cast("list[str]", from_text(resources))),
            lease=RunLease(*lease) if lease[0] is not None else NO_LEASE,
        )
    return nodes


def read_turns(connection: sqlite3.Connection, run: int) -> tuple[RecordedTurn, ...]:
    """The turns of a run, in order."""
    rows = connection.execute("SELECT turn, message FROM turn WHERE run = ? ORDER BY turn", (run,))
    return tuple(RecordedTurn(turn, from_text(message)) for turn, message in rows)


def read_approvals(connection: sqlite3.Connection, run: int) -> dict[str, Approval]:
    """What was asked in a run, decided or not, in the order of asking."""
    return {
        node: Approval(
            node=node,
            name=name,
            arguments=from_text(arguments),
            asked_at=asked,
            decision=None if approved is None else Decision(bool(approved), by, at, reason, from_text(changed)),
        )
        for node, name, arguments, asked, approved, by, at, reason, changed in connection.execute(
            "SELECT node, name, arguments, asked, approved, by, at, reason, changed_arguments FROM approval"
            " WHERE run = ? ORDER BY asked",
            (run,),
        )
    }


def write_decision(connection: sqlite3.Connection, run: int, node: str, decision: Decision) -> bool:
    """Decide what is asked and undecided; False when there is no such question, or somebody was first."""
    found = connection.execute(
        "UPDATE approval SET approved = ?, by = ?, at = ?, reason = ?, changed_arguments = ?"
        " WHERE run = ? AND node = ? AND approved IS NULL",
        (
            decision.approved,
            decision.by,
            decision.at,
            decision.reason,
            to_text(decision.arguments),
            run,
            node,
        ),
    )
    return found.rowcount == 1


SUMMARY_COLUMNS = (
    "id, parent, run_id, name, status, user, session, began, changed, error, holder, boot, until, until_wall"
)


def read_summaries(rows: Iterable[tuple[Any, ...]], is_held: Callable[[int, RunLease], bool]) -> list[RunSummary]:
    """Runs, from rows of `SUMMARY_COLUMNS`."""
    return [
        RunSummary(
            run_id=run_id,
            name=name,
            status=status,
            user=user,
            session=session,
            began_at=began,
            changed_at=changed,
            error=error,
            is_held=is_held(number, RunLease(*lease)),
            number=number,
            parent=parent,
        )
        for number, parent, run_id, name, status, user, session, began, changed, error, *lease in rows
    ]
