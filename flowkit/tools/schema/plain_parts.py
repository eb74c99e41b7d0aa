"""The parts of a schema that can't be wrong, which needn't be checked: checking 9 kB of them takes 35 ms of the event loop.

Most properties of most schemas have a type and a text alone. Only what a part of draft 2020-12 says in these few words,
each with what it takes, is plain; all else is left to `jsonschema`.
"""

from collections.abc import Mapping
from typing import cast

from flowkit.codec import JSON

_TYPES = frozenset(("string", "number", "integer", "boolean", "array", "object", "null"))


def leave_out_plain(schema: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """The schema with nothing in the place of each property that is plain; it is wrong if and only if this is.

    >>> leave_out_plain({"properties": {"a": {"type": "string"}, "b": {"type": "text"}}})
    {'properties': {'a': {}, 'b': {'type': 'text'}}}
    """
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return schema
    return {
        **schema,
        "properties": {name: {} if _is_plain(part) else part for name, part in properties.items()},
    }


def _is_plain(part: JSON) -> bool:
    return isinstance(part, dict) and all(_is_right(word, value) for word, value in part.items())


def _is_right(word: str, value: JSON) -> bool:
    match word:
        case "type":
            return isinstance(value, str) and value in _TYPES
        case "description" | "title" | "format":
            return isinstance(value, str)
        case "default":
            return True
        case "items":
            return _is_plain(value)
        case "properties":
            return isinstance(value, dict) and all(map(_is_plain, value.values()))
        case "required":
            names = cast(list[JSON], value if isinstance(value, list) else [None])
            return all(isinstance(name, str) for name in names) and len(names) == len(set(map(str, names)))
        case _:
            return False
