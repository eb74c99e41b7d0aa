"""Decide which call each fragment belongs to.

The wire's index, id and name may each be missing, late, repeated or shared, so no one of them decides. The rules, in
the order in which they are asked: a known index is the same call, unless a new id and name (or a new name behind closed
arguments) begin another; an unknown index is a new call, unless nothing names it and one call is open; without an index
the id decides, then a name begins a new call, and what has neither goes on with the last open call.

`reasoning_details`, which come in pieces and must go back whole (OpenRouter, Vercel).

Pieces of one index and type are one detail: its texts are joined, its other fields are the last that was said; empty is not said. Pieces
without an index are details of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flowkit.assemble.arguments_text import Bracket, read_object
from flowkit.assemble.parts import CallState
from flowkit.codec import JSON
from flowkit.models.base import CallDelta, ProviderDelta


def fill_in(before: JSON, later: JSON) -> JSON:
    """Return the last non-empty value of each field.

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


MAX_CALLS = 128
"""The most calls of one turn; a model that loops asks for more."""
MAY_CLOSE = "} \t\r\n"
"""With which characters the fragment ends that closes an object."""
TOO_MANY = f"more than {MAX_CALLS} calls in one turn"


class GrowingCall:
    """A call while it is streamed; the first id counts, and the name is final once arguments begin."""

    __slots__ = (
        "_bracket",
        "_scanned",
        "_tried",
        "arguments",
        "custom",
        "error",
        "fragments",
        "id",
        "index",
        "name",
        "opened",
        "provider",
        "raw",
        "size",
        "state",
        "wire_id",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.wire_id: str | None = None
        self.id: str = ""
        self.name: str = ""
        self.fragments: list[str] = []
        self.size = 0
        self.custom = False
        self.provider: ProviderDelta | None = None
        self.state: CallState = "open"
        self.opened = False
        self.raw: str = ""
        self.arguments: dict[str, JSON] | None = None
        self.error: str | None = None
        self._bracket = Bracket()
        self._scanned = 0
        self._tried = False

    def accept(self, delta: CallDelta) -> None:
        """Add a delta."""
        if self.wire_id is None:
            self.wire_id = delta.id
        if delta.custom:
            self.custom = True
        name = delta.name
        if name is not None and (not self.name or not self.fragments) and name != self.name:
            self.name = name if name.startswith(self.name) else self.name + name
        if delta.provider is not None:
            data = delta.provider.data if self.provider is None else fill_in(self.provider.data, delta.provider.data)
            self.provider = replace(delta.provider, data=data)
        if delta.arguments:
            self.grow(delta.arguments)

    def grow(self, fragment: str) -> None:
        """Take in more of the arguments."""
        self.fragments.append(fragment)
        self.size += len(fragment)

    @property
    def has_open_json(self) -> bool:
        """Its arguments have begun and haven't closed."""
        return self.state == "open" and self.size > 0 and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Its arguments are a whole object, or nothing more can come."""
        if self.state != "open":
            return True
        if self.custom:
            return False
        self._scan()
        return self._bracket.is_closed

    def read_if_just_closed(self) -> dict[str, JSON] | None:
        """Return the arguments at the moment when they first close; None at all other moments and when they are empty.

        Looks for that only behind a `}`, and parses at most once in the life of a call.
        """
        last = self.fragments[-1]
        if last[-1] not in MAY_CLOSE or self._tried or self.custom or not last.rstrip().endswith("}"):
            return None
        self._scan()
        if not self._bracket.is_closed:
            return None
        self._tried = True
        return read_object("".join(self.fragments)) or None

    def _scan(self) -> None:
        if self._scanned < len(self.fragments):
            self._bracket.feed("".join(self.fragments[self._scanned :]))
            self._scanned = len(self.fragments)


class CallBook:
    """The calls of one turn, in the order in which they came, and the way to each."""

    def __init__(self) -> None:
        self.calls: list[GrowingCall] = []
        self._count = 0
        self._by_slot: dict[int, GrowingCall] = {}
        self._by_id: dict[str, GrowingCall] = {}

    def find(self, delta: CallDelta) -> GrowingCall | None:
        """Find the call that this delta continues; None when it begins a new one."""
        if delta.slot is None:
            return self._find_without_slot(delta)
        call = self._by_slot.get(delta.slot)
        if call is not None:
            return call if delta.name is None or not _begins_another(call, delta.name, delta) else None
        if delta.name is not None:
            return None
        if delta.id is not None:
            return self._by_id.get(delta.id)
        open_calls = self.open_calls()
        return open_calls[0] if len(open_calls) == 1 else None

    def has_room(self, count: int = 1) -> bool:
        """Return True if this many more calls are allowed."""
        return len(self.calls) + count <= MAX_CALLS

    def open_calls(self) -> list[GrowingCall]:
        """List the calls that aren't sealed or void yet."""
        return [call for call in self.calls if call.state == "open"]

    def at(self, slot: int) -> GrowingCall | None:
        """Find the call at this index of the wire."""
        return self._by_slot.get(slot)

    def add(self, slot: int | None = None) -> GrowingCall:
        """Add a new call."""
        call = GrowingCall(self._count)
        self._count += 1
        self.calls.append(call)
        if slot is not None:
            self._by_slot[slot] = call
        return call

    def note_id(self, call: GrowingCall, id: str) -> None:
        """Map this id of the wire to the last call that bore it."""
        if id == call.wire_id:
            self._by_id[id] = call

    def _find_without_slot(self, delta: CallDelta) -> GrowingCall | None:
        call = self._by_id.get(delta.id) if delta.id is not None else None
        if call is None:
            call = next((call for call in reversed(self.calls) if call.state == "open"), None)
            if call is not None and delta.name is not None:
                repeated = delta.name == call.name and call.has_open_json
                return call if repeated else None
            return call
        return call if delta.name is None or not _begins_another(call, delta.name, delta) else None


def _begins_another(call: GrowingCall, name: str, delta: CallDelta) -> bool:
    """Return whether a delta with a name, at a call's place, begins another call there."""
    if delta.id is None:
        if delta.arguments is None or not delta.arguments.lstrip().startswith("{") or not call.is_closed:
            return False
        if name != call.name:
            return True
        return len(delta.arguments) != call.size or delta.arguments != "".join(call.fragments)
    if delta.id == call.wire_id:
        return name != call.name and call.size > 0 and call.is_closed
    if name == call.name:
        return call.is_closed
    # Another name under a late id: the rest of a name that comes in pieces, or another call.
    return True
