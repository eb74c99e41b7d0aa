"""Show a run on a terminal: finished blocks scroll away above, live ones are redrawn below.

Blocks stand in the order in which they began. The first ones that can't change any more are printed for good; the
rest is the live part, at most as high as the terminal. Nothing here waits: `show` takes an event in, and a ticking
task of the caller calls `refresh`, so that the times of running calls move.

How far a long run is: steps done, running, failed, and when it may be ready.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from flowkit.codec import JSON
from flowkit.display.plain import MARKS, STYLES, say_call, say_result, say_state
from flowkit.display.transcript import WAITS_FOR_APPROVAL, Block, CallBlock, TextBlock, Transcript
from flowkit.display.words import clean
from flowkit.errors import ResolutionError
from flowkit.events import CallFinished, CallNew, CallStarted, Event, TurnStarted
from flowkit.graph import Each, Graph, Node, get_bodies
from flowkit.graph.pictures.timeline import format_seconds
from flowkit.references import Reference, lookup

_FAILED = frozenset(("call.failed", "call.denied", "call.in_doubt"))
_LEFT_OUT = frozenset(("call.skipped", "call.cancelled", "call.void"))


@dataclass(slots=True)
class Steps:
    """Counts of calls by state; `expected` grows when a list is there whose items are steps, or when more calls come.

    `waiting` are the `each` nodes whose items aren't known yet, by the call that returns their list.
    """

    expected: int = 0
    opened: int = 0
    done: int = 0
    recorded: int = 0
    from_cache: int = 0
    failed: int = 0
    left_out: int = 0
    running: set[str] = field(default_factory=set[str])
    waiting: dict[str, list[Each]] = field(default_factory=dict[str, list[Each]])

    @classmethod
    def of_graph(cls, graph: Graph) -> "Steps":
        """Make the steps of a recipe, none of which has begun."""
        steps = cls()
        steps.expected = steps._expect(graph.values())
        return steps

    def apply(self, event: Event) -> None:
        """Count this event."""
        call = str(getattr(event, "call", ""))
        match event:
            case CallNew():
                self.opened += 1
                return
            case CallStarted():
                self.running.add(call)
                return
            case CallFinished(source=source, value=value):
                self.done += 1
                self.recorded += source == "journal"
                self.from_cache += source == "cache"
                for each in self.waiting.pop(call, ()):
                    self._expect_items(each, value)
            case _:
                self.failed += event.type in _FAILED
                self.left_out += event.type in _LEFT_OUT
                if event.type not in _FAILED | _LEFT_OUT:
                    return
        self.running.discard(call)

    @property
    def are_over(self) -> bool:
        """Return whether each has finished."""
        return self.done + self.failed + self.left_out >= max(self.expected, self.opened)

    def say(self, now: float) -> str:
        """Return one line: `57 of 203 steps done, 8 running, about 12 s left`.

        The time left assumes that the rest goes at the pace of what this run has done itself so far.
        """
        total = max(self.expected, self.opened)
        ended = self.done + self.failed + self.left_out
        parts = [f"{self.done} of {total} steps done"]
        if self.recorded:
            parts[0] += f" ({self.recorded} recorded before)"
        if self.from_cache:
            parts.append(f"{self.from_cache} from the cache")
        if self.running:
            parts.append(f"{len(self.running)} running")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.left_out:
            parts.append(f"{self.left_out} left out")
        worked = ended - self.recorded - self.from_cache
        if worked >= 3 and total > ended and self.running and not self.waiting:
            parts.append(f"about {format_seconds(now / worked * (total - ended))} left")
        return ", ".join(parts)

    def _expect(self, nodes: Iterable[Node]) -> int:
        """Count these steps, those inside them included; note the lists that aren't there yet."""
        count = 0
        for node in nodes:
            count += 1
            if not isinstance(node, Each):
                count += sum(self._expect(body.nodes) for _, body in get_bodies(node))
            elif isinstance(node.over, Reference):
                self.waiting.setdefault(node.over.call_id, []).append(node)
            else:
                count += len(cast(list[object], node.over)) * len(node.body.nodes)
        return count

    def _expect_items(self, each: Each, value: JSON) -> None:
        try:
            items = lookup(value, cast(Reference, each.over).path)
        except ResolutionError:
            return
        if isinstance(items, list):
            # What stands inside an `each` inside is counted when it comes.
            self.expected += len(items) * len(each.body.nodes)


MANY_CALLS = 30
"""With more calls than this, finished ones are counted in one line instead of printed each."""

NARROW = 30
"""With less room for a call itself, only the first part of its state is shown."""
SILENCE_S = 0.15
"""How long a model may say nothing before it is told that it is waited for."""

DRAW_EVERY_S = 0.03
"""More often than this nobody sees a difference; what came in between is drawn by the next event or tick."""


class TerminalDisplay:
    """Show events at the next tick; with a recipe's `graph`, also its progress.

    `server` is the model's host, and `opens` names what must be opened before the first turn."""

    def __init__(
        self, console: Console, *, graph: Graph | None = None, server: str | None = None, opens: str = ""
    ) -> None:
        self.transcript = Transcript.of_graph(graph)
        self._console = console
        self._server = server
        self._opens = opens
        self._steps = Steps() if graph is None else Steps.of_graph(graph)
        self._counts_only = self._steps.expected > MANY_CALLS
        self._printed = 0
        self._drawn_t = float("-inf")
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "TerminalDisplay":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush(everything=True)
        self._live.update(Text(""), refresh=True)
        self._live.stop()
        if self._counts_only and not self._steps.are_over:
            self._console.print(self._steps.say(self.transcript.now), style="bold")

    def show(self, event: Event) -> None:
        """Apply an event and redraw the changes."""
        self.transcript.apply(event)
        self._steps.apply(event)
        if isinstance(event, TurnStarted | CallNew):
            self._opens = ""
        if max(self._steps.expected, self._steps.opened) > MANY_CALLS:
            self._counts_only = True
        self._flush()
        if event.t - self._drawn_t >= DRAW_EVERY_S:
            self.refresh(event.t)

    def refresh(self, now: float) -> None:
        """Draw the live part as of `now`, seconds since the run began."""
        self.transcript.now = max(self.transcript.now, now)
        self._drawn_t = self.transcript.now
        self._live.update(_Cropped(self._draw_live()), refresh=True)

    def _flush(self, *, everything: bool = False) -> None:
        """Print for good what can't change any more."""
        blocks = self.transcript.blocks
        while self._printed < len(blocks):
            block = blocks[self._printed]
            if block.is_open and not everything:
                if isinstance(block, TextBlock):
                    self._print_whole_lines(block)
                break
            if self._is_shown(block):
                self._console.print(self._draw(block), highlight=False)
            self._printed += 1

    def _print_whole_lines(self, block: TextBlock) -> None:
        head, newline, tail = block.text.rpartition("\n")
        if newline and not self._counts_only:
            self._console.print(_draw_text(TextBlock(head, block.is_thinking)), highlight=False)
            block.text = tail

    def _is_shown(self, block: Block) -> bool:
        if isinstance(block, TextBlock):
            return bool(block.text.strip()) and block.call is None
        return not self._counts_only or block.state in ("failed", "denied", "in_doubt")

    def _draw_live(self) -> list[RenderableType]:
        shown: list[RenderableType] = []
        for block in self.transcript.blocks[self._printed :]:
            if self._counts_only and not _is_at_work(block):
                continue
            if isinstance(block, TextBlock) and not block.text.strip():
                continue
            shown.append(self._draw(block))
        if self._counts_only:
            shown.append(Text(self._steps.say(self.transcript.now), style="bold"))
        waits_for = self._opens
        if self.transcript.asked is not None:
            waits_for = self.transcript.asked + (f" at {self._server}" if self._server else "")
        silent_s = self.transcript.now - self.transcript.asked_t
        if waits_for and silent_s >= SILENCE_S:
            waits = f"waiting for {waits_for}, {format_seconds(silent_s)}"
            shown.append(Text(clean(waits), style="dim", no_wrap=True, overflow="ellipsis"))
        return shown

    def _draw(self, block: Block) -> RenderableType:
        return _draw_text(block) if isinstance(block, TextBlock) else self._draw_call(block)

    def _draw_call(self, block: CallBlock) -> RenderableType:
        indent = "" if self._counts_only else "  " * block.depth
        width = max(20, self._console.width - 4 - len(indent))
        line = Text(indent, no_wrap=True, overflow="ellipsis")
        line.append(f"{MARKS[block.state]} ", style=STYLES[block.state])
        state = say_state(block, self.transcript.now)
        call = block.call if self._counts_only else say_call(block)
        if width - cell_len(state) < NARROW:  # the name of the call says more than how old its result is
            state = state.partition(",")[0]
        said = Text(call, style="bold")
        said.truncate(max(12, width - cell_len(state)), overflow="ellipsis")  # a Hangul syllable takes two cells
        line.append_text(said)
        line.append(f"  {state}", style=STYLES[block.state])
        result = say_result(block, width - 2)
        if not result:
            return line
        below = Text(f"{indent}  ", no_wrap=True, overflow="ellipsis")
        below.append(result, style="red" if block.state in ("failed", "denied") else "")
        return Group(line, below)


def _is_at_work(block: Block) -> bool:
    """Return whether to draw it when there are many: text, calls that run or wait for a person."""
    if isinstance(block, TextBlock):
        return block.is_open
    return block.state == "running" or (block.state == "waiting" and block.note == WAITS_FOR_APPROVAL)


def _draw_text(block: TextBlock) -> Text:
    return Text(clean(block.text), style="dim italic" if block.is_thinking else "")


class _Cropped:
    """The last lines of its parts, as many as the terminal has."""

    def __init__(self, parts: list[RenderableType]) -> None:
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(Group(*self._parts), options.update(height=None), pad=False)
        for number, line in enumerate(lines[-max(1, console.height - 1) :]):
            if number:
                yield Segment.line()
            yield from line
