"""Joins neighbouring pieces of one text into one event, for watchers that are slower than the run, and for the journal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from flowkit.events.kinds import CallArguments, CallProgress, Event, OutputPartial, TextDelta, ThinkingDelta


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
