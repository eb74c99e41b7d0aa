"""Values of the journal as columns, and columns as values; no SQL."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from flowkit.codec import JSON, dumps, loads
from flowkit.errors import StoreError, ToolResultError
from flowkit.identity import RunIdentity
from flowkit.journal.driver_lease import NO_LEASE, RunLease
from flowkit.journal.records import (
    Approval,
    Decision,
    NodeEffect,
    NodeState,
    Recorded,
    RunDetails,
)

ESCAPE = "\ue000"
"""Escapes the number of a character that a database rejects; it is from the private area, so texts hardly contain it."""
_TO_ESCAPE = re.compile(f"[\x00{ESCAPE}\ud800-\udfff]")
_ESCAPED = re.compile(f"{ESCAPE}([0-9a-f]{{4}})")


def to_text(value: JSON) -> str:
    """Write JSON for a column; it holds no NUL and no lone surrogate."""
    return dumps(value).decode()


def from_text(text: str | None) -> JSON:
    """Read the JSON in a column; NULL is None."""
    return None if text is None else loads(text)


def encode_value(value: JSON, node: str) -> bytes:
    """Encode a result as JSON; raises `ToolResultError` for other values and for circular ones."""
    try:
        return dumps(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise ToolResultError(f"the result of {node!r} can't be recorded: {error}") from error


def to_column(text: str) -> str:
    r"""Escape the characters that a text column can't hold: NUL, and half of a UTF-16 pair.

    >>> from_column(to_column("a\x00b\ud800")) == "a\x00b\ud800"
    True
    """
    return text if text.isascii() and "\0" not in text else _TO_ESCAPE.sub(_escape, text)


def to_optional_column(text: str | None) -> str | None:
    """Convert like `from_column`, None staying None."""
    return None if text is None else to_column(text)


def from_column(text: str) -> str:
    """Return the text that `to_column` received."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if ESCAPE in text else text


def from_optional_column(text: str | None) -> str | None:
    """Convert like `from_column`, None staying None."""
    return None if text is None else from_column(text)


def place_text(user: str | None, session: str | None, run_id: str) -> str:
    """Write a run's place as a column: different places, different texts."""
    return RunIdentity(to_optional_column(user), to_optional_column(session), to_column(run_id)).key


def _escape(found: re.Match[str]) -> str:
    return f"{ESCAPE}{ord(found[0]):04x}"


RECORD_COLUMNS = "node, state, effect, tool, code, attempt, arguments, value, blob, error, by, resources"
"""A node's columns, without its key and its lease."""


def record_values(record: Recorded, data: bytes, blob: str | None) -> tuple[str | int | None, ...]:
    """Return a node as `RECORD_COLUMNS`; `data` is its value as JSON unless the value is stored in the blob of that name."""
    return (
        to_column(record.node),
        record.state,
        record.effect,
        to_column(record.tool),
        to_column(record.code),
        record.attempt,
        to_text(record.arguments),
        None if blob is not None else data.decode(),
        blob,
        to_optional_column(record.error),
        to_optional_column(record.by),
        to_text(list(record.resources)) if record.resources else None,
    )


def read_record(columns: Sequence[Any], lease: RunLease, get_blob: Callable[[str], bytes | None]) -> Recorded | None:
    """Read a node from its `RECORD_COLUMNS`.

    A `read` with a lost blob is None, as if it had never run; for other effects that is an error.
    """
    node, state, effect, tool, code, attempt, arguments, value, blob, error, by, resources = columns
    if blob is not None:
        data = get_blob(blob)
        if data is None and effect == "read":
            return None
        if data is None:
            raise StoreError(f"the result of {from_column(node)!r} is missing from the blob folder ({blob})")
        value = data.decode()
    return Recorded(
        node=from_column(node),
        state=cast(NodeState, state),
        value=from_text(value),
        error=from_optional_column(error),
        attempt=attempt,
        effect=cast(NodeEffect, effect),
        arguments=from_text(arguments),
        tool=from_column(tool),
        code=from_column(code),
        by=from_optional_column(by),
        resources=() if resources is None else tuple(cast("list[str]", from_text(resources))),
        lease=lease if lease.holder is not None else NO_LEASE,
    )


APPROVAL_COLUMNS = "node, name, arguments, asked, approved, by, at, reason, changed_arguments"


def read_approval_rows(rows: Iterable[tuple[Any, ...]]) -> dict[str, Approval]:
    """Read requests from rows of `APPROVAL_COLUMNS`."""
    return {
        from_column(node): Approval(
            node=from_column(node),
            name=from_column(name),
            arguments=from_text(arguments),
            asked_at=asked,
            decision=None
            if approved is None
            else Decision(bool(approved), from_optional_column(by), at, from_column(reason), from_text(changed)),
        )
        for node, name, arguments, asked, approved, by, at, reason, changed in rows
    }


def decision_values(decision: Decision) -> tuple[bool, str | None, float, str, str]:
    """Return a decision as the columns `approved, by, at, reason, changed_arguments`."""
    return (
        decision.approved,
        to_optional_column(decision.by),
        decision.at,
        to_column(decision.reason),
        to_text(decision.arguments),
    )


def read_list(text: str | None) -> list[JSON]:
    """Read the list in a column of JSON."""
    value = from_text(text)
    return value if isinstance(value, list) else []


def show_doubt(details: RunDetails) -> RunDetails:
    """Mark a claimed write without a driver as in doubt."""
    if details.summary.is_held:
        return details
    nodes = {
        node: replace(record, state="in_doubt") if record.state == "claimed" and record.effect == "write" else record
        for node, record in details.nodes.items()
    }
    return replace(details, nodes=nodes)
