"""Events as a log keeps them, taken together by a reader that writes them down: few of them become objects.

A model's answer is hundreds of pieces of a few characters. They are joined while they are plain values still, so that
an event is made for each text and not for each of its pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowkit.events.kinds import CallArguments, CallProgress, Event, TextDelta, ThinkingDelta
from flowkit.events.merging import merge
from flowkit.masking import show_arguments
from flowkit.references import ToolCall


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Which values of a piece say what it is a piece of, and which is its text; without one the last piece stays."""

    owner: slice
    text: int | None


_PIECES: dict[type[Event], _Pieces] = {
    TextDelta: _Pieces(slice(1, 3), 0),
    ThinkingDelta: _Pieces(slice(1, 3), 0),
    CallArguments: _Pieces(slice(1), 1),
    CallProgress: _Pieces(slice(1), None),
}


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events in order, from number `seq` on: those that are built, then those that are notes still."""

    run_id: str
    seq: int
    built: list[Event]
    notes: list[Any]

    def build(self, keeps: Callable[[type[Event]], bool]) -> list[Event]:
        """Build the events of the kinds that one `keeps`, neighbouring pieces joined; in any thread."""
        events = list(merge([event for event in self.built if keeps(type(event))]))
        notes = self.notes
        starts = [place for place, value in enumerate(notes) if type(value) is type]
        starts.append(len(notes))
        seq, number, count = self.seq + len(self.built), 0, len(starts) - 1
        while number < count:
            start, end = starts[number], starts[number + 1]
            kind: type[Event] = notes[start]
            values = notes[start + 2 : end]
            last = number
            if kind is Event:  # one that was emitted stands behind it
                emitted: Event = values[0]
                if keeps(type(emitted)):
                    events.append(emitted)
            elif keeps(kind):
                if (pieces := _PIECES.get(kind)) is not None:
                    last = self._join(kind, pieces, values, starts, number)
                events.append(kind(self.run_id, seq + last, notes[starts[last] + 1], *map(finish, values)))
            number = last + 1
        return events

    def _join(self, kind: type[Event], pieces: _Pieces, values: list[Any], starts: list[int], first: int) -> int:
        """Join to the values of the first piece those that follow it; return the place of the last one."""
        notes, owner, text = self.notes, values[pieces.owner], pieces.text
        texts: list[str] = []
        last = first
        while last + 2 < len(starts) and notes[starts[last + 1]] is kind:
            more = notes[starts[last + 1] + 2 : starts[last + 2]]
            if more[pieces.owner] != owner:
                break
            last += 1
            if text is None:
                values[:] = more
            else:
                texts.append(more[text])
        if texts and text is not None:
            values[text] += "".join(texts)
        return last


def finish(value: Any) -> Any:
    """Convert a value as it is noted to that of the event: a call stands for its arguments."""
    return show_arguments(value.arguments) if isinstance(value, ToolCall) else value
