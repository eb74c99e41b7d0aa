"""What PostgreSQL's errors mean: which may pass, and what to tell of the others."""

import psycopg

from flowkit.errors import StoreError
from flowkit.journal.postgres.address import Address
from flowkit.journal.postgres.link import NotReplicated
from flowkit.journal.store import MaybeWritten

PASSING = ("08", "57P0", "53300", "40001", "40P01", "25006", "55P03")
"""Lost connections, restarts, too many clients, conflicts, a standby, a lock: how the SQLSTATE of what may pass begins."""


def may_pass(error: psycopg.Error) -> bool:
    """Return whether a retry may succeed: there is no SQLSTATE when the connection was lost."""
    if isinstance(error, NotReplicated):
        return False
    return (
        isinstance(error, psycopg.OperationalError | psycopg.InternalError)
        and (error.sqlstate is None or error.sqlstate.startswith(PASSING))
    ) or (error.sqlstate or "").startswith(PASSING)


def explain_fault(error: psycopg.Error, address: Address, done: str) -> StoreError:
    """Make the error for people: what couldn't be done to the journal and why, without its password."""
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
    kind = MaybeWritten if isinstance(error, NotReplicated) or error.sqlstate is None else StoreError
    return kind(f"the journal {address.name!r} can't be {done}: {text}{hint}")
