"""Transactions on a journal's file, and reading beside them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from flowkit.errors import StoreError
from flowkit.journal.sqlite.file import JournalFile
from flowkit.journal.store import Commits

T = TypeVar("T")


class Transactions:
    """Operations on connections of a file; `write` in the writer's thread alone."""

    def __init__(self, file: JournalFile) -> None:
        self.file = file
        self.commits = Commits()
        self._name = str(file.path)

    def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation` on a connection of its own; sees what is committed."""
        try:
            with closing(self.file.reader()) as connection:
                return operation(connection)
        except sqlite3.Error as error:
            raise StoreError(f"the journal {self._name!r} can't be read: {error}") from error

    def write(self, operation: Callable[[sqlite3.Connection], T], *, is_durable: bool = True) -> T:
        """Run `operation` as a transaction."""
        try:
            result = self._transact(operation, is_durable)
        except sqlite3.Error as error:
            raise StoreError(f"the journal {self._name!r} can't be written: {error}") from error
        if is_durable:
            self.commits.durable += 1
        else:
            self.commits.normal += 1
        return result

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
            # SQLite has rolled back by itself after some errors, such as a full disk.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        # It may have been taken away or overwritten while this was written: then nobody will ever read it.
        if is_durable:
            self.file.check_content()
        else:
            self.file.check()
        return result
