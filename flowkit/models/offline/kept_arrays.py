"""Named arrays in one memory-mapped file: an array that took a second to compute is loaded in milliseconds.

The file holds the arrays' bytes, then a JSON object that says where each is, then the sizes and the checksum of both.
It's made aside and renamed, so that each of several processes that make it at once finds a whole one. A file that is
cut or damaged counts as none.
"""

import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from threading import get_ident
from typing import Any, BinaryIO

import orjson

_ALIGNED_BYTES = 64
"""Where arrays begin: what vector instructions read at once."""
_END_BYTES = 48
PART = ".part"
"""Ends the name of a file that is being written."""


@dataclass(frozen=True, slots=True)
class _Place:
    dtype: str
    shape: list[int]
    start: int


def keep_arrays(path: Path, arrays: Mapping[str, Any]) -> bool:
    """Write the arrays to this file; return False, and leave nothing behind, where that can't be done."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{get_ident()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            _write(file, arrays)
        part.replace(path)  # refused on Windows while another process has the file mapped: then it has one
    except OSError:
        with suppress(OSError):
            part.unlink()
        return False
    return True


def read_arrays(path: Path) -> dict[str, Any] | None:
    """Map the file's arrays, which can't be written to, into memory; return None where there is no whole file."""
    import numpy

    try:
        data: Any = numpy.memmap(path, dtype="uint8", mode="r").view(numpy.ndarray)
        checksum, places_start, size = (int(word, 16) for word in bytes(data[-_END_BYTES:]).split())
        # 50 ms for 80 MB; the size alone would pass a file whose end a power cut left as zeros.
        if size != len(data) or zlib.crc32(data[:-_END_BYTES]) != checksum:
            return None
        found = orjson.loads(bytes(data[places_start:-_END_BYTES]))
        places = {name: _Place(**place) for name, place in found.items()}
        return {
            name: numpy.frombuffer(data, place.dtype, prod(place.shape), place.start).reshape(place.shape)
            for name, place in places.items()
        }
    except (OSError, ValueError, TypeError):
        return None


def _write(file: BinaryIO, arrays: Mapping[str, Any]) -> None:
    import numpy

    checksum = size = 0

    def put(data: Any) -> None:
        nonlocal checksum, size
        checksum = zlib.crc32(data, checksum)
        size += file.write(data)

    places: dict[str, _Place] = {}
    for name, array in arrays.items():
        put(bytes(-size % _ALIGNED_BYTES))
        places[name] = _Place(array.dtype.str, list(array.shape), size)
        put(numpy.ascontiguousarray(array).reshape(-1).view("uint8"))
    places_start = size
    put(orjson.dumps({name: asdict(place) for name, place in places.items()}))
    file.write(b"%15x %15x %15x\n" % (checksum, places_start, size + _END_BYTES))
