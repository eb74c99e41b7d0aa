"""The tables of the journal, and a connection to them.

A run is identified by its user, its session and its run id together. Its row has a number, which the other tables
refer to. A number is never reused, even after a run was deleted, and a later run has a larger one, whatever the clock
says.

`PRAGMA synchronous` is set per connection: with FULL a commit survives a power loss (it waits for the disk, some
milliseconds), with NORMAL only a crash of the process (some microseconds). Commits go into one log in order, so a FULL
commit also makes every NORMAL one before it durable.
"""

import sqlite3
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from flowkit.journal.rows import place_text
from flowkit.journal.store import UNFINISHED

VERSION = 4
"""2: lists of runs by when they began have an index; pages that become free can be given back. 3: what a write
touches stands in its node. 4: runs are numbered and known by their place; a claim says until when it may still run."""

TABLES = """
CREATE TABLE IF NOT EXISTS run (
    id INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL, user TEXT, session TEXT, parent INTEGER,
    name TEXT NOT NULL, code TEXT NOT NULL, inputs TEXT NOT NULL, status TEXT NOT NULL,
    output TEXT, error TEXT, messages TEXT, began REAL NOT NULL, changed REAL NOT NULL,
    fence INTEGER NOT NULL, holder TEXT, boot TEXT, until REAL, until_wall REAL
);
CREATE TABLE IF NOT EXISTS node (
    run INTEGER, node TEXT, state TEXT NOT NULL, effect TEXT NOT NULL, tool TEXT NOT NULL, code TEXT NOT NULL,
    attempt INTEGER NOT NULL, arguments TEXT, value TEXT, blob TEXT, error TEXT, by TEXT, changed REAL NOT NULL,
    resources TEXT, position INTEGER NOT NULL, holder TEXT, boot TEXT, until REAL, until_wall REAL,
    PRIMARY KEY (run, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turn (
    run INTEGER, turn INTEGER, message TEXT NOT NULL, PRIMARY KEY (run, turn)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS approval (
    run INTEGER, node TEXT, name TEXT NOT NULL, arguments TEXT NOT NULL, asked REAL NOT NULL,
    approved INTEGER, by TEXT, at REAL, reason TEXT, changed_arguments TEXT,
    PRIMARY KEY (run, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    run INTEGER, seq INTEGER, body TEXT NOT NULL, PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_name ON run (run_id);
CREATE INDEX IF NOT EXISTS run_user ON run (user);
CREATE INDEX IF NOT EXISTS run_session ON run (session, user);
CREATE INDEX IF NOT EXISTS run_parent ON run (parent) WHERE parent IS NOT NULL;
CREATE INDEX IF NOT EXISTS run_changed ON run (changed);
CREATE INDEX IF NOT EXISTS node_blob ON node (blob) WHERE blob IS NOT NULL;
"""
UNFINISHED_INDEX = f"CREATE INDEX IF NOT EXISTS run_unfinished ON run (id) WHERE {UNFINISHED}"
KEPT_TABLE = """
CREATE TABLE IF NOT EXISTS kept (run INTEGER, turn INTEGER, arguments TEXT NOT NULL, PRIMARY KEY (run, turn)) WITHOUT ROWID
"""
"""Secrets that a model wrote into its calls, by turn: stored apart from visible data, and only until the run is over."""
OF_A_RUN = ("node", "turn", "approval", "event")
"""The tables whose rows belong to a run."""


def connect(
    path: Path,
    *,
    synchronous: Literal["FULL", "NORMAL"] = "NORMAL",
    busy_timeout_s: float = 10.0,
) -> sqlite3.Connection:
    """Open a connection without automatic transactions; use it in the thread that made it.

    It makes no file: a journal that was removed must not come back as an empty one.
    """
    address = f"file:{quote(str(path))}?mode=rw"
    connection = sqlite3.connect(address, timeout=busy_timeout_s, isolation_level=None, uri=True)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def read_version(connection: sqlite3.Connection) -> int:
    """Read the version of the file, 0 of a new one; raises `sqlite3.DatabaseError` for a file that is no journal."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def check_not_newer(version: int) -> int:
    """Return the same version; raises `sqlite3.DatabaseError` for one that this flowkit doesn't know."""
    if version > VERSION:
        raise sqlite3.DatabaseError(f"it was written by a newer flowkit (version {version}, this one knows {VERSION})")
    return version


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the missing tables of a new file or an older journal; one process at a time.

    If two processes set the mode of a new file in parallel, both fail: SQLite waits for no lock there.
    """
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts in a new file only
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    version = check_not_newer(read_version(connection))
    if version < VERSION:
        is_old = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'run'").fetchone() is not None
        old = _set_old_aside(connection) if is_old else ()
        for statement in TABLES.split(";"):
            connection.execute(statement)
        if is_old:
            _take_old_rows(connection, old)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(KEPT_TABLE)
    connection.execute(UNFINISHED_INDEX)
    connection.execute("COMMIT")


def _set_old_aside(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Rename the tables of an older version; the columns of its nodes."""
    columns = tuple(name for _, name, *_ in connection.execute("PRAGMA table_info(node)"))
    for index in ("run_began", "run_session", "node_blob"):
        connection.execute(f"DROP INDEX IF EXISTS {index}")
    for table in ("run", *OF_A_RUN):
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    return columns


def _take_old_rows(connection: sqlite3.Connection, node_columns: tuple[str, ...]) -> None:
    """Number the runs of an older version in the order in which they began, and their rows with them."""
    connection.create_function("flowkit_place", 3, place_text)
    shared = (
        "run_id, user, session, name, code, inputs, status, output, error, messages, began, changed, fence, holder,"
        " boot, until, until_wall"
    )
    connection.execute(
        f"INSERT INTO run (place, {shared}) SELECT flowkit_place(user, session, run_id), {shared}"
        " FROM old_run ORDER BY began, run_id"
    )
    resources = "resources" if "resources" in node_columns else "NULL"
    moved = {
        "node": (
            "node, state, effect, tool, code, attempt, arguments, value, blob, error, by, changed, resources, position",
            "node, state, effect, tool, old.code, attempt, arguments, value, blob, old.error, by, old.changed,"
            f" {resources}, ROW_NUMBER() OVER (PARTITION BY old.run_id ORDER BY old.changed)",
        ),
        "turn": ("turn, message", "turn, message"),
        "approval": (
            columns := "node, name, arguments, asked, approved, by, at, reason, changed_arguments",
            columns.replace("name,", "old.name,"),
        ),
        "event": ("seq, body", "seq, body"),
    }
    for table, (columns, values) in moved.items():
        connection.execute(
            f"INSERT INTO {table} (run, {columns}) SELECT run.id, {values}"
            f" FROM old_{table} AS old JOIN run ON run.run_id = old.run_id"
        )
    for table in ("run", *OF_A_RUN):
        connection.execute(f"DROP TABLE old_{table}")
