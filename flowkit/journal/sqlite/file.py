"""The journal's file, opened without blocking where possible, and watched in case it is removed.

SQLite keeps writing to a deleted file without an error. So before each commit the writer checks whether the file still
has its name, and whether a newer flowkit has changed its tables. If so, this journal writes nothing more, because
nobody would find it.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

from flowkit.errors import StoreError
from flowkit.journal.sqlite.reading import Damaged
from flowkit.journal.sqlite.schema import VERSION, check_not_newer, connect, create_tables, read_version
from flowkit.journal.store import Commits
from flowkit.stores.folders import hold_folder, make_private_file, refuse_network

OPEN_TIMEOUT_S = 10.0
"""How long opening waits for another process that opens or changes the file."""
Inode = tuple[int, int]
"""A file's device and number."""
_LOG_MARKS = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""The first bytes of SQLite's write-ahead log; it is empty after a checkpoint that truncates it."""


class JournalFile:
    """One file and its connections; `check` before and after a commit verifies that it is still the file that was opened."""

    def __init__(self, path: Path, *, allow_network: bool) -> None:
        if not allow_network:
            refuse_network(path)
        self.path = path
        self._names = str(path), f"{path}-wal"
        self._is_open = False
        self._opening = threading.Lock()
        self._database: Inode | None = None
        self._wal: Inode | None = None
        self._changed_ns: int | None = None
        """When the database had last been changed as its beginning was looked at."""
        self._known_in: int | None = None
        """The process that read them; a forked one reads them again, since its parent may have been the last to hold the log."""
        self._connections: dict[tuple[int, bool], sqlite3.Connection] = {}
        self._lost: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_private_file(path)
        except OSError as error:
            raise self._explain_unopened(error) from error

    def try_open(self) -> bool:
        """Open it if it isn't locked and needs no new tables; raises `StoreError` if it is not a journal."""
        try:
            with closing(connect(self.path, busy_timeout_s=0)) as connection:
                self._is_open = check_not_newer(read_version(connection)) == VERSION
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise self._explain_unopened(error) from error
        except sqlite3.Error as error:
            raise self._explain_unopened(error) from error
        return self._is_open

    def open(self) -> None:
        """Open it, and make its tables if it is new or old; blocks, for a bounded time. Raises `StoreError`."""
        with self._opening:
            if self._is_open:
                return
            try:
                with hold_folder(self.path.parent, timeout_s=OPEN_TIMEOUT_S), closing(connect(self.path)) as connection:
                    if check_not_newer(read_version(connection)) != VERSION:
                        create_tables(connection)
            except (sqlite3.Error, OSError) as error:
                raise self._explain_unopened(error) from error
            self._is_open = True

    def writer(self, *, is_durable: bool) -> sqlite3.Connection:
        """Return the writer thread's connection: the durable one, with commits that survive a power loss, or the other."""
        place = (os.getpid(), is_durable)  # a forked process must not use its parent's
        if place not in self._connections:
            if self._known_in != place[0]:
                self._database = _find_inode(self._names[0])  # before: it may be replaced while it is opened
            kind: Literal["FULL", "NORMAL"] = "FULL" if is_durable else "NORMAL"
            self._connections[place] = connect(self.path, synchronous=kind)
        return self._connections[place]

    def renew_writer(self, *, is_durable: bool) -> None:
        """Replace a connection with statements that can't be finished; they would keep its locks."""
        place = (os.getpid(), is_durable)
        before = self._connections.pop(place, None)
        if before is not None:
            # Opened first: SQLite removes its log with the last connection.
            self.writer(is_durable=is_durable).execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            before.close()

    def reader(self) -> sqlite3.Connection:
        """Open a connection for the caller's thread, which closes it; it reads committed data."""
        self.open()
        self.check()
        return connect(self.path)

    def check(self) -> None:
        """Raise `StoreError` once the file was removed or replaced; nothing can be written through it any more."""
        if self._lost is None and self._known_in == os.getpid() and not self._is_same():
            self._lost = self._find_loss()
        if self._lost is not None:
            raise StoreError(
                f"the journal {str(self.path)!r} can't be written: {self._lost} while this process used it"
            )

    def check_content(self) -> None:
        """Raise `StoreError` once the file or its log was overwritten: SQLite finds that only when it reads them again."""
        with suppress(OSError):  # removed: `check` reports it
            if self._lost is None and not self._begins_well():
                self._lost = "it was overwritten"
        self.check()

    def check_version(self, connection: sqlite3.Connection) -> None:
        """Raise `StoreError` when a newer flowkit has changed the tables; call it inside the writing transaction."""
        version = read_version(connection)
        if version != VERSION:
            self._lost = f"another flowkit made it version {version} (this one knows {VERSION})"
            self.check()

    def note(self) -> None:
        """Remember which file this is; call it when a connection has a transaction, so that its log is there, too."""
        if self._known_in != os.getpid():
            self._wal = _find_inode(self._names[1])
            self._known_in = os.getpid()

    def close(self) -> None:
        """Close the writer thread's connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._known_in = None  # SQLite removes its log with the last connection

    def _is_same(self) -> bool:
        return (_find_inode(self._names[0], holds_something=True), _find_inode(self._names[1])) == (
            self._database,
            self._wal,
        )

    def _begins_well(self) -> bool:
        changed_ns = os.stat(self._names[0]).st_mtime_ns  # before its content is read: it may be changed meanwhile
        if changed_ns != self._changed_ns:  # by a checkpoint, once in a thousand pages, or by something else
            if not _is_database(self.path):
                return False
            self._changed_ns = changed_ns
        log = os.open(self._names[1], os.O_RDONLY)
        try:
            head = os.read(log, len(_LOG_MARKS[0]))
        finally:
            os.close(log)
        return not head or head in _LOG_MARKS

    def _find_loss(self) -> str:
        try:
            return "it was replaced by another file" if self.path.stat().st_size else "it was emptied"
        except OSError:
            return "it was removed"

    def _explain_unopened(self, error: Exception) -> StoreError:
        # A file that is no journal, or is held by another process, is mended otherwise.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_refused = isinstance(error, OSError) or code in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_FULL,
        )
        way_out = "; FLOWKIT_JOURNAL names another file" if is_refused else ""
        return StoreError(f"the journal {str(self.path)!r} can't be opened: {error}{way_out}")


def _find_inode(path: str, *, holds_something: bool = False) -> Inode | None:
    """Return the file's identity; None if there is no file, or an empty one that shouldn't be empty."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return None if holds_something and not found.st_size else (found.st_dev, found.st_ino)


def _is_database(path: Path) -> bool:
    """Return whether the file starts with a database header, regardless of its log.

    SQLite opens it: a process that closes the file on its own loses the locks of all its connections.
    """
    address = f"file:{quote(str(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, isolation_level=None, uri=True)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        # Any other error may come of a checkpoint that is just being written.
        return error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_NOTADB
    return True


T = TypeVar("T")


class Transactions:
    """Operations on connections of a file; `write` in the writer's thread alone."""

    def __init__(self, file: JournalFile) -> None:
        self.file = file
        self.commits = Commits()
        self._name = str(file.path)

    def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation` on a new connection, which reads committed data."""
        try:
            with closing(self.file.reader()) as connection:
                return operation(connection)
        except Damaged as error:
            raise self._explain_damage(error) from error
        except sqlite3.Error as error:
            raise StoreError(f"the journal {self._name!r} can't be read: {error}") from error

    def write(self, operation: Callable[[sqlite3.Connection], T], *, is_durable: bool = True) -> T:
        """Run `operation` as a transaction."""
        try:
            result = self._transact(operation, is_durable)
        except Damaged as error:
            self.file.renew_writer(is_durable=is_durable)
            raise self._explain_damage(error) from error
        except sqlite3.Error as error:
            raise StoreError(f"the journal {self._name!r} can't be written: {error}") from error
        if is_durable:
            self.commits.durable += 1
        else:
            self.commits.normal += 1
        return result

    def _explain_damage(self, error: Damaged) -> StoreError:
        way_out = f"restore the file from a copy, or remove the run: Journal(…).delete({error.run!r})"
        return StoreError(f"the journal {self._name!r} is damaged: {error}; {way_out}")

    def _transact(self, operation: Callable[[sqlite3.Connection], T], is_durable: bool) -> T:
        self.file.open()
        self.file.check()
        connection = self.file.writer(is_durable=is_durable)
        connection.execute("BEGIN IMMEDIATE")
        try:
            self.file.note()
            self.file.check_version(connection)
            result = operation(connection)
            connection.execute("COMMIT")
        except BaseException:
            # After some errors, such as a full disk, SQLite rolls back automatically.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        # If the file was removed or overwritten during the commit, no process will ever read these changes.
        if is_durable:
            self.file.check_content()
        else:
            self.file.check()
        return result
