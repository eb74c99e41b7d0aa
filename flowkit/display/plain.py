"""A run in a pipe: the answer as plain text on one stream, everything about it on the other.

The lines of a call and of its result below it are the same on a terminal.
"""

from typing import TextIO

from flowkit.display.transcript import (
    ASKED_AGAIN,
    CALL_ENDS,
    WAITS_FOR_APPROVAL,
    CallBlock,
    State,
    TextBlock,
    Transcript,
)
from flowkit.display.words import clean, say_arguments, say_value, shorten
from flowkit.events import Event, TurnStarted
from flowkit.graph import Graph
from flowkit.graph.pictures.timeline import format_seconds

MARKS: dict[State, str] = {
    "new": "○",
    "sealed": "○",
    "waiting": "◌",
    "running": "●",
    "finished": "✓",
    "failed": "✗",
    "skipped": "–",
    "denied": "✗",
    "undecided": "◌",
    "cancelled": "–",
    "void": "–",
    "in_doubt": "?",
}
STYLES: dict[State, str] = {
    "new": "dim",
    "sealed": "dim",
    "waiting": "yellow",
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "skipped": "dim",
    "denied": "red",
    "undecided": "yellow",
    "cancelled": "dim",
    "void": "dim",
    "in_doubt": "bold yellow",
}
CACHE_MARK = "⚡"
_CONTROLS = ("each", "when", "fallback", "group")


def say_call(block: CallBlock) -> str:
    """Format the call as code; a node that is no tool call (it contains others, or calls a model) by its name and kind."""
    is_no_call = block.arguments is None and block.state not in ("new", "void")
    if is_no_call or (block.name in _CONTROLS and not block.arguments):
        is_named_so = block.call.rsplit("/", 1)[-1] == block.name
        return block.call if is_named_so else f"{block.call} ({block.name})"
    return f"{block.name}({say_arguments(block.arguments)})"


def say_state(block: CallBlock, now: float) -> str:
    """Describe a call's state: `running 0.3 s`, `0.31 s, prefetched`, `⚡ from the cache, 12 s old`, `waits for get_order`."""
    state = _say_state(block, now)
    return f"{state}, prefetched" if block.is_prefetched else state


def say_result(block: CallBlock, limit: int) -> str:
    """Describe the result or the reason, shortened; empty while there is none."""
    if block.state == "finished":
        return say_value(block.value, limit)
    return "" if block.is_open and block.ran_t is None else shorten(block.note, limit)


def _say_state(block: CallBlock, now: float) -> str:
    match block.state:
        case "finished":
            return _say_finished(block)
        case "running":
            started_t = block.opened_t if block.started_t is None else block.started_t
            if block.ran_t is not None:
                return f"{format_seconds(block.ran_t - started_t)}, early; the model is still speaking"
            early = ", early" if block.is_early else ""
            return f"running{early} {format_seconds(max(0.0, now - started_t))}{_say_progress(block)}"
        case "new":
            return "receiving arguments"
        case "sealed":
            return "ready"
        case "waiting":
            return shorten(block.note, 120)
        case "undecided":
            return WAITS_FOR_APPROVAL
        case "in_doubt":
            return "in doubt: it may have taken effect"
        case "failed" | "skipped" | "denied" | "cancelled" | "void":
            return block.state


def _say_finished(block: CallBlock) -> str:
    match block.source:
        case "cache":
            age = "" if block.age_s is None else f", {format_seconds(block.age_s)} old"
            return f"{CACHE_MARK} from the cache{age}"
        case "flight":
            return "shared with an equal call"
        case "journal":
            return "recorded before"
        case _:
            started_t = block.opened_t if block.started_t is None else block.started_t
            return format_seconds((block.ended_t or started_t) - started_t)


def _say_progress(block: CallBlock) -> str:
    if block.progress is None:
        return ""
    done, total = block.progress
    share = f"{done:g}" if total is None else f"{done:g} of {total:g}"
    return f", {share}{f' ({shorten(block.note, 40)})' if block.note else ''}"


RESULT_LIMIT = 160


class PlainDisplay:
    """Write text to `answer` as it arrives, and a line for each finished call to `notes`.

    Thinking isn't written: in a pipe it can't be distinguished from the answer.
    """

    def __init__(self, answer: TextIO, notes: TextIO, *, graph: Graph | None = None) -> None:
        self.transcript = Transcript.of_graph(graph)
        self._answer = answer
        self._notes = notes
        self._is_mid_line = False

    def show(self, event: Event) -> None:
        """Display an event."""
        block = self.transcript.apply(event)
        if isinstance(block, CallBlock) and not block.is_open and event.type in CALL_ENDS:
            self._write_call(block)
        elif isinstance(block, TextBlock) and not block.is_thinking and block.call is None:
            self._write_text(str(getattr(event, "text", "")))
        elif isinstance(event, TurnStarted) and event.attempt > 1:
            self.end()
            self._notes.write(f"{ASKED_AGAIN}\n")

    def end(self) -> None:
        """Complete the answer's last line."""
        if self._is_mid_line:
            self._answer.write("\n")
            self._is_mid_line = False
        self._answer.flush()

    def _write_text(self, text: str) -> None:
        text = clean(text)
        if text:
            self._answer.write(text)
            self._answer.flush()
            self._is_mid_line = not text.endswith("\n")

    def _write_call(self, block: CallBlock) -> None:
        self.end()
        indent = "  " * block.depth
        self._notes.write(f"{indent}{MARKS[block.state]} {say_call(block)}  {say_state(block, self.transcript.now)}\n")
        result = say_result(block, RESULT_LIMIT)
        if result:
            self._notes.write(f"{indent}  {result}\n")
        self._notes.flush()
