"""The times of a run: a fold of its events, and computed times of other orders.

Those other figures are computed from the measured times of turns and calls, and are called so.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flowkit.codec import JSON, loads
from flowkit.errors import ConfigurationError
from flowkit.events import Event

AnyEvent = Event | Mapping[str, JSON]
"""An event of a log, or as it was read from a trace."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The reason that a call waited from this time on: calls (`on` are their ids), approval, a resource or a slot."""

    waiting_for: str
    since_s: float
    on: tuple[str, ...] = ()


@dataclass(slots=True)
class CallSpan:
    """One call's times, in seconds since the run began; None for what didn't happen."""

    id: str
    name: str
    parent: str | None = None
    new_s: float = 0.0
    sealed_s: float | None = None
    started_s: float | None = None
    ended_s: float | None = None
    state: str = "running"
    source: str = "run"
    early: bool = False
    attempts: int = 0
    refers_to: tuple[str, ...] = ()
    waits: list[Wait] = field(default_factory=list[Wait])

    @property
    def duration_s(self) -> float:
        """The running time; 0 for a result from elsewhere, such as the cache."""
        return 0.0 if self.started_s is None or self.ended_s is None else self.ended_s - self.started_s

    @property
    def needs(self) -> list[str]:
        """The calls that had to finish before it could start: those it refers to, and those that the events say it waited for."""
        waited = [name for wait in self.waits if wait.waiting_for == "calls" for name in wait.on]
        return [*dict.fromkeys((*self.refers_to, *waited))]

    @property
    def label(self) -> str:
        """The display name: a step's own, or the tool's for a call that a model made."""
        if self.id.startswith(("turn/", "prefetch/")):
            return self.name
        inside = self.parent is not None and self.id.startswith(f"{self.parent}/")
        return self.id[len(self.parent or "") + 1 :] if inside else self.id

    def describe(self) -> str:
        """Describe the outcome in a few words."""
        words = [self.state if self.state != "finished" else format_seconds(self.duration_s)]
        if self.source != "run":
            words = [f"from {self.source}"]
        if self.early:
            words.append("early")
        if self.attempts > 1:
            words.append(f"{self.attempts} attempts")
        return ", ".join(words)


@dataclass(slots=True)
class TurnSpan:
    """One request: its start, the first piece of its answer, and its end."""

    turn: int
    attempt: int
    model: str
    started_s: float
    first_s: float | None = None
    ended_s: float | None = None
    error: str | None = None


@dataclass(slots=True)
class Timeline:
    """A run as spans; `wall_s` is the time of its last event."""

    run: str = ""
    name: str = ""
    status: str = "running"
    wall_s: float = 0.0
    turns: list[TurnSpan] = field(default_factory=list[TurnSpan])
    calls: dict[str, CallSpan] = field(default_factory=dict[str, CallSpan])

    def holder(self, call: CallSpan) -> CallSpan | None:
        """Return the running call that made this one.

        None for one made by a turn, a recipe, or a call that needs it.
        """
        parent = self.calls.get(call.parent or "")
        is_inside = parent is not None and parent.started_s is not None and parent.started_s <= call.new_s
        return parent if is_inside else None

    @property
    def leaves(self) -> list[CallSpan]:
        """The calls that ran and held no others: their times don't count twice."""
        holders = {holder.id for call in self.calls.values() if (holder := self.holder(call)) is not None}
        return [call for call in self.calls.values() if call.started_s is not None and call.id not in holders]

    @property
    def one_after_another_s(self) -> float:
        """Computed: all turns and all tools in sequence."""
        return sum(map(_length, self.turns)) + sum(call.duration_s for call in self.leaves)

    @property
    def turn_by_turn_s(self) -> float:
        """Computed: each turn's calls in parallel, but only after the turn, and the next turn after all of them."""
        total = 0.0
        ends = [turn.started_s for turn in self.turns[1:]] + [float("inf")]
        begins = [0.0, *ends[:-1]]
        for begin, end, length in zip(begins, ends, [_length(turn) for turn in self.turns] or [0.0], strict=True):
            made = [call for call in self.calls.values() if begin <= call.new_s < end and self.holder(call) is None]
            total += length + self._longest_chain(made)
        return total

    @property
    def while_speaking_s(self) -> float:
        """The tool time that passed while a model was still answering."""
        return sum(
            max(0.0, min(call.ended_s or 0.0, turn.ended_s or self.wall_s) - max(call.started_s or 0.0, turn.started_s))
            for call in self.leaves
            for turn in self.turns
        )

    def _longest_chain(self, calls: list[CallSpan]) -> float:
        ends: dict[str, float] = {}
        # The needs of a call finish before it starts.
        for call in sorted(calls, key=lambda call: call.ended_s or self.wall_s):
            ends[call.id] = call.duration_s + max((ends.get(name, 0.0) for name in call.needs), default=0.0)
        return max(ends.values(), default=0.0)


def fold(events: Iterable[AnyEvent]) -> Timeline:
    """Fold these events into their times; unknown types are skipped."""
    timeline = Timeline()
    for event in events:
        _take(timeline, event.to_json() if isinstance(event, Event) else event)
    return timeline


def read_trace(lines: Iterable[bytes | str]) -> list[Mapping[str, JSON]]:
    """Read the events of a trace file, one JSON object a line.

    Raises `ConfigurationError` naming a line that is none.
    """
    events: list[Mapping[str, JSON]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = loads(line)
        except ValueError as error:
            raise ConfigurationError(f"line {number} of the trace isn't JSON: {error}") from error
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise ConfigurationError(f"line {number} of the trace isn't an event: expected an object with a type")
        events.append(event)
    if not events:
        raise ConfigurationError("the trace holds no events")
    return events


def format_seconds(seconds: float) -> str:
    """Format a time as a person reads it.

    >>> [format_seconds(seconds) for seconds in (0.34, 1.254, 59.999, 200, 7500)]
    ['340 ms', '1.25 s', '1 min', '3 min 20 s', '2 h 5 min']
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _take(timeline: Timeline, event: Mapping[str, JSON]) -> None:
    kind, t = str(event.get("type")), _number(event.get("t"))
    timeline.wall_s = max(timeline.wall_s, t)
    if kind == "run.started":
        timeline.run, timeline.name = str(event.get("run", "")), str(event.get("name") or "")
    elif kind == "run.finished":
        timeline.status = str(event.get("status", ""))
    elif kind == "turn.started":
        number, attempt = int(_number(event.get("turn"))), int(_number(event.get("attempt")))
        timeline.turns.append(TurnSpan(number, attempt, str(event.get("model", "")), t))
    elif kind == "turn.finished" and timeline.turns:
        timeline.turns[-1].ended_s = t
        error = event.get("error")
        timeline.turns[-1].error = error if isinstance(error, str) else None
    elif isinstance(call := event.get("call"), str):
        _take_call(timeline, kind, t, call, event)
    if kind in ("text.delta", "thinking.delta", "call.new") and timeline.turns and timeline.turns[-1].first_s is None:
        timeline.turns[-1].first_s = t


def _take_call(timeline: Timeline, kind: str, t: float, call: str, event: Mapping[str, JSON]) -> None:
    if kind == "call.new" or (call not in timeline.calls and kind.startswith("call.")):
        parent = event.get("parent")
        name = str(event.get("name") or call)
        timeline.calls[call] = CallSpan(call, name, parent if isinstance(parent, str) else None, t)
    span = timeline.calls.get(call)
    if span is None:
        return
    match kind:
        case "call.sealed":
            span.sealed_s = t
            span.refers_to = tuple(name for name in _find_labels(event.get("arguments")) if name in timeline.calls)
        case "call.waiting":
            on = event.get("on")
            names = tuple(map(str, on)) if isinstance(on, list) else ()
            span.waits.append(Wait(str(event.get("waiting_for")), t, names))
        case "call.started":
            span.started_s = t if span.started_s is None else span.started_s
            span.attempts = int(_number(event.get("attempt")))
            span.early = span.early or event.get("early") is True
        case "call.finished" | "call.failed":
            ended = event.get("ended_s")
            span.ended_s = t if ended is None else _number(ended)
            span.state, span.source = kind.removeprefix("call."), str(event.get("source") or "run")
        case "call.skipped" | "call.denied" | "call.cancelled" | "call.void" | "call.in_doubt":
            span.ended_s, span.state = t, kind.removeprefix("call.")
        case _:
            pass


def _length(turn: TurnSpan) -> float:
    return 0.0 if turn.ended_s is None else turn.ended_s - turn.started_s


def _find_labels(arguments: JSON) -> Iterator[str]:
    """Find the calls that arguments refer to, as events show them: `{"from_call": …, "path": …}`."""
    if isinstance(arguments, dict):
        label = arguments.get("from_call")
        if isinstance(label, str) and arguments.keys() == {"from_call", "path"}:
            yield label
        else:
            for value in arguments.values():
                yield from _find_labels(value)
    elif isinstance(arguments, list):
        for value in arguments:
            yield from _find_labels(value)


def _number(value: JSON) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
