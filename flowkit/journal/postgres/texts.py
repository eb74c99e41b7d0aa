"""Values, and the server's clock, in the text of a statement.

A batch is sent to the server as one text of several statements. That takes one round trip for any number of them.
Statements that every batch repeats are prepared where the session is this process's own: the server then spends a fifth
of the time on them. A pooler may use another connection for each transaction, so through one the same statements are
sent in full, and leave no state.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import cast

from flowkit.clock import Clock, SystemClock
from flowkit.journal.driver_lease import NO_LEASE, RunLease, lease_until

_NUL = "a NUL would end the statement; `to_column` escapes it"
MANY = 16
"""So many texts of an array are split by the server."""
_SEPARATOR = "\x01"
_QUOTE = "$flowkit$"
Value = str | int | float | bool | bytes | None


def literal(value: Value) -> str:
    r"""Write a value as SQL.

    >>> literal("it's"), literal("a\\b"), literal(None), literal(True), literal(b"\x00\xff")
    ("'it''s'", "E'a\\\\b'", 'NULL', 'TRUE', "E'\\\\x00ff'::bytea")
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return str(value)
        case float():
            return f"{value!r}::float8"
        case bytes():
            # With E, a backslash is the same whatever standard_conforming_strings is.
            return f"E'\\\\x{value.hex()}'::bytea"
        case str():
            return _quote(value)


def array(values: Sequence[str | int | float | bool | None], kind: str) -> str:
    """Write values as an array of this type.

    >>> array(["a", None, 'b"c'], "text")
    'E\\'{"a",NULL,"b\\\\\\\\"c"}\\'::text[]'
    """
    if kind == "text" and values and None not in values:
        texts = cast("Sequence[str]", values)
        if len(texts) >= MANY and (plain := _join_plainly(texts)) is not None:
            return plain
        # All at once: a batch has thousands of them. No text holds the separator, since no column may.
        joined = "\0".join(texts)
        if joined.count("\0") != len(texts) - 1:
            raise ValueError(_NUL)
        listed = '"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","') + '"'
    else:
        listed = ",".join(map(_to_element, values))
    return f"{_quote('{' + listed + '}')}::{kind}[]"


def _join_plainly(texts: Sequence[str]) -> str | None:
    """Write texts as they are, split by the server; None where they hold a separator, which JSON never does.

    JSON has so many quotes that escaped twice it is half as long again, and the server reads it a fourth slower.
    """
    joined = _SEPARATOR.join(texts)
    if "\0" in joined or joined.count(_SEPARATOR) != len(texts) - 1:
        return None
    if (joined + _QUOTE).index(_QUOTE) != len(joined):
        return None  # the text ends where the quote is found first
    return f"string_to_array({_QUOTE}{joined}{_QUOTE}, E'\\x01')"


def bind(statement: str, *values: Value) -> str:
    """Put values into a statement, one for each `%s`. Never pass bound text again: a value may contain `%s`.

    >>> bind("SELECT %s, %s", 1, "a")
    "SELECT 1, 'a'"
    """
    parts = statement.split("%s")
    assert len(parts) == len(values) + 1, statement
    return parts[0] + "".join(literal(value) + part for value, part in zip(values, parts[1:], strict=True))


@dataclass(frozen=True)
class Statement:
    """A statement with the parameters `$1`, `$2`, …, and their types."""

    text: str
    kinds: tuple[str, ...]

    @cached_property
    def name(self) -> str:
        """Its name in a session; other texts have other names, also those of another version of flowkit."""
        return f"flowkit_{sha256(self.text.encode()).hexdigest()[:16]}"

    @property
    def preparation(self) -> str:
        """Return the statement that prepares it."""
        return f"PREPARE {self.name} ({', '.join(self.kinds)}) AS {self.text}"

    def call(self, values: Sequence[str], *, is_prepared: bool) -> str:
        """Return the text that runs it with these values, each written as SQL.

        >>> statement = Statement("SELECT $1 + $2, $1", ("int", "int"))
        >>> statement.call(["3", "'$1'"], is_prepared=False)
        "SELECT 3 + '$1', 3"
        >>> statement.call(["3", "'$1'"], is_prepared=True)
        "EXECUTE flowkit_817044aff6d750af(3, '$1')"
        """
        if is_prepared:
            return f"EXECUTE {self.name}({', '.join(values)})"
        # Text and numbers of parameters in turn, so a value that looks like a parameter isn't replaced.
        return "".join(values[int(part) - 1] if odd else part for odd, part in self._parts)

    @cached_property
    def _parts(self) -> tuple[tuple[int, str], ...]:
        return tuple((index % 2, part) for index, part in enumerate(re.split(r"\$(\d+)", self.text)))


def _quote(text: str) -> str:
    if "\0" in text:
        raise ValueError(_NUL)
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if "\\" not in text else f"E'{quoted.replace(chr(92), chr(92) * 2)}'"


def _to_element(value: str | int | float | bool | None) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "NULL" if value is None else repr(value)


ELSEWHERE = "elsewhere"
"""The holder of a claim that was read: who it is doesn't matter, since only time and the token decide here."""


@dataclass(frozen=True, slots=True)
class Times:
    """Points in time as SQL, by the server's clock, or by a test's.

    No client's clock is used, so two machines whose clocks differ see the same leases. `clock_timestamp()` is the time
    of evaluation, so a lease that is granted after a wait has its full length; `now()` is the start of the transaction.
    """

    clock: Clock

    @property
    def now(self) -> str:
        """Now."""
        if isinstance(self.clock, SystemClock):
            return "clock_timestamp()"
        return f"to_timestamp({self.clock.wall()!r}::float8)"

    def after(self, seconds: str) -> str:
        """Return the time that many seconds from now."""
        return f"{self.now} + {seconds} * interval '1 second'"

    def read_lease(self, remaining_s: float | None) -> RunLease:
        """Read a claim that expires that many seconds from now, by this machine's clock."""
        return NO_LEASE if remaining_s is None else RunLease(ELSEWHERE, *lease_until(self.clock, remaining_s))
