"""An event as JSON, written in one pass: a page and a journal write each event of each run."""

from dataclasses import fields
from functools import cache

import orjson

from flowkit import codec
from flowkit.events.kinds import Event, UsageReported
from flowkit.long_values import TOLD_BYTES

_FINITE = (str, int, bool, str | None, int | None, tuple[str, ...])


def dump_event(event: Event) -> bytes:
    """Serialise an event, byte for byte as its `to_json`; raises `ValueError` for a value that isn't JSON."""
    if isinstance(event, UsageReported):  # its usage has a form of its own
        return codec.dumps(event.to_json())
    try:
        data = orjson.dumps(event)
    except TypeError:  # large integers, halves of characters: the codec knows what becomes of them
        return codec.dumps(event.to_json())
    if event.long is not None and len(data) > TOLD_BYTES:
        return codec.dumps(event.to_json())
    if b"null" in data:
        for name in _list_numbers(type(event)):
            codec.refuse_not_finite(getattr(event, name))
    return b'{"type":"%s",%s' % (event.type.encode(), data[1:])


@cache
def _list_numbers(kind: type[Event]) -> tuple[str, ...]:
    """List the fields of a kind, behind those that all have, that may hold a NaN, which becomes null, too."""
    return tuple(field.name for field in fields(kind)[3:] if field.type not in _FINITE)
