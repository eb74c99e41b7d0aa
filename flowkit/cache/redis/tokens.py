"""The last known tokens of generations: a guess that saves a round trip."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from secrets import token_hex

from flowkit.cache.redis.layout import Command, KeyLayout, Mark, combine, list_rows
from flowkit.cache.redis.link import Answer, RedisLink
from flowkit.cache.redis.place import Unreachable

MARKS = 10_000
"""How many tokens are remembered."""


class Tokens:
    """Reads the tokens of resources, and creates missing ones."""

    def __init__(self, layout: KeyLayout) -> None:
        self._layout = layout
        self._known: OrderedDict[str, Mark] = OrderedDict()

    def guess(self, resources: Sequence[str]) -> list[int] | None:
        """Return the last known generations; None if one of them is unknown."""
        known = {row: self._known.get(row) for row in list_rows(resources)}
        marks = {row: mark for row, mark in known.items() if mark is not None}
        return [combine(resource, marks) for resource in resources] if len(marks) == len(known) else None

    def forget(self, rows: Iterable[str]) -> None:
        """Forget these, since a write has changed them."""
        for row in rows:
            self._known.pop(row, None)

    async def ask(
        self, link: RedisLink, resources: Sequence[str], also: Sequence[Command]
    ) -> tuple[list[int], Sequence[Answer]]:
        """Read the current generations, and run other commands in the same round trip.

        Raises `Unreachable`, also if a token can be neither read nor created.
        """
        rows = list_rows(resources)
        asked = [self._layout.read_row(row) if row in self._known else self._make(row) for row in rows]
        answers = await link.run([*asked, *also]) if asked or also else []
        found = dict(zip(rows, answers, strict=False))
        gone = [row for row, answer in found.items() if answer.value is None]
        if gone:  # evicted, or flushed
            found.update(zip(gone, await link.run([self._make(row) for row in gone]), strict=True))
        marks: dict[str, Mark] = {}
        for row, answer in found.items():
            if not isinstance(answer.value, bytes):
                raise Unreachable(f"a token can't be read: {answer.value}")
            marks[row] = self._known[row] = Mark(answer.value, answer.server)
            self._known.move_to_end(row)
        while len(self._known) > MARKS:
            self._known.popitem(last=False)
        return [combine(resource, marks) for resource in resources], answers[len(rows) :]

    def _make(self, row: str) -> Command:
        return self._layout.make_row(row, token_hex(12).encode())
