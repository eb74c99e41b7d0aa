"""What was spent of budgets, in a table of its own, which a journal has from its first budget on."""

import sqlite3

_TABLE = (
    "CREATE TABLE IF NOT EXISTS spent (key TEXT PRIMARY KEY, usd REAL NOT NULL, changed REAL NOT NULL) WITHOUT ROWID"
)


def add_spent(connection: sqlite3.Connection, key: str, usd: float, wall: float) -> float:
    """Add to what was spent under a key; return the sum."""
    connection.execute(_TABLE)
    return connection.execute(
        "INSERT INTO spent (key, usd, changed) VALUES (?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET usd = usd + excluded.usd, changed = excluded.changed RETURNING usd",
        (key, usd, wall),
    ).fetchone()[0]


def read_spent(connection: sqlite3.Connection, key: str) -> float:
    """Read what was spent under a key; 0 where there is no entry."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'spent'").fetchone() is None:
        return 0.0
    row = connection.execute("SELECT usd FROM spent WHERE key = ?", (key,)).fetchone()
    return 0.0 if row is None else row[0]
