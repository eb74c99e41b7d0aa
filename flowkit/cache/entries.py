"""The values of a cache: hits, leases, counters, and the bytes of one entry.

An entry is a header and a JSON body. The header has the time of storing by two clocks. Within one boot the boot clock
decides the age, so setting the wall clock extends no result. After a reboot, and without a boot clock, the wall clock
decides, and an entry from the future is a miss. So is an entry from another boot that, by the wall clock, was stored
after this boot began: the clock was set back.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from math import isfinite
from struct import Struct
from struct import error as StructError
from typing import NamedTuple, Protocol

from flowkit.clock import Clock
from flowkit.codec import JSON, dumps, loads

MAX_ERROR_TTL_S = 30.0
"""How long an error may be remembered."""
CLOCK_SKEW_S = 5.0
"""How far in the future a wall-clock stamp may lie."""

_HEADER = Struct("<4sBdddQ")
HEADER_BYTES = _HEADER.size
_MAGIC = b"fk1\n"
_ERROR = 1


class Hit(NamedTuple):
    """A result that was stored `age_s` seconds ago; a named tuple, which takes less time to make than a frozen dataclass."""

    value: JSON
    age_s: float


@dataclass(frozen=True, slots=True)
class HitError:
    """An error that the tool asked to remember (`cache_errors`): its text, as the model reads it."""

    error: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Look:
    """The result of a look-up: the generation of each resource, the key made of them, and the entry under that key.

    `key` is None for a call without a key, for which nothing was looked up.
    """

    generations: Sequence[int]
    key: str | None
    found: Hit | HitError | None = None


KeyOf = Callable[[Sequence[int]], str | None]
"""Makes a read's key from the generations of its resources; None for a call that can't be keyed."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to compute a key; others wait for the result until it is released or its holder dies."""

    key: str
    owner: str = ""
    _release: Callable[["Lease"], Awaitable[None]] | None = field(default=None, repr=False, compare=False)

    async def release(self) -> None:
        """Let others compute; harmless after `set`, which releases it too."""
        if self._release is not None:
            await self._release(self)


@dataclass(frozen=True, slots=True)
class ToolStats:
    """One tool's part of the cache; ages are None where nothing is stored, sizes where the store reports none."""

    hits: int = 0
    misses: int = 0
    entries: int | None = 0
    size_bytes: int | None = 0
    youngest_s: float | None = None
    oldest_s: float | None = None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The content and the statistics of a cache; `tools` by name.

    `errors` counts failures of the store; `too_large` and `not_json` count results that were not stored. `policy` is a
    server's eviction policy; for a server, `entries` and `size_bytes` are None.
    """

    tools: Mapping[str, ToolStats] = field(default_factory=dict[str, ToolStats])
    hits: int = 0
    misses: int = 0
    errors: int = 0
    too_large: int = 0
    not_json: int = 0
    entries: int | None = 0
    size_bytes: int | None = 0
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """The owner of an entry, for `clear` and `get_stats`."""

    tool: str
    user: str | None = None
    resources: tuple[str, ...] = ()

    def to_text(self) -> str:
        return dumps([self.tool, self.user, list(self.resources)]).decode()


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """One entry for a person to read; `error` is set for a remembered error, `age_s` None when it is unknown."""

    key: str
    label: Label
    value: JSON
    error: str | None
    age_s: float | None
    ttl_s: float
    size_bytes: int
    is_fresh: bool


class ResultStore(Protocol):
    """The part of `diskcache.Cache` that flowkit uses; named here so that naming it doesn't import diskcache."""

    def get(self, key: str) -> bytes | None: ...
    def set(self, key: str, value: bytes, expire: float, tag: str) -> bool: ...
    def delete(self, key: str) -> bool: ...
    def transact(self) -> AbstractContextManager[None]: ...
    def clear(self) -> int: ...
    def cull(self) -> int: ...
    def expire(self) -> int: ...
    def volume(self) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Stamp:
    """When an entry was stored, and for how long it counts."""

    wall: float
    boot_s: float
    boot: int
    ttl_s: float
    is_error: bool = False

    def age(self, clock: Clock) -> float | None:
        """Return its age in seconds; None when it is unknown: a clock was set back."""
        return _find_age(clock, self.wall, self.boot_s, self.boot)

    def is_fresh(self, clock: Clock) -> bool:
        age_s = self.age(clock)
        return age_s is not None and age_s < self.ttl_s


def label_from_text(text: object) -> Label:
    """Read the label that `to_text` wrote; any other text belongs to no user."""
    try:
        match loads(text) if isinstance(text, str) else None:
            case [str(tool), (str() | None) as user, list(resources)]:
                return Label(tool, user, tuple(str(resource) for resource in resources))
            case _:
                return Label("")
    except ValueError:
        return Label("")


def encode_entry(body: bytes, ttl_s: float, clock: Clock, *, is_error: bool = False) -> bytes:
    """Encode an entry stored now."""
    boot, boot_s = read_boot(clock)
    return _HEADER.pack(_MAGIC, _ERROR if is_error else 0, clock.wall(), boot_s, ttl_s, boot) + body


def read_stamp(data: bytes) -> Stamp | None:
    """Read the time of storing from the first bytes of an entry; None for other bytes."""
    try:
        magic, flags, wall, boot_s, ttl_s, boot = _HEADER.unpack_from(data)
    except StructError:
        return None
    if magic != _MAGIC or not isfinite(wall + boot_s + ttl_s):
        return None
    return Stamp(wall, boot_s, boot, ttl_s, bool(flags & _ERROR))


def decode_entry(data: bytes, clock: Clock) -> Hit | HitError | None:
    """Decode the result in these bytes; None when it is too old or is no entry."""
    # Without a `Stamp`, which would take a tenth of the time of a hit.
    try:
        magic, flags, wall, boot_s, ttl_s, boot = _HEADER.unpack_from(data)
    except StructError:
        return None
    if magic != _MAGIC or not isfinite(wall + boot_s + ttl_s):
        return None
    age_s = _find_age(clock, wall, boot_s, boot)
    if age_s is None or age_s >= ttl_s:
        return None
    try:
        value = loads(data[HEADER_BYTES:])
    except ValueError:
        return None
    return HitError(str(value), age_s) if flags & _ERROR else Hit(value, age_s)


def read_boot(clock: Clock) -> tuple[int, float]:
    """Read a number for this boot and the seconds since it; zeros where the platform has no such clock."""
    boot = clock.boot()
    return (0, 0.0) if boot is None else (_boot_number(boot[0]), boot[1])


def _find_age(clock: Clock, wall: float, boot_s: float, boot: int) -> float | None:
    now = clock.boot()
    now_boot, now_s = (0, 0.0) if now is None else (_boot_number(now[0]), now[1])
    if now_boot and now_boot == boot:
        age_s = now_s - boot_s
        return None if age_s < 0 else age_s
    if boot and not now_boot:
        return None
    # Without a boot clock `now_s` is 0; else it was stored before this boot, so it is older than that.
    age_s = clock.wall() - wall
    return None if age_s < now_s - CLOCK_SKEW_S else max(age_s, now_s)


@lru_cache(maxsize=16)
def _boot_number(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest()) + 1
