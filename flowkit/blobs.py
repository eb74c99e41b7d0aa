"""Large binary values, stored in one folder under their hash, and referred to by an address.

An address describes the content: `blob:<SHA-256>#<bytes>,<media type>`. Equal bytes are stored once. They outlive the
process that wrote them, so a resumed run and a cached result still have them. The size of the folder is limited: a
blob that wasn't used for `KEEP_DAYS` is removed, and the least recently used ones when the folder holds more than
`FOLDER_BYTES_AT_MOST`.
"""

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from flowkit.errors import StoreError

BLOB = "blob:"
VARIABLE = "FLOWKIT_BLOBS_DIR"
BLOB_BYTES_AT_MOST = 50 * 1024 * 1024
FOLDER_BYTES_AT_MOST = 2 * 1024**3
KEEP_DAYS = 30
SWEEP_EVERY_S = 24 * 3600.0
_ADDRESS = re.compile(r"blob:([0-9a-f]{64})#(\d+),(.+)")
_SWEPT = ".swept"


@dataclass(frozen=True, slots=True)
class Blob:
    """The parts of an address.

    >>> read_address("blob:" + "0" * 64 + "#8,image/png")
    Blob(name='0000000000000000000000000000000000000000000000000000000000000000', size_bytes=8, media_type='image/png')
    """

    name: str
    size_bytes: int
    media_type: str


def read_address(address: object) -> Blob | None:
    """Read an address; None for anything else."""
    if not isinstance(address, str) or not address.startswith(BLOB):
        return None
    found = _ADDRESS.fullmatch(address)
    return None if found is None else Blob(found[1], int(found[2]), found[3])


def find_folder() -> Path:
    """`FLOWKIT_BLOBS_DIR`, or a folder in the user's folder for states."""
    import platformdirs

    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path(platformdirs.user_state_dir("flowkit")) / "blobs"


def write_blob(data: bytes, media_type: str) -> str:
    """Keep `data`, and return its address.

    Raises `ValueError` for more than `BLOB_BYTES_AT_MOST`, and `StoreError` where it can't be written. A killed
    process loses nothing; after a power loss a blob may be missing, since waiting for the disk would hold the loop.
    """
    if len(data) > BLOB_BYTES_AT_MOST:
        raise ValueError(f"it has {len(data):,} bytes, at most {BLOB_BYTES_AT_MOST:,}")
    name = sha256(data).hexdigest()
    folder = find_folder()
    place = folder / name[:2] / name
    try:
        try:
            os.utime(place)  # as good as new: the next sweep leaves it alone
        except FileNotFoundError:
            _write(place, data)
            _sweep(folder, time.time())
    except OSError as error:
        raise StoreError(
            f"{str(folder)!r} can't be written ({error.strerror or error}); {VARIABLE} names another"
        ) from error
    return f"{BLOB}{name}#{len(data)},{media_type or 'application/octet-stream'}"


def read_blob(address: str) -> bytes | None:
    """Return the bytes at an address; None when they are gone, or don't match their hash."""
    blob = read_address(address)
    if blob is None:
        return None
    place = find_folder() / blob.name[:2] / blob.name
    try:
        data = place.read_bytes()
        with suppress(OSError):
            os.utime(place)
    except OSError:
        return None
    return data if sha256(data).hexdigest() == blob.name else None


def _write(place: Path, data: bytes) -> None:
    place.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.parent.mkdir(exist_ok=True, mode=0o700)
    # Renamed when it is complete, so a name never refers to partial content.
    draft = place.with_name(f"{place.name}.{token_hex(4)}.part")
    handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        draft.replace(place)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def _sweep(folder: Path, now: float) -> None:
    """Remove old and excess content, once a day."""
    mark = folder / _SWEPT
    with suppress(FileNotFoundError):
        if now - mark.stat().st_mtime < SWEEP_EVERY_S:
            return
    mark.touch(mode=0o600)
    remove_old(folder, now)


def remove_old(folder: Path, now: float, *, limit_bytes: int = FOLDER_BYTES_AT_MOST) -> None:
    """Remove blobs not used for `KEEP_DAYS`, and then the least recently used ones until `limit_bytes` are left."""
    found: list[tuple[float, int, Path]] = []
    for place in folder.glob("??/*"):
        with suppress(OSError):
            status = place.stat()
            found.append((status.st_mtime, status.st_size, place))
    left = sum(size for _, size, _ in found)
    for used, size, place in sorted(found):
        if left <= limit_bytes and now - used < KEEP_DAYS * 24 * 3600:
            break
        with suppress(OSError):
            place.unlink()
            left -= size
