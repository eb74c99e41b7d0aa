"""The contents of Redis, for people: hits and misses by tool, and the results to clear."""

from collections.abc import Sequence
from typing import cast

from flowkit.cache.memory import fits
from flowkit.cache.redis.layout import Command, KeyLayout, decode_label
from flowkit.cache.redis.link import RedisLink
from flowkit.cache.redis.place import Address, Unreachable

SCAN_KEYS = 200
"""How many names a step of a scan looks at."""


def read_counts(found: object) -> dict[str, tuple[int, int]]:
    """Read hits and misses by tool from the answer to HGETALL, without other fields."""
    counts: dict[str, tuple[int, int]] = {}
    words = cast("Sequence[object]", found) if isinstance(found, list) else ()
    for name, number in zip(words[::2], words[1::2], strict=False):
        if not isinstance(name, bytes) or not isinstance(number, bytes) or not number.isdigit():
            continue
        kind, _, tool = name.decode(errors="replace").partition(":")
        hits, misses = counts.get(tool, (0, 0))
        counts[tool] = (int(number), misses) if kind == "hits" else (hits, int(number))
    return counts


async def clear_node(
    link: RedisLink, node: Address, layout: KeyLayout, tool: str | None, resource: str | None, user: str | None
) -> int:
    """Drop the results of one server that match every given filter; return how many. Raises `Unreachable`."""
    dropped = 0
    cursor = 0
    while True:
        [answer] = await link.ask(node, [Command("", ("SCAN", cursor, "MATCH", layout.results, "COUNT", SCAN_KEYS))])
        if isinstance(answer.value, Exception):
            raise Unreachable(str(answer.value))
        cursor, names = int(answer.value[0]), [name.decode() for name in answer.value[1]]
        if (tool, resource, user) != (None, None, None) and names:
            found = await link.ask(node, [Command(name, ("GET", name)) for name in names])
            labels = [decode_label(one.value) for one in found]
            names = [
                name
                for name, label in zip(names, labels, strict=True)
                if label is not None and fits(label, tool, resource, user)
            ]
        if names:
            gone = await link.ask(node, [Command(name, ("UNLINK", name)) for name in names])
            refused = [one.value for one in gone if isinstance(one.value, Exception)]
            if refused:
                raise Unreachable(str(refused[0]))
            dropped += sum(one.value for one in gone)
        if cursor == 0:
            return dropped
