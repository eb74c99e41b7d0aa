"""Values that are too long to show: their beginning, and their length."""

from itertools import islice
from typing import cast

from flowkit.codec import JSON, dumps

TOLD_BYTES = 2**16
"""Larger values are cut in events; the journal keeps them whole."""
_OWN_BYTES = 8
"""The characters of an item besides its text: quotes, a comma, a colon."""


def cut_value(value: JSON, limit: int = TOLD_BYTES) -> tuple[JSON, int | None]:
    """Return the value and None, or its beginning, of the same shape, and the size of the whole as JSON.

    >>> cut_value(["tea"] * 40_000, limit=40)
    (['tea', 'tea', 'tea'], 240001)
    """
    if type(value) in (int, float, bool, type(None)) or (type(value) is str and len(value) * 6 < limit):
        return value, None
    size = len(dumps(value))
    return (value, None) if size <= limit else (_begin(value, limit)[0], size)


def _begin(value: JSON, room: int) -> tuple[JSON, int]:
    """Return as much of the value as there is room for, and the room that is left."""
    if isinstance(value, str):
        text = value[: max(0, room)]
        # A text with more bytes than characters is cut once more, between two characters.
        while len(encoded := dumps(text)) > max(2, room) and text:
            text = text[: len(text) * max(1, room) // (len(encoded) + 1)]
        return text, room - len(encoded) - _OWN_BYTES
    if isinstance(value, list):
        items: list[JSON] = []
        for item in islice(value, room):
            if room <= _OWN_BYTES:
                break
            kept, room = _begin(item, room)
            items.append(kept)
        return items, room
    if isinstance(value, dict):
        entries: dict[str, JSON] = {}
        for name, item in value.items():
            room -= len(name) + _OWN_BYTES
            if room <= 0:
                break
            entries[name], room = _begin(cast(JSON, item), room)
        return entries, room
    return value, room - len(dumps(value)) - _OWN_BYTES
