"""One connection to PostgreSQL: opened on first use, reopened after a loss, and never waited for without a limit.

A batch of statements is sent as one text, and rows of Python values come back. Three events end a wait: the server's
answer, the loss of the connection, and `timeout_s`. After the timeout the statement is cancelled; if that has no
effect, the connection is closed.

Only a cancellation ends a durable commit that waits for a synchronous standby: no server timeout applies to that wait.
The server reports the cancelled commit as a success with a warning, which is treated as an error here.
"""

import math
import os
import select
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors, pq

from flowkit.journal.postgres.address import Address

GRACE_S = 5.0
"""How long the server may take to cancel a statement."""
Rows = list[tuple[Any, ...]]

_of_parents: list[object] = []
"""Connections of the process that this one was forked from: closing them here would close them there."""
_READERS: dict[int, Callable[[bytes], Any]] = {
    16: lambda data: data == b"t",
    17: lambda data: pq.Escaping().unescape_bytea(data),  # in whichever form the role's settings chose
    20: int,
    21: int,
    23: int,
    700: float,
    701: float,
}
"""Of the types that don't come as text: boolean, bytea, integers, floats."""


class NotReplicated(psycopg.OperationalError):
    """The commit is on the server's own disk, but its synchronous standby didn't answer."""


class NoAnswer(psycopg.OperationalError):
    """The server didn't answer in time; the connection is abandoned."""


class PostgresLink:
    """A connection of one thread at a time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: psycopg.Connection[Any] | None = None
        self._pid = os.getpid()
        self.times_opened = 0
        """The number of connections made in this process; a larger number than before means one was lost."""
        self._is_unreplicated = False

    @property
    def is_open(self) -> bool:
        """Return whether it is connected, as far as the client knows."""
        self._notice_fork()
        return self._connection is not None

    def open(self) -> None:
        """Connect, unless it is. Raises `psycopg.Error`."""
        self._notice_fork()
        if self._connection is not None:
            return
        connection: psycopg.Connection[Any] = psycopg.connect(
            "", **self._address.parameters, autocommit=True, prepare_threshold=None
        )
        connection.add_notice_handler(self._notice)
        self._connection = connection
        self.times_opened += 1

    def run(self, statements: str, timeout_s: float) -> list[Rows]:
        """Run statements as one text; return the rows of each that has any. Raises `psycopg.Error`.

        If an error interrupts a transaction that they began, it is rolled back.
        """
        self.open()
        assert self._connection is not None
        pgconn = self._connection.pgconn
        self._is_unreplicated = False
        if pgconn.transaction_status == pq.TransactionStatus.IDLE and not statements.startswith("BEGIN"):
            # In place of a time-out that the role or the database may have; it ends with these statements.
            statements = f"SET LOCAL statement_timeout = '{math.ceil(timeout_s)}s'; {statements}"
        try:
            results = self._exchange(pgconn, statements.encode(), timeout_s)
            if any(result.status == pq.ExecStatus.FATAL_ERROR for result in results):
                if pgconn.transaction_status == pq.TransactionStatus.INERROR:
                    self._exchange(pgconn, b"ROLLBACK", GRACE_S)
                failed = next(result for result in results if result.status == pq.ExecStatus.FATAL_ERROR)
                raise errors.error_from_result(failed)
        except psycopg.Error:
            if pgconn.status != pq.ConnStatus.OK or pgconn.transaction_status != pq.TransactionStatus.IDLE:
                self.close()
            raise
        if self._is_unreplicated:
            raise NotReplicated(
                "the synchronous standby doesn't answer, so it wouldn't survive the loss of this server"
            )
        return [_read_rows(result) for result in results if result.status == pq.ExecStatus.TUPLES_OK]

    @property
    def is_direct(self) -> bool:
        """Return whether the connection keeps one session of the server; a pooler assigns one to each transaction.

        A pooler makes up the number of the process that it names at the connection's beginning.
        """
        ((number,),) = self.run("SELECT pg_backend_pid()", GRACE_S)[0]
        return self._connection is not None and self._connection.pgconn.backend_pid == number

    @property
    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self._connection is not None and self._connection.pgconn.transaction_status != pq.TransactionStatus.IDLE

    def roll_back(self) -> None:
        """End an open transaction; the connection is abandoned where that fails."""
        if self.is_in_transaction:
            try:
                self.run("ROLLBACK", GRACE_S)
            except psycopg.Error:
                self.close()

    def close(self) -> None:
        """Close it; it may be reopened."""
        self._notice_fork()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(self, pgconn: pq.abc.PGconn, statements: bytes, timeout_s: float) -> list[pq.abc.PGresult]:
        pgconn.send_query(statements)
        until = time.monotonic() + timeout_s
        is_cancelled = False
        results: list[pq.abc.PGresult] = []
        poll = select.poll()
        is_sending = True
        while True:
            is_sending = is_sending and pgconn.flush() != 0
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    return results
                results.append(result)
            poll.register(pgconn.socket, select.POLLIN | (select.POLLOUT if is_sending else 0))
            left_s = until - time.monotonic()
            ready = poll.poll(max(0.0, left_s) * 1000)
            if ready and ready[0][1] & ~select.POLLOUT:
                pgconn.consume_input()
            elif not ready and left_s <= 0:
                if is_cancelled:
                    self.close()
                    raise NoAnswer("the server doesn't answer")
                is_cancelled, until = True, time.monotonic() + GRACE_S
                self._cancel()

    def _cancel(self) -> None:
        assert self._connection is not None
        try:
            self._connection.cancel_safe(timeout=GRACE_S)
        except psycopg.Error:
            return  # it refuses connections, too; the wait for the statement itself times out soon

    def _notice(self, notice: errors.Diagnostic) -> None:
        # 01000: "The transaction has already committed locally, but might not have been replicated to the standby."
        if notice.sqlstate == "01000" and notice.severity_nonlocalized == "WARNING":
            self._is_unreplicated = True

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            _of_parents.append(self._connection)
            self._connection, self._pid, self.times_opened = None, os.getpid(), 0


def _read_rows(result: pq.abc.PGresult) -> Rows:
    columns = range(result.nfields)
    readers = [_READERS.get(result.ftype(column), bytes.decode) for column in columns]
    rows: Rows = []
    for row in range(result.ntuples):
        values = ((reader, result.get_value(row, column)) for reader, column in zip(readers, columns, strict=True))
        rows.append(tuple(None if data is None else reader(data) for reader, data in values))
    return rows


PAUSE_S = 0.25


def wait_until_up(address: Address, wait_s: float, tell: Callable[[str], None]) -> bool:
    """Wait until the server accepts connections, at most `wait_s`; return whether it does.

    `tell` is called once, before the first wait. A server that refuses this role or database counts as up.
    """
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    connection = make_conninfo(**address.parameters).encode()
    until = time.monotonic() + wait_s
    is_told = False
    while True:
        # The exception has no SQLSTATE, and its text is in the server's language, so only its class is usable.
        found = pq.PGconn.ping(connection)
        if found not in (pq.Ping.REJECT, pq.Ping.NO_RESPONSE):
            return True
        left_s = until - time.monotonic()
        if left_s <= 0:
            return False
        if not is_told:
            is_told = True
            cause = "doesn't answer" if found == pq.Ping.NO_RESPONSE else "is starting up, or ending"
            tell(f"{address.name} {cause}; waiting for up to {wait_s:g} s")
        time.sleep(min(PAUSE_S, left_s))
