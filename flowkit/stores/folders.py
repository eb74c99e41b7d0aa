"""Private folders and files, on disks that SQLite can lock."""

import os
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowkit.errors import ConfigurationError

NETWORK_TYPES = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "ncpfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.rclone",
    ]
)
"""File systems on which SQLite's locks or shared memory don't hold (https://sqlite.org/wal.html, "Overview")."""


def make_private_folder(path: Path) -> None:
    """Create the folder with mode 0700, or check that it is ours and not writable by others.

    Raises `ConfigurationError` for another user's folder, and `OSError` if it can't be created.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name != "posix":
        return
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise ConfigurationError(f"the folder {str(path)!r} belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"the folder {str(path)!r} has mode {stat.S_IMODE(found.st_mode):04o}: others can write into it; "
            "expected 0700; where the mode can't be changed, as on a container's volume, name a folder inside it that isn't "
            "there yet, which is made so"
        )


def make_private_file(path: Path) -> None:
    """Create an empty file that only its owner can read, unless it exists.

    An existing file isn't opened: closing any handle of a file releases the locks that SQLite holds on it in this
    process (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def refuse_network(path: Path, *, mounts: str | None = None) -> None:
    """Raise `ConfigurationError` if `path` is on a network file system; detected only on Linux."""
    kind = find_file_system(path, _read_mounts() if mounts is None else mounts)
    if kind in NETWORK_TYPES:
        raise ConfigurationError(
            f"{str(path)!r} lies on {kind}: SQLite can't lock there, and databases break; "
            "choose a local folder, or pass allow_network=True"
        )


def find_file_system(path: Path, mounts: str) -> str | None:
    """Find the type of the file system that holds `path`, from `/proc/self/mountinfo`; None when it isn't listed.

    >>> find_file_system(Path("/home/ada/x"), "22 1 8:1 / / rw - ext4 /dev/sda rw\\n23 22 0:9 / /home rw - nfs4 n:/ rw")
    'nfs4'
    """
    place = path.resolve()
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].replace("\\040", " "))
        # The last mount on a point hides the earlier ones, so `>=`.
        if place.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), after.split()[0])
    return None if best is None else best[1]


def _read_mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ""


HOLD_TIMEOUT_S = 10.0
"""How long a process waits for another one that opens or replaces a database in the same folder."""
HOLD_POLL_S = 0.02


@contextmanager
def hold_folder(
    path: Path, *, timeout_s: float = HOLD_TIMEOUT_S, waits: Callable[[], None] | None = None
) -> Generator[None]:
    """Lock the folder, so that one process at a time opens or replaces its database; without file locks, do nothing.

    Block for at most `timeout_s`, then raise `TimeoutError`, since the holder may hang.
    Calls `waits` once, before it waits.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # the folder itself: no file is left behind
    give_up_at = time.monotonic() + timeout_s
    try:
        while True:
            try:
                # Not blocking: a signal alone ends the other form, so it has no bound.
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    message = f"another process holds the folder {str(path)!r} (flock), for {timeout_s:g} s by now"
                    raise TimeoutError(message) from None
                if waits is not None:
                    waits()
                    waits = None
                time.sleep(HOLD_POLL_S)
        yield
    finally:
        os.close(handle)


def move_aside(database: Path) -> None:
    """Rename a database and its log to `….broken`, to make room for a new one; the last broken one is kept."""
    for ending in ("-wal", "-shm", ""):
        # The log goes first: a new database must never meet the pages of the old one.
        path = database.with_name(database.name + ending)
        if os.path.lexists(path):  # also a link that leads nowhere
            path.replace(database.with_name(f"{database.name}.broken{ending}"))
