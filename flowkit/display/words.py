"""How values and times are said in one short line."""

import re
from collections.abc import Mapping

from flowkit import codec
from flowkit.codec import JSON

# What a model or a tool says is shown as text: an escape sequence in it must not drive the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text without control characters, except new lines and tabs."""
    return _CONTROL.sub("", text)


def shorten(text: str, limit: int) -> str:
    """One line of at most `limit` characters; what is left out shows as `…`."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: max(0, limit - 1)] + "…"


def say_value(value: JSON, limit: int = 200) -> str:
    """A JSON value in one short line; text stands without its quotes."""
    return shorten(value if isinstance(value, str) else codec.dumps(value).decode(), limit)


def say_arguments(arguments: JSON, limit: int = 100) -> str:
    """Arguments as one would write them in a call."""
    if not isinstance(arguments, Mapping):
        return "" if arguments is None else say_value(arguments, limit)
    parts = (f"{name}={shorten(codec.dumps(value).decode(), 60)}" for name, value in arguments.items())
    return shorten(", ".join(parts), limit)


def say_seconds(seconds: float) -> str:
    """A time as people say it: `8 ms`, `0.31 s`, `12.4 s`, `3 min 20 s`, `2 h 5 min`.

    >>> [say_seconds(seconds) for seconds in (0.008, 0.314, 12.42, 200, 7500)]
    ['8 ms', '0.31 s', '12.4 s', '3 min 20 s', '2 h 5 min']
    """
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
