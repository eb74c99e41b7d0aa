"""Writes with a failed bump, as files in the cache's folder that every process checks.

While the folder `unfinished` exists, no read on any resource is taken from the cache, since it is unknown which ones a
write has invalidated. A process that sees the folder invalidates the reads of all resources, and then removes the
names that it had seen. The check is one `stat`, so it is cheap enough for each read. It is a folder, not a file,
because `rmdir` refuses a folder into which another process has just put a name, so no process removes a name that it
hasn't handled.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

ATTEMPTS = 10
"""How often a name is put in again, because another process took the folder away just before."""


class Unfinished:
    """The marks of failed bumps in one cache's folder, and one in memory where none can be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "unfinished"
        self._path = str(self._folder)  # a `Path` would be turned into text with each look
        self._is_here = False

    def is_any(self) -> bool:
        """Return whether a write in any process still has to invalidate its reads."""
        if self._is_here:
            return True
        try:
            os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # it is unknown
        return True

    def add(self) -> str:
        """Add a mark that every process sees, and return its name.

        Raises `OSError` where the folder takes no file, and then only this process knows.
        """
        self._is_here = True
        name = token_hex(8)
        for _ in range(ATTEMPTS):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            try:
                os.close(os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileNotFoundError:
                continue
            self._is_here = False
            return name
        raise OSError(f"{self._path} is taken away again and again")

    def list_names(self) -> Sequence[str]:
        """List the marks that are there now, to pass to `remove` after the reads have been invalidated."""
        try:
            return os.listdir(self._path)
        except OSError:
            return ()

    def remove(self, names: Sequence[str]) -> None:
        """Remove these: the reads that they stood for have been invalidated."""
        self._is_here = False
        with suppress(OSError):  # another process has put one in, or has taken the folder away
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
            self._folder.rmdir()
