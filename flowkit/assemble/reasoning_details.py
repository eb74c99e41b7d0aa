"""`reasoning_details`, which come in pieces and must go back whole (OpenRouter, Vercel).

Pieces of one index and type are one detail: its texts are joined, its other fields are the last that was said; empty is not said. Pieces
without an index are details of their own.
"""

from collections.abc import Mapping, Sequence

from flowkit.codec import JSON


def fill_in(before: JSON, later: JSON) -> JSON:
    """Return what was said last of each field; empty is not said.

    >>> fill_in({"google": {"thought_signature": "A"}}, {"google": {"thought_signature": ""}, "x": 1})
    {'google': {'thought_signature': 'A'}, 'x': 1}
    """
    if isinstance(before, dict) and isinstance(later, dict):
        return before | {name: fill_in(before.get(name), value) for name, value in later.items()}
    return before if later in (None, "", {}, []) and before is not None else later


_JOINED = ("text", "summary", "data")


class MergedDetails:
    """The details of one answer, as they come."""

    def __init__(self) -> None:
        self._details: list[dict[str, JSON]] = []
        self._texts: list[dict[str, list[str]]] = []
        self._places: dict[tuple[JSON, JSON], int] = {}

    def add(self, pieces: Sequence[JSON]) -> None:
        """Take in the pieces of one chunk."""
        for piece in pieces:
            if isinstance(piece, dict):
                self._add(piece)

    def to_json(self) -> list[JSON]:
        """Return all details, in the order in which they began."""
        return [
            {**detail, **{field: "".join(parts) for field, parts in texts.items()}}
            for detail, texts in zip(self._details, self._texts, strict=True)
        ]

    def _add(self, piece: Mapping[str, JSON]) -> None:
        index, kind = piece.get("index"), piece.get("type")
        key = (index, kind) if isinstance(index, int) and isinstance(kind, str) else None
        place = None if key is None else self._places.get(key)
        if place is None:
            place = len(self._details)
            self._details.append({})
            self._texts.append({})
            if key is not None:
                self._places[key] = place
        detail, texts = self._details[place], self._texts[place]
        for field, value in piece.items():
            if field in _JOINED and isinstance(value, str):
                texts.setdefault(field, []).append(value)
            elif value not in (None, "") or field not in detail:
                detail[field] = value
