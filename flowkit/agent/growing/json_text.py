"""A JSON text that comes in pieces, as the value that it is so far.

Each character is looked at once. Containers are open on a stack; a value that is shown while it grows is changed in
its place, one that isn't is kept as text until it is whole. What was shown stays: a list gets longer, an object gets
more fields, a text more characters. Text that is no JSON, or doesn't fit, ends the growth where it stands.
"""

import re
from typing import cast

from flowkit.agent.growing.shapes import GrowingShape
from flowkit.codec import JSON, dumps, loads

MAX_DEPTH = 100
"""How deep a value is followed."""

_BLANK = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\]*')
_ATOM = re.compile(r"[^\s,\]}:\"\[{]*")
_HEX = frozenset("0123456789abcdefABCDEF")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ABSENT = object()


class _Open:
    """A container that isn't closed; `shown` is None for one that is only kept as text."""

    __slots__ = ("held", "is_list", "key", "name", "shape", "shown", "start", "waits_for")

    def __init__(
        self, shape: GrowingShape | None, shown: "list[JSON] | dict[str, JSON] | None", *, is_list: bool
    ) -> None:
        self.shape = shape
        self.shown = shown
        self.is_list = is_list
        self.key = ""
        """The field at hand, as it stands in the text."""
        self.name: str | None = None
        """The name that its value is shown under; None where it isn't shown."""
        self.held: list[tuple[str, str]] | None = [] if shape is not None and shape.branches else None
        """The fields that came before the one that tells the branch."""
        self.waits_for = "first"


class GrowingJSON:
    """The value of a JSON text so far; `feed` takes the next piece.

    `is_begun` when there is something to show, `is_done` when the value is whole, `is_broken` when it can't be the answer.
    `changes` counts what has changed in what is shown.
    """

    def __init__(self, shape: GrowingShape) -> None:
        self.is_begun = False
        self.is_done = False
        self.is_broken = False
        self.changes = 0
        self._value: JSON = None
        self._shape = shape
        self._stack: list[_Open] = []
        self._state = "value"
        self._tail = ""
        """An escape or a name that the last piece cut."""
        self._text: list[str] = []
        """The text that grows: what of it is decoded."""
        self._is_growing = False
        """Whether the text at hand is shown."""
        self._next: GrowingShape | None = shape
        """The shape of the value that comes next; None where it isn't shown."""
        self._kept: list[str] | None = None
        """The text of the value that is shown when it is whole, without its end in this piece."""
        self._kept_depth = 0
        self._kept_shape: GrowingShape | None = None

    def feed(self, piece: str) -> int:
        """Read the next piece; return how much of it belongs to the value."""
        before = len(self._tail)
        text = self._tail + piece
        self._tail = ""
        place = start = 0
        while place < len(text) and not self.is_done and not self.is_broken:
            state = self._state
            if state == "string" or state == "name":
                place = self._read_string(text, place, start)
                continue
            if state == "atom":
                end = _match_end(_ATOM, text, place)
                place = end
                if place < len(text):
                    self._end_atom(text[start:place])
                continue
            place = _match_end(_BLANK, text, place)
            if place >= len(text):
                break
            was_kept = self._kept is not None
            character = text[place]
            place += 1
            self._take(character)
            if self._kept is not None and not was_kept:
                start = place - 1
            elif (
                was_kept and self._kept is not None and len(self._stack) == self._kept_depth and self._state == "after"
            ):
                self._end_kept(text[start:place])
        if self._kept is not None and not self.is_done:
            self._kept.append(text[start : len(text) - len(self._tail)])
        return max(0, place - before) if self.is_done or self.is_broken else len(piece)

    def end(self) -> None:
        """Close the text: a number at the top level is complete only now."""
        if self._state == "atom" and not self._stack and not self.is_done:
            self._end_atom("")

    def snapshot(self) -> JSON:
        """Return the value so far, which later pieces don't change; its complete parts are shared."""
        if not self.is_begun:
            return None
        if self._is_growing and not self._stack:
            return "".join(self._text)
        return self._copy(0)

    def _copy(self, depth: int) -> JSON:
        if depth >= len(self._stack) or self._stack[depth].shown is None:
            return self._value if depth == 0 else None
        holder = self._stack[depth]
        below = self._find_open(depth)
        if isinstance(holder.shown, list):
            items = list(holder.shown)
            if below is not _ABSENT:
                items.append(cast(JSON, below))
            return items
        fields = dict(cast("dict[str, JSON]", holder.shown))
        if below is not _ABSENT and holder.name is not None:
            fields[holder.name] = cast(JSON, below)
        return fields

    def _find_open(self, depth: int) -> object:
        """Return what the container at this depth holds that isn't complete yet."""
        if depth + 1 < len(self._stack):
            return _ABSENT if self._stack[depth + 1].shown is None else self._copy(depth + 1)
        return "".join(self._text) if self._is_growing else _ABSENT

    def _take(self, character: str) -> None:
        """Take what stands between values, or begins one."""
        state = self._state
        holder = self._stack[-1] if self._stack else None
        if state == "value":
            self._begin(character)
        elif holder is None:
            self.is_broken = True
        elif state == "first" and character == ("]" if holder.is_list else "}"):
            self._close()
        elif state == "first" and holder.is_list:
            self._expect_item(holder)
            self._begin(character)
        elif (state == "first" or state == "key") and character == '"':
            self._state = "name"
            self._text = []
        elif state == "colon" and character == ":":
            self._state = "value"
        elif state == "after" and character == ",":
            if holder.is_list:
                self._expect_item(holder)
                self._state = "value"
            else:
                self._state = "key"
        elif state == "after" and character == ("]" if holder.is_list else "}"):
            self._close()
        else:
            self.is_broken = True

    def _expect_item(self, holder: _Open) -> None:
        self._next = None if holder.shown is None or holder.shape is None else holder.shape.items

    def _begin(self, character: str) -> None:
        shape = self._next
        if character == '"':
            self._state = "string"
            self._text = []
            self._is_growing = self._kept is None and shape is not None and shape.text
            if self._is_growing:
                self._show()
            else:
                self._keep(shape)
        elif character in "[{":
            is_list = character == "["
            grows = shape is not None and (shape.items is not None if is_list else shape.is_object)
            if len(self._stack) >= MAX_DEPTH:
                self.is_broken = True
            elif grows and self._kept is None:
                self._stack.append(_Open(shape, [] if is_list else {}, is_list=is_list))
                self._show()
            else:
                self._keep(shape)
                self._stack.append(_Open(None, None, is_list=is_list))
            self._state = "first"
        elif character in "-0123456789tfn":
            self._keep(shape)
            self._state = "atom"
        else:
            self.is_broken = True

    def _show(self) -> None:
        self.is_begun = True
        self.changes += 1

    def _keep(self, shape: GrowingShape | None) -> None:
        """Keep the text of this value, unless it lies in one that is kept."""
        if self._kept is None:
            self._kept = []
            self._kept_depth = len(self._stack)
            self._kept_shape = shape

    def _read_string(self, text: str, place: int, start: int) -> int:
        """Continue a text or a name as far as this piece reaches."""
        pieces = self._text
        decodes = self._kept is None or self._state == "name"
        while place < len(text):
            end = _match_end(_PLAIN, text, place)
            if end > place and decodes:
                pieces.append(text[place:end])
                self.changes += self._is_growing
            place = end
            if place >= len(text):
                break
            if text[place] == '"':
                place += 1
                self._end_string(text[start:place])
                break
            taken, decoded = _read_escape(text, place)
            if taken == 0:
                self._tail = text[place:]
                return len(text)
            if decoded is None:
                self.is_broken = True
                break
            if decodes:
                pieces.append(decoded)
                self.changes += self._is_growing
            place += taken
        return place

    def _end_string(self, tail: str) -> None:
        if self._state == "name":
            self._name_field("".join(self._text))
            return
        self._state = "after"
        if self._kept is not None:
            if len(self._stack) == self._kept_depth:
                self._end_kept(tail)
            return
        value = "".join(self._text)
        self._is_growing = False
        shape = self._next
        if shape is not None and shape.check is not None:
            self._put_checked(shape, dumps(value).decode())
        else:
            self._put(value)

    def _name_field(self, name: str) -> None:
        holder = self._stack[-1]
        self._state = "colon"
        holder.key, holder.name, self._next = name, None, None
        if holder.shown is None or holder.shape is None:
            return
        if holder.held is not None:
            return  # nothing is shown before it is known by which branch
        known = None if holder.shape.fields is None else holder.shape.fields.get(name)
        if known is not None:
            holder.name, self._next = known
        elif holder.shape.others is not None:
            holder.name, self._next = name, holder.shape.others
        if holder.name is not None:
            # Of a name that comes twice the last value counts.
            cast("dict[str, JSON]", holder.shown).pop(holder.name, None)

    def _end_atom(self, tail: str) -> None:
        self._state = "after"
        if self._kept is not None and len(self._stack) == self._kept_depth:
            self._end_kept(tail)

    def _end_kept(self, tail: str) -> None:
        """Complete a value that was kept as text."""
        kept, shape = self._kept or [], self._kept_shape
        self._kept = self._kept_shape = None
        text = "".join([*kept, tail])
        holder = self._stack[-1] if self._stack else None
        if holder is not None and holder.held is not None:
            self._hold(holder, text)
        elif shape is not None:
            self._put_checked(shape, text)
        elif holder is None:
            self.is_broken = True

    def _put_checked(self, shape: GrowingShape, text: str) -> None:
        try:
            value = loads(text) if shape.check is None else shape.check(text)
        except Exception:  # noqa: BLE001  # a type's validators are the user's code; the whole answer will say what is wrong
            self.is_broken = not shape.drops
        else:
            self._put(value)

    def _put(self, value: JSON) -> None:
        """Put a whole value where it belongs."""
        self._show()
        if not self._stack:
            self._value = value
            self.is_done = True
            return
        holder = self._stack[-1]
        if isinstance(holder.shown, list):
            holder.shown.append(value)
        elif holder.shown is not None and holder.name is not None:
            holder.shown[holder.name] = value

    def _hold(self, holder: _Open, text: str) -> None:
        """Hold back a field until the field that selects the branch has come; then show them all."""
        shape = holder.shape
        assert shape is not None
        assert holder.held is not None
        holder.held.append((holder.key, text))
        if holder.key != shape.tag:
            return
        try:
            tag = loads(text)
        except ValueError:
            tag = None
        branch = shape.branches.get(tag) if isinstance(tag, str) else None
        if branch is None:
            self.is_broken = True
            return
        held, holder.held, holder.shape = holder.held, None, branch
        for name, value in held:
            self._name_field(name)
            if self._next is not None:
                self._put_checked(self._next, value)
        self._state = "after"

    def _close(self) -> None:
        closed = self._stack.pop()
        self._state = "after"
        if closed.shown is not None:  # else `feed` ends what is kept, since it has the text
            self._put(cast(JSON, closed.shown))


def _match_end(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return place if found is None else found.end()


def _read_escape(text: str, place: int) -> tuple[int, str | None]:
    """Return the escape's length at this place and the text it stands for: 0 if it is cut, None if it is invalid."""
    if place + 1 >= len(text):
        return 0, None
    if text[place + 1] != "u":
        return 2, _ESCAPES.get(text[place + 1])
    first = _read_unit(text, place)
    if first is None or not 0xD800 <= first < 0xE000:
        if first is None and place + 6 > len(text):
            return 0, None
        return 6, None if first is None else chr(first)
    if first >= 0xDC00:
        return 6, None
    second = _read_unit(text, place + 6)
    if second is None:
        rest = text[place + 6 : place + 8]
        return (0, None) if place + 12 > len(text) and "\\u".startswith(rest) else (6, None)
    return (12, chr(0x10000 + (first - 0xD800 << 10) + second - 0xDC00)) if 0xDC00 <= second < 0xE000 else (6, None)


def _read_unit(text: str, place: int) -> int | None:
    digits = text[place + 2 : place + 6]
    is_unit = text[place : place + 2] == "\\u" and len(digits) == 4 and all(digit in _HEX for digit in digits)
    return int(digits, 16) if is_unit else None
