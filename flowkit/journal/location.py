"""The place of a journal: a file, or the URL of a database; as an argument, or in `FLOWKIT_JOURNAL`."""

import os
import re
from pathlib import Path

from flowkit.errors import ConfigurationError

_DATABASE = re.compile(r"([\w.-]+:\d+|[^@/\s]+@[\w.-]+(:\d+)?)/[\w-]*(\?.*)?")
"""`localhost:5432/app` or `me@db.example/app`: a URL without its `postgresql://`."""
_KEYWORDS = re.compile(r"(host|hostaddr|dbname|user|port)=\S")
"""The start of libpq's keyword form, such as `host=db.example dbname=app`."""


def is_url(path: str | Path) -> bool:
    """Return whether a journal's path is the address of a database."""
    return isinstance(path, str) and "://" in path


def check_address(path: str | Path) -> None:
    """Raise `ConfigurationError` for a database's address that isn't a URL, and would else be the path of a file."""
    text = str(path)
    if text.startswith(("postgresql:", "postgres:")) and not text.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(
            "the journal's URL has lost a slash: expected postgresql://user@host:5432/database, as text and not as a Path"
        )
    host = text.partition("/")[0]
    if _DATABASE.fullmatch(text) and not Path(host).exists():
        shown = re.sub(r":[^@/]*@", ":***@", text)
        raise ConfigurationError(
            f"the journal {shown!r} would be a file in the folder {shown.partition('/')[0]!r}; for a database write"
            f" postgresql://{shown}"
        )
    if _KEYWORDS.match(text):
        raise ConfigurationError(
            "the journal's address is in the form of PostgreSQL's client: expected postgresql://user@host:5432/database"
        )


def default_journal() -> str | Path:
    """`FLOWKIT_JOURNAL`, a file or a URL; else a file in the user's folder for states.

    Raises `ConfigurationError` for a database's address that isn't a URL.
    """
    named = os.environ.get("FLOWKIT_JOURNAL")
    if named:
        check_address(named)
    return named if named and is_url(named) else default_journal_path()


def default_journal_path() -> Path:
    """`FLOWKIT_JOURNAL`, or a file in the user's folder for states."""
    import platformdirs

    named = os.environ.get("FLOWKIT_JOURNAL")
    return Path(named).expanduser() if named else Path(platformdirs.user_state_dir("flowkit")) / "journal.sqlite3"
