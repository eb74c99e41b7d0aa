"""The answer so far, from the text of a turn or the arguments of an output tool's call.

Words, fences and thinking in tags may stand around the JSON, as they may around the whole answer. A piece is only kept
when it comes; it is read when somebody asks, or when an event is due: with each piece at first, then whenever the text
has grown by an eighth, and five times a second. So the events of an answer hold a few times its size, however it is cut.
"""

import re

from flowkit import events
from flowkit.agent.growing.json_text import GrowingJSON
from flowkit.agent.growing.shapes import GrowingShape
from flowkit.codec import JSON
from flowkit.events import EventLog

EVERY_S = 0.2
"""After this time an event is due, however little has come."""
GROWTH = 8
"""An event is due when a text has grown by this part of what it was."""

_TAG = r"(?:think|thinking|thought|reasoning)>"
_OPENING = re.compile(rf"\s*<{_TAG}", re.IGNORECASE)
_MAY_OPEN = re.compile(r"\s*(?:<[a-z]*)?\Z", re.IGNORECASE)
_CLOSING = re.compile(rf"</{_TAG}", re.IGNORECASE)
_NOTABLE = re.compile(rf"[{{\[]|</{_TAG}", re.IGNORECASE)
_LONGEST_TAG = len("</reasoning>")


class FoundJSON:
    """The JSON in a text that grows: the first value that has anything to show, after all thinking in tags."""

    def __init__(self, shape: GrowingShape) -> None:
        self.value: JSON = None
        self._shape = shape
        self._held = ""
        """What may be the beginning of a tag."""
        self._is_thinking: bool | None = None
        """None while nothing but blanks and a part of a tag has come."""
        self._growing: GrowingJSON | None = None
        self._changes = 0

    def feed(self, piece: str) -> bool:
        """Read the next piece; return whether there is something new to show."""
        text, self._held = self._held + piece, ""
        changed = False
        while text:
            if self._growing is not None:
                taken = self._growing.feed(text)
                text = text[taken:]
                changed = self._look() or changed
                if self._growing.is_done or self._growing.is_broken:
                    self._growing = None
                continue
            if self._is_thinking is None:
                if _MAY_OPEN.match(text):
                    self._held = text
                    break
                self._is_thinking = _OPENING.match(text) is not None
            found = (_CLOSING if self._is_thinking else _NOTABLE).search(text)
            if found is None:
                self._held = text[-_LONGEST_TAG:] if "<" in text[-_LONGEST_TAG:] else ""
                break
            text = text[found.start() :]
            if found[0] in "{[":
                self._growing, self._changes = GrowingJSON(self._shape), 0
            else:
                # What stands before the end of thinking is none of the answer.
                text = text[len(found[0]) :]
                self._is_thinking = False
                changed = changed or self.value is not None
                self.value = None
        return changed

    def _look(self) -> bool:
        """Take what the value at hand shows, once it shows more than that it has begun."""
        growing = self._growing
        assert growing is not None
        if growing.changes == self._changes or (self.value is not None and growing.changes < 2):
            return False
        self._changes = growing.changes
        self.value = growing.snapshot()
        return True


class PartialAnswer:
    """The part of one attempt's answer that can be shown by now; `output.partial` reports it."""

    def __init__(
        self, shape: GrowingShape, log: EventLog, turn: int, *, call: str | None = None, is_wrapped: bool
    ) -> None:
        """Prepare the partial answers of one call: `call` is the call whose arguments these are."""
        self._found = FoundJSON(shape)
        self._log = log
        self._turn = turn
        self.call = call
        self._is_wrapped = is_wrapped
        self._pieces: list[str] = []
        self._length = 0
        self._told_length = 0
        self._told_s = float("-inf")
        self._told: JSON = None
        self._has_changed = False

    def feed(self, piece: str) -> None:
        """Take a piece of the text."""
        self._pieces.append(piece)
        self._length += len(piece)
        grown = self._length - self._told_length
        if grown * GROWTH >= self._told_length or self._log.now() - self._told_s >= EVERY_S:
            self.tell()

    @property
    def value(self) -> JSON:
        """The answer so far; None while there is nothing to show."""
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._has_changed = self._found.feed("".join(pieces)) or self._has_changed
        value = self._found.value
        if self._is_wrapped and isinstance(value, dict):
            return value.get("value")
        return value

    def tell(self) -> None:
        """Emit the partial value if it has grown since the last event."""
        self._told_length, self._told_s = self._length, self._log.now()
        value = self.value
        if self._has_changed:
            self._has_changed = False
            self._tell(value)

    def finish(self, value: JSON) -> None:
        """Emit the answer as it is when it is whole."""
        self._pieces.clear()
        self._has_changed = False
        if value != self._told:
            self._tell(value)

    def _tell(self, value: JSON) -> None:
        if value is None and self._told is None:
            return
        self._told = value
        self._log.note(events.OutputPartial, value, self._turn, self.call)
