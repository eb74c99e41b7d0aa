"""Error handling for a store's connection: retry for a limited time, then raise an error that names the cause.

Any work passed here may run twice: the answer to a commit can be lost after the commit.

A commit that wasn't durable may be lost when the server crashes. So its changes are kept until a durable commit has
included them, and are written again first on a new connection. Each statement names the opening of the run that it
belongs to, so it changes nothing after another driver has taken over.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

import psycopg

from flowkit.errors import StoreError
from flowkit.journal.postgres.address import Address
from flowkit.journal.postgres.link import NotReplicated, PostgresLink, Rows
from flowkit.journal.postgres.texts import Statement
from flowkit.journal.store import Commits, MaybeWritten

T = TypeVar("T")

RETRY_S = 30.0
"""How long something is tried again while the server is away, counted from when it went away."""
DURABLE_S = 10.0
"""How long a durable commit may wait, such as for a synchronous standby."""
ANSWER_S = 70.0
"""The limit of any other statement; the server's own timeout is shorter."""
PAUSE_S = 0.05
PAUSE_AT_MOST_S = 1.0
KEEP_S = 10.0
"""A server that crashes loses what was committed in about its last 0.6 s, if that wasn't durable."""
KEEP_BYTES = 32 * 2**20
logger = logging.getLogger("flowkit.journal")


Text = Callable[[bool], str]
"""Makes a transaction's text, given whether the session has prepared its statements.

Made again, the text must allow for the first having been committed.
"""


class Session:
    """A connection that is reopened when it fails; used by one thread, or guarded by the caller.

    It prepares `statements` where it can.
    """

    def __init__(self, address: Address, *, what: str, statements: Iterable[Statement] = ()) -> None:
        self.address = address
        self._what = what
        self._link = PostgresLink(address)
        self._down_since: float | None = None
        self._times_opened = 0
        self._pid = os.getpid()
        self._statements = tuple(statements)
        self._is_prepared = False
        self._kept: deque[tuple[float, int, Text]] = deque()
        self._kept_size = 0
        self.commits = Commits()

    def attempt(self, operation: Callable[[PostgresLink], T]) -> T:
        """Run `operation`, with retries while the fault may pass. Raises `StoreError`."""
        pause_s = PAUSE_S
        while True:
            try:
                self._open()
                result = operation(self._link)
            except psycopg.Error as error:
                now = time.monotonic()
                was_open = self._link.times_opened > 0
                self._down_since = now if self._down_since is None else self._down_since
                if not was_open or not may_pass(error) or now + pause_s > self._down_since + RETRY_S:
                    raise self._explain(error) from None
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_AT_MOST_S)
            else:
                self._down_since = None
                return result

    def once(self, operation: Callable[[PostgresLink], T]) -> T:
        """Run `operation`; raises `psycopg.Error`."""
        self._open()
        return operation(self._link)

    def write(self, make: Text, *, durable: bool) -> list[Rows]:
        """Run a transaction; call it inside `attempt`. Raises `psycopg.Error`."""
        timeout_s = DURABLE_S if durable else ANSWER_S
        text = make(self._is_prepared)
        try:
            rows = self._link.run(text, timeout_s)
        except psycopg.errors.InvalidSqlStatementName:
            # The session isn't ours after all; nothing was written.
            self._is_prepared, self._statements = False, ()
            rows = self._link.run(make(False), timeout_s)
        except psycopg.errors.UniqueViolation:
            # It was expected to be new, and isn't: made again, it is written over what is there.
            rows = self._link.run(make(self._is_prepared), timeout_s)
        self.count(durable=durable)
        if not durable:
            self.keep(make, len(text))
        return rows

    def count(self, *, durable: bool) -> None:
        """Count a commit; a durable one took along all that was before it."""
        if durable:
            self.commits.durable += 1
            self._kept.clear()
            self._kept_size = 0
        else:
            self.commits.normal += 1

    def keep(self, make: Text, size: int) -> None:
        """Keep a transaction for the case that the server crashes; it may be replayed."""
        now = time.monotonic()
        self._kept.append((now, size, make))
        self._kept_size += size
        while self._kept and (self._kept[0][0] < now - KEEP_S or self._kept_size > KEEP_BYTES):
            self._kept_size -= self._kept.popleft()[1]

    def close(self) -> None:
        """Close the connection; it may be reused."""
        self._link.close()

    def _open(self) -> None:
        if self._pid != os.getpid():
            # After a fork, only the parent repeats its writes.
            self._pid, self._times_opened, self._kept_size = os.getpid(), 0, 0
            self._kept.clear()
        self._link.open()
        if self._times_opened == self._link.times_opened:
            return
        self._is_prepared = self._prepare()
        if self._times_opened:
            for _, _, make in self._kept:
                self._write_again(make)
        self._times_opened = self._link.times_opened

    def _prepare(self) -> bool:
        """Prepare the statements in a new session; return whether it has them."""
        if not self._statements or not self._link.is_direct:
            return False
        try:
            # Without this the server makes a plan for each of the first five calls.
            preparations = (statement.preparation for statement in self._statements)
            self._link.run("; ".join(["SET plan_cache_mode = force_generic_plan", *preparations]), ANSWER_S)
        except psycopg.Error as error:
            if may_pass(error):
                raise
            return False  # whoever uses them gets the error
        return True

    def _write_again(self, make: Text) -> None:
        try:
            self._link.run(make(self._is_prepared), ANSWER_S)
        except psycopg.Error as error:
            if may_pass(error):
                raise
            logger.warning("%s", self._explain(error))

    def _explain(self, error: psycopg.Error) -> StoreError:
        return explain_fault(error, self.address, self._what)


PASSING = ("08", "57P0", "53300", "40001", "40P01", "25006", "25P03", "55P03")
"""Prefixes of the SQLSTATE of temporary errors.

Lost connections, restarts, too many clients, conflicts, a standby, a transaction that this process slept in, a lock.
"""


def may_pass(error: psycopg.Error) -> bool:
    """Return whether a retry may succeed: there is no SQLSTATE when the connection was lost."""
    if isinstance(error, NotReplicated):
        return False
    return (
        isinstance(error, psycopg.OperationalError | psycopg.InternalError)
        and (error.sqlstate is None or error.sqlstate.startswith(PASSING))
    ) or (error.sqlstate or "").startswith(PASSING)


def explain_fault(error: psycopg.Error, address: Address, done: str) -> StoreError:
    """Make the error for users: the operation that failed and why, without the password."""
    text = address.hide(" ".join(str(error).split()))
    hint = ""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        hint = "; the role needs USAGE on the schema flowkit, and SELECT, INSERT, UPDATE and DELETE on its tables"
        if done == "changed":
            hint = "; `flowkit journal migrate` needs a role that may make a schema and tables in this database"
    elif isinstance(
        error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName | psycopg.errors.UndefinedColumn
    ):
        hint = "; `flowkit journal migrate` makes its tables"
    elif "session is read-only" in text:
        hint = "; name the primary: this is a standby, or default_transaction_read_only is on for the database or role"
    kind = MaybeWritten if isinstance(error, NotReplicated) or error.sqlstate is None else StoreError
    return kind(f"the journal {address.name!r} can't be {done}: {text}{hint}")
