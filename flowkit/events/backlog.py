"""Events as a log keeps them, taken together by a reader that writes them down: few of them become objects.

A model's answer is hundreds of pieces of a few characters. They are joined while they are plain values still, so that
an event is made for each text and not for each of its pieces.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowkit.events.kinds import CallArguments, CallProgress, Event, OutputPartial, TextDelta, ThinkingDelta
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


def merge(events: Sequence[Event]) -> Iterator[Event]:
    """Merge neighbouring pieces of one text, one call's arguments or one call's progress.

    Of several partial answers the last one stays: each holds all of those before it.
    """
    pieces: list[Event] = []
    kind: type[Event] | None = None
    last = next((place for place in reversed(range(len(events))) if type(events[place]) is OutputPartial), -1)
    for place, event in enumerate(events):
        if place < last and type(event) is OutputPartial:
            continue
        # Most neighbours are of different kinds, so that nothing else is asked about them.
        if pieces and not (type(event) is kind and kind in _JOINED and _belong_together(pieces[-1], event)):
            yield join(pieces)
            pieces = []
        pieces.append(event)
        kind = type(event)
    if pieces:
        yield join(pieces)


_JOINED = (TextDelta, ThinkingDelta, CallArguments, CallProgress)


def join(pieces: Sequence[Event]) -> Event:
    """Join pieces that belong together; the event has the number and the time of the last one."""
    first, last = pieces[0], pieces[-1]
    if first is last:
        return last
    match last:
        case TextDelta() | ThinkingDelta():
            assert isinstance(first, (TextDelta, ThinkingDelta))
            return replace(last, text="".join(_texts(pieces)), at=first.at)
        case CallArguments():
            return replace(last, fragment="".join(_texts(pieces)))
        case _:
            return last


def _texts(pieces: Iterable[Event]) -> Iterator[str]:
    for piece in pieces:
        match piece:
            case TextDelta(text=text) | ThinkingDelta(text=text) | CallArguments(fragment=text):
                yield text
            case _:
                pass


def _belong_together(first: Event, second: Event) -> bool:
    match first, second:
        case (TextDelta(), TextDelta()) | (ThinkingDelta(), ThinkingDelta()):
            return (first.turn, first.call) == (second.turn, second.call)
        case (CallArguments(), CallArguments()) | (CallProgress(), CallProgress()):
            return first.call == second.call
        case _:
            return False
