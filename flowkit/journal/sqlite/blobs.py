"""A folder of large results, each under the SHA-256 of its content."""

import os
from collections.abc import Collection
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from flowkit.stores.folders import make_private_folder


class BlobFolder:
    """Write once, read many; equal content is stored once, and content is checked against its name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, data: bytes) -> str:
        """Store `data` so that it survives a power loss; returns its name."""
        name = sha256(data).hexdigest()
        place = self._place(name)
        with suppress(FileNotFoundError):
            os.utime(place)  # as good as new: `remove_unused` leaves it alone
            return name
        make_private_folder(self._path)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        # Renamed when it is complete, so a name never refers to partial content.
        draft = place.with_name(f"{name}.{token_hex(4)}.part")
        handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(place)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise
        _sync_folder(place.parent)
        return name

    def get(self, name: str) -> bytes | None:
        """Return the content under this name; None when it is missing or doesn't match its hash."""
        try:
            data = self._place(name).read_bytes()
        except OSError:
            return None
        return data if sha256(data).hexdigest() == name else None

    @property
    def size_bytes(self) -> int:
        """The size of all of it."""
        total = 0
        for place in self._path.glob("??/*"):
            with suppress(FileNotFoundError):
                total += place.stat().st_size
        return total

    def remove_unused(self, used: Collection[str], before: float) -> int:
        """Remove unused content and drafts that were written before that time; return how many.

        A result is stored before the row that names it, so a new one may be about to be used.
        """
        count = 0
        for place in self._path.glob("??/*"):
            with suppress(FileNotFoundError):  # another process tidies too
                if place.name not in used and place.stat().st_mtime < before:
                    place.unlink()
                    count += 1
        return count

    def _place(self, name: str) -> Path:
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise ValueError(f"a blob is called {name!r}, expected a SHA-256 in hexadecimal")
        return self._path / name[:2] / name


def _sync_folder(path: Path) -> None:
    """Make a rename in it survive a power loss, where folders can be opened."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
