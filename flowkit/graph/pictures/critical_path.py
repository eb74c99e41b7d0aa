"""The critical path of a run: a chain of turns and calls, each of which the next one waited for.

The chain is followed from the end backwards through the events: the calls that a call waited for, the turn or the call
that made it, and the calls whose results a turn's request contained. Events don't record which call held the slot or
the resource that a call waited for; there the last call that ended before its start is taken.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from flowkit.graph.pictures.timeline import CallSpan, Timeline, TurnSpan

Span = CallSpan | TurnSpan


@dataclass(frozen=True, slots=True)
class PathStep:
    """A segment of the chain, in seconds since the run started; `call` is None for a turn."""

    label: str
    call: str | None
    begin_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.begin_s


def find_critical_path(timeline: Timeline) -> list[PathStep]:
    """Find the chain from the beginning to the end.

    Its pieces don't overlap, and pieces without duration are left out.
    """
    walk = _Walk(timeline)
    walk.go_back()
    return walk.links[::-1]


class _Walk:
    """Collects the links from the last to the first; `now` is how far back it has come."""

    def __init__(self, timeline: Timeline) -> None:
        self.links: list[PathStep] = []
        self._timeline = timeline
        self._now = timeline.wall_s
        outer: list[Span] = [*timeline.turns]
        inside: dict[str, list[Span]] = {}
        for call in timeline.calls.values():
            holder = timeline.holder(call)
            (outer if holder is None else inside.setdefault(holder.id, [])).append(call)
        self._outer = _Ends(outer, timeline.wall_s)
        self._inside = {name: _Ends(spans, timeline.wall_s) for name, spans in inside.items()}
        self._leaves = _Ends(timeline.leaves, timeline.wall_s)
        self._labels = Counter(call.label for call in timeline.calls.values())

    def go_back(self) -> None:
        seen: set[int] = set()
        span = self._outer.find_last(self._now)
        while span is not None and id(span) not in seen:
            seen.add(id(span))
            self._now = min(self._now, self._end(span))
            if isinstance(span, TurnSpan):
                self._take(f"turn {span.turn}", None, span.started_s)
                span = self._outer.find_last(self._now, but=span)
                continue
            held = self._inside.get(span.id)
            last = None if held is None else held.find_last(self._now)
            if last is not None:
                self._take(self._name(span), span.id, self._end(last))
                span = last
            else:
                self._take(self._name(span), span.id, self._begin(span))
                span = self._find_cause(span)

    def _find_cause(self, call: CallSpan) -> Span | None:
        """Find the span that this call waited for last."""
        for wait in reversed(call.waits):
            if wait.waiting_for == "approval":
                self._take(f"a person's answer on {self._name(call)}", call.id, wait.since_s)
            elif wait.waiting_for in ("slot", "resource"):
                cause = self._leaves.find_last(self._now, but=call)
                if cause is not None and self._end(cause) >= wait.since_s:
                    return cause
        calls = self._timeline.calls
        needed = [calls[name] for name in call.needs if name in calls and self._end(calls[name]) > call.new_s]
        cause = _Ends(needed, self._timeline.wall_s).find_last(self._now)
        return self._find_maker(call) if cause is None else cause

    def _find_maker(self, call: CallSpan) -> Span | None:
        """Find the call or turn that made this call, or an earlier one that had to finish first."""
        holder = self._timeline.holder(call)
        if holder is not None:
            self._now = min(self._now, call.new_s)
            before = self._inside[holder.id].find_last(self._now, but=call)
            if before is not None:
                return before
            self._take(self._name(holder), holder.id, self._begin(holder))
            return self._find_cause(holder)
        if call.parent in self._timeline.calls:
            return self._find_maker(self._timeline.calls[call.parent])
        if call.id.startswith("turn/"):
            begun = [turn for turn in self._timeline.turns if turn.started_s <= call.new_s]
            return begun[-1] if begun else None
        return None

    def _take(self, label: str, call: str | None, begin_s: float) -> None:
        if begin_s < self._now:
            self.links.append(PathStep(label, call, begin_s, self._now))
            self._now = begin_s

    def _name(self, call: CallSpan) -> str:
        return call.label if self._labels[call.label] == 1 else f"{call.label} ({call.id})"

    def _begin(self, call: CallSpan) -> float:
        return _find_begin(call, self._timeline.wall_s)

    def _end(self, span: Span) -> float:
        return _find_end(span, self._timeline.wall_s)


class _Ends:
    """Spans sorted by their ends; of those with the same end, the one that started first is last."""

    def __init__(self, spans: Iterable[Span], wall_s: float) -> None:
        self._spans = sorted(spans, key=lambda span: (_find_end(span, wall_s), -_find_begin(span, wall_s)))
        self._times = [_find_end(span, wall_s) for span in self._spans]

    def find_last(self, now: float, *, but: Span | None = None) -> Span | None:
        """Find the span that ended last, at this time or before."""
        place = bisect_right(self._times, now) - 1
        if place >= 0 and self._spans[place] is but:
            place -= 1
        return self._spans[place] if place >= 0 else None


def _find_begin(span: Span, wall_s: float) -> float:
    return _find_end(span, wall_s) if span.started_s is None else span.started_s


def _find_end(span: Span, wall_s: float) -> float:
    return wall_s if span.ended_s is None else span.ended_s
