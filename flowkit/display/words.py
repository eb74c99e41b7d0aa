"""Values, arguments and counts in one short line."""

import re
from collections.abc import Mapping
from typing import cast

from flowkit import codec

# What a model or a tool says is shown as text: an escape sequence in it must not drive the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    r"""Show control characters, except new lines and tabs, and those that turn the direction of writing, as escapes.

    >>> clean("\x1b[2J\u202e")
    '\\x1b[2J\\u202e'
    """
    return _CONTROL.sub(_escape, text.replace("\r\n", "\n"))


def clean_json(text: str) -> str:
    """Escape control characters in JSON text, where they occur only in strings, so that it stays JSON."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shorten(text: str, limit: int) -> str:
    """Shorten to one line of at most `limit` characters; `…` marks an omission."""
    line = clean(" ".join(text.split()))
    return line if len(line) <= limit else line[: max(0, limit - 1)] + "…"


def say_count(number: int, noun: str, nouns: str | None = None) -> str:
    """Write a number with its noun.

    >>> say_count(1, "entry", "entries"), say_count(0, "run")
    ('1 entry', '0 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {nouns or noun + 's'}"


def say_value(value: object, limit: int = 200) -> str:
    """Write a JSON value in one short line; text without its quotes."""
    return shorten(value if isinstance(value, str) else codec.dumps(value).decode(), limit)


def say_arguments(arguments: object, limit: int = 100) -> str:
    """Write arguments as in a call."""
    if not isinstance(arguments, Mapping):
        return "" if arguments is None else say_value(arguments, limit)
    parts = (f"{name}={_say_argument(value)}" for name, value in cast(Mapping[str, object], arguments).items())
    return shorten(", ".join(parts), limit)


def _say_argument(value: object) -> str:
    """Write JSON, or `get_order/city` for a value from another call."""
    match value:
        case {"from_call": str(call), "path": str(path)}:
            return shorten(call + path, 60)
        case _:
            return shorten(codec.dumps(value).decode(), 60)
