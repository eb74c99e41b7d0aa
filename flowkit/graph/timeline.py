"""When everything in a run happened: a fold of its events, and a Gantt chart of it for the terminal.

Besides what was measured it says what the same calls would have taken otherwise: those figures are computed from the
measured times of turns and tools, and are called so.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.text import Text

from flowkit.codec import JSON, loads
from flowkit.errors import ConfigurationError
from flowkit.events import Event

LABEL = 26
"""The width of the names in the chart."""

NARROWEST = 20
"""The least width of the bars."""


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
    waited_for: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """How long it ran; 0 for what came from elsewhere."""
        return 0.0 if self.started_s is None or self.ended_s is None else self.ended_s - self.started_s

    @property
    def label(self) -> str:
        """What a person knows it by: a step's own name, and the tool's for a call that a model made."""
        if self.id.startswith(("turn/", "prefetch/")):
            return self.name
        inside = self.parent is not None and self.id.startswith(f"{self.parent}/")
        return self.id[len(self.parent or "") + 1 :] if inside else self.id

    def describe(self) -> str:
        """Its end in a few words."""
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
    """One request: from its start over the first piece of its answer to its end."""

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

    def by_maker(self) -> Iterator[tuple[CallSpan, int]]:
        """The calls, each followed by those that it made; with how many stand above it."""
        made: dict[str | None, list[CallSpan]] = {}
        for call in self.calls.values():
            made.setdefault(call.parent if call.parent in self.calls else None, []).append(call)
        stack = [(call, 0) for call in reversed(made.get(None, []))]
        while stack:
            call, depth = stack.pop()
            yield call, depth
            stack += [(child, depth + 1) for child in reversed(made.get(call.id, []))]

    @property
    def leaves(self) -> list[CallSpan]:
        """The calls that ran and held no others: their times don't count twice."""
        holders = {
            call.parent
            for call in self.calls.values()
            if call.parent in self.calls and _began_inside(call, self.calls[call.parent])
        }
        return [call for call in self.calls.values() if call.started_s is not None and call.id not in holders]

    @property
    def one_after_another_s(self) -> float:
        """Computed: all turns and all tools, each begun when the one before had ended."""
        return sum(map(_length, self.turns)) + sum(call.duration_s for call in self.leaves)

    @property
    def turn_by_turn_s(self) -> float:
        """Computed: the calls of a turn at once, but only when the turn had ended, and the next turn after all of them."""
        total = 0.0
        ends = [turn.started_s for turn in self.turns[1:]] + [float("inf")]
        begins = [0.0, *ends[:-1]]
        for begin, end, length in zip(begins, ends, [_length(turn) for turn in self.turns] or [0.0], strict=True):
            total += length + self._longest_chain([call for call in self.leaves if begin <= call.new_s < end])
        return total

    @property
    def while_speaking_s(self) -> float:
        """How much tool time passed while a model was still answering."""
        return sum(
            max(0.0, min(call.ended_s or 0.0, turn.ended_s or self.wall_s) - max(call.started_s or 0.0, turn.started_s))
            for call in self.leaves
            for turn in self.turns
        )

    def critical_path(self) -> list[str]:
        """What the run's length is made of: from the end back, each time what ended last before the next could begin."""
        path: list[str] = []
        steps = [
            (
                call.ended_s or 0.0,
                call.label if call.label == call.id else f"{call.label} ({call.id})",
                call.started_s or 0.0,
            )
            for call in self.leaves
        ]
        steps += [(turn.ended_s or self.wall_s, f"turn {turn.turn}", turn.started_s) for turn in self.turns]
        now = float("inf")
        while True:
            # A call that began while its turn still went on depends on that turn's beginning.
            before = [step for step in steps if step[0] <= now + 1e-9 and step[2] < now]
            if not before:
                running = [step for step in steps if step[2] < now < step[0]]
                return path[::-1] if not running or not path else [min(running, key=lambda s: s[2])[1], *path[::-1]]
            step = max(before, key=lambda candidate: (candidate[0], -candidate[2]))
            path.append(step[1])
            now = step[2]

    def _longest_chain(self, calls: list[CallSpan]) -> float:
        known = {call.id: call for call in calls}
        ends: dict[str, float] = {}
        for call in sorted(calls, key=lambda call: call.started_s or 0.0):
            ends[call.id] = call.duration_s + max(
                (ends.get(name, 0.0) for name in call.waited_for if name in known), default=0.0
            )
        return max(ends.values(), default=0.0)


def fold(events: Iterable[Event | Mapping[str, JSON]]) -> Timeline:
    """The times of these events: of a log, or as they were read from a trace. Types it doesn't know are passed over."""
    timeline = Timeline()
    for event in events:
        _take(timeline, event.to_json() if isinstance(event, Event) else event)
    return timeline


def read_trace(lines: Iterable[bytes | str]) -> list[Mapping[str, JSON]]:
    """The events of a trace file, one JSON object a line; raises `ConfigurationError` naming the line that is none."""
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


def draw_timeline(events: Iterable[Event | Mapping[str, JSON]], width: int = 100) -> Text:
    """A Gantt chart: turns above, calls below, then what overlapped and what it saved."""
    timeline = fold(events)
    room = max(NARROWEST, width - LABEL - 24)
    scale = room / timeline.wall_s if timeline.wall_s else 0.0
    chart = Text()
    chart.append(f"{timeline.name or timeline.run}  {timeline.status}  {format_seconds(timeline.wall_s)}\n", "bold")
    for turn in timeline.turns:
        _draw_turn(chart, turn, timeline, scale, room)
    for call, depth in timeline.by_maker():
        _draw_call(chart, call, depth, timeline, scale, room)
    chart.append(f"{'':{LABEL}}0{format_seconds(timeline.wall_s):>{room - 1}}\n", "dim")
    for line in summarise(timeline):
        chart.append(line + "\n")
    return chart


def summarise(timeline: Timeline) -> list[str]:
    """What the picture can't say: sums, the critical path, and the computed times."""
    tools_s = sum(call.duration_s for call in timeline.leaves)
    lines = [f"tools ran {format_seconds(tools_s)} in all, the run took {format_seconds(timeline.wall_s)}"]
    if timeline.turns:
        lines[0] += f"; {format_seconds(timeline.while_speaking_s)} of it while the model was speaking"
    path = timeline.critical_path()
    if path:
        lines.append(f"critical path: {' -> '.join(path)}")
    lines.append(f"one after another: {format_seconds(timeline.one_after_another_s)} (computed)")
    if timeline.turns:
        lines.append(f"turn by turn: {format_seconds(timeline.turn_by_turn_s)} (computed)")
    return lines


def format_seconds(seconds: float) -> str:
    """A time as a person reads it.

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
        case "call.waiting":
            on = event.get("on")
            if event.get("waiting_for") == "calls" and isinstance(on, list):
                span.waited_for = tuple(str(name) for name in on)
        case "call.started":
            span.started_s = t if span.started_s is None else span.started_s
            span.attempts = int(_number(event.get("attempt")))
            span.early = span.early or event.get("early") is True
        case "call.finished":
            ended = event.get("ended_s")
            span.ended_s = t if ended is None else _number(ended)
            span.state, span.source = "finished", str(event.get("source") or "run")
        case "call.failed" | "call.skipped" | "call.denied" | "call.cancelled" | "call.void" | "call.in_doubt":
            span.ended_s, span.state = t, kind.removeprefix("call.")
        case _:
            pass


def _draw_turn(chart: Text, turn: TurnSpan, timeline: Timeline, scale: float, room: int) -> None:
    end = timeline.wall_s if turn.ended_s is None else turn.ended_s
    first = end if turn.first_s is None else turn.first_s
    attempt = f" (attempt {turn.attempt})" if turn.attempt > 1 else ""
    chart.append(_fit(f"turn {turn.turn}{attempt}"), "bold")
    bar = _bar([(turn.started_s, first, "╌"), (first, end, "━")], scale, room)
    chart.append(bar, "magenta" if turn.error is None else "red")
    chart.append(f" {format_seconds(end - turn.started_s)}{'' if turn.error is None else ', broke off'}\n")


def _draw_call(chart: Text, call: CallSpan, depth: int, timeline: Timeline, scale: float, room: int) -> None:
    end = timeline.wall_s if call.ended_s is None else call.ended_s
    begun = end if call.started_s is None else call.started_s
    chart.append(_fit("  " * depth + call.label))
    bar = _bar([(call.new_s, begun, "·"), (begun, end, "█")], scale, room)
    good = call.state == "finished"
    chart.append(bar, "cyan" if call.source != "run" else "green" if good else "red")
    chart.append(f" {call.describe()}\n", "" if good else "red")


def _bar(pieces: list[tuple[float, float, str]], scale: float, room: int) -> str:
    """Pieces of a line at their times; what happened takes at least one place."""
    cells = [" "] * room
    for begin, end, mark in pieces:
        first, last = min(room - 1, round(begin * scale)), min(room, round(end * scale))
        for place in range(first, last if end > begin else first):
            cells[place] = mark
    first = min(room - 1, round(pieces[-1][0] * scale))
    if cells[first] == " ":
        cells[first] = "▏"
    return "".join(cells)


def _fit(text: str) -> str:
    return f"{text[: LABEL - 2] + '…' if len(text) > LABEL - 1 else text:{LABEL}}"


def _length(turn: TurnSpan) -> float:
    return 0.0 if turn.ended_s is None else turn.ended_s - turn.started_s


def _began_inside(call: CallSpan, holder: CallSpan) -> bool:
    return holder.started_s is not None and call.new_s >= holder.started_s


def _number(value: JSON) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
