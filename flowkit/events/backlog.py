"""Events as a log keeps them, taken together by a reader that writes them down: few of them become objects.

A model's answer is hundreds of pieces of a few characters. They are joined while they are plain values still, so that
an event is made for each text and not for each of its pieces.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from flowkit.events.kinds import CallArguments, CallProgress, Event, TextDelta, ThinkingDelta
from flowkit.events.merging import merge
from flowkit.masking import show_arguments
from flowkit.references import ToolCall

_OF_ONE_TEXT: dict[type[Event], tuple[slice, int | None]] = {
    TextDelta: (slice(1, 3), 0),
    ThinkingDelta: (slice(1, 3), 0),
    CallArguments: (slice(1), 1),
    CallProgress: (slice(1), None),
}
"""For each kind of pieces, which of its values say to what a piece belongs, and which is its text; of the others the
last one stays."""


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
        pieces: list[str] = []
        held: tuple[type[Event], int, float, list[Any]] | None = None
        for seq, kind, t, values in self._read_notes():
            if kind is Event:
                kind, made = type(values[0]), values[0]
            else:
                made = None
            if not keeps(kind):
                continue
            place = _OF_ONE_TEXT.get(kind) if made is None else None
            if held is not None and place is not None and kind is held[0] and values[place[0]] == held[3][place[0]]:
                if place[1] is not None:
                    pieces.append(values[place[1]])
                    values = held[3]
                held = kind, seq, t, values
                continue
            if held is not None:
                events.append(self._build(held, pieces))
                held = None
            if place is not None:
                held = kind, seq, t, values
                pieces = [] if place[1] is None else [values[place[1]]]
            else:
                events.append(kind(self.run_id, seq, t, *map(finish, values)) if made is None else made)
        if held is not None:
            events.append(self._build(held, pieces))
        return events

    def _build(self, held: tuple[type[Event], int, float, list[Any]], pieces: list[str]) -> Event:
        kind, seq, t, values = held
        text = _OF_ONE_TEXT[kind][1]
        if text is not None and len(pieces) > 1:
            values = [*values[:text], "".join(pieces), *values[text + 1 :]]
        return kind(self.run_id, seq, t, *values)

    def _read_notes(self) -> Iterator[tuple[int, type[Event], float, list[Any]]]:
        notes = self.notes
        starts = (place for place, value in enumerate(notes) if type(value) is type)
        seq = self.seq + len(self.built)
        for number, (start, end) in enumerate(pairwise(chain(starts, (len(notes),))), seq):
            yield number, notes[start], notes[start + 1], notes[start + 2 : end]


def finish(value: Any) -> Any:
    """Convert a value as it is noted to that of the event: a call stands for its arguments."""
    return show_arguments(value.arguments) if isinstance(value, ToolCall) else value
