"""Parse the text of a call's arguments: detect when it closes, and read its value once it is sealed.

Servers send it in fragments, whole, twice, or each time all of it so far; some send `{}` first, and some glue two calls
together. Fragments are concatenated unless that gives no JSON. Everything here takes time linear in the text: a text is
parsed once when it first closes, once when it is sealed, and never for each fragment.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile, pairwise
from math import isfinite
from typing import cast

from flowkit.codec import JSON

MAX_GLUED = 32
"""The most calls that one text is taken apart into."""

MAX_DEPTH = 100
"""How deep arguments may be nested: what goes on with them walks through them, and Python's stack has an end."""

_NOTHING = ("", "null", '"null"', '""')
"""How servers write that a call has no arguments; one writes it as JSON text that holds JSON text."""

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+("|\\?\Z)', re.DOTALL)
_REST_OF_STRING = re.compile(r'(?:[^"\\]++|\\.)*+("|\\?\Z)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reading:
    """A parsed text: `arguments`, or None with `error` for the model; `raw` is the text without repetitions."""

    raw: str
    arguments: dict[str, JSON] | None
    error: str | None = None


class Bracket:
    """The bracket depth of a growing JSON text; strings and escapes can be cut anywhere."""

    __slots__ = ("_begun", "_depth", "_escaped", "_in_string")

    def __init__(self) -> None:
        self._depth = 0
        self._begun = False
        self._in_string = False
        self._escaped = False  # the text ended with the backslash of an escape

    @property
    def is_closed(self) -> bool:
        """Return whether something was opened, and all of it is closed again."""
        return self._begun and self._depth == 0 and not self._in_string

    def feed(self, text: str) -> None:
        """Read the next piece."""
        if not text:
            return
        if self._escaped:
            text = text[1:]
            self._escaped = False
        if self._in_string:
            rest = _REST_OF_STRING.match(text)
            if rest is None or rest[1] != '"':
                self._escaped = rest is not None and rest[1] == "\\"
                return
            self._in_string = False
            text = text[rest.end() :]
        pieces = _STRING.split(text)  # outside, how the string ended, outside, …
        if len(pieces) > 1 and pieces[-2] != '"':
            self._in_string = True
            self._escaped = pieces[-2] == "\\"
        outside = "".join(pieces[::2])
        opened = outside.count("{") + outside.count("[")
        self._begun = self._begun or opened > 0
        self._depth += opened - outside.count("}") - outside.count("]")


def read_object(text: str) -> dict[str, JSON] | None:
    """Read the object that this text is; None when it is something else or incomplete."""
    return _read(text).arguments


def read_fragments(fragments: Sequence[str]) -> tuple[Reading, ...]:
    """Read the fragments of one call: one reading, or several where calls were glued together.

    Their concatenation, if it is JSON; else the last of a growing chain; else what follows a placeholder `{}`; else
    the objects that follow each other, one if they are equal. No text at all is an empty object, and so is `null`.
    """
    text = "".join(fragments)
    if text.strip() in _NOTHING:
        return (Reading("{}", {}),)
    reading = _read(text)
    if reading.arguments is not None:
        return (reading,)
    pieces = [fragment for fragment in fragments if fragment.strip()]
    if pieces[0].strip() == "null":
        pieces = list(dropwhile(lambda piece: piece.strip() == "null", pieces))
        text = "".join(pieces)
        if not pieces or (reading := _read(text)).arguments is not None:
            return (Reading(text or "{}", reading.arguments if pieces else {}),)
    if len(pieces) > 1 and pieces[0].strip() == "{}":
        pieces = pieces[1:]
    if len(pieces) > 1 and all(after.startswith(before) for before, after in pairwise(pieces)):
        last = _read(pieces[-1])
        if last.arguments is not None:
            return (last,)
    return _split(text) or (reading,)


def _split(text: str) -> tuple[Reading, ...]:
    """Split the text into consecutive objects; none when it is anything else, or ambiguous."""
    readings: list[Reading] = []
    position = 0
    while position < len(text):
        start = _skip_blank(text, position)
        if start == len(text):
            break
        try:
            end = _STRICT.raw_decode(text, start)[1]
        except (ValueError, RecursionError):
            return ()
        reading = _read(text[start:end])
        if reading.arguments is None or len(readings) == MAX_GLUED:
            return ()
        readings.append(reading)
        position = end
    readings = [reading for reading in readings if reading.arguments] or readings[:1]
    different = {json.dumps(reading.arguments, sort_keys=True): reading for reading in reversed(readings)}
    # Some equal, some not: a repetition or two equal calls, nobody can tell, and a write must not run twice.
    return tuple(reversed(different.values())) if len(different) in (1, len(readings)) else ()


def _read(text: str) -> Reading:
    try:
        value, raw = _decode(text)
        if isinstance(value, str):  # JSON text that holds JSON text
            raw = value
            value, raw = _decode(value)
    except (ValueError, RecursionError) as error:
        return Reading(text, None, f"the arguments aren't JSON: {error}")
    if not isinstance(value, dict):
        return Reading(text, None, f"the arguments are {type(value).__name__}, expected an object")
    arguments = cast(dict[str, JSON], value)
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(arguments, MAX_DEPTH):
        return Reading(text, None, f"the arguments are nested deeper than {MAX_DEPTH}")
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(arguments, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Reading(text, None, "the arguments hold half of a character")
    return Reading(raw, arguments)


def _is_deeper(value: JSON, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return any(isinstance(item, (dict, list)) for item in level)


def _decode(text: str) -> tuple[object, str]:
    """Decode the value; return it and its text as strict JSON."""
    try:
        return _STRICT.decode(text), text
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Invalid control character"):
            raise
    value = cast(object, _LENIENT.decode(text))
    return value, json.dumps(value, ensure_ascii=False)


def _read_float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} isn't JSON")


def _skip_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


_BLANK = re.compile(r"[ \t\r\n]*")
_STRICT = json.JSONDecoder(parse_float=_read_float, parse_constant=_refuse_constant)
_LENIENT = json.JSONDecoder(parse_float=_read_float, parse_constant=_refuse_constant, strict=False)
