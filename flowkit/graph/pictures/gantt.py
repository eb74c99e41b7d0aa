"""A run as a chart for the terminal: turns above, calls below, and a summary of the time spent.

A call with too many inner calls to read gets one row per tool, which shows how many ran at each moment.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from flowkit.graph.pictures.critical_path import PathStep, find_critical_path
from flowkit.graph.pictures.timeline import AnyEvent, CallSpan, Timeline, TurnSpan, fold, format_seconds

LABEL = 26
"""The width of the names in the chart."""

NARROWEST = 20
"""The least width of the bars."""

MANY = 40
"""How many calls that one call made have a row of their own."""

LINKS = 12
"""How many pieces of the critical path are shown."""

SMALLEST = 0.01
"""The share of a run from which a call gets a line of its own, if it isn't on the critical path."""

HEIGHTS = " ▁▂▃▄▅▆▇█"

Piece = tuple[float, float, str]


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the chart: pieces of a bar, or the calls of one tool; then the text after it."""

    label: str
    text: str
    color: str
    pieces: Sequence[Piece] = ()
    crowd: Sequence[CallSpan] = ()
    is_bold: bool = False
    is_bad: bool = False


def draw_timeline(events: Iterable[AnyEvent], width: int = 100, *, every_call: bool = False) -> Text:
    """Draw a Gantt chart, then the critical path and computed times of other orders.

    With `every_call` each call has a row, however many there are.
    """
    timeline = fold(events)
    path = find_critical_path(timeline)
    rows = list(_make_rows(timeline, {link.call for link in path if link.call is not None}, every_call))
    behind = 2 + max((cell_len(row.text) for row in rows), default=0)
    room = max(NARROWEST, width - LABEL - behind)
    chart = Text()
    chart.append(f"{timeline.name or timeline.run}  {timeline.status}  {format_seconds(timeline.wall_s)}\n", "bold")
    for row in rows:
        _draw_row(chart, row, timeline.wall_s, room)
    chart.append(f"{'':{LABEL}}0{format_seconds(timeline.wall_s):>{room - 1}}\n", "dim")
    chart.append("· waiting  ▒ running  █ on the critical path", "dim")
    chart.append("  ╌ no token yet  ━ model speaks\n" if timeline.turns else "\n", "dim")
    for line in _summarise(timeline, path):
        chart.append(line + "\n")
    return chart


def _summarise(timeline: Timeline, path: Sequence[PathStep]) -> Iterator[str]:
    """Yield the lines below the chart: sums, the critical path, and the computed times."""
    tools_s = sum(call.duration_s for call in timeline.leaves)
    speaking = f", {format_seconds(timeline.while_speaking_s)} of it while the model was speaking"
    yield f"tools ran {format_seconds(tools_s)} in all{speaking if timeline.turns else ''}"
    if path:
        yield from _say_critical_path(path, timeline.wall_s)
    yield f"one after another: {format_seconds(timeline.one_after_another_s)} (computed)"
    if timeline.turns:
        yield f"turn by turn: {format_seconds(timeline.turn_by_turn_s)} (computed)"


def _say_critical_path(path: Sequence[PathStep], wall_s: float) -> Iterator[str]:
    shown = sorted(sorted(path, key=lambda link: -link.duration_s)[:LINKS], key=lambda link: link.begin_s)
    pieces = [(link.label, link.duration_s) for link in shown]
    if len(path) > len(shown):
        rest_s = sum(link.duration_s for link in path) - sum(link.duration_s for link in shown)
        pieces.append((f"{len(path) - len(shown)} shorter ones", rest_s))
    between_s = wall_s - sum(duration_s for _, duration_s in pieces)
    if between_s >= SMALLEST * wall_s:
        pieces.append(("between them", between_s))
    wide = max(cell_len(label) for label, _ in pieces)
    yield "critical path:"
    for label, duration_s in pieces:
        yield f"  {set_cell_size(label, wide)}  {format_seconds(duration_s):>8}  {duration_s / wall_s:>4.0%}"


def _make_rows(timeline: Timeline, critical: set[str], every_call: bool) -> Iterator[_Row]:
    for turn in timeline.turns:
        yield _make_turn_row(turn, timeline)
    made: dict[str | None, list[CallSpan]] = {}
    for call in timeline.calls.values():
        made.setdefault(call.parent if call.parent in timeline.calls else None, []).append(call)
    stack: list[tuple[CallSpan | list[CallSpan], int]] = [(call, 0) for call in reversed(made.get(None, []))]
    while stack:
        call, depth = stack.pop()
        if isinstance(call, list):
            yield _make_crowd_row(call, depth)
            continue
        yield _make_call_row(call, depth, timeline, call.id in critical)
        inside = made.get(call.id, [])
        if len(inside) <= MANY or every_call:
            stack += [(child, depth + 1) for child in reversed(inside)]
        else:
            stack += [(crowd, depth + 1) for crowd in reversed(_gather(inside, made))]


def _gather(calls: Iterable[CallSpan], made: Mapping[str | None, Sequence[CallSpan]]) -> list[list[CallSpan]]:
    """Group these calls and all that they made by name, without calls that only held others."""
    crowds: dict[str, list[CallSpan]] = {}
    queue = list(calls)
    for call in queue:
        queue += made.get(call.id, ())
        if call.id not in made:
            crowds.setdefault(call.name, []).append(call)
    return list(crowds.values())


def _make_turn_row(turn: TurnSpan, timeline: Timeline) -> _Row:
    end_s = timeline.wall_s if turn.ended_s is None else turn.ended_s
    first_s = end_s if turn.first_s is None else turn.first_s
    attempt = f" (attempt {turn.attempt})" if turn.attempt > 1 else ""
    return _Row(
        f"turn {turn.turn}{attempt}",
        f"{format_seconds(end_s - turn.started_s)}{'' if turn.error is None else ', broke off'}",
        "magenta" if turn.error is None else "red",
        [(turn.started_s, first_s, "╌"), (first_s, end_s, "━")],
        is_bold=True,
    )


def _make_call_row(call: CallSpan, depth: int, timeline: Timeline, is_critical: bool) -> _Row:
    end_s = timeline.wall_s if call.ended_s is None else call.ended_s
    begun_s = end_s if call.started_s is None else call.started_s
    is_good = call.state == "finished"
    return _Row(
        "  " * depth + call.label,
        call.describe(),
        "cyan" if call.source != "run" else "green" if is_good else "red",
        [(call.new_s, begun_s, "·"), (begun_s, end_s, "█" if is_critical else "▒")],
        is_bad=not is_good,
    )


def _make_crowd_row(calls: list[CallSpan], depth: int) -> _Row:
    most = _count_most(calls)
    ends = [call.state for call in calls if call.state != "finished"]
    words = [f"{len(calls)} calls"]
    words += [f"{most} at once"] if most else [f"from {calls[0].source}"] if not ends else []
    words += [f"{ends.count(state)} {state}" for state in dict.fromkeys(ends)]
    label = "  " * depth + calls[0].name
    return _Row(label, ", ".join(words), "red" if ends else "green", crowd=calls, is_bad=bool(ends))


def _draw_row(chart: Text, row: _Row, wall_s: float, room: int) -> None:
    chart.append(_fit(row.label), "bold" if row.is_bold else "")
    scale = room / wall_s if wall_s else 0.0
    bar = _draw_crowd(row.crowd, scale, room) if row.crowd else _draw_bar(row.pieces, scale, room)
    chart.append(bar, row.color)
    chart.append(f" {row.text}\n", "red" if row.is_bad else "")


def _draw_bar(pieces: Sequence[Piece], scale: float, room: int) -> str:
    """Draw the pieces of a line at their times; each takes at least one place."""
    cells = [" "] * room
    for begin, end, mark in pieces:
        first, last = min(room - 1, round(begin * scale)), min(room, round(end * scale))
        for place in range(first, last if end > begin else first):
            cells[place] = mark
    first = min(room - 1, round(pieces[-1][0] * scale))
    if cells[first] == " ":
        cells[first] = "▏"
    return "".join(cells)


def _draw_crowd(calls: Sequence[CallSpan], scale: float, room: int) -> str:
    """Draw how many of the calls ran in each place, in eighths of the maximum."""
    counts = [0] * room
    for call in calls:
        if call.started_s is not None:
            first = min(room - 1, int(call.started_s * scale))
            last = max(first + 1, ceil((call.ended_s or call.started_s) * scale))
            for place in range(first, min(room, last)):
                counts[place] += 1
    most = max(counts)
    return "".join(HEIGHTS[ceil(8 * count / most)] if count else " " for count in counts)


def _count_most(calls: Sequence[CallSpan]) -> int:
    """Count how many of the calls ran in parallel, at most."""
    changes = [(call.started_s, 1) for call in calls if call.started_s is not None]
    changes += [(call.ended_s, -1) for call in calls if call.started_s is not None and call.ended_s is not None]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def _fit(text: str) -> str:
    """Fit the text into the width of a label."""
    return set_cell_size(text, LABEL) if cell_len(text) < LABEL else set_cell_size(text, LABEL - 2) + "… "
