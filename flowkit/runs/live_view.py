"""A run in progress in a notebook: one picture that is updated in place.

The picture stays small for any number of steps: it shows how many are done, which ones run, failed or wait for a
person, and the last ones that finished.
"""

import asyncio
from collections.abc import Sequence
from html import escape
from typing import Any, Protocol, TypeVar

from flowkit.events import Event, EventLog, TextDelta, TurnStarted
from flowkit.graph.pictures.timeline import CallSpan, Timeline, fold, format_seconds
from flowkit.notebook import Bundle
from flowkit.runs.results import Pending, RunResult

ResultT = TypeVar("ResultT", bound=RunResult[Any])
ResultT_co = TypeVar("ResultT_co", bound=RunResult[Any], covariant=True)

EVERY_S = 0.2
"""How often the picture is replaced: a person sees no more, and a browser draws no more."""
ROWS = 12
"""How many calls are listed."""
_TEXT = 2_000
_MARKS = {"running": "●", "finished": "✓", "failed": "✗", "in_doubt": "?", "waiting": "◌"}
_FIRST = ("in_doubt", "failed", "running")


class Shown(Protocol[ResultT_co]):
    """A run, as far as it is shown."""

    @property
    def log(self) -> EventLog: ...
    @property
    def status(self) -> str: ...
    @property
    def pending(self) -> tuple[Pending, ...]: ...
    def cancel(self) -> None: ...
    async def wait(self) -> ResultT_co: ...


class Display(Protocol):
    """The notebook's handle of a picture that can be replaced."""

    def update(self, view: Any, /) -> object: ...


class LiveView:
    """The state of a run at one moment, as text and as HTML."""

    def __init__(self, events: Sequence[Event], status: str, pending: Sequence[Pending], now_s: float) -> None:
        self._timeline = fold(events)
        self._status = status
        self._pending = pending
        self._now_s = now_s
        self._text = _find_text(events)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        """Show it in a notebook; texts of models and tools are escaped."""
        steps = _list_steps(self._timeline)
        done = sum(step.ended_s is not None for step in steps)
        title = f"{self._timeline.name or 'run'}: {self._status}, {self._say_progress(steps, done)}"
        rows = [(_mark(step), step.label, self._say_time(step)) for step in _choose(steps)]
        left = len(steps) - len(rows)
        waits = [f"{one.name} waits for approval: run.decide({one.id!r}, Approve())" for one in self._pending]
        text = [title, *(f"  {mark} {label}  {said}" for mark, label, said in rows)]
        text += [f"  … {left} more"] if left else []
        text += [f"  {line}" for line in waits] + ([self._text] if self._text else [])
        cells = "".join(
            f"<tr><td>{escape(mark)}</td><td>{escape(label)}</td><td>{escape(said)}</td></tr>"
            for mark, label, said in rows
        )
        html = f"<strong>{escape(title)}</strong>"
        if steps and self._status == "running":
            html += f'<br><progress value="{done}" max="{len(steps)}" style="width: 20em"></progress>'
        html += f"<table>{cells}</table>" if cells else ""
        html += f"<p>… {left} more</p>" if left else ""
        html += "".join(f"<p>◌ {escape(line)}</p>" for line in waits)
        html += f'<pre style="white-space: pre-wrap">{escape(self._text)}</pre>' if self._text else ""
        return {"text/plain": "\n".join(text), "text/html": html}

    def _say_progress(self, steps: Sequence[CallSpan], done: int) -> str:
        parts = [f"{done} of {len(steps)} steps done"] if steps else []
        running = sum(step.state == "running" and step.started_s is not None for step in steps)
        failed = sum(step.state in ("failed", "in_doubt", "denied") for step in steps)
        parts += [f"{running} running"] if running and self._status == "running" else []
        parts += [f"{failed} failed"] if failed else []
        return ", ".join([*parts, format_seconds(self._now_s)])

    def _say_time(self, step: CallSpan) -> str:
        if step.ended_s is not None:
            return step.describe()
        return format_seconds(max(0.0, self._now_s - step.started_s)) if step.started_s is not None else "waits"


async def show_live(run: Shown[ResultT], display: Display | None) -> ResultT:
    """Replace the picture during the run, and once at its end; interrupting the cell cancels the run."""
    clock = asyncio.get_running_loop().time
    began_s = clock()

    def draw(now_s: float) -> None:
        if display is not None:
            display.update(LiveView(run.log.events, run.status, run.pending, now_s))

    waiting = asyncio.ensure_future(run.wait())
    try:
        while not (await asyncio.wait((waiting,), timeout=EVERY_S))[0]:
            draw(clock() - began_s)
    except asyncio.CancelledError:
        run.cancel()
        await waiting
        draw(clock() - began_s)
        raise
    events = run.log.events
    draw(events[-1].t if events else 0.0)
    return waiting.result()


def open_display() -> Display | None:
    """Open a picture under the cell that runs; None where no notebook would show it."""
    try:
        from IPython import get_ipython  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
        from IPython.display import display  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
    except ImportError:
        return None
    shell: Any = get_ipython()
    if getattr(shell, "kernel", None) is None:
        return None  # a terminal would print each picture below the last one
    return display(LiveView((), "running", (), 0.0), display_id=True)  # pyright: ignore[reportUnknownVariableType]


def _list_steps(timeline: Timeline) -> list[CallSpan]:
    """List the calls that contain no others: the progress of a group or a list is that of its calls."""
    holders = {holder.id for call in timeline.calls.values() if (holder := timeline.holder(call)) is not None}
    return [call for call in timeline.calls.values() if call.id not in holders]


def _choose(steps: Sequence[CallSpan]) -> list[CallSpan]:
    """Choose the calls to show: first the failed ones, then the running, then the last finished; in their order."""
    if len(steps) <= ROWS:
        return list(steps)
    urgent = [step for state in _FIRST for step in steps if _state(step) == state][:ROWS]
    ended = sorted((step for step in steps if step.ended_s is not None), key=lambda step: step.ended_s or 0.0)
    room = ROWS - len(urgent)
    chosen = {id(step) for step in (*urgent, *([step for step in ended if step not in urgent][-room:] if room else ()))}
    return [step for step in steps if id(step) in chosen]


def _state(step: CallSpan) -> str:
    return "waiting" if step.ended_s is None and step.started_s is None else step.state


def _mark(step: CallSpan) -> str:
    return _MARKS.get(_state(step), "–")


def _find_text(events: Sequence[Event]) -> str:
    """Find the text of the agent's own model in its last turn; only the end of a long one."""
    pieces: list[str] = []
    for event in events:
        if isinstance(event, TurnStarted) and getattr(event, "call", None) is None:
            pieces = []
        elif isinstance(event, TextDelta) and event.call is None:
            pieces.append(event.text)
    text = "".join(pieces)
    return text if len(text) <= _TEXT else f"…{text[-_TEXT:]}"
