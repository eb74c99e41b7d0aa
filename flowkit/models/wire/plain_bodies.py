"""The JSON of a body that should have been an event stream.

A gateway that knows no streams answers with the whole answer at one go; others write their events a line each, or as
one list.
"""

import json
import re
from collections.abc import Iterator
from typing import cast

from flowkit.codec import JSON
from flowkit.models.wire.sse import MAX_EVENT_COMMAS

_BLANKS = re.compile(r"\s+")


def begins_json(text: str) -> bool:
    """Return whether a body that begins so is JSON, unless it was cut."""
    return text.lstrip("\ufeff \t\r\n").startswith(("{", "["))


def read_values(body: bytes) -> list[dict[str, JSON]]:
    """Read the objects of a body of JSON, in order; none where any of it can't be read.

    >>> read_values(b'{"a": 1}\\n{"b": 2}')
    [{'a': 1}, {'b': 2}]
    >>> read_values(b'{"a": 1}\\n{"b":')
    []
    """
    if body.count(b",") > MAX_EVENT_COMMAS:
        return []
    try:
        text = body.decode().lstrip("\ufeff \t\r\n")
        return list(_read_each(text)) if begins_json(text) else []
    except (ValueError, RecursionError):
        return []


def _read_each(text: str) -> Iterator[dict[str, JSON]]:
    decoder, place = json.JSONDecoder(strict=False), 0
    while place < len(text) and not text.startswith("[DONE]", place):
        read, place = decoder.raw_decode(text, place)
        value = cast(JSON, read)
        items = value if isinstance(value, list) else [value]
        yield from (item for item in items if isinstance(item, dict))
        between = _BLANKS.match(text, place)
        place = between.end() if between else place
