"""What a run's length is made of: a chain of turns and calls, each of which the next one had to wait for.

The chain is followed from the end back along what the events tell: the calls that a call waited for, the turn or the
call that made it, the calls whose results a turn's request carried. Who held the slot or the resource that a call
waited for isn't told; there it is the call that ended last before it began.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from flowkit.graph.timeline import CallSpan, Timeline, TurnSpan

Span = CallSpan | TurnSpan


@dataclass(frozen=True, slots=True)
class Link:
    """A piece of the chain, in seconds since the run began; `call` is None for a turn."""

    label: str
    call: str | None
    begin_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.begin_s


def find_critical_path(timeline: Timeline) -> list[Link]:
    """The chain from the beginning to the end; its pieces don't overlap, and what took no time is left out."""
    walk = _Walk(timeline)
    walk.go_back()
    return walk.links[::-1]


class _Walk:
    """Collects the links from the last to the first; `now` is how far back it has come."""

    def __init__(self, timeline: Timeline) -> None:
        self.links: list[Link] = []
        self._timeline = timeline
        self._now = timeline.wall_s
        self._outer: list[CallSpan] = []
        self._inside: dict[str, list[CallSpan]] = {}
        for call in timeline.calls.values():
            holder = timeline.holder(call)
            siblings = self._outer if holder is None else self._inside.setdefault(holder.id, [])
            siblings.append(call)
        self._labels = Counter(call.label for call in timeline.calls.values())

    def go_back(self) -> None:
        seen: set[int] = set()
        span = self._find_last([*self._outer, *self._timeline.turns])
        while span is not None and id(span) not in seen:
            seen.add(id(span))
            self._now = min(self._now, self._end(span))
            if isinstance(span, TurnSpan):
                self._take(f"turn {span.turn}", None, span.started_s)
                span = self._find_last([other for other in (*self._outer, *self._timeline.turns) if other is not span])
            elif (last := self._find_last(self._inside.get(span.id, ()))) is not None:
                self._take(self._name(span), span.id, self._end(last))
                span = last
            else:
                self._take(self._name(span), span.id, self._begin(span))
                span = self._find_cause(span)

    def _find_cause(self, call: CallSpan) -> Span | None:
        """What let this call begin when it did."""
        for wait in reversed(call.waits):
            if wait.waiting_for == "approval":
                self._take(f"a person's answer on {self._name(call)}", call.id, wait.since_s)
            elif wait.waiting_for in ("slot", "resource"):
                freed = [other for other in self._timeline.leaves if self._end(other) >= wait.since_s]
                cause = self._find_last([other for other in freed if other is not call])
                if cause is not None:
                    return cause
        needed = [self._timeline.calls[name] for name in call.needs if name in self._timeline.calls]
        cause = self._find_last([other for other in needed if self._end(other) > call.new_s])
        return self._find_maker(call) if cause is None else cause

    def _find_maker(self, call: CallSpan) -> Span | None:
        """What let this call come into being: the call or turn that made it, or one before it that had to end first."""
        holder = self._timeline.holder(call)
        if holder is not None:
            self._now = min(self._now, call.new_s)
            before = self._find_last([other for other in self._inside[holder.id] if other is not call])
            if before is not None:
                return before
            self._take(self._name(holder), holder.id, self._begin(holder))
            return self._find_cause(holder)
        if call.parent in self._timeline.calls:
            return self._find_maker(self._timeline.calls[call.parent])
        if call.id.startswith("turn/"):
            return max(
                (turn for turn in self._timeline.turns if turn.started_s <= call.new_s),
                key=lambda turn: turn.started_s,
                default=None,
            )
        return None

    def _find_last(self, spans: Iterable[Span]) -> Span | None:
        """The one that ended last before now; of several, the one that began first."""
        ended = [span for span in spans if self._end(span) <= self._now]
        return max(ended, key=lambda span: (self._end(span), -self._begin(span)), default=None)

    def _take(self, label: str, call: str | None, begin_s: float) -> None:
        if begin_s < self._now:
            self.links.append(Link(label, call, begin_s, self._now))
            self._now = begin_s

    def _name(self, call: CallSpan) -> str:
        return call.label if self._labels[call.label] == 1 else f"{call.label} ({call.id})"

    def _begin(self, span: Span) -> float:
        return self._end(span) if span.started_s is None else span.started_s

    def _end(self, span: Span) -> float:
        return self._timeline.wall_s if span.ended_s is None else span.ended_s
