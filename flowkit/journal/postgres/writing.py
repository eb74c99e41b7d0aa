"""Changes of many runs as one transaction, sent to the server as one text in one round trip.

It starts by locking each run's row. `FOR SHARE` makes a takeover wait until this transaction has committed, and this
transaction waits for a takeover in progress. After the wait it reads the current token, which requires READ COMMITTED:
in REPEATABLE READ both would continue and run the same write. So the isolation level is set explicitly. The rest is
written only for runs that still have the expected token.

All transactions lock the runs in the order of their numbers, so no two can deadlock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from flowkit.errors import StoreError
from flowkit.journal.postgres.texts import Statement, Times, array, bind
from flowkit.journal.rows import RECORD_COLUMNS, record_values, to_column, to_optional_column
from flowkit.journal.store import OVER, Changes, Ending, Put, TakeBack, TurnText

BLOB_BYTES = 2**20
"""Larger results are stored once and shared by their nodes; smaller ones stay in the row, where PostgreSQL compresses them."""
BLOB_AT_MOST = 64 * 2**20
KEY_CHARACTERS = 500
"""Longer node names are indexed by their hash, since an index row takes 2,700 bytes at most."""
LOCK_S = 2
"""How long a batch waits for a row that another process is taking over, or for a table that is being changed."""
STATEMENT_S = 60
"""In place of a time-out that the role or the database may have."""
IDLE_S = 5
"""After which time the server ends a transaction whose process was stopped in the middle of it, and holds its locks.

The process begins the transaction anew when it wakes.
"""

_COLUMNS = f"key, {RECORD_COLUMNS}"
_KINDS = ("text", "text", "text", "text", "text", "text", "int", *("text",) * 6)
_SET = ", ".join(f"{name} = excluded.{name}" for name in (*_COLUMNS.split(", ")[1:], "changed", "position", "deadline"))


def begin(*, durable: bool) -> str:
    """Return the beginning of every writing transaction."""
    # Where a role turned array_nulls off, a NULL in an array would be read as the text "NULL".
    return (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
        f" SET LOCAL synchronous_commit = {'on' if durable else 'off'}; SET LOCAL array_nulls = on;"
        f" SET LOCAL lock_timeout = '{LOCK_S}s'; SET LOCAL statement_timeout = '{STATEMENT_S}s';"
        f" SET LOCAL idle_in_transaction_session_timeout = '{IDLE_S}s';"
        # A warning says that a commit isn't on the synchronous standby, and a role may have turned warnings off.
        " SET LOCAL client_min_messages = warning"
    )


def key_of(node: str) -> str:
    """Return the SQL expression that the index has for this column of node names."""
    return node if len(node) <= KEY_CHARACTERS else f"sha256:{sha256(node.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of almost every batch."""

    lock: Statement
    nodes: Statement
    turns: Statement
    kept: Statement
    events: Statement
    new_events: Statement
    """The same, where none of them can be there; it takes the server two thirds of the time."""

    def __iter__(self) -> Iterator[Statement]:
        return iter((self.lock, self.nodes, self.turns, self.kept, self.events, self.new_events))


PLANS = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
"""A kept plan must suit the table when it has grown: made for a small one, it would read all of it for every batch."""


@lru_cache(maxsize=4)
def make_statements(now: str) -> Statements:
    """Make the statements, `now` being the time as SQL."""
    given = ", ".join(f"i.{name}" for name in _COLUMNS.split(", "))
    held = " JOIN flowkit.run r ON r.id = i.run AND r.token = i.token"

    def make(text: str, *kinds: str) -> Statement:
        parameters = ", ".join(f"${number}" for number in range(1, len(kinds) + 1))
        return Statement(text.replace("$*", parameters), tuple(f"{kind}[]" for kind in kinds))

    def put_text(table: str, column: str) -> Statement:
        return make(
            f"INSERT INTO flowkit.{table} (run, turn, {column}) SELECT r.id, i.turn, i.body"
            f" FROM unnest($*) AS i (run, token, turn, body){held}"
            f" ON CONFLICT (run, turn) DO UPDATE SET {column} = excluded.{column}",
            *("bigint", "text", "int", "text"),
        )

    def put_events(otherwise: str = "") -> Statement:
        return make(
            "INSERT INTO flowkit.event (day, run, seq, body) SELECT r.day, r.id, i.seq, i.body"
            f" FROM unnest($*) AS i (run, token, seq, body){held}{otherwise}",
            *("bigint", "text", "bigint", "text"),
        )

    return Statements(
        make("SELECT id, token FROM flowkit.run WHERE id = ANY ($*) ORDER BY id FOR SHARE", "bigint"),
        make(
            f"INSERT INTO flowkit.node (run, {_COLUMNS}, changed, position, deadline)"
            f" SELECT r.id, {given}, {now}, i.position, {now} + i.remaining * interval '1 second'"
            f" FROM unnest($*) AS i (run, token, position, remaining, {_COLUMNS}){held}"
            f" ON CONFLICT (run, key) DO UPDATE SET {_SET}",
            *("bigint", "text", "bigint", "float8", *_KINDS),
        ),
        put_text("turn", "message"),
        put_text("kept", "arguments"),
        put_events(" ON CONFLICT (run, seq, day) DO UPDATE SET body = excluded.body"),
        put_events(),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One of the statements with its values."""

    statement: Statement
    values: tuple[str, ...]


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
    _statements: list[str | Call] = field(default_factory=list[str | Call])
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

    def to_text(self, *, is_prepared: bool = False, is_repeated: bool = False) -> str:
        """Return the transaction's statements, without begin and end; `is_prepared` where the session knows them.

        The first that returns rows returns the runs that are still ours. `is_repeated` where it may have been committed.
        """
        self._flush_nodes()
        lock = Call(self._known.lock, (array(sorted(self.runs), "bigint"),))
        statements = [lock, *self._statements, *self._write_texts(is_repeated=is_repeated), *self._write_endings()]
        texts = (
            one if isinstance(one, str) else one.statement.call(one.values, is_prepared=is_prepared)
            for one in statements
        )
        return "; ".join([PLANS, *texts] if is_prepared else texts)

    @property
    def _known(self) -> Statements:
        return make_statements(self.times.now)

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
        values = (
            array(owners, "bigint"),
            array([self.runs[run] for run in owners], "text"),
            array([put.position for put in nodes.values()], "bigint"),
            array(remaining, "float8"),
            *columns,
        )
        self._statements.append(Call(self._known.nodes, values))

    def _write_texts(self, *, is_repeated: bool) -> Iterable[Call]:
        events = self._known.events if is_repeated else self._known.new_events
        turns = self._turns.items()
        for statement, kind, texts in (
            (self._known.turns, "int", {at: turn.message for at, turn in turns if turn.message is not None}),
            (self._known.kept, "int", {at: turn.kept for at, turn in turns if turn.kept is not None}),
            (events, "bigint", self._events),
        ):
            if texts:
                values = (
                    array([run for run, _ in texts], "bigint"),
                    array([self.runs[run] for run, _ in texts], "text"),
                    array([number for _, number in texts], kind),
                    array(list(texts.values()), "text"),
                )
                yield Call(statement, values)

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
