"""A journal as its readers see it: one run in full, and what was said in a session."""

import sqlite3
from dataclasses import replace

from flowkit.codec import JSON
from flowkit.journal.log import JournalLog
from flowkit.journal.records import RunDetails
from flowkit.journal.rows import (
    SUMMARY_COLUMNS,
    from_text,
    read_approvals,
    read_nodes,
    read_summaries,
    read_turns,
)
from flowkit.journal.unfinished_messages import recall


def read_details(connection: sqlite3.Connection, run_id: str, log: JournalLog) -> RunDetails | None:
    """A run as its rows are; None when there is no such run."""
    rows = connection.execute(f"SELECT {SUMMARY_COLUMNS} FROM run WHERE run_id = ?", (run_id,)).fetchall()
    summaries = read_summaries(rows, log.clock)
    if not summaries:
        return None
    code, inputs, output, messages = connection.execute(
        "SELECT code, inputs, output, messages FROM run WHERE run_id = ?", (run_id,)
    ).fetchone()
    return RunDetails(
        summary=summaries[0],
        code=code,
        inputs=from_text(inputs),
        output=from_text(output),
        messages=tuple(_read_list(messages)),
        nodes=read_nodes(connection, run_id, log.blobs),
        turns=read_turns(connection, run_id),
        approvals=read_approvals(connection, run_id),
    )


def show_run(connection: sqlite3.Connection, run_id: str, log: JournalLog) -> RunDetails | None:
    """The same, with a claimed write that nobody drives as what it is: in doubt."""
    details = read_details(connection, run_id, log)
    if details is None or details.summary.is_held:
        return details
    nodes = {
        node: replace(record, state="in_doubt") if record.state == "claimed" and record.effect == "write" else record
        for node, record in details.nodes.items()
    }
    return replace(details, nodes=nodes)


def read_conversation(
    connection: sqlite3.Connection,
    session: str,
    log: JournalLog,
    *,
    user: str | None,
    before: str | None,
    limit: int,
) -> list[JSON]:
    """The messages of the session's last `limit` runs, or of the last before one of them, oldest first."""
    rows = connection.execute(
        "SELECT run_id, messages FROM run WHERE session = ?1 AND user IS ?2 AND (?3 IS NULL OR"
        " run_id <> ?3 AND began <= (SELECT began FROM run WHERE run_id = ?3)) ORDER BY began DESC LIMIT ?4",
        (session, user, before, limit),
    ).fetchall()
    messages: list[JSON] = []
    for run_id, said in reversed(rows):
        if said is not None:
            messages += _read_list(said)
        elif (details := show_run(connection, run_id, log)) is not None:
            messages += recall(details)
    return messages


def _read_list(text: str | None) -> list[JSON]:
    value = from_text(text)
    return value if isinstance(value, list) else []
