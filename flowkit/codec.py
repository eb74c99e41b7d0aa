"""The one JSON codec of caches, journals, traces and recordings.

JSON values are Python's: dict with text keys, list, str, int, float, bool, None. NaN and the infinities aren't JSON
(RFC 8259, section 6) and are refused, not turned into null.
"""

import math
from collections.abc import Iterable, Mapping
from typing import cast

import orjson

JSON = dict[str, "JSON"] | list["JSON"] | str | int | float | bool | None
"""A JSON value as Python holds it."""


def dumps(value: object) -> bytes:
    """Serialize as compact UTF-8 JSON, with keys in their order; a lone UTF-16 surrogate becomes U+FFFD.

    Raises `ValueError` for a value that isn't JSON, with its type or NaN in the message.
    """
    try:
        data = orjson.dumps(value)
    except TypeError as error:
        data = _dumps_slowly(value, error)
    if b"null" in data and orjson.loads(data) != value:  # read back, NaN is None; what is equal has none
        refuse_not_finite(value)
    return data


def loads(data: bytes | str) -> JSON:
    """Parse the JSON value in `data`; raises `ValueError` when it isn't JSON."""
    value: JSON = orjson.loads(data)  # not by `cast`, which is a call
    return value


def dump_sorted(value: object) -> bytes:
    """Serialize with sorted keys: equal values give equal bytes, different values different ones."""
    try:
        data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        import json

        data = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    if b"null" in data and orjson.loads(data) != value:  # read back, NaN is None; what is equal has none
        refuse_not_finite(value)
    return data


def _dumps_slowly(value: object, error: TypeError) -> bytes:
    """Serialize values that orjson refuses with Python's own codec: integers beyond 64 bits, and lone surrogates.

    Lone surrogates come from clients that split an emoji, and from file names.
    """
    if "64-bit" not in str(error) and "surrogates" not in str(error):
        raise ValueError(f"not JSON: {error}") from error
    import json

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def refuse_not_finite(value: object) -> None:
    """Raise `ValueError` for a NaN or an infinity in a value, at any depth; it names the place as a JSON pointer."""
    # orjson writes NaN as null, so only a text that holds a null needs the walk.
    stack: list[tuple[object, str]] = [(value, "")]
    while stack:
        item, place = stack.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                # A missing value of a table is a NaN.
                where = f" at {place}" if place else ""
                raise ValueError(f"not JSON: {item!r}{where}; None is the value for what is missing")
        elif isinstance(item, (dict, Mapping)):
            stack.extend((each, f"{place}/{key}") for key, each in cast(Mapping[object, object], item).items())
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack.extend((each, f"{place}/{index}") for index, each in enumerate(cast(Iterable[object], item)))
