"""Changes of many runs as one transaction, sent to the server as one text in one round trip.

It starts by locking each run's row. `FOR SHARE` makes a takeover wait until this transaction has committed, and this
transaction waits for a takeover in progress. After the wait it reads the current token, which requires READ COMMITTED:
in REPEATABLE READ both would continue and run the same write. So the isolation level is set explicitly. The rest is
written only for runs that still have the expected token.

All transactions lock the runs in the order of their numbers, so no two can deadlock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from flowkit.errors import StoreError
from flowkit.journal.postgres.texts import Times, array, bind
from flowkit.journal.rows import RECORD_COLUMNS, record_values, to_column, to_optional_column
from flowkit.journal.store import OVER, Changes, Ending, Put, TakeBack, TurnText

BLOB_BYTES = 2**20
"""Larger results are stored once and shared by their nodes; smaller ones stay in the row, where PostgreSQL compresses them."""
BLOB_AT_MOST = 64 * 2**20
KEY_CHARACTERS = 500
"""Longer node names are indexed by their hash, since an index row takes 2,700 bytes at most."""
LOCK_S = 2
"""How long a batch waits for a row that somebody is taking over, or a table that is changed."""
STATEMENT_S = 60
"""In place of a time-out that the role or the database may have."""

_COLUMNS = f"key, {RECORD_COLUMNS}"
_KINDS = ("text", "text", "text", "text", "text", "text", "int", *("text",) * 6)
_SET = ", ".join(f"{name} = excluded.{name}" for name in (*_COLUMNS.split(", ")[1:], "changed", "position", "deadline"))


def begin(*, durable: bool) -> str:
    """Return the beginning of every writing transaction."""
    # Where a role turned array_nulls off, a NULL in an array would be read as the text "NULL".
    return (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
        f" SET LOCAL synchronous_commit = {'on' if durable else 'off'}; SET LOCAL array_nulls = on;"
        f" SET LOCAL lock_timeout = '{LOCK_S}s'; SET LOCAL statement_timeout = '{STATEMENT_S}s'"
    )


def key_of(node: str) -> str:
    """Return what stands for a node, given as a column, in the index."""
    return node if len(node) <= KEY_CHARACTERS else f"sha256:{sha256(node.encode()).hexdigest()}"


@dataclass(slots=True)
class Batch:
    """The rows that a transaction writes, collected from changes in their order."""

    times: Times
    runs: dict[int, str] = field(default_factory=dict[int, str])
    """The runs whose rows are locked, with their tokens."""
    _nodes: dict[tuple[int, str], Put] = field(default_factory=dict[tuple[int, str], Put])
    _turns: dict[tuple[int, int], TurnText] = field(default_factory=dict[tuple[int, int], TurnText])
    _events: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])
    _endings: dict[int, Ending] = field(default_factory=dict[int, Ending])
    _statements: list[str] = field(default_factory=list[str])
    size: int = 0

    def takes(self, changes: Changes) -> bool:
        """Return whether these can be added: nothing follows a run's ending, or is of another opening of it."""
        return changes.run not in self._endings and self.runs.get(changes.run, changes.token) == changes.token

    def add(self, changes: Changes) -> None:
        """Add a driver's changes. Raises `StoreError` for what can't be stored, before any change is added."""
        run = changes.run
        for put in changes.nodes:
            if len(put.data) > BLOB_AT_MOST:
                raise StoreError(
                    f"the result of {put.record.node!r} has {len(put.data)} bytes, at most {BLOB_AT_MOST} are stored"
                )
        self.runs[run] = changes.token
        for put in changes.nodes:
            self._nodes[run, put.record.node] = put
        if changes.take_back is not None:
            self._take_back(run, changes.take_back)
        if changes.turn is not None:
            self._turns[run, changes.turn.turn] = changes.turn
        for seq, body in changes.events:
            self._events[run, seq] = body
        if changes.ending is not None:
            self._endings[run] = changes.ending
        self.size += sum(len(put.data) for put in changes.nodes) + sum(len(body) for _, body in changes.events)

    def to_text(self) -> str:
        """Return the transaction's statements, without begin and end.

        The first returns the runs that are still ours.
        """
        self._flush_nodes()
        runs = sorted(self.runs)
        listed = ", ".join(map(str, runs))
        lock = f"SELECT id, token FROM flowkit.run WHERE id IN ({listed}) ORDER BY id FOR SHARE"
        after = [*self._write_turns(), *self._write_events(), *self._write_endings()]
        return "; ".join([lock, *self._statements, *after])

    def _take_back(self, run: int, undone: TakeBack) -> None:
        pending = self._nodes.get((run, undone.node))
        if pending is not None and pending.record.state == "claimed" and pending.record.attempt == undone.attempt:
            # Its claim isn't written yet, so the table still has the earlier state.
            del self._nodes[run, undone.node]
            return
        self._flush_nodes()
        where = bind(
            "run = %s AND key = %s AND attempt = %s AND state = 'claimed'"
            " AND EXISTS (SELECT 1 FROM flowkit.run WHERE id = %s AND token = %s)",
            run,
            key_of(to_column(undone.node)),
            undone.attempt,
            run,
            self.runs[run],
        )
        if undone.before is None:
            self._statements.append(f"DELETE FROM flowkit.node WHERE {where}")
            return
        put = undone.before
        names, values = RECORD_COLUMNS.split(", "), record_values(put.record, put.data, None)
        assignments = ", ".join(bind(f"{name} = %s", value) for name, value in zip(names, values, strict=True))
        self._statements.append(
            f"UPDATE flowkit.node SET {assignments}, changed = {self.times.now}, position = {put.position},"
            f" deadline = {self._deadline(put)} WHERE {where}"
        )

    def _deadline(self, put: Put) -> str:
        remaining_s = put.record.lease.remaining_s(self.times.clock)
        return "NULL" if remaining_s is None else self.times.after(f"{remaining_s!r}::float8")

    def _flush_nodes(self) -> None:
        if not self._nodes:
            return
        nodes, self._nodes = self._nodes, {}
        rows: list[tuple[str | int | None, ...]] = []
        remaining: list[float | None] = []
        blobs: dict[str, bytes] = {}
        for (_, node), put in nodes.items():
            blob = sha256(put.data).hexdigest() if len(put.data) > BLOB_BYTES else None
            if blob is not None:
                blobs[blob] = put.data
            rows.append((key_of(to_column(node)), *record_values(put.record, put.data, blob)))
            remaining.append(put.record.lease.remaining_s(self.times.clock))
        for name, data in sorted(blobs.items()):
            # An existing row is updated: the removal of unused blobs waits for this lock, and then sees the new use.
            self._statements.append(
                bind("INSERT INTO flowkit.blob (name, data, used) VALUES (%s, %s, ", name, data)
                + f"{self.times.now}) ON CONFLICT (name) DO UPDATE SET used = excluded.used"
            )
        columns = [array(column, kind) for column, kind in zip(zip(*rows, strict=True), _KINDS, strict=True)]
        owners = [run for run, _ in nodes]
        arrays = ", ".join(
            [
                array(owners, "bigint"),
                array([self.runs[run] for run in owners], "text"),
                array([put.position for put in nodes.values()], "bigint"),
                array(remaining, "float8"),
                *columns,
            ]
        )
        given = ", ".join(f"i.{name}" for name in _COLUMNS.split(", "))
        self._statements.append(
            f"INSERT INTO flowkit.node (run, {_COLUMNS}, changed, position, deadline)"
            f" SELECT r.id, {given}, {self.times.now}, i.position, {self.times.after('i.remaining')}"
            f" FROM unnest({arrays}) AS i (run, token, position, remaining, {_COLUMNS})"
            " JOIN flowkit.run r ON r.id = i.run AND r.token = i.token"
            f" ON CONFLICT (run, key) DO UPDATE SET {_SET}"
        )

    def _write_turns(self) -> Iterable[str]:
        for table, column, texts in (
            ("turn", "message", {at: turn.message for at, turn in self._turns.items() if turn.message is not None}),
            ("kept", "arguments", {at: turn.kept for at, turn in self._turns.items() if turn.kept is not None}),
        ):
            if texts:
                yield (
                    f"INSERT INTO flowkit.{table} (run, turn, {column}) SELECT r.id, i.turn, i.body"
                    f" FROM {self._unnest(texts, 'turn', 'int')} ON CONFLICT (run, turn) DO UPDATE"
                    f" SET {column} = excluded.{column}"
                )

    def _write_events(self) -> Iterable[str]:
        if self._events:
            yield (
                "INSERT INTO flowkit.event (day, run, seq, body) SELECT r.day, r.id, i.seq, i.body"
                f" FROM {self._unnest(self._events, 'seq', 'bigint')} ON CONFLICT (run, seq, day) DO UPDATE"
                " SET body = excluded.body"
            )

    def _unnest(self, texts: "dict[tuple[int, int], str]", name: str, kind: str) -> str:
        arrays = ", ".join(
            [
                array([run for run, _ in texts], "bigint"),
                array([self.runs[run] for run, _ in texts], "text"),
                array([number for _, number in texts], kind),
                array(list(texts.values()), "text"),
            ]
        )
        return (
            f"unnest({arrays}) AS i (run, token, {name}, body) JOIN flowkit.run r ON r.id = i.run AND r.token = i.token"
        )

    def _write_endings(self) -> Iterable[str]:
        """Release runs, in the order of their numbers; nothing that they claimed runs any more."""
        for run, ending in sorted(self._endings.items()):
            is_ours = bind("SELECT 1 FROM flowkit.run WHERE id = %s AND token = %s", run, self.runs[run])
            yield (
                "UPDATE flowkit.node SET deadline = NULL"
                f" WHERE run = {run} AND state = 'claimed' AND deadline IS NOT NULL AND EXISTS ({is_ours})"
            )
            if ending.status in OVER:
                yield f"DELETE FROM flowkit.kept WHERE run = {run} AND EXISTS ({is_ours})"
            values = ""
            if ending.status is not None:
                # A run that stops to wait may have been asked to be cancelled in that moment: it still is to be.
                status = "%s" if ending.status in OVER else "CASE status WHEN 'cancelling' THEN status ELSE %s END"
                values = bind(
                    f", status = {status}, output = %s, error = %s, messages = %s",
                    ending.status,
                    ending.output,
                    to_optional_column(ending.error),
                    ending.messages,
                )
            yield (
                f"UPDATE flowkit.run SET holder = NULL, changed = {self.times.now}{values}"
                + bind(" WHERE id = %s AND token = %s", run, self.runs[run])
            )
