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


def read_details(connection: sqlite3.Connection, run: int, log: JournalLog) -> RunDetails | None:
    """The run of this number as its rows are; None when there is no such run."""
    rows = connection.execute(f"SELECT {SUMMARY_COLUMNS} FROM run WHERE id = ?", (run,)).fetchall()
    summaries = read_summaries(rows, log.is_held)
    if not summaries:
        return None
    code, inputs, output, messages = connection.execute(
        "SELECT code, inputs, output, messages FROM run WHERE id = ?", (run,)
    ).fetchone()
    return RunDetails(
        summary=summaries[0],
        code=code,
        inputs=from_text(inputs),
        output=from_text(output),
        messages=tuple(_read_list(messages)),
        nodes=read_nodes(connection, run, log.blobs),
        turns=read_turns(connection, run),
        approvals=read_approvals(connection, run),
    )


def show_run(connection: sqlite3.Connection, run: int, log: JournalLog) -> RunDetails | None:
    """The same, with a claimed write that nobody drives as what it is: in doubt."""
    details = read_details(connection, run, log)
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
    before: int | None = None,
    limit: int = 1000,
) -> list[JSON]:
    """The messages of the session's last `limit` runs, or of the last before one of them, oldest first.

    They stand in the order in which the runs began, which their numbers tell: a clock may be set back.
    """
    rows = connection.execute(
        "SELECT id, messages FROM run WHERE session = ?1 AND user IS ?2 AND parent IS NULL AND (?3 IS NULL OR id < ?3)"
        " ORDER BY id DESC LIMIT ?4",
        (session, user, before, limit),
    ).fetchall()
    messages: list[JSON] = []
    for run, said in reversed(rows):
        if said is not None:
            messages += _read_list(said)
        elif (details := show_run(connection, run, log)) is not None:
            messages += recall(details)
    return messages


def _read_list(text: str | None) -> list[JSON]:
    value = from_text(text)
    return value if isinstance(value, list) else []
