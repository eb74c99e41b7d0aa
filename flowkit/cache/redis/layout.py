"""The layout of results, leases and generations in Redis: keys, bytes, and the scripts that change several at once.

Every key is a hash, since results are keyed by users' input, and every key has a TTL. All keys of a script share a
hash tag, so that they are in one slot of a cluster. A value contains the key that it was stored for, so a value that
was moved to another key isn't a result there; it is JSON behind a header, and is never executed.

A resource's generation is a random token for each of its rows (see `flowkit.cache.marks`), not a counter: after an
eviction or a flush it starts with a new token, whereas a counter would repeat earlier numbers. Each token includes the
server's own id: after a failover to a replica that missed a write's token, no older result is found.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from struct import error as StructError

from flowkit.cache.entries import Hit, HitError, Label, ShownEntry, label_from_text
from flowkit.cache.marks import rows_of_a_read, rows_of_a_write
from flowkit.codec import loads
from flowkit.resource_names import list_edges

GENERATION_S = 7 * 86_400.0
"""How long an unused generation is kept; a new one costs a miss."""
COUNTERS_S = 30 * 86_400.0
MAX_TTL_S = 10 * 365 * 86_400.0
"""Longer than this is for ever."""

Word = str | bytes | int
"""A part of a command."""

MAKE = """
local found = redis.call('GET', KEYS[1])
if found then return found end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
"""Returns a token, a new one if there is none."""

LEASE = """
local found = redis.call('GET', KEYS[1])
if found then return {found, redis.call('PTTL', KEYS[1])} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[2]) == ARGV[1] then return 1 end
return 0
"""
"""Returns the result with its TTL; otherwise 1 if this process has the lease now, 0 if another has it."""

STORE = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('DEL', KEYS[2]) end
return 1
"""
"""Stores a result, and releases the lease of the process that computed it."""

RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_HEADER = Struct("<4sBQII")
_MAGIC = b"fk2\n"
_ERROR = 1


@dataclass(frozen=True, slots=True)
class Command:
    """One command, and the key that determines its slot."""

    key: str
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A generation's token, and the id of the server that gave it."""

    token: bytes
    server: bytes


class KeyLayout:
    """The commands of one cache; all its keys start with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.counters = f"{prefix}:{{stats}}:tools"

    @property
    def results(self) -> str:
        """The pattern that every result's name fits, for SCAN."""
        escaped = "".join(f"\\{mark}" if mark in "*?[]^\\" else mark for mark in self._prefix)
        return f"{escaped}:{{*}}:v"

    def name_result(self, key: str) -> str:
        return f"{self._prefix}:{{{_hash(key)}}}:v"

    def name_lease(self, key: str) -> str:
        return f"{self._prefix}:{{{_hash(key)}}}:l"

    def name_row(self, row: str) -> str:
        """Name the token of a row; a cluster keeps those of one kind of resource together, as `order:…`."""
        return f"{self._prefix}:{_name_row(row)}"

    def find(self, key: str) -> list[Command]:
        """Return the command for a result and its TTL."""
        name = self.name_result(key)
        return [Command(name, ("GET", name)), Command(name, ("PTTL", name))]

    def read_row(self, row: str) -> Command:
        name = self.name_row(row)
        return Command(name, ("GET", name))

    def make_row(self, row: str, token: bytes) -> Command:
        name = self.name_row(row)
        return Command(name, ("EVAL", MAKE, 1, name, token, to_ms(GENERATION_S)))

    def write_row(self, row: str, token: bytes) -> Command:
        name = self.name_row(row)
        return Command(name, ("SET", name, token, "PX", to_ms(GENERATION_S)))

    def drop_row(self, row: str) -> Command:
        """Drop a token, which a full server still does; the next reader makes a new one."""
        name = self.name_row(row)
        return Command(name, ("UNLINK", name))

    def keep_row(self, row: str, ttl_s: float) -> Command:
        """Let a token live longer than a result that needs it; unknown before Redis 7, and then it's a miss."""
        name = self.name_row(row)
        return Command(name, ("PEXPIRE", name, to_ms(min(ttl_s, MAX_TTL_S) + GENERATION_S), "GT"))

    def lease(self, key: str, owner: str, lease_s: float) -> Command:
        name = self.name_result(key)
        return Command(name, ("EVAL", LEASE, 2, name, self.name_lease(key), owner, to_ms(lease_s)))

    def store(self, key: str, data: bytes, ttl_s: float, owner: str) -> Command:
        name = self.name_result(key)
        return Command(name, ("EVAL", STORE, 2, name, self.name_lease(key), data, to_ms(ttl_s), owner))

    def renew(self, key: str, owner: str, lease_s: float) -> Command:
        name = self.name_lease(key)
        return Command(name, ("EVAL", RENEW, 1, name, owner, to_ms(lease_s)))

    def release(self, key: str, owner: str) -> Command:
        name = self.name_lease(key)
        return Command(name, ("EVAL", RELEASE, 1, name, owner))

    def count(self, tool: str, hits: int, misses: int) -> list[Command]:
        fields = ((f"hits:{tool}", hits), (f"misses:{tool}", misses))
        counts = [Command(self.counters, ("HINCRBY", self.counters, field, number)) for field, number in fields]
        return [*counts, Command(self.counters, ("PEXPIRE", self.counters, to_ms(COUNTERS_S)))]


def list_rows(resources: Iterable[str]) -> list[str]:
    """List the rows with the tokens of these resources' generations."""
    return list(dict.fromkeys(row for resource in resources for row in rows_of_a_read(resource)))


def list_written_rows(resources: Iterable[str]) -> list[str]:
    """List the rows that get a new token when these resources are written."""
    return list(dict.fromkeys(row for resource in resources for row in rows_of_a_write(resource)))


def combine(resource: str, marks: dict[str, Mark]) -> int:
    """Make a resource's generation of the tokens of its rows."""
    found = blake2b(digest_size=8)
    for row in rows_of_a_read(resource):
        mark = marks[row]
        found.update(mark.server + b"\0" + mark.token + b"\0")
    return int.from_bytes(found.digest()) >> 2


def encode(key: str, label: Label, body: bytes, ttl_s: float, *, is_error: bool) -> bytes:
    """Encode a result that is stored under this key now."""
    name, about = key.encode(errors="surrogatepass"), label.to_text().encode()
    header = _HEADER.pack(_MAGIC, _ERROR if is_error else 0, to_ms(ttl_s), len(name), len(about))
    return header + name + about + body


def decode(found: object, left_ms: object, key: str) -> Hit | HitError | None:
    """Decode the result in these bytes, if they were stored under this key; None for anything else."""
    parts = _take_apart(found)
    if (
        parts is None
        or parts.key != key.encode(errors="surrogatepass")
        or not isinstance(left_ms, int)
        or not 0 < left_ms <= parts.ttl_ms
    ):
        return None
    try:
        value = loads(parts.body)
    except ValueError:
        return None
    age_s = (parts.ttl_ms - left_ms) / 1000
    return HitError(str(value), age_s) if parts.is_error else Hit(value, age_s)


def decode_label(found: object) -> Label | None:
    """Decode the owner of a result; None for other bytes."""
    parts = _take_apart(found)
    return None if parts is None else label_from_text(parts.label.decode(errors="replace"))


def decode_shown(found: object, left_ms: object, key: str) -> ShownEntry | None:
    """Decode a result in full, for a person to read."""
    parts, hit = _take_apart(found), decode(found, left_ms, key)
    if parts is None or hit is None or not isinstance(found, bytes):
        return None
    return ShownEntry(
        key=key,
        label=label_from_text(parts.label.decode(errors="replace")),
        value=hit.value if isinstance(hit, Hit) else None,
        error=hit.error if isinstance(hit, HitError) else None,
        age_s=hit.age_s,
        ttl_s=parts.ttl_ms / 1000,
        size_bytes=len(found),
        is_fresh=True,
    )


def to_ms(seconds: float) -> int:
    return int(min(seconds, MAX_TTL_S + GENERATION_S) * 1000)


@dataclass(frozen=True, slots=True)
class _Parts:
    is_error: bool
    ttl_ms: int
    key: bytes
    label: bytes
    body: bytes


def _take_apart(found: object) -> _Parts | None:
    if not isinstance(found, bytes):
        return None
    try:
        magic, flags, ttl_ms, key_bytes, label_bytes = _HEADER.unpack_from(found)
    except StructError:
        return None
    begin = _HEADER.size + key_bytes
    if magic != _MAGIC or len(found) < begin + label_bytes:
        return None
    key, label = found[_HEADER.size : begin], found[begin : begin + label_bytes]
    return _Parts(bool(flags & _ERROR), ttl_ms, key, label, found[begin + label_bytes :])


@lru_cache(maxsize=10_000)
def _name_row(row: str) -> str:
    edges = list_edges(row.partition("\0")[0].partition("*")[0])
    return f"{{{_hash(edges[min(1, len(edges) - 1)])}}}:{_hash(row)}"


def _hash(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
