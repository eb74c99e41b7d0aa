"""The tables of the journal, and a connection to them.

`PRAGMA synchronous` belongs to a connection: FULL makes a commit survive a power loss (it waits for the disk, some
milliseconds), NORMAL survives the process only (some microseconds). Commits go into one log in order, so a FULL one
takes every NORMAL one before it along.
"""

import sqlite3
from pathlib import Path
from typing import Literal

VERSION = 3
"""2: lists of runs by when they began have an index; pages that become free can be given back. 3: what a write
touches stands in its node."""

TABLES = """
CREATE TABLE IF NOT EXISTS run (
    run_id TEXT PRIMARY KEY, name TEXT NOT NULL, code TEXT NOT NULL, user TEXT, session TEXT,
    inputs TEXT NOT NULL, status TEXT NOT NULL, output TEXT, error TEXT, messages TEXT,
    began REAL NOT NULL, changed REAL NOT NULL,
    fence INTEGER NOT NULL, holder TEXT, boot TEXT, until REAL, until_wall REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS node (
    run_id TEXT, node TEXT, state TEXT NOT NULL, effect TEXT NOT NULL, tool TEXT NOT NULL, code TEXT NOT NULL,
    attempt INTEGER NOT NULL, arguments TEXT, value TEXT, blob TEXT, error TEXT, by TEXT, changed REAL NOT NULL,
    resources TEXT, PRIMARY KEY (run_id, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turn (
    run_id TEXT, turn INTEGER, message TEXT NOT NULL, PRIMARY KEY (run_id, turn)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS approval (
    run_id TEXT, node TEXT, name TEXT NOT NULL, arguments TEXT NOT NULL, asked REAL NOT NULL,
    approved INTEGER, by TEXT, at REAL, reason TEXT, changed_arguments TEXT,
    PRIMARY KEY (run_id, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    run_id TEXT, seq INTEGER, body TEXT NOT NULL, PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_began ON run (began);
CREATE INDEX IF NOT EXISTS run_session ON run (session, began);
CREATE INDEX IF NOT EXISTS node_blob ON node (blob) WHERE blob IS NOT NULL;
"""


def connect(
    path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "NORMAL", busy_timeout_s: float = 10.0
) -> sqlite3.Connection:
    """A connection that begins no transaction by itself; use it in the thread that made it."""
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the file has all tables of this version.

    Raises `sqlite3.DatabaseError` for a file that is no journal, or a newer one's.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise sqlite3.DatabaseError(f"it was written by a newer flowkit (version {version}, this one knows {VERSION})")
    return version == VERSION


def create_tables(connection: sqlite3.Connection) -> None:
    """Make what an older journal, or a new file, hasn't yet; one process at a time.

    Two that set the mode of a new file at once fail: SQLite waits for no lock there.
    """
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts in a new file only
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in TABLES.split(";"):
        connection.execute(statement)
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(node)")}
    if "resources" not in columns:
        connection.execute("ALTER TABLE node ADD COLUMN resources TEXT")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
